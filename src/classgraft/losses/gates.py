"""Gates that are open or shut: how they are drawn while they learn, and how many are open."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def binary_concrete(logits: Tensor, uniform: Tensor, temperature: float) -> Tensor:
    """1 with the probability sigmoid(logit), else 0, with the gradient of a soft sample.

    Jang, Gu, Poole: Categorical Reparameterization with Gumbel-Softmax, ICLR 2017, arXiv 1611.01144, the straight-through
    form, for two categories: the difference of two Gumbel numbers is a logistic one.

    Args:
        logits: of any shape.
        uniform: of the same shape, drawn from 0..1.
        temperature: T of the soft sample sigmoid((logit + noise) / T).
    """
    uniform = uniform.clamp(1e-6, 1 - 1e-6)
    soft = torch.sigmoid((logits + uniform.log() - (-uniform).log1p()) / temperature)
    return soft + ((soft > 0.5).to(soft.dtype) - soft).detach()


def open_share(gates: Sequence[Tensor]) -> Tensor:
    """The mean over layers of the share of a layer's gates that are open, over a batch.

    Args:
        gates: of each layer, numbers in 0..1 (B, C).
    """
    return torch.stack([layer.mean() for layer in gates]).mean()
