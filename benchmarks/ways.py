"""The five ways to learn a second task of the LwF paper, and two more: old and new as differences to LwF, and what each costs.

    python benchmarks/ways.py                       # an hour and a half on one core
    python benchmarks/ways.py --only mnist
    python benchmarks/ways.py --short               # does it run at all

After Li and Hoiem: Learning without Forgetting (arXiv 1606.09282), table 1. The ImageNet MobileNetV2 learns ten flowers, 20
photos each; a public CIFAR-10 ResNet-56 learns MNIST, 100 images a class. Each task has its own softmax and is known when
it is asked for, as in the paper; for every other way half of the epochs warm up the new rows alone, by one recipe. Networks
here have a single fully connected layer, so that their last block (a 1x1 convolution of the MobileNetV2) stands for the
paper's. Feature extraction is this library's ``rows``, by its own recipe. Joint sees old images: of ImageNet half of the
probe, one image of every other class, none of the classes that are tested; 100 of each CIFAR-10 class. Less-forgetting
learning (Jung and others, arXiv 1607.00122) holds the old head and the features, by 1.6e-3. Old images are tested on the
other half of the probe, and on CIFAR-10's test images. A cell that is in the results is not run again.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import torch
from flowers import imagenet
from record import RESULTS, add, data

from classgraft import api
from classgraft.bundle import Bundle
from classgraft.data.images import Images, Task, joined
from classgraft.data.sources import open_source
from classgraft.extenders.lwf import LwF
from classgraft.extenders.rows import Rows
from classgraft.losses.classification import cross_entropy_among
from classgraft.models.adapter import last_block
from classgraft.models.classifier import Classifier, frozen
from classgraft.training.answers import answers, forget
from classgraft.training.loop import Batch, Terms, fit
from classgraft.training.recipe import Recipe
from classgraft.training.unseen import begun
from classgraft.verbs import Extender

RECIPE = Recipe(epochs=10, batch_size=32, optimiser="adamw", lr=5e-5, weight_decay=5e-4)
"""Of ``lwf`` in the catalogue, half as long."""
WHAT = "a second task on a trained network, each task with its own softmax"


@dataclass(frozen=True)
class Tuned(Extender):
    """Cross-entropy on the new images; what is free, and what holds it, makes the way."""

    free: Literal["all", "last block", "all but the old head"] = "all"
    hold: float = 0.0
    """Weight of half the squared distance to the old features."""
    shown: Images | None = None
    """Old images, with their labels."""
    recipe: Recipe = field(default=RECIPE)

    def extend(self, model: Classifier, memory: object | None, task: Task) -> Classifier:
        grown, old = begun(model, task), frozen(model)
        groups = grown.head.groups
        images = task.train.of(grown.classes)
        everything = joined(self.shown.of(grown.classes), images) if self.shown else images

        def new(batch: Batch) -> Terms:
            return {"new": cross_entropy_among(grown(batch.images), batch.targets, groups)}

        def held(batch: Batch) -> Terms:
            features = grown.features(batch.images)
            with torch.no_grad():
                before = old.features(batch.images)
            far = (features - before).square().sum(1).mean()
            loss = cross_entropy_among(grown.head(features), batch.targets, groups)
            return {"new": loss, "features": self.hold / 2 * far}

        first = self.recipe.epochs // 2
        grown.requires_grad_(False).head.linear[-1].requires_grad_(True)
        fit(grown, new, images, replace(self.recipe, epochs=first), "warming up the new rows", statistics=False)
        grown.requires_grad_(self.free != "last block").head.requires_grad_(True)
        if self.free == "last block":
            grown.body.get_submodule(last_block(grown.body)).requires_grad_(True)
        if self.free == "all but the old head":
            grown.head.requires_grad_(False).linear[-1].requires_grad_(True)
        rest = replace(self.recipe, epochs=self.recipe.epochs - first)
        fit(grown, held if self.hold else new, everything, rest, statistics=False)  # as LwF's; AlexNet has none
        return grown.requires_grad_(True).eval()


class Extraction(Extender):
    """New rows on remembered features, under a softmax of their own."""

    def extend(self, model: Classifier, memory: object | None, task: Task) -> Classifier:
        alone = Rows().extend(model.headed((), ()), None, task)
        return model.grown(alone.classes, alone.head.weight, alone.head.bias)


def ways(recipe: Recipe, shown: Images) -> dict[str, Callable[[], Extender]]:
    """In the order of the paper's table."""
    return {
        "LwF": lambda: LwF(softmax="heads", recipe=recipe),
        "fine-tuning": lambda: Tuned(recipe=recipe),
        "LFL": lambda: Tuned("all but the old head", hold=1.6e-3, recipe=recipe),
        "fine-tuning the last block": lambda: Tuned("last block", recipe=recipe),
        "feature extraction": lambda: Extraction(),
        "joint": lambda: Tuned(shown=shown, recipe=recipe),
    }


