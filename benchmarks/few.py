"""Few labelled images and nothing else: GLICO, AutoAugment and others beside a tuned baseline.

    python benchmarks/few.py                     # CIFAR-10 from scratch: some four hours of a core, reckoned
    python benchmarks/few.py --only flowers      # the ten flowers with an ImageNet body: some three hours, reckoned
    python benchmarks/few.py --pictures          # what is drawn alone: ten minutes
    python benchmarks/few.py --short             # does it run at all

A cell is a row of the table at a number of images a class and a seed; one that is in the results is not run again. The
labelled images are drawn by the seed and their places in the training table are stored. Learning rate and weight decay of
the plain baseline are chosen at one number of images, on a fifth of the labelled images of three seeds, held out (of five or
ten a class too few could be; the test images play no part): those beside the best so far are tried, until there are none.
All rows then train with these on all labelled images for the same number of steps. The rows "transductive" let the generator
see the test images without labels, for twice as many steps of its own, and stand for themselves. With a reach of 0 GLICO's
pictures are its images drawn again.

AutoAugment's policies were found by others with far more labels than there are here: that for CIFAR-10 with all 50,000 of it,
that for ImageNet (the flowers') with those of ImageNet. GLICO has the labelled images alone.
"""

from __future__ import annotations

import argparse
import json
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from record import RESULTS, add, data

from classgraft import api, teaching
from classgraft.bundle import Bundle
from classgraft.data.images import Images, joined
from classgraft.data.sources import open_source
from classgraft.errors import InputError
from classgraft.models.classifier import Classifier
from classgraft.models.preparation import Preparation
from classgraft.selftrainers.mixmatch import MixMatch
from classgraft.trainers.cosine import Cosine
from classgraft.trainers.glico import GLICO, TransductiveGLICO
from classgraft.trainers.plain import Plain
from classgraft.training.answers import answers, forget
from classgraft.training.engine import device
from classgraft.training.latent import Latent
from classgraft.training.recipe import Recipe

WHAT = (
    "CIFAR-10 (JPEG) at 32 pixels, ResNet-8 from scratch, and ten flowers at 128 pixels with an ImageNet MobileNetV2; rate"
    " and decay of the plain baseline (SGD; on the flowers AdamW) chosen on a fifth of the labelled images, the same steps for"
    " every row. AutoAugment's policies were found by others with all labels of CIFAR-10 and with those of ImageNet. Likeness:"
    " mean cosines of the generator's points of two images of one class, and of two classes; without a difference pictures"
    " between them say nothing of the class. Differences are paired by seed."
)
SHOTS = {"cifar10": (5, 10, 25, 50, 100), "flowers": (5, 10, 20)}
STEPS = {"cifar10": 1200, "flowers": 150}
DRAWING = {"cifar10": 2000, "flowers": 300}
"""Steps of GLICO's generator."""
OPTIMISER: dict[str, Literal["sgd", "adamw"]] = {"cifar10": "sgd", "flowers": "adamw"}
RATES = {"cifar10": (0.01, 0.03, 0.1, 0.3), "flowers": (1e-4, 3e-4, 1e-3)}
DECAYS = {"cifar10": (5e-4, 5e-3, 2e-2), "flowers": (0.01,)}
FIRST = {"cifar10": (0.03, 5e-3), "flowers": (3e-4, 0.01)}
"""Rate and decay that are tried first, then those beside the best."""
CHOSEN_AT = {"cifar10": 50, "flowers": 20}
"""Images a class at which rate and decay are chosen."""
CHOOSING = (0, 1, 2)
"""Seeds over which they are."""
POLICY = {"cifar10": "autoaugment", "flowers": "autoaugment-imagenet"}
BATCH = {"cifar10": 64, "flowers": 32}
"""Images a step."""
WIDTH = 64
"""Channels of the generator's smallest map, half the authors'."""


