"""The one training loop: an objective becomes a step, steps become epochs.

``descend`` makes a step out of an objective, ``run`` takes the steps, ``fit`` does both over one set of images.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from classgraft.data.images import Images
from classgraft.errors import InputError
from classgraft.models.classifier import folded
from classgraft.training import journal
from classgraft.training.batches import Abreast, Batch, Epochs, images_in
from classgraft.training.carries import Carried, tensors
from classgraft.training.distributed import agree, average, world
from classgraft.training.engine import choose, first_device
from classgraft.training.journal import Entry, Position
from classgraft.training.progress import report, show_progress, silent
from classgraft.training.recipe import Recipe

Given = TypeVar("Given", Batch, tuple[Batch, ...])
"""What an objective is given: a batch, or one of each of several sources (``Abreast``)."""
Terms = dict[str, Tensor]
"""Named losses, already weighted; a method never adds them up."""


@dataclass
class Step:
    """What happens to one batch, and everything that it changes."""

    take: Callable[[Any], Terms]
    """From a batch, or a tuple of one of each of several sources, to its terms."""
    set_rate: Callable[[float], None]
    carries: Sequence[Carried] = ()
    """Everything that a step changes: modules, optimisers, averages, points, generators."""
    second_order: bool = False
    """Whether gradients of gradients are taken."""


@dataclass
class History:
    """Means over each epoch of every named term."""

    epochs: list[dict[str, float]] = field(default_factory=list)

    @property
    def last(self) -> dict[str, float]:
        return self.epochs[-1] if self.epochs else {}


def descend(
    objective: Callable[[Given], Terms],
    modules: Sequence[nn.Module | Tensor],
    recipe: Recipe,
    *,
    second_order: bool = False,
    carries: Sequence[Carried] = (),
) -> Step:
    """A step that goes down the sum of the objective's terms with the recipe's optimiser.

    Args:
        objective: terms of a batch.
        modules: what learns: modules, or leaf tensors such as one point for each image.
        recipe: gives the optimiser.
        second_order: the objective takes gradients itself and its terms depend on them.
        carries: what else the objective changes, such as an average of weights or a generator that it draws from.
    """
    parameters = [p for part in modules for p in (part.parameters() if isinstance(part, nn.Module) else [part])]
    parameters = [p for p in parameters if p.requires_grad]
    buffers: list[Tensor] = [buffer for part in modules if isinstance(part, nn.Module) for buffer in part.buffers()]
    optimizer = recipe.optimizer(parameters)

    def take(batch: Given) -> Terms:
        optimizer.zero_grad(set_to_none=True)
        losses = objective(batch)
        torch.stack(list(losses.values())).sum().backward()  # type: ignore[no-untyped-call]
        terms: Terms = {name: loss.detach() for name, loss in losses.items()}
        share = batch.share if isinstance(batch, Batch) else batch[0].share
        average(parameters, (*buffers, *terms.values()), share)
        optimizer.step()
        return terms

    def set_rate(rate: float) -> None:
        for group in optimizer.param_groups:
            group["lr"] = rate

    return Step(take, set_rate, (*modules, optimizer, *carries), second_order)


def run(step: Step, epoch_of: Callable[[int], Iterable[Any]], recipe: Recipe, what: str = "training") -> History:
    """Take the steps of every epoch, with the recipe's learning rate.

    ``epoch_of`` gives an epoch's batches, a function of the epoch alone; ``Epochs`` and ``Abreast`` go on inside an epoch at
    once, any other is read up to there. Torch's global generator is seeded by the recipe inside and left alone outside.
    """
    modules = [carried for carried in step.carries if isinstance(carried, nn.Module)]
    device = first_device(step.carries)
    epochs = epoch_of if isinstance(epoch_of, Epochs | Abreast) else None
    engine = choose(device, epochs.work if epochs else 0.0, modules)
    engine = engine.exact if step.second_order else engine
    kept = journal.open_journal()
    with torch.random.fork_rng([device] if device.type == "cuda" else []), engine.ready(*modules):
        torch.manual_seed(recipe.seed + 1_000_003 * world().rank)
        agree(tensor for carried in step.carries for tensor in tensors(carried))
        entry = kept.entry(step.carries, recipe, epochs.fingerprint if epochs else "", engine, what) if kept else None
        history = History(_epochs(step, epoch_of, recipe, what, entry))
    learnt = [tensor for carried in step.carries for tensor in tensors(carried) if tensor.requires_grad]
    # every loss came before its step
    if learnt and not bool(torch.stack([tensor.isfinite().all() for tensor in learnt]).all()):
        raise InputError(
            f"{what}: a weight is no finite number any more; lower the learning rate (lr, now {recipe.lr:g})."
        )
    for tensor in learnt:
        tensor.grad = None  # as large as the weights, and of no more use
    return history


def _epochs(
    step: Step, epoch_of: Callable[[int], Iterable[Any]], recipe: Recipe, what: str, entry: Entry | None
) -> list[dict[str, float]]:
    at = entry.resume() if entry else Position()
    while at.epoch < recipe.epochs:
        started, seen = time.perf_counter(), 0
        step.set_rate(recipe.rate(at.epoch / recipe.epochs))
        for batch in _rest(epoch_of, at.epoch, at.batch):
            seen += images_in(batch)
            for name, term in step.take(batch).items():
                at.sums[name] = at.sums.get(name, torch.zeros_like(term)) + term
            at.batch += 1
            if entry and entry.due(epoch_ends=False):
                entry.write(at)
        # the one place where the host waits for the device
        means = {name: total / at.batch for name, total in _numbers(at.sums).items()}
        if lost := [name for name, mean in means.items() if not math.isfinite(mean)]:
            raise InputError(
                f"{what}: the loss '{lost[0]}' is {means[lost[0]]} in epoch {at.epoch + 1}; lower the learning rate"
                f" (lr, now {recipe.lr:g})."
            )
        at.epochs.append(means)
        at.epoch, at.batch, at.sums = at.epoch + 1, 0, {}
        rate = {"images/s": seen / (time.perf_counter() - started)} if seen else {}
        report(what, at.epoch, recipe.epochs, at.epochs[-1] | rate)
        if entry and (entry.due(epoch_ends=True) or at.epoch == recipe.epochs):
            entry.write(at)
    return at.epochs


def _rest(epoch_of: Callable[[int], Iterable[Any]], epoch: int, done: int) -> Iterator[Any]:
    if isinstance(epoch_of, Epochs | Abreast):
        return epoch_of(epoch, done)
    random, found = torch.get_rng_state(), iter(epoch_of(epoch))
    for _ in range(done):
        next(found)
    torch.set_rng_state(random)  # what is passed over must not have drawn from the state that was resumed
    return found


def _numbers(sums: Terms) -> dict[str, float]:
    return dict(zip(sums, torch.stack(list(sums.values())).tolist(), strict=True)) if sums else {}


def fit(
    module: nn.Module,
    objective: Callable[[Batch], Terms],
    images: Images,
    recipe: Recipe,
    what: str = "training",
    *,
    second_order: bool = False,
    carries: Sequence[Carried] = (),
    statistics: bool = True,
) -> History:
    """Train a module in place, which is the method's own copy, on one set of images; it ends in evaluation mode.

    Frozen parts and folded batch norm stay in evaluation mode, so that their statistics do not move; without ``statistics``
    none do, and batch norm works with those that it has.
    """
    train_mode(module, statistics)
    step = descend(objective, [module], recipe, second_order=second_order, carries=carries)
    history = run(step, Epochs(images, recipe, first_device([module])).not_empty(), recipe, what)
    module.eval()
    return history


def train_mode(module: nn.Module, statistics: bool = True) -> None:
    """Training mode for what learns: a submodule all of whose parameters are frozen stays in evaluation mode.

    So does batch norm without ``statistics``, and where it was folded into the weights before it.
    """
    module.train()
    for part in module.modules():
        parameters = list(part.parameters())
        if parameters and not any(p.requires_grad for p in parameters):
            part.eval()
        if isinstance(part, nn.modules.batchnorm._BatchNorm) and (not statistics or folded(part)):
            part.eval()


__all__ = [
    "Abreast",
    "Batch",
    "Epochs",
    "History",
    "Step",
    "Terms",
    "descend",
    "fit",
    "report",
    "run",
    "show_progress",
    "silent",
    "train_mode",
]
