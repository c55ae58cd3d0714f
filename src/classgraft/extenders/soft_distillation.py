"""Soft distillation: old answers are asked for by a loss instead of being kept by construction. The control beside GLNE.

Hayat, Kliger, Fleishman, Cohen-Or: Generative Low-Shot Network Expansion, arXiv 1810.08363, compare their "hard
distillation" with the distillation loss of Hinton, Vinyals, Dean (arXiv 1503.02531) and of Li and Hoiem (arXiv 1606.09282).
Every row of the head is free, old and new; features and what stands in for the old images are those of GLNE. No code of
the paper is public; weight and temperature are those of Li and Hoiem, and the loss is multiplied by T squared, as Hinton
has it.

    L = mean over new photos of -log s_y + mean over stand-ins of -log s_y
        + lambda T^2 KL(p_old || q_old) + decay / 2 |W - W_0|^2
    s = softmax(W f + b),
    p_old, q_old = the old network's and its own softmax(old logits / T)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from classgraft.data.images import Task
from classgraft.losses.classification import by_class
from classgraft.losses.distillation import distillation
from classgraft.models.classifier import Classifier, frozen
from classgraft.models.rows import moved
from classgraft.training.mixtures import Form, Mixtures
from classgraft.training.solve import solve
from classgraft.training.unseen import StandIns, kept_of, row_scale
from classgraft.training.views import look, new_features
from classgraft.verbs import Extender


@dataclass(frozen=True)
class SoftDistillation(Extender):
    """Cross-entropy on new photos and stand-ins of the old, and a distillation loss that keeps the old answers."""

    keeps: ClassVar[str] = "statistics"
    refines: ClassVar[bool] = False
    memory_type: ClassVar[type] = Mixtures
    needs_trained_body: ClassVar[bool] = True
    strength: float = 1.0
    """Lambda, the weight of the distillation loss; 0 leaves nothing of the old network's answers but its labels."""
    temperature: float = 2.0
    """T."""
    weight_decay: float = 0.03
    """Pull of every row towards where it was (new ones: zero), in units of the old rows' mean squared length."""
    views: int = 8
    """Views of each photo."""
    iterations: int = 60
    """Of L-BFGS."""
    seed: int = 0
    """Of the crops and of the features that stand in for the old images."""

    def remember(self, model: Classifier, task: Task, memory: object | None) -> Mixtures:
        return kept_of(model, task, memory, Form(), self.seed)

    def extend(self, model: Classifier, memory: object | None, task: Task) -> Classifier:
        names, old = model.unknown(task.classes), len(model.classes)
        if not names:
            return model.grown(()).eval()
        features, labels = look(model, task.train.of(names), self.views, self.seed)
        generator = torch.Generator().manual_seed(self.seed)
        stand_ins = StandIns.of(model, memory, features[:, 0], seed=self.seed)
        mean = stand_ins.mean
        new, new_labels = new_features(features, labels, mean, 1.0, generator, apart=stand_ins.apart)
        made, made_labels = stand_ins.sample(2, generator)

        width = features.shape[2]
        scale, alike = row_scale(model.head.weight.float().cpu(), new), by_class(new_labels)
        everything, targets = torch.cat([new, made]), torch.cat([new_labels + old, made_labels])
        teacher = F.pad(frozen(model.head).float().cpu()(everything), (0, len(names)))

        def terms(change: Tensor, bias: Tensor) -> dict[str, Tensor]:
            logits = teacher + (everything - mean) @ change.T + bias
            each = F.cross_entropy(logits[: len(new)], targets[: len(new)], reduction="none")
            losses = {"new": (each if alike is None else alike * each).mean()}
            losses["decay"] = self.weight_decay / 2 * change.square().sum() / scale
            if len(made):
                losses["base"] = F.cross_entropy(logits[len(new) :], targets[len(new) :])
            if old > 1:
                losses["old"] = self.strength * distillation(logits[:, :old], teacher[:, :old], self.temperature, True)
            return losses

        change, bias = solve(terms, old + len(names), width, self.iterations)
        bias = bias - change @ mean
        return moved(model, change[:old], bias[:old]).grown(names, change[old:], bias[old:]).eval()
