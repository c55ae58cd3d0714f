"""Noisy student: a student of at least the teacher's size learns, under noise, what the teacher says without it.

Xie, Luong, Hovy, Le: Self-training with Noisy Student improves ImageNet classification, CVPR 2020, arXiv 1911.04252,
algorithm 1. The student of one generation is the teacher of the next.

    L = -log p_y(noised x) - strength * sum_k q_k log p_k(noised u),
    q = the teacher's p(u);  the student is the next teacher

Differs from the paper:
1. Every student starts from the same weights, those given; none is larger than the one before.
2. The weights that come back are the last ones, where the authors' code averages them over time.
3. Unlabelled images have a mean of their own in the loss, as on the slide; the authors' code weighs it by their ratio.
4. Classes are balanced to the mean number of images that a class has after filtering (the paper: to 130 thousand).
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor

from classgraft.data.images import Images
from classgraft.errors import InputError
from classgraft.losses.consistency import soft_cross_entropy
from classgraft.models.classifier import Classifier, frozen
from classgraft.models.depth import residual, stochastic_depth
from classgraft.training.answers import answers
from classgraft.training.loop import Terms
from classgraft.training.recipe import Recipe
from classgraft.training.unlabelled import Pair, fit_beside
from classgraft.verbs import SelfTrainer


@dataclass(frozen=True)
class NoisyStudent(SelfTrainer):
    """Augmentation (the recipe's), dropout and stochastic depth for the student; the plain image for the teacher."""

    generations: int = 3
    """Students one after the other (section 4.1)."""
    strength: float = 1.0
    """Weight of the unlabelled images beside 1 of the labelled ones."""
    ratio: int = 3
    """Unlabelled images for each labelled one of a batch (section 3.1: 14 for the largest)."""
    threshold: float = 0.3
    """Least probability of the favoured class; images below are left out (section 3.1)."""
    balanced: bool = True
    """Show every class equally often: the surest images of large classes, repeated ones of small classes."""
    soft: bool = True
    """Learn the teacher's probabilities, rather than the favoured class."""
    smoothing: float = 0.1
    """Of the labels (the authors' code)."""
    dropout: float = 0.5
    """Of the features before the head (section 3.1)."""
    survival: float = 0.8
    """Probability that the last residual block is not left out (section 3.1)."""
    recipe: Recipe = Recipe(lr=0.03, milestones=(), augment="crop-flip+randaugment")

    def train(self, model: Classifier, student: Classifier, labelled: Images, unlabelled: Images) -> Classifier:
        if size(student) < size(model):
            raise InputError(
                f"The student has {size(student)} weights and its teacher {size(model)}; noisy-student needs one that is"
                " as large at least."
            )
        teacher = frozen(model)
        for generation in range(self.generations):
            said = answers(teacher, unlabelled).softmax(1)
            chosen = self.chosen(said)
            if not len(chosen) and generation:
                break  # a student that is sure of nothing teaches nobody
            if not len(chosen):
                raise InputError(
                    f"The model gives no unlabelled image a probability of {self.threshold} or more; set a lower threshold."
                )
            targets = said[chosen] if self.soft else F.one_hot(said[chosen].argmax(1), said.shape[1]).float()
            recipe = replace(self.recipe, seed=self.recipe.seed + generation)
            teacher = self.taught(student, labelled.of(student.classes), unlabelled.subset(chosen), targets, recipe)
        return teacher

    def chosen(self, said: Tensor) -> Tensor:
        """Places of the images that are learnt from, given the teacher's probabilities (N, K)."""
        sure, favoured = said.max(1)
        kept = torch.nonzero(sure >= self.threshold)[:, 0]
        if not self.balanced:
            return kept
        count = max(1, round(len(kept) / said.shape[1]))
        places = []
        for k in range(said.shape[1]):
            own = kept[favoured[kept] == k]
            own = own[sure[own].argsort(descending=True, stable=True)]
            places.append(own.repeat(-(-count // max(1, len(own))))[:count])
        return torch.cat(places)

    def taught(self, student: Classifier, known: Images, free: Images, targets: Tensor, recipe: Recipe) -> Classifier:
        """One generation."""
        learner, targets = copy.deepcopy(student).requires_grad_(True), targets.to(student.device)
        blocks = residual(learner.eval().body, free.view(torch.arange(1), student.device))

        def objective(pair: Pair) -> Terms:
            unlabelled, labelled = pair
            features = learner.features(torch.cat([unlabelled.images, labelled.images]))
            logits = learner.head(F.dropout(features, self.dropout))
            ours, others = logits.split([len(unlabelled.images), len(labelled.images)])
            said = soft_cross_entropy(ours, targets[unlabelled.index])
            labels = F.cross_entropy(others, labelled.targets, label_smoothing=self.smoothing)
            return {"labelled": labels, "unlabelled": self.strength * said}

        with stochastic_depth(blocks, self.survival):
            fit_beside(learner, objective, free, known, recipe, self.ratio)
        return learner


def size(model: Classifier) -> int:
    """Weights in it."""
    return sum(parameter.numel() for parameter in model.parameters())
