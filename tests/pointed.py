"""Small pictures with four keypoints, and networks of a few hundred weights that find them."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor, nn

from classgraft.data.keypoints import Poses
from classgraft.models.keypoints import Locator, Watcher
from classgraft.models.preparation import Preparation

NAMES = ("left eye", "right eye", "nose", "mouth")
PAIRS = (("left eye", "right eye"),)
SMALL = Preparation(16, 16, (0.5,) * 3, (0.25,) * 3)
APART = np.array([[-3.0, -2.0], [3.0, -2.0], [0.0, 0.0], [0.0, 3.0]])
COLOUR = np.array([[1.0, 0, 0], [1, 0, 0], [0, 1, 0], [0, 0, 1]])
"""Of each keypoint: eyes are told apart by the nose between them, not by their colour."""


def faces(count: int = 40, seed: int = 0, noise: float = 12.0, clips: int = 1) -> Poses:
    """Red eyes, a green nose and a blue mouth on grey under noise; ``clips`` frames of each, which drift and shrink."""
    generator, side = np.random.default_rng(seed), SMALL.resize
    pixels, points, before = [], [], []
    for k in range(count):
        middle, size = generator.uniform(6, 10, 2), generator.uniform(0.8, 1.2)
        drift = generator.uniform(-1.5, 1.5, 2)
        for frame in range(clips):
            found = middle + drift * frame + size * APART
            pixels.append(picture(found, side, generator.normal(0, noise, (3, side, side))))
            points.append(torch.tensor(found, dtype=torch.float32))
            before.append(len(before) - 1 if frame else -1)
        assert len(pixels) == clips * (k + 1)
    total = len(pixels)
    return Poses(
        torch.stack(pixels), torch.zeros(total, dtype=torch.int64), NAMES, SMALL,
        points=torch.stack(points), annotated=torch.ones(total, 4, dtype=torch.bool), pairs=PAIRS,
        persons=tuple(f"person {i // clips // 2}" for i in range(total)),
        before=torch.tensor(before) if clips > 1 else None,
    )  # fmt: skip


def picture(points: np.ndarray, side: int, noise: np.ndarray, colours: np.ndarray = COLOUR) -> Tensor:
    """A soft dot at each point (K, 2), in pixels from the edge."""
    y, x = np.mgrid[:side, :side] + 0.5
    shown = 90.0 + noise
    for (at_x, at_y), colour in zip(points, colours, strict=True):
        shown = shown + 150 * colour[:, None, None] * np.exp(-((x - at_x) ** 2 + (y - at_y) ** 2) / 2)
    return torch.from_numpy(shown.clip(0, 255).astype(np.uint8))


def finder(names: tuple[str, ...] = NAMES, width: int = 10, seed: int = 0, pairs: tuple = PAIRS) -> Locator:
    """Three convolutions, the second halving the resolution, that see nine pixels around each place."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = nn.Sequential(
            nn.Conv2d(3, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(),
            nn.Conv2d(width, width, 3, stride=2, padding=1), nn.BatchNorm2d(width), nn.ReLU(),
            nn.Conv2d(width, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, len(names), 1),
        )  # fmt: skip
        return Locator(network, names, pairs if all(set(pair) <= set(names) for pair in pairs) else ()).eval()


def seer(names: tuple[str, ...] = NAMES, seed: int = 0, hidden: int = 24) -> Watcher:
    """Two convolutions whose maps are all features, and the layers that read pose and motion off them."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        body = nn.Sequential(
            nn.Conv2d(6, 8, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 3, stride=2, padding=1), nn.ReLU(),
            nn.Flatten(),
        )  # fmt: skip
        return Watcher(body, 8 * 4 * 4, names, PAIRS, hidden).eval()
