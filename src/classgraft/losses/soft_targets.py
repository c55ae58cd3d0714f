"""Losses whose target is not one class but a share of several: logits in, a scalar out."""

from __future__ import annotations

from torch import Tensor


def old_share(logits: Tensor, old: Tensor) -> Tensor:
    """Mean over the batch of -sum_i old_i log p_i, i over the old classes, p in the softmax over all classes.

    The second term of the objective of Taitelbaum, Chechik, Goldberger (ICASSP 2019), without its weight. Because p is
    normalised over old *and* new classes, it rises when a new class takes probability from the old ones, whatever the old
    ones keep among themselves.

    Args:
        logits: of the old classes, then of the new (B, K + N).
        old: probabilities of the old classes (B, K), each row adding up to 1.
    """
    return -(old * logits.log_softmax(1)[:, : old.shape[1]]).sum(1).mean()
