"""Losses of keypoints: maps or coordinates in, how much each point counts, a scalar out. What counts for nothing gives no
gradient, and where nothing counts the loss is 0."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def heatmap_divergence(logits: Tensor, points: Tensor, weight: Tensor, spread: float) -> Tensor:
    """Mean over the points that count of the Kullback-Leibler divergence of a map from a Gaussian about the point.

    Every map is one distribution over all its cells (He and others: Mask R-CNN, ICCV 2017, arXiv 1703.06870, learns keypoints
    so, from a single cell). The Gaussian is taken at the centres of the cells and adds up to 1 over the map.

    Args:
        logits: (B, K, h, w).
        points: x and y (B, K, 2) in cells, 0 at the left and top edge, so that the first cell's centre is at 0.5.
        weight: (B, K), bool or not negative.
        spread: sigma, in cells.
    """
    x, y = (_bell(points[..., i], side, spread) for i, side in ((0, logits.shape[3]), (1, logits.shape[2])))
    own = logits.flatten(2).log_softmax(2).view_as(logits)
    wide, high = x.exp(), y.exp()
    # no matrix product: its precision may be reduced
    cross = (high[..., None] * wide[:, :, None] * own).sum((2, 3))
    return weighted_mean((wide * x).sum(2) + (high * y).sum(2) - cross, weight)


def _bell(at: Tensor, side: int, spread: float) -> Tensor:
    """Logarithms (B, K, side) of a Gaussian along one axis, which adds up to 1."""
    centres = torch.arange(side, device=at.device, dtype=at.dtype) + 0.5
    return (-((centres - at[..., None]) / spread).square() / 2).log_softmax(2)


def map_divergence(student: Tensor, teacher: Tensor, weight: Tensor) -> Tensor:
    """Mean over the points that count of the divergence of the student's distribution over places from the teacher's.

    Args:
        student: logits (B, K, h, w).
        teacher: logits of the same shape, without a graph.
        weight: (B, K), bool or not negative.
    """
    own, wanted = (maps.flatten(2).log_softmax(2) for maps in (student, teacher))
    return weighted_mean(F.kl_div(own, wanted, reduction="none", log_target=True).sum(2), weight)


def squared_distance(found: Tensor, wanted: Tensor, weight: Tensor) -> Tensor:
    """Mean over the points that count of the squared distance between two places.

    Args:
        found: (B, K, 2).
        wanted: likewise, without a graph.
        weight: (B, K), bool or not negative.
    """
    return weighted_mean((found - wanted).square().sum(2), weight)


def weighted_mean(each: Tensor, weight: Tensor) -> Tensor:
    """Sum of ``each`` times ``weight``, of one shape, over the sum of the weights; 0 where that is 0."""
    weight = weight.to(each.dtype)
    return (each * weight).sum() / weight.sum().clamp(min=torch.finfo(each.dtype).tiny)
