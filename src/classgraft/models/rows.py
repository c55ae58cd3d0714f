"""Rows of a head: all of them, drawn afresh, for more features or fewer, moved, at another length."""

from __future__ import annotations

import copy
import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from classgraft.models.classifier import Classifier, Head
from classgraft.models.merged import Merged


def layers(head: Head) -> list[tuple[nn.Linear, list[int]]]:
    """The layers that hold its rows, each with the classes that these count for: its blocks, and then what classes that
    were made one have beside their first row.

    Raises:
        InputError: another rule than rows gives some of the logits.
    """
    found, more, first = [], [], 0
    for block in head.linear:
        found.append((block, [first + k for k in range(block.out_features)]))
        if isinstance(block, Merged):
            more.append((block.more, [first + k for k in block.place]))
        first += block.out_features
    return found + more


def all_rows(head: Head) -> tuple[Tensor, Tensor, Tensor]:
    """All rows (R, D), their biases (R,) and the class of each (R,), in the order of ``layers``; without gradient.

    ``head.weight`` and ``head.bias`` are the first of each class.
    """
    found = layers(head)
    more = [layer for layer, _ in found[len(head.blocks) :]]
    weight = torch.cat([head.weight, *(layer.weight.detach() for layer in more)])
    bias = torch.cat([head.bias, *(layer.bias.detach() for layer in more)])
    return weight, bias, torch.tensor([k for _, classes in found for k in classes], dtype=torch.int64)


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
    return Head(_wider(block, more, draw) for block in head.linear)


def _wider(block: nn.Linear, more: int, draw: torch.Generator) -> nn.Linear:
    wider = fresh(block.out_features, block.in_features + more, draw)
    wider.weight[:, : block.in_features] = block.weight.cpu()
    if block.bias is not None:
        wider.bias.copy_(block.bias)
    return Merged(wider, _wider(block.more, more, draw), block.place) if isinstance(block, Merged) else wider


@torch.no_grad()
def narrow(head: Head, before: int, kept: Tensor) -> None:
    """Keep the columns of the first so many features and, of those after them, of these places; in place."""
    columns = torch.cat([torch.arange(before, device=kept.device), before + kept])
    for layer, _ in layers(head):
        layer.weight = nn.Parameter(layer.weight[:, columns].clone())
        layer.in_features = len(columns)


@torch.no_grad()
def moved(model: Classifier, weight: Tensor, bias: Tensor) -> Classifier:
    """A copy whose logit of class k is larger by ``weight[k]`` x + ``bias[k]`` for features x: all its rows move by that.

    Args:
        model: left as it is.
        weight: (K, D).
        bias: (K,).

    Raises:
        InputError: the head is not made of rows.
    """
    copy_ = copy.deepcopy(model)
    for layer, classes in layers(copy_.head):
        layer.weight.add_(weight[classes].to(layer.weight))
        if layer.bias is None:
            layer.bias = nn.Parameter(layer.weight.new_zeros(len(layer.weight)))
        layer.bias.add_(bias[classes].to(layer.bias))
    return copy_


@torch.no_grad()
def align(old: Sequence[nn.Linear], new: nn.Linear) -> None:
    """Scale the new rows, not their biases, by the ratio of the rows' mean lengths, old over new, in place.

    Zhao, Xiao, Gan, Zhang, Xia: Maintaining Discrimination and Fairness in Class Incremental Learning, CVPR 2020,
    arXiv 1911.07053, equation 9.
    """
    length = torch.cat([layer.weight.norm(dim=1) for layer, _ in layers(Head(old))]).mean()
    new.weight.mul_(length / new.weight.norm(dim=1).mean().clamp(min=1e-12))
