"""Images a second of our fine-tuning, of the bare loop and of Avalanche 0.6: same model, images, batch, augmentation.

    python benchmarks/speed.py            # minutes; on a quiet machine
    python benchmarks/speed.py --short    # does it run at all

Avalanche gets an environment of its own, made with uv in a temporary folder (or named with ``--avalanche PYTHON``), and
the best of 0, 1 and 2 loader workers. Epochs of all contenders are interleaved; one process computes at a time.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from bare import stepper, turn
from interleaved import Contender, rates, tell
from record import data
from torch import nn

from classgraft.data.images import Images, Task
from classgraft.data.sources import open_source
from classgraft.data.streaming import load_within
from classgraft.extenders.finetune import Finetune
from classgraft.models import cifar_resnet
from classgraft.models.classifier import Classifier, Head
from classgraft.models.preparation import Preparation
from classgraft.training.engine import Precision, engine, has_bf16
from classgraft.training.recipe import Recipe

PREPARATION = Preparation(32, 32, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


def photos(count: int) -> Images:
    """CIFAR-10 where the data is at hand, else noise of the same shape."""
    path = data() / "cifar10" / "train.parquet"
    if path.exists():
        source = open_source(path)
        loaded = load_within(source, 32)
        found = Images(loaded.pixels, loaded.labels, source.classes, PREPARATION)
        return found.subset(torch.randperm(len(found), generator=torch.Generator().manual_seed(0))[:count])
    pixels = torch.randint(0, 256, (count, 3, 32, 32), dtype=torch.uint8)
    return Images(pixels, torch.arange(count) % 10, tuple("abcdefghij"), PREPARATION)


def ours(
    images: Images, network: str, batch_size: int, precision: Precision, compile: bool, device: torch.device
) -> Contender:
    """An epoch of the method ``finetune``, from the classifier that has no class yet."""
    torch.manual_seed(0)
    body = cifar_resnet.build(network, len(images.classes))
    body.linear = nn.Identity()  # type: ignore[assignment]
    start = Classifier(body, Head(), ()).to(device)
    method = Finetune(Recipe(epochs=1, batch_size=batch_size, lr=0.01, weight_decay=1e-4))

    def take() -> float:
        with engine(precision=precision, compile=compile):
            started = time.perf_counter()
            method.extend(start, None, Task(images.classes, images))
            return len(images) / (time.perf_counter() - started)

    return take


@contextmanager
def avalanche(
    python: str, images: Images, network: str, batch_size: int, workers: int
) -> Iterator[tuple[Contender, dict[str, str]]]:
    """An epoch of Avalanche's ``Naive`` in another process, and that process's versions."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "images.pt")
        preparation = images.preparation
        torch.save(
            {"pixels": images.pixels, "labels": images.labels, "classes": len(images.classes),
             "mean": preparation.mean, "std": preparation.std}, path,
        )  # fmt: skip
        worker = Path(__file__).with_name("avalanche_worker.py")
        command = [python, str(worker), str(path), network, str(batch_size), str(workers), str(cifar_resnet.__file__)]
        with subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        ) as child:
            assert child.stdin
            assert child.stdout
            talk, hear = child.stdin, child.stdout
            versions = json.loads(hear.readline())

            def take() -> float:
                talk.write("\n")
                talk.flush()
                return len(images) / float(hear.readline())

            yield take, versions
            talk.close()


def environment(folder: Path) -> str | None:
    """The Python of a fresh environment with Avalanche; None where it cannot be made."""
    try:
        subprocess.run(["uv", "venv", "-q", str(folder), "--python", sys.executable], check=True)
        python = str(folder / "bin" / "python")
        subprocess.run(["uv", "pip", "install", "-q", "--python", python, "avalanche-lib==0.6.0"], check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        print(f"without Avalanche: {error}", file=sys.stderr)
        return None
    return python


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="256 images, one round")
    parser.add_argument("--images", type=int, default=2560)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--network", default="resnet32")
    parser.add_argument("--compile", action="store_true", help="the compiled rows as well")
    parser.add_argument("--avalanche", help="a Python that has avalanche-lib; 'none' leaves it out")
    chosen = parser.parse_args()
    count, rounds = (256, 1) if chosen.short else (chosen.images, chosen.rounds)
    size, network = chosen.batch_size, chosen.network
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    images, steps = photos(count), max(1, count // size)
    best: Precision = "bf16" if has_bf16(device.type) else "fp32"
    contenders: dict[str, Contender] = {}
    for compile in (False, True)[: 1 + chosen.compile]:
        end = " compiled" if compile else ""
        for precision in dict.fromkeys(("fp32", best)):
            variant = f"{precision}-cl" + "-compile" * compile
            contenders[f"bare {precision}{end}"] = turn(stepper(variant, size, device, network), steps, size, device)
            contenders[f"ours {precision}{end}"] = ours(images, network, size, precision, compile, device)
    with tempfile.TemporaryDirectory() as folder:
        python = chosen.avalanche or environment(Path(folder, "avalanche"))
        versions: dict[str, str] = {}
        against = ["bare fp32", f"bare {best}"]
        if python and python != "none":
            tuned = {}
            for workers in (0, 1, 2):
                with avalanche(python, images, network, size, workers) as (turn_of, versions):
                    tuned[workers] = max(turn_of() for _ in range(1 if chosen.short else 3))
            fastest = max(tuned, key=lambda workers: tuned[workers])
            with avalanche(python, images, network, size, fastest) as (contenders["avalanche"], versions):
                found = rates(contenders, rounds)
            against.append("avalanche")
            versions["workers"] = str(fastest)
        else:
            found = rates(contenders, rounds)
    what = f"images a second, fine-tuning CIFAR {network}, batch {size}, crop and flip, epochs of {count} images"
    tell(None if chosen.short else "speed", what, found, list(dict.fromkeys(against)), avalanche=versions)


if __name__ == "__main__":
    main()
