"""Piggyback beside head-only and full fine-tuning; channel gating: accuracy and capacity used over the sparsity weight.

    python benchmarks/masks.py                     # every part and three seeds: some four hours of a core, reckoned
    python benchmarks/masks.py --only gates --seeds 0
    python benchmarks/masks.py --short             # does it run at all

``flowers``: ten flowers on the ImageNet MobileNetV2 at 128 pixels; ``split``: MNIST, five tasks of two digits, Piggyback;
``gates``: the same five tasks, gates at several sparsity weights, from a network of random weights. Head-only is Piggyback
whose masks start too far from the threshold to flip: the same rows under the same recipe. Full fine-tuning moves the
network for each task anew, so that what it did for the tasks before is lost. Of the digits a tenth of the training images
is held out; on it each method of ``split`` chooses among four rates, as the mean over seeds, and the recipe of ``gates``
was chosen at a sparsity weight of 0.5. Flowers: the paper's recipe but for its rate; each method takes one of four, by one run
each on ten other flowers. "One start" is the paper's: all real-valued masks begin at one place; else they begin spread out.

A cell that is in the results is not run again, nor one that another process is at.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import torch
import torch.nn.functional as F
from flowers import imagenet
from record import add, data, there, undone
from torch import Tensor, nn

from classgraft import api
from classgraft.bundle import Bundle
from classgraft.data.images import Images, Task
from classgraft.data.sources import open_source
from classgraft.errors import InputError
from classgraft.extenders.gates import Gates
from classgraft.extenders.lwf import LwF
from classgraft.extenders.piggyback import Piggyback
from classgraft.models.classifier import Classifier, Head
from classgraft.models.gated import Gated
from classgraft.models.masked import Masked, maskable, zeroed
from classgraft.models.preparation import Preparation
from classgraft.training.answers import answers, forget
from classgraft.training.engine import device
from classgraft.training.loop import Batch, Terms, fit
from classgraft.training.recipe import Recipe
from classgraft.verbs import Extender

AS_IT_IS = Preparation(28, 28, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
PAPER = Piggyback().recipe
DIGITS = Recipe(epochs=20, batch_size=64, optimiser="adamw", lr=1e-2, weight_decay=0.0, milestones=(), augment="none")
RATES = (1e-4, 1e-3, 1e-2, 1e-1)
DEVELOPED = (3e-5, 1e-4, 1e-3, 1e-2)
"""Those that are tried on flowers."""
DEVELOPMENT = "flowers_dev"
"""The part in which the rate of ``flowers`` is chosen, among all but the last, with seed 0."""
HELD = 0.1
SAME = ("part", "method", "rate", "seed")
SPARSITY = (0.0, 0.1, 0.5, 1.0, 2.0, 5.0)
NEVER = 1e3
"""Where a real-valued mask starts that shall never be under the threshold."""
KEPT = 20
"""Images a class for the task classifier."""


@dataclass(frozen=True)
class Plain(Extender):
    """Fine-tuning from where masks begin: rows of zero, which share a softmax among themselves."""

    recipe: Recipe = PAPER

    def extend(self, model: Classifier, memory: object | None, task: Task) -> Classifier:
        grown, old = model.grown(task.classes).requires_grad_(True), len(model.classes)

        def objective(batch: Batch) -> Terms:
            return {"new": F.cross_entropy(grown(batch.images)[:, old:], batch.targets)}

        # a few photos estimate batch norm's statistics badly
        fit(grown, objective, task.train.of(task.classes), self.recipe, "fine-tuning", statistics=False)
        return grown


@dataclass(frozen=True)
class Cell:
    """A method in one part."""

    part: str
    method: str
    make: Piggyback | Gates | LwF | Plain

    @property
    def key(self) -> tuple[str, str, float]:
        return self.part, self.method, self.make.recipe.lr

    def at(self, rate: float) -> Cell:
        return replace(self, make=replace(self.make, recipe=replace(self.make.recipe, lr=rate)))


def cells() -> Iterator[Cell]:
    """Every cell, those of a part together; in ``flowers`` the rate is still to be chosen."""
    parts = [(DEVELOPMENT, replace(PAPER, lr=rate)) for rate in DEVELOPED]
    parts += [("flowers", PAPER), *(("split", replace(DIGITS, lr=rate)) for rate in RATES)]
    for part, recipe in parts:
        yield Cell(part, "head only", Piggyback(start=NEVER, spread=0.0, recipe=recipe))
        yield Cell(part, "piggyback", Piggyback(recipe=recipe))
        yield Cell(part, "piggyback, one start", Piggyback(spread=0.0, recipe=recipe))
        yield Cell(part, "piggyback, ternary", Piggyback(ternary=True, recipe=recipe))
        if part == "split":
            yield Cell(part, "piggyback, ternary, one start", Piggyback(spread=0.0, ternary=True, recipe=recipe))
        # with no weight on the old answers this is fine-tuning with a head for each task
        digits = LwF(0.0, softmax="heads", warm_up=0.0, statistics=True, recipe=recipe)
        yield Cell(part, "fine-tuning", digits if part == "split" else Plain(recipe))
    for sparsity in SPARSITY:
        yield Cell("gates", f"gates, lambda_s = {sparsity:g}", Gates(sparsity=sparsity, unit="images a class", exemplars=KEPT,
                                                                      statistics=True, recipe=DIGITS))  # fmt: skip
    yield Cell("gates", "fine-tuning", LwF(0.0, softmax="heads", warm_up=0.0, statistics=True, recipe=DIGITS))


@cache
def mnist(part: str) -> Images:
    """Floats of one channel."""
    found = api.images_of(open_source(data() / "mnist" / f"{part}.parquet"), AS_IT_IS)
    return replace(found, pixels=found.pixels[:, :1].float() / 255)


@cache
def base() -> Bundle:
    """At 128 pixels, which take a fifth of the time of 224."""
    found = imagenet()
    return replace(found, preparation=replace(found.preparation, size=128, resize=144))


@cache
def flowers(folder: str, part: str) -> Images:
    return api.images_of(open_source(data() / folder / part), base().preparation)


@cache
def probe(short: bool) -> tuple[Images, Tensor]:
    """ImageNet's own classes, and what the untouched network says of them."""
    found = api.images_of(open_source(data() / "imagenet_probe" / "test.parquet"), base().preparation)
    found = (found.some(20, 0) if short else found).of(base().model.classes)
    return found, answers(base().model.to(device()), found)


