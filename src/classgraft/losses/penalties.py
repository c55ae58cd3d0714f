"""Losses of weights: what keeps them where they were."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable


def quadratic(weights: Sequence[Tensor], anchors: Sequence[Tensor], importance: Sequence[Tensor]) -> Tensor:
    """Sum over all weights of importance * (weight - anchor) squared, without a factor of one half.

    A step costs a few multi-tensor operations, however many tensors there are; the graph is a single node.

    Args:
        weights: tensors of any shapes.
        anchors: where they should be, of the same shapes, without gradient.
        importance: at least 0, of the same shapes, without gradient. On a GPU all three in the same memory layout are
            quickest.
    """
    return _Quadratic.apply(anchors, importance, *weights)  # type: ignore[no-any-return]


class _Quadratic(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, anchors: Sequence[Tensor], importance: Sequence[Tensor], *weights: Tensor) -> Tensor:
        moved = torch._foreach_sub(weights, list(anchors))
        pull = torch._foreach_mul(moved, list(importance))
        ctx.save_for_backward(*pull)
        torch._foreach_mul_(moved, pull)
        return torch.stack(torch._foreach_norm(moved, 1)).sum()  # nothing in it is below 0

    @staticmethod
    @once_differentiable  # type: ignore[untyped-decorator]
    def backward(ctx: Any, gradient: Tensor) -> Any:
        return None, None, *torch._foreach_mul(ctx.saved_tensors, 2 * gradient)
