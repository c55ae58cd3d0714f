"""Augmentation of a whole batch at once, on whatever device the batch is.

An ``Augment`` takes pixels (B, 3, H, W) in 0..1, the side of the square to give back, and uniform draws (B, n), and
returns pixels (B, 3, size, size). It is a geometry, which chooses the square, then effects, which act on the square;
each states how many draws it needs, and takes those after the draws of the one before.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from classgraft.data import policies
from classgraft.data.draws import uniform
from classgraft.data.policies import GREY, sampled
from classgraft.errors import InputError, nearest

DRAWS = 32
"""Numbers an image that suffice for every augmentation."""
Augment = Callable[[Tensor, int, Tensor], Tensor]


@dataclass(frozen=True)
class Geometry:
    """A choice of the square."""

    act: Augment
    draws: int
    affine: Callable[[Tensor, int, int], Tensor]
    """From draws (B, n), the side of the canvas and that of the square, in pixels, to the (B, 2, 3) that says where in
    the canvas each place of the square comes from (``policies.sampled``): what moves masks, boxes and points along."""


@dataclass(frozen=True)
class Effect:
    """A change of the square: from pixels (B, 3, S, S) and draws (B, n) to pixels (B, 3, S, S)."""

    act: Callable[[Tensor, Tensor], Tensor]
    draws: int
    colours: bool = True
    """Whether it takes pixels for colours from 0 to 1."""
    moves: bool = False
    """Whether pixels may change their places, which masks, boxes and points would have to follow."""


@dataclass(frozen=True)
class Composed:
    """A geometry and then effects, each with draws of its own."""

    geometry: Geometry
    effects: tuple[Effect, ...] = ()

    def __post_init__(self) -> None:
        if self.draws > DRAWS:
            raise InputError(f"These augmentations need {self.draws} draws an image, more than {DRAWS}: join fewer.")

    @property
    def draws(self) -> int:
        return self.geometry.draws + sum(effect.draws for effect in self.effects)

    @property
    def colours(self) -> bool:
        """Whether an effect takes pixels for colours from 0 to 1."""
        return any(effect.colours for effect in self.effects)

    def __call__(self, pixels: Tensor, size: int, draws: Tensor) -> Tensor:
        counts = [self.geometry.draws, *(effect.draws for effect in self.effects)]
        first, *rest = draws[:, : self.draws].split_with_sizes(counts, 1)
        pixels = self.geometry.act(pixels, size, first)
        for effect, own in zip(self.effects, rest, strict=True):
            pixels = effect.act(pixels, own)
        return pixels

    def affine(self, draws: Tensor, side: int, size: int) -> Tensor:
        """Where in the canvas each place of the square comes from, (B, 2, 3); ``draws`` are those of the call.

        Raises:
            InputError: an effect moves pixels as well.
        """
        if any(effect.moves for effect in self.effects):
            raise InputError(
                "What is annotated in an image cannot follow RandAugment or AutoAugment; join a geometry with jitter, cutout"
                " or random-erasing."
            )
        return self.geometry.affine(draws[:, : self.geometry.draws], side, size)


def margin(side: int, size: int) -> int:
    """Pixels from the edge of the canvas to the middle square."""
    return round((side - size) / 2.0)


def centre(pixels: Tensor, size: int, draws: Tensor | None = None) -> Tensor:
    """The middle square, as evaluation sees it."""
    top, left = (margin(side, size) for side in pixels.shape[-2:])
    return pixels[..., top : top + size, left : left + size]


def centre_affine(draws: Tensor, side: int, size: int) -> Tensor:
    """Where ``centre`` takes its square from, (B, 2, 3)."""
    return _middle(torch.zeros(len(draws), dtype=torch.bool, device=draws.device), side, size)


def flip(pixels: Tensor, size: int, draws: Tensor) -> Tensor:
    """The middle square, mirrored with probability one half."""
    square = centre(pixels, size)
    return torch.where((draws[:, 0] < 0.5)[:, None, None, None], square.flip(-1), square)


def flip_affine(draws: Tensor, side: int, size: int) -> Tensor:
    """Where ``flip`` takes its square from, (B, 2, 3)."""
    return _middle(draws[:, 0] < 0.5, side, size)


def _middle(mirror: Tensor, side: int, size: int) -> Tensor:
    corner = torch.full_like(mirror, margin(side, size), dtype=torch.int64)
    return _window(corner, corner, mirror, side, size)


def crop_flip(pixels: Tensor, size: int, draws: Tensor) -> Tensor:
    """A square at a random place, mirrored with probability one half.

    Where the canvas is no larger than the square it is first padded with black by an eighth on each side: 4 pixels at
    32, as is usual on CIFAR.
    """
    left, top, margin = _corner(draws, pixels.shape[-1], size)
    pixels = F.pad(pixels, [margin] * 4) if margin else pixels
    along = torch.arange(size, device=pixels.device)
    columns = left[:, None] + torch.where(draws[:, :1] < 0.5, along.flip(0), along)
    rows = top[:, None] + along
    place = (rows[:, :, None] * pixels.shape[-1] + columns[:, None]).flatten(1)[:, None]
    return pixels.flatten(2).gather(2, place.expand(-1, pixels.shape[1], -1)).view(*pixels.shape[:2], size, size)


def crop_flip_affine(draws: Tensor, side: int, size: int) -> Tensor:
    """Where ``crop_flip`` takes its square from, (B, 2, 3)."""
    left, top, margin = _corner(draws, side, size)
    return _window(left - margin, top - margin, draws[:, 0] < 0.5, side, size)


def _corner(draws: Tensor, side: int, size: int) -> tuple[Tensor, Tensor, int]:
    """Left and top (B,) of the square in the padded canvas, and the width of the padding, in pixels."""
    margin = size // 8 if side == size else 0
    left, top = (draws[:, i] * (side + 2 * margin - size + 1) for i in (1, 2))
    return left.long(), top.long(), margin


def _window(left: Tensor, top: Tensor, mirror: Tensor, side: int, size: int) -> Tensor:
    """The affine maps (B, 2, 3) of squares with these corners (B,), in pixels of the canvas."""
    scale = torch.full((len(left), 2), size / side, device=left.device)
    return _axis_affine(scale, (2 * torch.stack([left, top], 1) + size) / side - 1, mirror)


def _axis_affine(scale: Tensor, at: Tensor, mirror: Tensor) -> Tensor:
    """Places (x, y) times ``scale`` (B, 2) plus ``at`` (B, 2), x mirrored first where ``mirror`` (B,): (B, 2, 3)."""
    x, y = scale.unbind(1)
    return torch.cat([torch.diag_embed(torch.stack([torch.where(mirror, -x, x), y], 1)), at[..., None]], 2)


def resized_crop_flip(pixels: Tensor, size: int, draws: Tensor, smallest: float = 0.35) -> Tensor:
    """A rectangle of ``smallest`` to 1 of the area, 3:4 to 4:3 in shape, resized to the square, mirrored by chance."""
    affine = resized_crop_flip_affine(draws, pixels.shape[-1], size, smallest)
    found = sampled(pixels, affine, size, "bicubic", "reflection")
    # it shoots over; prepared floats may lie beyond 0..1
    low, high = (extreme((1, 2, 3), keepdim=True) for extreme in (pixels.amin, pixels.amax))
    return found.clamp_(low.clamp(max=0), high.clamp(min=1))


def resized_crop_flip_affine(draws: Tensor, side: int, size: int, smallest: float = 0.35) -> Tensor:
    """Where ``resized_crop_flip`` takes its square from, (B, 2, 3)."""
    area = smallest + (1 - smallest) * draws[:, 1]
    ratio = torch.exp(math.log(4 / 3) * (2 * draws[:, 2] - 1))
    extent = torch.stack([(area * ratio).sqrt(), (area / ratio).sqrt()], 1).clamp(max=1)
    return _axis_affine(extent, (2 * draws[:, 3:5] - 1) * (1 - extent), draws[:, 0] < 0.5)


def jitter(
    pixels: Tensor,
    draws: Tensor,
    brightness: float = 0.4,
    contrast: float = 0.4,
    saturation: float = 0.4,
    hue: float = 0.1,
) -> Tensor:
    """The first three by factors of up to 1 - a to 1 + a, hue by up to +-``hue`` of the circle. Takes 4 draws.

    The operations are torchvision's; their order is the one above, where its ColorJitter draws it.
    """
    way = 2 * draws - 1
    pixels = policies.brightness(pixels, 1 + brightness * way[:, 0])
    pixels = policies.contrast(pixels, 1 + contrast * way[:, 1])
    pixels = policies.saturation(pixels, 1 + saturation * way[:, 2])
    return policies.hue(pixels, hue * way[:, 3])


def cutout(pixels: Tensor, draws: Tensor, share: float = 0.5) -> Tensor:
    """A grey square of ``share`` of the side, its centre anywhere, so that it may reach beyond the edge. Takes 2 draws.

    DeVries, Taylor: Improved regularization of convolutional neural networks with cutout, arXiv:1708.04552, section
    3.2; 16 of 32 pixels is theirs for CIFAR-10. Differs from the paper: mid-grey, not the mean of the data set.
    """
    size = pixels.shape[-1]
    side = round(share * size)
    left, top = ((draws[:, i] * size).long() - side // 2 for i in (0, 1))
    return pixels.masked_fill(_rectangle(left, top, left + side, top + side, size), GREY)


def random_erasing(
    pixels: Tensor,
    draws: Tensor,
    probability: float = 0.5,
    smallest: float = 0.02,
    largest: float = 0.4,
    aspect: float = 0.3,
) -> Tensor:
    """With a probability, a rectangle of noise over ``smallest`` to ``largest`` of the area. Takes 6 draws.

    Its height is ``aspect`` to 1 / ``aspect`` times its width. Zhong, Zheng, Kang, Li, Yang: Random erasing data
    augmentation, AAAI 2020, arXiv:1708.04896, algorithm 1, with random values (RE-R).

    Differs from the paper: 1. Shape and place are drawn among those that fit, where the paper draws again until they
    do. 2. The shape is uniform in its logarithm, so that flat and tall are equally common.
    """
    size = pixels.shape[-1]
    area = smallest + (largest - smallest) * draws[:, 1]
    widest = area.clamp(min=aspect).log()
    ratio = (widest * (1 - 2 * draws[:, 2])).exp()
    height, width = (((area * r).sqrt() * size).round().clamp(1, size) for r in (ratio, 1 / ratio))
    left, top = ((draws[:, 3] * (size - width + 1)).floor(), (draws[:, 4] * (size - height + 1)).floor())
    inside = _rectangle(left, top, left + width, top + height, size) & (draws[:, 0] < probability)[:, None, None, None]
    image, channel, row, column = inside.expand_as(pixels).nonzero(as_tuple=True)
    key = (draws[:, 5] * 2**24).long()[image] << 32
    noise = uniform(0, 0, key + (channel * size + row) * size + column, 1)[:, 0]
    return pixels.masked_scatter(inside, noise.to(pixels.dtype))


def _rectangle(left: Tensor, top: Tensor, right: Tensor, bottom: Tensor, size: int) -> Tensor:
    """Whether each pixel lies in the image's rectangle, (B, 1, size, size)."""
    along = torch.arange(size, device=left.device)
    across = (along >= left[:, None]) & (along < right[:, None])
    down = (along >= top[:, None]) & (along < bottom[:, None])
    return (down[:, :, None] & across[:, None, :])[:, None]


