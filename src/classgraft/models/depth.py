"""Stochastic depth: in training each residual block is left out by chance, image by image.

Huang, Sun, Liu, Sedra, Weinberger: Deep Networks with Stochastic Depth, ECCV 2016, arXiv 1603.09382, with the linear decay
of section 3.

Differs from the paper: a block is taken whole, with the activation at its end, so that what it adds is its output less its
input; and that is divided by the probability in training, where the paper multiplies by it in evaluation.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from functools import partial

import torch
from torch import Tensor, nn


@torch.no_grad()
def residual(body: nn.Module, images: Tensor) -> list[nn.Module]:
    """The outermost parts, other than the body, that return the shape they take, from the first to the last.

    Sequences are looked into, and parts without parts of their own (an activation) are no blocks; in residual networks
    what is left are the blocks that keep the resolution and the width. ``images`` (B, C, H, W) are looked at once, with
    the body as it is.
    """
    found: dict[str, nn.Module] = {}

    def note(name: str, module: nn.Module, given: tuple[object, ...], output: object) -> None:
        same = [type(one) is Tensor and one.shape == output.shape for one in given[:1] if isinstance(output, Tensor)]
        if same == [True]:
            found[name] = module

    parts = [(name, part) for name, part in body.named_modules() if name and any(True for _ in part.children())]
    hooks = [
        part.register_forward_hook(partial(note, name)) for name, part in parts if not isinstance(part, nn.Sequential)
    ]
    try:
        body(images)
    finally:
        for hook in hooks:
            hook.remove()
    names = [name for name, _ in parts if name in found]
    return [found[name] for name in names if not any(name.startswith(f"{outer}.") for outer in names)]


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
