"""Networks that find named points: any that gives a map of places for each, several as one, and one that sees motion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from classgraft.errors import InputError
from classgraft.models.segmenter import Pyramid

REACH = 2
"""Cells on each side of a map's highest cell that say where in between the point is."""
Pairs = tuple[tuple[str, str], ...]
"""Names of keypoints that change places in a mirror, as (("left eye", "right eye"),)."""


def partners(classes: Sequence[str], pairs: Pairs) -> Tensor:
    """The place among ``classes`` of each keypoint's mirror image, int64 (K,).

    Its own where it is in no pair, -1 where the other of its pair is not among ``classes``.

    Raises:
        InputError: a keypoint is in two pairs, or a pair with itself.
    """
    named = [name for pair in pairs for name in pair]
    if twice := next((name for name in named if named.count(name) > 1), ""):
        raise InputError(f"The keypoint '{twice}' stands in pairs twice; a keypoint has one mirror image.")
    other = {a: b for pair in pairs for a, b in (pair, pair[::-1])}
    place = {name: k for k, name in enumerate(classes)}
    return torch.tensor([place.get(other.get(name, name), -1) for name in classes], dtype=torch.int64)


def decoded(probabilities: Tensor, size: int) -> Tensor:
    """Where maps have their peaks, x and y in pixels, and how sure that is, float (B, K, 3).

    Between cells: the mean of the cells' centres, weighted by their probabilities, over the ``REACH`` cells on each side of the
    highest one. How sure: the probability in those cells, 0..1.

    Args:
        probabilities: (B, K, h, w), each map adding up to 1 or less.
        size: of the images, in pixels.
    """
    height, width = probabilities.shape[2:]
    peak = probabilities.flatten(2).argmax(2)
    along = [torch.arange(side, device=peak.device) for side in (width, height)]
    near = [(a - at[..., None]).abs() <= REACH for a, at in zip(along, (peak % width, peak // width), strict=True)]
    window = probabilities * near[0][:, :, None] * near[1][..., None]
    sure = window.sum((2, 3))
    x, y = (
        (window.sum(axis) * (a + 0.5)).sum(2) / sure.clamp(min=torch.finfo(sure.dtype).tiny) * size / len(a)
        for axis, a in ((2, along[0]), (3, along[1]))
    )
    return torch.stack([x, y, sure], 2)


class Locator(nn.Module):
    """Images (B, C, S, S) to logits of the places of each keypoint (B, K, h, w), around any network that gives such maps."""

    def __init__(self, network: nn.Module, classes: Sequence[str], pairs: Pairs = ()) -> None:
        """``classes`` names the keypoints in the order of the maps; ``pairs`` those that change places in a mirror."""
        super().__init__()
        self.network, self.classes, self.pairs = network, tuple(classes), tuple(pairs)
        partners(self.classes, self.pairs)

    def forward(self, images: Tensor) -> Tensor:
        """Logits.

        Raises:
            InputError: the network gives no such maps.
        """
        maps = self.network(images)
        if not isinstance(maps, Tensor) or maps.ndim != 4 or maps.shape[1] != len(self.classes):
            shape = tuple(maps.shape) if isinstance(maps, Tensor) else type(maps).__name__
            raise InputError(
                f"{type(self.network).__name__} gives {shape}, not a map of each of the {len(self.classes)} keypoints"
                " (B, K, h, w); wrap a network that does."
            )
        return maps

    def probabilities(self, images: Tensor) -> Tensor:
        """Of every place (B, K, h, w); each map adds up to 1."""
        maps = self(images)
        return maps.flatten(2).softmax(2).view_as(maps)  # type: ignore[no-any-return]

    def located(self, images: Tensor) -> Tensor:
        """x and y in pixels of the images, and how sure, 0..1: (B, K, 3), as ``decoded`` says."""
        return decoded(self.probabilities(images), images.shape[-1])

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device


class United(nn.Module):
    """The maps of several networks side by side."""

    def __init__(self, experts: Sequence[Locator]) -> None:
        super().__init__()
        self.experts = nn.ModuleList(experts)

    def forward(self, images: Tensor) -> Tensor:
        maps = [expert(images) for expert in self.experts]
        if len({each.shape[2:] for each in maps}) > 1:
            shapes = ", ".join(str(tuple(each.shape[2:])) for each in maps)
            raise InputError(f"The experts' maps differ in size: {shapes}; give them networks of one resolution.")
        return torch.cat(maps, 1)


def united(experts: Sequence[Locator]) -> Locator:
    """Experts of parts as one network of all their keypoints; the experts themselves, not copies.

    Raises:
        InputError: two of them find the same keypoint.
    """
    names = [name for expert in experts for name in expert.classes]
    if twice := next((name for name in names if names.count(name) > 1), ""):
        raise InputError(f"Two experts find the keypoint '{twice}'; give each a part of its own.")
    pairs = tuple(pair for expert in experts for pair in expert.pairs)
    return Locator(United(experts), names, pairs).eval()


def heatmaps(
    name: str,
    classes: Sequence[str],
    pairs: Pairs = (),
    width: int = 32,
    levels: Sequence[int] = (1, 2, 3),
    seed: int = 0,
    **given: Any,
) -> Locator:
    """A feature pyramid (``models.segmenter.Pyramid``) on timm's encoder of this name, with fresh weights by the seed.

    Args:
        name: of a network of timm that gives maps (``features_only``).
        classes: names of the keypoints.
        pairs: those that change places in a mirror.
        width: channels of the pyramid.
        levels: which of the encoder's maps; the first has usually a quarter of the images' resolution when this is 1.
        seed: of the fresh weights.
        given: arguments of ``timm.create_model``.
    """
    network = _made(name, seed, lambda encoder: Pyramid(encoder, encoder.feature_info.channels(), width, len(classes)),
                    features_only=True, out_indices=tuple(levels), **given)  # fmt: skip
    return Locator(network, classes, pairs).eval()


class Watcher(nn.Module):
    """Two frames to where the keypoints are and how far they moved since the one before.

    The body (F) sees the frame and, as further channels, its difference from the frame before; three linear layers (D) read
    pose and motion off its features. Hong, Fisher, Gharbi, Fatahalian: Video Pose Distillation for Few-Shot, Fine-Grained
    Sports Action Recognition, ICCV 2021, arXiv 2109.01305, with optical flow in place of the difference.
    """

    def __init__(
        self, body: nn.Module, width: int, classes: Sequence[str], pairs: Pairs = (), hidden: int = 128
    ) -> None:
        """``body`` turns (B, 2C, S, S) into features (B, ``width``); ``hidden`` units in each layer of D."""
        super().__init__()
        self.body, self.classes, self.pairs = body, tuple(classes), tuple(pairs)
        partners(self.classes, self.pairs)
        self.decoder = nn.Sequential(
            nn.Linear(width, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU(),
            nn.Linear(hidden, 4 * len(self.classes)),
        )  # fmt: skip

    def seen(self, images: Tensor, before: Tensor) -> tuple[Tensor, Tensor]:
        """Places and motions of frames and those before them, (B, C, S, S) each.

        Returns:
            x and y (B, K, 2), and their change (B, K, 2), both in sides of the square, places from its middle.
        """
        found = self.decoder(self.body(torch.cat([images, images - before], 1)))
        pose, motion = found.view(len(images), 2, len(self.classes), 2).unbind(1)
        return pose, motion

    def forward(self, images: Tensor, before: Tensor | None = None) -> Tensor:
        """x and y in pixels (B, K, 2); without the frames before, nothing is taken to have moved."""
        pose, _ = self.seen(images, images if before is None else before)
        return (pose + 0.5) * images.shape[-1]

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device


def watcher(
    name: str, classes: Sequence[str], pairs: Pairs = (), hidden: int = 128, seed: int = 0, **given: Any
) -> Watcher:
    """A ``Watcher`` on timm's network of this name, with fresh weights by the seed."""
    with torch.random.fork_rng(devices=[]):
        body = _made(name, seed, lambda network: network, num_classes=0, in_chans=6, **given)
        torch.manual_seed(seed)
        return Watcher(body, getattr(body, "head_hidden_size", body.num_features), classes, pairs, hidden).eval()


def _made(name: str, seed: int, of: Any, **given: Any) -> Any:
    """What ``of`` makes of timm's network."""
    import timm

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            network = timm.create_model(name, **given)
        except (RuntimeError, AssertionError, AttributeError) as error:
            raise InputError(f"timm has no network '{name}' to be asked for so; choose another name.") from error
        return of(network)
