"""Rows of a head: drawn afresh, for more features or fewer, at another length."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from classgraft.models.classifier import Head


def fresh(rows: int, width: int, draw: torch.Generator) -> nn.Linear:
    """Rows for features (B, D) drawn evenly from within 1 / sqrt(D) of 0, on the CPU; no bias at first."""
    block = nn.utils.skip_init(nn.Linear, width, rows)
    assert isinstance(block, nn.Linear)
    nn.init.uniform_(block.weight, -1 / math.sqrt(width), 1 / math.sqrt(width), draw)
    nn.init.zeros_(block.bias)
    return block


@torch.no_grad()
def widened(head: Head, more: int, draw: torch.Generator) -> Head:
    """The same linear rows on the CPU, with drawn weights for so many features more."""
    blocks = []
    for block in head.linear:
        wider = fresh(block.out_features, block.in_features + more, draw)
        wider.weight[:, : block.in_features] = block.weight.cpu()
        if block.bias is not None:
            wider.bias.copy_(block.bias)
        blocks.append(wider)
    return Head(blocks)


@torch.no_grad()
def narrow(head: Head, before: int, kept: Tensor) -> None:
    """Keep the columns of the first so many features and, of those after them, of these places; in place."""
    columns = torch.cat([torch.arange(before, device=kept.device), before + kept])
    for block in head.linear:
        block.weight = nn.Parameter(block.weight[:, columns].clone())
        block.in_features = len(columns)


@torch.no_grad()
def align(old: Sequence[nn.Linear], new: nn.Linear) -> None:
    """Scale the new rows, not their biases, by the ratio of the rows' mean lengths, old over new, in place.

    Zhao, Xiao, Gan, Zhang, Xia: Maintaining Discrimination and Fairness in Class Incremental Learning, CVPR 2020,
    arXiv 1911.07053, equation 9.
    """
    length = torch.cat([block.weight.norm(dim=1) for block in old]).mean()
    new.weight.mul_(length / new.weight.norm(dim=1).mean().clamp(min=1e-12))
