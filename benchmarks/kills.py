"""Kill a training run of two phases at random instants, again and again, and compare what comes out in the end.

    python benchmarks/kills.py [--kills 200] [--seed 0]
    python benchmarks/kills.py --short                     # three kills, nothing is written

Each trial starts the run in a fresh folder, kills it (SIGKILL) at a random instant, starts the same again, kills it
again with probability one half and so on, and lets the last one finish. Weights and ``metrics.jsonl`` must be those of
the run that nobody killed, bit for bit. Exit code 1 if any differs.
"""

from __future__ import annotations

import argparse
import importlib
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from record import write
from torch import nn

from classgraft.data.images import Images
from classgraft.models.classifier import Classifier, Head
from classgraft.models.preparation import Preparation
from classgraft.training.carries import digest
from classgraft.training.engine import engine
from classgraft.training.journal import keeping
from classgraft.training.loop import Batch, Epochs, Terms, descend, fit, run
from classgraft.training.recipe import Recipe


def job(folder: Path) -> str:
    """Two phases with dropout, so that the random state counts; the hash of all weights and both histories."""
    torch.manual_seed(0)
    body = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.3), nn.AdaptiveAvgPool2d(1), nn.Flatten()
    )
    model = Classifier(body, Head([nn.Linear(8, 3)]), "abc")
    pixels = torch.randint(0, 256, (150, 3, 12, 12), dtype=torch.uint8)
    images = Images(pixels, torch.arange(150) % 3, ("a", "b", "c"), Preparation(12, 12))

    def objective(batch: Batch) -> Terms:
        return {"class": F.cross_entropy(model(batch.images), batch.targets)}

    with engine(precision="bf16"), keeping(folder, every=0.01):
        first = fit(model, objective, images, Recipe(epochs=6, batch_size=16), "first")
        model.train()
        recipe = Recipe(epochs=4, batch_size=32, optimiser="adamw", lr=1e-3, seed=1)
        second = run(descend(objective, [model], recipe), Epochs(images, recipe, torch.device("cpu")), recipe, "second")
    return digest(model, first.epochs, second.epochs, (folder / "metrics.jsonl").read_text())


def started(folder: Path) -> int:
    """The job in a process of its own, which has torch loaded already; its result goes to a file."""
    child = os.fork()
    if child == 0:
        try:
            (folder / "result").write_text(job(folder))
        finally:
            os._exit(0)
    return child


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--short", action="store_true", help="three kills, nothing is written")
    chosen = parser.parse_args()
    most = 3 if chosen.short else chosen.kills
    torch.set_num_threads(1)  # threads do not survive a fork
    importlib.import_module("torch._dynamo")  # else every child loads it at its optimiser's first step
    luck = random.Random(chosen.seed)
    with tempfile.TemporaryDirectory() as name:
        unbroken = Path(name, "unbroken")
        unbroken.mkdir()
        begun = time.perf_counter()
        os.waitpid(started(unbroken), 0)
        whole = time.perf_counter() - begun
        wanted = (unbroken / "result").read_text()
        kills = same = trials = 0
        while kills < most:
            folder = Path(name, str(trials))
            folder.mkdir()
            again = True
            while again and kills < most:
                child = started(folder)
                time.sleep(luck.uniform(0, whole))
                os.kill(child, signal.SIGKILL)
                os.waitpid(child, 0)
                kills, again = kills + 1, luck.random() < 0.5
            (folder / "result").unlink(missing_ok=True)
            os.waitpid(started(folder), 0)
            result = folder / "result"
            same += result.exists() and result.read_text() == wanted
            trials += 1
    if not chosen.short:
        write(
            "kills",
            "A run of two phases, killed (SIGKILL) at random instants and started again",
            n=trials,
            kills=kills,
            trials=trials,
            same=same,
            seconds=whole,
            seed=chosen.seed,
        )
    print(f"{kills} kills in {trials} runs of {whole:.1f} s: {same} of {trials} ended as the unbroken one, bit for bit")
    sys.exit(same != trials)


if __name__ == "__main__":
    main()
