"""The last block of a network, and a small block beside it.

Rebuffi, Bilen, Vedaldi: Learning Multiple Visual Domains with Residual Adapters, NeurIPS 2017, arXiv 1705.08045, and
Efficient Parametrization of Multi-Domain Deep Neural Networks, CVPR 2018, arXiv 1803.10082 (adapters in parallel).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from classgraft.errors import InputError
from classgraft.models.structure import Structure, with_part

MOST = 0.9
"""A part with more than this share of a network's weights is the network itself, not a block of it."""
REDUCTION = 4
"""Output channels of a block over hidden channels of the adapter beside it."""


class Adapter(Structure):
    """A block and a narrow one beside it, on the same input, summed.

    Two convolutions (3x3, with the block's stride, then 1x1) beside a block over positions (B, C, H, W); two linear layers
    (``stride`` 0) beside one over rows (B, D) or tokens (B, T, D).
    """

    kind = "adapter"

    def __init__(self, inner: Sequence[nn.Module], inside: int, outside: int, hidden: int, stride: int) -> None:
        super().__init__()
        (self.block,) = inner
        self.inside, self.outside, self.hidden, self.stride = inside, outside, hidden, stride
        first, last = _layer(inside, hidden, 3, stride), _layer(hidden, outside, 1, min(stride, 1))
        self.beside = nn.Sequential(first, nn.ReLU(), last)

    def forward(self, x: Tensor, *given: Any, **named: Any) -> Tensor:
        found, beside = self.block(x, *given, **named), self.beside(x)
        if beside.ndim == 4 and beside.shape != found.shape:  # the block pads otherwise
            beside = F.adaptive_avg_pool2d(beside, found.shape[2:])
        return found + beside  # type: ignore[no-any-return]

    @property
    def inner(self) -> Sequence[nn.Module]:
        return (self.block,)

    @property
    def settings(self) -> dict[str, int]:
        return {"inside": self.inside, "outside": self.outside, "hidden": self.hidden, "stride": self.stride}


def _layer(inside: int, outside: int, kernel: int, stride: int) -> nn.Module:
    """Without values yet; no random number is drawn."""
    if stride:
        return nn.utils.skip_init(nn.Conv2d, inside, outside, kernel, stride, kernel // 2)  # type: ignore[no-any-return]
    return nn.utils.skip_init(nn.Linear, inside, outside)  # type: ignore[no-any-return]


def last_block(body: nn.Module) -> str:
    """The dotted name of a network's last block, such as ``layer4`` of a ResNet or ``blocks.11`` of a ViT.

    The last of its direct parts, in order of registration, that has a matrix or a convolution (a normalisation has only
    vectors); where that is nearly the whole network, the last of that part's own, and so on. An adapted block is one block.

    Raises:
        InputError: the network has no such part.
    """
    everything, name, part = _weights(body), "", body
    while not isinstance(part, Structure) and (not name or _weights(part) > MOST * everything):
        inside = [(key, child) for key, child in part.named_children() if _has_matrix(child)]
        if not inside:
            break
        key, part = inside[-1]
        name = f"{name}.{key}" if name else key
    if not name:
        raise InputError(
            f"{type(body).__name__} has no part with weights that could be its last block; learn all layers, or the head alone."
        )
    return name


def _weights(module: nn.Module) -> int:
    return sum(parameter.numel() for parameter in module.parameters())


def _has_matrix(module: nn.Module) -> bool:
    return any(parameter.ndim > 1 for parameter in module.parameters())


def adapted(body: nn.Module, name: str, images: Tensor, seed: int) -> Adapter:
    """Put an adapter beside a block of this body, in place; the body gives what it gave until the adapter has learnt.

    Args:
        body: to change.
        name: of the block.
        images: network input (B, C, H, W), to see what goes in and out of the block.
        seed: of the adapter's first layer; its last starts at zero.

    Raises:
        InputError: the block is not of a form that an adapter can stand beside.
    """
    block, seen = body.get_submodule(name), []
    hook = block.register_forward_hook(lambda _, given, found: seen.append((*given[:1], found)))
    with hook, torch.no_grad():
        body(images)
    shapes = [tuple(x.shape) if isinstance(x, Tensor) else () for pair in seen for x in pair]
    stride = _stride(*shapes) if len(seen) == 1 and len(shapes) == 2 else None
    if stride is None:
        shown = " to ".join(map(str, shapes)) or "nothing"
        raise InputError(
            f"No adapter can stand beside the block '{name}' of {type(body).__name__}, which turns {shown};"
            " choose other layers to learn."
        )
    channel = 1 if stride else -1
    inside, outside = shapes[0][channel], shapes[1][channel]
    adapter = Adapter([block], inside, outside, max(1, outside // REDUCTION), stride)
    with torch.no_grad():
        for parameter in adapter.beside.parameters():
            parameter.zero_()
    first = next(adapter.beside.parameters())
    nn.init.kaiming_normal_(first, generator=torch.Generator().manual_seed(seed))
    adapter.beside.to(images.device).train(block.training)
    with_part(body, name, adapter.train(block.training))
    return adapter


def _stride(before: tuple[int, ...], after: tuple[int, ...]) -> int | None:
    """Of a block from one shape to another; 0 where it works on rows or tokens, None where no adapter does the same."""
    if len(before) == len(after) in (2, 3) and before[:-1] == after[:-1]:
        return 0
    if len(before) == len(after) == 4 and before[2] == before[3] and after[2] == after[3]:
        return max(1, round(before[2] / after[2]))
    return None
