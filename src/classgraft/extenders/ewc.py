"""Elastic Weight Consolidation: weights that mattered for the old classes are held where they were.

Kirkpatrick and others: Overcoming catastrophic forgetting in neural networks, PNAS 2017, arXiv 1612.00796, equation 3.
``online``: Schwarz and others: Progress & Compress, ICML 2018, arXiv 1805.06370, section 4.

    L = -log softmax(z)_y + lambda / 2 sum_i F_i (theta_i - theta*_i)^2,
    F_i = mean_x sum_y p_y (d log p_y / d theta_i)^2

Differs from the paper:
1. A penalty for each task is kept as their sum, which is one quadratic: the same gradient, in the memory of one task.
2. strength / 2 * importance is at most 1 / (2 lr), see ``classgraft.training.importance.holding``.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from classgraft.data.images import Task
from classgraft.errors import InputError
from classgraft.losses.classification import cross_entropy_among
from classgraft.models.classifier import Classifier
from classgraft.training.fisher import Kind, fisher_information
from classgraft.training.importance import Importance, around, check_seen, holding, moved, summed
from classgraft.training.loop import Batch, Terms, fit
from classgraft.training.recipe import Recipe
from classgraft.training.unseen import begun
from classgraft.verbs import Extender


@dataclass(frozen=True)
class EWC(Extender):
    """Cross-entropy on the new photos and strength / 2 * sum F (weight - anchor)^2, F a mean over images."""

    keeps: ClassVar[str] = "statistics"
    memory_type: ClassVar[type] = Importance
    strength: float = 1000.0
    """Lambda, equation 3; the useful size hangs on network and data."""
    fisher: Kind = "exact"
    """F: squared gradients of each image by itself, of every label by its probability ("exact"), of one drawn label
    ("sampled") or of the true label ("empirical"); "identity": F = 1, the L2 penalty that the paper compares with."""
    images: int = 500
    """At most so many images of a task, drawn by the recipe's seed, are looked at for F; 0: all."""
    online: bool = False
    """One penalty around the latest weights instead of one for each task around its own."""
    decay: float = 1.0
    """Gamma: what is kept of the earlier F at each further task."""
    softmax: Literal["all", "heads"] = "all"
    """Classes that share a softmax: all of them, or those that came together (task-incremental)."""
    statistics: bool = False
    """Whether batch-norm statistics follow the new photos; those of the first classes always do."""
    recipe: Recipe = Recipe(epochs=20, batch_size=32, optimiser="adamw", lr=2e-4, weight_decay=0.01)

    def remember(self, model: Classifier, task: Task, memory: object | None) -> Importance:
        before = memory if isinstance(memory, Importance) else None
        images = task.train.of(model.classes).some(self.images, self.recipe.seed)
        groups = model.head.groups if self.softmax == "heads" else None
        now = around(model, fisher_information(model, images, self.fisher, groups, self.recipe.seed))
        return (moved if self.online else summed)(before, now, self.decay)

    def extend(self, model: Classifier, memory: object | None, task: Task) -> Classifier:
        if model.classes and not isinstance(memory, Importance):
            raise InputError(
                "ewc must have looked at the old images; give them with --old-images, or choose another method."
            )
        if isinstance(memory, Importance):
            check_seen(memory, model)
        grown = begun(model, task).requires_grad_(True)
        held = holding(grown, memory, self.strength / 2, self.recipe.lr) if isinstance(memory, Importance) else None
        groups = grown.head.groups if self.softmax == "heads" else None

        def objective(batch: Batch) -> Terms:
            terms = {"new": cross_entropy_among(grown(batch.images), batch.targets, groups)}
            return terms | {"old": held()} if held else terms

        images = task.train.of(grown.classes)
        fit(grown, objective, images, self.recipe, "learning", statistics=self.statistics or not model.classes)
        return grown
