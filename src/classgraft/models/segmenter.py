"""Networks that label every pixel: any that gives maps of logits, and a small one on any encoder of timm."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from classgraft.errors import InputError, nearest


class Seen(NamedTuple):
    """What a network makes of images."""

    logits: Tensor
    """(B, K, h, w), at the resolution that the network gives them in."""
    features: Tensor
    """(B, D, h', w'), what its last convolution into classes was given."""


class Segmenter(nn.Module):
    """Images (B, C, H, W) to logits of every pixel (B, K, H, W), around any network that gives maps of logits.

    The network gives a tensor (B, K, h, w), or a dictionary that holds it under "out", as torchvision's do. Its other
    outputs, such as an auxiliary head's, are left aside.
    """

    def __init__(self, network: nn.Module, classes: Sequence[str], layer: str = "") -> None:
        """``layer`` names the part whose output counts as features; empty: the input of the last convolution into the
        classes that is no auxiliary one."""
        super().__init__()
        names = [name for name, _ in network.named_modules() if name]
        if layer and layer not in names:
            raise InputError(f"The network has no layer '{layer}'.{nearest(layer, names)}")
        self.network, self.classes, self.layer = network, tuple(classes), layer

    def forward(self, images: Tensor) -> Tensor:
        return F.interpolate(self.seen(images).logits, images.shape[2:], mode="bilinear")

    def favoured(self, images: Tensor) -> Tensor:
        """The likeliest class of every pixel, int64 (B, H, W)."""
        return self(images).argmax(1)  # type: ignore[no-any-return]

    def seen(self, images: Tensor) -> Seen:
        """Logits and features, with their graph.

        Raises:
            InputError: the network gives no such logits, or no convolution into its classes was found.
        """
        found: list[Tensor] = []

        def taken(part: nn.Module, given: tuple[Any, ...], output: Any) -> None:
            found[:] = [output if self.layer else given[0]]

        hooks = [part.register_forward_hook(taken) for part in self._watched()]
        try:
            output = self.network(images)
        finally:
            for hook in hooks:
                hook.remove()
        logits = output.get("out") if isinstance(output, Mapping) else output
        if not isinstance(logits, Tensor) or logits.ndim != 4 or logits.shape[1] != len(self.classes):
            shape = tuple(logits.shape) if isinstance(logits, Tensor) else type(output).__name__
            raise InputError(
                f"{type(self.network).__name__} gives {shape}, not a logit of each of the {len(self.classes)} classes for each"
                " place (B, K, h, w); wrap a network that does."
            )
        if not found or found[0].ndim != 4:
            raise InputError(
                f"{type(self.network).__name__} has no convolution into its {len(self.classes)} classes; name the part that"
                " gives its last map (B, D, h, w) as the layer."
            )
        return Seen(logits, found[0])

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def _watched(self) -> list[nn.Module]:
        if self.layer:
            return [self.network.get_submodule(self.layer)]
        return [
            part
            for name, part in self.network.named_modules()
            if isinstance(part, nn.Conv2d) and part.out_channels == len(self.classes) and not name.startswith("aux")
        ]


class Pyramid(nn.Module):
    """An encoder whose maps are brought to one width and added up from coarse to fine, then two convolutions.

    Lin and others: Feature Pyramid Networks for Object Detection, CVPR 2017, arXiv 1612.03144, section 3, with one output.
    Images (B, C, H, W) to logits (B, K, h, w) at the finest map's resolution.
    """

    def __init__(self, encoder: nn.Module, channels: Sequence[int], width: int, outputs: int) -> None:
        """``encoder`` gives a list of maps, from fine to coarse, of these channels."""
        super().__init__()
        self.encoder = encoder
        self.lateral = nn.ModuleList(nn.Conv2d(count, width, 1) for count in channels)
        self.smooth = nn.Sequential(nn.Conv2d(width, width, 3, padding=1), nn.ReLU())
        self.classifier = nn.Conv2d(width, outputs, 1)

    def forward(self, images: Tensor) -> Tensor:
        levels = [lateral(found) for lateral, found in zip(self.lateral, self.encoder(images), strict=True)]
        top = levels.pop()
        while levels:
            top = levels[-1] + F.interpolate(top, levels.pop().shape[2:], mode="nearest")
        return self.classifier(self.smooth(top))  # type: ignore[no-any-return]


def pyramid(
    name: str,
    classes: Sequence[str],
    width: int = 64,
    levels: Sequence[int] = (1, 2, 3, 4),
    seed: int = 0,
    **given: Any,
) -> Segmenter:
    """A ``Pyramid`` on timm's encoder of this name, with fresh weights by the seed.

    Args:
        name: of a network of timm that gives maps (``features_only``).
        classes: what a pixel may be.
        width: channels of the pyramid.
        levels: which of the encoder's maps; the first is usually at a quarter of the images' resolution when this is 1.
        seed: of the fresh weights.
        given: arguments of ``timm.create_model``.
    """
    import timm

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            encoder: Any = timm.create_model(name, features_only=True, out_indices=tuple(levels), **given)
        except (RuntimeError, AssertionError, AttributeError) as error:
            raise InputError(f"timm has no encoder '{name}' with maps {tuple(levels)}; choose another name.") from error
        return Segmenter(Pyramid(encoder, encoder.feature_info.channels(), width, len(classes)), classes).eval()
