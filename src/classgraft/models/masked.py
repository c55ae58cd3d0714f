"""A network whose weights serve several tasks, each through a mask of its own.

Mallya, Davis, Lazebnik: Piggyback: Adapting a Single Network to Multiple Tasks by Learning to Mask Weights, ECCV 2018,
arXiv 1801.06519.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.func import functional_call

from classgraft.errors import InputError
from classgraft.models.structure import Structure

IN_A_BYTE = {2: 8, 3: 5}
"""Values that a mask may have -> how many of them a byte holds."""


class Mask(nn.Module):
    """Which values of one weight a task uses: 0 or 1, or -1, 0 or 1; saved at one bit a weight, or five weights a byte."""

    values: Tensor

    def __init__(self, shape: Sequence[int], base: int) -> None:
        super().__init__()
        if base not in IN_A_BYTE:
            raise InputError(f"it states a mask of {base} values; masks have 2 or 3.")
        self.base = base
        self.register_buffer("values", torch.ones(*shape, dtype=torch.int8), persistent=False)

    def _save_to_state_dict(self, destination: dict[str, Any], prefix: str, keep_vars: bool) -> None:
        destination[f"{prefix}packed"] = packed(self.values, self.base)

    def _load_from_state_dict(self, state: Mapping[str, Tensor], prefix: str, *given: Any) -> None:
        _, _, missing, _, _ = given
        if (found := state.get(f"{prefix}packed")) is None:
            missing.append(f"{prefix}packed")
        else:
            self.values.copy_(unpacked(found, self.base, self.values.shape))


class Masked(Structure):
    """Features of the network as it is, if some class reads them, and then of each task's masked network, side by side."""

    kind = "masked"

    def __init__(self, inner: Sequence[nn.Module], bare: int, **bases: int) -> None:
        """``mask0=2, mask1=3``: for each task the number of values that its masks may have."""
        super().__init__()
        (self.body,) = inner
        self.bare = bool(bare)
        shapes = [weight.shape for weight in maskable(self.body).values()]
        self.tasks = nn.ModuleList(nn.ModuleList(Mask(shape, base) for shape in shapes) for base in bases.values())

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) to features (B, streams * D)."""
        features = [self.body(images)] if self.bare else []
        for task in range(len(self.tasks)):
            kept = zip(maskable(self.body).items(), self.masks(task), strict=True)
            weights = {name: weight * mask.values for (name, weight), mask in kept}
            features.append(functional_call(self.body, weights, (images,)))
        return torch.cat(features, 1)

    def masks(self, task: int) -> list[Mask]:
        """A task's, in the order of ``maskable(body)``."""
        held = self.tasks[task]
        assert isinstance(held, nn.ModuleList)
        return [mask for mask in held if isinstance(mask, Mask)]

    @property
    def inner(self) -> Sequence[nn.Module]:
        return (self.body,)

    @property
    def settings(self) -> dict[str, int]:
        bases = {f"mask{task}": self.masks(task)[0].base for task in range(len(self.tasks))}
        return {"bare": int(self.bare), **bases}

    @property
    def streams(self) -> int:
        return self.bare + len(self.tasks)


