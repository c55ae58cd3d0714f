"""Losses of detectors that learn from detectors: what two networks say of the same boxes in, a scalar out.

Chen, Choi, Yu, Han, Chandraker: Learning Efficient Object Detection Models with Knowledge Distillation, NIPS 2017.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def weighted_soft_cross_entropy(student: Tensor, teacher: Tensor, weight: Tensor) -> Tensor:
    """Mean over boxes of -sum_c w_c p_c log q_c, with p the teacher's probabilities and q the student's.

    Chen et al.'s soft term at temperature 1: most boxes show background, and a weight of its own keeps what the teacher
    says of that from being lost among, or drowning, what it says of the objects. Its least value is the teacher's own
    weighted entropy, not 0; only where all weights are alike does the student's gradient vanish at the teacher's answer.

    Args:
        student: logits (N, K); N may be 0, the loss is 0 then.
        teacher: logits (N, K), without a graph.
        weight: w (K,), one a class.
    """
    if not len(student):
        return student.sum()
    return -(weight * teacher.softmax(1) * student.log_softmax(1)).sum(1).mean()


def bounded_regression(student: Tensor, teacher: Tensor, truth: Tensor, margin: float) -> Tensor:
    """Sum over boxes of ||s - y||^2, but 0 for a box where the student is better than the teacher by the margin.

    Chen et al.'s upper bound: a box counts where ||s - y||^2 + m > ||t - y||^2. The teacher opens and closes the gate and is
    never the target, so no gradient goes through it, and one that is wrong leads nobody astray.

    Args:
        student: offsets (P, 4) of boxes that show an object; P may be 0.
        teacher: offsets (P, 4) in the same units.
        truth: y, likewise.
        margin: m, in squared units of the offsets.
    """
    own, others = ((said - truth).square().sum(1) for said in (student, teacher.detach()))
    return (own * (own.detach() + margin > others)).sum()


def smooth_regression(student: Tensor, truth: Tensor, beta: float = 1 / 9) -> Tensor:
    """Sum over boxes and their four offsets of the Huber loss over ``beta``: d^2 / (2 beta) below it, else d - beta / 2.

    Girshick: Fast R-CNN, ICCV 2015, arXiv 1504.08083, equation 3, with torchvision's ``beta``.

    Args:
        student: offsets (P, 4); P may be 0.
        truth: likewise.
    """
    return F.smooth_l1_loss(student, truth, beta=beta, reduction="sum")
