"""A body whose features have unit length, for answers by the nearest mean."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from classgraft.models.classifier import Classifier, Head, linear
from classgraft.models.merged import Merged
from classgraft.models.rows import all_rows
from classgraft.models.structure import Structure


class Normalised(Structure):
    """Another body's features at unit length, and beside them the linear rows that trained it and will go on to."""

    kind = "normalised"
    place: Tensor

    def __init__(self, inner: Sequence[nn.Module], width: int, rows: int, more: int = 0) -> None:
        """``more`` rows stand beside those of classes that were made one."""
        super().__init__()
        (self.body,) = inner
        self.trained = nn.utils.skip_init(nn.Linear, width, rows)
        self.more = nn.utils.skip_init(nn.Linear, width, more) if more else None
        self.register_buffer("place", torch.zeros(more, dtype=torch.int64) if more else None)
        """(M,) of ``Merged``."""

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) to features (B, D) of length 1."""
        return F.normalize(self.body(images), dim=1)

    @property
    def inner(self) -> Sequence[nn.Module]:
        return (self.body,)

    @property
    def settings(self) -> dict[str, int]:
        found = {"width": self.trained.in_features, "rows": self.trained.out_features}
        return found if self.more is None else {**found, "more": self.more.out_features}

    @property
    def rows(self) -> nn.Linear:
        """Those that trained the body, as they are."""
        return self.trained if self.more is None else Merged(self.trained, self.more, self.place.tolist())


@torch.no_grad()
def nearest_mean(model: Classifier, means: Tensor) -> Classifier:
    """A classifier that answers with the nearest of the means (K, D) of unit-length features.

    Its logits 2 m_k f - |m_k|^2 are minus the squared distances to the means, up to what all classes have in common.
    The body and the rows of ``model`` are in it, so that ``trainable`` finds them again.
    """
    rows = linear(2 * means, -means.square().sum(1)).to(model.device)
    weight, bias, classes = all_rows(model.head)
    body = Normalised([model.body], means.shape[1], len(means), len(weight) - len(means)).to(model.device)
    body.trained.weight.copy_(weight[: len(means)])
    body.trained.bias.copy_(bias[: len(means)])
    if body.more is not None:
        body.more.weight.copy_(weight[len(means) :])
        body.more.bias.copy_(bias[len(means) :])
        body.place.copy_(classes[len(means) :])
    return Classifier(body, Head([rows] if len(means) else []), model.classes).eval()


def trained_rows(model: Classifier) -> bool:
    """Whether its logits, or those of the rows that trained it, say anything.

    Where classes were added or removed since, only the answering rows fit, which are for features of length 1.
    """
    return not isinstance(model.body, Normalised) or model.head.rows == (model.body.trained.out_features,)


def trainable(model: Classifier) -> Classifier:
    """The classifier with the rows that trained it, where ``model`` answers by nearest mean; else ``model`` itself.

    Where classes were added or removed since, the answering rows take the place of those.
    """
    if not isinstance(model.body, Normalised):
        return model
    head = Head([model.body.rows]) if trained_rows(model) else model.head
    return Classifier(model.body.body, head, model.classes)
