"""New rows on features that are all at hand: the whole problem at once, without batches or augmentation."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor


def solve(
    terms: Callable[[Tensor, Tensor], dict[str, Tensor]], classes: int, width: int, steps: int, lr: float | None = None
) -> tuple[Tensor, Tensor]:
    """Rows (N, D) and biases (N,) that make the sum of the terms small, from zero.

    Args:
        terms: named, already weighted losses of weight (N, D) and bias (N,).
        classes: N.
        width: D.
        steps: of L-BFGS, which goes to the minimum; with ``lr``, of Adam, which may stop on the way.
        lr: Adam's learning rate.
    """
    weight, bias = torch.zeros(classes, width, requires_grad=True), torch.zeros(classes, requires_grad=True)

    def closure() -> float:
        optimizer.zero_grad()
        loss = torch.stack(list(terms(weight, bias).values())).sum()
        loss.backward()  # type: ignore[no-untyped-call]
        return float(loss.detach())

    optimizer: torch.optim.Optimizer
    if lr is None:
        optimizer = torch.optim.LBFGS([weight, bias], max_iter=steps, line_search_fn="strong_wolfe", history_size=10)
        optimizer.step(closure)
    else:
        optimizer = torch.optim.Adam([weight, bias], lr)
        for _ in range(steps):
            optimizer.step(closure)
    return weight.detach(), bias.detach()
