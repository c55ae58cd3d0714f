"""A hundred or a thousand labels beside thousands of images without: self-training and its controls.

    python benchmarks/unlabelled.py                  # MNIST and CIFAR-10, three seeds: hours on a GPU
    python benchmarks/unlabelled.py --only mnist --seeds 0
    python benchmarks/unlabelled.py --short          # does it run at all

A cell is a row at a number of labels and a seed; one that is in the results is not run again. Labels are drawn by the seed,
as many of each class, and their places are stored; all other training images are unlabelled. Every recipe is fixed
beforehand, and nothing is chosen on test images. Robustness is accuracy on test images under changes that no row trains on.
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
from classgraft.verbs import SelfTrainer

WHAT = (
    "ResNet-20 (the CIFAR form) on MNIST and CIFAR-10 (JPEG), 100 or 1,000 labels, all other training images without;"
    " supervised: labels alone, as many steps. Every student starts from fresh weights, every teacher from the supervised"
    " network of the same labels."
)
PREPARATIONS = {
    "mnist": Preparation(28, 28, (0.13,) * 3, (0.31,) * 3),
    "cifar10": Preparation(32, 32),
}
AUGMENT = {"mnist": "none", "cifar10": "crop-flip"}
STRONG = {"mnist": "cutout", "cifar10": "crop-flip+randaugment+cutout"}
LABELS = (100, 1000)


class Shuffled(MetaPseudoLabels):
    """The control: the feedback of some earlier step."""

    earlier: list[Tensor] = []  # noqa: RUF012

    def weighed(self, improvement: Tensor, square: Tensor) -> Tensor:
        self.earlier.append(super().weighed(improvement, square))
        return self.earlier[int(torch.randint(len(self.earlier), ()))]


def methods(of: str, recipe: Recipe) -> dict[str, Callable[[], SelfTrainer]]:
    """The rows beside the supervised one."""
    strong = STRONG[of]
    noisy = replace(recipe, augment="crop-flip+randaugment" if of == "cifar10" else "cutout")
    guided: dict[str, Any] = {"strong": strong, "recipe": recipe}
    return {
        "pseudo-labels": lambda: PseudoLabels(recipe=recipe),
        "pseudo-labels of the supervised network": lambda: PseudoLabels(source="model", recipe=recipe),
        "fixmatch": lambda: FixMatch(strong=strong, recipe=recipe),
        "noisy student, 1 generation": lambda: NoisyStudent(generations=1, recipe=noisy),
        "noisy student, 3 generations": lambda: NoisyStudent(generations=3, recipe=noisy),
        "students without noise, 3 generations": lambda: NoisyStudent(
            generations=3, dropout=0.0, survival=1.0, smoothing=0.0, recipe=recipe
        ),
        "meta pseudo labels": lambda: MetaPseudoLabels(**guided),
        "meta pseudo labels, no feedback": lambda: MetaPseudoLabels(feedback=0.0, **guided),
        "meta pseudo labels, wrong sign": lambda: MetaPseudoLabels(feedback=-1.0, **guided),
        "meta pseudo labels, shuffled": lambda: Shuffled(**guided),
    }


def fresh(of: str, classes: tuple[str, ...], seed: int) -> Classifier:
    start = teaching.start("cifar:resnet20", classes, preparation=PREPARATIONS[of], seed=seed)
    return start.model.to(device())


def corrupted(images: Images) -> dict[str, Images]:
    """The test images under changes that no augmentation here makes."""
    pixels = images.pixels.float() / 255
    noise = torch.randn(pixels.shape, generator=torch.Generator().manual_seed(0))
    small = F.interpolate(pixels, scale_factor=0.5, mode="area")
    kinds = {
        "noise": pixels + 0.1 * noise,
        "pixelated": F.interpolate(small, pixels.shape[-2:], mode="nearest"),
        "blurred": F.avg_pool2d(pixels, 3, 1, 1, count_include_pad=False),
        "faded": 0.5 + 0.3 * (pixels - 0.5),
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
    parser.add_argument("--epochs", type=int, default=60, help="passes over the unlabelled images")
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
                epochs = 1 if given.short else given.epochs
                recipe = Recipe(epochs, 64, lr=0.03, milestones=(), augment=AUGMENT[of], seed=seed)
                steps = epochs * -(-len(free) // recipe.batch_size)
                alone = replace(recipe, epochs=max(1, steps // -(-len(known) // recipe.batch_size)))
                every = methods(of, recipe)
                if all((of, name, labels, seed) in done for name in ("supervised", *every)):
                    continue
                started = time.perf_counter()
                supervised = Plain(recipe=alone).train(fresh(of, train.classes, seed), known)
                for name, make in {"supervised": None, **every}.items():
                    if (of, name, labels, seed) in done:
                        continue
                    model = supervised
                    if make is not None:
                        started = time.perf_counter()
                        Shuffled.earlier.clear()
                        model = make().train(supervised, fresh(of, train.classes, seed + 1), known, free)
                    rows.append({"set": of, "row": name, "labels": labels, "seed": seed, **measured(model, tests),
                                 "seconds": time.perf_counter() - started})  # fmt: skip
                    print(rows[-1], flush=True)
                    forget()
                    if not given.short:
                        write("unlabelled", WHAT, epochs=given.epochs, sets=sets, rows=rows)


if __name__ == "__main__":
    main()
