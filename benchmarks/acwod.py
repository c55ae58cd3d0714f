"""Strategies of adaptation against the share of original classes: which epsilon is best, and is it linear?

    python benchmarks/acwod.py FOLDER            everything, in about half an hour on two cores with bf16
    python benchmarks/acwod.py FOLDER --smoke    the same path in a minute, on a few images; nothing is recorded

Tiny-ImageNet-100 at 32 pixels, a ResNet-20 trained here on the first 10 / 30 / 50 / 70 / 90 classes of a fixed order and
extended with the others, without an old image. A tenth of train is held out; epsilon is chosen on it, by the accuracy over
all classes, and the chosen ones are trained again with other seeds and measured on test. Every extension looks at about as
many images, joint training at ten times as many. FOLDER keeps the base networks and a line for each finished cell: the same
command again goes on.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
from record import data, write

from classgraft import api, catalogue, teaching
from classgraft.bundle import Bundle
from classgraft.data.images import Images, Task
from classgraft.data.sources import open_source
from classgraft.metrics.classification import evaluation
from classgraft.models.classifier import Classifier
from classgraft.models.cut import cut
from classgraft.models.preparation import Preparation
from classgraft.models.sources import Architecture
from classgraft.training.answers import answers, forget
from classgraft.training.engine import device, engine
from classgraft.training.hardware import has_bf16

SHARES = (10, 30, 50, 70, 90)
"""Per cent of the hundred classes that the original network knows."""
LAYERS = ("all", "last-block", "adapter", "head")
EPSILONS = (0.0, 0.1, 0.2, 0.35, 0.6, 0.85)
PHOTOS = 50
"""Of each new class; joint training sees as many of each old one."""
SEEDS = (1,)
"""Of what is measured on test; epsilon is chosen at seed 0."""
LEARN: dict[str, Any] = {"optimiser": "adamw", "lr": 1e-3, "weight_decay": 0.01, "batch_size": 64, "milestones": ()}
BASE: dict[str, Any] = {"lr": 0.1, "weight_decay": 5e-4, "batch_size": 128, "milestones": ()}


class Bench:
    """The images, the folder, and how much is to be looked at."""

    def __init__(self, folder: Path, smoke: bool) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.cells, self.folder = folder / "cells.jsonl", folder
        self.base_looks, self.looks, self.most = (2_000, 1_000, 2) if smoke else (80_000, 4_000, 60)
        self.shares: tuple[int, ...] = (90,) if smoke else SHARES
        self.epsilons: tuple[float, ...] = (0.0, 0.3) if smoke else EPSILONS
        tiny = data() / "tinyimagenet100"
        train, test = (
            api.images_of(open_source(tiny / f"{p}.parquet"), Preparation(32, 32)) for p in ("train", "test")
        )
        order = np.random.RandomState(1993).permutation(len(train.classes))
        self.classes = tuple(train.classes[k] for k in order)
        self.learn, self.held = train.of(self.classes).split(0.1, 0)
        self.test = test.of(self.classes)
        if smoke:
            self.learn, self.held, self.test = self.learn.shots(10, 0), self.held.shots(2, 0), self.test.shots(2, 0)

    def base(self, share: int) -> Classifier:
        """The original network, trained or read."""
        place, names = self.folder / f"base-{share}", self.classes[:share]
        if not place.is_dir():
            images, architecture = self.learn.of(names), Architecture("cifar:resnet20")
            with torch.random.fork_rng(devices=[]):
                torch.manual_seed(0)
                model = cut(architecture.build(share), names, "linear").to(device())
            bundle = Bundle(model, architecture, "linear", images.preparation)
            settings = {**BASE, "epochs": self.epochs(len(images), self.base_looks)}
            api.save(teaching.train(bundle, images, settings=settings), place)
        return api.load(place).model.to(device())

    def epochs(self, images: int, looks: int) -> int:
        return min(self.most, max(1, round(looks / images)))

    def cell(self, share: int, method: str, seed: int, part: str, settings: dict[str, Any]) -> dict[str, Any]:
        """One extension, measured on a part."""
        model, new = self.base(share), self.classes[share:]
        photos = self.learn.of(new).shots(PHOTOS, seed)
        recipe = {} if method == "imprint" else {**LEARN, "epochs": self.epochs(len(photos), self.looks), "seed": seed}
        memory = None
        if method == "joint":
            memory = catalogue.extender("joint").remember(
                model, Task(model.classes, self.learn.of(model.classes).shots(PHOTOS, seed)), None
            )
            recipe["epochs"] = self.epochs(PHOTOS * len(self.classes), 10 * self.looks)
        started = time.perf_counter()
        grown = catalogue.extender(method, {**recipe, **settings}).extend(model, memory, Task(new, photos))
        seconds = time.perf_counter() - started
        forget()
        return {"seconds": seconds, **measured(grown, getattr(self, part), new)}

    def plan(self) -> Iterator[tuple[int, str, int, str, dict[str, Any]]]:
        """All cells, in order; those measured on test follow from the ones before."""
        for share in self.shares:
            for layers in LAYERS:
                for epsilon in self.epsilons:
                    yield share, "acwod", 0, "held", {"layers": layers, "epsilon": epsilon}
        for share in self.shares:
            for seed in SEEDS:
                for layers in LAYERS:
                    chosen = best([row for row in self.done().values() if row["part"] == "held"], share, layers)
                    yield share, "acwod", seed, "test", {"layers": layers, "epsilon": chosen["epsilon"]}
                for method in ("finetune", "joint", "imprint"):
                    yield share, method, seed, "test", {}

    def done(self) -> dict[str, dict[str, Any]]:
        lines = self.cells.read_text("utf-8").splitlines() if self.cells.exists() else []
        rows = [json.loads(line) for line in lines if line.endswith("}")]  # a kill may have cut the last one short
        return {row["key"]: row for row in rows}

    def run(self) -> list[dict[str, Any]]:
        done, spent, count = self.done(), 0.0, 0
        cells = len(self.shares) * (len(LAYERS) * (len(self.epsilons) + len(SEEDS)) + 3 * len(SEEDS))
        started = time.perf_counter()
        for share in self.shares:
            self.base(share)
        print(f"base networks: {time.perf_counter() - started:.0f} s; {cells - len(done)} cells to do", flush=True)
        for share, method, seed, part, settings in self.plan():
            key = json.dumps([share, method, seed, part, settings])
            if key in done:
                continue
            started = time.perf_counter()
            asked = {"share": share, "method": method, "seed": seed, "part": part, **settings}
            done[key] = {"key": key, **asked, **self.cell(share, method, seed, part, settings)}
            with self.cells.open("a", encoding="utf-8") as file:
                file.write(json.dumps(done[key]) + "\n")
            spent, count = spent + time.perf_counter() - started, count + 1
            left = spent / count * (cells - len(done)) / 60
            shown = " ".join(f"{name} {100 * done[key][name]:.1f}" for name in ("old", "new", "all"))
            print(f"{len(done)}/{cells} {asked} {shown}; about {left:.0f} min left", flush=True)
        return [{name: value for name, value in row.items() if name != "key"} for row in done.values()]


def measured(model: Classifier, images: Images, new: tuple[str, ...]) -> dict[str, Any]:
    images = images.of(model.classes)
    added = [model.classes.index(name) for name in new]
    summary = evaluation(answers(model, images), images.labels, model.classes, added).summary()
    forget()
    return {name: summary[name] for name in ("old", "new", "harmonic", "all")}


def best(rows: list[dict[str, Any]], share: int, layers: str, by: str = "all") -> dict[str, Any]:
    """The cell of the best epsilon on the held-out images; of equals, the smallest."""
    mine = [row for row in rows if row["share"] == share and row.get("layers") == layers]
    return max(sorted(mine, key=lambda row: row["epsilon"]), key=lambda row: row[by])


def line(x: list[float], y: list[float]) -> dict[str, float]:
    """Least squares: intercept, slope and R squared; and the slope of the line through zero, which is the rule's."""
    over, value = np.asarray(x), np.asarray(y)
    slope, intercept = np.polyfit(over, value, 1) if len(x) > 1 else (0.0, value.mean())
    left, whole = np.square(value - intercept - slope * over).sum(), np.square(value - value.mean()).sum()
    rule = float(over @ value / (over @ over))
    return {
        "intercept": float(intercept),
        "slope": float(slope),
        "r2": float(1 - left / whole) if whole else 1.0,
        "rule": rule,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--smoke", action="store_true")
    options = parser.parse_args()
    with engine(precision="bf16" if has_bf16(device().type) else "fp32"):
        bench = Bench(options.folder, options.smoke)
        rows = bench.run()
    held = [row for row in rows if row["part"] == "held"]
    shares = list(bench.shares)
    fits = {}
    for by in ("all", "harmonic"):
        for layers in LAYERS:
            chosen = [best(held, share, layers, by)["epsilon"] for share in shares]
            found = line([share / 100 for share in shares], chosen)
            fits[f"{layers}, by {by}"] = {"shares": shares, "epsilons": chosen, **found}
            print(f"{layers}, by {by}: {chosen} {found}")
    if options.smoke:
        return
    write(
        "acwod",
        "adaptation strategies against the share of original classes, Tiny-ImageNet-100 at 32 pixels, cifar:resnet20",
        n={"held": len(bench.held), "test": len(bench.test), "photos a class": PHOTOS, "base a class": 225},
        learn=LEARN,
        base=BASE,
        rows=rows,
        fits=fits,
    )


if __name__ == "__main__":
    main()
