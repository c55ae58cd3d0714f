"""The classifier: a body that turns images into features, a head with one row a class, and the class names."""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Self, TypeVar

import torch
from torch import Tensor, nn

from classgraft.errors import InputError


class Block(nn.Module, ABC):
    """Logits of some classes from features by another rule than rows; the closed list is in ``classgraft.models``."""

    in_features: int
    """D, features that it takes."""
    out_features: int
    """Classes that it tells apart."""

    @abstractmethod
    def only(self, kept: list[int]) -> Block:
        """A block of these of its classes."""

    @property
    def linear(self) -> nn.Linear | None:
        """Its rows, where its logits are those of rows and something more."""
        return None


class Head(nn.Module):
    """Linear rows in blocks, one block for each time that classes were added; or blocks of another rule.

    Each block is a matrix product of its own and the results are concatenated, so a block's logits keep their bits
    when another block comes beside it (one joint product does not: rows then move by about 1e-7 at batch 1).
    """

    def __init__(self, blocks: Iterable[nn.Linear | Block] = ()) -> None:
        super().__init__()
        self.blocks = nn.ModuleList(blocks)

    def forward(self, features: Tensor) -> Tensor:
        """Features (B, D) to logits (B, K)."""
        if not self.blocks:
            return features.new_zeros(len(features), 0)
        logits = [block(features) for block in self.blocks]
        return logits[0] if len(logits) == 1 else torch.cat(logits, dim=1)

    @property
    def rows(self) -> tuple[int, ...]:
        """Classes in each block."""
        return tuple(block.out_features for block in self.parts)

    @property
    def parts(self) -> list[nn.Linear | Block]:
        """The blocks, with their types."""
        return [block for block in self.blocks if isinstance(block, nn.Linear | Block)]

    @property
    def groups(self) -> Tensor:
        """The block of each class (K,)."""
        sizes = torch.tensor(self.rows, dtype=torch.int64, device=self.linear[0].weight.device if self.blocks else None)
        return torch.arange(len(sizes), device=sizes.device).repeat_interleave(sizes)

    @property
    def linear(self) -> list[nn.Linear]:
        """The blocks of a head that is nothing but rows.

        Raises:
            InputError: another rule than rows gives some of the logits.
        """
        rows = [block for block in self.blocks if isinstance(block, nn.Linear)]
        if len(rows) < len(self.blocks):
            other = next(type(block).__name__ for block in self.blocks if not isinstance(block, nn.Linear))
            raise InputError(
                f"The head is not made of linear rows ({other}), which this needs; go on with the method that made it."
            )
        return rows

    @property
    def linear_part(self) -> Head:
        """The head without what its blocks have beside rows; the rows themselves, not copies."""
        return Head(block.linear or block if isinstance(block, Block) else block for block in self.parts)

    @property
    def weight(self) -> Tensor:
        """All rows (K, D), a copy without gradient; (0, 0) where there are none."""
        return torch.cat([block.weight.detach() for block in self.linear]) if self.blocks else torch.zeros(0, 0)

    @property
    def bias(self) -> Tensor:
        """All biases (K,), zeros where a block has none, a copy without gradient."""
        if not self.blocks:
            return torch.zeros(0)
        return torch.cat(
            [
                block.weight.new_zeros(len(block.weight)) if block.bias is None else block.bias.detach()
                for block in self.linear
            ]
        )


