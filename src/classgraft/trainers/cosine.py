"""Supervised training by the angle between the output and its class, for few images a class.

Barz, Denzler: Deep Learning on Small Datasets without Pre-Training using Cosine Loss, WACV 2020, arXiv 1901.09054.

    L(theta) = mean over images of 1 - z_y / |z|

Differs from the paper: rows that are all 0 are drawn first. Outputs keep their length in the classifier that comes
back, so that they stand where logits stand; the favoured class is the same.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import nn

from classgraft.data.images import Images
from classgraft.losses.classification import cosine_distance
from classgraft.models.classifier import Classifier
from classgraft.training.loop import Batch, Terms, fit
from classgraft.training.recipe import Recipe
from classgraft.verbs import Trainer


@dataclass(frozen=True)
class Cosine(Trainer):
    """One minus the cosine of output and class; every weight is free."""

    recipe: Recipe = Recipe()

    def train(self, model: Classifier, images: Images) -> Classifier:
        learner = copy.deepcopy(model).requires_grad_(True)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.recipe.seed)
            for (
                part
            ) in learner.head.modules():  # an output of length 0 has no angle, and no gradient that means anything
                if isinstance(part, nn.Linear) and not part.weight.any():
                    part.reset_parameters()

        def objective(batch: Batch) -> Terms:
            return {"class": cosine_distance(learner(batch.images), batch.targets)}

        fit(learner, objective, images.of(model.classes), self.recipe)
        return learner
