"""Networks that label every pixel: taught from masks alone, and measured."""

from __future__ import annotations

import copy

import torch

from classgraft.data.scenes import VOID, Scenes
from classgraft.losses.segmentation import pixel_cross_entropy
from classgraft.metrics.segmentation import Overlap, overlap
from classgraft.models.segmenter import Segmenter
from classgraft.training.answers import answers
from classgraft.training.loop import Batch, Terms, fit
from classgraft.training.recipe import Recipe


def taught(model: Segmenter, scenes: Scenes, recipe: Recipe, *, statistics: bool = True) -> Segmenter:
    """A copy that learnt the masks of its classes; without ``statistics`` batch norm works with those that it has."""
    learner = copy.deepcopy(model).requires_grad_(True)

    def objective(batch: Batch) -> Terms:
        return {"class": pixel_cross_entropy(learner(batch.images), batch.targets, VOID)}

    fit(learner, objective, scenes.of(model.classes), recipe, "learning the masks", statistics=statistics)
    return learner


def measured(model: Segmenter, scenes: Scenes) -> Overlap:
    """How the network's answers overlap with the masks, at the resolution that it sees."""
    known = scenes.of(model.classes)
    predicted = answers(model, known, model.favoured, what="labelling pixels").long()
    masks = known.targets(torch.arange(len(known)), torch.device("cpu"))
    return overlap(predicted, masks, model.classes, VOID)
