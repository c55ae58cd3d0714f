"""The diagonal of the Fisher information of a classifier's weights."""

from __future__ import annotations

from dataclasses import replace
from typing import Literal

import torch
from torch import Tensor

from classgraft.data import draws
from classgraft.data.images import Images
from classgraft.losses.classification import among, cross_entropy_among
from classgraft.models.classifier import Classifier, frozen
from classgraft.training.answers import answers
from classgraft.training.gradients import mean_of_each

Kind = Literal["exact", "sampled", "empirical", "identity"]


def fisher_information(
    model: Classifier, images: Images, kind: Kind, groups: Tensor | None = None, seed: int = 0
) -> dict[str, Tensor]:
    """The mean over images of squared gradients of -log p(y | image), each image and label by itself, by parameter name.

    Every parameter has one, whether or not it learns; batch norm uses its running statistics.

    Args:
        model: the classifier.
        images: labelled by places in the model's classes.
        kind: whose label y is: every class by its probability p ("exact"), one drawn from p by the seed ("sampled"), the
            image's own ("empirical"); "identity" is 1 for every weight and looks at nothing.
        groups: of the classes (K,); p is a softmax over the group of the image's own label. None: over all.
        seed: of the drawn labels.
    """
    asked = frozen(model).requires_grad_(True)
    if kind == "identity":
        return {name: torch.ones_like(parameter) for name, parameter in asked.named_parameters()}
    groups = torch.zeros(len(model.classes), dtype=torch.int64, device=model.device) if groups is None else groups
    if kind == "sampled":
        own = groups.cpu()[images.labels]
        chances = among(answers(model, images), own, groups.cpu()).softmax(1).cumsum(1)
        draw = draws.uniform(seed, 0, torch.arange(len(images)), 1) * chances[:, -1:]
        labels = (draw >= chances).sum(1).clamp(max=len(model.classes) - 1)
        images = replace(images, labels=labels)
    if kind != "exact":
        return mean_of_each(asked, images, lambda logits, target: cross_entropy_among(logits, target, groups))

    def weighted(logits: Tensor, target: Tensor) -> Tensor:
        """Its squared gradient is that of -log p(target) times p(target)."""
        loss = cross_entropy_among(logits, target, groups)
        return (-loss.detach() / 2).exp() * loss

    total: dict[str, Tensor] = {}
    for k, group in enumerate(groups.tolist()):
        part = images.subset(torch.nonzero(groups.cpu()[images.labels] == group)[:, 0])
        if len(part):
            of_label = mean_of_each(asked, replace(part, labels=torch.full_like(part.labels, k)), weighted)
            for name, fisher in of_label.items():
                total[name] = total.get(name, torch.zeros_like(fisher)) + fisher * (len(part) / len(images))
    return total
