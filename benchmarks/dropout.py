"""Dropout against forgetting: what can be had of an old task and a new one, over random configurations.

    python benchmarks/dropout.py           # three pairs, four arms, ten configurations each: three to four hours on one core
    python benchmarks/dropout.py --pairs reformatted --configurations 25
    python benchmarks/dropout.py --short   # does it run at all

After Goodfellow, Mirza, Xiao, Courville, Bengio: An Empirical Investigation of Catastrophic Forgetting in Gradient-Based
Neural Networks, arXiv 1312.6211. A network of two hidden layers learns an old task until its error on held-out images has
not fallen for some epochs, and from its best weights the new task until the sum of both errors has not. Arms: plain or with
dropout (0.2 of the pixels, 0.5 of the hidden units), rectifiers or maxout; rows of weights have a greatest length. Width,
rate, greatest length and scale of the first weights are drawn, for each arm its own. Pairs: MNIST and its pixels in another
order (reformatted), five digits and the other five on the same five outputs (similar), MNIST and Fashion-MNIST on the same
ten (dissimilar). The frontier of an arm is of all its epochs on the new task and of before the first, chosen on held-out
images; its area is of the test errors there, the share of the unit square that it does not reach: lower is better. Runs in
the results stay.
"""

from __future__ import annotations

import argparse
import copy
import math
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cache, lru_cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from permuted import mnist
from record import add, there, undone
from torch import Tensor, nn

from classgraft.data.images import Images
from classgraft.errors import InputError
from classgraft.metrics.tradeoff import frontier, unreached
from classgraft.models.classifier import Classifier, Head
from classgraft.training.answers import asked
from classgraft.training.batches import Epochs
from classgraft.training.engine import device
from classgraft.training.loop import Batch, Terms, descend, run, train_mode
from classgraft.training.recipe import Recipe

PAIRS = ("reformatted", "similar", "dissimilar")
ARMS = ("plain, ReLU", "dropout, ReLU", "plain, maxout", "dropout, maxout")
PIECES = 2
"""Linear pieces of a maxout unit."""
SAME = ("pair", "arm", "number")
EPOCHS, PATIENCE = 150, 10
"""At most; and without a smaller held-out error (the paper: 100 without one)."""


class Maxout(nn.Module):
    """The largest of each group of ``PIECES``: (B, PIECES * H) to (B, H)."""

    def forward(self, given: Tensor) -> Tensor:
        largest: Tensor = given.unflatten(1, (-1, PIECES)).amax(2)
        return largest


@dataclass(frozen=True)
class Configuration:
    """What is drawn."""

    width: int
    rate: float
    longest: float
    """Greatest length of a row of weights."""
    scale: float
    """Of the first weights, relative to those of He and others."""

    @staticmethod
    def drawn(arm: str, number: int) -> Configuration:
        random = np.random.default_rng([1312, 6211, ARMS.index(arm), number])
        width, rate = (10 ** random.uniform(*ends) for ends in ((2.0, 2.9), (-3.0, -1.0)))
        return Configuration(round(width), float(rate), float(random.uniform(1, 4)), float(random.uniform(0.5, 1.5)))


def network(arm: str, given: Configuration, outputs: int, seed: int) -> Classifier:
    dropped, pieces = arm.startswith("dropout"), PIECES if arm.endswith("maxout") else 1
    act = Maxout if pieces > 1 else nn.ReLU
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        parts: list[nn.Module] = [nn.Flatten(), nn.Dropout(0.2 * dropped)]
        for inside in (784, given.width):
            parts += [nn.Linear(inside, pieces * given.width), act(), nn.Dropout(0.5 * dropped)]
        head = nn.Linear(given.width, outputs)
        for part in parts:
            if isinstance(part, nn.Linear):
                nn.init.normal_(part.weight, std=given.scale * math.sqrt(2 / part.in_features))
                nn.init.zeros_(part.bias)
        nn.init.zeros_(head.weight)
        return Classifier(nn.Sequential(*parts), Head([head]), tuple(map(str, range(outputs)))).to(device())


digits = cache(mnist)


def pair(name: str, which: str, seed: int) -> tuple[Images, Images]:
    """The images of the old task and of the new one, under the same names."""
    images = digits(which)
    if name == "reformatted":
        order = torch.randperm(784, generator=torch.Generator().manual_seed(1993 + seed))
        return images, replace(images, pixels=images.pixels.flatten(1)[:, order].view(-1, 1, 28, 28))
    if name == "similar":
        first, second = (images.of(images.classes[k : k + 5]) for k in (0, 5))
        return first, replace(second, classes=first.classes)
    return images, replace(digits(which, "fashion_mnist"), classes=images.classes)


def error(model: Classifier, images: Images) -> float:
    shown = images.pixels.to(device())
    return float((asked(model, shown).argmax(1).cpu() != images.labels).double().mean())


