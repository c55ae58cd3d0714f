"""Weight aligning (WA): distillation with exemplars, then the new rows are scaled to the length of the old.

Zhao, Xiao, Gan, Zhang, Xia: Maintaining Discrimination and Fairness in Class Incremental Learning, CVPR 2020, arXiv 1911.07053.

    L = -(1 - a) log softmax(z)_y + a KL(softmax(v / T) || softmax(z_old / T)),  a = K_old / K,
    v the old network's
    then  W_new <- W_new * mean |w_old| / mean |w_new|

Differs from the paper:
1. Only rows are held non-negative that were so before (new ones start at zero). Those of a classifier that was trained
   without that restriction would lose what they know. Of classes that were made one all rows count.
2. Its head has no bias. Here biases stay what they were: 0 for new classes, and for all that this method taught.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from classgraft.data.images import Task
from classgraft.losses.distillation import distillation
from classgraft.models.classifier import Classifier, frozen
from classgraft.models.rows import align, layers
from classgraft.training.answers import asked
from classgraft.training.exemplars import replayed
from classgraft.training.loop import Batch, Terms, fit
from classgraft.verbs import Rehearsal


@dataclass(frozen=True)
class WeightAligning(Rehearsal):
    """Cross-entropy and distillation at the ratio of new and old classes; then the rows' mean lengths are made equal."""

    temperature: float = 2.0
    """T, equation 2."""
    clip: bool = True
    """Hold rows non-negative, as features after ReLU are (section 4.3)."""

    def extend(self, model: Classifier, memory: object | None, task: Task) -> Classifier:
        old, grown = frozen(model), model.grown(task.classes).requires_grad_(True)
        images, known = replayed(memory, model, task, grown.classes), len(model.classes)
        share = len(set(model.classes) - set(task.classes)) / len(
            grown.classes
        )  # of classes that come again there is news
        rows = [layer for layer, _ in layers(grown.head)]
        for layer in rows:  # logits are W'f in the paper: no bias that could learn which classes are many
            if layer.bias is not None:
                layer.bias.requires_grad_(False)
        held = [layer for layer in rows if self.clip and bool((layer.weight >= 0).all())]

        def objective(batch: Batch) -> Terms:
            clip(held)  # before every step but the first, that is after the one before
            logits = grown(batch.images)
            terms = {"class": (1 - share) * F.cross_entropy(logits, batch.targets)}
            if known:
                targets = asked(old, batch.images)
                terms["old"] = share * distillation(logits[:, :known], targets, self.temperature)
            return terms

        fit(grown, objective, images, self.recipe, "weight aligning")
        clip(held)
        if 0 < known < len(grown.classes):
            align(grown.head.linear[:-1], grown.head.linear[-1])
        return grown.requires_grad_(True)


@torch.no_grad()
def clip(layers: list[nn.Linear]) -> None:
    for layer in layers:
        layer.weight.clamp_(min=0)
