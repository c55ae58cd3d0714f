"""Generative replay beside LwF, EWC, fine-tuning and exact replay; and generators as memories of real photos.

    python benchmarks/replay.py                    # every cell and three seeds: about five hours on one core
    python benchmarks/replay.py --only split --seeds 0
    python benchmarks/replay.py --short            # does it run at all

``split``: MNIST, two digits at a time, five tasks, one label space. ``pair``: MNIST and then Fashion-MNIST, or the other way
round, one label space of twenty. ``photos``: a public CIFAR-10 ResNet-56 extended with ten Tiny-ImageNet classes by a frozen
network, with Gaussian mixtures, generators of images (the conditional one of a summary of GLNE) and of features. A tenth of
the training images is held out; a strength is chosen on it, as the mean over seeds. In ``photos`` that is the learning rate,
by the harmonic mean on a tenth of the old images, which the network was once trained on, and on unused images of the new
classes. Bytes kept: a pixel of an image is one; 818 digits take as many as a generator of them. A cell in the results is not
run again.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from memories import cifar
from permuted import RECIPE, empty, mnist
from PIL import Image
from record import add, undone

from classgraft.data.images import Images, Task
from classgraft.errors import InputError
from classgraft.extenders.ewc import EWC
from classgraft.extenders.exemplars import Replay
from classgraft.extenders.finetune import Finetune
from classgraft.extenders.generative_replay import GenerativeReplay
from classgraft.extenders.glne import GLNE
from classgraft.extenders.joint import Joint, Seen
from classgraft.extenders.lwf import LwF
from classgraft.metrics.classification import harmonic
from classgraft.models.classifier import Classifier
from classgraft.packing import bytes_of
from classgraft.training.answers import answers, forget
from classgraft.training.engine import device
from classgraft.training.exemplars import Exemplars
from classgraft.training.generative import Generative, drawn
from classgraft.training.recipe import Recipe
from classgraft.verbs import Extender

SAME = ("part", "method", "strength", "seed")
HELD = 0.1
PHOTOS = 20
"""Of each new class, in the part with photos."""
KINDS: dict[str, dict[str, Any]] = {
    "generative replay": {},
    "generative replay, soft labels": {"soft": True},
    "generative replay, conditional": {"conditional": True},
    "generative replay, features": {"space": "features"},
    "generative replay, r = 1 (control)": {"share": 1.0},
}
UNUSED = "generative replay, r = 1 (control)"
"""Whose generator nobody asks."""
SPLIT = 50
"""Epochs of two digits, which are a fifth of all."""
AS_MANY = 818
"""Images of digits that take as many bytes as a generator of them."""
RATES = (1e-3, 3e-3, 1e-2, 3e-2)
HEAD = 100
"""Epochs of new rows beside a frozen network: in 20, of seven steps each, they stayed too short at the lowest rate."""


@dataclass(frozen=True)
class Cell:
    """A method at one strength; in the part with photos at one rate."""

    part: str
    name: str
    strength: float
    method: Callable[..., Extender]
    """From a recipe and steps of a generator."""

    @property
    def key(self) -> tuple[str, str, float]:
        return self.part, self.name, self.strength


def cells(only: str) -> Iterator[Cell]:
    """Every cell of the chosen parts."""
    for part in ("split", "pair, MNIST first", "pair, Fashion-MNIST first"):
        if only not in (part.split(",")[0], "all"):
            continue
        yield Cell(part, "finetune", 0, lambda r, _: Finetune(statistics=True, recipe=r))
        yield Cell(part, "exact replay (joint)", 0, lambda r, _: Joint(balanced=False, recipe=r))
        for count in (1000, AS_MANY):
            yield Cell(part, f"exemplars, {count:,} images", 0, lambda r, _, n=count: Replay(exemplars=n, recipe=r))
        for strength in (0.3, 1.0, 3.0, 10.0, 30.0, 100.0):
            yield Cell(part, "lwf", strength, lambda r, _, x=strength: LwF(x, warm_up=0.0, recipe=r))
        for strength in (1.0, 3.0, 10.0, 30.0, 100.0):
            yield Cell(part, "lwf, new among new", strength,
                       lambda r, _, x=strength: LwF(x, softmax="sides", warm_up=0.0, recipe=r))  # fmt: skip
        for strength in (10.0, 1e3, 1e5, 1e6, 1e7, 1e9):
            yield Cell(part, "ewc", strength, lambda r, _, x=strength: EWC(x, images=200, recipe=r))
        for name, settings in KINDS.items():
            yield Cell(part, name, 0, lambda r, d, s=settings: GenerativeReplay(drawing=d, recipe=r, **s))
    if only in ("photos", "all"):
        for memory in ("none", "mixture", "features", "cvae"):
            yield Cell(
                "photos", f"glne, memory={memory}", 0, lambda r, d, m=memory: GLNE(memory=m, drawing=d, seed=r.seed)
            )
        for name in ("features", "features, conditional", "features, r = 1 (control)"):
            settings = {"conditional": "conditional" in name, "share": 1.0 if "r = 1" in name else None}
            for rate in RATES:
                yield Cell("photos", f"generative replay, {name}", rate, lambda r, d, s=settings, lr=rate:
                           GenerativeReplay("features", drawing=d, recipe=replace(r, lr=lr), **s))  # fmt: skip


digits = cache(mnist)


def tasks(part: str, which: str, seed: int) -> list[Images]:
    """The training or the test images of each task."""
    if part == "split":
        order = torch.randperm(10, generator=torch.Generator().manual_seed(1993 + seed)).tolist()
        images = digits(which)
        return [images.of([images.classes[k] for k in order[2 * t : 2 * t + 2]]) for t in range(5)]
    pair = [digits(which), digits(which, "fashion_mnist")]
    return pair[::-1] if part.endswith("Fashion-MNIST first") else pair


def right(model: Classifier, images: Images) -> float:
    """Accuracy in per cent among all classes of the model."""
    known = images.of(model.classes)
    seen = answers(model, known, model.features)  # what a frozen body sees is remembered
    with torch.inference_mode():
        found = model.head(seen.to(model.device)).argmax(1).cpu()
    return 100 * float((found == known.labels).double().mean())


generators: dict[object, tuple[object | None, float]] = {}
"""What was kept, and the seconds that it took."""


def remembered(
    cell: Cell, method: Extender, model: Classifier, task: Task, memory: object | None, t: int
) -> tuple[object | None, float]:
    """What is kept after task ``t``, and the seconds that another cell with the same generator spared this one."""
    if not isinstance(method, GenerativeReplay):
        return method.remember(model, task, memory), 0.0
    # a generator hangs neither on labels nor on the solver's rate, and on r only where there is one before it
    recipe = Recipe(batch_size=method.recipe.batch_size, seed=method.recipe.seed)
    key = cell.part, t, replace(method, soft=False, share=method.share if t else None, recipe=recipe)
    if key in generators:
        return generators[key]
    started = time.perf_counter()
    memory = method.remember(model, task, memory)
    generators[key] = memory, time.perf_counter() - started
    return memory, 0.0


def bytes_kept(memory: object | None) -> int:
    """Of images what they would take as they were read; here they are floats."""
    if isinstance(memory, Exemplars | Seen):
        memory = replace(memory, images=replace(memory.images, pixels=memory.images.pixels.to(torch.uint8)))
    return bytes_of(memory)


def run(cell: Cell, seed: int, short: bool) -> dict[str, Any]:
    """All tasks one after the other: ``matrix[t][j]`` = test accuracy on task j after task t, among all classes so far."""
    train, tests = ([part.shots(20, 0) if short else part for part in tasks(cell.part, which, seed)]
                    for which in ("train", "test"))  # fmt: skip
    parts = [part.split(HELD, seed) for part in train]
    epochs = SPLIT if cell.part == "split" else RECIPE.epochs
    recipe = replace(RECIPE, seed=seed, epochs=1 if short else epochs)
    method = cell.method(recipe, 5 if short else 1 if cell.name == UNUSED else 2000)
    model, memory, matrix, shown, spared = empty(seed), None, [], [], 0.0
    drawing = cell.name == "generative replay" and seed == 0 and not short
    started = time.perf_counter()
    for t, (learnt, _) in enumerate(parts):
        task = Task(learnt.classes, learnt)
        model = method.extend(model, memory, task)
        if isinstance(method, GenerativeReplay) and t == len(parts) - 1 and not drawing:
            method = replace(method, drawing=1)  # nobody asks the last generator; its bytes are counted
        memory, less = remembered(cell, method, model, task, memory, t)
        spared += less
        matrix.append([right(model, tests[j]) for j in range(t + 1)])
        if isinstance(memory, Generative) and not memory.vectors:
            shown.append(
                drawn(memory.network(device()), 20, *_asked(memory, 20), torch.Generator().manual_seed(0)).cpu()
            )
    if drawing:
        picture(
            Path(__file__).parents[1] / "docs" / f"replay-{cell.part.replace(', ', '-').replace(' ', '-')}.png", shown
        )
    forget()
    return {
        "part": cell.part, "method": cell.name, "strength": cell.strength, "seed": seed,
        "held": sum(right(model, held) for _, held in parts) / len(parts),
        "last": sum(matrix[-1]) / len(parts), "first task": matrix[-1][0], "last task": matrix[-1][-1],
        "bytes": bytes_kept(memory), "n": sum(map(len, tests)), "seconds": time.perf_counter() - started + spared,
        "matrix": matrix,
    }  # fmt: skip


def _asked(memory: Generative, count: int) -> tuple[torch.Tensor | None]:
    return (torch.arange(count, device=device()) % len(memory.classes) if memory.conditional else None,)


def picture(path: Path, shown: list[torch.Tensor]) -> None:
    """What the generator draws from the same points after each task, a row a task."""
    rows = [torch.cat(list(part[:, 0]), 1) for part in shown]
    Image.fromarray((255 * torch.cat(rows)).clamp(0, 255).to(torch.uint8).numpy()).save(path)


@cache
def base() -> Any:
    return cifar()


def photos(cell: Cell, seed: int, short: bool) -> dict[str, Any]:
    """A trained network of ten classes extended once with ten others; what is remembered of its features stays."""
    bundle, (old_train, old_test), (new_train, new_test), _ = base()
    if short:
        old_train, old_test, new_test = old_train.shots(20, 0), old_test.shots(10, 0), new_test.shots(10, 0)
    old_train, old_held = old_train.split(HELD, seed)
    new_held, new_train = new_train.split(PHOTOS * len(new_train.classes) / len(new_train), seed)
    recipe = Recipe(epochs=1 if short else HEAD, batch_size=32, optimiser="adamw", seed=seed)
    method, model = cell.method(recipe, 5 if short else 4000), bundle.model.to(device())
    started = time.perf_counter()
    memory, spared = remembered(cell, method, model, Task(old_train.classes, old_train), None, 0)
    grown = method.extend(model, memory, Task(new_train.classes, new_train))
    seconds = time.perf_counter() - started + spared
    old, new, *held = (right(grown, images) for images in (old_test, new_test, old_held, new_held))
    return {
        "part": cell.part, "method": cell.name, "strength": cell.strength, "seed": seed, "held": harmonic(*held),
        "old before": right(model, old_test), "old": old, "new": new, "harmonic": harmonic(old, new),
        "bytes": bytes_kept(memory), "n": len(old_test) + len(new_test), "seconds": seconds,
    }  # fmt: skip


def chosen(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The rows of each method's strength that is best on held-out images, as the mean over seeds."""
    groups: dict[tuple[str, str], dict[float, list[dict[str, Any]]]] = {}
    for row in rows:
        groups.setdefault((row["part"], row["method"]), {}).setdefault(row["strength"], []).append(row)
    found = []
    for by_strength in groups.values():
        best = max(by_strength.values(), key=lambda own: sum(row["held"] for row in own) / len(own))
        found += [{key: value for key, value in row.items() if key != "matrix"} for row in best]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--only", choices=["split", "pair", "photos", "all"], default="all")
    parser.add_argument("--short", action="store_true", help="few images, one epoch, one strength; nothing is written")
    given = parser.parse_args()
    seeds = [int(word) for word in given.seeds.split(",")][: 1 if given.short else None]
    todo = {(*cell.key, seed): cell for seed in seeds for cell in cells(given.only)}
    if given.short:  # one strength of each
        todo = {key: todo[key] for key in {key[:2]: key for key in reversed(todo)}.values()}
    for key in todo if given.short else undone("replay", SAME, todo):
        cell, seed = todo[key], key[-1]
        try:
            row = (photos if cell.part == "photos" else run)(cell, seed, given.short)
        except InputError as error:  # of a loss that is no number; the other cells have their turn
            print(*key, error, flush=True)
            continue
        print({name: value for name, value in row.items() if name != "matrix"}, flush=True)
        if not given.short:
            add("replay", __doc__.split("\n\n")[2].replace("\n", " "), [row], same=SAME, chosen=chosen)


if __name__ == "__main__":
    main()
