"""Protocols as data, and the streams of tasks that they make of labelled images.

A ``Stream`` yields (task, test) to the evaluator alone; a method is given the task. ``test`` holds the test images of that
step, and its ``classes`` are the step's own.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms import InterpolationMode
from torchvision.transforms.functional import rotate

from classgraft.data.images import Images, Task
from classgraft.errors import InputError
from classgraft.evaluator.orders import Order, ordered

Steps = Iterator[tuple[Task, Images]]


@dataclass(frozen=True)
class Split:
    """Classes come a step at a time. Task-incremental accuracy is measured on the same stream."""

    sizes: tuple[int, ...]
    """Classes of each step; they need not be equal."""
    shots: int | None = None
    """Images of each class from the second step on, drawn by the seed; all: None. (Few-shot class-incremental learning:
    Tao and others, CVPR 2020, arXiv 2004.10956.)"""
    blur: float = 0.0
    """Share of each class's training images that are dealt evenly to the other steps, whose tasks then bring the class as a
    known or an early one. (Bang and others: Rainbow Memory, CVPR 2021, arXiv 2103.17230, "blurry".)"""

    def __post_init__(self) -> None:
        if not self.sizes or min(self.sizes) < 1:
            raise InputError(
                f"The steps have {self.sizes} classes; give one step at least, each of one class at least."
            )
        if self.shots is not None and self.shots < 1:
            raise InputError(f"There are {self.shots} shots; one image a class is the least.")
        if not 0 <= self.blur < 1:
            raise InputError(f"The blur is {self.blur}; it is a share of the images, at least 0 and below 1.")
        if self.blur and len(self.sizes) < 2:
            raise InputError("Boundaries can be blurred only between two steps or more.")

    def groups(self, names: Sequence[str]) -> list[tuple[str, ...]]:
        """The classes of each step.

        Raises:
            InputError: there are fewer classes than the steps take.
        """
        if sum(self.sizes) > len(names):
            raise InputError(
                f"The steps take {sum(self.sizes)} classes, but there are {len(names)}; give smaller steps."
            )
        ends = np.cumsum(self.sizes).tolist()
        return [tuple(names[end - size : end]) for size, end in zip(self.sizes, ends, strict=True)]

    def stream(self, train: Images, test: Images, order: Order, seed: int) -> Steps:
        groups = self.groups(ordered(train.classes, order))
        rows = _blurred(train, groups, self.blur, seed) if self.blur else None
        for step, own in enumerate(groups):
            classes, part = own, train
            if rows:
                part = train.subset(rows[step])
                borne = {train.classes[k] for k in part.labels.unique().tolist()}
                classes = own + tuple(name for group in groups for name in group if name in borne and name not in own)
            part = part.of(classes)
            if self.shots is not None and step:
                part = part.shots(self.shots, seed)
            yield Task(classes, part), test.of(own)


def _blurred(train: Images, groups: Sequence[tuple[str, ...]], blur: float, seed: int) -> list[Tensor]:
    """Places of the training images of each step."""
    generator = np.random.default_rng([seed, 0x424C5552])
    rows: list[list[int]] = [[] for _ in groups]
    for own, group in enumerate(groups):
        others = [step for step in range(len(groups)) if step != own]
        for name in group:
            places = generator.permutation(np.flatnonzero(train.labels.numpy() == train.classes.index(name))).tolist()
            strays = round(blur * len(places))
            rows[own] += places[strays:]
            first = int(generator.integers(len(others)))
            for k, place in enumerate(places[:strays]):
                rows[others[(first + k) % len(others)]].append(place)
    return [torch.tensor(sorted(of_step), dtype=torch.int64) for of_step in rows]


@dataclass(frozen=True)
class Equal:
    """A first step and equal ones after it, the last with what is left."""

    first: int
    """Classes of the first step."""
    step: int
    """Classes of every other."""
    classes: int | None = None
    """Only the first so many of the order; all: None."""
    shots: int | None = None
    """As of ``Split``."""
    blur: float = 0.0
    """As of ``Split``."""

    def split(self, known: int) -> Split:
        """Its steps, of so many classes."""
        count = self.classes if self.classes is not None else known
        if not (1 <= self.first <= count and self.step >= 1):
            raise InputError(
                f"{count} classes cannot come {self.first} first and then {self.step} at a time; give from 1 to {count}."
            )
        full, left = divmod(count - self.first, self.step)
        return Split((self.first, *[self.step] * full, *[left] * bool(left)), self.shots, self.blur)

    def groups(self, names: Sequence[str]) -> list[tuple[str, ...]]:
        return self.split(len(names)).groups(names)

    def stream(self, train: Images, test: Images, order: Order, seed: int) -> Steps:
        return self.split(len(train.classes)).stream(train, test, order, seed)


@dataclass(frozen=True)
class Domains:
    """The same classes in every step, the images changed another way in each; in the first they are as they are."""

    change: Literal["permuted", "rotated"]
    """``permuted``: every pixel to another place (Goodfellow and others, arXiv 1312.6211); ``rotated``: by step x 180 degrees
    over the number of steps (after Lopez-Paz and Ranzato, arXiv 1706.08840)."""
    steps: int = 10

    def __post_init__(self) -> None:
        if self.change not in ("permuted", "rotated"):
            raise InputError(f"Images cannot be '{self.change}'; say permuted or rotated.")
        if self.steps < 1:
            raise InputError(f"There are {self.steps} steps; give one at least.")

    def groups(self, names: Sequence[str]) -> list[tuple[str, ...]]:
        return [tuple(names)] * self.steps

    def stream(self, train: Images, test: Images, order: Order, seed: int) -> Steps:
        for step in range(self.steps):
            changed = self._changed(train, step, order), self._changed(test.of(train.classes), step, order)
            yield Task(train.classes, changed[0]), changed[1]

    def _changed(self, images: Images, step: int, order: Order) -> Images:
        if not step:
            return images
        pixels = images.pixels[torch.arange(len(images))]
        if self.change == "rotated":
            turned = [rotate(part, 180 * step / self.steps, InterpolationMode.BILINEAR) for part in pixels.split(4096)]
            return replace(images, pixels=torch.cat(turned))
        if not isinstance(order, int):
            raise InputError(f"The order '{order}' says nothing of pixels; give the seed of the permutations.")
        places = np.random.default_rng([order, step]).permutation(pixels.shape[-1] * pixels.shape[-2])
        return replace(images, pixels=pixels.flatten(2)[:, :, torch.from_numpy(places)].view_as(pixels))


Protocol = Split | Equal | Domains


@dataclass(frozen=True)
class Stream:
    """A protocol on images, in one order."""

    protocol: Protocol
    train: Images
    test: Images
    order: Order
    seed: int
    """Of what is drawn: shots and strays."""

    def __iter__(self) -> Steps:
        return self.protocol.stream(self.train, self.test, self.order, self.seed)

    @property
    def length(self) -> int:
        """Training images of all steps; those that few shots leave out are counted."""
        groups, own = self.protocol.groups(ordered(self.train.classes, self.order)), self.train.counts
        return sum(own[name] for group in groups for name in group)
