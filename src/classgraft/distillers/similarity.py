"""Similarity-preserving distillation: what is alike to the teacher is to be alike to the student.

Tung, Mori: Similarity-Preserving Knowledge Distillation, ICCV 2019, arXiv 1907.09682, equations 1 to 5.

    L = -log softmax(z)_y + gamma sum over layers of |G_T - G_S|^2 / B^2,  G = Q Q' with rows of length 1,
    Q = a batch's activations

Differs from the paper:
1. Similarities say nothing of the names of classes, so where there are no labels the teacher's answers, at temperature 1,
   stand in their place.
2. A batch that is smaller than the recipe's, as the last of an epoch may be, counts by its share of it: equation 4 is about
   1/B of what a row differs by, so that eight images would pull sixteen times as hard as 128.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from classgraft.data.images import Images
from classgraft.losses.distillation import distillation, similarity_distance
from classgraft.models.classifier import Classifier
from classgraft.models.stages import Tapped, pairs
from classgraft.training.loop import Batch, Terms, fit
from classgraft.training.recipe import Recipe
from classgraft.training.teaching import seated_classifiers, told
from classgraft.verbs import Distiller


@dataclass(frozen=True)
class SimilarityPreserving(Distiller[Classifier]):
    """Cross-entropy on the labels, or on the teacher's answers, and the distance of similarities within the batch."""

    strength: float = 3000.0
    """Gamma, equation 5; its useful size hangs on the size of the recipe's batch."""
    layers: tuple[str, ...] = ()
    """I, pairs of layers as "student's=teacher's"; none: the last maps before they are averaged (section 4.1)."""
    soft: float = 0.0
    """Weight of Hinton's soft term beside it (with T squared; tables 2 and 3); 0: none."""
    temperature: float = 4.0
    """T of the soft term."""
    recipe: Recipe = Recipe(lr=0.05, batch_size=128)

    def distill(self, teacher: Classifier, student: Classifier, images: Images) -> Classifier:
        teacher, learner, images = seated_classifiers(teacher, student, images)
        found = pairs(learner, teacher, self.layers, images.view(torch.arange(1), learner.device))
        found = found if self.layers else found[-1:]
        tapped = Tapped(learner, *(own for own, _ in found))
        answer = told(Tapped(teacher, *(other for _, other in found)), images, self.recipe.augment)

        def objective(batch: Batch) -> Terms:
            (logits, *own), (answers, *others) = tapped(batch.images), answer(batch)
            apart = [similarity_distance(mine, wanted) for mine, wanted in zip(own, others, strict=True)]
            share = len(batch.index) / self.recipe.batch_size
            terms = {"similarity": self.strength * share * torch.stack(apart).sum()}
            if self.soft:
                terms["soft"] = self.soft * distillation(logits, answers, self.temperature, squared=True)
            named = F.cross_entropy(logits, batch.targets) if images.classes else distillation(logits, answers, 1.0)
            return {"class": named} | terms

        fit(tapped, objective, images, self.recipe, "distilling")
        return learner
