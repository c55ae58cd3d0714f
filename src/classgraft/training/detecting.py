"""How a Faster R-CNN learns and is asked: its own loss in four named terms, and what it finds in images."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import replace

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.ops import box_iou

from classgraft.data.augment import margin
from classgraft.data.boxes import Boxed
from classgraft.errors import InputError
from classgraft.losses.detection import smooth_regression
from classgraft.models.detector import Detector
from classgraft.training import sampling
from classgraft.training.answers import evaluating
from classgraft.training.loop import Batch, Terms, fit
from classgraft.training.progress import report
from classgraft.training.recipe import Recipe

SAME = 0.5
"""Intersection over union of two boxes of one thing."""
BATCH = 16
"""Images a forward pass."""
RECIPE = Recipe(epochs=40, batch_size=8, optimiser="adamw", lr=1e-3, weight_decay=1e-4, milestones=(), augment="flip")
"""For small detectors from scratch on a few hundred pictures; for VOC's 5,000 and a trained backbone take the usual
sgd at 0.01, 14 epochs, milestones at 0.7, pictures of 600 pixels."""


def terms(seen: sampling.Seen) -> Terms:
    """Cross-entropy and regression of both stages: what torchvision's own training sums, where nothing is void."""
    found = {}
    for name, stage in (("rpn", seen.rpn), ("rcn", seen.rcn)):
        count = len(stage.labels)
        found[f"{name}-class"] = F.cross_entropy(stage.logits, stage.labels) if count else stage.logits.sum()
        found[f"{name}-boxes"] = smooth_regression(stage.offsets, stage.truth) / max(1, count)
    return found


def truths(images: Boxed, augment: str, device: torch.device) -> Callable[[Batch], list[dict[str, Tensor]]]:
    """What is true of the very view that a batch shows."""
    return lambda batch: images.truth(batch.index, device, augment, batch.seed, batch.epoch)


def train(detector: Detector, images: Boxed, recipe: Recipe = RECIPE, *, statistics: bool = True) -> Detector:
    """A trained copy; the images' boxes are those of some or all of its classes.

    Fine-tuning of a detector that was extended is this as well; of a few images, without ``statistics``: batch norm then works
    with those that it has.

    Raises:
        InputError: no box is of its classes.
    """
    learner, images = learning(detector), known(images, detector)
    truth = truths(images, recipe.augment, detector.device)

    def objective(batch: Batch) -> Terms:
        return terms(sampling.seen(learner, batch.images, truth(batch)))

    fit(
        learner, objective, images.images, recipe, "training a detector", carries=carried(images), statistics=statistics
    )
    return learner


def tuned(detector: Detector, images: Boxed, steps: int, seed: int) -> Detector:
    """A copy trained further for at least so many steps, on a few images, at the rate of ``RECIPE``."""
    passes = math.ceil(steps / math.ceil(len(images) / RECIPE.batch_size))
    return train(detector, images, replace(RECIPE, epochs=passes, seed=seed), statistics=False)


def learning(detector: Detector) -> Detector:
    """A copy in evaluation mode to be trained: what is frozen stays so (torchvision's first layers), unless all of it is."""
    copy_ = copy.deepcopy(detector).eval()
    return copy_ if any(p.requires_grad for p in copy_.parameters()) else copy_.requires_grad_(True)


def known(images: Boxed, detector: Detector) -> Boxed:
    """The images with the boxes of the detector's classes.

    Raises:
        InputError: there is none.
    """
    found = images.of(detector.classes)
    if not bool((found.labels >= 0).any()):
        raise InputError("There is no box to learn from: none is of the detector's classes; give some of those.")
    return found


def carried(images: Boxed) -> tuple[Tensor, ...]:
    """What a journal must know beside the pixels: it never moves, but another one is another run."""
    return images.boxes, images.labels, images.owner


def found(detector: Detector, images: Boxed) -> list[dict[str, Tensor]]:
    """Of each image ``boxes`` (n, 4) in pixels of the view, ``labels`` (n,) from 1 and ``scores`` (n,), on the CPU."""
    everything: list[dict[str, Tensor]] = []
    with evaluating(detector), torch.inference_mode():
        for index in torch.arange(len(images)).split(BATCH):
            pictures = images.images.view(index, detector.device)
            everything += [{name: part.cpu() for name, part in one.items()} for one in detector(pictures)]
            report("looking for objects", len(everything), len(images))
    return everything


def labelled(detector: Detector, images: Boxed, sure: float = 0.5, unsure: float = 0.1) -> Boxed:
    """The images with what the detector finds in them beside their own boxes, so that old things need nobody to draw them.

    What it finds with a score of at least ``sure`` becomes a box of its class, what has at least ``unsure`` is void: neither
    there nor background. A find that overlaps one of the image's own boxes by half is that box. Nothing is found in what a
    view's crop leaves out.
    """
    classes = (*detector.classes, *(name for name in images.classes if name not in detector.classes))
    own = images.of(classes)
    side = own.images.pixels.shape[-1]
    corner = margin(side, own.images.preparation.size)
    boxes, labels, owner = [own.boxes], [own.labels], [own.owner]
    for place, result in enumerate(found(detector, images)):
        there = own.boxes[own.owner == place]
        seen = (result["boxes"] + corner).clamp(0, side)  # torchvision's rounding leaves the square by a little
        new = (result["scores"] >= unsure) & ~(box_iou(seen, there) >= SAME).any(1)
        boxes.append(seen[new])
        labels.append(torch.where(result["scores"] >= sure, result["labels"] - 1, -1)[new])
        owner.append(torch.full_like(labels[-1], place))
    return replace(own, boxes=torch.cat(boxes), labels=torch.cat(labels), owner=torch.cat(owner))
