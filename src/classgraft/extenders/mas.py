"""Memory Aware Synapses: weights that the network's answers hang on are held where they were; no label is needed.

Aljundi and others: Memory Aware Synapses: Learning what (not) to forget, ECCV 2018, arXiv 1711.09601, equations 3-5.

    L = -log softmax(z)_y + lambda sum_i Omega_i (theta_i - theta*_i)^2,
    Omega_i = sum over tasks of mean_x |d |z|^2 / d theta_i|

Differs from the paper:
1. The gradient's absolute value is taken for each image by itself, as equation 3 has it; the authors' code takes it after
   the sum over a batch, where images cancel each other.
2. strength * importance is at most 1 / (2 lr), see ``classgraft.training.importance.holding``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor

from classgraft.data.images import Task
from classgraft.errors import InputError
from classgraft.losses.classification import cross_entropy_among
from classgraft.models.classifier import Classifier, frozen
from classgraft.training.gradients import mean_of_each
from classgraft.training.importance import Importance, around, check_seen, holding, moved
from classgraft.training.loop import Batch, Terms, fit
from classgraft.training.recipe import Recipe
from classgraft.training.unseen import begun
from classgraft.verbs import Extender


@dataclass(frozen=True)
class MAS(Extender):
    """Cross-entropy on the new photos and strength * sum Omega (weight - anchor)^2, Omega summed over the tasks."""

    keeps: ClassVar[str] = "statistics"
    memory_type: ClassVar[type] = Importance
    unlabelled: ClassVar[bool] = True
    strength: float = 1.0
    """Lambda, equation 5; the useful size hangs on the size of the logits."""
    images: int = 500
    """At most so many images of a task, drawn by the recipe's seed, are looked at for Omega; 0: all. They are the task's
    unlabelled images where it brings any, else those it was learnt from."""
    softmax: Literal["all", "heads"] = "all"
    """Classes that share a softmax, and the logits whose squares Omega is made of: all of them, or those that came
    together with the task's (task-incremental)."""
    statistics: bool = False
    """Whether batch-norm statistics follow the new photos; those of the first classes always do."""
    recipe: Recipe = Recipe(epochs=20, batch_size=32, optimiser="adamw", lr=2e-4, weight_decay=0.01)

    def remember(self, model: Classifier, task: Task, memory: object | None) -> Importance:
        images = (task.unlabelled or task.train).some(self.images, self.recipe.seed)
        groups = model.head.groups if self.softmax == "heads" else 0 * model.head.groups
        own = groups[[model.classes.index(name) for name in task.classes if name in model.classes]]
        rows = torch.nonzero(torch.isin(groups, own))[:, 0]

        def squares(logits: Tensor, target: Tensor) -> Tensor:
            return logits[:, rows].square().sum()

        omega = mean_of_each(frozen(model).requires_grad_(True), images, squares, torch.abs)
        return moved(memory if isinstance(memory, Importance) else None, around(model, omega))

    def extend(self, model: Classifier, memory: object | None, task: Task) -> Classifier:
        if model.classes and not isinstance(memory, Importance):
            raise InputError(
                "mas must have looked at old images, or at any without labels; give them with --old-images or --unlabelled, or"
                " choose another method."
            )
        if isinstance(memory, Importance):
            check_seen(memory, model)
        grown = begun(model, task).requires_grad_(True)
        held = holding(grown, memory, self.strength, self.recipe.lr) if isinstance(memory, Importance) else None
        groups = grown.head.groups if self.softmax == "heads" else None

        def objective(batch: Batch) -> Terms:
            terms = {"new": cross_entropy_among(grown(batch.images), batch.targets, groups)}
            return terms | {"old": held()} if held else terms

        images = task.train.of(grown.classes)
        fit(grown, objective, images, self.recipe, "learning", statistics=self.statistics or not model.classes)
        return grown
