"""Exemplar replay: plain training on the new images and some kept ones of every old class.

The baseline "experience replay" of Chaudhry et al.: On Tiny Episodic Memories in Continual Learning, arXiv 1902.10486,
in the form of the class-incremental literature: whole epochs over a task.

Differs from the paper: one stream of all images in place of half a batch each, so that an exemplar counts for as much as
a new image.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F

from classgraft.data.images import Task
from classgraft.models.classifier import Classifier, folded
from classgraft.training.exemplars import Budget, Exemplars, Unit, keep, replayed
from classgraft.training.loop import Batch, Terms, fit
from classgraft.training.recipe import Recipe
from classgraft.verbs import Extender


@dataclass(frozen=True)
class Replay(Extender):
    """Cross-entropy over all classes on new images and exemplars alike; every weight is free."""

    keeps: ClassVar[str] = "images"
    memory_type: ClassVar[type] = Exemplars
    exemplars: int = 2000
    """How much is kept, in ``unit``."""
    unit: Unit = "images"
    """What ``exemplars`` counts."""
    herded: bool = True
    """Choose exemplars by herding, else at random."""
    recipe: Recipe = Recipe()

    def remember(self, model: Classifier, task: Task, memory: object | None) -> Exemplars:
        budget = Budget(self.exemplars, self.unit, self.herded, self.recipe.seed)
        return keep(memory, model.body, model.classes, task.train, budget)

    def extend(self, model: Classifier, memory: object | None, task: Task) -> Classifier:
        grown = model.grown(task.classes).requires_grad_(True)
        images = replayed(memory, model, task, grown.classes)

        def objective(batch: Batch) -> Terms:
            return {"all": F.cross_entropy(grown(batch.images), batch.targets)}

        fit(grown, objective, images, self.recipe, "training with exemplars", statistics=not folded(model))
        return grown