class Choosing(nn.Module):
    """A network under masks that learn: real numbers m, of which only those above a threshold let their weight through.

    ``moved`` is m minus its start, so that weight decay pulls towards the unmasked network and not under the threshold.
    """

    def __init__(
        self, body: nn.Module, start: float, threshold: float, base: int, spread: float = 0.0, seed: int = 0
    ) -> None:
        """``body`` frozen; m is drawn by the seed about ``start``, at most ``spread`` of its way to the threshold from it."""
        super().__init__()
        self.body, self.threshold, self.base = body, threshold, base
        weights, generator = maskable(body).values(), torch.Generator().manual_seed(seed)
        away = spread * (start - threshold)
        self.moved = nn.ParameterList(torch.zeros_like(weight) for weight in weights)
        self.starts = [
            (start + away * (1 - 2 * torch.rand(weight.shape, generator=generator))).to(weight) for weight in weights
        ]

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, C, H, W) to features (B, D)."""
        kept = zip(maskable(self.body).items(), self.masks(), strict=True)
        return functional_call(self.body, {name: weight * mask for (name, weight), mask in kept}, (images,))  # type: ignore[no-any-return]

    def masks(self) -> list[Tensor]:
        """Of every weight, with the gradient that m takes over as it is."""
        begun = zip(self.starts, self.moved, strict=True)
        return [thresholded(start + moved, self.threshold, self.base) for start, moved in begun]


def maskable(body: nn.Module) -> dict[str, Tensor]:
    """The weights of convolutions and linear layers by name, each once; not their biases, nor those of normalisations."""
    found: dict[str, Tensor] = {}
    for name, part in body.named_modules():
        if isinstance(part, nn.Conv2d | nn.Linear) and not any(part.weight is weight for weight in found.values()):
            found[f"{name}.weight".lstrip(".")] = part.weight
    return found


def thresholded(real: Tensor, threshold: float, base: int) -> Tensor:
    """1 where ``real`` is above the threshold, else 0; with base 3 also -1 where it is below minus the threshold.

    Straight through: the gradient of the mask is handed on to ``real`` as it is.
    """
    return _Thresholded.apply(real, threshold, base)  # type: ignore[no-any-return]


class _Thresholded(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, real: Tensor, threshold: float, base: int) -> Tensor:
        mask = (real > threshold).to(real.dtype)
        return mask - (real < -threshold).to(real.dtype) if base == 3 else mask

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Any:  # type: ignore[override]
        return gradient, None, None


def unmasked(body: nn.Module) -> nn.Module:
    """The network that masks are laid on; not a copy."""
    return body.body if isinstance(body, Masked) else body


@torch.no_grad()
def with_mask(body: nn.Module, masks: Sequence[Tensor], base: int, bare: bool) -> Masked:
    """A copy of a network with masks for one more task.

    Args:
        body: masked already or not.
        masks: one for each of ``maskable(body)``.
        base: values that they may have, 2 or 3.
        bare: whether some class reads the features of the network as it is, where it was not masked.
    """
    before = body.settings if isinstance(body, Masked) else {"bare": int(bare)}
    found = Masked([copy.deepcopy(unmasked(body))], **before, **{f"mask{len(before) - 1}": base})
    earlier = (
        [[mask.values for mask in body.masks(t)] for t in range(len(body.tasks))] if isinstance(body, Masked) else []
    )
    for task, chosen in enumerate([*earlier, masks]):
        for mask, values in zip(found.masks(task), chosen, strict=True):
            mask.values.copy_(values)
    return found.to(masks[0].device).eval()


def packed(values: Tensor, base: int) -> Tensor:
    """Masks of any shape as uint8 (bytes,): digits of a number in this base, the first the smallest; -1 is the digit 2."""
    many = IN_A_BYTE[base]
    digits = values.flatten().remainder(base).to(torch.uint8)
    digits = F.pad(digits, (0, -len(digits) % many)).view(-1, many)
    return (digits * _places(base, values.device)).sum(1, dtype=torch.uint8)


def unpacked(held: Tensor, base: int, shape: Sequence[int]) -> Tensor:
    """``packed`` taken back: int8 of this shape."""
    digits = (held[:, None] // _places(base, held.device)).remainder(base).flatten().to(torch.int8)
    values = torch.where(digits == 2, -1, digits)
    return values[: torch.Size(shape).numel()].view(*shape)


def _places(base: int, device: torch.device) -> Tensor:
    return torch.tensor([base**place for place in range(IN_A_BYTE[base])], dtype=torch.uint8, device=device)


def zeroed(body: Masked, task: int) -> float:
    """The share of weights that a task's masks leave out."""
    values = torch.cat([mask.values.flatten() for mask in body.masks(task)])
    return float((values == 0).double().mean())
