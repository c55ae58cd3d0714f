"""What a person at a terminal sees and hears: lines, tables, bars."""

from __future__ import annotations

import shlex
import sys
import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from classgraft.metrics.classification import Evaluation


def table(rows: list[tuple[str, Evaluation]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name in ("", "old %", "new %", "harmonic %", "all %", "n old + new"):
        table.add_column(name, justify="left" if not name else "right", no_wrap=True)
    for name, evaluation in rows:
        summary = evaluation.summary()
        cells = [
            "-" if summary[key] is None else f"{100 * summary[key]:.1f}" for key in ("old", "new", "harmonic", "all")
        ]
        table.add_row(name, *cells, f"{summary['n']['old']} + {summary['n']['new']}")
    Console().print(table)


class progress:
    """Progress bars for whatever takes longer than two seconds; none where standard error is no terminal."""

    def __enter__(self) -> None:
        from classgraft.training.loop import show_progress, silent

        self.bars: Any = None
        if not sys.stderr.isatty():
            show_progress(silent)
            return
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self.bars = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
            TextColumn("{task.fields[terms]}"),
            console=Console(stderr=True), transient=True,
        )  # fmt: skip
        self.started = time.monotonic()
        self.tasks: dict[str, Any] = {}
        show_progress(self.show)

    def show(self, what: str, done: int, total: int, terms: dict[str, float]) -> None:
        if time.monotonic() - self.started < 2:
            return
        self.bars.start()
        if what not in self.tasks:
            self.tasks[what] = self.bars.add_task(what, total=total, terms="")
        shown = "  ".join(f"{name} {value:.4g}" for name, value in terms.items())
        self.bars.update(self.tasks[what], completed=done, total=total, terms=shown)

    def __exit__(self, *error: object) -> None:
        if self.bars is not None:
            self.bars.stop()


def warn(sentence: str) -> None:
    say(f"warning: {sentence}")


def say(sentence: str) -> None:
    """One line, whatever control characters a file's name holds."""
    print("".join(c if c.isprintable() else " " for c in sentence), file=sys.stderr)


def command() -> str:
    return shlex.join(["classgraft", *sys.argv[1:]])
