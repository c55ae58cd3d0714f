"""A hundred or a thousand labels beside thousands of images without: self-training and its controls.

    python benchmarks/unlabelled.py                  # MNIST and CIFAR-10, three seeds: four hours of a core
    python benchmarks/unlabelled.py --only mnist --seeds 0
    python benchmarks/unlabelled.py --short          # does it run at all

A cell is a row at a number of labels and a seed; one that is in the results is not run again. Labels are drawn by the seed,
as many of each class, and their places are stored; all other training images are unlabelled. Every row takes as many steps of
32 labelled images, beside 64 unlabelled ones where it uses any; generations of noisy student take so many each. Every recipe
is fixed beforehand, and nothing is chosen on test images. Robustness is accuracy on test images under changes that no row
trains on: noise, larger pixels, specks, and grey lines.
"""

from __future__ import annotations

import argparse
import json
import re
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from distill import residual
from record import RESULTS, data, write
from torch import Tensor

from classgraft import api, teaching
from classgraft.data.images import Images
from classgraft.data.sources import open_source
from classgraft.models.classifier import Classifier
from classgraft.models.preparation import Preparation
from classgraft.selftrainers.fixmatch import FixMatch
from classgraft.selftrainers.meta_pseudo_labels import MetaPseudoLabels
from classgraft.selftrainers.noisy_student import NoisyStudent
from classgraft.selftrainers.pseudo_labels import PseudoLabels
from classgraft.trainers.plain import Plain
from classgraft.training.answers import answers, forget
from classgraft.training.engine import device
from classgraft.training.recipe import Recipe

WHAT = (
    "ResNet-20 (the CIFAR form) on CIFAR-10 (JPEG), ResNet-8 on MNIST; 100 or 1,000 labels, all other training images without."
    " As many steps in every row, in each generation of noisy student. Every student starts from fresh weights, every teacher"
    " from the supervised network of the same labels."
)
PREPARATIONS = {
    "mnist": Preparation(28, 28, (0.13,) * 3, (0.31,) * 3),
    "cifar10": Preparation(32, 32),
}
AUGMENT = {"mnist": "none", "cifar10": "crop-flip"}
STRONG = {"mnist": "cutout", "cifar10": "crop-flip+randaugment+cutout"}
NOISE = {"mnist": "cutout", "cifar10": "crop-flip+randaugment"}
LABELS = (100, 1000)
EPOCHS = {"mnist": 6, "cifar10": 12}
"""Passes over the unlabelled images, about 900 steps."""
BATCH, RATIO, GENERATIONS = 32, 2, 3

Row = Callable[[Classifier, Classifier, Images, Images], Classifier]
"""From the supervised network, a fresh student, labelled and unlabelled images to a trained network."""


class Shuffled(MetaPseudoLabels):
    """The control: the feedback of some earlier step."""

    earlier: list[Tensor] = []  # noqa: RUF012

    def weighed(self, improvement: Tensor, square: Tensor) -> Tensor:
        self.earlier.append(super().weighed(improvement, square))
        return self.earlier[int(torch.randint(len(self.earlier), ()))]


def rows_of(of: str, recipe: Recipe) -> dict[str, Row]:
    """The rows beside the supervised one."""
    noisy = replace(recipe, augment=NOISE[of])
    still: dict[str, Any] = {"dropout": 0.0, "survival": 1.0, "smoothing": 0.0}
    guided: dict[str, Any] = {"strong": STRONG[of], "ratio": RATIO, "recipe": recipe}
    students: list[Classifier] = []

    def generation(number: int) -> Row:
        """Each learns from the one before, which is the same whether it was asked for or not."""

        def train(teacher: Classifier, student: Classifier, known: Images, free: Images) -> Classifier:
            while len(students) < number:
                own = replace(noisy, seed=noisy.seed + len(students))
                method = NoisyStudent(generations=1, ratio=RATIO, recipe=own)
                students.append(method.train(students[-1] if students else teacher, student, known, free))
            return students[number - 1]

        return train

    return {
        "supervised, under the student's noise": NoisyStudent(1, strength=0.0, ratio=RATIO, recipe=noisy).train,
        "pseudo-labels": PseudoLabels(ratio=RATIO, recipe=recipe).train,
        "fixmatch": FixMatch(strong=STRONG[of], ratio=RATIO, recipe=recipe).train,
        "student without noise": NoisyStudent(1, ratio=RATIO, recipe=recipe, **still).train,
        **{f"noisy student, generation {number}": generation(number) for number in range(1, GENERATIONS + 1)},
        "meta pseudo labels": MetaPseudoLabels(**guided).train,
        "meta pseudo labels, no feedback": MetaPseudoLabels(feedback=0.0, **guided).train,
        "meta pseudo labels, wrong sign": MetaPseudoLabels(feedback=-1.0, **guided).train,
        "meta pseudo labels, shuffled": Shuffled(**guided).train,
    }


