"""How long and how fast to learn: everything about training that is neither the method nor the machine."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor


@dataclass(frozen=True)
class Recipe:
    """A training recipe. It says nothing of devices."""

    epochs: int = 30
    """Passes over the images."""
    batch_size: int = 64
    """Images a step."""
    optimiser: Literal["sgd", "adamw"] = "sgd"
    """``sgd`` with Nesterov momentum, or ``adamw``."""
    lr: float = 0.1
    """Learning rate at the start."""
    momentum: float = 0.9
    """Of sgd."""
    weight_decay: float = 5e-4
    """Decay of every weight that learns."""
    milestones: tuple[float, ...] = (0.6, 0.85)
    """Shares of the epochs after which the learning rate is divided by ten; empty: cosine to zero."""
    augment: str = "crop-flip"
    """Augmentation by name (``classgraft.data.augment``)."""
    seed: int = 0
    """Of the order of the images, their augmentation and fresh weights."""

    def optimizer(self, parameters: Iterable[Tensor]) -> torch.optim.Optimizer:
        kept = [p for p in parameters if p.requires_grad]
        # the same bits as one tensor after the other, and sooner where the tensors are small and many; ``fused`` pairs a
        # gradient and its weight by their places in memory on a CPU, which differ where one of them is channels-last
        if self.optimiser == "adamw":
            return torch.optim.AdamW(kept, self.lr, weight_decay=self.weight_decay, foreach=True)
        nesterov = self.momentum > 0
        return torch.optim.SGD(
            kept, self.lr, self.momentum, weight_decay=self.weight_decay, nesterov=nesterov, foreach=True
        )

    def rate(self, done: float) -> float:
        """The learning rate when the share ``done`` (0..1) of the epochs is over."""
        if self.milestones:
            return self.lr * 0.1 ** sum(done >= at for at in self.milestones)
        return float(self.lr * 0.5 * (1 + torch.cos(torch.tensor(torch.pi * done)).item()))