def convolutional(seed: int) -> Classifier:
    """Three convolutions of 32 channels with batch norm, without classes."""
    torch.manual_seed(seed)
    parts: list[nn.Module] = []
    for inside in (1, 32, 32):
        parts += [nn.Conv2d(inside, 32, 3, padding=1, bias=False), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2)]
    body = nn.Sequential(*parts[:-1], nn.AdaptiveAvgPool2d(1), nn.Flatten())
    body.num_features = 32  # type: ignore[assignment]
    return Classifier(body, Head(), ()).eval().to(device())


def accuracy(model: Classifier, images: Images, among: bool) -> float:
    """In per cent, among the classes of these images or among all."""
    places = torch.tensor([model.classes.index(name) for name in images.classes])
    logits = answers(model, images)
    found = places[logits[:, places].argmax(1)] if among else logits.argmax(1)
    return 100 * float((found == places[images.labels]).double().mean())


def on_flowers(cell: Cell, seed: int, short: bool) -> dict[str, Any]:
    """One extension by ten flowers; what became of ImageNet's own, or, of flowers to choose on, how many were held apart."""
    photos, test = flowers(cell.part, "train"), flowers(cell.part, "test")
    if short:
        photos, test = photos.shots(1, seed), test.shots(1, seed)
    before = base().model.to(device())
    method = _seeded(cell.make, seed, 1 if short else None)
    started = time.perf_counter()
    grown = method.extend(before, None, Task(photos.classes, photos))
    seconds, own = time.perf_counter() - started, accuracy(grown, test, True)
    if cell.part == DEVELOPMENT:
        return {"held": own, **kept(grown), "n": {"new": len(test)}, "seconds": seconds}
    known, said = probe(short)
    now = answers(grown, known)
    again = now[:, : len(before.classes)]
    return {
        "own": own, "joint": accuracy(grown, test, False),
        "old before": 100 * float((said.argmax(1) == known.labels).double().mean()),
        "old own": 100 * float((again.argmax(1) == known.labels).double().mean()),
        "old joint": 100 * float((now.argmax(1) == known.labels).double().mean()),
        "same bits": bool(torch.equal(said, again)), **kept(grown), "n": {"new": len(test), "old": len(known)},
        "seconds": seconds,
    }  # fmt: skip


