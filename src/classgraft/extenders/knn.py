"""Nearest neighbours: the features of every image are kept, and the nearest of them vote.

The weighted vote of Wu, Xiong, Yu, Lin: Unsupervised Feature Learning via Non-parametric Instance Discrimination, CVPR
2018, arXiv 1805.01978, section 3.4; with the 20 neighbours of Caron et al.: DINO, ICCV 2021, arXiv 2104.14294.

No image is kept, but a feature vector of each: what is kept grows with the images, not with the classes. The body is
frozen and the whole head is made anew: the rows of a trained head do not survive.

    p_c = sum over the k nearest f_i of class c of exp(cos(f, f_i) / tau) / the same sum over all k
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from classgraft.data.images import Task
from classgraft.models.classifier import Classifier
from classgraft.models.statistics import Neighbours
from classgraft.training.moments import covered, fitting, places, seen, with_new
from classgraft.verbs import Extender


@dataclass(frozen=True)
class Kept:
    """Features of length 1, float32 (N, D), of every image, with its place (N,) among the classes."""

    classes: tuple[str, ...]
    features: Tensor
    labels: Tensor

    def without(self, names: Sequence[str]) -> Kept:
        """Without the features of these classes."""
        classes = tuple(name for name in self.classes if name not in names)
        own = torch.tensor([name not in names for name in self.classes], dtype=torch.bool)[self.labels]
        place = torch.tensor(
            [classes.index(name) if name in classes else -1 for name in self.classes], dtype=torch.int64
        )
        return Kept(classes, self.features[own], place[self.labels[own]])


@dataclass(frozen=True)
class NearestNeighbours(Extender):
    """The nearest features vote, the nearer the more."""

    keeps: ClassVar[str] = "statistics"
    memory_type: ClassVar[type | None] = Kept
    needs_trained_body: ClassVar[bool] = True
    neighbours: int = 20
    """k."""
    temperature: float = 0.07
    """Tau: a vote counts exp(cosine / tau)."""

    def remember(self, model: Classifier, task: Task, memory: object | None) -> Kept:
        features, labels, names = seen(model, task)
        features = F.normalize(features, dim=1)
        old = memory if isinstance(memory, Kept) else Kept((), features[:0], labels[:0])
        fitting("features", features.shape[1], old.features.shape[1])
        classes = with_new(old.classes, names)
        labels = torch.cat([old.labels, places(names, classes)[labels]])
        return Kept(classes, torch.cat([old.features, features]), labels)

    def extend(self, model: Classifier, memory: object | None, task: Task) -> Classifier:
        kept = self.remember(model, task, memory)
        classes = covered(model, kept.classes, task.classes, "knn")
        everything = Neighbours(kept.features, kept.labels, len(kept.classes), self.neighbours, self.temperature)
        return model.headed([everything.only(places(classes, kept.classes).tolist())], classes).eval()
