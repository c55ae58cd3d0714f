"""Parts of a head that is made of statistics: what is done to features first, and rules that are no rows.

Nothing here learns by gradients; what the parts hold are buffers. ``classgraft.models.heads`` describes them in JSON.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from classgraft.models.classifier import Block, fewer, linear


def described(block: nn.Module) -> dict[str, Any]:
    """A block, or what is done to features before it, in plain JSON."""
    if isinstance(block, nn.Linear) and not isinstance(block, Block):  # timm has a Linear of its own
        return {
            "kind": "linear",
            "rows": block.out_features,
            "width": block.in_features,
            "bias": block.bias is not None,
        }
    return block.spec()  # type: ignore[no-any-return, operator]


class Unit(nn.Module):
    """Features (B, D) of length 1."""

    def forward(self, features: Tensor) -> Tensor:
        return F.normalize(features, dim=1)

    def spec(self) -> dict[str, Any]:
        return {"kind": "unit"}


class Power(nn.Module):
    """Tukey's ladder: every feature to this power, with its sign."""

    def __init__(self, exponent: float) -> None:
        super().__init__()
        self.exponent = exponent

    def forward(self, features: Tensor) -> Tensor:
        return features.sign() * features.abs().pow(self.exponent)

    def spec(self) -> dict[str, Any]:
        return {"kind": "power", "exponent": self.exponent}


class RandomFeatures(nn.Module):
    """Features (B, D) times a Gaussian matrix, then ReLU: (B, M).

    The matrix is no tensor of the state: it follows from the seed, by the one generator whose numbers are promised to
    stay the same in every version (NumPy's ``RandomState``).
    """

    matrix: Tensor

    def __init__(self, inputs: int, width: int, seed: int) -> None:
        super().__init__()
        self.inputs, self.width, self.seed = inputs, width, seed
        numbers = np.random.RandomState([seed & 0xFFFFFFFF, seed >> 32]).standard_normal((inputs, width))
        self.register_buffer("matrix", torch.from_numpy(numbers).float(), persistent=False)

    def forward(self, features: Tensor) -> Tensor:
        return (features @ self.matrix).relu()

    def spec(self) -> dict[str, Any]:
        return {"kind": "random", "inputs": self.inputs, "width": self.width, "seed": self.seed}


Transform = Unit | Power | RandomFeatures


class Through(Block):
    """A block that sees the features through these transforms, one after the other."""

    def __init__(self, transforms: Sequence[Transform], block: nn.Linear | Block) -> None:
        super().__init__()
        self.transforms, self.block = nn.ModuleList(transforms), block
        inputs = [part.inputs for part in transforms if isinstance(part, RandomFeatures)]
        self.in_features, self.out_features = (*inputs, block.in_features)[0], block.out_features

    def forward(self, features: Tensor) -> Tensor:
        for transform in self.transforms:
            features = transform(features)
        return self.block(features)  # type: ignore[no-any-return]

    def only(self, kept: list[int]) -> Through:
        return Through(list(self.transforms), fewer(self.block, kept))  # type: ignore[arg-type]

    def spec(self) -> dict[str, Any]:
        return {
            "kind": "through",
            "transforms": [described(part) for part in self.transforms],
            "block": described(self.block),
        }


class Mahalanobis(Block):
    """Logits -|A_k (x - m_k)|^2 / 2 with a mean m_k (D,) and a matrix A_k (D, D) for each class.

    With A_k' A_k the inverse of a covariance that is the logarithm of a Gaussian density but for what its volume adds.
    """

    mean: Tensor
    root: Tensor

    def __init__(self, mean: Tensor, root: Tensor) -> None:
        super().__init__()
        self.out_features, self.in_features = mean.shape
        self.register_buffer("mean", mean)
        self.register_buffer("root", root)

    def forward(self, features: Tensor) -> Tensor:
        # class by class: all at once would take B x K x D numbers
        rows = [((features - m) @ a.T).square().sum(1) for m, a in zip(self.mean, self.root, strict=True)]
        return -torch.stack(rows, 1) / 2

    def only(self, kept: list[int]) -> Mahalanobis:
        return Mahalanobis(self.mean[kept], self.root[kept])

    def spec(self) -> dict[str, Any]:
        return {"kind": "mahalanobis", "rows": self.out_features, "width": self.in_features}


class Neighbours(Block):
    """Logarithms of the shares of votes that the nearest of the features kept give to each class.

    A neighbour's vote counts exp(cosine / temperature). A share below one in a million counts as that.
    """

    features: Tensor
    owners: Tensor
    neighbours: Tensor
    temperature: Tensor

    def __init__(self, features: Tensor, owners: Tensor, rows: int, neighbours: int, temperature: float) -> None:
        super().__init__()
        self.in_features, self.out_features = features.shape[1], rows
        self.register_buffer("features", features)
        """(N, D) of length 1."""
        self.register_buffer("owners", owners)
        """int64 (N,), the class of each."""
        self.register_buffer("neighbours", torch.tensor(neighbours))
        self.register_buffer("temperature", torch.tensor(temperature))
        self._count = neighbours  # a plain number, without which there is no graph of one size

    def _load_from_state_dict(self, *given: Any) -> None:
        super()._load_from_state_dict(*given)
        self._count = int(self.neighbours)

    def forward(self, features: Tensor) -> Tensor:
        cosines = F.normalize(features, dim=1) @ self.features.T
        near = cosines.topk(min(self._count, len(self.features)), dim=1)
        shares = (near.values / self.temperature).softmax(1)
        votes = shares.new_zeros(features.shape[0], self.out_features).scatter_add_(
            1, self.owners[near.indices], shares
        )
        return votes.clamp(min=1e-6).log()

    def only(self, kept: list[int]) -> Neighbours:
        place = torch.full((self.out_features,), -1, device=self.owners.device)
        place[kept] = torch.arange(len(kept), device=place.device)
        owners = place[self.owners]
        own = owners >= 0
        return Neighbours(self.features[own], owners[own], len(kept), int(self.neighbours), float(self.temperature))

    def spec(self) -> dict[str, Any]:
        return {"kind": "neighbours", "kept": len(self.features), "rows": self.out_features, "width": self.in_features}


def discriminants(mean: Tensor, solved: Tensor) -> nn.Linear:
    """Rows with the logits -(x - m_k)' P (x - m_k) / 2, less what is the same for all classes.

    Args:
        mean: m_k (K, D).
        solved: P m_k (K, D); the means themselves for the Euclidean distance.
    """
    bias = -(mean * solved).sum(1) / 2
    # without what is common the numbers are smaller, and fewer digits are lost in 32 bits
    return linear((solved - solved.mean(0)).float(), (bias - bias.mean()).float())
