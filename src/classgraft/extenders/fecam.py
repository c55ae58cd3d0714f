"""FeCAM: the nearest class mean by each class's own Mahalanobis distance.

Goswami, Liu, Twardowski, van de Weijer: FeCAM: Exploiting the Heterogeneity of Class Distributions in Exemplar-Free
Continual Learning, NeurIPS 2023, arXiv 2309.14062. The body is frozen and the whole head is made anew: the rows of a
trained head do not survive.

    z_k = -(u - u_k)' R_k^-1 (u - u_k),  u, u_k = sign(f) |f|^lambda and its mean at length 1
    R_k = correlations of S_k + gamma_1 V_1 I + gamma_2 V_2 (1 - I),
    V_1, V_2 = mean of S_k on and off the diagonal

Differs from the paper:
1. Features that may be negative keep their sign under the power; of rectified features there are none.
2. As in the authors' code, features and means are brought to length 1 before their difference is taken; the code shrinks
   each covariance twice, here it happens once, as in equation 6.
3. The shared covariance is the scatter of all images about their classes' means; the paper averages tasks by their number
   of classes. With equally many images a class the two are the same.
4. Of a single image no covariance can be told; its class gets the unit matrix, to which much shrinkage leads as well.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from classgraft.data.images import Task
from classgraft.errors import InputError
from classgraft.models.classifier import Block, Classifier
from classgraft.models.statistics import Mahalanobis, Power, Through, Unit, discriminants
from classgraft.training.moments import Moments, covered, moments, places
from classgraft.verbs import Extender


@dataclass(frozen=True)
class FeCAM(Extender):
    """Power, means and covariances; shrinkage, correlation, Mahalanobis distance."""

    keeps: ClassVar[str] = "statistics"
    memory_type: ClassVar[type | None] = Moments
    needs_trained_body: ClassVar[bool] = True
    power: float = 0.5
    """Lambda of Tukey's transform, equation 9; 1 leaves features as they are (the paper's choice for transformers)."""
    gamma1: float = 1.0
    """Shrinkage of the diagonal, in units of the mean variance (equation 6); the paper takes more for few images."""
    gamma2: float = 1.0
    """Shrinkage off the diagonal, in units of the mean covariance (equation 6); at most ``gamma1`` is always safe."""
    shared: bool = False
    """One covariance for all classes: D x D numbers in all rather than for each class, and linear rows."""

    def remember(self, model: Classifier, task: Task, memory: object | None) -> Moments:
        spread: Literal["shared", "each"] = "shared" if self.shared else "each"
        return moments(model, task, memory, spread, f"features to the power {self.power}", Power(self.power))

    def extend(self, model: Classifier, memory: object | None, task: Task) -> Classifier:
        kept = self.remember(model, task, memory)
        classes = covered(model, kept.classes, task.classes, "fecam")
        mean = F.normalize(kept.mean_of(classes), dim=1)
        if self.shared:
            solved = torch.cholesky_solve(mean.T, self.factor(kept.scatter[0])).T
            block: torch.nn.Linear | Block = discriminants(mean, solved)
        else:
            unit = torch.eye(mean.shape[1], dtype=torch.float64)
            roots = torch.empty(len(classes), *unit.shape)
            for k, place in enumerate(places(classes, kept.classes).tolist()):
                roots[k] = torch.linalg.solve_triangular(self.factor(kept.scatter[place].double()), unit, upper=False)
            block = Mahalanobis(mean.float(), roots)
        return model.headed([Through([Power(self.power), Unit()], block)], classes).eval()

    def factor(self, scatter: Tensor) -> Tensor:
        """Cholesky factor (D, D) of the correlation matrix of the shrunken covariance.

        The scatter stands for the covariance: shrinkage follows its scale, and a correlation has none.
        """
        unit = torch.eye(len(scatter), dtype=scatter.dtype)
        if not scatter.diagonal().any():
            return unit
        variance = scatter.diagonal().mean()
        covariance = (scatter.sum() - scatter.trace()) / max(1, scatter.numel() - len(scatter))
        shrunk = scatter + self.gamma1 * variance * unit + self.gamma2 * covariance * (1 - unit)
        deviation = shrunk.diagonal().clamp(min=1e-12 * float(variance)).sqrt()
        factor: Tensor
        factor, failed = torch.linalg.cholesky_ex(shrunk / torch.outer(deviation, deviation))
        if failed:
            raise InputError(
                f"With gamma1 {self.gamma1} and gamma2 {self.gamma2} a covariance has no inverse; raise gamma1."
            )
        return factor
