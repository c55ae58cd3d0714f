"""Weight imprinting: a new row is the mean direction of its photos' features.

Qi, Brown, Lowe: Low-Shot Learning with Imprinted Weights, CVPR 2018, arXiv 1712.07136, section 3.2.

    w = c m / |m|,  m = mean over the photos of f / |f|,  c = mean length of the old rows

Differs from the paper: the paper trains its base network with normalised features and rows. A network trained without
has rows of another length, so here the imprinted direction is given the mean length of the old rows and their mean bias.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from classgraft.data.images import Task
from classgraft.models.classifier import Classifier
from classgraft.training.views import imprinted
from classgraft.verbs import Extender


@dataclass(frozen=True)
class Imprint(Extender):
    """New rows are normalised means of the photos' normalised features."""

    needs_trained_body: ClassVar[bool] = True
    views: int = 1
    """Views of each photo; the paper averages over them as well (its section 4.2)."""
    seed: int = 0
    """Of the random crops."""

    def extend(self, model: Classifier, memory: object | None, task: Task) -> Classifier:
        names = model.unknown(task.classes)
        if not names:
            return model.grown(()).eval()
        return model.grown(names, *imprinted(model, task.train, names, self.views, self.seed)).eval()
