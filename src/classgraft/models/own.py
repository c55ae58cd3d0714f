"""Heads each of whose blocks reads features of its own: what several streams of one network give, side by side."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from classgraft.models.classifier import Block, Classifier, Head, feature_width, fewer
from classgraft.models.statistics import described

UNITS = 64
"""Hidden units of what tells tasks apart."""


class Own(Block):
    """A block that sees a run of the features and nothing of the others, whatever comes after them.

    With a ``judge``, what that gives for all features up to the run's end is added to every logit: by as much this block's
    classes go before those of the blocks before it.
    """

    def __init__(self, block: nn.Linear | Block, first: int, inputs: int, judge: nn.Sequential | None = None) -> None:
        """Features ``first`` up to ``first + block.in_features`` of ``inputs``."""
        super().__init__()
        self.block, self.first, self.judge = block, first, judge
        self.in_features, self.out_features = inputs, block.out_features

    @property
    def end(self) -> int:
        """Where the run ends."""
        return self.first + self.block.in_features

    def forward(self, features: Tensor) -> Tensor:
        # a copy: a product with a part of a matrix may be summed in another order than one with that part alone
        logits: Tensor = self.block(features[:, self.first : self.end].contiguous())
        return logits if self.judge is None else logits + self.judge(features[:, : self.end].contiguous())

    def only(self, kept: list[int]) -> Own:
        return Own(fewer(self.block, kept), self.first, self.in_features, self.judge)

    def spec(self) -> dict[str, Any]:
        units = 0 if self.judge is None else self.judge[0].out_features
        block = described(self.block)
        return {"kind": "own", "first": self.first, "inputs": self.in_features, "units": units, "block": block}


def judge(inputs: int, units: int = UNITS) -> nn.Sequential:
    """Features (B, D) to one number an image (B, 1); without values yet, and no random number is drawn."""
    first, last = (nn.utils.skip_init(nn.Linear, *shape) for shape in ((inputs, units), (units, 1)))
    return nn.Sequential(first, nn.ReLU(), last)


@torch.no_grad()
def fresh_judge(inputs: int, seed: int) -> nn.Sequential:
    """A ``judge`` to learn from: a random first layer, and a last one of zeros, so that it starts by saying nothing."""
    found = judge(inputs)
    for part in found.parameters():
        part.zero_()
    nn.init.kaiming_normal_(found[0].weight, generator=torch.Generator().manual_seed(seed))  # type: ignore[arg-type]
    return found


def side_by_side(model: Classifier, body: nn.Module, rows: nn.Linear, names: Sequence[str]) -> Classifier:
    """A classifier whose old blocks read what they read, and whose last one reads the features that came to the end.

    Args:
        model: left as it is.
        body: gives the features of the model's own, if it has classes, and then as many as ``rows`` take.
        rows: of the new classes; taken as they are.
        names: of the new classes.
    """
    before = feature_width(model) if model.classes else 0
    total = before + rows.in_features
    blocks: list[nn.Linear | Block] = []
    for block in copy.deepcopy(model.head).parts:
        inside, first, judging = (block.block, block.first, block.judge) if isinstance(block, Own) else (block, 0, None)
        blocks.append(Own(inside, first, total, judging))
    return Classifier(body, Head([*blocks, Own(rows, before, total)]), (*model.classes, *names)).eval()
