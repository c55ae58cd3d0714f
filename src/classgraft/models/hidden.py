"""Rows with a few hidden units of their own beside them."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from classgraft.models.classifier import Block, Classifier, fewer
from classgraft.models.statistics import described


def units_logits(features: Tensor, inner: Tensor, offset: Tensor, outer: Tensor) -> Tensor:
    """What hidden units add to the logits: v_k . relu(U_k x + u_k) for each class (B, K).

    Args:
        features: x (B, D).
        inner: U (K, H, D), of H units for each class.
        offset: u (K, H).
        outer: v (K, H).
    """
    hidden = F.linear(features, inner.flatten(0, 1), offset.flatten()).relu()
    return (hidden.unflatten(1, outer.shape) * outer).sum(2)


def first_units(features: Tensor, classes: int, units: int, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """U, u and v to start from: random directions that answer to features (B, D) with numbers about 1, u and v zero."""
    length = float(features.square().sum(1).mean()) ** 0.5 or 1.0
    inner = torch.randn(classes, units, features.shape[1], generator=generator) / length
    return inner, torch.zeros(classes, units), torch.zeros(classes, units)


class Hidden(Block):
    """Rows, and beside them for each class units that feed that class's logit alone."""

    def __init__(self, rows: nn.Linear, units: int) -> None:
        """``rows`` as they are, with this many units a class, all zero: they add nothing."""
        super().__init__()
        self.in_features, self.out_features, self.rows = rows.in_features, rows.out_features, rows
        self.inner, self.offset, self.outer = (
            nn.Parameter(rows.weight.new_zeros(rows.out_features, units, *more)) for more in ((rows.in_features,), (), ())
        )

    def forward(self, features: Tensor) -> Tensor:
        return self.rows(features) + units_logits(features, *self.units)  # type: ignore[no-any-return]

    @property
    def units(self) -> tuple[Tensor, Tensor, Tensor]:
        """U, u and v of ``units_logits``."""
        return self.inner, self.offset, self.outer

    @property
    def linear(self) -> nn.Linear:
        return self.rows

    def only(self, kept: list[int]) -> Hidden:
        rows = fewer(self.rows, kept)
        assert isinstance(rows, nn.Linear)
        smaller = Hidden(rows, self.outer.shape[1])
        with torch.no_grad():
            for part, own in zip(smaller.units, self.units, strict=True):
                part.copy_(own[kept])
        return smaller.train(self.training)

    def spec(self) -> dict[str, Any]:
        return {"kind": "hidden", "units": self.outer.shape[1], "rows": described(self.rows)}


@torch.no_grad()
def with_units(model: Classifier, names: Sequence[str], units: Sequence[Tensor]) -> Classifier:
    """A copy in which these classes have these units beside their rows; without any, theirs are taken away.

    Args:
        model: left as it is.
        names: N of its classes.
        units: U (N, H, D), u (N, H) and v (N, H) of ``units_logits``, or nothing.
    """
    copy_, first = copy.deepcopy(model), 0
    for number, block in enumerate(copy_.head.parts):
        there = model.classes[first : first + block.out_features]
        first += block.out_features
        own = {k: names.index(name) for k, name in enumerate(there) if name in names}
        if own and isinstance(block, nn.Linear | Hidden):
            copy_.head.blocks[number] = _with_units(block, own, units).train(block.training)
    return copy_


def _with_units(block: nn.Linear | Hidden, own: Mapping[int, int], units: Sequence[Tensor]) -> nn.Linear | Hidden:
    """The block with units ``own[k]`` for its class k; zeros stand where one class has fewer units than another."""
    before = block if isinstance(block, Hidden) else Hidden(block, 0)
    most = max(outer.shape[1] for outer in (before.outer, *units[2:]))
    found = Hidden(before.rows, most)
    for number, (part, was) in enumerate(zip(found.units, before.units, strict=True)):
        part[:, : was.shape[1]] = was
        for k, i in own.items():
            part[k] = 0
            if units:
                part[k, : units[number].shape[1]] = units[number][i]
    return found if found.outer.any() else found.rows
