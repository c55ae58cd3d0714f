"""The objective that a summary of GLNE gives, to the letter, and that cannot learn a new class: a control.

The summary (of Hayat and others, arXiv 1810.08363) asks for alpha * distillation + (1 - alpha) * cross-entropy over the
added weights alone, where the distillation loss compares base and expanded outputs *on the new photos* and the
cross-entropy is taken *on generated base samples*. No term knows the label of a new photo, and both are the smaller the
lower the new logits: the paper's own method cannot have been that. Its conditional autoencoder is replaced by what GLNE
has here; the objective is as stated.

    L = alpha KL(base || expanded; new photos)
        + (1 - alpha) mean over made-up old features of -log s_y + decay / 2 |W|^2
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from classgraft.data.images import Task
from classgraft.losses.classification import grown_cross_entropy
from classgraft.models.classifier import Classifier
from classgraft.training.mixtures import Form, Mixtures
from classgraft.training.solve import solve
from classgraft.training.unseen import StandIns, kept_of, old_side, row_scale
from classgraft.training.views import look
from classgraft.verbs import Extender


@dataclass(frozen=True)
class GLNELiteral(Extender):
    """Added rows learn to leave the old network's answers to new photos and to generated old features alone."""

    keeps: ClassVar[str] = "statistics"
    refines: ClassVar[bool] = False
    memory_type: ClassVar[type] = Mixtures
    needs_trained_body: ClassVar[bool] = True
    alpha: float = 0.5
    """Weight of the distillation term; the cross-entropy has the rest."""
    weight_decay: float = 0.03
    """Pull on the new rows, in units of the old rows' mean squared length; without it they would go to minus infinity."""
    views: int = 8
    """Views of each photo."""
    iterations: int = 60
    """Of L-BFGS."""
    seed: int = 0
    """Of the crops and the generated features."""

    def remember(self, model: Classifier, task: Task, memory: object | None) -> Mixtures:
        return kept_of(model, task, memory, Form(), self.seed)

    def extend(self, model: Classifier, memory: object | None, task: Task) -> Classifier:
        names = model.unknown(task.classes)
        if not names:
            return model.grown(()).eval()
        features, _ = look(model, task.train.of(names), self.views, self.seed)
        if not model.classes:  # no base network whose answers could be kept
            return model.grown(names, torch.zeros(len(names), features.shape[2])).eval()
        stand_ins, generator = StandIns.of(model, memory, features[:, 0], seed=self.seed), torch.Generator()
        made, made_labels = stand_ins.sample(2, generator.manual_seed(self.seed))
        new, mean = features.flatten(0, 1), stand_ins.mean
        sum_new, _ = old_side(model, new)
        sum_old, own_old = old_side(model, made, made_labels)
        new, made = new - mean, made - mean
        scale = row_scale(model.head.weight.float().cpu(), new)

        def terms(weight: Tensor, bias: Tensor) -> dict[str, Tensor]:
            # old logits are equal in both networks, so KL(base || expanded) is the rise of the log-sum-exp alone
            losses = {"distillation": self.alpha * grown_cross_entropy(new @ weight.T + bias, sum_new, sum_new)}
            losses["decay"] = self.weight_decay / 2 * weight.square().sum() / scale
            if len(made):
                base = grown_cross_entropy(made @ weight.T + bias, sum_old, own_old)
                losses["base"] = (1 - self.alpha) * base
            return losses

        weight, bias = solve(terms, len(names), features.shape[2], self.iterations)
        return model.grown(names, weight, bias - weight @ mean).eval()
