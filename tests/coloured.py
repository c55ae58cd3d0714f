"""Pictures of coloured squares on grey noise, with their boxes, and detectors of a few thousand weights."""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

from classgraft.data.boxes import Boxed
from classgraft.data.images import Images
from classgraft.models.detector import Detector
from classgraft.models.detector_parts import small
from classgraft.models.preparation import Preparation
from classgraft.training.detecting import train
from classgraft.training.recipe import Recipe

SIDE, WIDE, HIDDEN = 32, 8, 32
OLD, NEW = ("red", "green"), ("yellow",)
COLOURS = (*OLD, *NEW)
PAINT = {"red": [0], "green": [1], "yellow": [0, 1]}
QUICK = Recipe(epochs=4, batch_size=4, optimiser="adamw", lr=5e-3, weight_decay=0.0, milestones=(), augment="flip")
BRIEF = Recipe(2, 3, lr=0.01, milestones=(0.5,), augment="flip")


def squares(count: int, classes: tuple[str, ...] = OLD, seed: int = 0) -> Boxed:
    """One or two squares a picture, of 11 to 13 pixels, each in its own half, nearly where an anchor is."""
    generator = torch.Generator().manual_seed(seed)

    def some(high: int) -> int:
        return int(torch.randint(0, high, (1,), generator=generator))

    pixels = torch.randint(90, 120, (count, 3, SIDE, SIDE), dtype=torch.uint8, generator=generator)
    boxes, labels, owner = [], [], []
    for i in range(count):
        for half in range(1 + some(2)):
            side, label = 11 + some(3), some(len(classes))
            left, top = (8 * step - side // 2 + some(3) - 1 for step in (1 + 2 * half, 1 + some(3)))
            pixels[i, :, top : top + side, left : left + side] = 30
            pixels[i, PAINT[classes[label]], top : top + side, left : left + side] = 230
            boxes.append([float(left), float(top), float(left + side), float(top + side)])
            labels.append(label)
            owner.append(i)
    images = Images(pixels, torch.zeros(count, dtype=torch.int64), (), Preparation(SIDE, SIDE, (0.0,) * 3, (1.0,) * 3))
    return Boxed(images, torch.tensor(boxes), torch.tensor(labels), torch.tensor(owner), classes)


def detector(width: int = 2, seed: int = 0, classes: tuple[str, ...] = OLD) -> Detector:
    """Not trained yet."""
    return Detector(small(len(classes), width, SIDE, (8, 12), hidden=HIDDEN, seed=seed), classes)


@cache
def trained() -> Detector:
    """On red and green squares; not to be changed."""
    return train(detector(WIDE), squares(120), QUICK)


def pictures(count: int = 3, seed: int = 5, classes: tuple[str, ...] = COLOURS) -> Tensor:
    return squares(count, classes, seed).images.view(torch.arange(count), torch.device("cpu"))
