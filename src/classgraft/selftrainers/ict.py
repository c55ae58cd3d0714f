"""Interpolation consistency training: the answer to a mixture of two images is the mixture of the answers to them.

Verma, Lamb, Kannala, Bengio, Lopez-Paz: Interpolation Consistency Training for Semi-Supervised Learning, IJCAI 2019,
arXiv 1903.03825, algorithm 1.

    L = -log p_y(x) + w(t) mean_k (p_k(l u_1 + (1 - l) u_2)
        - (l p'_k(u_1) + (1 - l) p'_k(u_2)))^2,  p' of the average of weights

Differs from the paper:
1. Each image has a share of its own, the larger one (the partner has the other, so nothing is lost).
2. The average normalises by the batch, as the authors' does, but in the company that the student's images have and without
   dropout: by its averaged statistics it would pull on the gap between these and the batch's (as in ``mean-teacher``).
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from classgraft.data.images import Images
from classgraft.losses.consistency import squared_difference
from classgraft.models.classifier import Classifier
from classgraft.training.answers import asked
from classgraft.training.loop import Terms
from classgraft.training.recipe import Recipe
from classgraft.training.unlabelled import Average, Pair, elapsed, fit_beside, gentle, measured, mixed, together
from classgraft.verbs import SelfTrainer


@dataclass(frozen=True)
class ICT(SelfTrainer):
    """Cross-entropy on labels, squared difference from the mixed answers of an average of weights on mixtures."""

    strength: float = 100.0
    """Weight of the difference in the end, a mean over classes."""
    full: float = 0.25
    """Share of the training over which that weight rises."""
    mixing: float = 1.0
    """Alpha, of the Beta distribution of shares."""
    decay: float = 0.999
    """Of the average, a step."""
    ratio: int = 1
    """Unlabelled images for each labelled one of a batch."""
    recipe: Recipe = Recipe(lr=0.03, milestones=())

    def train(self, model: Classifier, student: Classifier, labelled: Images, unlabelled: Images) -> Classifier:
        learner = copy.deepcopy(student).requires_grad_(True)
        teacher = Average(learner, self.decay)

        def objective(pair: Pair) -> Terms:
            free, known = pair
            company = torch.cat([free.images, known.images])
            theirs = asked(teacher, company, mode=measured)[: len(free.images)].softmax(1)
            images, targets = mixed(free.images, theirs, self.mixing)
            ours, logits = together(learner, images, known.images)
            weight = self.strength * gentle(elapsed(pair, self.recipe), self.full)
            labels = F.cross_entropy(logits, known.targets)
            return {"labelled": labels, "unlabelled": weight * squared_difference(ours, targets)}

        fit_beside(
            learner, objective, unlabelled, labelled.of(student.classes), self.recipe, self.ratio, average=teacher
        )
        return teacher.model.requires_grad_(True)