def on_digits(cell: Cell, seed: int, short: bool) -> dict[str, Any]:
    """Five tasks of two digits one after the other: ``own[t][j]``, ``joint[t][j]`` after task t on task j."""
    (train, held), test = mnist("train").split(HELD, seed), mnist("test")
    if short:
        train, test = train.shots(8, seed), test.shots(4, seed)
    order = torch.randperm(10, generator=torch.Generator().manual_seed(1993 + seed)).tolist()
    names = [train.classes[k] for k in order]
    tasks = [names[2 * t : 2 * t + 2] for t in range(2 if short else 5)]
    method = _seeded(cell.make, seed, 1 if short else None)
    model, memory = convolutional(seed), None
    own, joint, used = [], [], []
    started = time.perf_counter()
    for t, classes in enumerate(tasks):
        task = Task(tuple(classes), train.of(classes))
        model = method.extend(model, memory, task)
        memory = method.remember(model, task, memory)
        own.append([accuracy(model, test.of(tasks[j]), True) for j in range(t + 1)])
        joint.append([accuracy(model, test.of(tasks[j]), False) for j in range(t + 1)])
        used.append(100 * model.body.capacity if isinstance(model.body, Gated) else 100.0)
    seconds = time.perf_counter() - started
    count = len(tasks)
    return {
        "held": sum(accuracy(model, held.of(classes), True) for classes in tasks) / count,
        "own": sum(own[-1]) / count, "joint": sum(joint[-1]) / count,
        "backward": sum(own[-1][j] - own[j][j] for j in range(count - 1)) / max(1, count - 1),
        "capacity": used[-1], "capacity over tasks": used, **kept(model), "own matrix": own, "joint matrix": joint,
        "n": {"train": len(train), "test": len(test)}, "seconds": seconds,
    }  # fmt: skip


def kept(model: Classifier) -> dict[str, Any]:
    """What masks leave out, and what one takes."""
    if not isinstance(model.body, Masked):
        return {}
    masks = [mask.values.numel() for mask in model.body.masks(0)]
    packed = sum(value.nbytes for key, value in model.body.state_dict().items() if key.endswith("packed"))
    tasks, weights = len(model.body.tasks), maskable(model.body.body).values()
    return {
        "masked out": 100 * sum(zeroed(model.body, task) for task in range(tasks)) / tasks,
        "bits a weight": 8 * packed / tasks / sum(masks),
        "mask bytes": packed / tasks,
        "weight bytes": sum(weight.nbytes for weight in weights),
    }


def chosen(cell: Cell, rows: list[dict[str, Any]]) -> Cell | None:
    """The cell, at the rate that its method has chosen where it chooses one; none before any was tried."""
    if cell.part != "flowers":
        return cell
    tried = [row for row in rows if (row["part"], row["method"]) == (DEVELOPMENT, cell.method)]
    return cell.at(max(tried, key=lambda row: row["held"])["rate"]) if tried else None


def measured(cell: Cell, seed: int, short: bool) -> dict[str, Any]:
    found = (on_flowers if cell.part.startswith("flowers") else on_digits)(cell, seed, short)
    forget()
    return found


def _seeded(method: Any, seed: int, epochs: int | None) -> Extender:
    recipe = replace(method.recipe, seed=seed, **({"epochs": epochs} if epochs else {}))
    return replace(method, recipe=recipe)  # type: ignore[no-any-return]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--only", choices=["flowers", "split", "gates", "all"], default="all")
    parser.add_argument("--short", action="store_true", help="few images, tasks and epochs; nothing is written")
    given = parser.parse_args()
    rows: list[dict[str, Any]] = [] if given.short else there("masks")["rows"]
    seeds = [int(word) for word in given.seeds.split(",")][: 1 if given.short else None]
    wanted = [cell for cell in cells() if given.only in (cell.part.removesuffix("_dev"), "all")]
    order = [(0, cell) for cell in wanted if cell.part == DEVELOPMENT]
    rest = [(seed, cell) for seed in seeds for cell in wanted if cell.part != DEVELOPMENT]
    for each in (order, rest):  # those of the rest that choose do so when the first are through
        todo = {(*own.key, seed): own for seed, cell in each if (own := chosen(cell, rows))}
        for key in todo if given.short else undone("masks", SAME, todo):
            try:
                found = measured(todo[key], key[-1], given.short)
            except InputError as error:  # of a loss that is no number; the other cells have their turn
                print(*key, error, flush=True)
                continue
            rows.append({**dict(zip(SAME, key, strict=True)), **found})
            print({name: value for name, value in rows[-1].items() if "matrix" not in name}, flush=True)
            if not given.short:
                rows = add("masks", __doc__.split("\n\n")[2].replace("\n", " "), rows, same=SAME)


if __name__ == "__main__":
    main()
