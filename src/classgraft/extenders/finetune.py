"""Plain fine-tuning: the whole network learns from the new photos alone. It forgets; that is what it is here to show.

The baseline "fine-tuning" of Li and Hoiem: Learning without Forgetting, ECCV 2016, arXiv 1606.09282, section 3.

    L(theta) = mean over new photos of -log softmax(z)_y

Differs from the paper: new rows start level with the old ones, in the mean direction of their photos, not at random.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F

from classgraft.data.images import Task
from classgraft.models.classifier import Classifier
from classgraft.training.loop import Batch, Terms, fit
from classgraft.training.recipe import Recipe
from classgraft.training.unseen import begun
from classgraft.verbs import Extender


@dataclass(frozen=True)
class Finetune(Extender):
    """Cross-entropy over all classes on the new photos; every weight is free."""

    statistics: bool = False
    """Whether batch-norm statistics follow the new photos; a few of them estimate those badly."""
    recipe: Recipe = Recipe(epochs=20, batch_size=32, optimiser="adamw", lr=2e-4, weight_decay=0.01)

    def extend(self, model: Classifier, memory: object | None, task: Task) -> Classifier:
        grown = begun(model, task).requires_grad_(True)

        def objective(batch: Batch) -> Terms:
            return {"new": F.cross_entropy(grown(batch.images), batch.targets)}

        fit(
            grown,
            objective,
            task.train.of(grown.classes),
            self.recipe,
            "fine-tuning",
            statistics=self.statistics or not model.classes,
        )
        return grown
