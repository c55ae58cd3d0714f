"""A small generator of pictures from points on a sphere, and the small network that GLICO learns beside it."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NOISE = 100
"""Numbers of noise beside a point."""


class Generator(nn.Module):
    """Points (B, D) and noise (B, NOISE) to pictures (B, C, S, S) with values from ``low`` to ``high``.

    After the network of Azuri and Weinshall for 32 pixels (two full layers to 8 x 8, two transposed convolutions), with as many
    doublings as S needs. Differs from theirs: the noise goes in as it is, points are scaled to numbers of size 1, and a
    convolution at full resolution makes the picture.
    """

    def __init__(self, dimension: int, channels: int, side: int, width: int, low: float, high: float) -> None:
        super().__init__()
        doublings = max(0, round(math.log2(side / 8)))
        self.side, self.base, self.width, self.low, self.high = side, -(-side >> doublings), width, low, high
        self.full = nn.Sequential(
            nn.Linear(dimension + NOISE, 8 * width),
            nn.LeakyReLU(0.2),
            nn.Linear(8 * width, width * self.base**2),
            nn.LeakyReLU(0.2),
        )
        layers: list[nn.Module] = []
        for _ in range(doublings):
            layers += [nn.ConvTranspose2d(width, max(8, width // 2), 4, 2, 1), nn.LeakyReLU(0.2)]
            width = max(8, width // 2)
        self.rising = nn.Sequential(*layers, nn.Conv2d(width, channels, 3, padding=1))

    def forward(self, points: Tensor, noise: Tensor) -> Tensor:
        points = F.normalize(points, dim=1) * points.shape[1] ** 0.5  # numbers of size 1, as layers like them
        found = self.full(torch.cat([points, noise], 1))
        pictures = self.rising(found.view(len(found), self.width, self.base, self.base)).sigmoid()
        return self.low + (self.high - self.low) * pictures[..., : self.side, : self.side]  # type: ignore[no-any-return]


def judge(channels: int, classes: int) -> nn.Module:
    """Pictures (B, C, S, S) to logits (B, K): two convolutions that halve, and their mean."""
    return nn.Sequential(
        nn.Conv2d(channels, 64, 3, 2, 1),
        nn.BatchNorm2d(64),
        nn.LeakyReLU(0.2),
        nn.Conv2d(64, 64, 3, 2, 1),
        nn.BatchNorm2d(64),
        nn.LeakyReLU(0.2),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(64, classes),
    )
