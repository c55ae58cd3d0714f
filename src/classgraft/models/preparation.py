"""How a picture becomes the input of a network: sizes, mean and standard deviation."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from classgraft.errors import InputError

MOST = 4096
"""Pixels that a side has at most."""


@dataclass(frozen=True)
class Canvas:
    """The square that a picture is decoded onto."""

    side: int
    """In pixels."""
    crop: int = 0
    """Side of what will be cut out of its middle, which is then the middle of the picture to the pixel; 0: the whole."""
    stretched: bool = False
    """The whole picture is squeezed into it, not its middle alone."""


@dataclass(frozen=True)
class Preparation:
    """Resize the short side to ``resize`` pixels (bicubic, antialiased), crop the centre ``size``, normalise.

    Where it says ``stretched``, both sides are resized to it, so that nothing of a picture that is no square is cropped.

    The part up to the resized square is done once, when a picture is decoded; crop and normalisation a batch at a time.
    """

    size: int = 224
    """Side of the square that the network sees, in pixels."""
    resize: int = 256
    """Side of the decoded square, in pixels; at least ``size``."""
    mean: tuple[float, float, float] = (0.485, 0.456, 0.406)
    """Of each channel of pixels in 0..1."""
    std: tuple[float, float, float] = (0.229, 0.224, 0.225)
    """Of each channel of pixels in 0..1."""
    stretched: bool = False
    """Whether pictures are squeezed into the square, as timm's "squash" and most ViTs of transformers do it."""

    def __post_init__(self) -> None:
        if not 1 <= self.size <= self.resize <= MOST:
            raise InputError(
                f"The size is {self.size} and the short side before the crop {self.resize} pixels;"
                f" give 1 <= size <= short side <= {MOST}."
            )
        values = (*self.mean, *self.std)
        if len(self.mean) != 3 or len(self.std) != 3 or not all(map(math.isfinite, values)) or min(self.std) <= 0:
            raise InputError(
                f"The mean is {self.mean} and the deviation {self.std}; give three finite numbers each, std above 0."
            )
        if min(self.mean) < 0 or max(values) > 1:
            raise InputError(
                f"The mean is {self.mean} and the deviation {self.std}, but pixels run from 0 to 1; divide by 255 what is meant"
                " for pixels from 0 to 255."
            )

    def changed(
        self,
        size: int | None = None,
        resize: int | None = None,
        mean: tuple[float, float, float] | None = None,
        std: tuple[float, float, float] | None = None,
        stretched: bool | None = None,
    ) -> Preparation:
        """With what is given in place of its own; another size brings the usual short side with it."""
        side = self.size if size is None else size
        short = resize if resize is not None else self.resize if size is None else usual_resize(side)
        return Preparation(
            side, short, mean or self.mean, std or self.std, self.stretched if stretched is None else stretched
        )

    @property
    def canvas(self) -> Canvas:
        """What pictures are decoded onto."""
        return Canvas(self.resize, self.size, self.stretched)

    @property
    def normalises(self) -> bool:
        """Whether mean and deviation change anything."""
        return any(self.mean) or set(self.std) != {1.0}

    @property
    def share(self) -> float:
        """Crop over short side, such that timm, which divides by it and rounds down, comes to ``resize`` again."""
        share = self.size / self.resize
        return share if int(self.size / share) == self.resize else math.nextafter(share, 0)

    def normalise(self, pixels: Tensor) -> Tensor:
        """Pixels in 0..1 (B, 3, H, W) to the network's input; prepared images, of any channels, pass as they are."""
        if not self.normalises:
            return pixels
        mean = torch.tensor(self.mean, device=pixels.device).view(1, 3, 1, 1)
        std = torch.tensor(self.std, device=pixels.device).view(1, 3, 1, 1)
        return (pixels - mean) / std


def usual_resize(size: int) -> int:
    """The short side that usually goes with a crop: crop / 0.875 from 96 pixels up, else the crop itself."""
    return round(size / 0.875) if size >= 96 else size
