"""A run folder, in which training is safe from the machine's stopping at any instant.

    with keeping(folder):
        grown = method.extend(model, memory, task)      # the same command again goes on where it stopped

Every run of steps inside writes what it carries, its random state and its position to a file of its own, now and then
and at the end. When the same code runs again, runs that had finished return from their files and the one that had not
goes on; weights and history come out bit for bit as without the break (on a GPU with deterministic algorithms). A file
is complete and its SHA-256 right, or the one before it is used, or the run starts afresh.

The folder holds ``run-000.journal`` and its ``.previous`` for each run, ``metrics.jsonl`` and ``times.jsonl``.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from classgraft.errors import InputError
from classgraft.training import sealed
from classgraft.training.carries import Carried, digest, restore, state
from classgraft.training.distributed import gathered, world
from classgraft.training.engine import first_device
from classgraft.training.records import Records


@dataclass(frozen=True)
class Key:
    """What a run is recognised by."""

    number: int
    """Of the run in its folder."""
    start: str
    """Hash of what it carries, before its first step."""
    recipe: str
    data: str
    """Hash of the images and labels."""
    engine: str
    command: str
    """Whatever else decides what comes out, in the caller's words: the method and its settings."""


@dataclass
class Position:
    """How far a run is."""

    epoch: int = 0
    batch: int = 0
    """Batches of this epoch that are done."""
    sums: dict[str, Tensor] = field(default_factory=dict)
    """Of the terms over those batches."""
    epochs: list[dict[str, float]] = field(default_factory=list)
    """Means of the terms over each finished epoch."""


class Entry:
    """One run's place in the folder."""

    def __init__(self, journal: Journal, key: Key, carries: Sequence[Carried], what: str) -> None:
        self.journal, self.key, self.carries, self.what = journal, key, carries, what
        self.path = journal.folder / f"run-{key.number:03}.journal"
        self.written = time.monotonic()

    def resume(self) -> Position:
        """Write the last good state back into what is carried; the beginning where there is none.

        Raises:
            InputError: the file is of another run.
        """
        for path in (self.path, sealed.previous(self.path)):
            found = sealed.read(path)
            if found is None:
                continue
            differing = [name for name, value in asdict(self.key).items() if found["key"][name] != value]
            if differing:
                raise InputError(
                    f"'{path.parent}' holds another run: the {', '.join(map(_WORDS.get, differing))} of its training"  # type: ignore[arg-type]
                    f" number {self.key.number + 1} differ; repeat the same command, or name another folder."
                )
            for carried, saved in zip(self.carries, found["carries"], strict=True):
                restore(carried, saved)
            _set_random_state(found["random"][world().rank], first_device(self.carries))
            position = Position(**found["position"])
            if world().rank == 0:
                self.journal.records.keep(self.key.number, self.what, position.epochs)
            return position
        return Position()

    def due(self, epoch_ends: bool) -> bool:
        """Whether to write now; several processes do so together, at the end of every epoch."""
        return epoch_ends if world().size > 1 else time.monotonic() - self.written >= self.journal.every

    def write(self, position: Position) -> None:
        """Put everything on the disk; whatever happens meanwhile, a good file stays there."""
        random = gathered(_random_state(first_device(self.carries)))
        if world().rank == 0:
            content = {
                "key": asdict(self.key),
                "position": vars(position),
                "carries": [state(carried) for carried in self.carries],
                "random": random,
            }
            sealed.write(self.path, content)
            self.journal.records.write(self.key.number, self.what, position.epochs, time.monotonic() - self.written)
        self.written = time.monotonic()


@dataclass
class Journal:
    """A run folder in use."""

    folder: Path
    every: float
    command: str
    records: Records
    runs: int = 0

    def entry(self, carries: Sequence[Carried], recipe: object, data: str, engine: object, what: str) -> Entry:
        """The place of the run that starts now."""
        key = Key(self.runs, digest(*map(state, carries)), repr(recipe), data, str(engine), self.command)
        self.runs += 1
        return Entry(self, key, carries, what)


_open: ContextVar[Journal | None] = ContextVar("journal", default=None)


@contextmanager
def keeping(folder: str | Path, command: str = "", *, every: float = 30.0, tensorboard: bool = False) -> Iterator[None]:
    """Inside, runs are journaled in this folder, every so many seconds and at their ends.

    ``command`` says what the starting weights, recipe, images and engine of a run do not: the method and its settings.

    Raises:
        InputError: nothing can be written there, or TensorBoard is asked for and not installed.
    """
    folder = Path(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"'{folder}' cannot be a run folder ({error.strerror}); choose another place.") from error
    with Records(folder, tensorboard) as records:
        token = _open.set(Journal(folder, every, command, records))
        try:
            yield
        finally:
            _open.reset(token)


def open_journal() -> Journal | None:
    """The run folder in use, if any."""
    return _open.get()


def hangs_on(*values: Any) -> None:
    """Runs from here on also hang on these: what an objective holds without changing it, such as a teacher or a memory."""
    if (journal := open_journal()) is not None:
        journal.command += f" {digest(*values)}"


_WORDS = {
    "number": "number",
    "start": "starting weights",
    "recipe": "recipe",
    "data": "images",
    "engine": "engine",
    "command": "settings",
}


def _random_state(device: torch.device) -> Tensor:
    states = [torch.get_rng_state()]
    if device.type == "cuda":
        states.append(torch.cuda.get_rng_state(device))
    return torch.cat(states)


def _set_random_state(states: Tensor, device: torch.device) -> None:
    size = len(torch.get_rng_state())
    torch.set_rng_state(states[:size].clone())
    if len(states) > size:
        torch.cuda.set_rng_state(states[size:].clone(), device)
