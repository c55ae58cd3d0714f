"""The one training loop: an objective becomes a step, steps become epochs.

``descend`` makes a step out of an objective, ``run`` takes the steps, ``fit`` does both over one set of images.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from classgraft.data.augment import Augment, augmentation
from classgraft.data.images import Images
from classgraft.training.recipe import Recipe

Terms = dict[str, Tensor]
"""Named losses, already weighted; a method never adds them up."""


@dataclass(frozen=True)
class Batch:
    """One step's images, augmented once by the recipe."""

    images: Tensor
    """Network input (B, C, size, size)."""
    targets: Tensor
    """(B,)."""
    index: Tensor
    """Places in the set (B,)."""
    progress: float
    """0 at the first batch of an epoch, 1 at the last."""
    source: Images
    epoch: int
    seed: int

    def view(self, augment: Augment, another: int = 1) -> Tensor:
        """The same images in another view; ``another`` numbers the views of one batch."""
        return self.source.view(self.index, self.images.device, augment, self.seed + 7919 * another, self.epoch)


@dataclass
class Step:
    """What happens to one batch, and everything that it changes."""

    take: Callable[[Batch], dict[str, Tensor]]
    set_rate: Callable[[float], None]
    carries: Sequence[object] = ()
    """Modules and optimisers that the step changes."""


@dataclass
class History:
    """Means over each epoch of every named term."""

    epochs: list[dict[str, float]] = field(default_factory=list)

    @property
    def last(self) -> dict[str, float]:
        return self.epochs[-1] if self.epochs else {}


Progress = Callable[[str, int, int, dict[str, float]], None]
"""Called after every epoch with what runs, epochs done, epochs in all, and the terms' means."""


def silent(what: str, done: int, total: int, terms: dict[str, float]) -> None:
    """No progress is shown."""


_progress: list[Progress] = [silent]


def show_progress(progress: Progress) -> None:
    """Where the loop reports to, for the whole process; the command line sets it."""
    _progress[0] = progress


def report(what: str, done: int, total: int, terms: dict[str, float] | None = None) -> None:
    """Tell whoever watches how far something is."""
    _progress[0](what, done, total, terms or {})


def descend(objective: Callable[[Batch], Terms], modules: Sequence[nn.Module], recipe: Recipe) -> Step:
    """A step that goes down the sum of the objective's terms with the recipe's optimiser."""
    parameters = [p for module in modules for p in module.parameters() if p.requires_grad]
    optimizer = recipe.optimizer(parameters)

    def take(batch: Batch) -> Terms:
        optimizer.zero_grad(set_to_none=True)
        terms = objective(batch)
        torch.stack(list(terms.values())).sum().backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return {name: term.detach() for name, term in terms.items()}

    def set_rate(rate: float) -> None:
        for group in optimizer.param_groups:
            group["lr"] = rate

    return Step(take, set_rate, (*modules, optimizer))


def batches(images: Images, recipe: Recipe, epoch: int, device: torch.device) -> Iterator[Batch]:
    """One epoch, in an order drawn from (seed, epoch)."""
    generator = torch.Generator().manual_seed(recipe.seed * 1_000_003 + epoch)
    order = torch.randperm(len(images), generator=generator).split(recipe.batch_size)
    augment = augmentation(recipe.augment)
    for i, index in enumerate(order):
        view = images.view(index, device, augment, recipe.seed, epoch)
        progress = i / max(1, len(order) - 1)
        yield Batch(view, images.labels[index].to(device), index.to(device), progress, images, epoch, recipe.seed)


def run(step: Step, epoch_of: Callable[[int], Iterable[Batch]], recipe: Recipe, what: str = "training") -> History:
    """Take the steps of every epoch, with the recipe's learning rate."""
    history = History()
    for epoch in range(recipe.epochs):
        step.set_rate(recipe.rate(epoch / recipe.epochs))
        sums: dict[str, Tensor] = {}
        count = 0
        for batch in epoch_of(epoch):
            for name, term in step.take(batch).items():
                sums[name] = sums.get(name, torch.zeros_like(term)) + term
            count += 1
        history.epochs.append({name: float(total) / count for name, total in sums.items()})
        report(what, epoch + 1, recipe.epochs, history.last)
    return history


def fit(module: nn.Module, objective: Callable[[Batch], Terms], images: Images, recipe: Recipe, what: str = "training") -> History:
    """Train a module in place, which is the method's own copy, on one set of images; it ends in evaluation mode.

    Frozen parts stay in evaluation mode, so that their batch-norm statistics do not move.
    """
    device = next(module.parameters()).device
    train_mode(module)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        history = run(descend(objective, [module], recipe), lambda epoch: batches(images, recipe, epoch, device), recipe, what)
    module.eval()
    return history


def train_mode(module: nn.Module) -> None:
    """Training mode for what learns: a submodule all of whose parameters are frozen stays in evaluation mode."""
    module.train()
    for part in module.modules():
        parameters = list(part.parameters())
        if parameters and not any(p.requires_grad for p in parameters):
            part.eval()
