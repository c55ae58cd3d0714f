"""Losses of a variational autoencoder: what it says of a batch in, a scalar in nats out.

Kingma, Welling: Auto-Encoding Variational Bayes, ICLR 2014, arXiv 1312.6114. Pictures with values in 0..1 take
``losses.distillation.sigmoid_cross_entropy`` as their reconstruction.
"""

from __future__ import annotations

import math

from torch import Tensor


def divergence(mean: Tensor, log_variance: Tensor) -> Tensor:
    """Mean over the batch of KL(N(mean, variance) || N(0, 1)), summed over the coordinates of a point.

    1/2 (mean^2 + variance - 1 - log variance): arXiv 1312.6114, appendix B.

    Args:
        mean: (B, Z).
        log_variance: (B, Z).
    """
    return (mean.square() + log_variance.exp() - 1 - log_variance).sum(1).mean() / 2


def gaussian_surprise(given: Tensor, mean: Tensor, log_deviation: Tensor) -> Tensor:
    """Mean over the batch of -log N(given; mean, deviation^2), summed over the coordinates.

    Args:
        given: (B, D).
        mean: (B, D).
        log_deviation: logarithm of the standard deviation of each coordinate (D,).
    """
    far = (given - mean) * (-log_deviation).exp()
    return (far.square() / 2 + log_deviation + math.log(2 * math.pi) / 2).sum(1).mean()
