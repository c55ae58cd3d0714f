"""Knowledge distillation: a student learns the labels and, more, the teacher's softened answers.

Hinton, Vinyals, Dean: Distilling the Knowledge in a Neural Network, NIPS 2014 workshop, arXiv 1503.02531, section 2.

    L = alpha T^2 KL(softmax(v / T) || softmax(z / T)) - (1 - alpha) log softmax(z)_y,
    v = the teacher's logits

Differs from the paper:
1. The teacher's answers are compared by the Kullback-Leibler divergence, whose gradient is that of the paper's
   cross-entropy. Temperature and weights are those of later comparisons (Tian, Krishnan, Isola: arXiv 1910.10699).
2. Teacher and student see the same augmented view.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F

from classgraft.data.images import Images
from classgraft.losses.distillation import distillation
from classgraft.models.classifier import Classifier
from classgraft.models.stages import Tapped
from classgraft.training.loop import Batch, Terms, fit
from classgraft.training.recipe import Recipe
from classgraft.training.teaching import seated_classifiers, told
from classgraft.verbs import Distiller


@dataclass(frozen=True)
class SoftTargets(Distiller[Classifier]):
    """Cross-entropy on the labels, where there are any, and the divergence from the teacher's softened answers."""

    share: float = 0.9
    """Alpha, weight of the soft term; that of the labels is 1 - alpha."""
    temperature: float = 4.0
    """T, of both softmaxes of the soft term."""
    squared: bool = True
    """Whether the soft term is multiplied by T squared, so that its gradient keeps its size whatever T is."""
    recipe: Recipe = Recipe(lr=0.05)

    def distill(self, teacher: Classifier, student: Classifier, images: Images) -> Classifier:
        teacher, learner, images = seated_classifiers(teacher, student, images)
        answer = told(Tapped(teacher), images, self.recipe.augment)

        def objective(batch: Batch) -> Terms:
            logits, (wanted,) = learner(batch.images), answer(batch)
            terms = {"soft": self.share * distillation(logits, wanted, self.temperature, self.squared)}
            if images.classes:
                terms["hard"] = (1 - self.share) * F.cross_entropy(logits, batch.targets)
            return terms

        fit(learner, objective, images, self.recipe, "distilling")
        return learner
