"""Accuracies of old and new classes in the joint label space of all, and calibration.

Accuracies are fractions, micro over images.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
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
    answered: Tensor
    """int64 (K, K), sparse and coalesced: [true, predicted]. Of 20,000 classes a full matrix takes gigabytes."""
    ece: float | None
    """Expected calibration error over 15 bins."""

    @property
    def confusion(self) -> Tensor:
        """int64 (K, K), ``answered`` in full: [true, predicted]."""
        return self.answered.to_dense()

    @cached_property
    def totals(self) -> Tensor:
        """int64 (K,): images of each class."""
        true, _ = self.answered.indices()
        return torch.zeros(len(self.classes), dtype=torch.int64).index_add_(0, true, self.answered.values())

    @cached_property
    def right(self) -> Tensor:
        """int64 (K,): those that were answered right."""
        true, predicted = self.answered.indices()
        counts = self.answered.values() * (true == predicted)
        return torch.zeros(len(self.classes), dtype=torch.int64).index_add_(0, true, counts)

    def accuracy(self, places: Sequence[int] | None = None) -> float | None:
        """Over the images of these classes (all: None); None where there is no image."""
        chosen = slice(None) if places is None else list(places)
        total = int(self.totals[chosen].sum())
        return int(self.right[chosen].sum()) / total if total else None

    @property
    def mistakes(self) -> list[tuple[int, int, int]]:
        """(true, predicted, images) where the two differ: the most frequent first, else in the order of the head."""
        pairs = zip(*self.answered.indices().tolist(), self.answered.values().tolist(), strict=True)
        return sorted(((t, p, n) for t, p, n in pairs if t != p), key=lambda pair: -pair[2])

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
        return int(self.totals[list(places)].sum())

    def summary(self) -> dict[str, Any]:
        """The object that ``evaluate --json`` prints."""
        per_class = {
            self.classes[k]: {"n": int(self.totals[k]), "accuracy": self.accuracy([k])}
            for k in self.totals.nonzero()[:, 0].tolist()
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
                "all": int(self.totals.sum()),
            },
            "per_class": per_class,
        }


def evaluation(logits: Tensor, labels: Tensor, classes: Sequence[str], new: Sequence[int] = ()) -> Evaluation:
    """From logits (N, K) and labels (N,)."""
    pairs, ones = torch.stack([labels, logits.argmax(1)]), torch.ones(len(labels), dtype=torch.int64)
    answered = torch.sparse_coo_tensor(pairs, ones, (len(classes),) * 2, check_invariants=True).coalesce()
    ece = calibration_error(logits.softmax(1), labels) if len(labels) else None
    return Evaluation(tuple(classes), frozenset(new), answered, ece)