def taught(
    model: Classifier, images: Images, watched: list[Images], counted: int, recipe: Recipe, longest: float
) -> list[list[float]]:
    """Errors on each of the watched sets after every epoch, up to ``PATIENCE`` after the least sum of the first ``counted``.

    The model ends with its weights at that least sum.
    """
    found: list[list[float]] = []
    best: dict[str, Tensor] = {}

    def objective(batch: Batch) -> Terms:
        return {"class": F.cross_entropy(model(batch.images), batch.targets)}

    step = descend(objective, [model], recipe)
    rows = [part.weight for part in model.modules() if isinstance(part, nn.Linear)]

    def take(batch: Batch) -> Terms:
        terms = step.take(batch)
        with torch.no_grad():
            for weight in rows:
                weight.mul_((longest / weight.norm(dim=1, keepdim=True).clamp(min=1e-12)).clamp(max=1))
        return terms

    def least() -> int:
        sums = [sum(errors[:counted]) for errors in found]
        return sums.index(min(sums))

    def measure() -> bool:
        """Whether to go on."""
        found.append([error(model, each) for each in watched])
        if least() == len(found) - 1:
            best.update(copy.deepcopy(model.state_dict()))
        return len(found) - 1 - least() < PATIENCE

    epochs, going = Epochs(images, recipe, device()), [True]

    def epoch_of(epoch: int) -> Iterator[Batch]:
        if epoch and going[0]:
            going[0] = measure()
        if going[0]:
            yield from epochs(epoch)

    train_mode(model)
    run(replace(step, take=take), epoch_of, recipe)
    if going[0]:
        measure()
    model.load_state_dict(best)
    model.eval()
    return found


def parts(name: str, short: bool) -> tuple[list[Images], list[Images]]:
    """Of the old task and of the new one: images to learn from, held-out ones, test images."""
    found = []
    for train, test in zip(*(pair(name, which, 0) for which in ("train", "test")), strict=True):
        train, test = (train.shots(20, 0), test.shots(10, 0)) if short else (train, test)
        found.append([*train.split(0.1, 0), test])
    return found[0], found[1]


def recipe_of(given: Configuration, number: int, short: bool) -> Recipe:
    return Recipe(2 if short else EPOCHS, 100, "sgd", given.rate, 0.9, weight_decay=0.0, milestones=(1.0,), augment="none",
                  seed=number)  # fmt: skip


@lru_cache(2 * len(ARMS))
def taught_first(name: str, arm: str, number: int, short: bool) -> tuple[Classifier, list[list[float]], float]:
    """A network that knows the old task of a pair, its errors after every epoch, and the seconds that it took."""
    given, (old, held, test) = Configuration.drawn(arm, number), parts(name, short)[0]
    model, began = network(arm, given, len(old.classes), number), time.perf_counter()
    errors = taught(model, old, [held, test], 1, recipe_of(given, number, short), given.longest)
    return model, errors, time.perf_counter() - began


def measured(name: str, arm: str, number: int, short: bool) -> dict[str, Any]:
    """One configuration: both tasks, and errors of both before the first epoch on the new one and after every one."""
    given, ((_, old_held, old_test), (new, new_held, new_test)) = Configuration.drawn(arm, number), parts(name, short)
    # the old task of two pairs is the same
    known, before, seconds = taught_first("similar" if name == "similar" else "reformatted", arm, number, short)
    model, watched, began = copy.deepcopy(known), [old_held, new_held, old_test, new_test], time.perf_counter()
    start = [error(model, images) for images in watched]
    after = taught(model, new, watched, 2, recipe_of(given, number, short), given.longest)
    return {
        "pair": name, "arm": arm, "number": number, "width": given.width, "rate": given.rate, "longest": given.longest,
        "scale": given.scale, "parameters": sum(p.numel() for p in model.parameters()), "n": len(old_test) + len(new_test),
        "old alone": min(before)[1], "epochs": [len(before), len(after)], "seconds": time.perf_counter() - began + seconds,
        "errors": [start, *after],
    }  # fmt: skip


def summaries(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of each pair and arm: the frontier's test errors, its area, and the run with the least sum of held-out errors."""
    found = []
    for name, arm in dict.fromkeys((row["pair"], row["arm"]) for row in rows):
        own = [row for row in rows if (row["pair"], row["arm"]) == (name, arm)]
        errors = torch.tensor([point for row in own for point in row["errors"]], dtype=torch.float64)
        of_row = [row for row in own for _ in row["errors"]]
        reached = errors[frontier(errors[:, :2]), 2:]
        best = int(errors[:, :2].sum(1).argmin())
        found.append({
            "pair": name, "arm": arm, "configurations": len(own), "area": unreached(reached),
            "frontier": reached[frontier(reached)].tolist(), "old": float(errors[best, 2]), "new": float(errors[best, 3]),
            "width": of_row[best]["width"], "parameters": of_row[best]["parameters"],
        })  # fmt: skip
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", nargs="*", choices=PAIRS, default=list(PAIRS))
    parser.add_argument("--configurations", type=int, default=10, help="of each arm and pair")
    parser.add_argument(
        "--short", action="store_true", help="one configuration, few images and epochs, nothing is written"
    )
    given = parser.parse_args()
    numbers = range(1 if given.short else given.configurations)
    todo = [(name, arm, number) for number in numbers for name in given.pairs for arm in ARMS]
    rows: list[dict[str, Any]] = []
    for name, arm, number in todo if given.short else undone("dropout", SAME, todo):
        try:
            rows.append(measured(name, arm, number, given.short))
        except InputError as problem:  # of a loss that is no number; the other runs have their turn
            print(name, arm, number, problem, flush=True)
            continue
        print({key: value for key, value in rows[-1].items() if key != "errors"}, flush=True)
        if not given.short:
            what = " ".join(part.replace("\n", " ") for part in __doc__.split("\n\n")[2:]).strip()
            add("dropout", what, rows, same=SAME, summaries=summaries)
    for line in summaries(rows if given.short else there("dropout")["rows"]):
        print(line)


if __name__ == "__main__":
    main()
