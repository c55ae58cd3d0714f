"""Joint training: all images, old and new, are at hand. The ceiling that other methods are measured against.

Every weight learns, and every class is shown as often as the largest:

    L(theta) = mean over the images of all classes of -log softmax(z)_y
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from classgraft.data.images import Images, Task, joined
from classgraft.errors import InputError
from classgraft.models.classifier import Classifier
from classgraft.training.loop import Batch, Terms, fit
from classgraft.training.recipe import Recipe
from classgraft.training.unseen import begun
from classgraft.verbs import Extender


@dataclass(frozen=True)
class Seen:
    """Every image of every earlier task."""

    images: Images


@dataclass(frozen=True)
class Joint(Extender):
    """Cross-entropy over all classes on the images of all classes; every weight is free."""

    keeps: ClassVar[str] = "images"
    memory_type: ClassVar[type] = Seen
    balanced: bool = True
    """Show every class equally often, by repeating the images of the smaller ones."""
    recipe: Recipe = Recipe(epochs=20, batch_size=32, optimiser="adamw", lr=2e-4, weight_decay=0.01)

    def remember(self, model: Classifier, task: Task, memory: object | None) -> Seen:
        return Seen(joined(memory.images, task.train) if isinstance(memory, Seen) else task.train)

    def extend(self, model: Classifier, memory: object | None, task: Task) -> Classifier:
        if model.classes and not isinstance(memory, Seen):
            raise InputError(
                "joint training needs the old images; give them with --old-images, or choose another method."
            )
        grown = begun(model, task).requires_grad_(True)
        images = joined(memory.images, task.train) if isinstance(memory, Seen) else task.train
        images = images.of(grown.classes)
        if self.balanced:
            images = images.subset(_evenly(images))

        def objective(batch: Batch) -> Terms:
            return {"all": F.cross_entropy(grown(batch.images), batch.targets)}

        fit(grown, objective, images, self.recipe, "training on all images")
        return grown


def _evenly(images: Images) -> Tensor:
    """Places of the images, those of smaller classes repeated until every class has as many as the largest."""
    places = [torch.nonzero(images.labels == k)[:, 0] for k in range(len(images.classes))]
    most = max(len(of_class) for of_class in places)
    return torch.cat([of_class.repeat(-(-most // len(of_class)))[:most] for of_class in places if len(of_class)])
