"""A classifier of a few hundred weights and images for it."""

from __future__ import annotations

import torch
from torch import nn

from classgraft.data.images import Images
from classgraft.models.classifier import Classifier, Head
from classgraft.models.preparation import Preparation

CLASSES = ("ant", "bee", "cow")


def classifier(dropout: float = 0.0, seed: int = 0) -> Classifier:
    """Convolution, batch norm, dropout, mean; 8 features, three classes."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        body = nn.Sequential(
            nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(dropout), nn.AdaptiveAvgPool2d(1), nn.Flatten()
        )
        return Classifier(body, Head([nn.Linear(8, 3)]), CLASSES)


def images(count: int = 50, side: int = 12, seed: int = 0) -> Images:
    """Noise, of each class in turn."""
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 256, (count, 3, side, side), dtype=torch.uint8, generator=generator)
    return Images(pixels, torch.arange(count) % 3, CLASSES, Preparation(side, side))
