"""Where training tells how far it is."""

from __future__ import annotations

from collections.abc import Callable

from classgraft.training.distributed import world

Progress = Callable[[str, int, int, dict[str, float]], None]
"""Called after every epoch with what runs, epochs done, epochs in all, and the terms' means."""


def silent(what: str, done: int, total: int, terms: dict[str, float]) -> None:
    """No progress is shown."""


def printed(what: str, done: int, total: int, terms: dict[str, float]) -> None:
    """A line after each epoch, for scripts."""
    if terms:
        print(f"{what} {done}/{total}", " ".join(f"{name} {value:.3g}" for name, value in terms.items()), flush=True)


_progress: list[Progress] = [silent]


def show_progress(progress: Progress) -> None:
    """Where the loop reports to, for the whole process; the command line sets it."""
    _progress[0] = progress


def report(what: str, done: int, total: int, terms: dict[str, float] | None = None) -> None:
    """Tell whoever watches how far something is."""
    if world().rank == 0:
        _progress[0](what, done, total, terms or {})
