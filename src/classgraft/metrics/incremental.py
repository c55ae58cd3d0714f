"""A stream of classes: accuracy after every step on the images of every step, and what follows from it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Incremental:
    """Right answers on the test images of every step of a stream, after every step; images are grouped as they came.

    Averages over steps are not weighted by the steps' sizes; accuracies within a step are micro over its images.
    """

    right: Tensor
    """int64 (T, T): [after step t, on the images of step j]; negative where it was not measured."""
    images: Tensor
    """int64 (T,): test images of each step."""

    @property
    def accuracy(self) -> Tensor:
        """Float64 (T, T); nan where it was not measured."""
        return torch.where(self.right < 0, torch.nan, self.right.double() / self.images)

    @property
    def seen(self) -> Tensor:
        """Float64 (T,): accuracy after each step on the images of all steps up to it."""
        return self.right.tril().sum(1).double() / self.images.cumsum(0)

    @property
    def average(self) -> float:
        """Average incremental accuracy, the first step included.

        Rebuffi, Kolesnikov, Sperl, Lampert: iCaRL, CVPR 2017, arXiv 1611.07725, section 4.
        """
        return float(self.seen.mean())

    @property
    def last(self) -> float:
        return float(self.seen[-1])

    @property
    def forgetting(self) -> float | None:
        """The most that each earlier step ever had before the last step, less what it has now; None for a single step.

        Chaudhry, Dokania, Ajanthan, Torr: Riemannian Walk, ECCV 2018, arXiv 1801.10112, equation 3. May be negative.
        """
        if len(self.images) < 2:
            return None
        before = torch.where(torch.ones_like(self.right).tril().bool(), self.accuracy, -torch.inf)[:-1, :-1]
        return float((before.max(0).values - self.accuracy[-1, :-1]).mean())

    @property
    def backward_transfer(self) -> float | None:
        """What each earlier step has now, less what it had when it was learnt; None for a single step.

        Lopez-Paz, Ranzato: Gradient Episodic Memory, NIPS 2017, arXiv 1706.08840, equation 3.
        """
        if len(self.images) < 2:
            return None
        return float((self.accuracy[-1, :-1] - self.accuracy.diagonal()[:-1]).mean())

    def forward_transfer(self, untrained: float) -> float | None:
        """What each step had just before it was learnt, less the accuracy of an untrained network (their equation 4).

        None for a single step, and where that was not measured: classes that are not known yet cannot be answered.
        """
        before = self.accuracy.diagonal(1)
        return None if not len(before) or bool(before.isnan().any()) else float((before - untrained).mean())

    @property
    def old(self) -> float | None:
        """Accuracy at the end on the images of all steps but the last; None for a single step."""
        count = int(self.images[:-1].sum())
        return int(self.right[-1, :-1].sum()) / count if count else None

    @property
    def new(self) -> float:
        """Accuracy at the end on the images of the last step."""
        return int(self.right[-1, -1]) / int(self.images[-1])
