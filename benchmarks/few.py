"""Few labelled images and nothing else: GLICO, AutoAugment and others beside a tuned baseline.

    python benchmarks/few.py                     # CIFAR-10 from scratch: four hours of a core
    python benchmarks/few.py --only flowers      # the ten flowers with an ImageNet body
    python benchmarks/few.py --pictures          # what is drawn alone: ten minutes
    python benchmarks/few.py --short             # does it run at all

A cell is a row of the table at a number of images a class and a seed; one that is in the results is not run again. The
labelled images are drawn by the seed and their places in the training table are stored. Learning rate and weight decay of
the plain baseline are chosen at one number of images, on a fifth of the labelled images of three seeds, held out (of five or
ten a class too few could be; the test images play no part); all rows then train with these on all labelled images for the
same number of steps. The rows "transductive" let the generator see the test images without labels, for twice as many steps
of its own, and stand for themselves.
"""

from __future__ import annotations

import argparse
import json
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import torch
from record import RESULTS, data, write

from classgraft import api, teaching
from classgraft.bundle import Bundle
from classgraft.data.images import Images, joined
from classgraft.data.sources import open_source
from classgraft.models.classifier import Classifier
from classgraft.selftrainers.mixmatch import MixMatch
from classgraft.trainers.cosine import Cosine
from classgraft.trainers.glico import GLICO, TransductiveGLICO
from classgraft.trainers.plain import Plain
from classgraft.training.answers import answers, forget
from classgraft.training.engine import device
from classgraft.training.latent import Latent
from classgraft.training.recipe import Recipe

Train = Callable[[Recipe, Bundle, Images, Images], Classifier]
"""From a recipe, an untrained bundle, the labelled images and the test images (for transductive rows alone)."""
WHAT = (
    "CIFAR-10 (JPEG) at 32 pixels, ResNet-20 from scratch, and ten flowers at 224 pixels with an ImageNet MobileNetV2; rate"
    " and decay of the plain baseline chosen on a fifth of the labelled images, the same steps for every row."
)
SHOTS = {"cifar10": (5, 10, 25, 50, 100), "flowers": (5, 10, 20)}
STEPS = {"cifar10": 1200, "flowers": 300}
DRAWING = {"cifar10": 2000, "flowers": 300}
"""Steps of GLICO's generator."""
GRID = {
    "cifar10": [(lr, decay) for lr in (0.03, 0.1) for decay in (5e-4, 5e-3)],
    "flowers": [(0.03, 5e-4), (0.1, 5e-4)],
}
CHOSEN_AT = {"cifar10": 50, "flowers": 20}
"""Images a class at which rate and decay are chosen, over three seeds."""
BATCH, WIDTH = 64, 64
"""Images a step; channels of the generator's smallest map, half the authors'."""


drawn: dict[tuple[str, str], Latent] = {}
"""What a generator learnt of some images; the rows that differ in augmentation alone share it."""


def plain(augment: str) -> Train:
    return lambda r, b, known, _: Plain(recipe=replace(r, augment=augment)).train(b.model, known)


def glico(augment: str = "crop-flip", **fields: Any) -> Train:
    def train(r: Recipe, b: Bundle, known: Images, test: Images) -> Classifier:
        method = GLICO(width=WIDTH, drawing=steps_of(b), recipe=replace(r, augment=augment), **fields)
        return method.taught(
            b.model, known, shared(repr(fields), known, lambda: method.learnt(b.model, known, len(b.classes)))
        )

    return train


def transductive(augment: str = "crop-flip") -> Train:
    def train(r: Recipe, b: Bundle, known: Images, test: Images) -> Classifier:
        method = TransductiveGLICO(width=WIDTH, drawing=2 * steps_of(b), recipe=replace(r, augment=augment))
        both = joined(known, replace(test, labels=torch.zeros_like(test.labels), classes=("",)))
        return method.taught(
            b.model, known, shared("transductive", known, lambda: method.learnt(b.model, both, len(b.classes)))
        )

    return train


def shared(kind: str, known: Images, learn: Callable[[], Latent]) -> Latent:
    """Learnt once; only the last few are kept."""
    key = kind, known.fingerprint
    if key not in drawn:
        drawn[key] = learn()
        for old in list(drawn)[:-3]:
            del drawn[old]
    return drawn[key]


def steps_of(bundle: Bundle) -> int:
    return DRAWING["flowers" if bundle.preparation.size > 32 else "cifar10"]


MAIN: dict[str, Train] = {
    "plain": plain("crop-flip"),
    "autoaugment": plain("crop-flip+autoaugment"),
    "glico": glico(),
    "glico + autoaugment": glico("crop-flip+autoaugment"),
}
AT_TEN: dict[str, Train] = {
    "no augmentation": plain("none"),
    "cutout": plain("crop-flip+cutout"),
    "random erasing": plain("crop-flip+random-erasing"),
    "cosine": lambda r, b, known, _: Cosine(r).train(b.model, known),
    "mixmatch, the labelled images as unlabelled": lambda r, b, known, _: MixMatch(recipe=r).train(
        b.model, b.model, known, known
    ),
    "glo (no class loss)": glico(strength=0.0),
    "transductive glico": transductive(),
    "transductive glico + autoaugment": transductive("crop-flip+autoaugment"),
}


