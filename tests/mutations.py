"""Inputs mutated at random, and what must come of them: work done, or an InputError; nothing else."""

from __future__ import annotations

import hashlib
import io
import json
import math
import random
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from outside import OLD, contents, furnish, table
from PIL import Image

import classgraft
from classgraft.data.decode import open_rgb
from classgraft.data.names import read_names
from classgraft.data.photos import load as decode
from classgraft.data.sources import open_source
from classgraft.errors import InputError
from classgraft.training import sealed

SECONDS = 20.0
"""That any input may take."""
NASTY: tuple[Any, ...] = (
    None, True, -1, 0, 1, 3, 2**31, 10**18, -(10**30), 1e308, math.nan, math.inf, "", "..", "../../outside", "/dev/zero",
    "/etc/passwd", "\x00", "a" * 5000, "\ud800", [], [[]], {}, {"kind": "plain"}, [1, 2], ["a", "a"], {"": {}},
)  # fmt: skip
WORDS = (b"", b"\x00" * 8, b"\xff" * 8, b"\x7f\xff\xff\xff", b"999999999", b"-1", b"..", b"{", b"]", b'"', b"\n", b"PAR1")


@dataclass(frozen=True)
class Target:
    """A kind of input: good bytes to start from, and what is done with the mutated ones."""

    name: str
    file: str
    """Relative path of what is mutated."""
    use: Callable[[Path], object]
    """Given the folder in which it lies."""
    seal: bool = False
    """Whether the checksums are written anew, as who means harm would."""


def mutated(content: bytes, draw: random.Random, text: bool) -> bytes:
    """A few changes at random; JSON stays JSON half of the time."""
    if text and draw.random() < 0.5:
        try:
            lines = [json.loads(line) for line in content.decode().splitlines()] if content.count(b"\n{") else None
            tree = lines if lines is not None else json.loads(content)
        except ValueError:
            tree = None
        if tree:
            tree = changed(tree, draw)
            if lines is not None:
                return "\n".join(map(dumped, tree if isinstance(tree, list) else [tree])).encode("utf-8", "replace")
            return dumped(tree).encode("utf-8", "replace")
    found = bytearray(content)
    for _ in range(draw.randint(1, 4)):
        at, length = draw.randrange(len(found) + 1), draw.choice((1, 2, 8, 64, 1000))
        match draw.randrange(6):
            case 0 if found:
                found[min(at, len(found) - 1)] ^= 1 << draw.randrange(8)
            case 1:
                del found[at:]
            case 2:
                found[at : at + length] = draw.randbytes(length)
            case 3:
                found[at:at] = draw.choice(WORDS)
            case 4:
                del found[at : at + length]
            case _:
                found[at:at] = found[at : at + length]
    return bytes(found)


def dumped(tree: object) -> str:
    return json.dumps(tree)


def changed(tree: Any, draw: random.Random) -> Any:
    """With one value, anywhere, put to something else or taken out."""
    if not isinstance(tree, dict | list) or not tree or draw.random() < 0.15:
        return draw.choice(NASTY)
    keys = list(tree) if isinstance(tree, dict) else list(range(len(tree)))
    key = draw.choice(keys)
    copied = dict(tree) if isinstance(tree, dict) else list(tree)
    if draw.random() < 0.15:
        del copied[key]
    else:
        copied[key] = changed(tree[key], draw)
    return copied


def reseal(folder: Path) -> None:
    try:
        config = json.loads((folder / "config.json").read_text("utf-8"))
        for name in config["graft"]["sha256"]:
            config["graft"]["sha256"][name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
        (folder / "config.json").write_text(json.dumps(config))
    except (OSError, ValueError, KeyError, TypeError):
        pass


def _bundle(place: Path) -> None:
    bundle = classgraft.load(place / "bundle")
    classgraft.save(bundle, place / "saved")
    classgraft.undo(bundle)
    classgraft.api.verify(place / "bundle")


def _table(place: Path) -> None:
    decode(open_source(place / "t.parquet"), 16)


def _resume(place: Path) -> None:
    sealed.read(place / "run-000.journal")


def seeds(place: Path) -> list[Target]:
    """Good inputs of every kind, in this folder."""
    made = place / "made"
    made.mkdir(parents=True)
    furnish(made)
    shutil.copytree(made / "grown", place / "bundle")
    table(place / "t.parquet", ["x", "y"], ["cyan", "pink"])
    (place / "names.txt").write_text("".join(f"{name}\n" for name in (*OLD, "caf\u00e9", "\u65e5\u672c")), "utf-8")
    sealed.write(place / "run-000.journal", {"position": {"epochs": 1}, "carries": [1, "a"]})
    shutil.rmtree(made)
    files = ["config.json", "history.jsonl", "model.safetensors", "undo-0.json", "undo-0.safetensors", "README.md"]
    targets = [Target(f"bundle: {name}, sealed anew", f"bundle/{name}", _bundle, seal=True) for name in files]
    targets += [Target(f"bundle: {name}", f"bundle/{name}", _bundle) for name in files]
    targets += [
        Target("parquet", "t.parquet", _table),
        Target("class list", "names.txt", lambda place: read_names(place / "names.txt")),
        Target("journal", "run-000.journal", _resume),
    ]
    pixels = np.random.default_rng(0).integers(0, 256, (12, 15, 3), np.uint8)
    for form in ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM", "JPEG2000"):
        stream = io.BytesIO()
        Image.fromarray(pixels).save(stream, form)
        (place / f"i.{form}").write_bytes(stream.getvalue())
        targets.append(Target(f"image: {form}", f"i.{form}", _opens(f"i.{form}")))
    return targets


def _opens(name: str) -> Callable[[Path], object]:
    return lambda place: open_rgb(place / name, name)


def tried(target: Target, place: Path, seed: int) -> str:
    """What came of one mutated input: "" where it was as it should be.

    Everything else in the folder must be as it was, but for a copy of the bundle that is saved on purpose.
    """
    draw = random.Random(f"{target.name} {seed}")
    path = place / target.file
    good = {file: file.read_bytes() for file in (path, place / "bundle/config.json")}
    path.write_bytes(mutated(good[path], draw, target.file.endswith(("json", "jsonl"))))
    if target.seal:
        reseal(place / "bundle")
    before, started, failure = contents(place), time.monotonic(), ""
    try:
        target.use(place)
    except InputError as error:
        if not str(error).isprintable() or len(str(error)) > 2000:
            failure = f"an unprintable or endless sentence: {str(error)[:200]!r}"
    except BaseException as error:
        failure = f"{type(error).__name__}: {str(error)[:200]}"
    if time.monotonic() - started > SECONDS:
        failure = failure or f"{time.monotonic() - started:.0f} s"
    shutil.rmtree(place / "saved", ignore_errors=True)
    if not failure and contents(place) != before:
        failure = f"something else changed: {sorted(set(contents(place)) ^ set(before))[:5]}"
    for file, content in good.items():
        file.write_bytes(content)
    return failure and f"{target.name}, seed {seed}: {failure}"
