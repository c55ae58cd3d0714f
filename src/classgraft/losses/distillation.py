"""Losses of distillation: a student's logits and a teacher's in, a scalar out."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor


def distillation(student: Tensor, teacher: Tensor, temperature: float, squared: bool = False) -> Tensor:
    """Mean Kullback-Leibler divergence of the student's softened answers from the teacher's.

    sum_k p_k (log p_k - log q_k) with p = softmax(teacher / T), q = softmax(student / T): the cross-entropy of the
    papers less the teacher's entropy, which is a constant, so that 0 says that nothing has changed. Its gradient in the
    student's logits is (q - p) / T, which is itself about 1 / T in size, so it shrinks as 1 / T squared. Hinton, Vinyals,
    Dean: Distilling the Knowledge in a Neural Network, arXiv 1503.02531, section 2, multiply by T squared to make up for
    it; Li and Hoiem (arXiv 1606.09282) and most of continual learning do not.

    Args:
        student: logits (B, K).
        teacher: logits (B, K), without a graph.
        temperature: T.
        squared: whether to multiply by T squared.
    """
    soft, target = F.log_softmax(student / temperature, 1), F.log_softmax(teacher / temperature, 1)
    loss = F.kl_div(soft, target, reduction="batchmean", log_target=True)
    return loss * temperature**2 if squared else loss


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


def sigmoid_cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean over images of the sum over classes of -t log s - (1 - t) log(1 - s), s the sigmoid of the logit.

    Rebuffi et al.: iCaRL, arXiv 1611.07725, algorithm 3: the same form for labels and for remembered answers.

    Args:
        logits: (B, K); K may be 0.
        targets: t (B, K) in 0..1.
    """
    return F.binary_cross_entropy_with_logits(logits, targets, reduction="sum") / len(logits)
