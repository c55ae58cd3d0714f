"""Accuracies of old and new classes in the joint label space of all, and calibration.

Accuracies are fractions, micro over images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor


def harmonic(old: float | None, new: float | None) -> float | None:
    """Harmonic mean of two accuracies; None where either is not measured, 0 where either is 0."""
    if old is None or new is None:
        return None
    return 0.0 if old + new == 0 else 2 * old * new / (old + new)


def calibration_error(probabilities: Tensor, labels: Tensor, bins: int = 15) -> float:
    """Expected calibration error: |confidence - accuracy| averaged over equal bins of the confidence, by share.

    Guo, Pleiss, Sun, Weinberger: On Calibration of Modern Neural Networks, ICML 2017, arXiv 1706.04599, equation 3.

    Args:
        probabilities: (N, K).
        labels: (N,).
    """
    confidence, predicted = probabilities.double().max(1)
    right = (predicted == labels).double()
    bin_ = (confidence * bins).ceil().long().clamp(1, bins) - 1  # bins are open below and closed above
    gap = torch.zeros(bins, dtype=torch.float64).index_add_(0, bin_, confidence - right)
    return float(gap.abs().sum() / len(labels))


@dataclass(frozen=True)
class Evaluation:
    """Counts of one classifier on one set of images."""

    classes: tuple[str, ...]
    new: frozenset[int]
    """Places of the classes that the last extension added."""
    confusion: Tensor
    """int64 (K, K): [true, predicted]."""
    ece: float | None
    """Expected calibration error over 15 bins."""

    def accuracy(self, places: Sequence[int] | None = None) -> float | None:
        """Over the images of these classes (all: None); None where there is no image."""
        confusion = self.confusion if places is None else self.confusion[list(places)]
        rows = range(len(self.classes)) if places is None else places
        right = sum(int(self.confusion[k, k]) for k in rows)
        total = int(confusion.sum())
        return right / total if total else None

    @property
    def old_places(self) -> list[int]:
        return [k for k in range(len(self.classes)) if k not in self.new]

    @property
    def old(self) -> float | None:
        return self.accuracy(self.old_places)

    @property
    def added(self) -> float | None:
        """Accuracy of the new classes."""
        return self.accuracy(sorted(self.new))

    def count(self, places: Sequence[int]) -> int:
        return int(self.confusion[list(places)].sum())

    def summary(self) -> dict[str, Any]:
        """The object that ``evaluate --json`` prints."""
        per_class = {
            name: {"n": int(self.confusion[k].sum()), "accuracy": self.accuracy([k])}
            for k, name in enumerate(self.classes)
            if int(self.confusion[k].sum())
        }
        return {
            "old": self.old,
            "new": self.added,
            "harmonic": harmonic(self.old, self.added),
            "all": self.accuracy(),
            "ece": self.ece,
            "n": {
                "old": self.count(self.old_places),
                "new": self.count(sorted(self.new)),
                "all": int(self.confusion.sum()),
            },
            "per_class": per_class,
        }


def evaluation(logits: Tensor, labels: Tensor, classes: Sequence[str], new: Sequence[int] = ()) -> Evaluation:
    """From logits (N, K) and labels (N,)."""
    size = len(classes)
    confusion = torch.bincount(labels * size + logits.argmax(1), minlength=size * size).view(size, size)
    ece = calibration_error(logits.softmax(1), labels) if len(labels) else None
    return Evaluation(tuple(classes), frozenset(new), confusion, ece)
