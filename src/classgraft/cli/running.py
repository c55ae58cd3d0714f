"""From a command's words to what its function is called with: bundles, settings, engine, run folder."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from classgraft.errors import InputError

if TYPE_CHECKING:
    from classgraft.bundle import Bundle


def load(folder: Path) -> Bundle:
    from classgraft import api

    return placed(api.load(folder))


def changing(folder: Path, out: Path | None) -> tuple[Bundle, Callable[[Bundle], None]]:
    """The bundle in a folder, and what saves the one that is made of it: in ``out``, or else in the place of the first.

    A step that somebody else takes in the meantime is not lost: the first is replaced only while it is as it was loaded.
    """
    from classgraft.folder import check_place, opened, save

    to = folder if out is None else out
    bundle, state = opened(folder)
    check_place(to)
    expecting = state if os.path.realpath(to) == os.path.realpath(folder) else None
    return placed(bundle), lambda after: save(after, to, expecting=expecting)


def placed(bundle: Bundle) -> Bundle:
    """The bundle, its model on the device that was asked for."""
    from classgraft.training.engine import device

    bundle.model.to(device())
    return bundle


def recipe(
    epochs: int | None,
    batch_size: int | None,
    lr: float | None,
    weight_decay: float | None,
    milestones: tuple[float, float] | None,
    augment: str | None,
    seed: int | None = None,
) -> dict[str, Any]:
    """The recipe's fields that were given."""
    given = {"epochs": epochs, "batch_size": batch_size, "lr": lr, "weight_decay": weight_decay,
             "milestones": milestones, "augment": augment, "seed": seed}  # fmt: skip
    return {name: value for name, value in given.items() if value is not None}


@contextlib.contextmanager
def running(
    device: str | None, precision: str | None, run_folder: Path | None = None, command: str = ""
) -> Iterator[None]:
    """The engine that was asked for, said in a line when it is chosen, and the run folder."""
    import logging

    from classgraft.training.engine import engine
    from classgraft.training.journal import keeping

    if precision not in (None, "fp32", "bf16"):
        raise InputError(f"--precision is '{precision}'; say fp32 or bf16.")
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    logging.getLogger("classgraft").setLevel(logging.INFO)
    kept = keeping(run_folder, command) if run_folder else contextlib.nullcontext()
    with engine(device=device, precision=precision), kept:  # type: ignore[arg-type]
        yield


def settings_of(words: list[str]) -> dict[str, Any]:
    from classgraft.models.sources import argument

    return dict(map(argument, words))
