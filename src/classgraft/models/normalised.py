"""A body whose features have unit length, for answers by the nearest mean."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from classgraft.models.classifier import Classifier, Head


class Normalised(nn.Module):
    """Another body's features at unit length, and beside them the linear head that trained it and will go on to."""

    def __init__(self, body: nn.Module, head: Head, classes: tuple[str, ...]) -> None:
        super().__init__()
        self.body, self.head = body, head
        self.classes = classes
        """Of the head's rows."""

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) to features (B, D) of length 1."""
        return F.normalize(self.body(images), dim=1)


def nearest_mean(model: Classifier, means: Tensor) -> Classifier:
    """A classifier that answers with the nearest of the means (K, D) of unit-length features.

    Its logits 2 m_k f - |m_k|^2 are minus the squared distances to the means, up to what all classes have in common.
    The body and the head of ``model`` are in it, so that ``trainable`` finds them again.
    """
    rows = nn.utils.skip_init(nn.Linear, means.shape[1], len(means), device=model.device)
    with torch.no_grad():
        rows.weight.copy_(2 * means)
        rows.bias.copy_(-means.square().sum(1))
    head = Head([rows]) if len(means) else Head()
    return Classifier(Normalised(model.body, model.head, model.classes), head, model.classes).eval()


def trainable(model: Classifier) -> Classifier:
    """The classifier with the head that trained it, where ``model`` answers by nearest mean; else ``model`` itself.

    Where classes were added, removed or renamed since, the answering rows take the place of that head.
    """
    if not isinstance(model.body, Normalised):
        return model
    head = model.body.head if model.body.classes == model.classes else model.head
    return Classifier(model.body.body, head, model.classes)
