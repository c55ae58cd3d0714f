"""LwM against LwF: accuracies and how far attention drifts, over the weight of attention, 0 included.

    python benchmarks/lwm.py                  # every cell and three seeds: some two hours of a core, reckoned
    python benchmarks/lwm.py --seeds 0
    python benchmarks/lwm.py --short          # does it run at all

CIFAR-10 in three tasks of four, three and three classes, a ResNet-8 from scratch whose last map is 8 x 8, one label space; no
image is kept. The later tasks' rate is that of 0.01, 0.003 and 0.001 at which LwF kept and learnt most on held-out training
images of another order of classes; at 0.01 a stronger LwF ends in no number. Drift: the attention distance itself, on test
images of the first task, between the network after the first task and after the last, of the class that the first favours (0
to about 11 for maps of 64 places); of those images of which neither map is empty, and of all whose earlier map is not, where
an empty later one counts as zeros. Empty: per cent of the images of which the earlier map is, and the later. Same: on which
the favoured class among the first ones is the same. Known: accuracies among the classes of an image's own task. With gamma 0
LwM is LwF bit for bit (tests/test_lwm.py), so that its row is a copy. Joint learns the later tasks at once. Every cell of a
seed starts from one first task, which is kept under ``benchmarks/runs``. A cell that is in the results is not run again; the
maps of seed 0 are drawn under docs/.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from record import add, data, kept, there, undone
from torch import Tensor

from classgraft import api
from classgraft.data.images import Images, Task
from classgraft.data.images import joined as both
from classgraft.data.sources import open_source
from classgraft.errors import InputError
from classgraft.evaluator.start import Start
from classgraft.extenders.finetune import Finetune
from classgraft.extenders.joint import Joint
from classgraft.extenders.lwf import LwF
from classgraft.extenders.lwm import LwM
from classgraft.losses.attention import silent
from classgraft.models.classifier import Classifier, frozen
from classgraft.models.sources import CIFAR
from classgraft.models.stages import Tapped
from classgraft.training.answers import answers, forget
from classgraft.training.attention import attended, attended_before, looked_at
from classgraft.training.engine import device, engine
from classgraft.training.recipe import Recipe
from classgraft.verbs import Extender

SIZES = (4, 3, 3)
GAMMAS = (0.0, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0)
COPY = "lwm, gamma 0"
"""Of "lwf"."""
FIRST = Recipe(epochs=60, batch_size=64, lr=0.1, weight_decay=5e-4)
LATER = Recipe(epochs=20, batch_size=64, lr=0.003, weight_decay=5e-4)
SHOWN = 8
"""Test images of the first task whose maps are drawn."""
SHORT = ("lwf", "lwm, gamma 0", "lwm, gamma 1", "joint")
DOCS = Path(__file__).parents[1] / "docs"


def methods(recipe: Recipe) -> dict[str, Extender]:
    """By name; LwM with gamma 0 is LwF without warm-up, bit for bit. Stronger LwF tells attention from holding more."""
    return {
        "finetune": Finetune(recipe=recipe),
        "lwf": LwF(warm_up=0.0, recipe=recipe),
        **{f"lwf, strength {strength:g}": LwF(strength, warm_up=0.0, recipe=recipe) for strength in (3.0, 10.0)},
        "lwf, warm-up": LwF(recipe=recipe),
        **{f"lwm, gamma {gamma:g}": LwM(attention=gamma, recipe=recipe) for gamma in GAMMAS},
        "lwm, gamma 1, no distillation": LwM(strength=0.0, recipe=recipe),
        "joint": Joint(recipe=replace(FIRST, seed=recipe.seed, epochs=min(FIRST.epochs, 3 * recipe.epochs))),
    }


@cache
def images(part: str) -> Images:
    return api.images_of(open_source(data() / "cifar10" / f"{part}.parquet"), CIFAR)


def groups(which: Images, seed: int) -> list[Images]:
    """The images of each task; the seed draws the order of the classes."""
    order = torch.randperm(10, generator=torch.Generator().manual_seed(1993 + seed)).tolist()
    ends = [sum(SIZES[: t + 1]) for t in range(len(SIZES))]
    return [
        which.of([which.classes[k] for k in order[end - size : end]]) for end, size in zip(ends, SIZES, strict=True)
    ]


@cache
def first(seed: int, short: bool) -> Classifier:
    """The network after the first task, one for all cells of a seed."""
    recipe = replace(FIRST, seed=seed, epochs=1 if short else FIRST.epochs)
    part = groups(some(images("train"), short), seed)[0]
    fresh = Start("cifar:resnet8").classifier(seed).to(device())

    def learn() -> Classifier:
        return Joint(recipe=recipe).extend(fresh, None, Task(part.classes, part))

    return learn() if short else kept(f"lwm/first-{seed}", fresh.grown(part.classes), learn, recipe, part.classes)


def some(which: Images, short: bool) -> Images:
    return which.shots(10, 0) if short else which


def right(model: Classifier, which: Images, among: bool = False) -> float:
    """Accuracy in per cent among all classes of the model, or among those of these images."""
    known = which.of(model.classes)
    logits = answers(model, known)
    if among:
        others = [k for k, name in enumerate(model.classes) if name not in which.classes]
        logits[:, others] = -torch.inf
    return 100 * float((logits.argmax(1) == known.labels).double().mean())


def looks(before: Classifier, after: Classifier, which: Images) -> tuple[Tensor, Tensor, Tensor]:
    """Maps (N, L) of both networks for the class that the first favours, and whether the second favours it among the old."""
    found: list[tuple[Tensor, Tensor, Tensor]] = []
    old, new = frozen(before), frozen(after)
    for index in torch.arange(len(which)).split(64):
        shown = which.view(index, device())
        layer = looked_at(old, "", shown[:1])
        _, favoured, earlier = attended_before(Tapped(old, layer), shown)
        logits, later = attended(Tapped(new, layer), shown.requires_grad_(True), favoured)
        found.append(
            (earlier.cpu(), later.detach().cpu(), logits[:, : len(before.classes)].argmax(1).eq(favoured).cpu())
        )
    earlier, later, same = (torch.cat(part) for part in zip(*found, strict=True))
    return earlier, later, same


def run(name: str, seed: int, short: bool) -> dict[str, Any]:
    """One row."""
    train, test = (groups(some(images(which), short), seed) for which in ("train", "test"))
    method = methods(replace(LATER, seed=seed, epochs=1 if short else LATER.epochs))[name]
    model = before = first(seed, short)
    memory = method.remember(model, Task(train[0].classes, train[0]), None)
    started = time.perf_counter()
    for part in [joined(train[1:])] if name == "joint" else train[1:]:
        task = Task(part.classes, part)
        model = method.extend(model, memory, task)
        memory = method.remember(model, task, memory)
    seconds = time.perf_counter() - started
    earlier, later, same = looks(before, model, test[0])
    empty, gone = silent(earlier), silent(later)
    there = ~(empty | gone)
    now, then = (F.normalize(maps, dim=1) * ~none[:, None] for maps, none in ((later, gone), (earlier, empty)))
    away = (now - then).abs().sum(1)
    found, known = ([right(model, part, among) for part in test] for among in (False, True))
    if seed == 0 and not short and name in ("lwf", "lwm, gamma 1", "finetune"):
        picture(DOCS / f"lwm-{name.replace(', ', '-').replace(' ', '-')}.png", test[0], earlier, later)
    forget()
    return {
        "method": name, "seed": seed, "n": sum(map(len, test)), "first before": right(before, test[0]),
        "first": found[0], "last": found[-1], "all": right(model, joined(test)), "first known": known[0],
        "all known": sum(value * len(part) for value, part in zip(known, test, strict=True)) / sum(map(len, test)),
        **({"drift": float(away[there].mean())} if there.any() else {}),
        **({"drift, empty counted": float(away[~empty].mean())} if not empty.all() else {}),
        "same": 100 * float(same.double().mean()), "empty before": 100 * float(empty.double().mean()),
        "empty after": 100 * float(gone.double().mean()), "seconds": seconds,
    }  # fmt: skip


def joined(parts: list[Images]) -> Images:
    found = parts[0]
    for part in parts[1:]:
        found = both(found, part)
    return found


def picture(path: Path, which: Images, earlier: Tensor, later: Tensor) -> None:
    """Images over where the network looked after the first task and after the last, bright where it looks."""
    places = torch.linspace(0, len(which) - 1, SHOWN).long()
    side = round(earlier.shape[1] ** 0.5)
    pixels = which.raw(places, torch.device("cpu"))
    size = 3 * pixels.shape[-1]
    rows = [torch.nn.functional.interpolate(pixels, size=size)]
    for maps in (earlier, later):
        bright = maps[places].view(-1, 1, side, side)
        bright = bright / bright.amax((2, 3), keepdim=True).clamp(min=1e-12)
        over = torch.nn.functional.interpolate(bright, size=size, mode="bilinear")
        rows.append((0.25 + 0.75 * over) * rows[0])
    sheet = torch.cat([torch.cat(list(row), 2) for row in rows], 1)
    Image.fromarray((255 * sheet).byte().permute(1, 2, 0).numpy()).save(path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--short", action="store_true", help="few images, one epoch, nothing is written")
    given = parser.parse_args()
    seeds = [int(word) for word in given.seeds.split(",")][: 1 if given.short else None]
    todo = [(name, seed) for seed in seeds for name in methods(LATER) if not given.short or name in SHORT]
    for name, seed in todo if given.short else undone("lwm", ("method", "seed"), todo):
        rows = there("lwm")["rows"] if name == COPY else []
        copied = [row for row in rows if (row["method"], row["seed"]) == ("lwf", seed)]
        try:
            with engine(precision="fp32", compile=False):  # second derivatives need it, so every row has it
                row = {**copied[0], "method": name} if copied else run(name, seed, given.short)
        except InputError as error:  # of a loss that is no number; the other cells have their turn
            print(name, seed, error, flush=True)
            continue
        print(row, flush=True)
        if not given.short:
            add("lwm", __doc__.split("\n\n")[2].replace("\n", " "), [row], same=("method", "seed"))


if __name__ == "__main__":
    main()
