"""Pseudo-labels: what the network, or one trained before it, takes an unlabelled image for is its label.

Lee: Pseudo-Label: The Simple and Efficient Semi-Supervised Learning Method for Deep Neural Networks, ICML workshop on
challenges in representation learning, 2013.

    L = -log p_y(x) - alpha(t) log p_y'(u),  y' = argmax p(u),
    alpha(t) = alpha_f * share of the way from T_1 to T_2, in 0..1

Differs from the paper:
1. A threshold may be set, below which an image counts for nothing (0: none, as in the paper).
2. Batch norm, which the paper's networks lack, sees unlabelled images with their own statistics and does not remember them.
3. The ramp runs over shares of the training, where the paper counts epochs (100 to 600).
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace
from typing import Literal

import torch
import torch.nn.functional as F

from classgraft.data.images import Images, Task, joined
from classgraft.losses.consistency import pseudo_label
from classgraft.models.classifier import Classifier, frozen
from classgraft.training.answers import answers, asked
from classgraft.training.loop import Terms
from classgraft.training.recipe import Recipe
from classgraft.training.unlabelled import Pair, elapsed, fit_beside, linear, unmoved
from classgraft.verbs import SelfTrainer


@dataclass(frozen=True)
class PseudoLabels(SelfTrainer):
    """Cross-entropy on labels, and on the favoured class of unlabelled images with a weight that rises from 0."""

    strength: float = 3.0
    """Alpha_f, equation 16: weight of the unlabelled images in the end."""
    begin: float = 0.1
    """T_1, as a share of the training: until then labels alone are learnt."""
    full: float = 0.6
    """T_2, likewise: from then on the weight is ``strength``."""
    threshold: float = 0.0
    """Least probability of the favoured class."""
    source: Literal["student", "model"] = "student"
    """Whose answers: the student's own, asked anew at every step (the paper), or those of the model given, which stays as
    it is (two models)."""
    ratio: int = 1
    """Unlabelled images for each labelled one of a batch."""
    recipe: Recipe = Recipe(lr=0.03, milestones=())

    def train(self, model: Classifier, student: Classifier, labelled: Images, unlabelled: Images) -> Classifier:
        learner, teacher = copy.deepcopy(student).requires_grad_(True), frozen(model)

        def objective(pair: Pair) -> Terms:
            free, known = pair
            terms = {"labelled": F.cross_entropy(learner(known.images), known.targets)}
            weight = self.strength * linear(elapsed(pair, self.recipe), self.begin, self.full)
            if weight:  # else this is supervised training, bit for bit
                with unmoved(learner):
                    logits = learner(free.images)
                answers = asked(teacher, free.images) if self.source == "model" else logits
                terms["unlabelled"] = weight * pseudo_label(logits, answers, self.threshold)
            return terms

        fit_beside(learner, objective, unlabelled, labelled.of(student.classes), self.recipe, self.ratio)
        return learner


def named(task: Task, grown: Classifier, threshold: float = 0.8) -> Task:
    """The task with those of its unlabelled images that ``grown``, which knows its classes, surely takes for one of them.

    The offline form of two models, for an extension: what was grown from the labelled images names the others once, and
    those whose favoured class, among all old and new, is the task's and has ``threshold`` at least count as photos of it.
    """
    images = task.train.of(task.classes)
    if task.unlabelled is None:
        return replace(task, train=images)
    own = torch.tensor([task.classes.index(name) if name in task.classes else -1 for name in grown.classes])
    sure, favoured = answers(grown, task.unlabelled).softmax(1).max(1)
    labels = own[favoured]
    taken = torch.nonzero((labels >= 0) & (sure >= threshold))[:, 0]
    more = replace(task.unlabelled.subset(taken), labels=labels[taken], classes=task.classes)
    return replace(task, train=joined(images, more))
