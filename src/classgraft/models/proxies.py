"""Classes told apart by several directions each."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from classgraft.models.classifier import Classifier, Head
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
    rows = nn.utils.skip_init(nn.Linear, len(classes), len(classes), bias=False, device=body.proxies.device)
    with torch.no_grad():
        rows.weight.copy_(torch.eye(len(classes)))
    return Classifier(body, Head([rows]), classes).eval()


def proxies_of(model: Classifier) -> Proxies | None:
    """The proxies that give a classifier's logits; None where its head is more than passing on some of them."""
    if not isinstance(model.body, Proxies) or model.head.bias.any():
        return None
    weight, count = model.head.weight.cpu(), len(model.body.proxies)
    own = weight.argmax(1)  # classes may have been removed since
    if weight.shape[1] != count or not torch.equal(weight, torch.eye(count)[own]) or len(own.unique()) < len(own):
        return None
    if torch.equal(own, torch.arange(count)):
        return model.body
    return with_proxies(model.body.body, model.body.proxies[own.to(model.device)], float(model.body.scale.detach()))
