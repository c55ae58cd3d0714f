"""Two moons with six labels: the smallest problem in which unlabelled points say where the boundary is."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from classgraft.data.images import Images
from classgraft.models.classifier import Classifier, Head
from classgraft.models.preparation import Preparation
from classgraft.training.answers import answers

CLASSES = ("upper", "lower")
PREPARATION = Preparation(1, 1, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


def moons(count: int = 400, noise: float = 0.1, seed: int = 0) -> Images:
    """Points (N, 2, 1, 1)."""
    generator = np.random.default_rng(seed)
    angle = generator.uniform(0, np.pi, count)
    lower = np.arange(count) % 2
    x = np.where(lower, 1 - np.cos(angle), np.cos(angle))
    y = np.where(lower, 0.5 - np.sin(angle), np.sin(angle))
    points = np.stack([x, y], 1) + generator.normal(0, noise, (count, 2))
    return Images(
        torch.from_numpy(points).float()[:, :, None, None], torch.from_numpy(lower).long(), CLASSES, PREPARATION
    )


def labelled(*places: float) -> Images:
    """Points without noise at these places of each moon, 0 at one tip and 1 at the other."""
    angle = torch.tensor(places) * torch.pi
    upper = torch.stack([angle.cos(), angle.sin()], 1)
    lower = torch.stack([1 - angle.cos(), 0.5 - angle.sin()], 1)
    labels = torch.arange(2).repeat_interleave(len(places))
    return Images(torch.cat([upper, lower])[:, :, None, None], labels, CLASSES, PREPARATION)


def network(seed: int = 0) -> Classifier:
    """Two hidden layers."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        body = nn.Sequential(nn.Flatten(), nn.Linear(2, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU())
        return Classifier(body, Head([nn.Linear(64, 2)]), CLASSES)


def accuracy(model: Classifier, images: Images) -> float:
    return float((answers(model, images).argmax(1) == images.labels).float().mean())
