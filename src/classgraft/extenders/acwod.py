"""ACWOD: add classes without the original data, by soft targets on the new photos and a subset of layers that learns.

Taitelbaum, Ben-Reuven, Goldberger: Adding New Classes Without Access to the Original Training Data with Applications to
Language Identification, Interspeech 2018, pages 1808-1812; Taitelbaum, Chechik, Goldberger: Network Adaptation Strategies
for Learning New Classes without Forgetting the Original Ones, ICASSP 2019, doi 10.1109/ICASSP.2019.8682848.

The target of a new photo is (1 - epsilon) its own class and epsilon what the original network says of it, in one softmax
over old and new classes. So epsilon is also the probability that new photos shall leave to the old classes: with a sure
original network a target's largest part is an old class from epsilon 1/2 on.

    L = -(1 - epsilon) log p_y - epsilon sum over old k of q_k log p_k,  epsilon = slope * K_old / K
    p = softmax over all K classes,  q = the original network's over its own

Differs from the paper (neither full text nor code was at hand; this follows the abstracts and the poster):
1. Which layers learn is a reading: ACWOD freezes the trunk and retrains the last block and the head.
2. Epsilon is linear in the *share* of old classes. That holds on images (benchmarks/acwod.py); which slope is best hangs on
   the network more than on the layers, see ``SLOPES``.
3. The residual block beside the last one is an adapter as of Rebuffi et al., its last layer at zero at the start.
4. New rows start level with the old ones (``training/unseen.py``). From zero, or imprinted, they take or leave nearly
   every image before anything is learnt.
5. Batch-norm statistics stay as they are: photos of new classes alone would shift them.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F

from classgraft.data.images import Task
from classgraft.losses.distillation import old_share
from classgraft.models.adapter import adapted, last_block
from classgraft.models.classifier import Classifier, frozen
from classgraft.training.answers import answers, asked
from classgraft.training.loop import Batch, Terms, fit
from classgraft.training.recipe import Recipe
from classgraft.training.unseen import begun
from classgraft.verbs import Extender

Layers = Literal["all", "last-block", "head", "adapter"]

SLOPES: dict[Layers, float] = {"all": 0.6, "last-block": 0.4, "adapter": 0.4, "head": 0.3}
"""Epsilon over the share of old classes, for a network that is good at its classes; chosen by hand, and in the order that
the poster claims. On ten flowers beside ImageNet's classes these serve. For small networks that are right about a third of
the time the best slope was 0.9 to 1.1 whatever learnt (docs/results.md)."""


@dataclass(frozen=True)
class ACWOD(Extender):
    """Chosen layers learn from new photos, whose targets keep a share of what the original network says."""

    needs_trained_body: ClassVar[bool] = True
    layers: Layers = "last-block"
    """What learns: ``all``; ``last-block`` and head (ACWOD); the ``head``; or head and an ``adapter`` beside the frozen
    last block."""
    epsilon: float | None = None
    """Weight of the original network's answers, 0..1; None: ``SLOPES`` times the share of old classes, k / (k + m)."""
    recipe: Recipe = Recipe(epochs=20, batch_size=32, optimiser="adamw", lr=1e-4, weight_decay=0.01)

    def extend(self, model: Classifier, memory: object | None, task: Task) -> Classifier:
        old, grown = frozen(model), begun(model, task)
        images = task.train.of(grown.classes)
        # where nothing is known there is nothing to keep
        layers, epsilon = (self.layers, self.weight(model, grown)) if model.classes else ("all", 0.0)

        grown.requires_grad_(layers == "all").head.requires_grad_(True)
        if layers == "last-block":
            grown.body.get_submodule(last_block(grown.body)).requires_grad_(True)
        if layers == "adapter":
            example = images.view(torch.arange(min(2, len(images))), model.device)
            adapted(grown.body.eval(), last_block(grown.body), example, self.recipe.seed).beside.requires_grad_(True)
        fixed = self.recipe.augment == "none" and epsilon > 0
        remembered = answers(old, images).softmax(1).to(model.device) if fixed else None

        def objective(batch: Batch) -> Terms:
            features = grown.features(batch.images)
            logits = grown.head(features)
            terms = {}
            if epsilon < 1:
                terms["new"] = (1 - epsilon) * F.cross_entropy(logits, batch.targets)
            if epsilon > 0:
                if remembered is not None:
                    said = remembered[batch.index]
                elif layers == "head":  # the body is the original one's
                    said = asked(old.head, features.detach()).softmax(1)
                else:
                    said = asked(old, batch.images).softmax(1)
                terms["old"] = epsilon * old_share(logits, said)
            return terms

        fit(grown, objective, images, self.recipe, "learning", statistics=not model.classes)
        return grown.requires_grad_(True)

    def weight(self, model: Classifier, grown: Classifier) -> float:
        """Epsilon for a network and its grown copy: as given, or by the linear rule."""
        if self.epsilon is not None:
            return self.epsilon
        return SLOPES[self.layers] * len(model.classes) / len(grown.classes)
