"""Data distillation of keypoints: maps of many views, mapped back and averaged, become one hard annotation.

Radosavovic, Dollar, Girshick, Gkioxari, He: Data Distillation: Towards Omni-Supervised Learning, CVPR 2018,
arXiv 1712.04440. A model trained on the annotated images looks at each unlabelled one at several scales and in a mirror; its
maps are brought back to the image, left and right changed back, and averaged, and the peaks are annotations. A student learns
from both sets as if people had annotated them. ``data-distillation`` is the same for classes.

    L = D(y, maps of x) + strength * D(y', maps of u),
    y'_k = peak of mean over views v of v^-1(the model's map_k of v(u))
    D(y, map) = KL(Gaussian about y || map)

Differs from the paper:
1. There is one of each keypoint in an image, so that no boxes have to be found and voted on.
2. The threshold is on points, not on persons: as large a share of them is kept, the surest, as is annotated in the labelled
   images.
3. Annotated and unlabelled images come at a whole-numbered ratio, and either kind has a mean of its own in the loss;
   ``strength`` equal to ``ratio`` makes every image count alike, as in the paper.
4. Scales are near 1, for the images are squares already cut about what they show.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

from torch import Tensor

from classgraft.data.images import Images
from classgraft.data.keypoints import Poses
from classgraft.errors import InputError
from classgraft.models.classifier import frozen
from classgraft.models.keypoints import Locator, decoded
from classgraft.training.answers import answers
from classgraft.training.locating import RECIPE, SPREAD, agreeing, annotated, ensembled, lesson
from classgraft.training.loop import Terms
from classgraft.training.recipe import Recipe
from classgraft.training.unlabelled import Pair, fit_beside, together
from classgraft.verbs import SelfTrainer


@dataclass(frozen=True)
class KeypointDataDistillation(SelfTrainer):
    """Annotated points, and the points that a model's maps of many views have in common."""

    scales: tuple[float, ...] = (0.9, 1.0, 1.1)
    """Sizes at which the model looks at an unlabelled image. 1.0 alone and no mirror is the control: self-training on what it
    finds at one look."""
    mirrored: bool = True
    """Whether it looks at each size in a mirror as well."""
    strength: float = 1.0
    """Weight of the unlabelled images beside 1 of the annotated ones."""
    ratio: int = 1
    """Unlabelled images for each annotated one of a batch."""
    spread: float = SPREAD
    """Sigma of the map that stands for a point, in cells."""
    recipe: Recipe = RECIPE
    """Its epochs are passes over the images of which there are more batches. A short schedule may lose what a long one wins."""

    def train(  # type: ignore[override]
        self, model: Locator, student: Locator, labelled: Images, unlabelled: Images
    ) -> Locator:
        """A trained copy of the student; ``model``, which has learnt its keypoints, teaches it."""
        learner, known = copy.deepcopy(student).requires_grad_(True), self.checked(model, student, labelled)
        free = self.distilled(model, unlabelled, float(known.annotated.float().mean()))

        def objective(pair: Pair) -> Terms:
            ours, theirs = pair
            size = ours.images.shape[-1]
            maps, others = together(learner, ours.images, theirs.images)
            return {
                "labelled": lesson(others, theirs.targets, size, self.spread),
                "unlabelled": self.strength * lesson(maps, ours.targets, size, self.spread),
            }

        fit_beside(learner, objective, free, known, self.recipe, self.ratio)
        return learner

    def distilled(self, model: Locator, unlabelled: Images, share: float) -> Poses:
        """The unlabelled images with the points of which the model's looks are surest together, ``share`` of all points."""
        teacher = frozen(model)

        def said(images: Tensor) -> Tensor:
            return decoded(ensembled(teacher, images, self.looks), images.shape[-1])

        found = answers(teacher, unlabelled, said, what="asking about views")
        sure = found[..., 2].flatten().sort(descending=True).values
        least = sure[max(1, round(share * len(sure))) - 1]
        return annotated(unlabelled, teacher, found, found[..., 2] >= least)

    @property
    def looks(self) -> tuple[tuple[float, bool], ...]:
        """Scale and mirror of each."""
        return tuple((scale, mirror) for scale in self.scales for mirror in (False, True)[: 1 + self.mirrored])

    def checked(self, model: Locator, student: Locator, labelled: Images) -> Poses:
        """The labelled images with the student's keypoints.

        Raises:
            InputError: something is of another kind, or of other keypoints.
        """
        if not isinstance(model, Locator) or not isinstance(student, Locator) or not isinstance(labelled, Poses):
            raise InputError(
                "data-distillation-keypoints trains networks that find keypoints (classgraft.models.keypoints.Locator) on"
                " images with points (classgraft.data.keypoints.Poses); for classes take data-distillation."
            )
        if model.classes != student.classes or set(model.pairs) != set(student.pairs):
            raise InputError(
                "The student's keypoints or their pairs are not the model's; give it the same in the same order."
            )
        if not self.scales:
            raise InputError("Without scales nothing is looked at; give 1.0 at least.")
        known = agreeing(student, labelled).of(student.classes)
        if not len(known):
            raise InputError("There is no point to learn from: none is of the network's keypoints; give some of those.")
        return known
