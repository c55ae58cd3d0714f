"""What a training step has to do at least, and how fast this machine can do it: a roofline of two lines.

    python benchmarks/limits.py [--network resnet32]

Arithmetic: multiplications and additions of forward and backward pass, against the rate of a large matrix product.
Bandwidth: how often the maps between layers must at least cross the memory, against the rate of a long copy.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from typing import Any

import torch
from bare import settle
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from classgraft.models.cifar_resnet import build
from classgraft.training.hardware import has_bf16

PASSES = 14
"""Over the output of each convolution with batch norm: forward, the convolution reads its input and writes its output,
the norm reads for its statistics, reads and writes; backward, the norm reads twice two maps and writes one, the
convolution reads two for the weights and reads and writes one for its input."""


def limits(network: str, device: torch.device) -> dict[str, Any]:
    """Per precision: images a second if only arithmetic counted, and if only bandwidth did."""
    found: dict[str, Any] = {"flop an image": work(network), "bytes between layers, an image": 4 * outputs(network)}
    copied = bandwidth(device)
    found["copied bytes a second"] = copied
    for name, kind in (("fp32", torch.float32), ("bf16", torch.bfloat16)):
        if name == "bf16" and not has_bf16(device.type):
            continue
        rate = products(kind, device)
        found[name] = {
            "flop a second": rate,
            "arithmetic": rate / work(network),
            "bandwidth": copied / (PASSES * outputs(network) * kind.itemsize),
        }
    return found


def work(network: str) -> float:
    """Additions and multiplications of one image, forward and backward."""
    model = build(network, 10)
    with FlopCounterMode(display=False) as counter:
        model(torch.zeros(2, 3, 32, 32)).sum().backward()
    return float(counter.get_total_flops()) / 2


def outputs(network: str) -> int:
    """Numbers that all convolutions give for one image."""
    numbers = []

    def note(module: nn.Module, given: object, out: Tensor) -> None:
        numbers.append(out[0].numel())

    model = build(network, 10)
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            module.register_forward_hook(note)
    model(torch.zeros(2, 3, 32, 32))
    return sum(numbers)


def products(kind: torch.dtype, device: torch.device, side: int = 2048) -> float:
    """Additions and multiplications a second of a product of square matrices."""
    a, b = (torch.randn(side, side, device=device).to(kind) for _ in range(2))
    return 2 * side**3 / _fastest(lambda: a @ b, device)


def bandwidth(device: torch.device, size: int = 256 << 20) -> float:
    """Bytes read and written a second by a copy."""
    source = torch.zeros(size, dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    return 2 * size / _fastest(lambda: target.copy_(source), device)


def _fastest(act: Callable[[], object], device: torch.device, times: int = 7) -> float:
    act()
    found = []
    for _ in range(times):
        settle(device)
        started = time.perf_counter()
        act()
        settle(device)
        found.append(time.perf_counter() - started)
    return min(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", default="resnet32")
    chosen = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    for name, value in limits(chosen.network, device).items():
        print(name, value)


if __name__ == "__main__":
    main()
