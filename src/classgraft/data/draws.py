"""Random numbers that belong to an image and an epoch, not to a moment.

A draw is a function of (seed, epoch, place in the set, which draw), so it is the same whatever the batch size, the
number of workers, the device or a restart in mid-epoch. The integers are mixed by the finaliser of SplitMix64 (Steele,
Lea, Flood: Fast Splittable Pseudorandom Number Generators, OOPSLA 2014).
"""

from __future__ import annotations

import torch
from torch import Tensor


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value


_STEP, _MIX1, _MIX2 = (_signed(v) for v in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


def _shift(x: Tensor, bits: int) -> Tensor:
    """Logical shift to the right; torch's own keeps the sign."""
    return (x >> bits) & ((1 << (64 - bits)) - 1)


def _mix(x: Tensor) -> Tensor:
    x = x + _STEP
    x = (x ^ _shift(x, 30)) * _MIX1
    x = (x ^ _shift(x, 27)) * _MIX2
    return x ^ _shift(x, 31)


def uniform(seed: int, epoch: int, index: Tensor, count: int) -> Tensor:
    """Numbers in [0, 1), float32 (B, count), for images at the places ``index`` (B,) of their set."""
    key = _mix(_mix(torch.tensor([seed, epoch], dtype=torch.int64)).roll(1) ^ torch.tensor([0, 1])).sum()
    cell = _mix(index.to(torch.int64) ^ key.to(index.device))[:, None]
    draw = torch.arange(count, device=index.device, dtype=torch.int64)
    return _shift(_mix(cell + draw * _STEP), 40).to(torch.float32) * 2.0**-24
