"""What the machine can do."""

from __future__ import annotations

import functools
import importlib.util
import shutil

import torch


@functools.cache
def has_bf16(kind: str) -> bool:
    """Whether the hardware multiplies bfloat16 itself: tensor cores, AMX, or AVX-512 BF16."""
    if kind == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    amx, avx = (
        getattr(torch.cpu, name, lambda: False) for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported")
    )
    return bool(kind == "cpu" and (amx() or avx()))


@functools.cache
def can_compile(kind: str) -> bool:
    """Whether there is what torch.compile needs: a C++ compiler, or Triton."""
    if kind == "cuda":
        return importlib.util.find_spec("triton") is not None
    return any(shutil.which(name) for name in ("g++", "clang++", "c++"))
