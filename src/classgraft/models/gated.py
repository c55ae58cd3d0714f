"""A network whose channels open by the image, for each task by gates and norms of its own.

Abati, Tomczak, Blankevoort, Calderara, Cucchiara, Bejnordi: Conditional Channel Gated Networks for Task-Aware Continual
Learning, CVPR 2020, arXiv 2004.00070.

Which network it is does not matter for what is kept: every kernel's output is either shut or a frozen kernel's, every norm is
the task's own, and nothing else in the network learns. So a task's features hang on what no later task can move.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.modules.batchnorm import _BatchNorm

from classgraft.errors import InputError
from classgraft.losses.gates import binary_concrete
from classgraft.models.structure import PLAIN, Structure, spec

HIDDEN = 16
"""Units between what a gate sees and what it opens."""
OPEN = 2.0
"""Logit at which gates begin: open for seven images in eight."""
MOST = 512
"""Tasks that a description may ask for."""


class Gate(nn.Module):
    """Which of a convolution's channels are open for an image, told from the mean over positions of what goes into it."""

    fired: Tensor

    def __init__(self, inside: int, outside: int) -> None:
        super().__init__()
        self.first: nn.Linear = nn.utils.skip_init(nn.Linear, inside, HIDDEN)  # type: ignore[assignment]
        self.last: nn.Linear = nn.utils.skip_init(nn.Linear, HIDDEN, outside)  # type: ignore[assignment]
        self.register_buffer("fired", torch.ones(outside, dtype=torch.bool))
        """(C,); a channel that opened for no image while there were any stays shut."""
        self.temperature = 2 / 3

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, C', H, W) to gates (B, C): truth values, in training numbers 0 and 1 that are drawn."""
        logits: Tensor = self.last(F.relu(self.first(x.mean((2, 3)))))
        if self.training:
            # noise of 16 bits comes in steps of 1/256: what is rarer would never be drawn, or too often
            logits = logits.float()
            return binary_concrete(logits, torch.rand_like(logits), self.temperature)
        return (logits > 0) & self.fired


class Lane(nn.Module):
    """One task's gates and norms."""

    def __init__(self, body: nn.Module) -> None:
        super().__init__()
        found = layers(body)
        self.gates = nn.ModuleList(Gate(conv.in_channels, conv.out_channels) for conv, _ in found if conv)
        self.norms = nn.ModuleList(copy.deepcopy(norm) for _, norm in found if norm)

    def forward(
        self, body: nn.Module, images: Tensor, weights: Mapping[str, Tensor] | None = None
    ) -> tuple[Tensor, list[Tensor]]:
        """Features (B, D) of a network through this task's gates and norms, and each convolution's gates (B, C).

        ``weights`` stand in the place of some of the network's, by name.
        """
        gates, norms, hooks = iter(self.gates), iter(self.norms), []
        opened: dict[nn.Module, Tensor] = {}
        for conv, norm in layers(body):
            if conv is not None:
                hooks.append(conv.register_forward_hook(_gating(next(gates), opened, last=norm is None)))
            if norm is not None:
                hooks.append(norm.register_forward_hook(_norming(next(norms), opened, conv)))
        try:
            features = functional_call(body, dict(weights or {}), (images,))
        finally:
            for hook in hooks:
                hook.remove()
        return features, [opened[conv] for conv in convolutions(body)]


def _gating(gate: nn.Module, opened: dict[nn.Module, Tensor], last: bool) -> Any:
    def hook(conv: nn.Module, given: tuple[Tensor, ...], found: Tensor) -> Tensor | None:
        opened[conv] = gate(given[0])
        return _shut(found, opened[conv]) if last else None

    return hook


def _norming(own: nn.Module, opened: dict[nn.Module, Tensor], conv: nn.Module | None) -> Any:
    def hook(norm: nn.Module, given: tuple[Tensor, ...], found: Tensor) -> Tensor:
        normed: Tensor = own(given[0])
        return normed if conv is None else _shut(normed, opened[conv])

    return hook


def _shut(maps: Tensor, gates: Tensor) -> Tensor:
    """Zeros where a gate is shut, whatever stood there."""
    gates = gates[:, :, None, None]
    return torch.where(gates, maps, 0.0) if gates.dtype == torch.bool else maps * gates.to(maps.dtype)


