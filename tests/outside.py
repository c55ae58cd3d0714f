"""What a newcomer has at hand: a small trained network, photos in folders, and the command line."""

from __future__ import annotations

import contextlib
import io
import json
import re
import shutil
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import nn

from classgraft import cli
from classgraft.models import cifar_resnet

COLOURS = {
    "red": (200, 20, 20),
    "green": (20, 200, 20),
    "blue": (20, 20, 200),
    "cyan": (20, 200, 200),
    "pink": (250, 120, 200),
    "grey": (120, 120, 120),
}
OLD, NEW = ("red", "green", "blue"), ("cyan", "pink")


@dataclass(frozen=True)
class Ran:
    """How a command ended."""

    code: int
    out: str
    err: str


def run(*words: object) -> Ran:
    """A command in this process; what is no exit is raised."""
    out, err, code = io.StringIO(), io.StringIO(), 0
    argv = ["classgraft", *map(str, words)]
    with mock.patch.object(sys, "argv", argv), contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            cli.main()
        except SystemExit as exit_:
            code = int(exit_.code or 0)
    return Ran(code, out.getvalue(), err.getvalue())


def done(*words: object) -> Ran:
    """A command that must succeed without a word on standard error."""
    ran = run(*words)
    assert (ran.code, ran.err) == (0, ""), ran
    return ran


def hurried(*words: object) -> Ran:
    """A command that must succeed, and may say no more than that steps as few as a test's have taught the model nothing."""
    ran = run(*words)
    assert ran.code == 0, ran
    assert re.fullmatch(
        "(warning: The model takes all of its own images for '.+', so that it has learnt nothing; .+)?", ran.err.strip()
    ), ran
    return ran


def is_sentence(line: str) -> bool:
    return line.startswith("classgraft: ") and line.isprintable() and line.endswith(".") and len(line.split()) > 4


def contents(folder: Path) -> dict[str, bytes | None]:
    """Everything in a folder, by its path: the bytes of files, None for folders."""
    return {str(p.relative_to(folder)): p.read_bytes() if p.is_file() else None for p in sorted(folder.rglob("*"))}


def photo(path: Path, colour: str, seed: int = 0, side: int = 36) -> Path:
    """A noisy picture of one colour."""
    noise = np.random.default_rng(seed).normal(0, 15, (side, side + 4, 3))
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.clip(noise + COLOURS[colour], 0, 255).astype(np.uint8)).save(path)
    return path


def photos(folder: Path, classes: Sequence[str], count: int = 3) -> Path:
    """One folder a class."""
    for name in classes:
        for i in range(count):
            photo(folder / name / f"{i}.png", name, i)
    return folder


def table(path: Path, names: Sequence[str], colours: Sequence[str], count: int = 2) -> Path:
    """A parquet file as Hugging Face writes it, ``count`` pictures a class."""
    rows: list[dict[str, Any]] = []
    for label, colour in enumerate(colours):
        for i in range(count):
            file = photo(path.with_suffix(".png"), colour, i)
            rows.append({"image": {"bytes": file.read_bytes(), "path": None}, "label": label})
            file.unlink()
    features = {"info": {"features": {"label": {"names": list(names), "_type": "ClassLabel"}}}}
    made = pa.Table.from_pylist(rows).replace_schema_metadata({b"huggingface": json.dumps(features).encode()})
    pq.write_table(made, path)
    return path


def state(seed: int = 0, classes: int = 3) -> dict[str, torch.Tensor]:
    """Weights of a cifar:resnet20."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return cifar_resnet.build("resnet20", classes).state_dict()


def furnish(place: Path) -> Path:
    """A folder with ``w.safetensors``, ``names.txt``, the bundle ``base``, its extension ``grown``, ``new`` and ``old``."""
    save_file(state(), place / "w.safetensors")
    (place / "names.txt").write_text("".join(f"{name}\n" for name in OLD))
    photos(place / "new", NEW)
    photos(place / "old", OLD)
    done("import", "cifar:resnet20", "--weights", place / "w.safetensors", "--classes", place / "names.txt",
         "--out", place / "base")  # fmt: skip
    done("extend", place / "base", place / "new", "--out", place / "grown", "--method", "imprint")
    return place


def copied(furnished: Path, to: Path) -> Path:
    shutil.copytree(furnished, to, dirs_exist_ok=True)
    return to


class Tiny(nn.Module):
    """A network of a few hundred weights that only this code can build."""

    def __init__(self, classes: int = 3, seed: int = 0) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.stem = nn.Sequential(nn.Conv2d(3, 12, 3, 2), nn.BatchNorm2d(12), nn.ReLU())
            self.answer = nn.Linear(12, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.answer(self.stem(x).mean((2, 3)))
