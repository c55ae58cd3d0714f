"""Images in memory, decoded and resized once, with their labels; what a method is given."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from classgraft.data import draws
from classgraft.data.augment import DRAWS, Augment, centre
from classgraft.errors import InputError
from classgraft.models.preparation import Preparation


@dataclass(frozen=True)
class Images:
    """Squares of pixels with a label each.

    ``pixels`` are uint8 (N, 3, S, S) with S = ``preparation.resize``; or floats (N, C, S, S) that are prepared already,
    with a ``preparation`` that neither crops nor normalises.
    """

    pixels: Tensor
    labels: Tensor
    """int64 (N,), places in ``classes``."""
    classes: tuple[str, ...]
    preparation: Preparation
    names: tuple[str, ...] = ()
    """File names for messages and captions; empty or one an image."""

    def __post_init__(self) -> None:
        if len(self.pixels) != len(self.labels):
            raise InputError(f"There are {len(self.pixels)} images but {len(self.labels)} labels; give one each.")
        if len(self.labels) and not 0 <= int(self.labels.min()) <= int(self.labels.max()) < len(self.classes):
            raise InputError(
                f"Labels run from {int(self.labels.min())} to {int(self.labels.max())} but there are"
                f" {len(self.classes)} class names; labels are places in the list of names."
            )

    def __len__(self) -> int:
        return len(self.pixels)

    def raw(self, index: Tensor, device: torch.device) -> Tensor:
        """The squares at these places, floats in 0..1 (B, 3, S, S) (prepared floats: as they are)."""
        pixels = self.pixels[index.to(self.pixels.device)].to(device, non_blocking=True)
        return pixels if pixels.is_floating_point() else pixels.float().div_(255)

    def view(self, index: Tensor, device: torch.device, augment: Augment = centre, seed: int = 0, epoch: int = 0) -> Tensor:
        """Network input (B, 3, size, size); the draws of the augmentation are keyed by seed, epoch and place."""
        random = draws.uniform(seed, epoch, index.to(device), DRAWS)
        return self.preparation.normalise(augment(self.raw(index, device), self.preparation.size, random))

    def subset(self, index: Tensor) -> Images:
        names = tuple(self.names[i] for i in index.tolist()) if self.names else ()
        return replace(self, pixels=self.pixels[index], labels=self.labels[index], names=names)

    def of(self, classes: Sequence[str]) -> Images:
        """The images of these classes, relabelled to their places in ``classes``."""
        place = torch.full((len(self.classes),), -1)
        for k, name in enumerate(classes):
            place[self.classes.index(name)] = k
        kept = torch.nonzero(place[self.labels] >= 0)[:, 0]
        return replace(self.subset(kept), labels=place[self.labels[kept]], classes=tuple(classes))

    def shots(self, count: int, seed: int) -> Images:
        """At most ``count`` images of each class, drawn by the seed: class by class, without replacement."""
        generator = np.random.default_rng(seed)
        kept = [np.flatnonzero(self.labels.numpy() == k) for k in range(len(self.classes))]
        kept = [np.sort(generator.permutation(rows)[:count]) for rows in kept]
        return self.subset(torch.from_numpy(np.concatenate(kept)))

    def split(self, fraction: float, seed: int) -> tuple[Images, Images]:
        """Two parts, the second with ``fraction`` of each class (at least one image where it has two or more)."""
        generator = np.random.default_rng(seed)
        first: list[np.ndarray] = []
        second: list[np.ndarray] = []
        for k in range(len(self.classes)):
            rows = generator.permutation(np.flatnonzero(self.labels.numpy() == k))
            cut = max(1, round(fraction * len(rows))) if len(rows) > 1 else 0
            second.append(np.sort(rows[:cut]))
            first.append(np.sort(rows[cut:]))
        return self.subset(torch.from_numpy(np.concatenate(first))), self.subset(torch.from_numpy(np.concatenate(second)))


def joined(first: Images, second: Images) -> Images:
    """Both sets under the classes of the first, then those of the second that the first lacks."""
    classes = first.classes + tuple(name for name in second.classes if name not in first.classes)
    place = torch.tensor([classes.index(name) for name in second.classes], dtype=torch.int64)
    labels = torch.cat([first.labels, place[second.labels]])
    return replace(
        first, pixels=torch.cat([first.pixels, second.pixels]), labels=labels, classes=classes, names=(*first.names, *second.names)
    )


@dataclass(frozen=True)
class Task:
    """What there is to learn from: the classes that it brings and their training images, never test images."""

    classes: tuple[str, ...]
    train: Images
    unlabelled: Images | None = None
