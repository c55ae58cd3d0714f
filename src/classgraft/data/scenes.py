"""Images in which every pixel has a class: masks beside the pictures, moved along by whatever moves those."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from classgraft.data import draws
from classgraft.data.augment import DRAWS, Augment, Composed, centre, centre_affine
from classgraft.data.decode import BadImage, open_rgb
from classgraft.data.images import Images
from classgraft.data.policies import sampled
from classgraft.data.squares import rows_of
from classgraft.errors import InputError
from classgraft.models.preparation import Preparation

VOID = 255
"""In a mask: a pixel that counts for nothing."""


@dataclass(frozen=True)
class Scenes(Images):
    """Images with a mask each. ``labels`` are all 0; scenes without ``classes`` are not annotated."""

    masks: Tensor = field(kw_only=True)
    """uint8 (N, S, S), places in ``classes``, or ``VOID``."""

    def __post_init__(self) -> None:
        super().__post_init__()
        wanted = (len(self.pixels), *self.pixels.shape[2:])
        if tuple(self.masks.shape) != wanted or self.masks.dtype != torch.uint8:
            raise InputError(
                f"The masks are {self.masks.dtype} {tuple(self.masks.shape)}; give uint8 {wanted}, one pixel of a mask for"
                " each of its image."
            )
        counted = self.masks[self.masks != VOID]
        if len(counted) and int(counted.max()) >= len(self.classes):
            raise InputError(
                f"A mask holds {int(counted.max())} but there are {len(self.classes)} class names; a mask holds places in the"
                f" list of names, or {VOID} where a pixel counts for nothing."
            )

    def targets(
        self, index: Tensor, device: torch.device, augment: Augment = centre, seed: int = 0, epoch: int = 0
    ) -> Tensor:
        """Masks of ``view`` with the same arguments, int64 (B, size, size); ``VOID`` where nothing of the image falls."""
        random = draws.uniform(seed, epoch, index.to(device), DRAWS)
        if not isinstance(augment, Composed) and augment is not centre:
            raise InputError("Masks follow an augmentation that has a name; give one of classgraft.data.augment.")
        affine = augment.affine if isinstance(augment, Composed) else centre_affine
        masks = self.masks[index.to(self.masks.device)].to(device)
        return moved(masks, affine(random, masks.shape[-1], self.preparation.size), self.preparation.size)

    def subset(self, index: Tensor) -> Scenes:
        names = tuple(self.names[i] for i in index.tolist()) if self.names else ()
        rows = rows_of(self.pixels, index)
        return replace(self, pixels=rows, labels=self.labels[index], masks=self.masks[index], names=names)

    def of(self, classes: Sequence[str]) -> Scenes:
        """The scenes that show any of these classes, with places in ``classes``; pixels of other classes become void."""
        place = torch.full((256,), VOID, dtype=torch.uint8)
        for k, name in enumerate(classes):
            if name in self.classes:
                place[self.classes.index(name)] = k
        found = replace(self, masks=place[self.masks.long()], classes=tuple(classes))
        return found.subset(torch.nonzero((found.masks != VOID).flatten(1).any(1))[:, 0])

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of pixels and masks, in hexadecimal."""
        hashed = hashlib.sha256(super().fingerprint.encode())
        hashed.update(self.masks.contiguous().numpy().data)
        return hashed.hexdigest()


def moved(masks: Tensor, affine: Tensor, size: int) -> Tensor:
    """Masks (B, S, S) as int64 (B, size, size), each place from the nearest pixel of where ``affine`` (B, 2, 3) sends it.

    Args:
        masks: 0 to 255.
        affine: as ``classgraft.data.policies.sampled`` takes it.
        size: of the square, in pixels.
    """
    # places beyond the edge come back as 0, which only they are once all else is one more
    found = sampled(masks[:, None].float() + 1, affine, size, "nearest")[:, 0].long() - 1
    return found.masked_fill(found < 0, VOID)


def read(
    pictures: str | Path, masks: str | Path, classes: Sequence[str], preparation: Preparation, void: int | None = None
) -> Scenes:
    """Scenes from two folders: pictures, and masks (one channel, a class's place in each pixel) of the same names.

    Pictures of any shape are squeezed whole into the square, for at its edges there is something to be known as well; masks
    are resized to the nearest pixel.

    Args:
        pictures: a folder of images.
        masks: a folder of images without loss, such as PNG; names but for the extension are those of the pictures.
        classes: names in the order of the masks' numbers.
        preparation: its ``resize`` is the side of the square.
        void: the number in the masks that counts for nothing; None: there is none.

    Raises:
        InputError: a picture cannot be read, or its mask is missing, of another size or of other numbers.
    """
    found = sorted(path for path in Path(pictures).glob("*") if path.is_file())
    if not found:
        raise InputError(f"There is no picture in '{pictures}'; name the folder that holds them.")
    beside = {path.stem: path for path in Path(masks).glob("*")}
    pixels, numbers = [], []
    for path in found:
        if path.stem not in beside:
            raise InputError(
                f"The picture '{path.name}' has no mask in '{masks}'; put one there by the name {path.stem}.png."
            )
        picture, mask = open_rgb(path, path.name), _mask(beside[path.stem])
        if picture.size != mask.size:
            raise InputError(
                f"The picture '{path.name}' is {picture.size} and its mask {mask.size}; they should be alike."
            )
        square = (preparation.resize,) * 2
        pixels.append(torch.from_numpy(np.array(picture.resize(square, Image.Resampling.BICUBIC))).permute(2, 0, 1))
        numbers.append(torch.from_numpy(np.array(mask.resize(square, Image.Resampling.NEAREST))))
    annotated = torch.stack(numbers)
    if void is not None:
        annotated = annotated.masked_fill(annotated == void, VOID)
    labels = torch.zeros(len(found), dtype=torch.int64)
    names = tuple(path.name for path in found)
    return Scenes(torch.stack(pixels), labels, tuple(classes), preparation, names, masks=annotated)


def _mask(path: Path) -> Image.Image:
    try:
        with Image.open(path) as image:
            image.load()
            if image.mode in ("L", "P"):  # of a palette the places count, not the colours
                return image.copy()
    except OSError as error:
        raise BadImage(f"mask '{path.name}' cannot be read; replace it.") from error
    raise InputError(f"The mask '{path.name}' has channels of mode {image.mode}; give one channel of numbers (L or P).")
