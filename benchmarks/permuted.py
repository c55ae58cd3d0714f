"""Permuted MNIST, and Split MNIST with a head a task: what EWC, MAS and LwF keep, beside their controls.

    python benchmarks/permuted.py                  # every cell and three seeds: two to three hours on two cores
    python benchmarks/permuted.py --only split --seeds 0
    python benchmarks/permuted.py --short          # does it run at all

Five tasks each. A tenth of each task's training images is held out; the strength of a method is chosen on it, as the mean
over the seeds, and what is reported is the test accuracy at that strength. A cell that is in the results is not run again.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Any

import torch
from record import add, data, there
from torch import Tensor, nn

from classgraft import api
from classgraft.data.images import Images, Task
from classgraft.data.sources import open_source
from classgraft.extenders.ewc import EWC
from classgraft.extenders.joint import Joint
from classgraft.extenders.lwf import LwF
from classgraft.extenders.mas import MAS
from classgraft.models.classifier import Classifier, Head
from classgraft.models.preparation import Preparation
from classgraft.training.answers import answers, forget
from classgraft.training.engine import device
from classgraft.training.importance import Importance
from classgraft.training.recipe import Recipe
from classgraft.verbs import Extender

AS_IT_IS = Preparation(28, 28, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
RECIPE = Recipe(epochs=10, batch_size=128, optimiser="adamw", lr=1e-3, weight_decay=0.0, milestones=(), augment="none")
HELD = 0.1
SEEN = 200
"""Images of a task that a Fisher information is taken from; the exact one, with ten labels each, takes half a cell."""
WHAT = (
    "MNIST (1,000 training and 200 test images a class) in five tasks, a network of 784-400-400 weights. permuted: all ten"
    " classes under another order of the pixels in each task, one head; split: two classes a task, answers among the two."
    " The strength is chosen on a tenth of the training images, held out."
)


class Shuffled(EWC):
    """The control: the same importances, dealt out to each tensor's weights at random."""

    def remember(self, model: Classifier, task: Task, memory: object | None) -> Importance:
        kept = super().remember(model, task, memory)
        generator = torch.Generator().manual_seed(0)

        def dealt(part: Tensor) -> Tensor:
            return part.flatten()[torch.randperm(part.numel(), generator=generator)].view_as(part)

        return replace(kept, importance={name: dealt(part) for name, part in kept.importance.items()})


@dataclass(frozen=True)
class Cell:
    """A method at one strength."""

    protocol: str
    name: str
    strength: float
    method: Callable[..., Extender]

    @property
    def key(self) -> tuple[str, str, float]:
        return self.protocol, self.name, self.strength


def cells(only: str) -> Iterator[Cell]:
    """Every cell of the chosen protocols."""
    for protocol in ("permuted", "split"):
        if only not in (protocol, "all"):
            continue
        softmax: Any = "all" if protocol == "permuted" else "heads"
        yield Cell(protocol, "finetune", 0, lambda r, s=softmax: LwF(0.0, softmax=s, warm_up=0.0, recipe=r))
        yield Cell(protocol, "joint", 0, lambda r: Joint(recipe=r))
        for strength in (1e-5, 1e-4, 1e-3, 1e-2, 1e-1, 1.0):
            yield Cell(
                protocol, "l2", strength, lambda r, x=strength, s=softmax: EWC(x, "identity", softmax=s, recipe=r)
            )
        for strength in (1.0, 10.0, 100.0, 1e3, 1e4, *((1e5,) if protocol == "split" else ())):
            for fisher in ("exact", "sampled", "empirical"):
                yield Cell(protocol, f"ewc {fisher}", strength,
                           lambda r, x=strength, f=fisher, s=softmax: EWC(x, f, SEEN, softmax=s, recipe=r))  # fmt: skip
            yield Cell(protocol, "ewc online", strength,
                       lambda r, x=strength, s=softmax: EWC(x, images=SEEN, online=True, softmax=s, recipe=r))  # fmt: skip
            yield Cell(protocol, "ewc shuffled", strength,
                       lambda r, x=strength, s=softmax: Shuffled(x, images=SEEN, online=True, softmax=s, recipe=r))  # fmt: skip
        for strength in (1e6, 1e7, 1e8, 1e9) if protocol == "split" else ():  # the control is at its best there
            yield Cell(protocol, "ewc shuffled", strength,
                       lambda r, x=strength, s=softmax: Shuffled(x, images=SEEN, online=True, softmax=s, recipe=r))  # fmt: skip
        for strength in (1e-4, 1e-3, 1e-2, 1e-1, 1.0):
            yield Cell(protocol, "mas", strength, lambda r, x=strength, s=softmax: MAS(x, softmax=s, recipe=r))
        for strength in (0.3, 1.0, 3.0, 10.0):
            for warm_up in (0.0, 0.5) if protocol == "split" else (0.0,):  # there is no new row to warm up
                yield Cell(protocol, f"lwf warm-up {warm_up}", strength,
                           lambda r, x=strength, w=warm_up, s=softmax: LwF(x, softmax=s, warm_up=w, recipe=r))  # fmt: skip


