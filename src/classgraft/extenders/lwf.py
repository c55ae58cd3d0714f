"""Learning without Forgetting: on the new photos, the network keeps the answers that it gave before.

Li, Hoiem: Learning without Forgetting, ECCV 2016, arXiv 1606.09282 (TPAMI 2017), figure 3.

    L = -log softmax(z)_y + lambda_o KL(softmax(v / T) || softmax(z_old / T)),
    v = what the old network says of the same photo

Differs from the paper:
1. By default all classes share one softmax (``softmax="all"``), for the old and the new ones are to be told apart without
   being told the task. The paper's own form is ``softmax="heads"``.
2. The old network is asked about each view that is learnt from; the paper records one answer an image.
3. Answers for the old classes are compared by the Kullback-Leibler divergence, whose gradient is that of the paper's
   cross-entropy. As in the paper's code it is not multiplied by the temperature squared.
4. New rows start level with the old ones (``training/unseen.py``), not at random.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

import torch

from classgraft.data.images import Task
from classgraft.losses.classification import cross_entropy_among
from classgraft.losses.distillation import distillation
from classgraft.models.classifier import Classifier, frozen
from classgraft.training.answers import asked
from classgraft.training.loop import Batch, Terms, fit
from classgraft.training.recipe import Recipe
from classgraft.training.unseen import begun
from classgraft.verbs import Extender


@dataclass(frozen=True)
class LwF(Extender):
    """Cross-entropy on the new photos and distillation of the old network's answers to them; every weight is free."""

    strength: float = 1.0
    """Lambda_o: weight of the old answers."""
    temperature: float = 2.0
    """T of the softened answers, equations 2 and 3."""
    softmax: Literal["all", "sides", "heads"] = "all"
    """Classes that share a softmax: all of them; the old ones and the new ones (usual in comparisons, and for a second
    task the paper's); or those that came together, each task its own head (the paper). Other than with "all", a task of
    one class has nothing to learn."""
    warm_up: float = 0.5
    """Share of the epochs in which the new rows alone learn, before everything does (the paper's code: half)."""
    statistics: bool = False
    """Whether batch-norm statistics follow the new photos; those of the first classes always do."""
    recipe: Recipe = Recipe(epochs=20, batch_size=32, optimiser="adamw", lr=5e-5, weight_decay=5e-4)

    def extend(self, model: Classifier, memory: object | None, task: Task) -> Classifier:
        grown, teacher, old = begun(model, task), frozen(model), len(model.classes)
        images = task.train.of(grown.classes)
        places = torch.arange(len(grown.classes), device=model.device)
        groups = {"all": None, "sides": (places >= old).long(), "heads": grown.head.groups}[self.softmax]
        heads = model.head.rows if self.softmax == "heads" else (old,)

        def new(batch: Batch) -> Terms:
            return {"new": cross_entropy_among(grown(batch.images), batch.targets, groups)}

        def both(batch: Batch) -> Terms:
            logits, before = grown(batch.images), asked(teacher, batch.images)
            pairs = zip(logits[:, :old].split(heads, 1), before.split(heads, 1), strict=True)
            kept = torch.stack([distillation(now, then, self.temperature) for now, then in pairs]).sum()
            return {"new": cross_entropy_among(logits, batch.targets, groups), "old": self.strength * kept}

        first = round(self.warm_up * self.recipe.epochs) if old and len(grown.classes) > old else 0
        if first:
            grown.requires_grad_(False)
            grown.head.linear[-1].requires_grad_(True)
            fit(grown, new, images, replace(self.recipe, epochs=first), "warming up the new rows")
        grown.requires_grad_(True)
        rest = replace(self.recipe, epochs=self.recipe.epochs - first)
        fit(grown, both if old else new, images, rest, "learning", statistics=self.statistics or not old)
        return grown
