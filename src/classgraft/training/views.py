"""What a frozen network sees in the photos: features of several views, looked at once."""

from __future__ import annotations

import torch
from torch import Tensor

from classgraft.data.augment import Augment, centre, flip, resized_crop_flip
from classgraft.data.images import Images
from classgraft.models.classifier import Classifier
from classgraft.training.answers import answers


def look(model: Classifier, photos: Images, views: int, seed: int) -> tuple[Tensor, Tensor]:
    """Features (N, V, D) of every photo in ``views`` views, and the labels (N,).

    The first view is the photo as evaluation sees it, the second its mirror image, the others are random crops.
    """
    augments: list[Augment] = [centre, _mirror]
    augments = (augments + [resized_crop_flip] * (views - 2))[:views]
    seen = [
        answers(model, photos, model.features, augment, seed, number, "looking at the photos")
        for number, augment in enumerate(augments)
    ]
    return torch.stack(seen, 1), photos.labels


def _mirror(pixels: Tensor, size: int, draws: Tensor) -> Tensor:
    return flip(pixels, size, torch.zeros_like(draws))
