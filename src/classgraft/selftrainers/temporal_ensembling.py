"""Temporal ensembling: answers agree with the running mean of those given to the same image in earlier epochs.

Laine, Aila: Temporal Ensembling for Semi-Supervised Learning, ICLR 2017, arXiv 1610.02242, algorithm 2.

    L = -log p_y(x) + w(t) mean_k (p_k(u) - Z_k / (1 - alpha^n))^2,
    Z <- alpha Z + (1 - alpha) p(u) at each of n epochs

Differs from the paper: labelled images count for the cross-entropy alone, which is their mean; the paper's is a mean over the
whole batch, and its weight of the other term is smaller by the same share, so that their ratio is this.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from classgraft.data.images import Images
from classgraft.losses.consistency import squared_difference
from classgraft.models.classifier import Classifier
from classgraft.training.distributed import of_all
from classgraft.training.loop import Terms
from classgraft.training.recipe import Recipe
from classgraft.training.unlabelled import Pair, elapsed, fit_beside, gentle, together
from classgraft.verbs import SelfTrainer


@dataclass(frozen=True)
class TemporalEnsembling(SelfTrainer):
    """Cross-entropy on labels, squared difference from remembered probabilities on unlabelled images."""

    strength: float = 30.0
    """w_max, beside 1 of the mean over labelled images."""
    full: float = 0.27
    """Share of the training over which the weight rises (80 of 300 epochs)."""
    decay: float = 0.6
    """Alpha: of the remembered answers, an epoch."""
    ratio: int = 3
    """Unlabelled images for each labelled one of a batch."""
    recipe: Recipe = Recipe(lr=0.03, milestones=())

    def train(self, model: Classifier, student: Classifier, labelled: Images, unlabelled: Images) -> Classifier:
        learner, known = copy.deepcopy(student).requires_grad_(True), labelled.of(student.classes)
        remembered = torch.zeros(len(unlabelled), len(student.classes), device=learner.device)
        times = torch.zeros(len(unlabelled), 1, device=learner.device)

        def objective(pair: Pair) -> Terms:
            free, labels = pair
            ours, logits = together(learner, free.images, labels.images)
            terms = {"labelled": F.cross_entropy(logits, labels.targets)}
            before, seen, said = remembered[free.index], times[free.index], ours.detach().softmax(1)
            index, answers = of_all(free.index), of_all(said)
            remembered[index] = self.decay * remembered[index] + (1 - self.decay) * answers
            times[index] += 1
            if free.epoch:  # in the first there is nothing to agree with
                young = before / (1 - self.decay**seen)  # the mean of few answers is too small
                weight = self.strength * gentle(elapsed(pair, self.recipe), self.full)
                terms["unlabelled"] = weight * squared_difference(ours, torch.where(seen > 0, young, said))
            return terms

        fit_beside(learner, objective, unlabelled, known, self.recipe, self.ratio, carries=[remembered, times])
        return learner
