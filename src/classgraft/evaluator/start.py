"""What a stream starts from: a body, fresh or trained elsewhere, and no classes."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from classgraft.errors import InputError
from classgraft.models.classifier import Classifier, Head
from classgraft.models.cut import head_name, headless
from classgraft.models.preparation import Preparation
from classgraft.models.sources import Architecture, load_weights, read_weights


@dataclass(frozen=True)
class Start:
    """A network by its source; its head is thrown away."""

    source: str | Callable[[], nn.Module] = "cifar:resnet32"
    """``cifar:NAME``, ``timm:NAME``; or a function that makes a body with an integer attribute ``num_features``."""
    weights: Path | None = None
    """Trained weights of the whole network; fresh ones: None."""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    """Of the network's constructor."""
    mean: tuple[float, float, float] | None = None
    """Of the pixels that the network takes, in 0..1; the source's own: None."""
    std: tuple[float, float, float] | None = None

    def __str__(self) -> str:
        words = self.source if isinstance(self.source, str) else getattr(self.source, "__qualname__", "a function")
        return (
            words
            + "".join(f" {key}={value}" for key, value in self.arguments.items())
            + " pretrained" * bool(self.weights)
        )

    @property
    def fresh(self) -> bool:
        """Whether its weights are drawn at random, as far as can be told."""
        return self.weights is None and isinstance(self.source, str)

    def preparation(self, size: int) -> Preparation:
        """For squares of ``size`` pixels."""
        stated = (
            Architecture(self.source, self.arguments).preparation() if isinstance(self.source, str) else Preparation()
        )
        return stated.changed(size, mean=self.mean, std=self.std)

    def classifier(self, seed: int) -> Classifier:
        """Without classes; fresh weights are drawn by the seed."""
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            if not isinstance(self.source, str):
                return Classifier(self.source(), Head(), ()).eval()
            network, name = self._network(Architecture(self.source, self.arguments))
        last = network.get_submodule(name)
        assert isinstance(last, nn.Linear)
        body = headless(network, name)
        body.num_features = last.in_features  # type: ignore[assignment]
        return Classifier(body, Head(), ()).eval()

    def _network(self, architecture: Architecture) -> tuple[nn.Module, str]:
        if self.weights is None:
            network = architecture.build(2)
            return network, head_name(network)
        weights = architecture.needed(read_weights(Path(self.weights)))
        name = head_name(architecture.build(2))
        if f"{name}.weight" not in weights:
            raise InputError(
                f"{self.weights} has no tensor '{name}.weight'; give weights of a whole {architecture.source}."
            )
        rows = len(weights[f"{name}.weight"])
        network = architecture.build(rows)
        load_weights(network, weights, f"{architecture.source} with {rows} classes")
        return network, name
