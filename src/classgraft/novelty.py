"""Images of no known class: a score for them, and how well a score tells them from others."""

from __future__ import annotations

import torch
from torch import Tensor


def auroc(low: Tensor, high: Tensor) -> float:
    """The probability that a score of the second kind is above one of the first, ties counted half.

    That is the area under the ROC curve (Mann and Whitney's U over the number of pairs).

    Args:
        low: (N,), of what should have low scores.
        high: (M,).
    """
    ordered = low.double().sort().values
    below = torch.searchsorted(ordered, high.double(), right=False)
    up_to = torch.searchsorted(ordered, high.double(), right=True)
    return float((below + up_to).double().mean() / (2 * len(low)))


def unknown(logits: Tensor, power: float = 0.1, most: int = 100) -> Tensor:
    """A score (N,) in 0..1, higher where an image's class is less likely to be one that the model knows.

    Generalised entropy of the ``most`` largest probabilities, sum of p^g (1 - p)^g with g = ``power``, over the largest
    value that it can have. Liu, Lochman, Zach: GEN, Pushing the Limits of Softmax-Based Out-of-Distribution Detection,
    CVPR 2023, equation 4 (power 0.1, 100 classes).

    Args:
        logits: (N, K).
        power: see above.
        most: see above.
    """
    count = min(most, logits.shape[1])
    p = logits.double().softmax(1).topk(count, dim=1).values
    share = 1 / max(2, count)
    return (p * (1 - p)).clamp(min=0).pow(power).sum(1) / (count * (share * (1 - share)) ** power)
