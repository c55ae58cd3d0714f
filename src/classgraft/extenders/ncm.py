"""Nearest class mean: an image belongs to the class whose mean feature is nearest.

Mensink, Verbeek, Perronnin, Csurka: Distance-Based Image Classification, PAMI 2013 (the plain mean); with features and
means of length 1, as in Rebuffi, Kolesnikov, Sperl, Lampert: iCaRL, CVPR 2017, arXiv 1611.07725, equation 2, on all images.

The body is frozen and the whole head is made anew from the means: the rows of a trained head do not survive.

    z_k = cos(f, m_k),  m_k = mean over the images of class k of f / |f|
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch.nn.functional as F

from classgraft.data.images import Task
from classgraft.models.classifier import Classifier, linear
from classgraft.models.statistics import Through, Unit, discriminants
from classgraft.training.moments import Moments, covered, moments
from classgraft.verbs import Extender


@dataclass(frozen=True)
class NearestClassMean(Extender):
    """One mean a class; nothing is learnt."""

    keeps: ClassVar[str] = "statistics"
    memory_type: ClassVar[type | None] = Moments
    needs_trained_body: ClassVar[bool] = True
    metric: Literal["cosine", "euclidean"] = "cosine"
    """Whether features are brought to length 1 first, and means again; or both are taken as they are."""

    def remember(self, model: Classifier, task: Task, memory: object | None) -> Moments:
        if self.metric == "cosine":
            return moments(model, task, memory, of="features of length 1", transform=Unit())
        return moments(model, task, memory)

    def extend(self, model: Classifier, memory: object | None, task: Task) -> Classifier:
        kept = self.remember(model, task, memory)
        classes = covered(model, kept.classes, task.classes, "ncm")
        mean = kept.mean_of(classes)
        if self.metric == "cosine":
            return model.headed([Through([Unit()], linear(F.normalize(mean, dim=1).float(), None))], classes).eval()
        return model.headed([discriminants(mean, mean)], classes).eval()
