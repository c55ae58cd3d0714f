"""RanPAC: ridge regression to the classes on a random, rectified projection of frozen features.

McDonnell, Gong, Parvaneh, Abbasnejad, van den Hengel: RanPAC: Random Projections and Pre-trained Models for Continual
Learning, NeurIPS 2023, arXiv 2307.02251, algorithm 1. The body is frozen and the whole head is made anew: the rows of a
trained head do not survive.

    z = C' (G + lambda I)^-1 h,  h = ReLU(R f),  G = sum h h',  C = sum h y'  (y one-hot, R random)

Differs from the paper:
1. The body is not adapted to the first task here: train it first (``finetune``) and ``remember`` that task.
2. The authors' code chooses the ridge on the last fifth of the new task by a regression on the rest of that task alone;
   here the regression has what is kept of earlier tasks as well, and the fifth is drawn from each class.
3. Where every class has a single image there is nothing to choose on; the ridge is the mean of the Gram matrix's diagonal.
4. The Gram matrix is added up and solved in 64 bits and kept in 32.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from classgraft.data.images import Task
from classgraft.models.classifier import Classifier, linear
from classgraft.models.statistics import RandomFeatures, Through
from classgraft.training.moments import covered, fitting, places, seen, share, with_new
from classgraft.verbs import Extender

RIDGES = tuple(10.0**exponent for exponent in range(-8, 9))
"""Lambda, among which one is chosen (appendix F)."""
PIECE = 2048
"""Images whose projected features are in memory together."""
HELD_OUT = 0.2
"""Of each new class, to choose on."""


@dataclass(frozen=True)
class Projected:
    """Sums over all images seen of what their projected features h (M,) are."""

    of: tuple[int, int]
    """Width and seed of the projection."""
    classes: tuple[str, ...]
    count: Tensor
    """int64 (K,)."""
    gram: Tensor
    """G, the sum of h h': float32 (M, M)."""
    sums: Tensor
    """C', for each class the sum of its h: float64 (K, M)."""

    def including(
        self, projection: RandomFeatures, features: Tensor, labels: Tensor, names: tuple[str, ...]
    ) -> Projected:
        """With the projections of these features (N, D) as well, whose ``labels`` (N,) are places in ``names``."""
        classes = with_new(self.classes, names)
        owners, new = places(names, classes)[labels], len(classes) - len(self.classes)
        count = torch.cat([self.count, self.count.new_zeros(new)]) + torch.bincount(owners, minlength=len(classes))
        gram = self.gram.to(torch.float64, copy=True)
        sums = torch.cat([self.sums, self.sums.new_zeros(new, self.sums.shape[1])])
        for some, h in projected(projection, features):
            gram.addmm_(h.T, h)
            sums.index_add_(0, owners[some], h)
        return Projected(self.of, classes, count, gram.float(), sums)

    def without(self, names: Sequence[str]) -> Projected:
        """Without these classes; the Gram matrix loses their share of the images, as it is kept for all together."""
        kept = [k for k, name in enumerate(self.classes) if name not in names]
        gram = self.gram * share(self.count, kept)
        return Projected(self.of, tuple(self.classes[k] for k in kept), self.count[kept], gram, self.sums[kept])

    def solved(self, ridge: float) -> Tensor | None:
        """Rows (K, M) of ridge regression to one-hot targets; None where it has no solution in these digits."""
        factor, failed = torch.linalg.cholesky_ex(self.gram.double().diagonal_scatter(self.gram.diagonal() + ridge))
        return None if failed else torch.cholesky_solve(self.sums.T, factor).T


@dataclass(frozen=True)
class RanPAC(Extender):
    """Gram matrix and class sums of projected features, and the ridge that is best on images held out."""

    keeps: ClassVar[str] = "statistics"
    memory_type: ClassVar[type | None] = Projected
    needs_trained_body: ClassVar[bool] = True
    width: int = 10_000
    """M, projected features; memory and time go with its square and its cube."""
    seed: int = 0
    """Of the projection, and of the images held out."""

    def remember(self, model: Classifier, task: Task, memory: object | None) -> Projected:
        return self.before(memory).including(*self.look(model, task))

    def extend(self, model: Classifier, memory: object | None, task: Task) -> Classifier:
        before = self.before(memory)
        projection, features, labels, names = self.look(model, task)
        kept = before.including(projection, features, labels, names)
        classes = covered(model, kept.classes, names, "ranpac")
        ridge = self.ridge(before, projection, features, labels, names)
        while (rows := kept.solved(ridge)) is None:  # more images may want more digits
            ridge *= 10
        block = linear(rows[places(classes, kept.classes)].float(), None)
        return model.headed([Through([projection], block)], classes).eval()

    def before(self, memory: object | None) -> Projected:
        """What was kept, or nothing."""
        if not isinstance(memory, Projected):
            gram, sums = torch.zeros(self.width, self.width), torch.zeros(0, self.width, dtype=torch.float64)
            return Projected((self.width, self.seed), (), torch.zeros(0, dtype=torch.int64), gram, sums)
        fitting("projected features", (self.width, self.seed), memory.of)
        return memory

    def look(self, model: Classifier, task: Task) -> tuple[RandomFeatures, Tensor, Tensor, tuple[str, ...]]:
        """The projection; and of the task's images the features (N, D), labels and classes."""
        features, labels, names = seen(model, task)
        return RandomFeatures(features.shape[1], self.width, self.seed), features, labels, names

    def ridge(
        self,
        before: Projected,
        projection: RandomFeatures,
        features: Tensor,
        labels: Tensor,
        names: tuple[str, ...],
    ) -> float:
        """The one whose regression on all but the images held out comes nearest to their one-hot targets."""
        held = held_out(labels, self.seed)
        part = before.including(projection, features[~held], labels[~held], names)
        if not held.any():
            return float(part.gram.diagonal().mean()) + 1e-6
        targets = F.one_hot(places(names, part.classes)[labels[held]], len(part.classes)).double()
        solved = {ridge: rows for ridge in RIDGES if (rows := part.solved(ridge)) is not None}
        errors = dict.fromkeys(solved, 0.0)
        for some, h in projected(projection, features[held]):
            for ridge, rows in solved.items():
                errors[ridge] += float((h @ rows.T - targets[some]).square().sum())
        return min(errors, key=errors.__getitem__, default=RIDGES[-1])


def projected(projection: RandomFeatures, features: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Piece by piece, places in features (N, D) and their projections (P, M) in 64 bits: all at once would take more
    memory than everything else."""
    for some in torch.arange(len(features)).split(PIECE):
        yield some, projection(features[some]).double()


def held_out(labels: Tensor, seed: int) -> Tensor:
    """bool (N,): a fifth of each class, drawn; one at least where it has two or more."""
    held = torch.zeros(len(labels), dtype=torch.bool)
    generator = torch.Generator().manual_seed(seed)
    for k in labels.unique().tolist():
        rows = torch.nonzero(labels == k)[:, 0]
        count = max(1, round(HELD_OUT * len(rows))) if len(rows) > 1 else 0
        held[rows[torch.randperm(len(rows), generator=generator)[:count]]] = True
    return held
