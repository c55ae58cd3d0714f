"""Batches of images in an order drawn from (seed, epoch), from any place in an epoch on."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from itertools import islice

import torch
from torch import Tensor

from classgraft.data.augment import Augment, augmentation
from classgraft.data.images import Images
from classgraft.errors import InputError
from classgraft.training.carries import digest
from classgraft.training.distributed import world
from classgraft.training.recipe import Recipe


@dataclass(frozen=True)
class Batch:
    """One step's images, augmented once by the recipe."""

    images: Tensor
    """Network input (B, C, size, size)."""
    targets: Tensor
    """Labels (B,); or masks (B, size, size) that moved along with the images, where those are scenes."""
    index: Tensor
    """Places in the set (B,)."""
    progress: float
    """0 at the first batch of an epoch, 1 at the last."""
    source: Images
    epoch: int
    seed: int
    share: float = 1.0
    """Of the whole batch, where several processes divide it."""

    def view(self, augment: Augment, another: int = 1) -> Tensor:
        """The same images in another view; ``another`` numbers the views of one batch."""
        return self.source.view(self.index, self.images.device, augment, self.seed + 7919 * another, self.epoch)


def images_in(batch: object) -> int:
    """Images of a batch, or of one of each of several sources; 0 of what is neither."""
    if isinstance(batch, tuple):
        return sum(map(images_in, batch))
    return len(batch.index) if isinstance(batch, Batch) else 0


@dataclass(frozen=True)
class Epochs:
    """The batches of every epoch. Under ``torchrun`` each process sees its share of each batch."""

    images: Images
    recipe: Recipe
    device: torch.device

    def __call__(self, epoch: int, first: int = 0) -> Iterator[Batch]:
        """From batch ``first`` on."""
        images, recipe = self._near, self.recipe
        generator = torch.Generator().manual_seed(recipe.seed * 1_000_003 + epoch)
        order = dealt(torch.randperm(len(images), generator=generator), recipe.batch_size)
        augment = augmentation(recipe.augment)
        shares = [world().share(index) for index in order[first:]]
        squares = images.ahead([index for index, _ in shares], self.device)
        for i, ((index, share), square) in enumerate(zip(shares, squares, strict=True), start=first):
            view = images.seen(square, index, augment, recipe.seed, epoch)
            targets = images.targets(index, self.device, augment, recipe.seed, epoch)
            progress = i / max(1, len(order) - 1)
            yield Batch(view, targets, index.to(self.device), progress, images, epoch, recipe.seed, share)

    def __len__(self) -> int:
        """Batches an epoch."""
        return len(dealt(torch.arange(len(self.images)), self.recipe.batch_size))

    @cached_property
    def _near(self) -> Images:
        return self.images.near(self.device)

    def not_empty(self) -> Epochs:
        """Itself.

        Raises:
            InputError: there is no image.
        """
        if not len(self.images):
            raise InputError("There is no image to learn from: of the classes that are to be learnt none is shown.")
        return self

    @property
    def work(self) -> float:
        """Images that all epochs look at, counted in images of 32 x 32 pixels."""
        return len(self.images) * self.recipe.epochs * (self.images.preparation.size / 32) ** 2

    @property
    def fingerprint(self) -> str:
        return digest(self.images.fingerprint)


def dealt(order: Tensor, size: int) -> list[Tensor]:
    """As few batches of at most ``size`` as there can be, none larger than another by more than one image.

    A small last one would pull as hard as a whole one, and batch norm would go by it. None is of one image, which batch norm
    over features cannot take: with ``size`` 2 an odd number makes a batch of three, and an only image stands twice.
    """
    if size == 1 or len(order) < 2:
        return list((order if size == 1 else order.repeat(2)).split(size)) if len(order) else []
    return list(order.tensor_split(min(-(-len(order) // size), len(order) // 2)))


@dataclass(frozen=True)
class Abreast:
    """Batches of several sources side by side, such as labelled and unlabelled images at the ratio of their batch sizes.

    An epoch is a pass over the source with the most batches; the others go round and round at their own pace.
    """

    parts: tuple[Epochs, ...]

    def __call__(self, epoch: int, first: int = 0) -> Iterator[tuple[Batch, ...]]:
        """From batch ``first`` on."""
        start = epoch * len(self) + first
        yield from islice(zip(*(_round(part, start) for part in self.parts), strict=True), len(self) - first)

    def __len__(self) -> int:
        """Batches an epoch."""
        return max(map(len, self.parts))

    @property
    def work(self) -> float:
        """As of ``Epochs``, all parts together."""
        return sum(part.work / max(1, len(part)) * len(self) for part in self.parts)

    @property
    def fingerprint(self) -> str:
        return digest(*((part.fingerprint, repr(part.recipe)) for part in self.parts))


def _round(source: Epochs, start: int) -> Iterator[Batch]:
    """Without end, from the batch on that is number ``start`` since the first epoch."""
    epoch, first = divmod(start, len(source))
    while True:
        yield from source(epoch, first)
        epoch, first = epoch + 1, 0
