"""Two classes made one, and a class renamed."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from classgraft.errors import InputError
from classgraft.models.classifier import Block, Classifier, Head, fewer, linear


class Merged(nn.Linear, Block):
    """Rows of which some stand for several classes made one; ``weight`` (K, D) holds the first row of each.

    A merged class's logit is the log-sum-exp of its rows' logits, so that its softmax probability is the sum of theirs
    and no other class's changes. No single linear row gives that. ``classgraft.models.rows.layers`` lists all rows of a head.
    """

    def __init__(self, block: nn.Linear, more: nn.Linear, place: Sequence[int]) -> None:
        """``block`` with ``more`` (M rows and biases), of which row m counts as the block's row ``place[m]``.

        A block without biases is given zeros: what is saved of it always has some.
        """
        nn.Module.__init__(self)  # the parent would draw numbers from the global generator
        self.in_features, self.out_features = block.in_features, block.out_features
        self.weight, self.more, self.place = block.weight, more, tuple(place)
        self.bias = nn.Parameter(block.weight.new_zeros(len(block.weight))) if block.bias is None else block.bias

    def forward(self, features: Tensor) -> Tensor:
        logits, more = super().forward(features), self.more(features)
        for m, k in enumerate(self.place):
            both = torch.logaddexp(logits[:, k], more[:, m])
            logits = logits.index_copy(1, torch.tensor([k], device=logits.device), both[:, None])
        return logits

    def only(self, kept: list[int]) -> Block | nn.Linear:  # type: ignore[override]
        stay = [m for m, k in enumerate(self.place) if k in kept]
        first = linear(self.weight[kept], self.bias[kept])
        if not stay:
            return first
        more = linear(self.more.weight[stay], self.more.bias[stay])
        return Merged(first, more, [kept.index(self.place[m]) for m in stay])

    def spec(self) -> dict[str, Any]:
        return {"kind": "merged", "rows": self.out_features, "width": self.in_features, "place": list(self.place)}


def merged(model: Classifier, first: str, second: str) -> Classifier:
    """A copy in which ``second`` counts as ``first``: its rows stand beside that class's.

    Raises:
        InputError: the head is not made of rows.
    """
    if other := [type(block).__name__ for block in model.head.blocks if not isinstance(block, nn.Linear)]:
        raise InputError(
            f"'{first}' and '{second}' cannot be made one in a head by another rule than linear rows ({other[0]}); undo what"
            " brought it, put the photos of both into one folder and extend again."
        )
    number, k = _at(model, second)
    gone = fewer(model.head.linear[number], [k])
    assert isinstance(gone, nn.Linear)
    rows = [gone, gone.more] if isinstance(gone, Merged) else [gone]
    copy_ = model.without([second])
    number, k = _at(copy_, first)
    block = copy_.head.linear[number]
    place = [k for part in rows for _ in part.weight]
    if isinstance(block, Merged):
        rows, place = [block.more, *rows], [*block.place, *place]
    head = Head(rows)
    copy_.head.blocks[number] = Merged(block, linear(head.weight, head.bias), place).train(block.training)
    return copy_


def renamed(model: Classifier, old: str, new: str) -> Classifier:
    """A copy in which a class has another name."""
    copy_ = copy.deepcopy(model)
    copy_.classes = tuple(new if name == old else name for name in model.classes)
    return copy_


def _at(model: Classifier, name: str) -> tuple[int, int]:
    """The number of the block that holds a class, and the class's place there."""
    number, where = 0, model.classes.index(name)
    while where >= model.head.rows[number]:
        where -= model.head.rows[number]
        number += 1
    return number, where
