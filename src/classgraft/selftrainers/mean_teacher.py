"""Mean teacher: the student agrees, on another view, with the average of its own weights over time.

Tarvainen, Valpola: Mean teachers are better role models, NIPS 2017, arXiv 1703.01780, section 2.

    L = -log p_y(x) + w(t) mean_k (p_k(u) - p'_k(u))^2,  w(t) = w exp(-5 (1 - t / t_full)^2)
    p' of weights theta' <- alpha theta' + (1 - alpha) theta

Differs from the paper:
1. The teacher has no dropout: only the view is another. It normalises by the batch, as the authors' does: by its averaged
   statistics it would pull on the gap between these and the batch's, which a large weight makes the whole of the lesson.
2. Labelled images are left out of the difference.
3. In the first steps the average is taken over fewer steps (Average), where the paper changes the decay once.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
import torch.nn.functional as F

from classgraft.data.augment import augmentation
from classgraft.data.images import Images
from classgraft.losses.consistency import squared_difference
from classgraft.models.classifier import Classifier
from classgraft.training.answers import asked
from classgraft.training.loop import Terms
from classgraft.training.recipe import Recipe
from classgraft.training.unlabelled import Average, Pair, elapsed, fit_beside, gentle, measured, together
from classgraft.verbs import SelfTrainer


@dataclass(frozen=True)
class MeanTeacher(SelfTrainer):
    """Cross-entropy on labels, squared difference from the teacher's probabilities on unlabelled images."""

    strength: float = 100.0
    """Weight of the difference in the end, a mean over classes (appendix B.1)."""
    full: float = 0.3
    """Share of the training over which that weight rises, by exp(-5 (1 - t)^2)."""
    decay: float = 0.99
    """Alpha, equation 2: of the average, a step."""
    ratio: int = 3
    """Unlabelled images for each labelled one of a batch."""
    recipe: Recipe = Recipe(lr=0.03, milestones=())

    def train(self, model: Classifier, student: Classifier, labelled: Images, unlabelled: Images) -> Classifier:
        learner = copy.deepcopy(student).requires_grad_(True)
        teacher = Average(learner, self.decay)
        another = augmentation(self.recipe.augment)

        def objective(pair: Pair) -> Terms:
            free, known = pair
            ours, logits = together(learner, free.images, known.images)
            company = torch.cat([free.view(another), known.view(another)])  # as the student's images have
            theirs = asked(teacher, company, mode=measured)[: len(ours)].softmax(1)
            weight = self.strength * gentle(elapsed(pair, self.recipe), self.full)
            labels = F.cross_entropy(logits, known.targets)
            return {"labelled": labels, "unlabelled": weight * squared_difference(ours, theirs)}

        fit_beside(
            learner, objective, unlabelled, labelled.of(student.classes), self.recipe, self.ratio, average=teacher
        )
        return teacher.model.requires_grad_(True)
