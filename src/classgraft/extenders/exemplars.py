"""Exemplar replay: plain training on the new images and some kept ones of every old class.

The baseline "experience replay" of Chaudhry et al.: On Tiny Episodic Memories in Continual Learning, arXiv 1902.10486,
in the form of the class-incremental literature: whole epochs over a task.

    L(theta) = mean over new images and exemplars together of -log softmax(z)_y

Differs from the paper: one stream of all images in place of half a batch each, so that an exemplar counts for as much as
a new image.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F

from classgraft.data.images import Task
from classgraft.models.classifier import Classifier
from classgraft.training.exemplars import replayed
from classgraft.training.loop import Batch, Terms, fit
from classgraft.verbs import Rehearsal


@dataclass(frozen=True)
class Replay(Rehearsal):
    """Cross-entropy over all classes on new images and exemplars alike; every weight is free."""

    def extend(self, model: Classifier, memory: object | None, task: Task) -> Classifier:
        grown = model.grown(task.classes).requires_grad_(True)
        images = replayed(memory, model, task, grown.classes)

        def objective(batch: Batch) -> Terms:
            return {"all": F.cross_entropy(grown(batch.images), batch.targets)}

        fit(grown, objective, images, self.recipe, "training with exemplars")
        return grown
