"""Learning without Memorizing: the network keeps its answers, and goes on looking where it looked for the old classes.

Dhar, Singh, Peng, Wu, Chellappa: Learning without Memorizing, CVPR 2019, arXiv 1811.08051. L = L_C + beta L_D + gamma L_AD:
cross-entropy, distillation, and the distance of Grad-CAM maps. For each new photo both maps are of the same class: the old
one that the old network favours.

    L = -log softmax(z)_y + beta KL(softmax(v / T) || softmax(z_old / T)) + gamma sum_j |q_j / |q| - p_j / |p||
    q, p = ReLU(sum_k a_k A_k) of both networks,  a_k = mean over places of d z_c / d A_k

Differs from the paper:
1. All classes share one softmax, and L_D is that of LwF; with gamma 0 this is LwF without its warm-up, bit for bit.
2. An empty map (the ReLU of Grad-CAM may leave nothing) has no direction; its image adds nothing to L_AD.
3. L_AD is a mean over the batch. Values of beta and gamma are not known from the paper: 1 each.
4. Both networks' maps are of evaluation mode, so that no image's map depends on other images or on chance; where batch norm
   follows the new photos, or there is dropout or stochastic depth, that is a pass of its own.
5. New rows start level with the old ones (``training/unseen.py``), not at random.
"""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from classgraft.data.images import Task
from classgraft.losses.attention import attention_distance
from classgraft.losses.distillation import distillation
from classgraft.models.classifier import Classifier, frozen
from classgraft.models.stages import Tapped
from classgraft.training.answers import asked, evaluating
from classgraft.training.attention import attended, attended_before, drawing, looked_at
from classgraft.training.loop import Batch, Terms, fit
from classgraft.training.recipe import Recipe
from classgraft.training.unseen import begun
from classgraft.verbs import Extender


@dataclass(frozen=True)
class LwM(Extender):
    """Cross-entropy, old answers and old attention on the new photos; every weight is free."""

    strength: float = 1.0
    """Beta: weight of the old answers."""
    attention: float = 1.0
    """Gamma: weight of the distance between where both networks look; 0 is LwF, and nothing of second order is computed."""
    temperature: float = 2.0
    """T of the softened answers."""
    layer: str = ""
    """The part of the body whose map is looked at; empty: the one that gives the last map of more than one pixel."""
    statistics: bool = False
    """Whether batch-norm statistics follow the new photos; those of the first classes always do."""
    recipe: Recipe = Recipe(epochs=20, batch_size=32, optimiser="adamw", lr=5e-5, weight_decay=5e-4)

    def extend(self, model: Classifier, memory: object | None, task: Task) -> Classifier:
        grown, teacher, old = begun(model, task).requires_grad_(True), frozen(model), len(model.classes)
        images = task.train.of(grown.classes)
        attentive = old > 0 and self.attention > 0 and len(images) > 0
        apart = self.statistics or any(isinstance(part, nn.modules.dropout._DropoutNd) for part in grown.modules())
        if attentive:
            image = images.view(torch.arange(1), model.device)
            apart, layer = apart or drawing(model, image), looked_at(teacher, self.layer, image)
            seeing, seen = Tapped(grown, layer), Tapped(teacher, layer)

        def objective(batch: Batch) -> Terms:
            terms = {}
            if attentive:
                before, favoured, looked = attended_before(seen, batch.images)
                learning = (
                    grown(batch.images) if apart else None
                )  # first, for it may move what the other pass works with
                with evaluating(grown) if apart else nullcontext():
                    logits, looks = attended(seeing, batch.images, favoured)
                logits = logits if learning is None else learning
                terms["attention"] = self.attention * attention_distance(looks, looked)
            else:
                logits = grown(batch.images)
                before = asked(teacher, batch.images) if old else logits[:, :0]
            terms["new"] = F.cross_entropy(logits, batch.targets)
            if old:
                terms["old"] = self.strength * distillation(logits[:, :old], before, self.temperature)
            return terms

        fit(
            grown,
            objective,
            images,
            self.recipe,
            "learning",
            second_order=attentive,
            statistics=self.statistics or not old,
        )
        return grown
