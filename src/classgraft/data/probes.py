"""Generated pictures, to compare two models on where no image is at hand."""

from __future__ import annotations

import numpy as np
import torch

from classgraft.data.images import Images
from classgraft.models.preparation import Preparation

COUNT = 32
GRIDS = (2, 4, 8, 16)
"""Coloured patches along a side; after these comes bare noise."""


def probes(preparation: Preparation, classes: tuple[str, ...], count: int = COUNT, seed: int = 0, channels: int = 3) -> Images:
    """Coloured patches of several sizes under noise; the same bits on every machine, as only integers are computed with.

    Fewer than ``count`` where the squares are large. The labels are all 0 and mean nothing.
    """
    side = preparation.resize
    count = max(2, min(count, count * 384**2 // side**2))
    random = np.random.RandomState(seed)
    pixels = np.empty((count, channels, side, side), np.uint8)
    for i, square in enumerate(pixels):
        grid = (*GRIDS, side)[i % (len(GRIDS) + 1)]
        place = np.arange(side) * grid // side
        patches = random.randint(0, 256, (channels, grid, grid))
        noise = random.randint(-20, 21, (channels, side, side))
        square[:] = np.clip(patches[:, place][:, :, place] + noise, 0, 255)
    return Images(torch.from_numpy(pixels), torch.zeros(count, dtype=torch.int64), classes, preparation)
