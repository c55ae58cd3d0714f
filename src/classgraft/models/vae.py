"""A small variational autoencoder of pictures, or of feature vectors; of any class, or of the class asked for."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn


class VAE(nn.Module):
    """Pictures (B, C, S, S), or vectors (B, D, 1, 1), to points (B, Z) and back.

    Pictures go down by strided convolutions to about 8 x 8 and up again by transposed ones, as in ``models/generator.py``;
    vectors through two full layers each way, with a deviation of each coordinate that is learnt. What is given is first moved
    by ``centre`` and divided by ``scale``; a picture then lies in 0..1.
    """

    centre: Tensor
    scale: Tensor

    def __init__(self, shape: tuple[int, ...], dimension: int, width: int, conditions: int = 0) -> None:
        """Fresh weights from torch's global generator.

        Args:
            shape: (C, S, S); (D, 1, 1) is a vector.
            dimension: Z.
            width: channels of the smallest map; full layers have four times as many units.
            conditions: classes that can be asked for; 0: none.
        """
        super().__init__()
        channels, side = shape[0], shape[1]
        self.vectors, self.dimension, units = side == 1, dimension, 4 * width
        self.points = nn.Linear(dimension, units)
        self.conditions = nn.Parameter(torch.zeros(conditions, units))
        self.register_buffer("centre", torch.zeros(channels if self.vectors else 1, 1, 1))
        self.register_buffer("scale", torch.ones(channels if self.vectors else 1, 1, 1))
        self.log_deviation = nn.Parameter(torch.zeros(channels if self.vectors else 0))
        down: list[nn.Module] = []
        if self.vectors:
            down = [nn.Flatten(), nn.Linear(channels, units), nn.ReLU(), nn.Linear(units, units), nn.ReLU()]
            up: list[nn.Module] = [nn.Linear(units, units), nn.ReLU(), nn.Linear(units, channels)]
            self.rising: nn.Module = nn.Sequential(*up, nn.Unflatten(1, (channels, 1, 1)))
            self.falling = nn.Sequential(*down, nn.Linear(units, 2 * dimension))
            return
        doublings = max(0, round(math.log2(side / 8)))
        base, inside = -(-side >> doublings), channels
        widths = [max(8, width >> k) for k in range(doublings, -1, -1)]  # from fine to coarse
        for i, outside in enumerate(widths):
            down += [nn.Conv2d(inside, outside, 3, 2 if i < doublings else 1, 1), nn.ReLU()]
            inside = outside
        self.falling = nn.Sequential(*down, nn.Flatten(), nn.Linear(inside * base**2, 2 * dimension))
        up = [nn.Linear(units, inside * base**2), nn.ReLU(), nn.Unflatten(1, (inside, base, base))]
        for outside in widths[-2::-1]:
            up += [nn.ConvTranspose2d(inside, outside, 4, 2, 1), nn.ReLU()]
            inside = outside
        self.rising, self.side = nn.Sequential(*up, nn.Conv2d(inside, channels, 3, padding=1)), side

    @property
    def spread(self) -> Tensor:
        """Logarithm of the deviation of each coordinate (D,), within bounds: one that never varies would sink for ever."""
        return self.log_deviation.clamp(-6, 3)

    def seen(self, given: Tensor) -> Tensor:
        """What is given in the network's own scale."""
        moved = (given - self.centre) / self.scale
        return moved if self.vectors else moved.clamp(0, 1)

    def encoded(self, seen: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and logarithm of the variance of the point (B, Z) of each, in the network's own scale."""
        mean, log_variance = self.falling(seen).chunk(2, 1)
        return mean, log_variance.clamp(-20, 10)

    def decoded(self, points: Tensor, labels: Tensor | None = None) -> Tensor:
        """Points (B, Z), and the class (B,) asked for, to logits of pictures or means of vectors, in its own scale."""
        units = self.points(points)
        if labels is not None:
            units = units + self.conditions[labels]
        found = self.rising(units.relu())
        return found if self.vectors else found[..., : self.side, : self.side]  # type: ignore[no-any-return]

    def made(self, points: Tensor, noise: Tensor, labels: Tensor | None = None) -> Tensor:
        """Pictures, or vectors with their deviation times ``noise`` (B, D, 1, 1), in the scale of what was given."""
        found = self.decoded(points, labels)
        if self.vectors:
            found = found + self.spread.exp()[:, None, None] * noise
        else:
            found = found.sigmoid()
        return self.centre + self.scale * found  # type: ignore[no-any-return]
