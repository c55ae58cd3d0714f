"""One cell of a benchmark: a method, a seed and an order; a stream through it, measured after every step."""

from __future__ import annotations

import json
import math
import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from classgraft.data.images import Images
from classgraft.errors import InputError
from classgraft.evaluator.orders import Order
from classgraft.evaluator.protocols import Stream
from classgraft.metrics.classification import calibration_error, harmonic
from classgraft.metrics.incremental import Incremental
from classgraft.models.classifier import Classifier
from classgraft.training.answers import answers, forget
from classgraft.training.carries import digest
from classgraft.verbs import Extender


@dataclass(frozen=True)
class Cell:
    """What is run once."""

    label: str
    """The method's name in the results."""
    method: Extender
    """With its settings, recipe and seed."""
    seed: int
    order: Order

    @property
    def name(self) -> str:
        """Of its file."""
        plain = re.sub(r"[^\w.-]+", "-", self.label)
        mark = "" if plain == self.label else f"-{digest(self.label)[:6]}"
        return f"{plain}{mark}-seed{self.seed}-order{self.order}"

    @property
    def settings(self) -> str:
        """The method in words that are the same in every process."""
        kind = type(self.method)
        return repr(self.method) if is_dataclass(self.method) else f"{kind.__module__}.{kind.__qualname__}"


def measured(cell: Cell, start: Classifier, stream: Stream, times: Path, begun: float = 0.0) -> dict[str, Any]:
    """A line of the results: the stream from the classifier without classes to its last step.

    Only the method's own two verbs are timed; ``begun`` seconds went before the first. ``times`` keeps the seconds of
    finished steps for a cell that is broken off; the step that was under way then counts from where it goes on.
    """
    forget()  # what another method has looked at would come for nothing, and its seconds count here
    model, memory = start, None
    tests: list[Images] = []
    rows: list[list[int]] = []
    own_rows: list[list[int]] = []
    seconds = json.loads(times.read_text()) if times.exists() else []
    for step, (task, test) in enumerate(stream):
        if step and set(test.classes) <= set(model.classes):
            rows[-1].append(_right(model, test)[0])  # before it is learnt
        began = time.perf_counter()
        model = cell.method.extend(model, memory, task)
        memory = cell.method.remember(model, task, memory)
        if step == len(seconds):
            seconds.append(round(time.perf_counter() - began + (0.0 if step else begun), 3))
            fresh = times.with_suffix(".fresh")
            fresh.write_text(json.dumps(seconds))
            fresh.replace(times)
        if missing := [name for name in task.classes if name not in model.classes]:
            raise InputError(
                f"{cell.label} gave a classifier without the class '{missing[0]}'; extend adds a task's classes."
            )
        tests.append(test)
        found = [_right(model, part) for part in tests]
        rows.append([joint for joint, _ in found])
        own_rows.append([own for _, own in found])
    images = torch.tensor([len(test) for test in tests])
    result, own = Incremental(_square(rows), images), Incremental(_square(own_rows), images)
    every = all(set(test.classes) == set(model.classes) for test in tests)
    confidence = torch.cat([answers(model, test).softmax(1) for test in tests])
    truth = torch.cat([_places(model, test)[test.labels] for test in tests])
    diverged = bool(confidence.isnan().any())
    return {
        "seed": cell.seed,
        "order": cell.order,
        "matrix": _numbers(result.accuracy),
        "seen": result.seen.tolist(),
        "average": result.average,
        "last": result.last,
        "forgetting": result.forgetting,
        "backward": result.backward_transfer,
        "forward": result.forward_transfer(1 / len(model.classes)) if every else None,
        "old": result.old,
        "new": result.new,
        "harmonic": harmonic(result.old, result.new),
        "ece": None if diverged else calibration_error(confidence, truth),
        "diverged": diverged,
        "task_matrix": _numbers(own.accuracy),
        "task_average": float(own.accuracy.nanmean(1).mean()),
        "task_last": float(own.accuracy[-1].mean()),
        "classes": [len(test.classes) for test in tests],
        "images": images.tolist(),
        "bytes": kept_bytes(memory),
        "model_bytes": sum(tensor.nbytes for tensor in model.state_dict().values()),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "seconds": round(sum(seconds), 3),
        "step_seconds": seconds,
    }


def _places(model: Classifier, test: Images) -> Tensor:
    return torch.tensor([model.classes.index(name) for name in test.classes])


def _right(model: Classifier, test: Images) -> tuple[int, int]:
    """Right answers among all classes, and among the step's own from the same logits; an image with a nan is wrong."""
    logits, places = answers(model, test), _places(model, test)
    sound = ~logits.isnan().any(1)
    joint = int(((logits.argmax(1) == places[test.labels]) & sound).sum())
    return joint, int(((logits[:, places].argmax(1) == test.labels) & sound).sum())


def _square(rows: list[list[int]]) -> Tensor:
    """(T, T), -1 where a row ends."""
    return torch.tensor([row + [-1] * (len(rows) - len(row)) for row in rows])


def _numbers(matrix: Tensor) -> list[list[float | None]]:
    return [[None if value != value else value for value in row] for row in matrix.tolist()]


def kept_bytes(memory: object) -> int:
    """Bytes of a memory: of tensors and pixels, and of strings as UTF-8; a number takes 8."""
    if memory is None:
        return 0
    if isinstance(memory, str):
        return len(memory.encode())
    if isinstance(memory, bool | int | float):
        return 8
    if isinstance(memory, Mapping):
        return sum(kept_bytes(key) + kept_bytes(value) for key, value in memory.items())
    if isinstance(memory, tuple | list | set | frozenset):
        return sum(map(kept_bytes, memory))
    if hasattr(memory, "shape"):  # a tensor, or squares that stream
        return math.prod(memory.shape) * memory.dtype.itemsize  # type: ignore[attr-defined, no-any-return]
    if isinstance(memory, nn.Module):
        return kept_bytes(memory.state_dict())
    if is_dataclass(memory):
        return sum(kept_bytes(getattr(memory, field.name)) for field in fields(memory))
    raise TypeError(f"the bytes of a memory of type {type(memory).__name__} cannot be told")
