"""More to learn from than one or five photos: pictures made by GLICO, and a folder of unlabelled photos, in the main job.

    python benchmarks/enrich.py --development    flowers_dev and the even half of the probe, to choose on: an hour of a core
    python benchmarks/enrich.py                  flowers and the odd half, the final table: an hour
    python benchmarks/enrich.py --only unlabelled    those rows alone, without a generator: ten minutes
    python benchmarks/enrich.py --short          does it run at all

Ten flowers on the ImageNet MobileNetV2 by ``glne``, without an ImageNet image; three draws. Enriched: GLICO makes 5 or
20 pictures of each class between its photos; of one photo there is no other to go to, so that its pictures are that
photo drawn again, and ``extend --enrich`` makes none. Its generator is that of ``extend --enrich``. Copies: as many
copies of the photos (control). Unlabelled: the training photos that were not drawn, without their labels; those that
the grown model is surely right about become photos of its new classes; among others: beside as many flowers of ten
kinds that no class stands for (``flowers_dev``), which may be taken for new classes too; shuffled: their names dealt
out anew among them (control); all named: with their true labels (ceiling). How many pictures and how sure is chosen on
the development flowers by harmonic mean.

A cell that is in the results is not run again. Of the first draw of the final run a sheet of pictures is left under docs/:
photos of five classes, then what was made between them.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from flowers import imagenet, measure
from record import RESULTS, add, data, there
from torch import Tensor
from torch.nn.functional import interpolate

from classgraft import api
from classgraft.bundle import Bundle
from classgraft.catalogue import extender
from classgraft.data.images import Images, Task, joined
from classgraft.data.sources import load, open_source
from classgraft.models.classifier import Classifier
from classgraft.selftrainers.pseudo_labels import named
from classgraft.trainers.glico import enriched, enriching
from classgraft.training.engine import device
from classgraft.training.progress import show_progress

DRAWING = enriching(0).drawing
"""Steps of the generator."""
SHOTS, SEEDS = (1, 5), (0, 1, 2)
PICTURES, SURE = (5, 20), (0.5, 0.8, 0.95)
KEPT = ("old before", "old", "new", "harmonic", "best", "regret", "area")


def sets(base: Bundle, flowers: str, half: int, short: bool) -> dict[str, tuple[Images, Tensor]]:
    """Test flowers, and a half of the probe, as ``flowers.measure`` takes them."""
    side = base.preparation.resize
    source = open_source(data() / "imagenet_probe" / "test.parquet")
    probe, new = load(source, side), load(open_source(data() / flowers / "test"), side)
    places = torch.tensor([base.classes.index(name) for name in source.classes])[probe.labels]
    step = 50 if short else 2
    old = torch.arange(half, len(places), step)
    some = torch.nonzero(new.labels < 2)[::9, 0] if short else torch.arange(len(new.labels))

    def images(pixels: Tensor) -> Images:
        return Images(pixels, torch.zeros(len(pixels), dtype=torch.int64), base.classes, base.preparation)

    word = ("even", "odd")[half]
    return {
        "new": (images(new.pixels[some]), new.labels[some] + len(base.classes)),
        f"probe {word}, clean": (images(probe.pixels[old]), places[old]),
    }


def shuffled(before: Task, after: Task, seed: int) -> Task:
    """The labels of what ``after`` has beyond ``before``, dealt out anew among these images."""
    labels, first = after.train.labels.clone(), len(before.train)
    order = torch.randperm(len(labels) - first, generator=torch.Generator().manual_seed(seed))
    labels[first:] = labels[first:][order]
    return replace(after, train=replace(after.train, labels=labels))


class Draw:
    """The photos of one draw, and the tasks made of them, each when it is asked for."""

    def __init__(self, model: Classifier, photos: Images, others: Images, shots: int, seed: int, drawing: int) -> None:
        self.model, self.others, self.seed, self.drawing = model, others, seed, drawing
        known = photos.shots(shots, seed)
        kept = set(known.names)
        self.rest = photos.subset(torch.tensor([i for i, name in enumerate(photos.names) if name not in kept]))
        free = replace(self.rest, labels=torch.zeros_like(self.rest.labels), classes=("",))
        self.task = Task(photos.classes, known, free)
        self.grown = extender("glne", {"seed": seed}).extend(model, None, self.task)
        self.made: Task | None = None
        self.losses: dict[str, float] = {}

    def pictures(self, count: int) -> Task:
        """Of the greatest number that is made of each class, the first ``count``: the generator is learnt once."""
        if self.made is None:
            method = replace(enriching(self.seed), drawing=self.drawing)
            show_progress(self.told)
            self.made = enriched(self.task, max(PICTURES), self.model, method, least=1)
        first, classes = len(self.task.train), torch.arange(len(self.task.classes))[:, None]
        more = first + max(PICTURES) * classes + torch.arange(count)
        return replace(self.made, train=self.made.train.subset(torch.cat([torch.arange(first), more.flatten()])))

    def told(self, what: str, done: int, total: int, terms: dict[str, float]) -> None:
        """Keeps the generator's losses of its last epoch."""
        if what == "learning to draw":
            self.losses = {name: terms[name] for name in ("pixels", "maps", "class") if name in terms}

    def sheet(self, path: Path) -> None:
        """Of five classes, a line each: its photos, then eight pictures."""
        from torchvision.utils import save_image

        assert self.made is not None
        count, train = len(self.task.train), self.made.train
        lines = []
        for k in range(min(5, len(self.task.classes))):
            photos = torch.nonzero(self.task.train.labels == k)[:, 0]
            index = torch.cat([photos, count + max(PICTURES) * k + torch.arange(8)])
            lines.append(interpolate(train.raw(index, torch.device("cpu")), size=96, mode="area"))
        save_image(torch.cat(lines), path, nrow=len(lines[0]))

    def copies(self, count: int) -> Task:
        own = [torch.nonzero(self.task.train.labels == k)[:, 0] for k in range(len(self.task.classes))]
        index = torch.cat([place.repeat(-(-count // len(place)))[:count] for place in own])
        return replace(self.task, train=joined(self.task.train, self.task.train.subset(index)))

    def named(self, threshold: float) -> Task:
        return named(self.task, self.grown, threshold)

    def among(self, threshold: float) -> Task:
        assert self.task.unlabelled is not None
        both = joined(
            self.task.unlabelled, replace(self.others, labels=torch.zeros_like(self.others.labels), classes=("",))
        )
        return named(replace(self.task, unlabelled=both), self.grown, threshold)

    def ceiling(self) -> Task:
        return replace(self.task, train=joined(self.task.train, self.rest))

    def right(self, task: Task) -> float | None:
        """Of the unlabelled photos that a task has taken, how many are named right, in per cent."""
        true = dict.fromkeys(self.others.names, -1)
        true |= {name: int(label) for name, label in zip(self.rest.names, self.rest.labels, strict=True)}
        taken = [i for i, name in enumerate(task.train.names) if name in true]
        if not taken:
            return None
        return 100 * sum(true[task.train.names[i]] == int(task.train.labels[i]) for i in taken) / len(taken)


Row = Callable[[Draw], Task]
"""From a draw to what is learnt from."""


def rows(chosen: dict[str, Any] | None) -> dict[str, Row]:
    """All to choose from; or the chosen ones beside their controls."""
    found: dict[str, Row] = {"photos alone": lambda draw: draw.task}
    for count in filter(None, [chosen["pictures"]] if chosen else PICTURES):
        found[f"enriched, {count} pictures"] = lambda draw, count=count: draw.pictures(count)  # type: ignore[misc]
        if chosen:
            found[f"copies, {count} (control)"] = lambda draw, count=count: draw.copies(count)  # type: ignore[misc]
    for sure in filter(None, [chosen["sure"]] if chosen else SURE):
        found[f"unlabelled, sure of {sure:g}"] = lambda draw, sure=sure: draw.named(sure)  # type: ignore[misc]
        if chosen:
            found[f"unlabelled among others, sure of {sure:g}"] = lambda draw, sure=sure: draw.among(sure)  # type: ignore[misc]
            found["unlabelled, shuffled (control)"] = lambda draw, sure=sure: shuffled(  # type: ignore[misc]
                draw.task, draw.named(sure), draw.seed
            )
    return found | ({"unlabelled, all named (ceiling)": Draw.ceiling} if chosen else {})


def chosen_of(done: list[dict[str, Any]]) -> dict[str, Any]:
    """The number of pictures and the sureness with the best mean harmonic mean over all draws of the development rows."""

    def mean(name: str) -> float:
        values = [row["harmonic"] for row in done if row["name"] == name]
        return sum(values) / len(values) if len(values) == len(SHOTS) * len(SEEDS) else -1.0

    pictures = {count: mean(f"enriched, {count} pictures") for count in PICTURES}
    sure = {least: mean(f"unlabelled, sure of {least:g}") for least in SURE}
    return {  # nothing where a row is missing
        name: None if min(means.values()) < 0 else max(means, key=lambda one: means[one])
        for name, means in (("pictures", pictures), ("sure", sure))
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--development", action="store_true")
    parser.add_argument("--seeds", default=",".join(map(str, SEEDS)), help="of the draws")
    parser.add_argument("--only", default="", help="rows whose names begin so, such as unlabelled")
    parser.add_argument("--short", action="store_true", help="few photos and steps, nothing is written")
    given = parser.parse_args()
    short, name = given.short, f"enrich{'-development' * given.development}"

    def done(name: str) -> list[dict[str, Any]]:
        return [] if short else there(name)["rows"]

    chosen: dict[str, Any] | None = None
    if not given.development:
        chosen = {"pictures": PICTURES[0], "sure": SURE[0]} if short else chosen_of(done("enrich-development"))
        for what in (key for key, value in chosen.items() if value is None):
            print(f"{what}: not chosen yet; its rows wait for those of --development", flush=True)
    flowers = "flowers_dev" if given.development else "flowers"
    base = imagenet()
    model = copy.deepcopy(base.model).to(device())
    test = sets(base, flowers, 0 if given.development else 1, given.short)
    photos, others = (
        api.images_of(open_source(data() / kind / "train"), base.preparation)
        for kind in (flowers, "flowers" if given.development else "flowers_dev")
    )
    if short:
        photos, others = (images.of(images.classes[:2]).shots(4, 0) for images in (photos, others))
    n = {"new": len(test["new"][1]), "old": len([*test.values()][1][1]), "drawing": DRAWING}
    seeds = [int(word) for word in given.seeds.split(",")][: 1 if short else None]
    for shots in SHOTS[: 1 if short else None]:
        for seed in seeds:
            draw: Draw | None = None
            for word, task_of in rows(chosen).items():
                key = {"name": word, "shots": shots, "seed": seed}
                if not word.startswith(given.only) or any(key.items() <= row.items() for row in done(name)):
                    continue
                draw = draw or Draw(model, photos, others, shots, seed, 2 if short else DRAWING)
                started = time.perf_counter()
                task = task_of(draw)
                grown = extender("glne", {"seed": seed}).extend(model, None, task).cpu()
                row = {**key, "images": len(task.train), "right": draw.right(task)}
                row |= {"losses": draw.losses} if word.startswith("enriched") else {}
                row |= {"seconds": time.perf_counter() - started}
                found = measure(base, replace(base, model=grown), test)
                row |= {key: found[key] for key in KEPT}
                print(row, flush=True)
                if short:
                    continue
                if chosen and seed == SEEDS[0] and word.startswith("enriched"):
                    draw.sheet(RESULTS.parents[1] / "docs" / f"enrich-pictures-{shots}.png")
                what = " ".join(__doc__.split("\n\n")[2].split())
                add(name, what, [row], same=("name", "shots", "seed"), n=n, chosen=chosen or chosen_of)


if __name__ == "__main__":
    main()