def fresh(of: str, classes: tuple[str, ...], seed: int) -> Classifier:
    if of == "mnist":
        torch.manual_seed(seed)
        return residual((1, 1, 1), (16, 32, 64), classes).to(device())
    start = teaching.start("cifar:resnet20", classes, preparation=PREPARATIONS[of], seed=seed)
    return start.model.to(device())


def corrupted(images: Images) -> dict[str, Images]:
    """The test images under changes that no augmentation here makes."""
    pixels = images.pixels.float() / 255
    noise = torch.randn(pixels.shape, generator=torch.Generator().manual_seed(0))
    chance = torch.rand(len(pixels), 1, *pixels.shape[2:], generator=torch.Generator().manual_seed(1))
    small = F.interpolate(pixels, scale_factor=0.5, mode="area")
    kinds = {
        "noise": pixels + 0.1 * noise,
        "pixelated": F.interpolate(small, pixels.shape[-2:], mode="nearest"),
        "specks": pixels.masked_fill(chance < 0.03, 0.0).masked_fill(chance > 0.97, 1.0),
        "lines": pixels.index_fill(2, torch.arange(0, pixels.shape[2], 4), 0.5),
    }
    return {k: replace(images, pixels=(255 * v).round().clamp(0, 255).to(torch.uint8)) for k, v in kinds.items()}


def measured(model: Classifier, tests: dict[str, Images]) -> dict[str, float]:
    found = {
        name: 100 * float((answers(model, test).argmax(1).cpu() == test.labels).double().mean())
        for name, test in tests.items()
    }
    changed = [value for name, value in found.items() if name != "clean"]
    return found | {"under corruption": sum(changed) / len(changed)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--only", choices=["mnist", "cifar10", "all"], default="all")
    parser.add_argument("--short", action="store_true", help="few images and one epoch, nothing is written")
    given = parser.parse_args()
    path = RESULTS / "unlabelled.json"
    kept = json.loads(path.read_text("utf-8")) if path.exists() and not given.short else {}
    rows, sets = kept.get("rows", []), kept.get("sets", {})
    done = {(row["set"], row["row"], row["labels"], row["seed"]) for row in rows}
    seeds = [int(part) for part in given.seeds.split(",")][: 1 if given.short else None]
    for of in ("mnist", "cifar10") if given.only == "all" else (given.only,):
        train, test = (
            api.images_of(open_source(data() / of / f"{part}.parquet"), PREPARATIONS[of]) for part in ("train", "test")
        )
        if given.short:
            train, test = train.shots(20, 0), test.shots(3, 0)
        tests = {"clean": test} | corrupted(test)
        for labels in LABELS[:1] if given.short else LABELS:
            for seed in seeds:
                known = train.shots(labels // len(train.classes), seed)
                rest = sorted(set(train.names) - set(known.names), key=train.names.index)
                place = {name: i for i, name in enumerate(train.names)}
                free = train.subset(torch.tensor([place[name] for name in rest]))
                sets[f"{of} {labels} {seed}"] = [int(re.findall(r"\d+", name)[-1]) for name in known.names]
                epochs = 1 if given.short else EPOCHS[of]
                recipe = Recipe(epochs, BATCH, lr=0.03, milestones=(), augment=AUGMENT[of], seed=seed)
                steps = epochs * -(-len(free) // (RATIO * BATCH))
                alone = replace(recipe, epochs=max(1, round(steps / -(-len(known) // BATCH))))
                every = rows_of(of, recipe)
                if all((of, name, labels, seed) in done for name in ("supervised", *every)):
                    continue
                started = time.perf_counter()
                supervised = Plain(recipe=alone).train(fresh(of, train.classes, seed), known)
                for name, taught in {"supervised": None, **every}.items():
                    if (of, name, labels, seed) in done:
                        continue
                    model = supervised
                    if taught is not None:
                        started = time.perf_counter()
                        Shuffled.earlier.clear()
                        model = taught(supervised, fresh(of, train.classes, seed + 1), known, free)
                    rows.append({"set": of, "row": name, "labels": labels, "seed": seed, "steps": steps,
                                 **measured(model, tests), "seconds": time.perf_counter() - started})  # fmt: skip
                    print(rows[-1], flush=True)
                    forget()
                    if not given.short:
                        write("unlabelled", WHAT, n=len(test), sets=sets, rows=rows)


if __name__ == "__main__":
    main()
