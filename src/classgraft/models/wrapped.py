"""Networks made to fit the cut: tensors in, tensors out, and a linear layer last."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn


class Logits(nn.Module):
    """A network of the transformers library: takes ``pixel_values``, gives an object with ``logits``."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        return self.network(pixel_values=images).logits  # type: ignore[no-any-return]


class Beside(nn.Module):
    """A network that ends in a 1x1 convolution, whatever it does after that: its logits become features.

    SqueezeNet rectifies the convolution's answers and takes their mean over positions, so no row over pooled features
    gives its logits. Here the features (B, D + K) are what the convolution sees, pooled, and beside it the network's own
    logits; ``rows`` begins as the identity on those, which gives them bit for bit, and new rows see both.
    """

    def __init__(self, network: nn.Module, layer: str, rows: int) -> None:
        super().__init__()
        self.network, self.layer = network, layer
        seen = network.get_submodule(layer)
        assert isinstance(seen, nn.Conv2d)
        self.rows = nn.Linear(seen.in_channels + seen.out_channels, rows)
        with torch.no_grad():
            self.rows.weight.zero_()
            self.rows.weight[:, seen.in_channels :].fill_diagonal_(1)
            self.rows.bias.zero_()

    def forward(self, images: Tensor) -> Tensor:
        seen: list[Tensor] = []

        def see(_: nn.Module, given: Any) -> None:
            seen.append(given[0])

        handle = self.network.get_submodule(self.layer).register_forward_pre_hook(see)
        try:
            logits = self.network(images)
        finally:
            handle.remove()
        return self.rows(torch.cat([seen[0].mean((2, 3)), logits], 1))  # type: ignore[no-any-return]


def wrapped(network: nn.Module, outputs: int, rows: int | None = None) -> nn.Module:
    """The network, or a wrapper around it (not a copy) that fits the cut.

    Args:
        network: with ``outputs`` logits.
        outputs: see above.
        rows: of the linear layer that a wrapper puts last, where it puts one (``outputs``).
    """
    if getattr(network, "main_input_name", "") == "pixel_values":
        return Logits(network)
    if any(isinstance(part, nn.Linear) and part.out_features == outputs for part in network.modules()):
        return network
    pointwise = [
        name
        for name, part in network.named_modules()
        if isinstance(part, nn.Conv2d) and part.kernel_size == (1, 1) and part.out_channels == outputs
    ]
    return Beside(network, pointwise[-1], outputs if rows is None else rows) if pointwise else network
