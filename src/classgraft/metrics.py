"""What is measured: accuracies of old and new classes, calibration, and the trade between old and new.

Tensors in, numbers out. Accuracies are fractions, micro over images, in the joint label space of all classes.
"""

from __future__ import annotations

import math
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


@dataclass(frozen=True)
class Curve:
    """New accuracy over old accuracy as one number is added to every new logit."""

    offset: Tensor
    """(M,), ascending: the more is added, the more images go to the new classes."""
    old: Tensor
    """(M,) accuracy of old images in the joint label space."""
    new: Tensor
    """(M,) accuracy of new images."""

    @property
    def harmonic(self) -> Tensor:
        return 2 * self.old * self.new / (self.old + self.new).clamp(min=1e-12)

    @property
    def area(self) -> float:
        """Area under new accuracy over old accuracy, as a share of the unit square (trapezoids, from old = 0)."""
        old, new = self.old.flip(0), self.new.flip(0)
        return float(torch.trapezoid(torch.cat([new[:1], new]), torch.cat([old.new_zeros(1), old])))

    @property
    def best(self) -> float:
        """The best harmonic mean on the curve: what an offset chosen on these very images would give."""
        return float(self.harmonic.max())

    @property
    def achieved(self) -> float:
        """The harmonic mean at offset 0."""
        return float(self.harmonic[int(self.offset.abs().argmin())])

    @property
    def regret(self) -> float:
        """Calibration regret: best minus achieved."""
        return self.best - self.achieved


def curve(old_images: Tensor, old_labels: Tensor, new_images: Tensor, new_labels: Tensor, first: int) -> Curve:
    """The whole curve, exactly: a point before, between and after all offsets at which any answer changes.

    Args:
        old_images: logits (A, K) of images of old classes.
        old_labels: (A,).
        new_images: logits (B, K) of images of new classes.
        new_labels: (B,).
        first: the place of the first new class; all from there on are new.
    """
    old_margin, old_right = _margin(old_images, old_labels, first)
    new_margin, new_right = _margin(new_images, new_labels, first)
    turns = torch.cat([old_margin, new_margin]).unique()
    between = (turns[1:] + turns[:-1]) / 2
    offset = torch.cat([turns[:1] - 1, between, turns[-1:] + 1, turns.new_zeros(1)]).unique()
    # an image stays with the old classes while the offset is below its margin
    stays_old = (old_margin[old_right] >= offset[:, None]).sum(1)
    goes_new = (new_margin[new_right] < offset[:, None]).sum(1)
    return Curve(offset, stays_old / max(1, len(old_labels)), goes_new / max(1, len(new_labels)))


def _margin(logits: Tensor, labels: Tensor, first: int) -> tuple[Tensor, Tensor]:
    """How far the best old logit is above the best new one, and whether the label is the best on its own side."""
    old, old_place = logits[:, :first].double().max(1)
    new, new_place = logits[:, first:].double().max(1)
    right = torch.where(labels < first, old_place == labels, new_place + first == labels)
    return old - new, right


def student_interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float]:
    """Mean and half-width of its confidence interval by Student's t; the half-width is nan for a single value."""
    from scipy.stats import t

    count = len(values)
    mean = math.fsum(values) / count
    if count < 2:
        return mean, math.nan
    deviation = math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (count - 1))
    return mean, float(t.ppf((1 + confidence) / 2, count - 1)) * deviation / math.sqrt(count)


def wilson_interval(right: int, total: int, confidence: float = 0.95) -> tuple[float, float]:
    """Lower and upper end of a share's interval.

    Wilson: Probable Inference, the Law of Succession, and Statistical Inference, JASA 1927.
    """
    from scipy.stats import norm

    z = float(norm.ppf((1 + confidence) / 2))
    share, square = right / total, z * z / total
    middle, half = share + square / 2, z * math.sqrt(share * (1 - share) / total + square / (4 * total))
    return (middle - half) / (1 + square), (middle + half) / (1 + square)


def paired_change(before: Tensor, after: Tensor, confidence: float = 0.95) -> tuple[float, float, float]:
    """Change of accuracy between two models on the same images, with the lower and upper end of its interval.

    Half an image is added to each of the four outcomes, so that no change seen does not pass for no change possible.
    Agresti, Min: Simple Improved Confidence Intervals for Comparing Matched Proportions, Statistics in Medicine 2005.

    Args:
        before: whether each image is answered right, bool (N,).
        after: likewise.
    """
    from scipy.stats import norm

    lost, won, count = int((before & ~after).sum()), int((~before & after).sum()), len(before)
    middle = (won - lost) / (count + 2)
    half = float(norm.ppf((1 + confidence) / 2)) * math.sqrt((won + lost + 1) / (count + 2) - middle**2)
    half /= math.sqrt(count + 2)
    return (won - lost) / count, middle - half, middle + half


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


@dataclass(frozen=True)
class Paired:
    """One method less another, run by run."""

    difference: float
    half_width: float
    """Of the interval of the mean difference by Student's t; nan for a single pair."""
    probability: float
    """Of a difference at least this large where there is none (two-sided paired t test); nan for a single pair."""
    pairs: int


def paired(first: Sequence[float], second: Sequence[float], confidence: float = 0.95) -> Paired:
    """Compare two methods on the same seeds and orders, given in the same sequence."""
    from scipy.stats import t

    differences = [a - b for a, b in zip(first, second, strict=True)]
    mean, half = student_interval(differences, confidence)
    count = len(differences)
    if count < 2:
        return Paired(mean, half, math.nan, count)
    error = half / float(t.ppf((1 + confidence) / 2, count - 1))
    ratio = abs(mean) / error if error else (math.inf if mean else 0.0)
    return Paired(mean, half, 2 * float(t.sf(ratio, count - 1)), count)


def frontier(points: Tensor) -> Tensor:
    """Places of the points (N, D), smaller being better, that no other point beats, by their first coordinate.

    One beats another that is nowhere larger and somewhere smaller; of equal points the first stands for all.
    """
    nowhere_larger = (points[:, None] <= points[None]).all(2)  # [i, j]: i is not larger than j anywhere
    equal = (points[:, None] == points[None]).all(2)
    beaten = (nowhere_larger & ~equal).any(0) | torch.triu(equal, 1).any(0)
    kept = torch.nonzero(~beaten)[:, 0]
    return kept[points[kept, 0].argsort(stable=True)]


def unreached(points: Tensor) -> float:
    """Area of the unit square left of or below every one of these points (N, 2): two errors, 0..1, smaller being better.

    1 less the hypervolume of Zitzler and Thiele (1998) with the reference (1, 1); with no point at all 1.
    """
    ends = [*points[frontier(points)].clamp(max=1).tolist(), [1.0, 0.0]]
    left, floor = 0.0, 1.0
    area = 0.0
    for x, y in ends:
        area += (x - left) * floor
        left, floor = x, y
    return area


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
