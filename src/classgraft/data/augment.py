"""Augmentation of a whole batch at once, on whatever device the batch is.

Every function takes pixels (B, 3, H, W) in 0..1, the side of the square to give back, and uniform draws (B, n), and
returns pixels (B, 3, size, size). ``DRAWS`` numbers suffice for each.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from classgraft.errors import InputError, nearest

DRAWS = 8
Augment = Callable[[Tensor, int, Tensor], Tensor]


def centre(pixels: Tensor, size: int, draws: Tensor | None = None) -> Tensor:
    """The middle square, as evaluation sees it."""
    top, left = (round((side - size) / 2.0) for side in pixels.shape[-2:])
    return pixels[..., top : top + size, left : left + size]


def flip(pixels: Tensor, size: int, draws: Tensor) -> Tensor:
    """The middle square, mirrored with probability one half."""
    return _mirrored(centre(pixels, size), draws[:, 0])


def crop_flip(pixels: Tensor, size: int, draws: Tensor) -> Tensor:
    """A square at a random place, mirrored with probability one half.

    Where the canvas is no larger than the square it is first padded with black by an eighth on each side: 4 pixels at 32,
    as is usual on CIFAR.
    """
    if pixels.shape[-1] == size:
        pixels = F.pad(pixels, [size // 8] * 4)
    room = pixels.shape[-1] - size + 1
    left, top = (draws[:, i] * room for i in (1, 2))
    along = torch.arange(size, device=pixels.device)
    rows = (top.long()[:, None] + along)[:, :, None]
    columns = (left.long()[:, None] + along)[:, None, :]
    picked = pixels.permute(0, 2, 3, 1)[torch.arange(len(pixels), device=pixels.device)[:, None, None], rows, columns]
    return _mirrored(picked.permute(0, 3, 1, 2), draws[:, 0])


def resized_crop_flip(pixels: Tensor, size: int, draws: Tensor, smallest: float = 0.35) -> Tensor:
    """A rectangle of ``smallest`` to 1 of the area and 3:4 to 4:3 in shape, resized to the square, mirrored by chance."""
    area = smallest + (1 - smallest) * draws[:, 1]
    ratio = torch.exp(math.log(4 / 3) * (2 * draws[:, 2] - 1))
    width, height = ((area * r).sqrt().clamp(max=1) for r in (ratio, 1 / ratio))
    x, y = ((2 * draws[:, 3] - 1) * (1 - width), (2 * draws[:, 4] - 1) * (1 - height))
    mirror = torch.where(draws[:, 0] < 0.5, -1.0, 1.0)
    zero = torch.zeros_like(x)
    affine = torch.stack([torch.stack([width * mirror, zero, x], 1), torch.stack([zero, height, y], 1)], 1)
    grid = F.affine_grid(affine.to(pixels.dtype), [len(pixels), 3, size, size], align_corners=False)
    return F.grid_sample(pixels, grid, mode="bicubic", padding_mode="reflection", align_corners=False).clamp(0, 1)


def _mirrored(pixels: Tensor, draw: Tensor) -> Tensor:
    return torch.where((draw < 0.5)[:, None, None, None], pixels.flip(-1), pixels)


AUGMENTATIONS: dict[str, Augment] = {
    "none": centre,
    "flip": flip,
    "crop-flip": crop_flip,
    "resized-crop-flip": resized_crop_flip,
}


def augmentation(name: str) -> Augment:
    """By its name on the command line."""
    if name not in AUGMENTATIONS:
        raise InputError(f"There is no augmentation '{name}'.{nearest(name, AUGMENTATIONS)}")
    return AUGMENTATIONS[name]