@dataclass(frozen=True)
class Cell:
    """What a row learns from."""

    of: str
    recipe: Recipe
    start: Bundle
    known: Images
    test: Images
    """For transductive rows alone."""
    drawing: int
    """Steps of the generator."""

    def moved(self, augment: str) -> Recipe:
        return replace(self.recipe, augment=augment.replace("autoaugment", POLICY[self.of]))


Train = Callable[[Cell], tuple[Classifier, Latent | None]]
"""To a trained network, and to what a generator learnt of the images."""


drawn: dict[tuple[Any, ...], Latent] = {}
"""What a generator learnt of some images; the rows that differ in augmentation or reach alone share it."""


def plain(augment: str) -> Train:
    return lambda cell: (Plain(recipe=cell.moved(augment)).train(cell.start.model, cell.known), None)


def glico(augment: str = "crop-flip", reach: float = 0.4, strength: float = 1.0) -> Train:
    def train(cell: Cell) -> tuple[Classifier, Latent]:
        model, known = cell.start.model, cell.known
        method = GLICO(width=WIDTH, drawing=cell.drawing, reach=reach, strength=strength, recipe=cell.moved(augment))
        latent = shared(("glico", strength), cell, lambda: method.learnt(model, known, len(known.classes)))
        return method.taught(model, known, latent), latent

    return train


def transductive(augment: str = "crop-flip") -> Train:
    def train(cell: Cell) -> tuple[Classifier, Latent]:
        model, known, test = cell.start.model, cell.known, cell.test
        method = TransductiveGLICO(width=WIDTH, drawing=2 * cell.drawing, recipe=cell.moved(augment))
        both = joined(known, replace(test, labels=torch.zeros_like(test.labels), classes=("",)))
        latent = shared(("transductive",), cell, lambda: method.learnt(model, both, len(known.classes)))
        own = replace(latent, points=latent.points[: len(known)], labels=latent.labels[: len(known)])
        return method.taught(model, known, latent), own

    return train


def shared(kind: tuple[Any, ...], cell: Cell, learn: Callable[[], Latent]) -> Latent:
    """Learnt once; only the last few are kept."""
    key = *kind, cell.known.fingerprint, cell.recipe.seed
    if key not in drawn:
        drawn[key] = learn()
        for old in list(drawn)[:-3]:
            del drawn[old]
    return drawn[key]


MAIN: dict[str, Train] = {
    "plain": plain("crop-flip"),
    "autoaugment": plain("crop-flip+autoaugment"),
    "glico": glico(),
    "glico + autoaugment": glico("crop-flip+autoaugment"),
}
AT_TEN: dict[str, Train] = {
    "glico, reach 0 (control)": glico(reach=0.0),
    "no augmentation": plain("none"),
    "cutout": plain("crop-flip+cutout"),
    "random erasing": plain("crop-flip+random-erasing"),
    "cosine": lambda cell: (Cosine(cell.recipe).train(cell.start.model, cell.known), None),
    "mixmatch, the labelled images as unlabelled": lambda cell: (
        MixMatch(recipe=cell.recipe).train(cell.start.model, cell.start.model, cell.known, cell.known),
        None,
    ),
    "glo (no class loss)": glico(strength=0.0),
    "transductive glico": transductive(),
    "transductive glico + autoaugment": transductive("crop-flip+autoaugment"),
}


def cells(of: str, short: bool) -> Iterator[tuple[str, str, int]]:
    """(set, row, images a class)."""
    for shots in SHOTS[of][:1] if short else SHOTS[of]:
        for name in MAIN | AT_TEN if short or (of, shots) == ("cifar10", 10) else MAIN:
            yield of, name, shots


def untrained(of: str, classes: tuple[str, ...], seed: int) -> Bundle:
    if of == "cifar10":
        bundle = teaching.start("cifar:resnet8", classes, seed=seed)
    else:
        weights = data() / "weights" / "mobilenetv2_100-imagenet.safetensors"
        own = Preparation(128, 144, (0.5,) * 3, (0.5,) * 3)  # timm's mean and deviation are of other weights
        bundle = teaching.start(
            "timm:mobilenetv2_100", classes, weights, arguments={"pad_type": "same"}, preparation=own, seed=seed
        )
    bundle.model.to(device())
    return bundle


