"""Images a second of the bare PyTorch step: the fastest plain loop one can write, on synthetic tensors that never change.

    python benchmarks/bare.py [--rounds 5] [--steps 6] [--batch-size 128] [--variants fp32 bf16-cl-compile ...]
    python benchmarks/bare.py --network timm:mobilenetv2_100 --size 224 --batch-size 16 --variants fp32-cl bf16-cl ours

Each variant takes a few steps in turn, round after round, so that whatever else the machine does falls on all alike;
printed are medians over rounds and their ratio to the first variant. A variant's name holds, joined by hyphens, a
precision (``fp32``, ``bf16``) and any of ``cl`` (channels-last), ``compile`` (of the body), ``fused`` and ``foreach``
(the optimiser); ``ours`` is the body as a long run of ours has it, uncompiled. On a CPU freed memory is kept for the next
step, unless ``--give-back`` says otherwise. What is measured goes into ``results/bare.json``, of another network than the
usual one into a file with its name.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable
from contextlib import nullcontext

import timm
import torch
import torch.nn.functional as F
from interleaved import rates, tell

from classgraft.models.cifar_resnet import build
from classgraft.training.engine import Engine
from classgraft.training.hardware import keep_memory

VARIANTS = ("fp32", "fp32-fused", "fp32-foreach", "fp32-cl", "fp32-compile", "fp32-cl-compile",
            "bf16", "bf16-cl", "bf16-compile", "bf16-cl-compile")  # fmt: skip


def headless(name: str) -> tuple[torch.nn.Module, torch.nn.Module]:
    """A body and a head of 100 classes."""
    if name.startswith("timm:"):
        body = timm.create_model(name.removeprefix("timm:"), num_classes=0)
        width = int(body(torch.zeros(2, 3, 64, 64)).shape[1])
        return body, torch.nn.Linear(width, 100)
    network = build(name, 100)
    head, network.linear = network.linear, torch.nn.Identity()  # type: ignore[assignment]
    return network, head


def stepper(
    variant: str, batch_size: int, device: torch.device, name: str = "resnet32", size: int = 32
) -> Callable[[], None]:
    """A function that takes one step of SGD with Nesterov momentum on the same synthetic batch."""
    words = variant.split("-")
    torch.manual_seed(0)
    layout = torch.channels_last if "cl" in words or "ours" in words else torch.contiguous_format
    network, head = (part.to(device).to(memory_format=layout) for part in headless(name))
    images = torch.randn(batch_size, 3, size, size).to(device, memory_format=layout)
    targets = torch.randint(0, 100, (batch_size,)).to(device)
    parameters = [*network.parameters(), *head.parameters()]
    optimizer = torch.optim.SGD(
        parameters, 0.01, 0.9, weight_decay=5e-4, nesterov=True,
        fused="fused" in words or None, foreach="foreach" in words or None,
    )  # fmt: skip
    body, whole = torch.compile(network) if "compile" in words else network, torch.nn.ModuleDict({"body": network})

    def step() -> None:
        optimizer.zero_grad(set_to_none=True)
        ours = Engine(device.type, "bf16").ready(whole) if "ours" in words else nullcontext()
        with ours, torch.autocast(device.type, torch.bfloat16, enabled="bf16" in words):
            loss = F.cross_entropy(head(body(images)).float(), targets)
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()

    return step


def turn(step: Callable[[], None], steps: int, images: int, device: torch.device) -> Callable[[], float]:
    """Images a second over so many steps."""

    def take() -> float:
        settle(device)
        started = time.perf_counter()
        for _ in range(steps):
            step()
        settle(device)
        return steps * images / (time.perf_counter() - started)

    return take


def settle(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", type=int, default=6)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--network", default="resnet32", help="of CIFAR, or timm:NAME")
    parser.add_argument("--size", type=int, default=32)
    parser.add_argument("--give-back", action="store_true")
    parser.add_argument("--variants", nargs="+", default=list(VARIANTS))
    chosen = parser.parse_args()
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    size = chosen.batch_size
    if not chosen.give_back:
        keep_memory()
    contenders = {
        name: turn(stepper(name, size, device, chosen.network, chosen.size), chosen.steps, size, device)
        for name in chosen.variants
    }
    kind, _, network = chosen.network.rpartition(":")
    what = f"images a second of a bare step, {kind or 'CIFAR'} {network}, batch {size}, synthetic, {chosen.size} pixels"
    name = "bare" if network == "resnet32" else f"bare-{network}"
    tell(name, what, rates(contenders, chosen.rounds), chosen.variants[:1])


if __name__ == "__main__":
    main()
