"""Unsupervised data augmentation (UDA): a strong view is answered as the weak one is, more sharply.

Xie, Dai, Hovy, Luong, Le: Unsupervised Data Augmentation for Consistency Training, NeurIPS 2020, arXiv 1904.12848,
section 2.2 and 2.3.

    L = -[p_y(x) <= eta(t)] log p_y(x)
        - lambda [max q >= beta] sum_k q'_k log p_k(strong u),  q = p(weak u), q'_k ~ q_k^(1 / tau)
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import Literal

import torch.nn.functional as F
from torch import Tensor

from classgraft.data.augment import augmentation
from classgraft.data.images import Images
from classgraft.losses.consistency import sharpened, soft_cross_entropy
from classgraft.models.classifier import Classifier
from classgraft.training.loop import Terms
from classgraft.training.recipe import Recipe
from classgraft.training.unlabelled import Pair, elapsed, fit_beside, together
from classgraft.verbs import SelfTrainer


@dataclass(frozen=True)
class UDA(SelfTrainer):
    """Cross-entropy on labels that are not known yet; on strong views, with sharpened sure answers to weak ones."""

    strength: float = 1.0
    """Lambda, equation 1."""
    temperature: float = 0.4
    """Tau of the sharpening."""
    threshold: float = 0.8
    """Beta: least probability of the weak view's favoured class."""
    annealing: Literal["none", "linear", "log", "exp"] = "none"
    """Training signal annealing: how the probability rises above which a labelled image counts no more."""
    ratio: int = 7
    """Unlabelled images for each labelled one of a batch."""
    strong: str = "crop-flip+randaugment+cutout"
    """The strong augmentation; the weak one is the recipe's."""
    recipe: Recipe = Recipe(lr=0.03, milestones=())

    def train(self, model: Classifier, student: Classifier, labelled: Images, unlabelled: Images) -> Classifier:
        learner, strong = copy.deepcopy(student).requires_grad_(True), augmentation(self.strong)

        def objective(pair: Pair) -> Terms:
            free, known = pair
            weak, changed, logits = together(learner, free.images, free.view(strong), known.images)
            said = weak.detach().softmax(1)
            agreement = soft_cross_entropy(changed, sharpened(said, self.temperature), said.amax(1) >= self.threshold)
            labels = annealed(logits, known.targets, self.ceiling(elapsed(pair, self.recipe), logits.shape[1]))
            return {"labelled": labels, "unlabelled": self.strength * agreement}

        fit_beside(learner, objective, unlabelled, labelled.of(student.classes), self.recipe, self.ratio)
        return learner

    def ceiling(self, done: float, classes: int) -> float:
        """Eta: the probability above which a labelled image counts no more."""
        if self.annealing == "none":
            return 1.0
        share = {"linear": done, "log": 1 - math.exp(-5 * done), "exp": math.exp(5 * (done - 1))}[self.annealing]
        return share * (1 - 1 / classes) + 1 / classes


def annealed(logits: Tensor, targets: Tensor, ceiling: float) -> Tensor:
    """Mean cross-entropy of the images whose own class has at most this probability; 0 where there are none."""
    each = F.cross_entropy(logits, targets, reduction="none")
    counted = (-each).exp().detach() <= ceiling
    return (each * counted).sum() / counted.sum().clamp(min=1)
