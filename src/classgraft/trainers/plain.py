"""Plain supervised training: cross-entropy, as it is usually done; of a body trained before, head first (LP-FT).

Kumar, Raghunathan, Jones, Ma, Liang: Fine-Tuning can Distort Pretrained Features and Underperform Out-of-Distribution,
ICLR 2022, arXiv 2202.10054.

    L(theta) = mean over images of -log softmax(z)_y
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace

import torch.nn.functional as F

from classgraft.data.images import Images
from classgraft.models.classifier import Classifier
from classgraft.training.loop import Batch, Terms, fit
from classgraft.training.recipe import Recipe
from classgraft.verbs import Trainer


@dataclass(frozen=True)
class Plain(Trainer):
    """Cross-entropy on the labels; every weight is free, or at first the head's alone."""

    linear_probe: float = 0.0
    """Share of the epochs in which the head alone learns, on a body that stands still with its batch-norm statistics,
    before everything does. 0: fine-tuning, or training from scratch; 1: features extracted by a frozen body."""
    recipe: Recipe = Recipe()

    def train(self, model: Classifier, images: Images) -> Classifier:
        learner = copy.deepcopy(model).requires_grad_(True)

        def objective(batch: Batch) -> Terms:
            return {"class": F.cross_entropy(learner(batch.images), batch.targets)}

        images = images.of(model.classes)
        first = round(self.linear_probe * self.recipe.epochs)
        if first:
            learner.body.requires_grad_(False)
            fit(learner, objective, images, replace(self.recipe, epochs=first), "training the head")
            learner.body.requires_grad_(True)
        if first < self.recipe.epochs:
            rest = replace(self.recipe, epochs=self.recipe.epochs - first)
            fit(learner, objective, images, rest)
        return learner.eval()
