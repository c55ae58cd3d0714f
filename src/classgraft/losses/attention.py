"""Losses of attention: activations and their gradients in, maps of where a network looks and their distance out."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

EMPTY = 1e-8
"""Length of a map below which it says nothing."""
FAINT = 1e-3
"""Length of a map, of that of a batch's maps (root mean square), below which it says nothing: its gradient is as large as it
is faint, and one image would drown all others."""


def grad_cam(activations: Tensor, gradients: Tensor) -> Tensor:
    """Where a class's score comes from: ReLU(sum_k a_k A_k), a_k the mean over positions of the score's gradient in A_k.

    Selvaraju and others: Grad-CAM, ICCV 2017, arXiv 1610.02391, equations 1 and 2. Nothing is detached, so that its own
    gradient runs through activations and gradients alike.

    Args:
        activations: A (B, C, H, W).
        gradients: of each image's score in its activations (B, C, H, W).

    Returns:
        (B, H * W), at least 0, in the scale of the score.
    """
    weights = gradients.mean((2, 3), keepdim=True)
    return (weights * activations).sum(1).relu().flatten(1)


def attention_distance(now: Tensor, before: Tensor) -> Tensor:
    """Mean over images of sum_j |q_j / ||q|| - p_j / ||p|||, 0 for an image of which either map says nothing (``silent``).

    Dhar, Singh, Peng, Wu, Chellappa: Learning without Memorizing, CVPR 2019, arXiv 1811.08051, the attention
    distillation loss. A map's scale plays no part. An empty map has no direction; its image still counts in the mean.

    Args:
        now: q (B, L), at least 0.
        before: p (B, L), at least 0, without a graph.
    """
    empty = silent(now) | silent(before)
    one, other = (F.normalize(maps.masked_fill(empty[:, None], 1.0), dim=1) for maps in (now, before))
    return (one - other).abs().sum(1).mul(~empty).mean() if len(now) else torch.zeros_like(now.sum())


def silent(maps: Tensor) -> Tensor:
    """Which of the maps (B, L) are empty, or as good as that beside the others: (B,)."""
    length: Tensor = maps.detach().norm(dim=1)
    return length <= (FAINT * length.square().mean().sqrt()).clamp(min=EMPTY)