def cells(of: str, short: bool) -> Iterator[tuple[str, str, int]]:
    """(set, row, images a class)."""
    for shots in SHOTS[of][:1] if short else SHOTS[of]:
        for name in MAIN if shots != 10 or of == "flowers" else MAIN | AT_TEN:
            yield of, name, shots


def untrained(of: str, classes: tuple[str, ...], seed: int) -> Bundle:
    if of == "cifar10":
        bundle = teaching.start("cifar:resnet20", classes, seed=seed)
    else:
        weights = data() / "weights" / "mobilenetv2_100-imagenet.safetensors"
        bundle = teaching.start("timm:mobilenetv2_100", classes, weights, arguments={"pad_type": "same"}, seed=seed)
    bundle.model.to(device())
    return bundle


def recipe(of: str, known: Images, lr: float, decay: float, seed: int, steps: int) -> Recipe:
    """Whole epochs, about as many steps whatever the number of images."""
    pretrained = of == "flowers"
    epochs = max(1, round(steps / -(-len(known) // BATCH)))
    return Recipe(epochs, BATCH, lr=lr / 10 if pretrained else lr, weight_decay=decay, milestones=(), seed=seed)


def measured(model: Classifier, test: Images) -> dict[str, float]:
    best = answers(model, test).topk(5).indices.cpu()
    right = best == test.labels[:, None]
    return {"top-1": 100 * float(right[:, 0].double().mean()), "top-5": 100 * float(right.any(1).double().mean())}


def tuned(of: str, known: Images, seed: int, steps: int, grid: list[tuple[float, float]]) -> list[dict[str, float]]:
    """Held-out accuracy of the plain baseline at every rate and decay."""
    learnt, held = known.split(0.2, seed)
    found = []
    for lr, decay in grid:
        start = untrained(of, known.classes, seed)
        model = Plain(recipe=recipe(of, learnt, lr, decay, seed, steps)).train(start.model, learnt)
        found.append({"lr": lr, "decay": decay, "held": measured(model, held)["top-1"]})
    return found


def places(images: Images) -> list[Any]:
    """Where the labelled images stand in their table, or their files' names."""
    rows = [re.search(r"\[(\d+)\]$", name) for name in images.names]
    return [int(row[1]) if row else name for row, name in zip(rows, images.names, strict=True)]


def pictures(of: str, known: Images, start: Bundle, chosen: Recipe, short: bool) -> dict[str, Any]:
    """Pictures along great circles (PNG files under docs/), and the points of GLICO and of GLO by class."""
    from torchvision.utils import save_image

    maps: dict[str, Any] = {"labels": known.labels.tolist(), "classes": known.classes}
    for name, strength in (("glico", 1.0), ("glo", 0.0)):
        method = GLICO(width=WIDTH, strength=strength, drawing=20 if short else steps_of(start), recipe=chosen)
        latent = method.learnt(start.model, known, len(known.classes))
        maps[name] = latent.plane().tolist()
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
    path = RESULTS / f"few-{given.only}.json"
    kept = json.loads(path.read_text("utf-8")) if path.exists() and not given.short else {}
    rows, tried, sets = kept.get("rows", []), kept.get("tried", []), kept.get("sets", {})
    done = {(row["row"], row["shots"], row["seed"]) for row in rows}
    steps, grid = (4, GRID[given.only][:2]) if given.short else (STEPS[given.only], GRID[given.only])
    seeds = [int(part) for part in given.seeds.split(",")][: 1 if given.short else None]

    where = data() / given.only
    names = ("train.parquet", "test.parquet") if given.only == "cifar10" else ("train", "test")
    classes = open_source(where / names[0]).classes
    preparation = untrained(given.only, classes, 0).preparation
    train, test = (api.images_of(open_source(where / name), preparation) for name in names)
    if given.short:
        test = test.shots(2, 0)

    def save() -> None:
        if not given.short:
            facts = {"steps": steps, "tried": tried, "sets": sets, "maps": kept.get("maps"), "rows": rows}
            write(f"few-{given.only}", WHAT, n={"train": len(train), "test": len(test)}, **facts)

    if kept.get("maps") is None:
        known = train.shots(10, seeds[0])
        kept["maps"] = pictures(given.only, known, untrained(given.only, classes, 0), Recipe(1, BATCH), given.short)
        save()
    if given.pictures:
        return
    for seed in (0,) if given.short else (0, 1, 2):
        if not any(line["seed"] == seed for line in tried):
            known = train.shots(CHOSEN_AT[given.only], seed)
            tried += [{"seed": seed, **line} for line in tuned(given.only, known, seed, steps, grid)]
            save()
    held = {pair: sum(line["held"] for line in tried if (line["lr"], line["decay"]) == pair) for pair in grid}
    lr, decay = max(held, key=lambda pair: held[pair])
    for of, name, shots in cells(given.only, given.short):
        for seed in seeds:
            if (name, shots, seed) in done:
                continue
            known, start, started = train.shots(shots, seed), untrained(of, classes, seed), time.perf_counter()
            sets.setdefault(f"{shots} {seed}", places(known))
            chosen = recipe(of, known, lr, decay, seed, steps)
            model = (MAIN | AT_TEN)[name](chosen, start, known, test)
            rows.append({"row": name, "shots": shots, "seed": seed, "lr": lr, "decay": decay, **measured(model, test),
                         "seconds": time.perf_counter() - started})  # fmt: skip
            print(rows[-1], flush=True)
            forget()
            save()


if __name__ == "__main__":
    main()
