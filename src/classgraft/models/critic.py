"""The network that tells a teacher's maps from a student's, given the images that they are of."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Critic(nn.Module):
    """Images (B, C, H, W) and maps of class probabilities (B, K, h, w) to a score each (B,): higher for a teacher's.

    Three convolutions that halve the resolution and one into a score of each place, whose mean is the image's. No batch
    norm: the gradient penalty is of each image by itself.
    """

    def __init__(self, colours: int, classes: int, width: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        inside = colours + classes
        for outside in (width, 2 * width, 4 * width):
            layers += [nn.Conv2d(inside, outside, 3, stride=2, padding=1), nn.LeakyReLU(0.2)]
            inside = outside
        self.layers = nn.Sequential(*layers, nn.Conv2d(inside, 1, 1))

    def forward(self, images: Tensor, maps: Tensor) -> Tensor:
        seen = F.interpolate(images, maps.shape[2:], mode="bilinear", antialias=True)
        return self.layers(torch.cat([seen, maps], 1)).mean((1, 2, 3))  # type: ignore[no-any-return]
