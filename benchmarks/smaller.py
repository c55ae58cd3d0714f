"""After an extension the model has to shrink: a smaller network, and one body in place of two, before and after.

    python benchmarks/smaller.py                   # hours; better on a GPU
    python benchmarks/smaller.py --only der --seeds 0
    python benchmarks/smaller.py --only flowers --seeds 0 --rows before kd      # an hour of one core
    python benchmarks/smaller.py --short           # does it run at all

Flowers: the ImageNet MobileNetV2 with ten flowers grafted on (``glne``, 20 photos each) is distilled into a MobileNetV3 of
under half its weights, fresh, in six passes over pictures without labels: 25,000 of Tiny-ImageNet enlarged from 64 pixels,
four of them in one picture each, street scenes, blood cells, ten other flowers, and the flowers' photos, five times sharp and
five times at 64 pixels. Old classes are measured on the probe, new ones on the test flowers; "shown" are the old classes that
are among the pictures. DER: a ResNet-20 of five
CIFAR-10 classes, grown by the other five into two bodies side by side, is distilled into one fresh ResNet-20, on what was at
hand at its extension (500 exemplars and the new images, labelled) or on 25,000 images of Tiny-ImageNet; labels alone is the
control. Recipes were fixed beforehand, but for the flowers' pictures, which a trial on the test images changed. A cell that is
in the results is not run again.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from flowers import imagenet
from record import RESULTS, add, data
from torch.nn.functional import interpolate
from transfer import base, cifar, drawn

from classgraft import api, memories, shrinking, teaching
from classgraft.bundle import Bundle
from classgraft.data.images import Images, joined
from classgraft.data.sources import open_files, open_source
from classgraft.metrics.classification import harmonic
from classgraft.models.preparation import Preparation
from classgraft.models.sources import CIFAR
from classgraft.training.answers import answers, forget
from classgraft.training.engine import device
from classgraft.training.exemplars import Exemplars

SMALL, ONE = "timm:mobilenetv3_small_050", "cifar:resnet20"
FREE = {"epochs": 6, "batch_size": 64, "optimiser": "adamw", "lr": 2e-3, "weight_decay": 0.01, "milestones": [],
        "augment": "none"}  # fmt: skip
CLOSE = {"epochs": 60, "batch_size": 64, "lr": 0.05, "milestones": []}
FAR = {**CLOSE, "epochs": 10}
KEPT = 500
"""Exemplars."""
TIMES = 5
"""How often each photo of a flower stands among the unlabelled images; and how often without its details."""


def tiny(preparation: Preparation, count: int) -> Images:
    """So many Tiny-ImageNet training images of each class, without their labels."""
    source = open_source(data() / "tinyimagenet100" / "train.parquet")
    labels = np.array(source.labels)
    some = np.sort(np.concatenate([np.flatnonzero(labels == k)[:count] for k in range(len(source.classes))]))
    chosen = replace(source, classes=(), labels=(), photos=tuple(source.photos[i] for i in some))
    return api.images_of(chosen, preparation)


def unnamed(images: Images) -> Images:
    return replace(images, labels=torch.zeros(len(images), dtype=torch.int64), classes=("",), names=())


def coarse(images: Images) -> Images:
    """With no more detail than an image of 64 pixels has."""
    side = images.preparation.resize
    whole = images.raw(torch.arange(len(images)), torch.device("cpu"))
    small = interpolate(whole, size=64, mode="bicubic", antialias=True)
    large = interpolate(small, size=side, mode="bicubic", antialias=True)
    return replace(images, pixels=large.clamp(0, 1).mul(255).round().to(torch.uint8))


def fours(images: Images) -> Images:
    """Each image once, at half its size, four to a picture: twice the detail."""
    side = images.preparation.resize
    pictures = []
    for index in torch.arange(len(images) // 4 * 4).view(4, -1).T.reshape(-1).split(256):
        half = interpolate(images.raw(index, torch.device("cpu")), size=side // 2, mode="area")
        half = half.view(-1, 2, 2, 3, side // 2, side // 2)
        pictures.append(half.permute(0, 3, 1, 4, 2, 5).reshape(-1, 3, side, side).mul(255).round().to(torch.uint8))
    pixels = torch.cat(pictures)
    return unnamed(replace(images, pixels=pixels, labels=torch.zeros(len(pixels), dtype=torch.int64)))


@dataclass(frozen=True)
class Shrunk:
    """A grown bundle, test images, and students by the names of their rows."""

    grown: Bundle
    old: Images
    new: Images
    students: dict[str, Callable[[], Bundle]]
    shown: tuple[str, ...] = ()
    """Old classes that are among the pictures without labels."""


def measured(bundle: Bundle, made: Shrunk) -> dict[str, float]:
    """In per cent, among all classes."""
    both = (made.old, made.new)
    hits = [answers(bundle.model, part).argmax(1).cpu() == part.of(bundle.classes).labels for part in both]
    right = [float(hit.double().mean()) for hit in hits]
    found = {"old": right[0], "new": right[1], "harmonic": harmonic(*right) or 0.0}
    if made.shown:
        names = [made.old.classes[k].split(", ") for k in made.old.labels.tolist()]
        known = torch.tensor([any(name in made.shown for name in synonyms) for synonyms in names])
        found["shown"] = float(hits[0][known].double().mean())
    size = sum(parameter.numel() for parameter in bundle.model.parameters())
    return {key: 100 * value for key, value in found.items()} | {"parameters": size}


def flowers(seed: int, short: bool) -> Shrunk:
    start = imagenet()
    photos = api.images_of(open_source(data() / "flowers" / "train"), start.preparation)
    grown = api.extend(start, photos.shots(1, seed) if short else photos, method="glne", seed=seed)
    grown.model.to(device())
    old, new = (api.labelled(grown, [data() / name]) for name in ("imagenet_probe/test.parquet", "flowers/test"))
    if short:
        old, new = old.subset(torch.arange(0, len(old), 100)), new.subset(torch.arange(0, len(new), 30))
        photos = photos.shots(1, seed)

    def distilled(method: str, images: Images, **more: Any) -> Bundle:
        free, settings = replace(images, classes=()), {**FREE, **more, **({"epochs": 1} if short else {})}
        return shrinking.distill(grown, free, SMALL, method=method, settings=settings, seed=seed)

    def others() -> Images:
        small = tiny(start.preparation, 1 if short else 250)
        sharp = [
            data() / "camvid" / "train" / "images",
            data() / "bccd" / "JPEGImages",
            data() / "flowers_dev" / "train",
        ]
        more = api.images_of(open_files(sharp), start.preparation).some(20 if short else 0, seed)
        return joined(unnamed(small), joined(fours(small), unnamed(more)))

    def both() -> Images:
        own = joined(unnamed(photos), unnamed(coarse(photos)))
        return joined(others(), own.subset(torch.arange(len(own)).repeat(1 if short else TIMES)))

    return Shrunk(grown, old, new, {
        "kd": lambda: distilled("kd", both(), share=1.0),
        "similarity and kd": lambda: distilled("similarity", both(), soft=1.0),
        "kd, without the flowers' photos": lambda: distilled("kd", others(), share=1.0),
    }, open_source(data() / "tinyimagenet100" / "train.parquet").classes)  # fmt: skip


def der(seed: int, short: bool) -> Shrunk:
    own, others = drawn(seed)
    train, test = cifar("train"), cifar("test")
    if short:
        train, test = train.shots(6, 0), test.shots(4, 0)
    settings = {"exemplars": 20 if short else KEPT, "epochs": 1 if short else 30, "seed": seed}
    seen = api.remember(base(seed, short), train.of(own), "der", settings)
    kept = memories.recall(seen, "der")
    assert isinstance(kept, Exemplars)
    grown = api.extend(seen, train.of(others), method="der", settings=settings, seed=seed)
    at_hand = joined(kept.images, train.of(others))

    def chosen(recipe: dict[str, Any]) -> dict[str, Any]:
        return {**recipe, **({"epochs": 1} if short else {}), "seed": seed}

    def far() -> Bundle:
        free = tiny(CIFAR, 1 if short else 250)
        return shrinking.distill(grown, free, ONE, method="kd", settings={**chosen(FAR), "share": 1.0}, seed=seed)

    def alone() -> Bundle:
        fresh = teaching.start(ONE, grown.classes, seed=seed)
        fresh.model.to(device())
        return teaching.train(fresh, at_hand, settings=chosen(CLOSE))

    return Shrunk(grown, test.of(own), test.of(others), {
        "kd, exemplars and new images": lambda: shrinking.distill(
            grown, at_hand, ONE, method="kd", settings=chosen(CLOSE), seed=seed
        ),
        "kd, pictures of other things": far,
        "labels alone (control)": alone,
    })  # fmt: skip


PARTS: dict[str, Callable[[int, bool], Shrunk]] = {"flowers": flowers, "der": der}
ROWS = {
    "flowers": ("before", "kd", "similarity and kd", "kd, without the flowers' photos"),
    "der": ("before", "kd, exemplars and new images", "kd, pictures of other things", "labels alone (control)"),
}


def cells(part: str, seed: int, short: bool, todo: list[str]) -> Iterator[dict[str, Any]]:
    """The rows still to be run of a part, of which the grown model is made again (the same one by the same seed)."""
    made = PARTS[part](seed, short)
    for name in todo:
        started = time.perf_counter()
        bundle = made.grown if name == "before" else made.students[name]()
        seconds = time.perf_counter() - started
        row = {"part": part, "row": name, "seed": seed, "seconds": seconds, "n": [len(made.old), len(made.new)]}
        yield row | {"network": bundle.architecture.source} | measured(bundle, made)
        forget()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--only", choices=[*PARTS, "all"], default="all")
    parser.add_argument("--rows", nargs="+", default=[row for rows in ROWS.values() for row in rows], metavar="ROW")
    parser.add_argument("--short", action="store_true", help="few images and one epoch, nothing is written")
    given = parser.parse_args()
    path = RESULTS / "smaller.json"
    rows = json.loads(path.read_text("utf-8"))["rows"] if path.exists() and not given.short else []
    done = {(row["part"], row["row"], row["seed"]) for row in rows}
    for part in PARTS if given.only == "all" else (given.only,):
        for seed in [int(word) for word in given.seeds.split(",")][: 1 if given.short else None]:
            todo = [name for name in ROWS[part] if (part, name, seed) not in done and name in given.rows]
            for row in cells(part, seed, given.short, todo) if todo else ():
                rows.append(row)
                print(row, flush=True)
                if not given.short:
                    rows = add("smaller", " ".join(__doc__.split("\n\n")[2].rpartition(" A cell")[0].split()), rows)


if __name__ == "__main__":
    main()
