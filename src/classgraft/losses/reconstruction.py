"""How far a picture is from another: tensors in, a scalar out."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def relative_difference(ours: Sequence[Tensor], theirs: Sequence[Tensor]) -> Tensor:
    """Mean over layers of mean |a - b| / mean |b|: the perceptual loss, in which every layer weighs the same.

    Johnson, Alahi, Fei-Fei, ECCV 2016, arXiv 1603.08155, compare layers of a trained network; taken relative to what is
    compared with, the loss does not hang on how large a layer's numbers are.

    Args:
        ours: maps of the pictures made, one tensor a layer.
        theirs: of the pictures meant, of the same shapes, without a graph.
    """
    pairs = zip(ours, theirs, strict=True)
    return torch.stack([(a - b).abs().mean() / b.abs().mean().clamp(min=1e-6) for a, b in pairs]).mean()
