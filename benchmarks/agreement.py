"""Accuracies of our fine-tuning, LwF and EWC beside Avalanche 0.6's: same images, network, batch, rate, epochs.

    python benchmarks/agreement.py --avalanche PYTHON [--seeds 0 1 2] [--epochs 6]

Five classes of CIFAR-10, then five more. Nothing of the first five is shown again, so they win no test image afterwards;
what each method kept of them shows among themselves. Compared are Avalanche with a head that grows by rows at random
(``IncrementalClassifier``), ours with rows that start the same way, and ours as it is, whose new rows start level with the
old ones (fine-tuning and LwF). EWC has a strength of 0.1: Avalanche squares the mean gradient of a batch, which is no Fisher
information where that mean is not zero, so that the same strength is a larger force; at 1 it ended, in one
run, with a network that says one class. Each finished cell is kept in ``results/agreement.json``, and not run again.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import torch
from record import RESULTS, write
from rival import Job, job, worker
from speed import before, method, stream
from torch import nn

from classgraft.data.images import Task
from classgraft.models.classifier import Classifier, feature_width
from classgraft.training.answers import answers
from classgraft.training.engine import engine
from classgraft.training.hardware import has_bf16

METHODS = ("finetune", "lwf", "ewc")
SIDES = ("avalanche", "ours, rows at random", "ours")


def at_random(model: Classifier, task: Task) -> Classifier:
    """Grown by rows as PyTorch's linear layer starts."""
    names = model.unknown(task.classes)
    layer = nn.Linear(feature_width(model), len(names))
    return model.grown(names, layer.weight, layer.bias)


def ours(name: str, work: Job, epochs: int, seed: int) -> dict[str, float]:
    with engine(precision="bf16" if has_bf16("cpu") else "fp32", compile=False):
        model, memory = before(name, work, epochs, seed, torch.device("cpu"))
        grown = method(name, work, epochs, seed).extend(model, memory, stream(work)[-1])
    test = work.test.of(grown.classes)
    logits, olds = answers(grown, test), len(model.classes)
    old = test.labels < olds
    right = logits.argmax(1) == test.labels
    among = logits[old, :olds].argmax(1) == test.labels[old]
    parts = {"old": right[old], "new": right[~old], "all": right, "old among old": among}
    return {part: float(hits.double().mean()) for part, hits in parts.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--avalanche", required=True, help="a Python that has avalanche-lib")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=6)
    parser.add_argument("--images", type=int, default=4000)
    parser.add_argument("--lr", type=float, default=0.01)
    chosen = parser.parse_args()
    work = replace(job(chosen.images), lr=chosen.lr, strength=0.1, grows=True)
    path = RESULTS / "agreement.json"
    cells: list[dict[str, Any]] = json.loads(path.read_text())["cells"] if path.exists() else []
    for seed in chosen.seeds:
        for name in METHODS:
            for side in SIDES:
                there = any((c["side"], c["method"], c["seed"]) == (side, name, seed) for c in cells)
                if there or (side, name) == ("ours", "ewc"):
                    continue
                if side == "ours":
                    found = ours(name, work, chosen.epochs, seed)
                elif side != "avalanche":
                    torch.manual_seed(seed)
                    with patch(f"classgraft.extenders.{name}.begun", at_random):
                        found = ours(name, work, chosen.epochs, seed)
                else:
                    numbers = {"seed": seed, "first_epochs": chosen.epochs, "epochs": chosen.epochs}
                    with worker(chosen.avalanche, work, name, 0, **numbers) as one:
                        for _ in range(chosen.epochs):
                            one.epoch()
                        found = one.accuracies()
                print(side, name, seed, found, flush=True)
                cells.append({"side": side, "method": name, "seed": seed, **found})
                write(
                    "agreement",
                    f"CIFAR {work.network}, {chosen.images} images of CIFAR-10, five classes then five, {chosen.epochs} epochs"
                    f" each, SGD {work.lr}, batch {work.batch_size}",
                    n={"test": len(work.test), "seeds": len(chosen.seeds)},
                    cells=cells,
                )


if __name__ == "__main__":
    main()
