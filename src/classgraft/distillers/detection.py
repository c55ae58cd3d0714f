"""Distillation of detectors: a narrow Faster R-CNN learns from what a wide one says of the very boxes that it drew itself.

Chen, Choi, Yu, Han, Chandraker: Learning Efficient Object Detection Models with Knowledge Distillation, NIPS 2017. Both
stages learn alike, the anchors of the first (RPN) and the regions of the second (RCN), from labels and boxes; from the
teacher's probabilities, those of the background with a weight of their own; and from the truth where the teacher is nearer
to it than the student. A hint leads the student's maps to the teacher's through a convolution that is dropped afterwards.

    L = sum over RPN, RCN of  -mu log q_y - (1 - mu) sum_c w_c p_c log q_c + smoothL1(s, b)
        + nu |s - b|^2 [|s - b|^2 + m > |t - b|^2]
        + gamma |A(maps of the student) - maps of the teacher|^2
    p, t = the teacher's classes and offsets, q, s = the student's, b = the truth

Differs from the paper:
1. Mu and m are not in the paper; 0.8 and 0 are what reimplementations found to work.
2. The hint is a mean of squares over channels and places, so that its weight does not hang on the width of the teacher,
   and averaged over the maps where there are several.
3. What the teacher says of an anchor, one number, is taken as a softmax of two, with the same weights as any class.
4. Boxes that are void (hard ones of VOC's) are left out of every term.
5. Optimiser and schedule are for small networks from scratch; ``training/detecting.py`` names those for VOC's size.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from classgraft.data.boxes import Boxed
from classgraft.errors import InputError
from classgraft.losses.detection import bounded_regression, weighted_soft_cross_entropy
from classgraft.models.classifier import frozen
from classgraft.models.detector import Detector
from classgraft.training import sampling
from classgraft.training.answers import evaluating
from classgraft.training.detecting import RECIPE, carried, known, learning, terms, truths
from classgraft.training.engine import current
from classgraft.training.loop import Batch, Terms, fit
from classgraft.training.recipe import Recipe
from classgraft.verbs import Distiller


@dataclass(frozen=True)
class Detection(Distiller[Detector]):
    """Labels, weighted soft answers, boxes, boxes bounded by the teacher, and a hint; weights at 0 leave their part out."""

    soft: float = 0.2
    """1 - mu, share of the soft answers in the loss of classes; mu is that of the labels."""
    background: float = 1.5
    """w of the background in the soft answers; every other class has 1."""
    bounded: float = 0.5
    """Nu, weight of the bounded regression beside smooth L1."""
    margin: float = 0.0
    """m, in squared units of the offsets: how much better than the teacher the student must be to be left in peace."""
    hint: float = 0.5
    """Gamma, weight of the hint."""
    recipe: Recipe = RECIPE

    def distill(self, teacher: Detector, student: Detector, images: Boxed) -> Detector:  # type: ignore[override]
        learner, images = learning(_matching(teacher, student)), known(images, teacher)
        master, truth = frozen(teacher), truths(images, self.recipe.augment, student.device)
        adapters = _adapters(learner, master, images, self.recipe.seed) if self.hint else nn.ModuleDict()

        def objective(batch: Batch) -> Terms:
            own = sampling.seen(learner, batch.images, truth(batch))
            losses = terms(own)
            if not (self.soft or self.bounded or self.hint):
                return losses
            theirs = told(master, batch.images, own.sample)
            for name, mine, said in (("rpn", own.rpn, theirs.rpn), ("rcn", own.rcn, theirs.rcn)):
                losses |= self._taught(name, losses[f"{name}-class"], mine, said)
            if self.hint:
                apart = [F.mse_loss(adapters[k](own.maps[k]), theirs.maps[k]) for k in own.maps]
                losses["hint"] = self.hint * torch.stack(apart).mean()
            return losses

        both = nn.ModuleList([learner, adapters])
        fit(both, objective, images.images, self.recipe, "distilling a detector", carries=carried(images))
        return learner

    def _taught(self, name: str, labelled: Tensor, own: sampling.Stage, theirs: sampling.Stage) -> Terms:
        """What the teacher adds to one stage, and the share that it leaves to the labels."""
        found = {}
        if self.soft:
            weight = torch.ones(own.logits.shape[1], device=labelled.device)
            weight[0] = self.background
            found[f"{name}-class"] = (1 - self.soft) * labelled
            found[f"{name}-soft"] = self.soft * weighted_soft_cross_entropy(own.logits, theirs.logits, weight)
        if self.bounded:
            total = bounded_regression(own.offsets, theirs.offsets, own.truth, self.margin)
            found[f"{name}-bounded"] = self.bounded * total / max(1, len(own.labels))
        return found


def told(teacher: Detector, pictures: Tensor, sample: sampling.Sample) -> sampling.Seen:
    """What a frozen teacher says of boxes that the student sampled, without a graph."""
    with evaluating(teacher), current().ready(teacher), torch.no_grad():
        return sampling.seen_again(teacher, pictures, sample)


def _matching(teacher: Detector, student: Detector) -> Detector:
    """The student, whose classes and units of offsets are the teacher's."""
    if student.classes != teacher.classes:
        raise InputError(
            f"The student's {len(student.classes)} classes are not the teacher's {len(teacher.classes)};"
            " give it the same names in the same order."
        )
    coders = [(d.network.rpn.box_coder.weights, d.network.roi_heads.box_coder.weights) for d in (teacher, student)]
    if coders[0] != coders[1]:
        raise InputError(f"Offsets of the teacher are in other units than the student's: {coders}; give both the same.")
    return student


def _adapters(learner: Detector, master: Detector, images: Boxed, seed: int) -> nn.ModuleDict:
    """A 1 x 1 convolution for each map, from the student's channels to the teacher's."""
    one, found = images.images.view(torch.arange(1), learner.device), nn.ModuleDict()
    with torch.no_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        own, theirs = (d.maps(d.prepared(one)[0]) for d in (learner, master))
        for name, mine in own.items():
            if name not in theirs or theirs[name].shape[2:] != mine.shape[2:]:
                raise InputError(
                    f"The student's map '{name}' {tuple(mine.shape)} has no like among the teacher's; give both backbones"
                    " the same strides, or set hint to 0."
                )
            found[name] = nn.Conv2d(mine.shape[1], theirs[name].shape[1], 1)
    return found.to(learner.device)
