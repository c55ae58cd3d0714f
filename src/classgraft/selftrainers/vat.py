"""Virtual adversarial training: answers stay as they are under the small change of the image that moves them most.

Miyato, Maeda, Koyama, Ishii: Virtual Adversarial Training, TPAMI 2018, arXiv 1704.03976, algorithm 1; with the entropy of
the answers as a further term (Grandvalet, Bengio, NIPS 2004), the paper's "VAT + EntMin".

    L = -log p_y(x) + alpha KL(p(u) || p(u + r))
        - entropy * sum_k p_k(u) log p_k(u),  r = epsilon g / |g|,  g = grad_d KL(p(u) || p(u + xi d))

Differs from the paper: the change is measured by its root mean square over the numbers of the network's input, so that
one radius serves every size of image; the paper's length 8 on CIFAR-10 is 0.14.
"""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from classgraft.data.images import Images
from classgraft.losses.consistency import entropy
from classgraft.losses.distillation import distillation
from classgraft.models.classifier import Classifier
from classgraft.training.loop import Terms
from classgraft.training.recipe import Recipe
from classgraft.training.unlabelled import Pair, fit_beside, together, unmoved
from classgraft.verbs import SelfTrainer

PROBE = 1e-3
"""Xi: root mean square of the change that the direction is found with."""


@dataclass(frozen=True)
class VAT(SelfTrainer):
    """Cross-entropy on labels; divergence under the worst change, and entropy, on unlabelled images."""

    strength: float = 1.0
    """Alpha: weight of the divergence."""
    radius: float = 0.14
    """Epsilon: root mean square of the change, in units of the network's input."""
    iterations: int = 1
    """K: of the power method that finds its direction."""
    entropy: float = 1.0
    """Weight of the answers' entropy; 0 is plain VAT."""
    ratio: int = 3
    """Unlabelled images for each labelled one of a batch."""
    recipe: Recipe = Recipe(lr=0.03, milestones=())

    def train(self, model: Classifier, student: Classifier, labelled: Images, unlabelled: Images) -> Classifier:
        learner = copy.deepcopy(student).requires_grad_(True)

        def objective(pair: Pair) -> Terms:
            free, known = pair
            ours, logits = together(learner, free.images, known.images)
            with unmoved(learner):
                said = learner(free.images).detach()  # by the batch norm that the changed images meet
                change = worst(learner, free.images, said, self.radius, self.iterations)
                changed = learner(free.images + change)
            return {
                "labelled": F.cross_entropy(logits, known.targets),
                "unlabelled": self.strength * distillation(changed, said, 1.0),
                "entropy": self.entropy * entropy(ours),
            }

        # the direction is a gradient taken at a tiny change: in full precision
        fit_beside(
            learner, objective, unlabelled, labelled.of(student.classes), self.recipe, self.ratio, second_order=True
        )
        return learner


def worst(learner: nn.Module, images: Tensor, answers: Tensor, radius: float, iterations: int) -> Tensor:
    """The change (B, C, H, W) of this root mean square that moves the answers (B, K) most, to second order."""
    direction = unit(torch.randn_like(images))
    for _ in range(iterations):
        direction.requires_grad_(True)
        moved = distillation(learner(images + PROBE * direction), answers, 1.0)
        direction = unit(torch.autograd.grad(moved, direction)[0])
    return radius * direction


def unit(change: Tensor) -> Tensor:
    """At root mean square 1, image by image; of no length where there is none."""
    length = change.flatten(1).norm(dim=1)[:, None, None, None]
    return (change / length.clamp(min=1e-30)).detach() * math.sqrt(change[0].numel())  # type: ignore[no-any-return]
