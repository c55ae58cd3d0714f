"""Plain supervised training: cross-entropy, as it is usually done."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch.nn.functional as F

from classgraft.data.images import Images
from classgraft.models.classifier import Classifier
from classgraft.training.loop import Batch, Terms, fit
from classgraft.training.recipe import Recipe
from classgraft.verbs import Trainer


@dataclass(frozen=True)
class Plain(Trainer):
    """Cross-entropy on the labels; every weight is free."""

    recipe: Recipe = Recipe()

    def train(self, model: Classifier, images: Images) -> Classifier:
        learner = copy.deepcopy(model).requires_grad_(True)

        def objective(batch: Batch) -> Terms:
            return {"class": F.cross_entropy(learner(batch.images), batch.targets)}

        fit(learner, objective, images.of(model.classes), self.recipe)
        return learner
