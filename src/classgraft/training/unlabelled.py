"""What methods that use unlabelled images share: batches beside labelled ones, ramps, and an average of weights."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

import torch
from torch import Tensor, nn

from classgraft.data.augment import mixup_share
from classgraft.data.images import Images
from classgraft.models.classifier import Classifier, folded, frozen
from classgraft.training.answers import evaluating
from classgraft.training.batches import Abreast, Batch, Epochs
from classgraft.training.carries import Carried
from classgraft.training.engine import first_device
from classgraft.training.loop import Step, Terms, descend, run, train_mode
from classgraft.training.recipe import Recipe

Pair = tuple[Batch, ...]
"""A batch of unlabelled images, then one of labelled ones."""


def beside(unlabelled: Images, labelled: Images, recipe: Recipe, ratio: int, device: torch.device) -> Abreast:
    """Batches of unlabelled images, ``ratio`` for each of the recipe's batch, beside batches of labelled ones.

    An epoch is a pass over those of which there are more batches; the others, be they a handful, come round again.
    """
    # by another seed, for both may be the same images
    many = replace(recipe, batch_size=ratio * recipe.batch_size, seed=recipe.seed + 1)
    return Abreast((Epochs(unlabelled, many, device).not_empty(), Epochs(labelled, recipe, device).not_empty()))


def elapsed(pair: Pair, recipe: Recipe) -> float:
    """The share of the whole training that is over, 0..1."""
    # each counts its own passes, and those that come round again are ahead
    return min(batch.epoch + batch.progress for batch in pair) / recipe.epochs


def linear(done: float, start: float, full: float) -> float:
    """0 until ``start``, 1 from ``full`` on, a straight line between."""
    return float(done >= full) if full <= start else min(1.0, max(0.0, (done - start) / (full - start)))


def gentle(done: float, full: float) -> float:
    """From exp(-5) at 0 to 1 at ``full``: exp(-5 (1 - t)^2), Laine and Aila, arXiv 1610.02242, section 2.1."""
    return math.exp(-5 * (1 - linear(done, 0, full)) ** 2)


def together(module: nn.Module, *views: Tensor) -> tuple[Tensor, ...]:
    """Logits of several batches that batch norm sees as one."""
    return module(torch.cat(views)).split([len(view) for view in views])  # type: ignore[no-any-return]


@contextlib.contextmanager
def unmoved(module: nn.Module) -> Iterator[None]:
    """Inside, batch norm in training mode works with the batch's statistics and leaves its running ones alone."""
    norms = _norms(module)
    tracked = [norm.track_running_stats for norm in norms]
    for norm in norms:
        norm.track_running_stats = norm.track_running_stats and not norm.training
    try:
        yield
    finally:
        for norm, was in zip(norms, tracked, strict=True):
            norm.track_running_stats = was


@contextlib.contextmanager
def measured(module: nn.Module) -> Iterator[None]:
    """Inside, nothing is left to chance and nothing moves: no dropout, and batch norm by the batch alone (folded, as it is).

    Losses before and after a step can be compared so, whatever the step did to running statistics.
    """
    with evaluating(module):
        for norm in _norms(module):
            norm.train(not folded(norm))
        with unmoved(module):
            yield


def _norms(module: nn.Module) -> list[nn.modules.batchnorm._BatchNorm]:
    return [part for part in module.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]


def mixed(images: Tensor, targets: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
    """Every image (B, C, H, W) and its soft target (B, K) mixed with a random other's; the larger share is its own.

    Shares are Beta(alpha, alpha) (Zhang and others: mixup, arXiv 1710.09412), each the larger of itself and what it leaves
    (Berthelot and others: MixMatch, arXiv 1905.02249, equation 9). Draws are the global generator's, which ``run`` seeds.
    """
    share = mixup_share(torch.rand(len(images), 4, device=images.device), alpha)
    share = torch.maximum(share, 1 - share)
    order = torch.randperm(len(images)).to(images.device)
    own = share[:, None, None, None]
    return (
        own * images + (1 - own) * images[order],
        share[:, None] * targets + (1 - share[:, None]) * targets[order],
    )


class Average(nn.Module):
    """A classifier whose weights, and batch-norm statistics, are a running mean of another's; in evaluation mode."""

    steps: Tensor

    def __init__(self, of: Classifier, decay: float) -> None:
        super().__init__()
        self.model, self.decay = frozen(of), decay
        self.register_buffer("steps", torch.zeros((), device=of.device))

    def forward(self, images: Tensor) -> Tensor:
        return self.model(images)  # type: ignore[no-any-return]

    @torch.no_grad()
    def follow(self, learner: nn.Module) -> None:
        """A step of the mean; the first steps count for more, so that where it started is soon forgotten."""
        self.steps += 1
        weight = 1 - ((1 + self.steps) / (10 + self.steps)).clamp(max=self.decay)
        for mine, theirs in zip(self.model.state_dict().values(), learner.state_dict().values(), strict=True):
            if mine.is_floating_point():
                mine.lerp_(theirs, weight.to(mine.dtype))
            else:
                mine.copy_(theirs)


def followed(step: Step, average: Average, learner: nn.Module) -> Step:
    """The step, after which the average follows the learner."""

    def take(batch: object) -> dict[str, Tensor]:
        terms = step.take(batch)
        average.follow(learner)
        return terms

    return replace(step, take=take, carries=(*step.carries, average))


def fit_beside(
    module: nn.Module,
    objective: Callable[[Pair], Terms],
    unlabelled: Images,
    labelled: Images,
    recipe: Recipe,
    ratio: int,
    *,
    average: Average | None = None,
    second_order: bool = False,
    carries: Sequence[Carried] = (),
) -> None:
    """What ``fit`` is for one set of images, for unlabelled ones beside labelled ones; an ``average`` follows the module."""
    train_mode(module)
    step = descend(objective, [module], recipe, second_order=second_order, carries=carries)
    if average:
        step = followed(step, average, module)
    run(step, beside(unlabelled, labelled, recipe, ratio, first_device([module])), recipe)
    module.eval()
