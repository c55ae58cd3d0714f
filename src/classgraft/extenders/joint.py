"""Joint training: all images, old and new, are at hand. The ceiling that other methods are measured against."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F

from classgraft.data.images import Images, Task, joined
from classgraft.errors import InputError
from classgraft.models.classifier import Classifier
from classgraft.training.loop import Batch, Terms, fit
from classgraft.training.recipe import Recipe
from classgraft.verbs import Extender


@dataclass(frozen=True)
class Seen:
    """Every image of every earlier task."""

    images: Images


@dataclass(frozen=True)
class Joint(Extender):
    """Cross-entropy over all classes on the images of all classes; every weight is free."""

    keeps: ClassVar[str] = "images"
    recipe: Recipe = Recipe(epochs=20, batch_size=64, lr=0.01, weight_decay=1e-4)

    def remember(self, model: Classifier, task: Task, memory: object | None) -> Seen:
        return Seen(joined(memory.images, task.train) if isinstance(memory, Seen) else task.train)

    def extend(self, model: Classifier, memory: object | None, task: Task) -> Classifier:
        if model.classes and not isinstance(memory, Seen):
            raise InputError("joint training needs the old images; give them with --old-images, or choose another method.")
        grown = model.grown(task.classes).requires_grad_(True)
        images = joined(memory.images, task.train) if isinstance(memory, Seen) else task.train

        def objective(batch: Batch) -> Terms:
            return {"all": F.cross_entropy(grown(batch.images), batch.targets)}

        fit(grown, objective, images.of(grown.classes), self.recipe, "training on all images")
        return grown
