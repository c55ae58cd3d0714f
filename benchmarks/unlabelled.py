"""A hundred or a thousand labels beside thousands of images without: self-training and its controls.

    python benchmarks/unlabelled.py                  # MNIST and CIFAR-10: some two and a half hours of a core each, reckoned
    python benchmarks/unlabelled.py --only mnist --seeds 0
    python benchmarks/unlabelled.py --short          # does it run at all

A cell is a row at a number of labels and a seed; one that is in the results is not run again. Labels are drawn by the seed,
as many of each class, and their places are stored; all other training images are unlabelled. Every row takes as many steps of
32 labelled images, beside 64 unlabelled ones where it uses any; generations of noisy student take so many each: they leave out
no image that the teacher is unsure of, which would shorten their epochs, but show every class equally often (a class that the
teacher never favours is missing, and its share of the steps). All rows are computed in one arithmetic. Every recipe is fixed
beforehand, and nothing is chosen on test images. Three seeds; ten of what meta pseudo labels is compared with, on MNIST with
100 labels. Nearest neighbour: the labelled image with the nearest pixels, without training. Robustness is accuracy on test
images under changes that no row trains on: noise, larger pixels, specks, and grey lines.

But for one: the first three rows of meta pseudo labels were at or near chance, for its teacher's agreement between views, at 8
times the weight of labels from the start, undid the teacher. Its weight, now rising to 1, was found on another draw of labels,
by 2,000 training images that learning saw without theirs, before any of the rows that are shown.
"""

from __future__ import annotations

import argparse
import re
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from record import add, data, there
from torch import Tensor, nn

from classgraft import api, teaching
from classgraft.data.images import Images
from classgraft.data.sources import open_source
from classgraft.models.cifar_resnet import build
from classgraft.models.classifier import Classifier, Head
from classgraft.models.preparation import Preparation
from classgraft.selftrainers.fixmatch import FixMatch
from classgraft.selftrainers.meta_pseudo_labels import MetaPseudoLabels
from classgraft.selftrainers.noisy_student import NoisyStudent
from classgraft.selftrainers.pseudo_labels import PseudoLabels
from classgraft.trainers.plain import Plain
from classgraft.training.answers import answers, forget
from classgraft.training.engine import device, part_of
from classgraft.training.recipe import Recipe

WHAT = (
    "ResNet-8 (the CIFAR form; on MNIST its head sees four by four places) on CIFAR-10 (JPEG) and MNIST; 100 or 1,000"
    " labels, all other training images without."
    " As many steps in every row, in each generation of noisy student. Every student starts from fresh weights, every teacher"
    " from the supervised network of the same labels. Nearest neighbour: by pixels, without training. The weight of"
    " meta pseudo labels' agreement between views was changed, on held-out training images, after its first rows were near"
    " chance; all else was fixed beforehand. Differences are paired by seed."
)
PREPARATIONS = {
    "mnist": Preparation(28, 28, (0.13,) * 3, (0.31,) * 3),
    "cifar10": Preparation(32, 32),
}
AUGMENT = {"mnist": "none", "cifar10": "crop-flip"}
STRONG = {"mnist": "randaugment+cutout", "cifar10": "crop-flip+randaugment+cutout"}
NOISE = {"mnist": "randaugment", "cifar10": "crop-flip+randaugment"}
LABELS = (100, 1000)
EPOCHS = {"mnist": 6, "cifar10": 12}
"""Passes over the unlabelled images, about 900 steps."""
BATCH, RATIO, GENERATIONS = 32, 2, 3
SEEDS = "0,1,2,3,4,5,6,7,8,9"
FEW = 3
"""Seeds of every row; those beyond are of what meta pseudo labels is compared with, on MNIST with 100 labels."""

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
    every: dict[str, Any] = {"generations": 1, "ratio": RATIO, "threshold": 0.0}
    still: dict[str, Any] = {"dropout": 0.0, "survival": 1.0, "smoothing": 0.0}
    guided: dict[str, Any] = {"strong": STRONG[of], "ratio": RATIO, "recipe": recipe}
    students: list[Classifier] = []

    def generation(number: int) -> Row:
        """Each learns from the one before, which is the same whether it was asked for or not."""

        def train(teacher: Classifier, student: Classifier, known: Images, free: Images) -> Classifier:
            while len(students) < number:
                own = replace(noisy, seed=noisy.seed + len(students))
                method = NoisyStudent(recipe=own, **every)
                students.append(method.train(students[-1] if students else teacher, student, known, free))
            return students[number - 1]

        return train

    return {
        "supervised, under the student's noise": NoisyStudent(strength=0.0, recipe=noisy, **every).train,
        "pseudo-labels": PseudoLabels(ratio=RATIO, recipe=recipe).train,
        "fixmatch": FixMatch(strong=STRONG[of], ratio=RATIO, recipe=recipe).train,
        "student without noise": NoisyStudent(recipe=recipe, **every, **still).train,
        **{f"noisy student, generation {number}": generation(number) for number in range(1, GENERATIONS + 1)},
        "meta pseudo labels": MetaPseudoLabels(**guided).train,
        "meta pseudo labels, no feedback": MetaPseudoLabels(feedback=0.0, **guided).train,
        "meta pseudo labels, wrong sign": MetaPseudoLabels(feedback=-1.0, **guided).train,
        "meta pseudo labels, shuffled": Shuffled(**guided).train,
    }


