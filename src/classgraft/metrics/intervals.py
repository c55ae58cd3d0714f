"""How sure a number is, and the difference of two."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor


def student_interval(values: Sequence[float], confidence: float = 0.95) -> tuple[float, float]:
    """Mean and half-width of its confidence interval by Student's t; the half-width is nan for a single value."""
    from scipy.stats import t

    count = len(values)
    mean = math.fsum(values) / count
    if count < 2:
        return mean, math.nan
    deviation = math.sqrt(math.fsum((v - mean) ** 2 for v in values) / (count - 1))
    return mean, float(t.ppf((1 + confidence) / 2, count - 1)) * deviation / math.sqrt(count)


def wilson_interval(right: int, total: int, confidence: float = 0.95) -> tuple[float, float]:
    """Lower and upper end of a share's interval.

    Wilson: Probable Inference, the Law of Succession, and Statistical Inference, JASA 1927.
    """
    from scipy.stats import norm

    z = float(norm.ppf((1 + confidence) / 2))
    share, square = right / total, z * z / total
    middle, half = share + square / 2, z * math.sqrt(share * (1 - share) / total + square / (4 * total))
    return (middle - half) / (1 + square), (middle + half) / (1 + square)


def paired_change(before: Tensor, after: Tensor, confidence: float = 0.95) -> tuple[float, float, float]:
    """Change of accuracy between two models on the same images, with the lower and upper end of its interval.

    Half an image is added to each of the four outcomes, so that no change seen does not pass for no change possible.
    Agresti, Min: Simple Improved Confidence Intervals for Comparing Matched Proportions, Statistics in Medicine 2005.

    Args:
        before: whether each image is answered right, bool (N,).
        after: likewise.
    """
    from scipy.stats import norm

    lost, won, count = int((before & ~after).sum()), int((~before & after).sum()), len(before)
    middle = (won - lost) / (count + 2)
    half = float(norm.ppf((1 + confidence) / 2)) * math.sqrt((won + lost + 1) / (count + 2) - middle**2)
    half /= math.sqrt(count + 2)
    return (won - lost) / count, middle - half, middle + half


@dataclass(frozen=True)
class Paired:
    """One method less another, run by run."""

    difference: float
    half_width: float
    """Of the interval of the mean difference by Student's t; nan for a single pair."""
    probability: float
    """Of a difference at least this large where there is none (two-sided paired t test); nan for a single pair."""
    pairs: int


def paired(first: Sequence[float], second: Sequence[float], confidence: float = 0.95) -> Paired:
    """Compare two methods on the same seeds and orders, given in the same sequence."""
    from scipy.stats import t

    differences = [a - b for a, b in zip(first, second, strict=True)]
    mean, half = student_interval(differences, confidence)
    count = len(differences)
    if count < 2:
        return Paired(mean, half, math.nan, count)
    error = half / float(t.ppf((1 + confidence) / 2, count - 1))
    ratio = abs(mean) / error if error else (math.inf if mean else 0.0)
    return Paired(mean, half, 2 * float(t.sf(ratio, count - 1)), count)
