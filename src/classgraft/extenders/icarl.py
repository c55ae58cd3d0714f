"""iCaRL: exemplars, distillation of the old answers, and classification by the nearest mean of exemplars.

Rebuffi, Kolesnikov, Sperl, Lampert: iCaRL: Incremental Classifier and Representation Learning, CVPR 2017, arXiv 1611.07725.

    L = sum over new k of H([k = y], s(z_k))
        + sum over old k of H(s(v_k), s(z_k)),  s = sigmoid, H(t, s) = -t log s - (1 - t) log(1 - s)
    class = argmax_k cos(f, m_k),  m_k = mean over the exemplars of k of f / |f|,
    v = what the old network says

Differs from the paper:
1. The old network answers for each augmented view, not once for each image.
2. Where a task brings more images of known classes, their labels count as those of new classes do.
3. The loss is a sum over classes, as in algorithm 3; the authors' code takes a mean over all hundred of them at a rate of 2,
   which is 0.02 here. The usual 0.1 of the recipe may be too much.
4. A class without exemplars answers with the direction of the row that was trained for it.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from classgraft.data.images import Images, Task
from classgraft.losses.distillation import sigmoid_cross_entropy
from classgraft.models.classifier import Classifier, frozen
from classgraft.models.normalised import nearest_mean, trainable, trained_rows
from classgraft.training.answers import answers, asked
from classgraft.training.exemplars import replayed
from classgraft.training.loop import Batch, Terms, fit
from classgraft.verbs import Rehearsal


@dataclass(frozen=True)
class ICaRL(Rehearsal):
    """Sigmoid outputs learn labels for new classes and the old network's answers for old ones; nearest means answer."""

    def seen_by(self, model: Classifier) -> nn.Module:
        return trainable(model).body

    def extend(self, model: Classifier, memory: object | None, task: Task) -> Classifier:
        old = frozen(trainable(model))
        grown = old.grown(task.classes).requires_grad_(True)
        images = replayed(memory, model, task, grown.classes)
        fits = trained_rows(model)  # else there is nothing to distil
        taught = torch.tensor([not fits or name in task.classes for name in grown.classes], device=grown.device)
        known = ~taught[: len(old.classes)]

        def objective(batch: Batch) -> Terms:
            logits = grown(batch.images)
            labels = F.one_hot(batch.targets, len(grown.classes)).to(logits.dtype)
            terms = {"new": sigmoid_cross_entropy(logits[:, taught], labels[:, taught])}
            if known.any():
                remembered = asked(old, batch.images).sigmoid()
                terms["old"] = sigmoid_cross_entropy(logits[:, ~taught], remembered[:, known])
            return terms

        fit(grown, objective, images, self.recipe, "iCaRL")
        kept = self.remember(grown, task, memory)  # as it will be called for, on the same images and weights
        return nearest_mean(grown, means(grown, kept.images))


def means(model: Classifier, exemplars: Images) -> Tensor:
    """The mean of each class's unit-length features, itself at unit length (K, D) (algorithm 1)."""
    features = F.normalize(answers(model, exemplars, model.features), dim=1)
    found = F.normalize(model.head.weight.cpu(), dim=1)
    for k in exemplars.labels.unique().tolist():
        found[k] = F.normalize(features[exemplars.labels == k].mean(0), dim=0)
    return found