class Mixed(NamedTuple):
    """A batch of mixtures; its loss is share * loss(images, targets) + (1 - share) * loss(images, others), by image."""

    images: Tensor
    targets: Tensor
    others: Tensor
    share: Tensor
    """Of ``targets`` in each image (B,), 0..1."""


def mixup(images: Tensor, targets: Tensor, share: Tensor) -> Mixed:
    """Each image (B, C, H, W) mixed with the one before it in the batch, of which it keeps its ``share`` (B,).

    Zhang, Cisse, Dauphin, Lopez-Paz: mixup: Beyond empirical risk minimization, ICLR 2018, arXiv:1710.09412, section 2;
    lambda is ``share``, for instance ``mixup_share`` of draws by a seed other than the augmentation's.

    Differs from the paper's code: 1. Every image has a share of its own, where the code has one a batch. 2. The partner
    is the neighbour, a random one where batches are shuffled.
    """
    own = share.to(images.dtype)[:, None, None, None]
    return Mixed(own * images + (1 - own) * images.roll(1, 0), targets, targets.roll(1, 0), share)


def mixup_share(draws: Tensor, alpha: float = 1.0) -> Tensor:
    """Shares (B,) distributed as Beta(alpha, alpha), from 4 draws an image.

    The odds of Beta(a, a) are those of Beta(a + 1, a + 1) times (U1 / U2)^(1 / a), as they are of gamma variables; and
    Beta(b, b) for b > 1/2 is (1 + s) / 2 with s = sqrt(1 - U3^(2 / (2b - 1))) cos(2 pi U4) (Ulrich, 1984).
    """
    u1, u2, u3, u4 = (draws[:, :4] + 2.0**-25).unbind(1)
    s = (1 - u3 ** (2 / (2 * alpha + 1))).sqrt() * (2 * math.pi * u4).cos()
    odds = 2 * s.clamp(-1 + 2.0**-24, 1 - 2.0**-24).atanh() + (u1.log() - u2.log()) / alpha
    return odds.sigmoid()


