"""Intermediate maps of a network beside its features."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from classgraft.errors import InputError


class Staged(nn.Module):
    """A body that also gives the maps of its stages, with their graph."""

    def __init__(self, body: nn.Module, names: tuple[str, ...]) -> None:
        super().__init__()
        self.body, self.names = body, names

    def forward(self, images: Tensor) -> list[Tensor]:
        """Images (B, C, H, W) to features (B, D) and then the map (B, C', H', W') of each stage."""
        found: dict[str, Tensor] = {}

        def catch(name: str) -> torch.utils.hooks.RemovableHandle:
            return self.body.get_submodule(name).register_forward_hook(
                lambda module, given, output: found.update({name: output})
            )

        hooks = [catch(name) for name in self.names]
        try:
            features = self.body(images)
        finally:
            for hook in hooks:
                hook.remove()
        return [features, *(found[name] for name in self.names)]


@torch.no_grad()
def stages(body: nn.Module, images: Tensor) -> tuple[str, ...]:
    """The names of the parts that give the last map of each resolution above one pixel, from fine to coarse.

    In a residual network those are its stages. ``images`` (B, C, H, W) are looked at once; the body is in evaluation mode.

    Raises:
        InputError: there are no such maps.
    """
    last: dict[tuple[int, ...], str] = {}
    hooks = []
    for name, part in body.named_modules():

        def note(module: nn.Module, given: object, output: object, name: str = name) -> None:
            if isinstance(output, Tensor) and output.ndim == 4 and output.shape[2] * output.shape[3] > 1:
                last[tuple(output.shape[2:])] = name

        hooks += [part.register_forward_hook(note)] if name else []
    try:
        body(images)
    finally:
        for hook in hooks:
            hook.remove()
    if not last:
        raise InputError(
            f"{type(body).__name__} has no intermediate maps (B, C, H, W) to compare; choose a method that compares answers."
        )
    return tuple(sorted(last.values(), key=lambda name: -max(a * b for (a, b), n in last.items() if n == name)))
