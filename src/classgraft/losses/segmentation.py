"""Losses on maps: logits or features of every place in, which places count, a scalar out. Places that do not count give
no gradient, and where none counts the loss is 0."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def pixel_cross_entropy(logits: Tensor, masks: Tensor, void: int = 255) -> Tensor:
    """Mean cross-entropy over the pixels that are not void.

    Args:
        logits: (B, K, H, W).
        masks: int64 (B, H, W), classes or ``void``.
        void: what counts for nothing.
    """
    total = F.cross_entropy(logits, masks, ignore_index=void, reduction="sum")
    return total / (masks != void).sum().clamp(min=1)


def pixel_distance(student: Tensor, teacher: Tensor, counted: Tensor) -> Tensor:
    """Mean over the counted places of the Kullback-Leibler divergence of the student's answer from the teacher's.

    Liu et al.: Structured Knowledge Distillation for Semantic Segmentation, CVPR 2019, arXiv 1903.04197: the pixel-wise
    term, at temperature 1.

    Args:
        student: logits (B, K, h, w).
        teacher: logits of the same shape, without a graph.
        counted: bool (B, h, w).
    """
    own, wanted = student.log_softmax(1), teacher.log_softmax(1)
    each = F.kl_div(own, wanted, reduction="none", log_target=True).sum(1)
    return (each * counted).sum() / counted.sum().clamp(min=1)


def region_means(maps: Tensor, counted: Tensor, side: int) -> tuple[Tensor, Tensor]:
    """The mean of a map over the counted places of each region of a grid, and whether any place in it counts.

    Args:
        maps: (B, D, h, w).
        counted: bool (B, H, W), at any resolution: a place of the map counts by the share of it that does.
        side: of the grid, in regions.

    Returns:
        (B, side * side, D), and bool (B, side * side). A region of which nothing counts has mean 0.
    """
    share = F.adaptive_avg_pool2d(counted[:, None].to(maps.dtype), maps.shape[2:])  # type: ignore[arg-type]
    total, weight = F.adaptive_avg_pool2d(maps * share, side), F.adaptive_avg_pool2d(share, side)
    means = total / weight.clamp(min=torch.finfo(maps.dtype).tiny)
    return means.flatten(2).transpose(1, 2), weight.flatten(1) > 0


def pair_distance(student: Tensor, teacher: Tensor, counted: Tensor) -> Tensor:
    """Mean square of the difference between two matrices of cosines of every pair of regions that count.

    Liu et al., arXiv 1903.04197: the pair-wise term, mean over the pairs of an image and then over the images that have any.

    Args:
        student: a row for each region (B, N, D).
        teacher: rows of any other width (B, N, D'), without a graph.
        counted: bool (B, N), the regions that count.
    """
    own, wanted = (F.normalize(rows, dim=2) @ F.normalize(rows, dim=2).transpose(1, 2) for rows in (student, teacher))
    both = counted[:, :, None] & counted[:, None, :]
    each = ((own - wanted).square() * both).sum((1, 2)) / both.sum((1, 2)).clamp(min=1)
    return each.sum() / counted.any(1).sum().clamp(min=1)


def gradient_penalty(gradient: Tensor) -> Tensor:
    """Mean over the batch of (|g| - 1)^2, g the gradient of a critic's score in what it was shown.

    Gulrajani et al.: Improved Training of Wasserstein GANs, NIPS 2017, arXiv 1704.00028, equation 3, without its weight.

    Args:
        gradient: (B, ...), with its graph.
    """
    length = (gradient.flatten(1).square().sum(1) + 1e-12).sqrt()  # at 0 the root itself has no gradient
    return (length - 1).square().mean()