def mnist(part: str, folder: str = "mnist") -> Images:
    """Floats of one channel; ``fashion_mnist`` likewise."""
    source = open_source(data() / folder / f"{part}.parquet")
    found = api.images_of(source, AS_IT_IS)
    return replace(found, pixels=found.pixels[:, :1].float() / 255)


def tasks_of(images: Images, protocol: str, seed: int, count: int) -> list[Images]:
    """The images of each task; the seed draws the order of pixels or of classes."""
    generator = torch.Generator().manual_seed(1993 + seed)
    if protocol == "split":
        order = torch.randperm(10, generator=generator).tolist()
        return [images.of([images.classes[k] for k in order[2 * t : 2 * t + 2]]) for t in range(count)]
    orders = [torch.randperm(784, generator=generator) for _ in range(count)]
    return [replace(images, pixels=images.pixels.flatten(1)[:, o].view(-1, 1, 28, 28)) for o in orders]


def empty(seed: int) -> Classifier:
    torch.manual_seed(seed)
    body = nn.Sequential(nn.Flatten(), nn.Linear(784, 400), nn.ReLU(), nn.Linear(400, 400), nn.ReLU())
    body.num_features = 400  # type: ignore[assignment]
    return Classifier(body, Head(), ()).eval().to(device())


def accuracy(model: Classifier, images: Images) -> float:
    """In per cent, among the classes of these images."""
    columns = [model.classes.index(name) for name in images.classes]
    found = answers(model, images)[:, columns].argmax(1)
    return 100 * float((found == images.labels).double().mean())


def run(cell: Cell, seed: int, train: Images, test: Images, recipe: Recipe, count: int) -> dict[str, Any]:
    """All tasks one after the other: ``matrix[t][j]`` = test accuracy on task j after task t."""
    parts = [part.split(HELD, seed) for part in tasks_of(train, cell.protocol, seed, count)]
    tests = tasks_of(test, cell.protocol, seed, count)
    method = cell.method(replace(recipe, seed=seed))
    model, memory, matrix = empty(seed), None, []
    started = time.perf_counter()
    for t, (learnt, _) in enumerate(parts):
        task = Task(learnt.classes, learnt)
        model = method.extend(model, memory, task)
        memory = method.remember(model, task, memory)
        matrix.append([accuracy(model, tests[j]) for j in range(t + 1)])
    held = [accuracy(model, part) for _, part in parts]
    forget()
    return {
        "protocol": cell.protocol, "method": cell.name, "strength": cell.strength, "seed": seed,
        "held": sum(held) / count, "average": sum(matrix[-1]) / count,
        "backward": sum(matrix[-1][j] - matrix[j][j] for j in range(count - 1)) / max(1, count - 1),
        "last task": matrix[-1][-1], "seconds": time.perf_counter() - started, "matrix": matrix,
    }  # fmt: skip


def chosen(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of each method the strength that is best on the held-out images, with its mean test accuracy."""
    groups: dict[tuple[str, str], dict[float, list[dict[str, Any]]]] = {}
    for row in rows:
        groups.setdefault((row["protocol"], row["method"]), {}).setdefault(row["strength"], []).append(row)
    found = []
    for (protocol, name), by_strength in groups.items():
        best = max(by_strength, key=lambda x: sum(r["held"] for r in by_strength[x]) / len(by_strength[x]))
        of_best = by_strength[best]
        means = {
            key: sum(r[key] for r in of_best) / len(of_best) for key in ("average", "backward", "last task", "seconds")
        }
        deviation = float(torch.tensor([r["average"] for r in of_best]).std()) if len(of_best) > 1 else 0.0
        found.append({"protocol": protocol, "method": name, "strength": best, "seeds": len(of_best), **means,
                      "deviation": deviation})  # fmt: skip
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--only", choices=["permuted", "split", "all"], default="all")
    parser.add_argument(
        "--short", action="store_true", help="two tasks of few images, one strength each; nothing is written"
    )
    given = parser.parse_args()
    train, test = mnist("train"), mnist("test")
    recipe, count = RECIPE, 5
    if given.short:
        train, recipe, count = train.shots(20, 0), replace(RECIPE, epochs=1), 2
    rows = [] if given.short else there("permuted")["rows"]
    done = {(row["protocol"], row["method"], row["strength"], row["seed"]) for row in rows}
    for seed in [int(part) for part in given.seeds.split(",")][: 1 if given.short else None]:
        for cell in cells(given.only):
            if (*cell.key, seed) in done or (given.short and cell.key[:2] in {key[:2] for key in done}):
                continue
            done.add((*cell.key, seed))
            rows.append(run(cell, seed, train, test, recipe, count))
            print({key: value for key, value in rows[-1].items() if key != "matrix"}, flush=True)
            if not given.short:
                rows = add("permuted", WHAT, rows, n={"train": len(train), "test": len(test)}, chosen=chosen)
    for row in chosen(rows):
        print(row)


if __name__ == "__main__":
    main()
