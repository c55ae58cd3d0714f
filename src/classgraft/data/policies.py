"""Operations with a strength for every image, and the policies that choose among them.

RandAugment: Cubuk, Zoph, Shlens, Le: RandAugment: Practical automated data augmentation with a reduced search space,
NeurIPS 2020, arXiv:1909.13719. AutoAugment: Cubuk, Zoph, Mane, Vasudevan, Le: AutoAugment: Learning augmentation
strategies from data, CVPR 2019, arXiv:1805.09501.

An operation takes pixels (B, 3, S, S) in 0..1 and strengths (B,) in -1..1 and returns pixels of the same shape. It is
the stronger the farther from 0, and the sign is a direction where it has two. The ranges are AutoAugment's (table 6).
A policy takes pixels and uniform draws (B, n).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache, partial
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from classgraft.errors import InputError

GREY = 0.5
"""What fills a place that no pixel falls on."""
Operation = Callable[[Tensor, Tensor], Tensor]


def sampled(pixels: Tensor, affine: Tensor, size: int, mode: str = "bilinear", padding: str = "zeros") -> Tensor:
    """Pixels (B, C, size, size), each taken from where ``affine`` (B, 2, 3) sends its place in the square.

    Places (x, y) run from -1 at one edge to 1 at the other, in the square and in ``pixels`` (B, C, H, W) alike;
    ``mode`` and ``padding`` are those of ``torch.nn.functional.grid_sample``.
    """
    # F.affine_grid is a matrix product: its precision may be reduced, and its rounding may depend on the batch.
    along = (2 * torch.arange(size, device=pixels.device, dtype=pixels.dtype) + 1) / size - 1
    of_x, of_y, at = affine[..., None, None].to(pixels.dtype).unbind(2)
    grid = (of_x * along + of_y * along[:, None] + at).permute(0, 2, 3, 1)
    return F.grid_sample(pixels, grid, mode=mode, padding_mode=padding, align_corners=False)


MOVES = ("rotate", "shear-x", "shear-y", "translate-x", "translate-y")
"""The operations that are geometry."""


def moves(chosen: Tensor, strength: Tensor, size: int) -> Tensor:
    """The affine maps (B, 2, 3) of the moves at these places (B,) in ``MOVES``; any other place: nothing moves.

    At strength 1 rotation turns by 30 degrees about the centre, anticlockwise; shear moves by 0.3 pixel a pixel
    from the top or left edge, which stays; translation moves by 150/331 of ``size``, in whole pixels.
    """
    kinds = torch.arange(len(MOVES), device=chosen.device)
    angle, slant_x, slant_y, right, down = (strength * (chosen == kinds[:, None])).unbind()
    sin, cos = (angle * math.radians(30)).sin(), (angle * math.radians(30)).cos()
    slant_x, slant_y = 0.3 * slant_x, 0.3 * slant_y
    right, down = (2 / size * (150 / 331 * size * share).trunc() for share in (right, down))
    x = torch.stack([cos, slant_x - sin, slant_x - right], 1)
    y = torch.stack([sin + slant_y, cos, slant_y - down], 1)
    return torch.stack([x, y], 1)


def _moved(pixels: Tensor, chosen: Tensor, strength: Tensor) -> Tensor:
    size = pixels.shape[-1]
    return (sampled(pixels - GREY, moves(chosen, strength, size), size) + GREY).clamp_(0, 1)


def _move(kind: int, pixels: Tensor, strength: Tensor) -> Tensor:
    return _moved(pixels, torch.full_like(strength, kind, dtype=torch.int64), strength)


def _blended(other: Tensor, pixels: Tensor, factor: Tensor) -> Tensor:
    """Factor (B,) 0 leaves ``other``, 1 leaves ``pixels``, and more goes beyond them."""
    factor = factor[:, None, None, None]
    return (factor * pixels + (1 - factor) * other).clamp_(0, 1)


def _luma(pixels: Tensor) -> Tensor:
    red, green, blue = pixels.unbind(1)
    return (0.2989 * red + 0.587 * green + 0.114 * blue)[:, None]


def brightness(pixels: Tensor, factor: Tensor) -> Tensor:
    """Blended with black by a factor (B,)."""
    return (pixels * factor[:, None, None, None]).clamp_(0, 1)


def contrast(pixels: Tensor, factor: Tensor) -> Tensor:
    """Blended with the image's mean luma by a factor (B,)."""
    # A sum of integers is the same in any order, so the mean does not depend on the batch.
    total = (_luma(pixels) * 2**16).round_().long().sum((1, 2, 3), keepdim=True)
    return _blended(total.to(pixels.dtype) / (2**16 * pixels[0, 0].numel()), pixels, factor)


