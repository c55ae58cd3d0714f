"""What is given for what: new accuracy over old accuracy, and the points that no other beats."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


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
