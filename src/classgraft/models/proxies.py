"""Classes told apart by several directions each."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from classgraft.models.classifier import Classifier, Head, linear
from classgraft.models.rows import all_rows
from classgraft.models.structure import Structure


class Proxies(Structure):
    """Images to scaled similarities with each class, which has several proxies: the "local similarity classifier".

    Douillard et al.: PODNet, ECCV 2020, arXiv 2004.13513, equation 9.
    """

    kind = "proxies"

    def __init__(self, inner: Sequence[nn.Module], classes: int, count: int, width: int) -> None:
        super().__init__()
        (self.body,) = inner
        self.proxies = nn.Parameter(torch.zeros(classes, count, width))
        """(K, P, D)."""
        self.scale = nn.Parameter(torch.ones(()))
        """Eta."""

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) to logits (B, K)."""
        return self.logits(self.body(images))

    def logits(self, features: Tensor) -> Tensor:
        """Features (B, D) to eta sum_p softmax_p(c) c, c the cosines with the proxies of each class (B, K)."""
        cosines = torch.einsum("bd,kpd->bkp", F.normalize(features, dim=1), F.normalize(self.proxies, dim=2))
        return self.scale * (cosines.softmax(2) * cosines).sum(2)

    @property
    def inner(self) -> Sequence[nn.Module]:
        return (self.body,)

    @property
    def settings(self) -> dict[str, int]:
        return dict(zip(("classes", "count", "width"), self.proxies.shape, strict=True))


@torch.no_grad()
def with_proxies(body: nn.Module, proxies: Tensor, scale: float) -> Proxies:
    """Proxies (K, P, D) on a body, where they lie."""
    found = Proxies([body], *proxies.shape).to(proxies.device)
    found.proxies.copy_(proxies)
    found.scale.fill_(scale)
    return found


def by_proxies(body: Proxies, classes: tuple[str, ...]) -> Classifier:
    """A classifier with these logits: its features are the logits, its head passes them on."""
    rows = linear(torch.eye(len(classes), device=body.proxies.device), None)
    return Classifier(body, Head([rows]), classes).eval()


def proxies_of(model: Classifier) -> Proxies | None:
    """The proxies that give a classifier's logits; None where its head is more than passing on some of them.

    A class that several were made into has as many as any other, an equal share from each of those: it is where to learn
    on from, not what gives its logit.
    """
    if not isinstance(model.body, Proxies):
        return None
    weight, bias, classes = all_rows(model.head)
    weight, count = weight.cpu(), len(model.body.proxies)
    own = weight.argmax(1)  # classes may have been removed since
    passed = weight.shape[1] == count and torch.equal(weight, torch.eye(count)[own]) and len(own.unique()) == len(own)
    if bias.any() or not passed:
        return None
    if torch.equal(own, torch.arange(count)) and torch.equal(classes, own):
        return model.body
    sets = [model.body.proxies.detach()[own[classes == k].to(model.device)] for k in range(len(model.classes))]
    found = torch.stack([several.transpose(0, 1).flatten(0, 1)[: several.shape[1]] for several in sets])
    return with_proxies(model.body.body, found, float(model.body.scale.detach()))