def upright(classes: tuple[str, ...]) -> Classifier:
    """ResNet-8 whose head sees the means of four by four parts: digits stand upright in the middle, and a mean over all
    places forgets where a stroke was (a hundred labels: half of the digits right, where the nearest neighbour has 72 %)."""
    net = build("resnet8", len(classes))
    stages = [net.conv1, net.bn1, nn.ReLU(), *(part for name, part in net.named_children() if name.startswith("layer"))]
    stages += [nn.AdaptiveAvgPool2d(4), nn.Flatten()]
    return Classifier(nn.Sequential(*stages), Head([nn.Linear(4 * 4 * net.num_features, len(classes))]), classes)


def fresh(of: str, classes: tuple[str, ...], seed: int) -> Classifier:
    if of == "mnist":
        torch.manual_seed(seed)
        return upright(classes).to(device())
    start = teaching.start("cifar:resnet8", classes, preparation=PREPARATIONS[of], seed=seed)
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


def wanted(of: str, row: str, labels: int, seed: int) -> bool:
    """Whether this seed is one of the row's."""
    compared = row == "supervised" or row.startswith("meta pseudo labels")
    return seed < FEW or (compared and (of, labels) == ("mnist", 100))


def nearest(known: Images, images: Images) -> Tensor:
    """The label (N,) of the labelled image whose pixels are nearest to each image's."""
    ours, theirs = (each.raw(torch.arange(len(each)), torch.device("cpu")).flatten(1) for each in (images, known))
    return known.labels[torch.cdist(ours, theirs).argmin(1)]


def favoured(model: Classifier, images: Images) -> Tensor:
    """The place (N,) of each image's favoured class."""
    return answers(model, images).argmax(1).cpu()


def measured(told: Callable[[Images], Tensor], tests: dict[str, Images]) -> dict[str, float]:
    found = {name: 100 * float((told(test) == test.labels).double().mean()) for name, test in tests.items()}
    changed = [value for name, value in found.items() if name != "clean"]
    return found | {"under corruption": sum(changed) / len(changed)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default=SEEDS)
    parser.add_argument("--only", choices=["mnist", "cifar10", "all"], default="all")
    parser.add_argument("--short", action="store_true", help="few images and one epoch, nothing is written")
    given = parser.parse_args()

    def done(of: str, row: str, labels: int, seed: int) -> bool:
        """Looked up in the file, for another process may fill it too."""
        rows = [] if given.short else there("unlabelled")["rows"]
        return any((each["set"], each["row"], each["labels"], each["seed"]) == (of, row, labels, seed) for each in rows)

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
                own = set(known.names)
                free = train.subset(torch.tensor([i for i, name in enumerate(train.names) if name not in own]))
                places = [int(re.findall(r"\d+", name)[-1]) for name in known.names]
                epochs = 1 if given.short else EPOCHS[of]
                recipe = Recipe(epochs, BATCH, lr=0.03, milestones=(), augment=AUGMENT[of], seed=seed)
                steps = epochs * -(-len(free) // (RATIO * BATCH))
                alone = replace(recipe, epochs=max(1, round(steps / -(-len(known) // BATCH))))
                every = rows_of(of, recipe)
                supervised: Classifier | None = None
                for name in ("nearest neighbour", "supervised", *every):
                    if not wanted(of, name, labels, seed) or done(of, name, labels, seed):
                        continue
                    started, told = time.perf_counter(), partial(nearest, known)
                    if name != "nearest neighbour":
                        with part_of((1 + RATIO) * steps * BATCH):  # one arithmetic for every row
                            if supervised is None:
                                supervised = Plain(recipe=alone).train(fresh(of, train.classes, seed), known)
                            model = supervised
                            if name in every:
                                started = time.perf_counter()
                                Shuffled.earlier.clear()
                                model = every[name](supervised, fresh(of, train.classes, seed + 1), known, free)
                        told = partial(favoured, model)
                    found = measured(told, tests)
                    row = {"set": of, "row": name, "labels": labels, "seed": seed}
                    row |= {"steps": steps * (name != "nearest neighbour"), **found}
                    row |= {"seconds": time.perf_counter() - started}
                    print(row, flush=True)
                    forget()
                    if not given.short:
                        sets = {f"{of} {labels} {seed}": places}
                        add("unlabelled", WHAT, [row], same=("set", "row", "labels", "seed"), n=len(test), sets=sets)


if __name__ == "__main__":
    main()
