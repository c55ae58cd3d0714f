"""Losses on images without labels: logits, and what the network or another one said of the same images, in; a scalar out."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def pseudo_label(logits: Tensor, answers: Tensor, threshold: float = 0.0) -> Tensor:
    """Mean over the batch of the cross-entropy with the class that each answer favours, 0 where it is not sure enough.

    Sohn and others: FixMatch, arXiv 2001.07685, equation 4; Lee 2013 without a threshold.

    Args:
        logits: (B, K).
        answers: logits of the same images (B, K), taken as they are: no gradient runs through them.
        threshold: least probability of the favoured class.
    """
    sure, favoured = answers.detach().softmax(1).max(1)
    return (F.cross_entropy(logits, favoured, reduction="none") * (sure >= threshold)).mean()


def soft_cross_entropy(logits: Tensor, targets: Tensor, counted: Tensor | None = None) -> Tensor:
    """Mean over the batch of -sum_k t_k log p_k, 0 for images that do not count.

    Args:
        logits: (B, K).
        targets: t, probabilities (B, K), without a graph.
        counted: which images count, bool (B,); None: all.
    """
    each = -(targets * logits.log_softmax(1)).sum(1)
    return (each if counted is None else each * counted).mean()


def squared_difference(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean over the batch and the classes of (p_k - t_k)^2, p the softmax of the logits.

    Args:
        logits: (B, K).
        targets: t, probabilities (B, K), without a graph.
    """
    return F.mse_loss(logits.softmax(1), targets)


def entropy(logits: Tensor) -> Tensor:
    """Mean over the batch of -sum_k p_k log p_k, in nats. Grandvalet, Bengio, NIPS 2004.

    Args:
        logits: (B, K).
    """
    return -(logits.softmax(1) * logits.log_softmax(1)).sum(1).mean()


def sharpened(probabilities: Tensor, temperature: float) -> Tensor:
    """Probabilities (B, K) to the power of 1 / temperature, so that each row adds up to 1 again; below 1 surer, 1: as is.

    Berthelot and others: MixMatch, arXiv 1905.02249, equation 7.
    """
    return (probabilities.clamp(min=1e-12).log() / temperature).softmax(1)
