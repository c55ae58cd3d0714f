"""Losses of classification: logits in, a scalar out."""

from __future__ import annotations

import torch
from torch import Tensor


def grown_cross_entropy(new: Tensor, old: Tensor, own: Tensor) -> Tensor:
    """Mean cross-entropy in the joint softmax over old and new classes, when only the new logits still move.

    -log softmax(own) = log(exp(old) + sum exp(new)) - own: the old logits enter through their log-sum alone, which is
    computed once. Equal to the plain cross-entropy over the concatenated logits.

    Args:
        new: logits of the new classes (B, N).
        old: log-sum-exp of the old classes' logits (B,); minus infinity where there are no old classes.
        own: the logit of each sample's own class (B,), old or new.
    """
    return (torch.logaddexp(new.logsumexp(1), old) - own).mean()
