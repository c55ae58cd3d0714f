"""Images a second of our fine-tuning, LwF and EWC, of the bare loop and of Avalanche 0.6, and where the hardware ends.

    python benchmarks/speed.py            # half an hour; on a quiet machine
    python benchmarks/speed.py --short    # does it run at all

Same model, images, batch size and augmentation. Avalanche gets an environment of its own, made with uv in a temporary
folder (or named with ``--avalanche PYTHON``), and the best of 0, 1 and 2 loader workers. All contenders take turns at an
epoch; one process computes at a time.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from bare import stepper, turn
from interleaved import Contender, rates, tell
from limits import limits
from rival import METHODS, Job, environment, job, worker
from torch import nn

from classgraft.catalogue import extender
from classgraft.data.images import Task
from classgraft.models import cifar_resnet
from classgraft.models.classifier import Classifier, Head
from classgraft.training.engine import Precision, engine
from classgraft.training.fisher import fisher_information
from classgraft.training.hardware import has_bf16, keep_memory
from classgraft.training.recipe import Recipe
from classgraft.verbs import Extender


def start(network: str, seed: int, device: torch.device) -> Classifier:
    """A classifier that has no class yet."""
    torch.manual_seed(seed)
    body = cifar_resnet.build(network, 10)
    body.linear = nn.Identity()  # type: ignore[assignment]
    return Classifier(body, Head(), ()).to(device)


def method(name: str, job: Job, epochs: int, seed: int = 0) -> Extender:
    """With the settings of the rival: constant rate, batch-norm statistics that move, no warm-up."""
    recipe = Recipe(epochs, job.batch_size, "sgd", job.lr, 0.9, 1e-4, (1.0,), "crop-flip", seed)
    own: dict[str, dict[str, Any]] = {
        "finetune": {},
        "lwf": {"warm_up": 0.0, "strength": 1.0, "temperature": 2.0},
        "ewc": {"strength": job.strength, "fisher": "empirical", "images": 0},
    }
    return replace(extender(name, {"statistics": True, **own[name]}), recipe=recipe)  # type: ignore[type-var]


def stream(job: Job) -> list[Task]:
    """The experiences, of equally many classes each."""
    names, count = job.train.classes, job.experiences
    parts = [names[len(names) * k // count : len(names) * (k + 1) // count] for k in range(count)]
    return [Task(part, job.train.of(part)) for part in parts]


def before(name: str, job: Job, epochs: int, seed: int, device: torch.device) -> tuple[Classifier, object]:
    """The classifier and what the method keeps after all experiences but the last."""
    model, memory = start(job.network, seed, device), None
    learner = method(name, job, epochs, seed)
    for task in stream(job)[:-1]:
        model = learner.extend(model, memory, task)
        memory = learner.remember(model, task, memory)
    return model, memory


def ours(name: str, model: Classifier, memory: object, job: Job, precision: Precision, compile: bool) -> Contender:
    """An epoch of the method on the last experience; whatever it prepares is counted in."""
    learner, last = method(name, job, 1), stream(job)[-1]

    def take() -> float:
        with engine(precision=precision, compile=compile):
            started = time.perf_counter()
            learner.extend(model, memory, last)
            return len(last.train) / (time.perf_counter() - started)

    return take


def fisher(model: Classifier, task: Task) -> Callable[[], float]:
    def take() -> float:
        started = time.perf_counter()
        fisher_information(model, task.train.of(model.classes), "empirical")
        return len(task.train) / (time.perf_counter() - started)

    return take


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--short", action="store_true", help="512 images, one round")
    parser.add_argument("--images", type=int, default=5000)
    parser.add_argument("--experiences", type=int, default=2)
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--network", default="resnet32")
    parser.add_argument("--avalanche", help="a Python that has avalanche-lib; 'none' leaves it out")
    chosen = parser.parse_args()
    count, rounds = (512, 1) if chosen.short else (chosen.images, chosen.rounds)
    size, network = chosen.batch_size, chosen.network
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    work = job(count, network=network, batch_size=size, experiences=chosen.experiences)
    first, last = stream(work)[0], stream(work)[-1]
    keep_memory()  # as runs long enough to matter do; these epochs are shorter
    steps = max(1, len(last.train) // size)
    best: Precision = "bf16" if has_bf16(device.type) else "fp32"
    arithmetic: list[tuple[str, Precision, bool]] = [("fp32", "fp32", False), ("best", best, True)]

    contenders: dict[str, Contender] = {}
    for variant in dict.fromkeys(("fp32", "fp32-cl", f"{best}-cl", f"{best}-cl-compile")):
        contenders[f"bare {variant}"] = turn(stepper(variant, size, device, network), steps, size, device)
    for name in chosen.methods:
        with engine(precision=best):
            model, memory = before(name, work, 1, 0, device)
        for label, precision, compile in arithmetic:
            contenders[f"{name} {label}"] = ours(name, model, memory, work, precision, compile)
    facts: dict[str, Any] = {"limits": limits(network, device)}
    if "ewc" in chosen.methods:
        contenders["fisher"] = fisher(model, first)
    against = ["bare fp32-cl", f"bare {best}-cl-compile"]
    with ExitStack() as running:
        folder = running.enter_context(tempfile.TemporaryDirectory())
        python = chosen.avalanche or environment(Path(folder, "avalanche"))
        if python and python != "none":
            tuned = {}
            for workers in (0, 1, 2):
                with worker(python, work, "finetune", workers) as one:
                    tuned[workers] = min(one.epoch() for _ in range(1 if chosen.short else 3))
            fastest = min(tuned, key=lambda workers: tuned[workers])
            for name in chosen.methods:
                one = running.enter_context(worker(python, work, name, fastest))
                contenders[f"avalanche {name}"] = lambda one=one: len(last.train) / one.epoch()  # type: ignore[misc]
                against.append(f"avalanche {name}")
                if one.fisher:
                    facts["avalanche fisher"] = statistics.median(one.fisher)
            facts |= {"avalanche": one.versions | {"workers": str(fastest)}}
        found = rates(contenders, rounds)
    what = (
        f"images a second, CIFAR {network}, batch {size}, crop and flip, epochs of {len(last.train)} images:"
        f" the last of {chosen.experiences} experiences of CIFAR-10"
    )
    tell(None if chosen.short else f"speed-{device.type}-{chosen.experiences}", what, found, against, **facts)


if __name__ == "__main__":
    main()
