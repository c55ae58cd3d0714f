"""Losses of PODNet: maps, features and similarities in, a scalar out.

Douillard, Cord, Ollion, Robert, Valle: PODNet, ECCV 2020, arXiv 2004.13513.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor


def pooled(maps: Tensor) -> Tensor:
    """Sums of squares over the height beside sums over the width, at unit length: (B, C, H, W) to (B, C (W + H))."""
    squares = maps.to(torch.promote_types(maps.dtype, torch.float32)).square()
    return F.normalize(torch.cat([squares.sum(2).flatten(1), squares.sum(3).flatten(1)], 1), dim=1)


def pooled_distance(one: Sequence[Tensor], other: Sequence[Tensor]) -> Tensor:
    """Mean over stages and images of the distance between ``pooled`` maps (equation 4, "POD-spatial")."""
    return torch.stack([(a - b).norm(dim=1).mean() for a, b in zip(one, other, strict=True)]).mean()


def turned(one: Tensor, other: Tensor) -> Tensor:
    """Mean over images of 1 - cosine of features (B, D): half the squared distance at unit length ("POD-flat")."""
    return (1 - F.cosine_similarity(one, other)).mean()


def neighbourhood(logits: Tensor, targets: Tensor, margin: Tensor | float) -> Tensor:
    """Mean over images of the hinge [log sum_{k != y} exp(l_k) - (l_y - margin)]_+ (equation 12).

    The true class is not in the sum, so the loss is zero once its logit exceeds the softened maximum of the others
    by the margin; with one class alone it is always zero.

    Args:
        logits: scaled similarities (B, K).
        targets: y (B,).
        margin: delta times the scale.
    """
    if logits.shape[1] == 1:
        return 0 * logits.sum()
    own = F.one_hot(targets, logits.shape[1]).bool()
    others = logits.masked_fill(own, -torch.inf).logsumexp(1)
    return (others - (logits[own] - margin)).clamp(min=0).mean()
