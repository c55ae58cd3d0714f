"""Deep streaming linear discriminant analysis (SLDA): class means under one shared covariance.

Hayes, Kanan: Lifelong Machine Learning with Deep Streaming Linear Discriminant Analysis, CVPR Workshops 2020, arXiv
1909.01520. The body is frozen and the whole head is made anew: the rows of a trained head do not survive.

    z_k = m_k' P f - m_k' P m_k / 2,  P = ((1 - epsilon) S + epsilon I)^-1,
    S = scatter about the means / images

Differs from the paper:
1. Its running covariance weighs an image that moves its class's mean by the number of all images seen; here the scatter
   about the means is exact (``Moments``), so that neither the order nor the cutting into tasks matters.
2. Images come a task at a time rather than one by one; the sums are the same.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch

from classgraft.data.images import Task
from classgraft.errors import InputError
from classgraft.models.classifier import Classifier
from classgraft.models.statistics import discriminants
from classgraft.training.moments import Moments, covered, moments
from classgraft.verbs import Extender


@dataclass(frozen=True)
class SLDA(Extender):
    """Linear rows P m_k with biases -m_k' P m_k / 2, P the inverse of the shrunken covariance (equations 2 to 4)."""

    keeps: ClassVar[str] = "statistics"
    memory_type: ClassVar[type | None] = Moments
    needs_trained_body: ClassVar[bool] = True
    shrinkage: float = 1e-4
    """Epsilon: the covariance counts 1 - epsilon, the unit matrix epsilon."""

    def remember(self, model: Classifier, task: Task, memory: object | None) -> Moments:
        return moments(model, task, memory, "shared")

    def extend(self, model: Classifier, memory: object | None, task: Task) -> Classifier:
        kept = self.remember(model, task, memory)
        classes = covered(model, kept.classes, task.classes, "slda")
        mean = kept.mean_of(classes)
        covariance = kept.scatter[0] / kept.count.sum()
        shrunk = (1 - self.shrinkage) * covariance + self.shrinkage * torch.eye(len(covariance), dtype=torch.float64)
        factor, failed = torch.linalg.cholesky_ex(shrunk)
        if failed:
            raise InputError(f"With shrinkage {self.shrinkage} the covariance has no inverse; raise shrinkage.")
        return model.headed([discriminants(mean, torch.cholesky_solve(mean.T, factor).T)], classes).eval()