@dataclass(frozen=True)
class Pair:
    """A trained network, what it is to learn, and what is measured."""

    base: Bundle
    task: Images
    shown: Images
    old: Images
    new: Images


def pair(which: str, seed: int) -> Pair:
    if which == "flowers":
        base, folder = imagenet(), data() / "flowers"
        probe = api.labelled(base, [data() / "imagenet_probe" / "test.parquet"])
        even = torch.arange(0, len(probe), 2)
        train, test = (api.images_of(open_source(folder / part), base.preparation) for part in ("train", "test"))
        return Pair(base, train, probe.subset(even), probe.subset(even + 1), test)
    names = sorted(("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"))
    base = api.import_model("cifar:resnet56", data() / "weights" / "resnet56-4bfd9763.th", names)
    kept, old = (api.labelled(base, [data() / "cifar10" / f"{part}.parquet"]) for part in ("train", "test"))
    train, test = (
        api.images_of(open_source(data() / "mnist" / f"{part}.parquet"), base.preparation) for part in ("train", "test")
    )
    return Pair(base, train.shots(100, seed), kept.shots(100, seed), old, test)


def fewer(found: Pair) -> Pair:
    """To see whether it runs."""
    parts = {name: getattr(found, name).some(20, 0) for name in ("task", "shown", "old", "new")}
    return replace(found, **parts)


def accuracy(model: Classifier, images: Images) -> float:
    """In per cent, among the classes of these images' side."""
    columns = [model.classes.index(name) for name in images.classes]
    return 100 * float((answers(model, images)[:, columns].argmax(1) == images.labels).double().mean())


def stored(model: Classifier) -> int:
    """Bytes of the weights."""
    return sum(part.numel() * part.element_size() for part in model.state_dict().values())


def milliseconds(models: list[Classifier], images: Images) -> float:
    """An image, asked of each of these networks in turn."""
    some = images.some(64, 0)
    for _ in range(2):
        forget()
        started = time.perf_counter()
        for model in models:
            answers(model, some)
    return 1000 * (time.perf_counter() - started) / len(some)


def measured(name: str, found: Pair, recipe: Recipe) -> list[dict[str, Any]]:
    """The row; beside fine-tuning's that of a copy that is fine-tuned while the original stays."""
    model = found.base.model
    started = time.perf_counter()
    grown = ways(recipe, found.shown)[name]().extend(model, None, Task(found.task.classes, found.task))
    seconds = time.perf_counter() - started
    row = {
        "old": accuracy(grown, found.old), "new": accuracy(grown, found.new), "seconds": seconds, "bytes": stored(grown),
        "milliseconds": milliseconds([grown], found.new), "old images": len(found.shown) if name == "joint" else 0,
    }  # fmt: skip
    rows = [{"way": name, **row}]
    if name == "fine-tuning":
        both = {"old": accuracy(model, found.old), "bytes": stored(model) + stored(grown),
                "milliseconds": milliseconds([model, grown], found.new)}  # fmt: skip
        rows.append({"way": "duplicate and fine-tune", **row, **both})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=["flowers", "mnist"])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0])
    parser.add_argument("--short", action="store_true", help="few images and two epochs, nothing is written")
    given = parser.parse_args()
    path = RESULTS / "ways.json"
    rows: list[dict[str, Any]] = (
        json.loads(path.read_text("utf-8"))["rows"] if path.exists() and not given.short else []
    )
    for which in (given.only,) if given.only else ("mnist", "flowers"):
        for seed in given.seeds:
            found = fewer(pair(which, seed)) if given.short else pair(which, seed)
            recipe = replace(RECIPE, epochs=2 if given.short else RECIPE.epochs, seed=seed)
            before = accuracy(found.base.model, found.old)
            for name in ways(recipe, found.shown):
                if any((row["pair"], row["way"], row["seed"]) == (which, name, seed) for row in rows):
                    continue
                for row in measured(name, found, recipe):
                    rows.append({"pair": which, "seed": seed, "old before": before, **row})
                    print(rows[-1], flush=True)
                forget()
                if not given.short:
                    counts = {"flowers": {"old": 500, "new": 180}, "mnist": {"old": 2000, "new": 2000}}
                    rows = add("ways", WHAT, rows, n=counts, recipe={"epochs": recipe.epochs, "lr": recipe.lr})


if __name__ == "__main__":
    main()
