"""Stochastic depth: in training each residual block is left out by chance, image by image.

Huang, Sun, Liu, Sedra, Weinberger: Deep Networks with Stochastic Depth, ECCV 2016, arXiv 1603.09382, with the linear decay
of section 3.

Differs from the paper: a block is taken whole, with the activation at its end, so that what it adds is its output less its
input; and that is divided by the probability in training, where the paper multiplies by it in evaluation.
"""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn


@torch.no_grad()
def residual(body: nn.Module, images: Tensor) -> list[nn.Module]:
    """The residual blocks that keep their input's shape, from the first to the last.

    A block is known by what it does: with all its weights at 0 it gives back what it is given, or the ReLU of that. Of
    blocks within one another the innermost count. ``images`` (B, C, H, W) are looked at once, with the body as it is.
    """
    given: dict[str, tuple[tuple[Any, ...], dict[str, Any]]] = {}

    def note(name: str, part: nn.Module, words: tuple[Any, ...], more: dict[str, Any], output: object) -> None:
        if words and all(type(one) is Tensor for one in (words[0], output)) and words[0].shape == output.shape:  # type: ignore[attr-defined]
            given[name] = words, more

    parts = {name: part for name, part in body.named_modules() if name and any(True for _ in part.children())}
    hooks = [part.register_forward_hook(partial(note, name), with_kwargs=True) for name, part in parts.items()]
    try:
        body(images)
    finally:
        for hook in hooks:
            hook.remove()
    blocks = [name for name in parts if name in given and _gives_back(parts[name], *given[name])]
    return [parts[name] for name in blocks if not any(inner.startswith(f"{name}.") for inner in blocks)]


def _gives_back(part: nn.Module, words: tuple[Any, ...], more: dict[str, Any]) -> bool:
    """Whether nothing but a shortcut is left of it without its weights."""
    empty = copy.deepcopy(part).eval()
    if not any(True for _ in empty.parameters()):
        return False
    for parameter in empty.parameters():
        parameter.zero_()
    asked = torch.linspace(-1, 1, words[0].numel(), device=words[0].device, dtype=words[0].dtype).view_as(words[0])
    found = empty(asked, *words[1:], **more)
    return torch.equal(found, asked) or torch.equal(found, asked.relu())


@contextlib.contextmanager
def stochastic_depth(blocks: list[nn.Module], survival: float) -> Iterator[None]:
    """Inside, blocks in training mode are left out by chance; the last survives with probability ``survival``, the one
    before the first would with 1, and those between on a straight line.

    Where a block survives, what it adds is divided by its probability, so that nothing needs scaling in evaluation.
    """
    chances = [1 - (i + 1) / len(blocks) * (1 - survival) for i in range(len(blocks))]
    hooks = [
        block.register_forward_hook(partial(_dropped, chance)) for block, chance in zip(blocks, chances, strict=True)
    ]
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def _dropped(chance: float, block: nn.Module, given: tuple[Tensor, ...], output: Tensor) -> Tensor:
    if not block.training or chance == 1:
        return output
    shape = (len(output),) + (1,) * (output.ndim - 1)
    kept = (torch.rand(shape, device=output.device) < chance).to(output.dtype) / chance
    return given[0] + kept * (output - given[0])