def saturation(pixels: Tensor, factor: Tensor) -> Tensor:
    """Blended with the luma of each pixel by a factor (B,)."""
    return _blended(_luma(pixels), pixels, factor)


def sharpness(pixels: Tensor, factor: Tensor) -> Tensor:
    """Blended by a factor (B,) with the image smoothed by (1 1 1; 1 5 1; 1 1 1) / 13; the outermost pixels stay."""
    across = pixels[..., :-2] + pixels[..., 1:-1] + pixels[..., 2:]
    box = across[..., :-2, :] + across[..., 1:-1, :] + across[..., 2:, :]
    smooth = pixels.clone()
    smooth[..., 1:-1, 1:-1] = (box + 4 * pixels[..., 1:-1, 1:-1]) / 13
    return _blended(smooth, pixels, factor)


def hue(pixels: Tensor, turn: Tensor) -> Tensor:
    """The hue of every pixel turned by ``turn`` (B,) of the circle; saturation and value (of HSV) stay."""
    red, green, blue = pixels.unbind(1)
    high, low = pixels.amax(1), pixels.amin(1)
    chroma = high - low
    from_green, from_blue = 2 * chroma + blue - red, 4 * chroma + red - green
    sixths = torch.where(high == red, green - blue, torch.where(high == green, from_green, from_blue))
    at = sixths / chroma.clamp(min=1e-6) + 6 * turn[:, None, None]
    at = at - 6 * (at / 6).floor()
    shares = torch.stack([(at - 3).abs() - 1, 2 - (at - 2).abs(), 2 - (at - 4).abs()], 1).clamp_(0, 1)
    return low[:, None] + chroma[:, None] * shares


def _enhanced(act: Operation, pixels: Tensor, strength: Tensor) -> Tensor:
    return act(pixels, 1 + 0.9 * strength)


def _levels(pixels: Tensor) -> Tensor:
    return (pixels * 255).round_().long()


def identity(pixels: Tensor, strength: Tensor) -> Tensor:
    """The image as it is."""
    return pixels


def invert(pixels: Tensor, strength: Tensor) -> Tensor:
    """The negative."""
    return 1 - pixels


def solarize(pixels: Tensor, strength: Tensor) -> Tensor:
    """The negative of all levels from 256 (1 - strength) up."""
    threshold = 256 * (1 - strength.abs())
    return torch.where(_levels(pixels) >= threshold[:, None, None, None], 1 - pixels, pixels)


def posterize(pixels: Tensor, strength: Tensor) -> Tensor:
    """The upper 8 - 4 strength bits of the levels."""
    lost = (4 * strength.abs()).round().long()[:, None, None, None]
    return (_levels(pixels) >> lost << lost).to(pixels.dtype) / 255


def autocontrast(pixels: Tensor, strength: Tensor) -> Tensor:
    """Every channel stretched to 0..1; a channel of one level stays."""
    low, high = pixels.amin((2, 3), keepdim=True), pixels.amax((2, 3), keepdim=True)
    return torch.where(high > low, (pixels - low) * (1 / (high - low)), pixels).clamp_(0, 1)


