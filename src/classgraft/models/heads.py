"""Heads of any rule as JSON and back: a closed list of kinds, whose tensors lie beside.

``described`` gives a block in plain JSON, ``build`` makes it again with tensors still to be loaded.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from classgraft.errors import InputError
from classgraft.models.classifier import Block, Head, linear
from classgraft.models.hidden import Hidden
from classgraft.models.merged import Merged
from classgraft.models.own import Own, judge
from classgraft.models.statistics import (
    Mahalanobis,
    Neighbours,
    Power,
    RandomFeatures,
    Through,
    Unit,
    described,
)

LARGEST = 1 << 30
"""Numbers in a tensor that a description may ask for."""
Description = Mapping[str, Any]


def plain(head: Head) -> bool:
    """Whether the head is nothing but linear rows, one for each class."""
    return all(isinstance(block, nn.Linear) and not isinstance(block, Block) for block in head.blocks)


def descriptions(head: Head) -> list[dict[str, Any]]:
    return [described(block) for block in head.blocks]


def tensors_of(head: Head) -> dict[str, Tensor]:
    """By ``blocks.0.mean`` and the like."""
    return {name: value.detach().cpu().contiguous() for name, value in head.state_dict().items()}


def assembled(blocks: list[Description], tensors: Mapping[str, Tensor]) -> Head:
    """The head that was described, with its tensors; others are left alone.

    Raises:
        InputError: a kind is not known, or a tensor is missing or does not fit.
    """
    head = Head([build(block) for block in blocks])
    try:
        head.load_state_dict({name: tensors[name] for name in head.state_dict()})
    except (KeyError, RuntimeError) as error:
        raise InputError(f"its head is not what it says ({' '.join(str(error).split())[:150]}); restore it.") from error
    return head


def build(description: Description) -> nn.Linear | Block:
    """The block that was described; its tensors are zeros until its state is loaded.

    Raises:
        InputError: it is none of the closed list, or lacks something.
    """
    try:
        block = _build(description)
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        raise InputError(f"There is no part of a head like {str(description)[:200]!r}; restore the bundle.") from error
    if not isinstance(block, nn.Linear | Block):
        raise InputError(f"There is no head of the kind {description['kind']!r}; restore the bundle.")
    return block


def _build(description: Description) -> nn.Module:
    kind = description["kind"]
    if kind == "unit":
        return Unit()
    if kind == "power":
        return Power(float(description["exponent"]))
    if kind == "through":
        return Through([_build(part) for part in description["transforms"]], build(description["block"]))  # type: ignore[misc]
    if kind == "random":
        inputs, width, seed = (int(description[key]) for key in ("inputs", "width", "seed"))
        _sized(inputs, width)
        return RandomFeatures(inputs, width, seed)
    if kind == "hidden":
        beside, units = build(description["rows"]), int(description["units"])
        if not isinstance(beside, nn.Linear):
            raise ValueError("hidden units beside no rows")
        _sized(beside.out_features, units, beside.in_features)
        return Hidden(beside, units)
    if kind == "own":
        return _own(description)
    rows, width = int(description["rows"]), int(description["width"])
    if kind == "linear":
        return linear(_sized(rows, width), torch.zeros(rows) if description["bias"] else None)
    if kind == "merged":
        place = [int(k) for k in description["place"]]
        if not place or not all(0 <= k < rows for k in place):
            raise ValueError("rows that count as no class")
        first, more = (linear(_sized(count, width), torch.zeros(count)) for count in (rows, len(place)))
        return Merged(first, more, place)
    if kind == "mahalanobis":
        return Mahalanobis(torch.zeros(rows, width), _sized(rows, width, width))
    if kind == "neighbours":
        kept = int(description["kept"])
        return Neighbours(_sized(kept, width), torch.zeros(kept, dtype=torch.int64), rows, 1, 1.0)
    raise ValueError(f"no kind {kind}")


def _own(description: Description) -> Own:
    block = build(description["block"])
    first, inputs, units = (int(description[key]) for key in ("first", "inputs", "units"))
    end = first + block.in_features
    if first < 0 or units < 0 or end > inputs:
        raise ValueError("features beyond the last")
    _sized(end, max(1, units))
    return Own(block, first, inputs, judge(end, units) if units else None)


def _sized(*shape: int) -> Tensor:
    """Zeros of this shape, which must not be able to ask for all memory."""
    size = 1
    for side in shape:
        size *= side
    if min(shape) < 1 or size > LARGEST:
        raise ValueError("a size beyond all measure")
    return torch.zeros(shape)
