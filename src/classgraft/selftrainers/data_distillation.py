"""Data distillation: what one model says of many views of an image, put together, is the image's label.

Radosavovic, Dollar, Girshick, Gkioxari, He: Data Distillation: Towards Omni-Supervised Learning, CVPR 2018,
arXiv 1712.04440. A model trained on the labels looks at several views of each unlabelled image; each answer is mapped
back to the image, the answers become one hard annotation, and a student learns from both sets as if all were labels.
A class is the same in every view, so that mapping back is the identity here.

    L = -log p_y(x) - strength * log p_y'(u),  y' = argmax_k mean over views v of the model's p_k(v(u))

Differs from the paper:
1. It shows this for boxes and keypoints. Here answers are classes: probabilities are averaged over the views.
2. The views are draws of an augmentation, by default crops of several sizes and their mirror images, where the paper has a
   fixed list of scales, each with its mirror image.
3. An image has one label, so that no threshold is needed to make as many annotations as there are of a labelled image;
   one may be set.
4. Labelled and unlabelled images come at a whole-numbered ratio, and either kind has a mean of its own in the loss;
   ``strength`` equal to ``ratio`` makes every image count alike, as in the paper.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from classgraft.data.augment import Augment, augmentation, centre
from classgraft.data.images import Images
from classgraft.errors import InputError
from classgraft.models.classifier import Classifier, frozen
from classgraft.training.answers import answers
from classgraft.training.loop import Terms
from classgraft.training.recipe import Recipe
from classgraft.training.unlabelled import Pair, fit_beside, together
from classgraft.verbs import SelfTrainer


@dataclass(frozen=True)
class DataDistillation(SelfTrainer):
    """Cross-entropy on labels, and on the class that a model's answers to many views favour together."""

    views: int = 8
    """Views of an unlabelled image, the first as evaluation sees it; 1 is the control, self-training on single answers."""
    transforms: str = "resized-crop-flip"
    """Augmentation that the other views are drawn from; it should change no image's class."""
    threshold: float = 0.0
    """Least mean probability of the favoured class; images below are left out."""
    strength: float = 1.0
    """Weight of the unlabelled images beside 1 of the labelled ones."""
    ratio: int = 1
    """Unlabelled images for each labelled one of a batch."""
    recipe: Recipe = Recipe(epochs=60, lr=0.03, milestones=())
    """Its epochs are passes over the images of which there are more batches. A short schedule may lose what a long one wins."""

    def train(self, model: Classifier, student: Classifier, labelled: Images, unlabelled: Images) -> Classifier:
        learner = copy.deepcopy(student).requires_grad_(True)
        sure, labels = self.ensembled(model, unlabelled).max(1)
        chosen = torch.nonzero(sure >= self.threshold)[:, 0]
        if not len(chosen):
            raise InputError(
                f"The model gives no unlabelled image a mean probability of {self.threshold} or more; set a lower threshold."
            )
        free, labels = unlabelled.subset(chosen), labels[chosen].to(learner.device)

        def objective(pair: Pair) -> Terms:
            ours, known = pair
            logits, others = together(learner, ours.images, known.images)
            annotated = F.cross_entropy(logits, labels[ours.index])
            return {"labelled": F.cross_entropy(others, known.targets), "unlabelled": self.strength * annotated}

        fit_beside(learner, objective, free, labelled.of(student.classes), self.recipe, self.ratio)
        return learner

    def ensembled(self, model: Classifier, unlabelled: Images) -> Tensor:
        """Probabilities of each unlabelled image (N, K), averaged over its views."""
        teacher, others = frozen(model), augmentation(self.transforms)
        looks: list[Augment] = [centre, *[others] * (self.views - 1)]
        said = [
            answers(teacher, unlabelled, None, augment, self.recipe.seed, number, "asking about views")
            for number, augment in enumerate(looks)
        ]
        return torch.stack([logits.softmax(1) for logits in said]).mean(0)
