"""Losses of classification: logits in, a scalar out."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def grown_cross_entropy(new: Tensor, old: Tensor, own: Tensor, weight: Tensor | None = None) -> Tensor:
    """Mean cross-entropy in the joint softmax over old and new classes, when only the new logits still move.

    -log softmax(own) = log(exp(old) + sum exp(new)) - own: the old logits enter through their log-sum alone, which is
    computed once. Equal to the plain cross-entropy over the concatenated logits.

    Args:
        new: logits of the new classes (B, N).
        old: log-sum-exp of the old classes' logits (B,); minus infinity where there are no old classes.
        own: the logit of each sample's own class (B,), old or new.
        weight: what each sample counts for (B,), 1 on average; None: all alike.
    """
    each = torch.logaddexp(new.logsumexp(1), old) - own
    return each.mean() if weight is None else (weight * each).mean()


def by_class(labels: Tensor) -> Tensor | None:
    """What each sample (B,) counts for, so that every class that there is counts alike: 1 on average; None where it does."""
    counts = labels.bincount()
    there = counts[counts > 0]
    return None if len(there.unique()) < 2 else (len(labels) / len(there) / counts[labels])


def cross_entropy_among(logits: Tensor, targets: Tensor, groups: Tensor | None = None) -> Tensor:
    """Mean cross-entropy in a softmax over the classes of each sample's own group.

    With groups that are heads this is the loss of multi-head (task-incremental) learning, on one matrix of logits.

    Args:
        logits: (B, K).
        targets: (B,).
        groups: the group of each class (K,), any integers; None: all classes are one.
    """
    return F.cross_entropy(logits if groups is None else among(logits, groups[targets], groups), targets)


def among(logits: Tensor, own: Tensor, groups: Tensor) -> Tensor:
    """Logits (B, K) of classes outside of each sample's group ``own`` (B,) so low that their probability is 0."""
    low = torch.finfo(logits.dtype).min / 4  # finite, so that 0 times its logarithm is 0
    return logits.masked_fill(own[:, None] != groups, low)


def cosine_distance(outputs: Tensor, targets: Tensor) -> Tensor:
    """Mean of 1 - cos(output, unit vector of the class), which is 1 - output_y / |output|.

    Barz, Denzler: Deep Learning on Small Datasets without Pre-Training using Cosine Loss, WACV 2020, arXiv 1901.09054,
    equation 3 with one-hot vectors. It is bounded, so no single image pulls harder for being far off.

    Args:
        outputs: (B, K).
        targets: (B,).
    """
    return 1 - F.normalize(outputs, dim=1).gather(1, targets[:, None]).mean()
