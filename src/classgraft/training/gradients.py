"""Gradients of each image by itself, in evaluation mode: what Fisher information and its relatives are made of."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.func import functional_call, grad, vmap

from classgraft.data.images import Images
from classgraft.training.answers import evaluating
from classgraft.training.loop import report

CHUNK = 32
"""Images whose gradients are in memory together, at most."""
ROOM = 1 << 30
"""Bytes that those may take, where more than one is to be there."""

Loss = Callable[[Tensor, Tensor], Tensor]
"""Logits (1, K) and targets (1,) of a single image to a scalar."""


def of_each(module: nn.Module, loss: Loss, images: Tensor, targets: Tensor) -> dict[str, Tensor]:
    """The gradient of each image's own loss: for each parameter that learns, by name, (B, *its shape).

    Args:
        module: batch norm uses its running statistics, else one image's gradient would hang on the others.
        loss: of one image.
        images: (B, C, H, W).
        targets: (B,).
    """
    learning = {name: p.detach() for name, p in module.named_parameters() if p.requires_grad}
    still = {name: p.detach() for name, p in module.named_parameters() if not p.requires_grad}
    still |= dict(module.named_buffers())

    def one(parameters: dict[str, Tensor], image: Tensor, target: Tensor) -> Tensor:
        return loss(functional_call(module, parameters | still, (image[None],)), target[None])

    with evaluating(module):
        return vmap(grad(one), in_dims=(None, 0, 0))(learning, images, targets)  # type: ignore[no-any-return]


def mean_of_each(
    module: nn.Module,
    images: Images,
    loss: Loss,
    power: Callable[[Tensor], Tensor] = torch.square,
    what: str = "weighing the weights",
) -> dict[str, Tensor]:
    """The mean over images of ``power`` of each image's own gradient: the diagonal of the empirical Fisher information
    by default (its labels are the images' own), the importance of memory-aware synapses with ``torch.abs``.
    """
    device = next(module.parameters()).device
    each = sum(p.nbytes for p in module.parameters() if p.requires_grad)
    chunk = max(1, min(CHUNK, ROOM // max(1, each)))
    sums: dict[str, Tensor] = {}
    for index in torch.arange(len(images)).split(chunk):
        targets = images.labels[index].to(device)
        for name, gradient in of_each(module, loss, images.view(index, device), targets).items():
            total = power(gradient).sum(0)
            sums[name] = sums[name] + total if name in sums else total
        report(what, int(index[-1]) + 1, len(images))
    return {name: total / len(images) for name, total in sums.items()}