class Gated(Structure):
    """Features of the network as it is, if some class reads them, and then through each task's gates, side by side."""

    kind = "gated"

    def __init__(self, inner: Sequence[nn.Module], bare: int, tasks: int) -> None:
        super().__init__()
        (self.body,) = inner
        if tasks > MOST:
            raise InputError(f"it states {tasks} tasks of gates; {MOST} are the most.")
        self.bare = bool(bare)
        self.lanes = nn.ModuleList(Lane(self.body) for _ in range(tasks))

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) to features (B, streams * D)."""
        features = [self.body(images)] if self.bare else []
        return torch.cat(features + [lane(self.body, images)[0] for lane in self.lanes], 1)

    @property
    def inner(self) -> Sequence[nn.Module]:
        return (self.body,)

    @property
    def settings(self) -> dict[str, int]:
        return {"bare": int(self.bare), "tasks": len(self.lanes)}

    @property
    def streams(self) -> int:
        return self.bare + len(self.lanes)

    @property
    def used(self) -> list[Tensor]:
        """For each convolution its kernels (C,) that a task may use: all of them where the network as it is serves one."""
        found = []
        for number, conv in enumerate(convolutions(self.body)):
            fired = [lane.gates[number].fired for lane in self.lanes]  # type: ignore[union-attr, index]
            everything = torch.full((conv.out_channels,), self.bare, device=conv.weight.device)
            found.append(torch.stack([everything, *fired]).any(0))  # type: ignore[list-item]
        return found

    @property
    def capacity(self) -> float:
        """The share of the convolutions' weights that lie in kernels in use."""
        convs = convolutions(self.body)
        sizes = [conv.weight[0].numel() for conv in convs]
        used = sum(int(kernels.sum()) * size for kernels, size in zip(self.used, sizes, strict=True))
        return used / sum(conv.weight.numel() for conv in convs)


def layers(body: nn.Module) -> list[tuple[nn.Conv2d | None, _BatchNorm | None]]:
    """Every convolution with the batch norm that follows it, where one does, and every other batch norm by itself."""
    found: list[tuple[nn.Conv2d | None, _BatchNorm | None]] = []
    for part in body.modules():
        if isinstance(part, nn.Conv2d):
            found.append((part, None))
        elif isinstance(part, _BatchNorm):
            conv, norm = found[-1] if found else (None, None)
            if conv and not norm and isinstance(part, nn.BatchNorm2d) and part.num_features == conv.out_channels:
                found[-1] = (conv, part)
            else:
                found.append((None, part))
    return found


def convolutions(body: nn.Module) -> list[nn.Conv2d]:
    return [conv for conv, _ in layers(body) if conv]


@torch.no_grad()
def check(body: nn.Module, images: Tensor) -> None:
    """Refuse a network that gates cannot keep.

    Args:
        body: in evaluation mode, under a ``Gated`` already or not.
        images: network input (B, C, H, W), looked at once.

    Raises:
        InputError: something in it learns beside convolutions and batch norm, or a norm that comes after a convolution in
            the list of its parts normalises something else.
    """
    found, what = layers(body), type(body).__name__
    if spec(body) != PLAIN:
        raise InputError(
            "gates takes a network as it was imported, without what other methods changed; undo that first."
        )
    ours = {id(tensor) for pair in found for part in pair if part for tensor in part.parameters()}
    others = [name for name, tensor in body.named_parameters() if id(tensor) not in ours]
    if others or not convolutions(body):
        reason = f"has {others[0]} beside them" if others else "has no convolution"
        raise InputError(
            f"gates takes networks of convolutions and batch norm alone, such as ResNets, and {what} {reason};"
            " choose another method, such as piggyback."
        )
    gave: dict[nn.Module, list[Tensor]] = {conv: [] for conv in convolutions(body)}
    apart: list[nn.Module] = []
    hooks = [conv.register_forward_hook(lambda part, _, output: gave[part].append(output)) for conv in gave]
    for conv, norm in found:
        if conv and norm:
            hooks.append(norm.register_forward_hook(_watching(gave[conv], apart)))
    try:
        body(images)
    finally:
        for hook in hooks:
            hook.remove()
    if apart or not all(len(outputs) == 1 for outputs in gave.values()):
        raise InputError(
            f"gates cannot tell which batch norm of {what} follows which convolution; choose another method, such as"
            " piggyback."
        )


def _watching(gave: list[Tensor], apart: list[nn.Module]) -> Any:
    def hook(norm: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> None:
        if not gave or gave[-1] is not given[0]:
            apart.append(norm)

    return hook
