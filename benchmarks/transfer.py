"""A trained body on other classes: from scratch, its features, fine-tuning, and the head first (LP-FT).

    python benchmarks/transfer.py                # hours on one core
    python benchmarks/transfer.py --seeds 0
    python benchmarks/transfer.py --short        # does it run at all

CIFAR-10 (JPEG) at 32 pixels, ResNet-20. Each seed draws five of the ten classes, on whose 500 images each a body is trained;
the other five are learnt from 20, 100 or 500 images each, with the same number of steps in every way. The rate of each way
at each number of images is chosen on a fifth of the labelled images, held out; the test images play no part. A cell that is
in the results is not run again, and trained bodies are kept under ``benchmarks/runs/transfer``.
"""

from __future__ import annotations

import argparse
import json
import time
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from record import RESULTS, data, write

from classgraft import api, teaching
from classgraft.bundle import Bundle
from classgraft.data.images import Images
from classgraft.data.sources import open_source
from classgraft.models.classifier import Classifier
from classgraft.models.sources import CIFAR
from classgraft.trainers.plain import Plain
from classgraft.training.answers import answers, forget
from classgraft.training.engine import device, part_of
from classgraft.training.recipe import Recipe

NET, BATCH = "cifar:resnet20", 64
WAYS = {"from scratch": 0.0, "feature extraction": 1.0, "fine-tuning": 0.0, "LP-FT": 0.5}
"""Share of the epochs in which the head learns alone; all but the first start from the trained body."""
STEPS = {20: 600, 100: 1500, 500: 4000}
"""By images a class."""
CHOOSING = {20: (0, 1, 2), 100: (0,), 500: (0,)}
"""Seeds whose held-out images choose the rate: 60 images at least."""
RATES = (0.003, 0.01, 0.03, 0.1)
RUNS = Path(__file__).parent / "runs" / "transfer"


@cache
def cifar(part: str) -> Images:
    return api.images_of(open_source(data() / "cifar10" / f"{part}.parquet"), CIFAR)


def drawn(seed: int) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The classes that the body is trained on, and the others."""
    names = cifar("train").classes
    order = np.random.default_rng(seed).permutation(len(names))
    return tuple(names[k] for k in sorted(order[:5])), tuple(names[k] for k in sorted(order[5:]))


@cache
def base(seed: int, short: bool) -> Bundle:
    """The body, under the head of its own classes."""
    own, _ = drawn(seed)
    if not short and (RUNS / str(seed)).exists():
        bundle = api.load(RUNS / str(seed))
        bundle.model.to(device())
        return bundle
    bundle = teaching.start(NET, own, seed=seed)
    bundle.model.to(device())
    images = cifar("train").of(own)
    recipe = {"epochs": 1 if short else 60, "batch_size": BATCH, "seed": seed}
    bundle = api.train(bundle, images.shots(4, 0) if short else images, settings=recipe)
    if not short:
        api.save(bundle, RUNS / str(seed))
    return bundle


def taught(way: str, images: Images, rate: float, seed: int, steps: int, short: bool) -> Classifier:
    fresh = teaching.start(NET, images.classes, seed=seed).model.to(device())
    start = fresh if way == "from scratch" else base(seed, short).model.headed(fresh.head.parts, images.classes)
    epochs = max(2, round(steps / -(-len(images) // BATCH)))
    recipe = Recipe(epochs, BATCH, lr=rate, milestones=(), seed=seed)
    with part_of(steps * BATCH):  # one arithmetic for every way
        return Plain(linear_probe=WAYS[way], recipe=recipe).train(start, images)


def right(model: Classifier, images: Images) -> float:
    return 100 * float((answers(model, images).argmax(1).cpu() == images.labels).double().mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--short", action="store_true", help="few images and steps, nothing is written")
    given = parser.parse_args()
    path = RESULTS / "transfer.json"
    kept = json.loads(path.read_text("utf-8")) if path.exists() and not given.short else {}
    rows, tried = kept.get("rows", []), kept.get("tried", [])
    seeds = [int(word) for word in given.seeds.split(",")][: 1 if given.short else None]
    sizes, rates = ((4,), RATES[:2]) if given.short else (tuple(STEPS), RATES)
    test = cifar("test").shots(4, 0) if given.short else cifar("test")

    def save() -> None:
        if not given.short:
            n = {"test images a seed": len(test) // 2, "body": len(cifar("train")) // 2}
            write("transfer", __doc__.split("\n\n")[2].replace("\n", " "), n=n, rows=rows, tried=tried)

    for shots in sizes:
        steps = STEPS.get(shots, 2)
        for way in WAYS:
            todo = [seed for seed in seeds if not found(rows, way=way, shots=shots, seed=seed)]
            for seed in CHOOSING.get(shots, (0,)) if todo else ():
                learnt, held = cifar("train").of(drawn(seed)[1]).shots(shots, seed).split(0.2, seed)
                for rate in rates:
                    if not found(tried, way=way, shots=shots, seed=seed, rate=rate):
                        model = taught(way, learnt, rate, seed, steps, given.short)
                        tried.append(
                            {"way": way, "shots": shots, "seed": seed, "rate": rate, "held": right(model, held)}
                        )
                        forget()
                        save()
            for seed in todo:
                sums = {rate: sum(t["held"] for t in found(tried, way=way, shots=shots, rate=rate)) for rate in rates}
                best, started = max(sums, key=lambda rate: sums[rate]), time.perf_counter()
                own, others = drawn(seed)
                model = taught(way, cifar("train").of(others).shots(shots, seed), best, seed, steps, given.short)
                seconds = time.perf_counter() - started
                row = {"way": way, "shots": shots, "seed": seed, "rate": best, "classes": others, "seconds": seconds}
                row |= {
                    "accuracy": right(model, test.of(others)),
                    "body": right(base(seed, given.short).model, test.of(own)),
                }
                rows.append(row)
                print(row, flush=True)
                forget()
                save()


def found(lines: list[dict[str, Any]], **wanted: Any) -> list[dict[str, Any]]:
    """The lines that have all of these."""
    return [line for line in lines if all(line[key] == value for key, value in wanted.items())]


if __name__ == "__main__":
    main()
