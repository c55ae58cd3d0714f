"""What a run folder tells of its runs: the terms of every epoch, and the seconds they took in a file apart."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from classgraft.errors import InputError

Epochs = Sequence[Mapping[str, float]]


class Records:
    """``metrics.jsonl`` holds nothing but what a repeated run gives again, bit for bit; ``times.jsonl`` grows.

    TensorBoard, by its own library, is off unless asked for.
    """

    def __init__(self, folder: Path, tensorboard: bool = False) -> None:
        self.folder = folder
        self.runs: dict[int, tuple[str, list[Mapping[str, float]]]] = {}
        self.board = _board(folder) if tensorboard else None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self.board is not None:
            self.board.close()

    def keep(self, run: int, what: str, epochs: Epochs) -> None:
        """Write anew what is known, with these epochs; a run killed earlier may not have come to the last of them."""
        self.runs[run] = (what, list(epochs))
        lines = [
            json.dumps({"run": number, "what": name, "epoch": epoch, **terms}, ensure_ascii=False)
            for number, (name, known) in sorted(self.runs.items())
            for epoch, terms in enumerate(known)
        ]
        fresh = self.folder / "metrics.fresh"
        fresh.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
        fresh.replace(self.folder / "metrics.jsonl")

    def write(self, run: int, what: str, epochs: Epochs, seconds: float) -> None:
        """Keep the epochs of this run, and tell of the seconds since they were last written."""
        told = len(self.runs[run][1]) if run in self.runs else 0
        self.keep(run, what, epochs)
        with open(self.folder / "times.jsonl", "a", encoding="utf-8") as file:
            file.write(json.dumps({"run": run, "epochs": len(epochs), "seconds": round(seconds, 3)}) + "\n")
        if self.board is not None:
            for epoch in range(told, len(epochs)):
                for name, value in epochs[epoch].items():
                    self.board.add_scalar(f"{run} {what}/{name}", value, epoch)


def _board(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError as error:
        raise InputError("TensorBoard is not installed; pip install tensorboard, or leave it out.") from error
    return SummaryWriter(str(folder / "tensorboard"))  # type: ignore[no-untyped-call]
