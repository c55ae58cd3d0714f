"""The one pass in evaluation mode: features or logits of many images, in fp32, batch by batch."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from classgraft.data.augment import Augment, centre
from classgraft.data.images import Images
from classgraft.training.loop import report

BATCH = 64
"""Images a forward pass; small enough for the caches of a CPU."""


@torch.inference_mode()
def answers(
    module: nn.Module,
    images: Images,
    of: Callable[[Tensor], Tensor] | None = None,
    augment: Augment = centre,
    seed: int = 0,
    epoch: int = 0,
    what: str = "looking at images",
) -> Tensor:
    """What ``of`` (the module itself: None) gives for every image, (N, ...) on the CPU; the module's mode is left alone."""
    of = of or module
    device = next(module.parameters()).device
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    found: list[Tensor] = []
    done = 0
    for index in torch.arange(len(images)).split(BATCH):
        found.append(of(images.view(index, device, augment, seed, epoch)).float().cpu())
        done += len(index)
        report(what, done, len(images))
    for part, mode in modes:
        part.training = mode
    return torch.cat(found) if found else torch.zeros(0)