class Classifier(nn.Module):
    """Images (B, C, H, W) to logits (B, K) through features (B, D); row k of the head is ``classes[k]``.

    Images come prepared as the body was trained on them (sized and normalised), so a classifier stands wherever the
    network stood that it was made from.
    """

    def __init__(self, body: nn.Module, head: Head, classes: Sequence[str]) -> None:
        super().__init__()
        if sum(head.rows) != len(classes):
            raise InputError(
                f"The head has {sum(head.rows)} rows but {len(classes)} class names were given; give one a row."
            )
        self.body, self.head, self.classes = body, head, tuple(classes)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(self.features(images))  # type: ignore[no-any-return]

    def features(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) to features (B, D)."""
        return self.body(images)  # type: ignore[no-any-return]

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def unknown(self, names: Sequence[str]) -> tuple[str, ...]:
        """Those of the names that are no class yet, each once, in order."""
        return tuple(name for name in dict.fromkeys(names) if name not in self.classes)

    def grown(self, names: Sequence[str], weight: Tensor | None = None, bias: Tensor | None = None) -> Self:
        """A copy with one new row for each name that is not known yet, after the old rows.

        ``weight`` (N, D) and ``bias`` (N,) fill the new rows; without them they start at zero, from where the logits'
        gradient moves them at once.
        """
        names, copy_ = self.unknown(names), copy.deepcopy(self)
        if not names:
            return copy_
        weight = torch.zeros(len(names), feature_width(self)) if weight is None else weight
        bias = torch.zeros(len(names)) if bias is None else bias
        parameter = next(self.parameters(), torch.zeros(0))
        copy_.head.blocks.append(linear(weight.to(parameter), bias.to(parameter)).train(self.head.training))
        copy_.classes = (*self.classes, *names)
        return copy_

    def headed(self, blocks: Sequence[nn.Linear | Block], classes: Sequence[str]) -> Self:
        """A copy of the body under another head, on the body's device and in its type."""
        parameter = next(self.parameters(), torch.zeros(0))
        head = Head(blocks).to(parameter.device, parameter.dtype).train(self.head.training)
        copy_ = copy.deepcopy(self, {id(self.head): head})  # the head that goes is not copied
        copy_.classes = tuple(classes)
        return copy_

    def with_rows(self, names: Sequence[str], weight: Tensor, bias: Tensor) -> Self:
        """A copy in which the rows of these classes have this weight (N, D) and bias (N,); every other row is as it was.

        Of a class that several were made into that is its first row.
        """
        copy_ = copy.deepcopy(self)
        places, first = {self.classes.index(name): i for i, name in enumerate(names)}, 0
        with torch.no_grad():
            for block in copy_.head.linear_part.linear:
                own = {k: places[first + k] for k in range(len(block.weight)) if first + k in places}
                first += len(block.weight)
                if own and block.bias is None:
                    block.bias = nn.Parameter(block.weight.new_zeros(len(block.weight)))
                for k, i in own.items():
                    block.weight[k] = weight[i]
                    block.bias[k] = bias[i]
        return copy_

    def without(self, names: Sequence[str]) -> Self:
        """A copy without the rows of these classes; every other row keeps its order and its numbers."""
        copy_ = copy.deepcopy(self)
        blocks: list[nn.Linear | Block] = []
        first = 0
        for block in copy_.head.parts:
            kept = [k for k in range(block.out_features) if self.classes[first + k] not in names]
            first += block.out_features
            if len(kept) == block.out_features:
                blocks.append(block)
            elif kept:
                blocks.append(fewer(block, kept))
        copy_.head.blocks = nn.ModuleList(blocks).train(self.head.training)
        copy_.classes = tuple(name for name in self.classes if name not in names)
        return copy_


@torch.no_grad()
def linear(weight: Tensor, bias: Tensor | None) -> nn.Linear:
    """A layer of copies of these rows (K, D) and biases (K,), where they are and in their type; no random number is drawn."""
    layer = nn.utils.skip_init(
        nn.Linear, weight.shape[1], len(weight), bias is not None, device=weight.device, dtype=weight.dtype
    )
    assert isinstance(layer, nn.Linear)
    layer.weight.copy_(weight)
    if bias is not None:
        layer.bias.copy_(bias)
    return layer


def fewer(block: nn.Linear | Block, kept: list[int]) -> nn.Linear | Block:
    """A block of these of its classes, in this order."""
    if isinstance(block, Block):
        return block.only(kept)
    return linear(block.weight[kept], None if block.bias is None else block.bias[kept]).train(block.training)


def feature_width(model: Classifier) -> int:
    """D, read from the head, or from the body's ``num_features`` where no class is known yet."""
    if model.head.blocks:
        return model.head.parts[0].in_features
    width = getattr(model.body, "num_features", None)
    if not isinstance(width, int):
        raise InputError("A classifier without classes needs a body with an integer attribute num_features; set it.")
    return width


Module = TypeVar("Module", bound=nn.Module)


def frozen(module: Module) -> Module:
    """A copy in evaluation mode that no longer learns."""
    return copy.deepcopy(module).eval().requires_grad_(False)


def untrained(body: nn.Module) -> bool:
    """Whether no normalisation layer shows a trace of training: all statistics and offsets are still at their start.

    Where there is none (VGG, SqueezeNet), the biases of the others tell, which start at 0 in most such networks. Where they
    start elsewhere (AlexNet), or are missing, nothing tells, and the network counts as trained.
    """
    names = ("bias", "running_mean", "num_batches_tracked")
    kinds = (nn.modules.batchnorm._BatchNorm, nn.LayerNorm, nn.GroupNorm)
    everything = list(body.modules())
    parts = [part for part in everything if isinstance(part, kinds)] or everything
    traces = [trace for part in parts for name in names if isinstance(trace := getattr(part, name, None), Tensor)]
    return bool(traces) and not any(bool(trace.any()) for trace in traces)


def folded(norm: nn.Module) -> bool:
    """Whether batch norm was folded into weights that were trained: its mean is 0 and its variance 1, but its offset is not 0.

    Such a layer works with those statistics only; in training mode it would normalise a second time.
    """
    mean, variance, bias = (getattr(norm, name, None) for name in ("running_mean", "running_var", "bias"))
    if not isinstance(norm, nn.modules.batchnorm._BatchNorm) or mean is None or variance is None or bias is None:
        return False
    return bool(bias.any()) and not mean.any() and bool(((variance - 1).abs() < 1e-3).all())