MIDDLE = Geometry(centre, 0, centre_affine)
AUGMENTATIONS: dict[str, Geometry | Effect] = {
    "none": MIDDLE,
    "flip": Geometry(flip, 1, flip_affine),
    "crop-flip": Geometry(crop_flip, 3, crop_flip_affine),
    "resized-crop-flip": Geometry(resized_crop_flip, 5, resized_crop_flip_affine),
    "jitter": Effect(jitter, 4),
    "cutout": Effect(cutout, 2, colours=False),
    "random-erasing": Effect(random_erasing, 6, colours=False),
    "randaugment": Effect(policies.randaugment, 4, moves=True),
    "autoaugment": Effect(policies.autoaugment, 5, moves=True),
    "autoaugment-imagenet": Effect(partial(policies.autoaugment, found_on="imagenet"), 5, moves=True),
}


def augmentation(name: str) -> Composed:
    """By its name on the command line: a geometry, effects, or a geometry and effects joined by '+'."""
    geometry, effects = MIDDLE, []
    for i, part in enumerate(name.split("+")):
        match AUGMENTATIONS.get(part):
            case Effect() as effect:
                effects.append(effect)
            case Geometry() as first if i == 0:
                geometry = first
            case Geometry():
                raise InputError(
                    f"'{part}' chooses the square, so in '{name}' it must stand first, and alone of its kind."
                )
            case None:
                raise InputError(f"There is no augmentation '{part}'.{nearest(part, AUGMENTATIONS)}")
    return Composed(geometry, tuple(effects))
