"""Losses of distillation: a student's logits or activations and a teacher's in, a scalar out."""

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


def hint_distance(guided: Tensor, hint: Tensor) -> Tensor:
    """Half the squared distance of a regressed activation from the teacher's: summed over channels, else averaged.

    Romero et al.: FitNets, arXiv 1412.6550, equation 3, with the means over the batch and over positions of the authors'
    code, so that its size hangs on neither.

    Args:
        guided: what the regressor makes of the student's activation (B, C) or (B, C, H, W).
        hint: the teacher's, of the same shape, without a graph.
    """
    return (guided - hint).square().sum(1).mean() / 2


def similarity_distance(student: Tensor, teacher: Tensor) -> Tensor:
    """Mean square of the difference between two row-normalised matrices (B, B) of similarities within the batch.

    G = rows of Q Q^T at unit length, with Q the activations (B, ...) as rows; ||G_T - G_S||^2 / B^2. Tung and Mori:
    Similarity-preserving knowledge distillation, arXiv 1907.09682, equations 1 to 4, for one pair of layers. Of the
    activations nothing but the batch must be alike; turning or scaling either side's rows together changes nothing.

    Args:
        student: activations (B, ...).
        teacher: activations (B, ...) of any other shape, without a graph.
    """
    own, wanted = (F.normalize(rows @ rows.T, dim=1) for rows in (student.flatten(1), teacher.flatten(1)))
    return (own - wanted).square().mean()
