"""New rows on features that are all at hand: the whole problem at once, without batches or augmentation."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def solve(
    terms: Callable[..., dict[str, Tensor]],
    classes: int,
    width: int,
    steps: int,
    lr: float | None = None,
    more: Sequence[Tensor] = (),
) -> tuple[Tensor, ...]:
    """Rows (N, D) and biases (N,) that make the sum of the terms small, from zero; and ``more``, from where it starts.

    Args:
        terms: named, already weighted losses of weight (N, D), bias (N,) and ``more``.
        classes: N.
        width: D.
        steps: of L-BFGS, which goes to the minimum; with ``lr``, of Adam, which may stop on the way.
        lr: Adam's learning rate.
        more: further tensors to find, where to start from.
    """
    start = (torch.zeros(classes, width), torch.zeros(classes), *more)
    found = [part.clone().requires_grad_() for part in start]

    def closure() -> float:
        optimizer.zero_grad()
        loss = torch.stack(list(terms(*found).values())).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return float(loss.detach())

    optimizer: torch.optim.Optimizer
    if lr is None:
        optimizer = torch.optim.LBFGS(found, max_iter=steps, line_search_fn="strong_wolfe", history_size=10)
        optimizer.step(closure)
    else:
        optimizer = torch.optim.Adam(found, lr)
        for _ in range(steps):
            optimizer.step(closure)
    return tuple(part.detach() for part in found)
