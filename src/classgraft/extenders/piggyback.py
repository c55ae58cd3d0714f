"""Piggyback: a network that never changes, and for each task a mask that says which of its weights are used.

Mallya, Davis, Lazebnik: Piggyback: Adapting a Single Network to Multiple Tasks by Learning to Mask Weights, ECCV 2018,
arXiv 1801.06519. Weights, biases and batch norm (statistics too) stay as they are for ever, so what was learnt before keeps
its bits; a task costs one bit a weight and its rows.

    L(M) = -log softmax(z)_y,  z with weights W * [M > tau],  dL/dM taken to be dL/d[M > tau]

Differs from the paper:
1. The paper is told the task of an image. Here the features of every task's masked network, and of the network as it is,
   stand side by side; the rows of each task read their own, and all classes share one softmax when they answer. Within the
   classes of a task the answers are the paper's.
2. Where a task brings one class alone there is nothing to tell apart; it then learns against the old classes' logits.
3. A classifier without classes whose network was never trained learns all its weights from the first task.
4. Masks are learnt as the difference from where they start: weight decay, which the paper has none of, pulls them there.
5. New rows start at zero.
6. The real-valued masks start spread out, not all at one place (``spread`` 0): Adam's steps are of one length at first, so that
   all whose gradients agree cross the threshold together. An ImageNet MobileNetV2 that learnt ten flowers so had a tenth of
   its weights masked and gave one answer to all; spread out (5 % masked), it is on a par with a head alone.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F

from classgraft.data.images import Task
from classgraft.errors import InputError
from classgraft.losses.classification import grown_cross_entropy
from classgraft.models.classifier import Classifier, Head, feature_width, frozen, linear, untrained
from classgraft.models.masked import Choosing, Masked, maskable, unmasked, with_mask
from classgraft.models.own import side_by_side
from classgraft.training.answers import asked
from classgraft.training.loop import Batch, Terms, fit
from classgraft.training.recipe import Recipe
from classgraft.verbs import Extender


@dataclass(frozen=True)
class Piggyback(Extender):
    """Cross-entropy on the new photos through thresholded masks, whose real numbers take the gradient as it is."""

    needs_trained_body: ClassVar[bool] = True
    threshold: float = 5e-3
    """Tau: a weight is used where its real-valued mask is above this."""
    start: float = 1e-2
    """Where the real-valued masks begin, on average: above the threshold, so that at first every weight is used."""
    spread: float = 1.0
    """How far from ``start`` they begin at most, drawn evenly, as a share of the way to the threshold."""
    ternary: bool = False
    """Masks of -1, 0 and 1 (1.6 bits a weight) instead of 0 and 1."""
    softmax: Literal["heads", "all"] = "heads"
    """Classes that share a softmax while they learn: those of the task (the paper), or all, in which the new ones are drawn
    above the old on every photo that is theirs and nothing draws them back on others."""
    recipe: Recipe = Recipe(30, 32, optimiser="adamw", lr=1e-4, weight_decay=0.0, milestones=(0.5,))

    def extend(self, model: Classifier, memory: object | None, task: Task) -> Classifier:
        if self.start <= self.threshold:
            raise InputError(
                f"piggyback would start with every weight masked; set start above the threshold, {self.threshold:g}."
            )
        names = model.unknown(task.classes)
        if not names:
            return model.grown(()).eval()
        if not model.classes and untrained(model.body):
            return self.network(model, task)
        body, base = unmasked(model.body), 3 if self.ternary else 2
        if not maskable(body):
            raise InputError(
                f"{type(body).__name__} has no convolution or linear layer that could be masked; choose another method."
            )
        streams = model.body.streams if isinstance(model.body, Masked) else 1
        count = len(names)
        rows = linear(torch.zeros(count, feature_width(model) // streams), torch.zeros(count)).to(model.device)
        choosing = Choosing(frozen(body), self.start, self.threshold, base, self.spread, self.recipe.seed)
        learning, old = Classifier(choosing, Head([rows]), names), frozen(model)
        joint = bool(model.classes) and (self.softmax == "all" or len(names) == 1)

        def objective(batch: Batch) -> Terms:
            logits = learning(batch.images)
            own = logits.gather(1, batch.targets[:, None])[:, 0]
            others = asked(old, batch.images).logsumexp(1) if joint else own.new_full((len(own),), -torch.inf)
            return {"new": grown_cross_entropy(logits, others, own)}

        fit(learning, objective, task.train.of(names), self.recipe, "choosing weights")
        grown = with_mask(model.body, choosing.masks(), base, bare=bool(model.classes))
        return side_by_side(model, grown, rows, names)

    def network(self, model: Classifier, task: Task) -> Classifier:
        """The first task of a network that was never trained: all its weights learn, and will be what is masked."""
        grown = model.grown(task.classes).requires_grad_(True)

        def objective(batch: Batch) -> Terms:
            return {"new": F.cross_entropy(grown(batch.images), batch.targets)}

        fit(grown, objective, task.train.of(grown.classes), self.recipe, "learning")
        return grown
