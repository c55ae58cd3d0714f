"""Images, decoded and resized once, with their labels; what a method is given.

In memory, or on the disk where they do not fit (``classgraft.data.streaming``): the same interface and the same bits.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from classgraft.data import draws
from classgraft.data.augment import DRAWS, Augment, centre
from classgraft.data.squares import Squares, rows_of, together
from classgraft.errors import InputError
from classgraft.models.preparation import Preparation

ON_DEVICE = 4 << 30
"""Bytes of pixels that may lie on an accelerator."""


@dataclass(frozen=True)
class Images:
    """Squares of pixels with a label each.

    ``pixels`` are uint8 (N, 3, S, S) with S = ``preparation.resize``; or floats (N, C, S, S) that are prepared already,
    with a ``preparation`` that neither crops nor normalises. Where they stream they are ``Squares``, which have a
    tensor's ``shape``, ``dtype``, ``device``, length and rows, but no arithmetic.
    """

    pixels: Tensor
    labels: Tensor
    """int64 (N,), places in ``classes``; all 0 where nothing is labelled."""
    classes: tuple[str, ...]
    """Empty where nothing is labelled."""
    preparation: Preparation
    names: tuple[str, ...] = ()
    """File names for messages and captions; empty or one an image."""

    def __post_init__(self) -> None:
        if len(self.pixels) != len(self.labels):
            raise InputError(f"There are {len(self.pixels)} images but {len(self.labels)} labels; give one each.")
        if len(self.labels) and not 0 <= int(self.labels.min()) <= int(self.labels.max()) < max(1, len(self.classes)):
            raise InputError(
                f"Labels run from {int(self.labels.min())} to {int(self.labels.max())} but there are"
                f" {len(self.classes)} class names; labels are places in the list of names."
            )
        shape, own = tuple(self.pixels.shape), self.preparation
        height, width = shape[2:] if len(shape) == 4 else (0, 0)
        floats = self.pixels.dtype.is_floating_point
        if height != width or (height < own.size if floats else height != own.resize):
            sides = f"squares of {own.resize} pixels, to which their preparation resizes"
            sides = f"squares of at least {own.size} pixels, which the network sees" if floats else sides
            raise InputError(f"The images are {str(self.pixels.dtype).removeprefix('torch.')} {shape}; give {sides}.")
        if shape[1] != 3 and own.normalises:
            kind = str(self.pixels.dtype).removeprefix("torch.")
            raise InputError(
                f"The images are {kind} {shape}, but their preparation has means and deviations of three colours; give RGB, or"
                " floats that are prepared, with means of 0 and deviations of 1."
            )

    def __len__(self) -> int:
        return len(self.pixels)

    def raw(self, index: Tensor, device: torch.device) -> Tensor:
        """The squares at these places, floats in 0..1 (B, 3, S, S) (prepared floats: as they are)."""
        pixels = self.pixels[index.to(self.pixels.device)].to(device, non_blocking=True)
        return pixels if pixels.is_floating_point() else pixels.float().div_(255)

    def view(
        self, index: Tensor, device: torch.device, augment: Augment = centre, seed: int = 0, epoch: int = 0
    ) -> Tensor:
        """Network input (B, 3, size, size); the draws of the augmentation are keyed by seed, epoch and place."""
        return self.seen(self.raw(index, device), index, augment, seed, epoch)

    def seen(self, raw: Tensor, index: Tensor, augment: Augment, seed: int, epoch: int) -> Tensor:
        """``view`` of squares that are at hand already, from ``raw``.

        Raises:
            InputError: the augmentation works on colours, which prepared floats are not.
        """
        if getattr(augment, "colours", False) and not self._colours:
            raise InputError(
                "These images are floats that are no colours from 0 to 1, which jitter, RandAugment and AutoAugment work on;"
                " give uint8 pixels, or choose another augmentation, such as crop-flip+cutout."
            )
        random = draws.uniform(seed, epoch, index.to(raw.device), DRAWS)
        return self.preparation.normalise(augment(raw, self.preparation.size, random))

    def targets(
        self, index: Tensor, device: torch.device, augment: Augment = centre, seed: int = 0, epoch: int = 0
    ) -> Tensor:
        """What is to be learnt of ``view`` with the same arguments: labels (B,)."""
        return self.labels[index.to(self.labels.device)].to(device)

    def ahead(self, order: Sequence[Tensor], device: torch.device) -> Iterator[Tensor]:
        """``raw`` of one batch of places after the other; what streams is read while earlier batches are used."""
        if not isinstance(self.pixels, Squares):
            return (self.raw(index, device) for index in order)
        return (pixels.to(device, non_blocking=True).float().div_(255) for pixels in self.pixels.ahead(order))

    def near(self, device: torch.device) -> Images:
        """With the pixels on an accelerator, where they fit the budget."""
        if device.type == "cpu" or isinstance(self.pixels, Squares) or self.pixels.nbytes > ON_DEVICE:
            return self
        return replace(self, pixels=self.pixels.to(device))

    @cached_property
    def _colours(self) -> bool:
        pixels = self.pixels
        if not isinstance(pixels, Tensor) or not pixels.is_floating_point():
            return True
        return pixels.shape[1] == 3 and float(pixels.min()) >= 0 and float(pixels.max()) <= 1

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of pixels and labels, in hexadecimal."""
        hashed = hashlib.sha256(repr((self.preparation, tuple(self.pixels.shape))).encode())
        for index in torch.arange(len(self)).split(4096):
            hashed.update(self.pixels[index.to(self.pixels.device)].cpu().contiguous().view(torch.uint8).numpy().data)
        hashed.update(self.labels.cpu().contiguous().numpy().data)
        return hashed.hexdigest()

    @property
    def counts(self) -> dict[str, int]:
        """How many images there are of each class; empty where nothing is labelled."""
        return dict(zip(self.classes, torch.bincount(self.labels, minlength=len(self.classes)).tolist(), strict=False))

    def subset(self, index: Tensor) -> Images:
        names = tuple(self.names[i] for i in index.tolist()) if self.names else ()
        return replace(self, pixels=rows_of(self.pixels, index), labels=self.labels[index], names=names)

    def of(self, classes: Sequence[str]) -> Images:
        """The images of these classes, relabelled to their places in ``classes``; classes without images are fine."""
        there = {name: k for k, name in enumerate(classes)}
        place = torch.tensor([there.get(name, -1) for name in self.classes], dtype=torch.int64)
        kept = torch.nonzero(place[self.labels] >= 0)[:, 0]
        return replace(self.subset(kept), labels=place[self.labels[kept]], classes=tuple(classes))

    def without(self, classes: Sequence[str]) -> Images:
        """All but the images and the names of these classes."""
        return self.of([name for name in self.classes if name not in classes])

    def merged(self, first: str, second: str) -> Images:
        """Two classes made one, under the name and in the place of the first."""
        if second not in self.classes:
            return self
        if first not in self.classes:
            return replace(self, classes=tuple(first if name == second else name for name in self.classes))
        classes = tuple(name for name in self.classes if name != second)
        place = torch.tensor([classes.index(first if name == second else name) for name in self.classes])
        return replace(self, labels=place[self.labels], classes=classes)

    def shots(self, count: int, seed: int) -> Images:
        """At most ``count`` images of each class, drawn by the seed: class by class, without replacement."""
        generator = np.random.default_rng(seed)
        kept = [np.flatnonzero(self.labels.numpy() == k) for k in range(len(self.classes))]
        kept = [np.sort(generator.permutation(rows)[:count]) for rows in kept]
        return self.subset(torch.from_numpy(np.concatenate(kept)))

    def some(self, count: int, seed: int) -> Images:
        """At most ``count`` images, drawn by the seed whatever their class, in their order; 0: all."""
        if not 0 < count < len(self):
            return self
        return self.subset(torch.from_numpy(np.sort(np.random.default_rng(seed).permutation(len(self))[:count])))

    def split(self, fraction: float, seed: int) -> tuple[Images, Images]:
        """Two parts, the second with ``fraction`` of each class (at least one image where it has two or more).

        Unlabelled images count as one class.
        """
        generator = np.random.default_rng(seed)
        first: list[np.ndarray] = []
        second: list[np.ndarray] = []
        for k in range(max(1, len(self.classes))):
            rows = generator.permutation(np.flatnonzero(self.labels.numpy() == k))
            cut = max(1, round(fraction * len(rows))) if len(rows) > 1 else 0
            second.append(np.sort(rows[:cut]))
            first.append(np.sort(rows[cut:]))
        return self.subset(torch.from_numpy(np.concatenate(first))), self.subset(
            torch.from_numpy(np.concatenate(second))
        )


def joined(first: Images, second: Images) -> Images:
    """Both sets under the classes of the first, then those of the second that the first lacks."""
    classes = first.classes + tuple(name for name in second.classes if name not in first.classes)
    there = {name: k for k, name in enumerate(classes)}
    place = torch.tensor([there[name] for name in second.classes], dtype=torch.int64)
    labels = torch.cat([first.labels, place[second.labels]])
    pixels = together(first.pixels, second.pixels)
    names = tuple(name for part in (first, second) for name in part.names or ("",) * len(part))
    return replace(first, pixels=pixels, labels=labels, classes=classes, names=names if any(names) else ())


@dataclass(frozen=True)
class Task:
    """What there is to learn from: the classes that it brings and their training images, never test images."""

    classes: tuple[str, ...]
    train: Images
    unlabelled: Images | None = None
