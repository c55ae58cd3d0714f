"""Several bodies of one architecture side by side, as a representation that grows by one body at a time."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from classgraft.errors import InputError
from classgraft.models.pruned import Pruned
from classgraft.models.structure import Structure


class SideBySide(Structure):
    """Bodies on the same images; their features one after the other, the oldest body's first.

    Each computes what it computes alone, so a body's features keep their bits when another comes beside it.
    """

    kind = "beside"

    def __init__(self, inner: Sequence[nn.Module]) -> None:
        super().__init__()
        if not inner:
            raise InputError("it states bodies side by side, but none.")
        self.bodies = nn.ModuleList(inner)

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) to features (B, D_1 + ... + D_t)."""
        return torch.cat([body(images) for body in self.bodies], dim=1)

    @property
    def inner(self) -> Sequence[nn.Module]:
        return tuple(self.bodies)

    @property
    def settings(self) -> dict[str, int]:
        return {}


def bodies(body: nn.Module) -> list[nn.Module]:
    """Those that stand side by side, oldest first; else the body alone."""
    return list(body.bodies) if isinstance(body, SideBySide) else [body]


def successor(body: nn.Module, seed: int) -> nn.Module:
    """The next body to stand beside these: a copy of the newest, at full width where that was pruned.

    ``seed``: of the weights of channels that the newest no longer has.
    """
    newest = bodies(body)[-1]
    return newest.widened(seed) if isinstance(newest, Pruned) else copy.deepcopy(newest)
