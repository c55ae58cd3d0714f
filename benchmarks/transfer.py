"""A trained body on other classes: from scratch, its features, fine-tuning, and the head first (LP-FT).

    python benchmarks/transfer.py                # some three hours of a core, reckoned
    python benchmarks/transfer.py --shots 500    # half of it
    python benchmarks/transfer.py --short        # does it run at all

CIFAR-10 (JPEG) at 32 pixels, ResNet-8. Each seed draws five of the ten classes, on whose 500 images each a body is trained;
the other five are learnt from 20, 100 or 500 images each, with the same number of steps in every way. The rate of each way
at each number of images is chosen on a fifth of the labelled images, held out (at 500 with 1,500 steps in place of 4,000); the
test images play no part. The first half of LP-FT, in which the head learns alone, has the rate that was chosen for feature
extraction, and its second half one of its own.

``Plain`` has one rate for both halves of LP-FT; here it is called once for each, which with one rate comes to the same bits. A
cell that is in the results is not run again, and trained bodies are kept under ``benchmarks/runs/transfer``.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from record import RESULTS, add, data

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

NET, BATCH = "cifar:resnet8", 64
WAYS = {"from scratch": 0.0, "feature extraction": 1.0, "fine-tuning": 0.0, "LP-FT": 0.5}
"""Share of the epochs in which the head learns alone; all but the first start from the trained body."""
STEPS = {20: 600, 100: 1500, 500: 4000}
"""By images a class."""
FEWER = 1500
"""Steps at most while a rate is chosen."""
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
    bundle = teaching.train(bundle, images.shots(4, 0) if short else images, settings=recipe)
    if not short:
        api.save(bundle, RUNS / str(seed))
    return bundle


def taught(way: str, images: Images, rates: tuple[float, float], seed: int, steps: int, short: bool) -> Classifier:
    """``rates`` are those of the head alone and of everything."""
    fresh = teaching.start(NET, images.classes, seed=seed).model.to(device())
    model = fresh if way == "from scratch" else base(seed, short).model.headed(fresh.head.parts, images.classes)
    epochs = max(2, round(steps / -(-len(images) // BATCH)))
    first = round(WAYS[way] * epochs)
    recipe = Recipe(epochs, BATCH, milestones=(), seed=seed)
    with part_of(steps * BATCH):  # one arithmetic for every way
        if first:
            model = Plain(linear_probe=1.0, recipe=replace(recipe, epochs=first, lr=rates[0])).train(model, images)
        if first < epochs:
            model = Plain(recipe=replace(recipe, epochs=epochs - first, lr=rates[1])).train(model, images)
    return model


def right(model: Classifier, images: Images) -> float:
    return 100 * float((answers(model, images).argmax(1).cpu() == images.labels).double().mean())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--shots", default=",".join(map(str, STEPS)), help="images a class")
    parser.add_argument("--short", action="store_true", help="few images and steps, nothing is written")
    given = parser.parse_args()
    path = RESULTS / "transfer.json"
    short = given.short
    seeds = [int(word) for word in given.seeds.split(",")][: 1 if short else None]
    test = cifar("test").shots(4, 0) if short else cifar("test")
    n = {"test images a seed": len(test) // 2, "body": len(cifar("train")) // 2}
    done: dict[str, list[dict[str, Any]]] = {"rows": [], "tried": []}

    def lines(kind: str, **wanted: Any) -> list[dict[str, Any]]:
        """Those of the file, which another process may fill too, that have all of these."""
        there = json.loads(path.read_text("utf-8")) if path.exists() and not short else done
        return found(there[kind], **wanted)

    def save(kind: str, line: dict[str, Any]) -> None:
        print(line, flush=True)
        done[kind].append(line)
        forget()
        if not short:
            row = [line] if kind == "rows" else []
            tried = [line] if kind == "tried" else []
            add(
                "transfer",
                " ".join(__doc__.split("\n\n")[2].split()),
                row,
                same=("way", "shots", "seed") if row else (),
                n=n,
                tried=tried,
            )

    def chosen(way: str, shots: int, steps: int, head: float) -> float:
        """The rate that is best on held-out images; what is missing is tried."""
        sums = dict.fromkeys(RATES[:2] if short else RATES, 0.0)
        for seed in CHOOSING.get(shots, (0,)):
            learnt, held = cifar("train").of(drawn(seed)[1]).shots(shots, seed).split(0.2, seed)
            for rate in sums:
                cell = {"way": way, "shots": shots, "seed": seed, "rate": rate}
                if not lines("tried", **cell):
                    rates = (head or rate, rate)
                    model = taught(way, learnt, rates, seed, min(steps, FEWER), short)
                    save("tried", {**cell, "head": rates[0], "held": right(model, held)})
                sums[rate] += lines("tried", **cell)[-1]["held"]
        return max(sums, key=lambda rate: sums[rate])

    for shots in [4] if short else [int(word) for word in given.shots.split(",")]:
        steps = STEPS.get(shots, 2)
        for way in WAYS:
            for seed in seeds:
                if lines("rows", way=way, shots=shots, seed=seed):
                    continue
                head = chosen("feature extraction", shots, steps, 0.0) if way == "LP-FT" else 0.0
                rate = chosen(way, shots, steps, head)
                own, others = drawn(seed)
                started, rates = time.perf_counter(), (head or rate, rate)
                model = taught(way, cifar("train").of(others).shots(shots, seed), rates, seed, steps, short)
                seconds = time.perf_counter() - started
                row = {"way": way, "shots": shots, "seed": seed, "rate": rate, "head": rates[0], "classes": others}
                row |= {
                    "seconds": seconds,
                    "accuracy": right(model, test.of(others)),
                    "body": right(base(seed, short).model, test.of(own)),
                }
                save("rows", row)


def found(lines: list[dict[str, Any]], **wanted: Any) -> list[dict[str, Any]]:
    """The lines that have all of these."""
    return [line for line in lines if all(line[key] == value for key, value in wanted.items())]


if __name__ == "__main__":
    main()
