"""Weight imprinting: a new row is the mean direction of its photos' features.

Qi, Brown, Lowe: Low-Shot Learning with Imprinted Weights, CVPR 2018, arXiv 1712.07136, section 3.2.

Differs from the paper: the paper trains its base network with normalised features and rows. A network trained without
has rows of another length, so here the imprinted direction is given the mean length of the old rows and their mean bias.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F

from classgraft.data.images import Task
from classgraft.models.classifier import Classifier
from classgraft.training.views import look
from classgraft.verbs import Extender


@dataclass(frozen=True)
class Imprint(Extender):
    """New rows are normalised means of the photos' normalised features."""

    views: int = 1
    """Views of each photo; the paper averages over them as well (its section 4.2)."""
    seed: int = 0
    """Of the random crops."""

    def extend(self, model: Classifier, memory: object | None, task: Task) -> Classifier:
        names = model.unknown(task.classes)
        if not names:
            return model.grown(()).eval()
        features, labels = look(model, task.train.of(names), self.views, self.seed)
        directions = F.normalize(features, dim=2).mean(1)
        sums = torch.zeros(len(names), features.shape[2]).index_add_(0, labels, directions)
        length = model.head.weight.norm(dim=1).mean().cpu() if model.classes else torch.tensor(1.0)
        level = float(model.head.bias.mean()) if model.classes else 0.0
        return model.grown(names, F.normalize(sums, dim=1) * length, torch.full((len(names),), level)).eval()