def recipe(of: str, known: Images, lr: float, decay: float, seed: int, steps: int) -> Recipe:
    """Whole epochs, about as many steps whatever the number of images."""
    epochs = max(1, round(steps / -(-len(known) // BATCH[of])))
    return Recipe(epochs, BATCH[of], OPTIMISER[of], lr, weight_decay=decay, milestones=(), seed=seed)


def measured(model: Classifier, test: Images) -> dict[str, float]:
    best = answers(model, test).topk(5).indices.cpu()
    right = best == test.labels[:, None]
    return {"top-1": 100 * float(right[:, 0].double().mean()), "top-5": 100 * float(right.any(1).double().mean())}


def tuned(of: str, known: Images, seed: int, steps: int, pair: tuple[float, float]) -> float:
    """Held-out accuracy of the plain baseline at a rate and a decay; 0 where it diverges."""
    learnt, held = known.split(0.2, seed)
    start = untrained(of, known.classes, seed)
    try:
        model = Plain(recipe=recipe(of, learnt, *pair, seed, steps)).train(start.model, learnt)
    except InputError:
        return 0.0
    return measured(model, held)["top-1"]


def next_to(of: str, pair: tuple[float, float]) -> list[tuple[float, float]]:
    """The pair, and those a rate or a decay away from it."""
    rates, decays = RATES[of], DECAYS[of]
    i, j = rates.index(pair[0]), decays.index(pair[1])
    return [(lr, decay) for a, lr in enumerate(rates) for b, decay in enumerate(decays) if abs(a - i) + abs(b - j) <= 1]


def best(tried: list[dict[str, float]], of: str) -> tuple[float, float]:
    """The pair with the best mean of those that were tried at every seed; the first where there is none."""
    held = {(line["lr"], line["decay"], line["seed"]): line["held"] for line in tried}
    means = {
        (lr, decay): sum(held[lr, decay, seed] for seed in CHOOSING) / len(CHOOSING)
        for lr in RATES[of]
        for decay in DECAYS[of]
        if all((lr, decay, seed) in held for seed in CHOOSING)
    }
    return max(means, key=lambda pair: means[pair]) if means else FIRST[of]


def places(images: Images) -> list[Any]:
    """Where the labelled images stand in their table, or their files' names."""
    rows = [re.search(r"\[(\d+)\]$", name) for name in images.names]
    return [int(row[1]) if row else name for row, name in zip(rows, images.names, strict=True)]


def pictures(of: str, known: Images, start: Bundle, chosen: Recipe, short: bool) -> dict[str, Any]:
    """Pictures along great circles (PNG files under docs/), and the points of GLICO and of GLO by class."""
    from torchvision.utils import save_image

    maps: dict[str, Any] = {"labels": known.labels.tolist(), "classes": known.classes, "likeness": {}}
    for name, strength in (("glico", 1.0), ("glo", 0.0)):
        method = GLICO(width=WIDTH, strength=strength, drawing=4 if short else DRAWING[of], recipe=chosen)
        latent = method.learnt(start.model, known, len(known.classes))
        maps[name], maps["likeness"][name] = latent.plane().tolist(), latent.likeness()
        first = torch.stack([torch.nonzero(latent.labels == k)[0, 0] for k in range(len(known.classes))])
        second = latent.partner(first, torch.zeros(len(first), device=first.device))
        rows = latent.along(first, second, (0.0, 0.1, 0.2, 0.3, 0.4, 0.6, 0.8, 1.0)).cpu()
        real = known.raw(first.cpu(), torch.device("cpu"))
        grid = torch.cat([real[:, None], rows, known.raw(second.cpu(), torch.device("cpu"))[:, None]], 1)
        if not short:
            docs = RESULTS.parents[1] / "docs"
            save_image(grid.flatten(0, 1), docs / f"few-{of}-{name}.png", nrow=grid.shape[1])
    return maps


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--only", choices=list(SHOTS), default="cifar10")
    parser.add_argument(
        "--pictures", action="store_true", help="what GLICO and GLO draw of ten images a class, and no row"
    )
    parser.add_argument("--short", action="store_true", help="a few steps, nothing is written")
    given = parser.parse_args()
    of, short = given.only, given.short
    path = RESULTS / f"few-{of}.json"

    def kept() -> dict[str, Any]:
        """What the file has by now, for another process may fill it too."""
        return json.loads(path.read_text("utf-8")) if path.exists() and not short else {}

    steps = 4 if short else STEPS[of]
    seeds = [int(part) for part in given.seeds.split(",")][: 1 if short else None]
    where = data() / of
    names = ("train.parquet", "test.parquet") if of == "cifar10" else ("train", "test")
    classes = open_source(where / names[0]).classes
    preparation = untrained(of, classes, 0).preparation
    train, test = (api.images_of(open_source(where / name), preparation) for name in names)
    if short:
        test = test.shots(2, 0)
    n = {"train": len(train), "test": len(test)}

    def save(*rows: dict[str, Any], tried: Any = (), sets: Any = None, maps: Any = None) -> None:
        if not short:
            facts: dict[str, Any] = {
                "n": n,
                "steps": steps,
                "tried": list(tried),
                "sets": sets or {},
                "maps": maps or {},
            }
            add(path.stem, WHAT, list(rows), None, ("row", "shots", "seed") if rows else (), **facts)

    if "likeness" not in (kept().get("maps") or {}):
        known = train.shots(10, seeds[0])
        save(maps=pictures(of, known, untrained(of, classes, 0), Recipe(1, BATCH[of]), short))
    if given.pictures:
        return
    if short:
        print("held out", tuned(of, train.shots(10, 0), 0, steps, FIRST[of]))
    tried = [] if short else choose(of, seeds, kept, train, save)
    lr, decay = best(tried, of)
    for _, name, shots in cells(of, short):
        for seed in seeds:
            if any((row["row"], row["shots"], row["seed"]) == (name, shots, seed) for row in kept().get("rows", ())):
                continue
            known, started = train.shots(shots, seed), time.perf_counter()
            start, chosen = untrained(of, classes, seed), recipe(of, known, lr, decay, seed, steps)
            cell = Cell(of, chosen, start, known, test, 4 if short else DRAWING[of])
            model, latent = (MAIN | AT_TEN)[name](cell)
            row = {"row": name, "shots": shots, "seed": seed, "lr": lr, "decay": decay, **measured(model, test)}
            row |= {"likeness": latent.likeness()} if latent else {}
            row |= {"seconds": time.perf_counter() - started}
            print(row, flush=True)
            forget()
            save(row, sets={f"{shots} {seed}": places(known)})


def choose(
    of: str, seeds: list[int], kept: Callable[[], dict[str, Any]], train: Images, save: Callable[..., None]
) -> list[dict[str, float]]:
    """Rates and decays beside the best so far are tried, until there are none left; all lines are returned.

    Seeds of this process come first, and others' from the end, so that two processes do not do the same.
    """
    while True:
        tried: list[dict[str, float]] = kept().get("tried", [])
        done = {(line["lr"], line["decay"], line["seed"]) for line in tried}
        todo = [(*pair, seed) for pair in next_to(of, best(tried, of)) for seed in CHOOSING]
        todo = [line for line in todo if line not in done]
        todo = [line for line in todo if line[2] in seeds] or todo[::-1]
        if not todo:
            return tried
        lr, decay, seed = todo[0]
        started = time.perf_counter()
        held = tuned(of, train.shots(CHOSEN_AT[of], seed), seed, STEPS[of], (lr, decay))
        line = {"seed": seed, "lr": lr, "decay": decay, "held": held, "seconds": time.perf_counter() - started}
        print(line, flush=True)
        save(tried=[line])


if __name__ == "__main__":
    main()
