"""What the machine can do."""

from __future__ import annotations

import ctypes
import functools
import importlib.util
import shutil
import sys

import torch


@functools.cache
def has_bf16(kind: str) -> bool:
    """Whether the hardware multiplies bfloat16 itself: tensor cores, AMX, or AVX-512 BF16."""
    if kind == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    return has_amx(kind) or (kind == "cpu" and _cpu_says("_is_avx512_bf16_supported"))


def has_amx(kind: str) -> bool:
    """Whether a CPU has AMX, tiles for products of matrices."""
    return kind == "cpu" and _cpu_says("_is_amx_tile_supported")


def _cpu_says(name: str) -> bool:
    return bool(getattr(torch.cpu, name, lambda: False)())


@functools.cache
def can_compile(kind: str) -> bool:
    """Whether there is what torch.compile needs: a C++ compiler, or Triton."""
    if kind == "cuda":
        return importlib.util.find_spec("triton") is not None
    return any(shutil.which(name) for name in ("g++", "clang++", "c++"))


M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3


@functools.cache
def keep_memory() -> bool:
    """Have the C library keep the memory that a step frees for the next step; whether it does.

    Glibc gives large pieces back to the system, which hands them out again page by page, each of them cleared: 13,000
    page faults in a step of a CIFAR ResNet-32 on a CPU, an eighth of its time. The memory goes back when the process
    ends.
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):  # another C library
        return False
    return bool(mallopt(M_MMAP_THRESHOLD, 32 << 20) and mallopt(M_TRIM_THRESHOLD, 2**31 - 1))
