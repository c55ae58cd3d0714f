"""Bias correction (BiC): distillation with exemplars, then two numbers set new logits right against old ones.

Wu, Chen, Wang, Ye, Liu, Guo, Fu: Large Scale Incremental Learning, CVPR 2019, arXiv 1905.13260.

    L = -(1 - a) log softmax(z)_y + a KL(softmax(v / T) || softmax(z_old / T)),  a = K_old / K,
    v the old network's
    then  z_new <- alpha z_new + beta,  min over alpha, beta of the held-out images' mean -log softmax(z)_y
        + ((log alpha)^2 + beta^2) / (10 their number)

Differs from the paper:
1. The correction is folded into the new rows (alpha w, alpha b + beta), so that the classifier stays linear and earlier
   corrections need no layers of their own.
2. The two numbers come from L-BFGS on all held-out images at once, in evaluation mode and without augmentation.
3. A class with a single image holds nothing out; without held-out images of old and of new classes nothing is corrected.
4. The pull towards no correction, a tenth of an image's weight, is ours, and so is that alpha stays positive: where a few
   held-out images are told apart without error, the cross-entropy falls for ever as alpha or beta grows, and rows a hundred
   times too long came of it; where most are not, a negative alpha turned the order of the new classes around.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from classgraft.data.images import Images, Task
from classgraft.losses.distillation import distillation
from classgraft.models.classifier import Classifier, frozen
from classgraft.training.answers import answers, asked
from classgraft.training.exemplars import replayed
from classgraft.training.loop import Batch, Terms, fit
from classgraft.training.solve import solve
from classgraft.verbs import Rehearsal


@dataclass(frozen=True)
class BiasCorrection(Rehearsal):
    """Cross-entropy and distillation at the ratio of new and old classes; then alpha and beta on held-out images."""

    temperature: float = 2.0
    """T, equation 1."""
    held_out: float = 0.1
    """Share of an old class's exemplars held out for the correction, and as many images of each new class (section 5.1)."""

    def extend(self, model: Classifier, memory: object | None, task: Task) -> Classifier:
        old, grown = frozen(model), model.grown(task.classes).requires_grad_(True)
        images, known = replayed(memory, model, task, grown.classes), len(model.classes)
        share = len(set(model.classes) - set(task.classes)) / len(
            grown.classes
        )  # of classes that come again there is news
        corrects = 0 < known < len(grown.classes)
        held = images.subset(torch.arange(0))
        if corrects:
            images, held = divided(images, known, self.held_out, self.recipe.seed)

        def objective(batch: Batch) -> Terms:
            logits = grown(batch.images)
            terms = {"class": (1 - share) * F.cross_entropy(logits, batch.targets)}
            if known:
                targets = asked(old, batch.images)
                terms["old"] = share * distillation(logits[:, :known], targets, self.temperature)
            return terms

        fit(grown, objective, images, self.recipe, "bias correction")
        if corrects and (held.labels < known).any() and (held.labels >= known).any():
            logits = answers(grown, held)

            def terms(stretch: Tensor, beta: Tensor) -> Terms:
                new = stretch.exp() * logits[:, known:] + beta
                wrong = F.cross_entropy(torch.cat([logits[:, :known], new], 1), held.labels)
                return {"correction": wrong, "pull": 0.1 * (stretch.square() + beta.square()).sum() / len(held)}

            stretch, beta = solve(terms, 1, 1, 100)
            block = grown.head.linear[-1]
            with torch.no_grad():
                block.weight.mul_(float(stretch.exp()))
                block.bias.mul_(float(stretch.exp())).add_(float(beta))
        return grown


def divided(images: Images, known: int, fraction: float, seed: int) -> tuple[Images, Images]:
    """The images for training, and those held out: as many of each class, ``fraction`` of an old class's exemplars.

    Every class keeps an image to train on.
    """
    sizes = torch.bincount(images.labels, minlength=len(images.classes))
    count = max(1, round(fraction * float(sizes[:known].float().mean())))
    chosen = torch.zeros(len(images), dtype=torch.bool)
    for k, size in enumerate(sizes.tolist()):
        places = torch.nonzero(images.labels == k)[:, 0]
        order = torch.from_numpy(np.random.default_rng([seed, k]).permutation(size))
        chosen[places[order[: max(0, min(count, size - 1))]]] = True
    return images.subset(torch.nonzero(~chosen)[:, 0]), images.subset(torch.nonzero(chosen)[:, 0])
