"""Avalanche 0.6 beside classgraft: the same images, network, batch and augmentation, in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from record import data

from classgraft.data.images import Images
from classgraft.data.sources import open_source
from classgraft.data.streaming import load_within
from classgraft.models import cifar_resnet
from classgraft.models.preparation import Preparation

PREPARATION = Preparation(32, 32, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
ENDLESS = 10_000
METHODS = ("finetune", "lwf", "ewc")


@dataclass(frozen=True)
class Job:
    """A stream of experiences of equally many classes; the last one is what is measured."""

    train: Images
    test: Images
    experiences: int = 2
    network: str = "resnet32"
    batch_size: int = 128
    lr: float = 0.05
    strength: float = 100.0
    """Of EWC, as ours counts it."""
    grows: bool = False
    """Whether the rival's head gets its rows as classes come; else it has them all from the start, which is cheaper."""


def job(count: int, **settings: Any) -> Job:
    """``count`` images of CIFAR-10 where the data is at hand, else noise of the same shape."""
    parts: list[Images] = []
    for part, most in (("train", count), ("test", 2000)):
        path = data() / "cifar10" / f"{part}.parquet"
        if path.exists():
            source = open_source(path)
            loaded = load_within(source, 32)
            found = Images(loaded.pixels, loaded.labels, source.classes, PREPARATION)
            parts.append(found.subset(torch.randperm(len(found), generator=torch.Generator().manual_seed(0))[:most]))
        else:
            pixels = torch.randint(0, 256, (most, 3, 32, 32), dtype=torch.uint8)
            parts.append(Images(pixels, torch.arange(most) % 10, tuple("abcdefghij"), PREPARATION))
    train, test = parts
    return Job(train, test, **settings)


class Worker:
    """A running process; ``epoch`` takes one on the last experience."""

    def __init__(self, child: subprocess.Popen[str]) -> None:
        assert child.stdin
        assert child.stdout
        self.talk, self.hear = child.stdin, child.stdout
        header = json.loads(self.hear.readline())
        self.versions: dict[str, str] = header["versions"]
        self.fisher: list[float] = header["fisher"]
        """Images a second."""

    def epoch(self) -> float:
        """Seconds."""
        self.talk.write("\n")
        self.talk.flush()
        return float(self.hear.readline())

    def accuracies(self) -> dict[str, float]:
        """After the last of the epochs that were announced."""
        return json.loads(self.hear.readline())  # type: ignore[no-any-return]


@contextmanager
def worker(
    python: str, job: Job, method: str, workers: int, *, seed: int = 0, first_epochs: int = 1, epochs: int = ENDLESS
) -> Iterator[Worker]:
    """A process that has learnt all experiences but the last."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "images.pt")
        preparation = job.train.preparation
        torch.save(
            {"pixels": job.train.pixels, "labels": job.train.labels, "classes": len(job.train.classes),
             "test": job.test.pixels, "test labels": job.test.labels, "mean": preparation.mean,
             "std": preparation.std, "lr": job.lr, "strength": job.strength,
             "experiences": job.experiences, "grows": job.grows}, path,
        )  # fmt: skip
        numbers = map(str, (job.batch_size, workers, seed, first_epochs, epochs))
        script = str(Path(__file__).with_name("avalanche_worker.py"))
        command = [python, script, str(path), method, job.network, *numbers, str(cifar_resnet.__file__)]
        child = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
        )
        try:
            yield Worker(child)
        finally:
            child.kill()
            child.wait()


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
