"""FixMatch: where the answer to a weakly changed image is sure, it is the label of the strongly changed one.

Sohn, Berthelot, Li, Zhang, Carlini, Cubuk, Kurakin, Zhang, Raffel: FixMatch: Simplifying Semi-Supervised Learning with
Consistency and Confidence, NeurIPS 2020, arXiv 2001.07685, algorithm 1.

    L = -log p_y(weak x) - lambda_u mean over u of [max q >= tau] log p_(argmax q)(strong u),  q = p(weak u)

Differs from the paper: RandAugment's magnitude is fixed where the paper draws it anew for each image.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch.nn.functional as F

from classgraft.data.augment import augmentation
from classgraft.data.images import Images
from classgraft.losses.consistency import pseudo_label
from classgraft.models.classifier import Classifier
from classgraft.training.loop import Terms
from classgraft.training.recipe import Recipe
from classgraft.training.unlabelled import Average, Pair, fit_beside, together
from classgraft.verbs import SelfTrainer


@dataclass(frozen=True)
class FixMatch(SelfTrainer):
    """Cross-entropy on labels; on strong views of unlabelled images, with the sure answers to their weak views."""

    strength: float = 1.0
    """Lambda_u: weight of the unlabelled images."""
    threshold: float = 0.95
    """Tau: least probability of an answer that counts."""
    ratio: int = 7
    """Mu: unlabelled images for each labelled one of a batch."""
    strong: str = "crop-flip+randaugment+cutout"
    """Alpha, the strong augmentation; the weak one is the recipe's."""
    decay: float = 0.999
    """Of the average of weights that comes back, a step."""
    recipe: Recipe = Recipe(lr=0.03, milestones=())

    def train(self, model: Classifier, student: Classifier, labelled: Images, unlabelled: Images) -> Classifier:
        learner = copy.deepcopy(student).requires_grad_(True)
        average, strong = Average(learner, self.decay), augmentation(self.strong)

        def objective(pair: Pair) -> Terms:
            free, known = pair
            weak, changed, logits = together(learner, free.images, free.view(strong), known.images)
            unlabelled = pseudo_label(changed, weak, self.threshold)
            return {"labelled": F.cross_entropy(logits, known.targets), "unlabelled": self.strength * unlabelled}

        fit_beside(
            learner, objective, unlabelled, labelled.of(student.classes), self.recipe, self.ratio, average=average
        )
        return average.model.requires_grad_(True)
