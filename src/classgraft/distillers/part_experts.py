"""Distillation of part experts: experts of parts label what nobody annotated, and one network learns the whole from all.

Weinzaepfel, Bregier, Combaluzier, Leroy, Rogez: DOPE: Distillation Of Part Experts for whole-body 3D pose estimation in the
wild, ECCV 2020, arXiv 2008.09457. Data sets are annotated for one part each (body, hands, face). An expert of each part,
trained on its own data, looks at the images of all; what it finds stands in for the annotations that are missing, and a loss
of distillation draws the one network to what the experts say.

A part that nobody annotated in an image is unknown there, not absent: it is left out of the loss of labels, and where the
expert is unsure it is left out of the others too. What a person annotated is never overwritten: there no expert is heard.

    L = KL(Gaussian about y || map) + experts * KL(Gaussian about y' || map) + maps * KL(expert's map || map)
    y annotated;  y', the expert's peak, and its map only where nothing is annotated and the expert is sure

Differs from the paper:
1. Keypoints are places in a map of two dimensions, one of each in an image. There are no anchor poses, regions or depths.
2. The paper's loss of distillation is not known to us. Two are here, to be told apart: an expert's place is a label
   (``experts``), and its whole map of the very view that the student sees is a target (``maps``).
3. All experts see the image at one scale.
4. The wrist of the body is not moved to that of the hand: no two experts find the same keypoint.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F

from classgraft.data.augment import augmentation
from classgraft.data.images import Images
from classgraft.data.keypoints import Poses
from classgraft.errors import InputError
from classgraft.losses.keypoints import map_divergence
from classgraft.models.keypoints import Locator
from classgraft.training.answers import answers, asked
from classgraft.training.locating import RECIPE, SPREAD, agreeing, annotated, lesson
from classgraft.training.loop import Batch, Terms, fit
from classgraft.training.recipe import Recipe
from classgraft.training.teaching import seated
from classgraft.verbs import Distiller


@dataclass(frozen=True)
class PartExperts(Distiller[Locator]):
    """Annotated points, experts' points where none is annotated, and experts' maps there; weights at 0 leave theirs out.

    The teacher is ``classgraft.models.keypoints.united(experts)``.
    """

    experts: float = 1.0
    """Weight of the points that experts find."""
    maps: float = 1.0
    """Weight of the experts' maps of the view that the student sees."""
    confidence: float = 0.5
    """Least probability near its peak that an expert's map must have for its point, and its map, to count."""
    spread: float = SPREAD
    """Sigma of the map that stands for a point, in cells."""
    recipe: Recipe = RECIPE

    def distill(self, teacher: Locator, student: Locator, images: Images) -> Locator:
        if not isinstance(teacher, Locator) or not isinstance(student, Locator):
            raise InputError(
                "part-experts distills networks that find keypoints (classgraft.models.keypoints.Locator), from Python."
            )
        if images.classes and not isinstance(images, Poses):
            raise InputError(
                "part-experts learns from images with points (classgraft.data.keypoints) or without any label."
            )
        master, learner, _ = seated(teacher, student, images)
        if isinstance(images, Poses) and images.classes:
            agreeing(learner, agreeing(master, images))
            images = images.named(master.classes)  # also those in which nothing is annotated: experts label everything
        told, augment = self.told(master, images), augmentation(self.recipe.augment)
        if not images.classes and not ((self.experts or self.maps) and bool(told.annotated.any())):
            raise InputError(
                f"Nobody annotated the images, and experts that are sure by {self.confidence} say nothing that counts; lower"
                " confidence, or set experts or maps."
            )

        def objective(batch: Batch) -> Terms:
            own, size, terms = learner(batch.images), batch.images.shape[-1], {}
            if images.classes:
                terms["labels"] = lesson(own, batch.targets, size, self.spread)
            missing = told.targets(batch.index, own.device, augment, batch.seed, batch.epoch)
            if self.experts:
                terms["experts"] = self.experts * lesson(own, missing, size, self.spread)
            if self.maps:
                theirs = asked(master, batch.images)
                if theirs.shape != own.shape:
                    theirs = F.interpolate(theirs, own.shape[2:], mode="bilinear")
                terms["maps"] = self.maps * map_divergence(own, theirs, missing[..., 2])
            return terms

        fit(learner, objective, images, self.recipe, "distilling experts", carries=(told.points, told.annotated))
        return learner

    def told(self, master: Locator, images: Images) -> Poses:
        """The images with what experts are sure of, where nobody annotated anything; what is annotated is left out."""
        found = answers(master, images, master.located, what="asking the experts")
        kept = found[..., 2] >= self.confidence
        if isinstance(images, Poses) and images.classes:
            kept &= ~images.annotated
        return annotated(images, master, found, kept)
