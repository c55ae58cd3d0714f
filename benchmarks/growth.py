"""How time and memory grow with images, classes and tasks.

    python benchmarks/growth.py

Each row runs in a process of its own, so that the peak of its memory is its own: an epoch of fine-tuning a CIFAR
ResNet-20 on more and more images; ``glne`` and an epoch of ``finetune`` beside more and more classes; streams of more
and more tasks of one class each under LwF and EWC, whose exact Fisher information has a gradient for each class of each
image: that is quadratic by definition. The exponent is the slope of seconds over size in logarithms between the two largest
sizes: 1 is linear, 2 quadratic. A row that is in the results is not run again.
"""

from __future__ import annotations

import json
import math
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from record import RESULTS, write
from torch import Tensor, nn

from classgraft.catalogue import extender
from classgraft.data.images import Images, Task
from classgraft.models.cifar_resnet import build
from classgraft.models.classifier import Classifier, Head
from classgraft.models.preparation import Preparation

SMALL = {"epochs": 1, "batch_size": 128, "lr": 0.01, "optimiser": "sgd"}


def noise(count: int, classes: tuple[str, ...], side: int = 32) -> Images:
    pixels = torch.randint(
        0, 256, (count, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(0)
    )
    return Images(pixels, torch.arange(count) % len(classes), classes, Preparation(side, side))


def names(count: int, first: int = 0) -> tuple[str, ...]:
    return tuple(f"class {k}" for k in range(first, first + count))


class Mean(nn.Module):
    """Features (B, 192) without arithmetic to speak of, so that everything else shows."""

    num_features = 192

    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(192))

    def forward(self, images: Tensor) -> Tensor:
        return nn.functional.adaptive_avg_pool2d(images, 8).flatten(1) * self.scale


def by_images(count: int) -> Callable[[], object]:
    body = build("resnet20", 10)
    body.linear = nn.Identity()  # type: ignore[assignment]
    task = Task(names(10), noise(count, names(10)))
    return lambda: extender("finetune", SMALL).extend(Classifier(body, Head(), ()), None, task)


def by_classes(method: str) -> Callable[[int], Callable[[], object]]:
    def prepared(count: int) -> Callable[[], object]:
        torch.manual_seed(0)
        model = Classifier(Mean(), Head([nn.Linear(192, count)]), names(count)).eval()
        task = Task(names(10, count), noise(500, names(10, count)))
        return lambda: extender(method, SMALL if method == "finetune" else {}).extend(model, None, task)

    return prepared


def by_tasks(method: str, **settings: object) -> Callable[[int], Callable[[], object]]:
    def prepared(count: int) -> Callable[[], object]:
        tasks = [Task(names(1, k), noise(64, names(1, k))) for k in range(count)]

        def run() -> object:
            torch.manual_seed(0)
            model, memory, learner = Classifier(Mean(), Head(), ()), None, extender(method, {**SMALL, **settings})
            for task in tasks:
                model = learner.extend(model, memory, task)
                memory = learner.remember(model, task, memory)
            return model

        return run

    return prepared


ROWS: dict[str, tuple[str, Callable[[int], Callable[[], object]], tuple[int, ...]]] = {
    "finetune, an epoch": ("images", by_images, (1000, 2000, 4000, 8000)),
    "glne, ten new classes": ("old classes", by_classes("glne"), (100, 1000, 10_000, 30_000)),
    "finetune, ten new classes": ("old classes", by_classes("finetune"), (100, 1000, 10_000, 30_000)),
    "lwf, the whole stream": ("tasks", by_tasks("lwf"), (5, 10, 20, 40, 80)),
    "ewc, sampled Fisher information, the whole stream": (
        "tasks",
        by_tasks("ewc", fisher="sampled"),
        (5, 10, 20, 40, 80),
    ),
    "ewc, exact Fisher information, the whole stream": ("tasks", by_tasks("ewc"), (5, 10, 20, 40)),
}


def one(row: str, size: int) -> None:
    """Seconds and bytes of one run, as a line of JSON; what a first call loads is loaded before."""
    _, prepared, sizes = ROWS[row]
    prepared(sizes[0])()
    run = prepared(size)
    Path("/proc/self/clear_refs").write_text("5")  # the peak counts from here on
    before = peak()
    started = time.perf_counter()
    run()
    print(json.dumps({"seconds": time.perf_counter() - started, "more bytes": peak() - before}))


def peak() -> int:
    """The most memory that this process has had, in bytes (Linux)."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return 1024 * int(line.split()[1])


def main() -> None:
    if len(sys.argv) == 3:
        one(sys.argv[1], int(sys.argv[2]))
        return
    path = RESULTS / "growth.json"
    rows = json.loads(path.read_text())["rows"] if path.exists() else []
    for row, (of, _, sizes) in ROWS.items():
        if any(one["row"] == row for one in rows):
            continue
        points = []
        for size in sizes:
            runs = [
                json.loads(
                    subprocess.run([sys.executable, __file__, row, str(size)], check=True, capture_output=True).stdout
                )
                for _ in range(2)
            ]
            points.append({"size": size, **min(runs, key=lambda run: run["seconds"])})
            print(row, points[-1], flush=True)
        (a, b) = points[-2:]
        exponent = math.log(b["seconds"] / a["seconds"]) / math.log(b["size"] / a["size"])
        rows.append({"row": row, "of": of, "points": points, "exponent": exponent})
        write(
            "growth", "seconds and peak memory over images, classes and tasks; the faster of two runs", rows=rows, n=2
        )


if __name__ == "__main__":
    main()
