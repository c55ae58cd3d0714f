"""What a frozen network sees in the photos: features of several views, looked at once."""

from __future__ import annotations

import torch
import torch.nn.functional as F
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


def imprinted(
    model: Classifier, photos: Images, names: tuple[str, ...], views: int = 1, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Rows (N, D) and biases (N,) for new classes: the mean direction of their photos' features.

    At the old rows' mean length and mean bias (1 and 0 where there are none), so that old and new compete at once.
    Qi, Brown, Lowe: Low-Shot Learning with Imprinted Weights, CVPR 2018, arXiv 1712.07136, section 3.2.
    """
    features, labels = look(model, photos.of(names), views, seed)
    directions = F.normalize(features, dim=2).mean(1)
    sums = torch.zeros(len(names), features.shape[2]).index_add_(0, labels, directions)
    length = model.head.weight.norm(dim=1).mean().cpu() if model.classes else torch.tensor(1.0)
    level = float(model.head.bias.mean()) if model.classes else 0.0
    return F.normalize(sums, dim=1) * length, torch.full((len(names),), level)


def _mirror(pixels: Tensor, size: int, draws: Tensor) -> Tensor:
    return flip(pixels, size, torch.zeros_like(draws))
