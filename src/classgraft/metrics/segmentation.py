"""How far labels of pixels overlap with the true ones: intersection over union."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class Overlap:
    """Counts of pixels of one network that labels every pixel, on one set of scenes; void pixels are left out."""

    classes: tuple[str, ...]
    confusion: Tensor
    """int64 (K, K): [true, predicted]."""

    @property
    def each(self) -> Tensor:
        """Intersection over union of each class (K,), over the pixels of all images; nan where nobody saw the class."""
        right = self.confusion.diagonal().double()
        return right / (self.confusion.sum(0) + self.confusion.sum(1) - right)

    @property
    def mean(self) -> float:
        """mIoU: the mean of ``each`` over the classes that occur, in truth or in an answer."""
        return float(self.each.nanmean())

    @property
    def accuracy(self) -> float:
        """Share of the pixels that are right."""
        return float(self.confusion.diagonal().sum() / self.confusion.sum())


def overlap(predicted: Tensor, masks: Tensor, classes: Sequence[str], void: int) -> Overlap:
    """From predicted and true classes of pixels, integers of any one shape; ``void`` stands for pixels that do not count."""
    size, counted = len(classes), masks != void
    pairs = masks[counted].long() * size + predicted[counted].long()
    return Overlap(tuple(classes), torch.bincount(pairs, minlength=size * size).view(size, size))