def equalize(pixels: Tensor, strength: Tensor) -> Tensor:
    """Every channel's levels spread so that its histogram is as flat as can be, by PIL's rule."""
    levels = _levels(pixels).flatten(2)
    counts = torch.zeros(*levels.shape[:2], 256, dtype=torch.int64, device=pixels.device)
    counts.scatter_add_(2, levels, torch.ones_like(levels))
    step = (levels.shape[2] - counts.gather(2, levels.amax(2, keepdim=True))) // 255
    below = counts.cumsum(2) - counts
    spread = ((below + step // 2) // step.clamp(min=1)).clamp_(max=255)
    flat = spread.gather(2, levels).to(pixels.dtype).view_as(pixels) / 255
    return torch.where(step[..., None] > 0, flat, pixels)


OPERATIONS: dict[str, Operation] = {name: partial(_move, kind) for kind, name in enumerate(MOVES)} | {
    "identity": identity,
    "autocontrast": autocontrast,
    "equalize": equalize,
    "solarize": solarize,
    "color": partial(_enhanced, saturation),
    "posterize": posterize,
    "contrast": partial(_enhanced, contrast),
    "brightness": partial(_enhanced, brightness),
    "sharpness": partial(_enhanced, sharpness),
}
"""RandAugment's fourteen (section 3)."""
_ALL = OPERATIONS | {"invert": invert}


def applied(pixels: Tensor, chosen: Tensor, strength: Tensor) -> Tensor:
    """Each image (B, 3, S, S) through the operations at its places ``chosen`` (B, N), at its strengths (B, N), in turn.

    The places are those in ``OPERATIONS``; ``invert`` comes after the last.
    """
    rest = [*_ALL.values()][len(MOVES) :]
    counts = (chosen[..., None] == torch.arange(len(_ALL), device=chosen.device)).sum(0).tolist()
    for kind, strong, count in zip(chosen.unbind(1), strength.unbind(1), counts, strict=True):
        order = kind.argsort()
        sizes = [sum(count[: len(MOVES)]), *count[len(MOVES) :]]
        moving, *groups = pixels.index_select(0, order).split_with_sizes(sizes)
        moved, *amounts = strong[order].split_with_sizes(sizes)
        done = [_moved(moving, kind[order][: sizes[0]], moved)] if sizes[0] else []
        done += [act(some, by) for act, some, by in zip(rest, groups, amounts, strict=True) if len(some)]
        pixels = torch.cat(done).index_select(0, order.argsort())
    return pixels


def randaugment(pixels: Tensor, draws: Tensor, number: int = 2, magnitude: float = 9) -> Tensor:
    """``number`` operations (N), drawn from the fourteen with replacement, all of one ``magnitude`` (M, 0..10).

    Takes pixels (B, 3, S, S) and 2N draws an image. The defaults are the paper's for ResNet-50 on ImageNet (section 4).

    Differs from the paper: 1. Every operation gets stronger with M. In the published code some do the reverse: a
    colour factor of 0.1 + 0.18 M is no change at M = 5, and solarize and posterize are strongest at M = 0. 2. Moves are
    bilinear, and translation is a share of the side.
    """
    if not 0 <= magnitude <= 10:
        raise InputError(f"The magnitude of RandAugment runs from 0 to 10; {magnitude} does not.")
    chosen = (draws[:, :number] * len(OPERATIONS)).long()
    return applied(pixels, chosen, _signs(draws[:, number : 2 * number]) * (magnitude / 10))


def autoaugment(pixels: Tensor, draws: Tensor, found_on: Literal["cifar10", "imagenet"] = "cifar10") -> Tensor:
    """One of the 25 pairs of operations found on a data set (tables 7 and 9), each done with its own probability.

    Takes pixels (B, 3, S, S) and 5 draws an image. The tables are torchvision's.

    Differs from the paper: 1. Level k of colour, contrast, brightness and sharpness is a factor of 1 + 0.1 k or
    1 - 0.1 k, as in torchvision; the published code has 0.1 + 0.2 k. 2. Moves are bilinear, and translation is a share
    of the side.
    """
    chosen, chance, strength = _found(found_on, pixels.device)
    row = (draws[:, 0] * len(chosen)).long()
    done = torch.where(draws[:, 1:3] < chance[row], chosen[row], [*OPERATIONS].index("identity"))
    return applied(pixels, done, _signs(draws[:, 3:5]) * strength[row])


def _signs(draws: Tensor) -> Tensor:
    return torch.where(draws < 0.5, -1.0, 1.0)


@lru_cache
def _found(on: str, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    """Places among the operations, probabilities and strengths, each (25, 2)."""
    from torchvision.transforms import AutoAugment, AutoAugmentPolicy

    pairs = AutoAugment(AutoAugmentPolicy(on)).policies
    place = {name.replace("-", ""): i for i, name in enumerate(_ALL)}
    chosen = torch.tensor([[place[name.lower()] for name, _, _ in pair] for pair in pairs], device=device)
    chance = torch.tensor([[chance for _, chance, _ in pair] for pair in pairs], device=device)
    strength = torch.tensor([[(level or 0) / 9 for _, _, level in pair] for pair in pairs], device=device)
    return chosen, chance, strength
