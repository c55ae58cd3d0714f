"""The folder of a bundle: written whole or not at all, read with every file checked.

``config.json`` and ``model.safetensors`` carry timm's keys where the network is a plain timm one, so that the folder
also loads with ``timm.create_model("local-dir:...")``.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from classgraft.bundle import (
    FORMAT,
    Bundle,
    assembled,
    configuration,
    damaged,
    memories_of,
    memory_plain,
    memory_tensors,
    tensors_of,
)
from classgraft.card import card
from classgraft.errors import InputError
from classgraft.models.wrapped import wrapped
from classgraft.storage import check_beside, held, recover, replaced, sha256

OWN = re.compile(
    r"(config|memory|undo-\d+)\.json|(model|memory|undo-\d+)\.safetensors|history\.jsonl|README\.md|report\.html"
)
"""The files of a bundle; any other in its folder belongs to somebody else."""
LARGEST_JSON = 1 << 28
"""Bytes of a JSON file."""


class Changed(InputError):
    """The folder no longer holds what a change was made from."""


def check_place(folder: str | Path) -> None:
    """Refuse a folder that ``save`` would refuse, before the work is done.

    Raises:
        InputError: it holds something else, cannot be read or written, or is around the current directory.
    """
    folder = Path(folder)
    check_beside(folder)
    with contextlib.suppress(FileNotFoundError):  # of a current directory that is gone already
        if Path.cwd().is_relative_to(os.path.realpath(folder)):
            raise InputError(
                f"'{folder}' is replaced as a whole, and the current directory is in it; change to one outside and repeat"
                " the step."
            )
    try:
        recover(folder)
        with held(folder, shared=True):  # or a bundle that is being replaced at this moment may look like none
            file = os.path.lexists(folder) and not folder.is_dir()
            taken = folder.is_dir() and any(folder.iterdir()) and not _is_bundle(folder)
    except OSError as error:
        raise InputError(f"'{folder}' cannot be read ({error.strerror}); name another folder.") from error
    if file:
        raise InputError(f"'{folder}' is a file; name a folder to write the bundle to.")
    if taken:
        raise InputError(f"'{folder}' is not empty and no bundle; name another folder.")


def _is_bundle(folder: Path) -> bool:
    """Whether this folder was written by ``save``, rather than by another tool that calls its file config.json."""
    try:
        return isinstance(_read_json(folder / "config.json").get("graft"), dict)
    except InputError:
        return (folder / "history.jsonl").is_file() and (folder / "model.safetensors").is_file()


def save(
    bundle: Bundle, folder: str | Path, pages: dict[str, str] | None = None, *, expecting: str | None = None
) -> None:
    """Write the bundle; a kill or a full disk at any moment leaves what was there before whole.

    Args:
        bundle: what to save.
        folder: created, or replaced if it is a bundle, where files that are not the bundle's stay; any other non-empty
            folder is refused.
        pages: further text files by name, such as ``report.html``.
        expecting: the state (``opened``) of the bundle there that this one was made from; None: whatever is there.

    Raises:
        Changed: somebody has changed the bundle there since.
        InputError: when the folder holds something else or cannot be written.
    """
    folder = Path(folder)
    check_place(folder)

    def check() -> None:
        if expecting is not None and state(folder) != expecting:
            raise Changed(f"'{folder}' was changed after this was made from it; load it again and repeat the step.")

    with held(folder, shared=True):
        check()
    with replaced(folder, check) as fresh:
        with held(folder, shared=True):
            for path in folder.iterdir() if folder.is_dir() else ():
                if not OWN.fullmatch(path.name):
                    _copy(path, fresh / path.name)
        save_file(tensors_of(bundle), fresh / "model.safetensors", metadata={"format": "pt"})
        for number, (earlier, changed) in enumerate(bundle.undone):
            (fresh / f"undo-{number}.json").write_text(json.dumps(earlier, ensure_ascii=False), "utf-8")
            save_file(changed, fresh / f"undo-{number}.safetensors", metadata={"format": "pt"})
        if bundle.memories:
            (fresh / "memory.json").write_text(json.dumps(memory_plain(bundle), ensure_ascii=False), "utf-8")
            save_file(memory_tensors(bundle), fresh / "memory.safetensors", metadata={"format": "pt"})
        lines = [json.dumps(event, ensure_ascii=False) + "\n" for event in bundle.history]
        (fresh / "history.jsonl").write_text("".join(lines), "utf-8")
        config = configuration(bundle)
        config["graft"]["sha256"] = {path.name: sha256(path) for path in sorted(fresh.iterdir()) if _is_checked(path)}
        (fresh / "README.md").write_text(card(bundle), "utf-8")
        for name, text in (pages or {}).items():
            (fresh / name).write_text(text, "utf-8")
        (fresh / "config.json").write_text(json.dumps(config, ensure_ascii=False, indent=1), "utf-8")


def _copy(path: Path, to: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.copytree(path, to, symlinks=True)
    else:
        shutil.copy2(path, to, follow_symlinks=False)


def _is_checked(path: Path) -> bool:
    """Whether a change of this file between saving and loading is damage: nobody writes it by hand."""
    return path.name in ("history.jsonl", "model.safetensors") or path.name.startswith(("undo-", "memory."))


def load(folder: str | Path, network: nn.Module | None = None) -> Bundle:
    """Read a bundle.

    Args:
        folder: where it is.
        network: for a bundle whose network was given as a Python object: that network with any weights and any number
            of outputs.

    Raises:
        InputError: it is missing, damaged, of a newer version, or needs code.
    """
    return opened(folder, network)[0]


def opened(folder: str | Path, network: nn.Module | None = None) -> tuple[Bundle, str]:
    """As ``load``, with the state that the folder was in at that moment."""
    folder = Path(folder)
    recover(folder)
    with held(folder, shared=True):
        return _loaded(folder, network), state(folder)


def state(folder: str | Path) -> str:
    """Fingerprint of the bundle in a folder: another one after every step, the same again when it is undone."""
    path = Path(folder) / "config.json"  # which has the checksums of all that counts
    try:
        _regular(path)
        return sha256(path)
    except OSError:
        return ""


def _loaded(folder: Path, network: nn.Module | None) -> Bundle:
    if not os.path.isfile(folder / "config.json"):
        there = "no bundle: it has no config.json" if os.path.isdir(folder) else "not there"
        raise InputError(f"'{folder}' is {there}; name a folder written by classgraft, or import a model first.")
    config = _read_json(folder / "config.json")
    form = config.get("format")
    if not isinstance(form, int) or isinstance(form, bool) or form < 1:
        raise InputError(
            f"'{folder / 'config.json'}' is not a classgraft bundle's (no format number); import the model instead."
        )
    if form > FORMAT:
        raise InputError(f"'{folder}' has format {form} and this classgraft reads up to {FORMAT}; upgrade classgraft.")
    with damaged(f"'{folder}'"):
        stated = config["graft"]["sha256"]
        undone = [
            (_read_json(folder / f"undo-{i}.json"), _read_tensors(folder / f"undo-{i}.safetensors"))
            for i in range(int(config["graft"]["undo"]))
        ]
        tensors = _read_tensors(folder / "model.safetensors")
        described, remembered = (
            ({}, {})
            if "memory.json" not in stated
            else (_read_json(folder / "memory.json"), _read_tensors(folder / "memory.safetensors"))
        )
        _regular(folder / "history.jsonl")
        history = [_parsed(line) for line in (folder / "history.jsonl").read_text("utf-8").split("\n") if line]
        for name, checksum in stated.items():
            if not OWN.fullmatch(name) or not os.path.isfile(folder / name):
                raise InputError(f"'{folder}' has no file of a bundle called {name!r:.100}; restore the bundle.")
            if checksum != sha256(folder / name):
                raise InputError(
                    f"'{folder / name}' is not the file that was saved with this bundle (its checksum differs);"
                    " restore the bundle."
                )
        if not len(undone) <= len(history) or not all({"event", "sentence"} <= event.keys() for event in history):
            raise ValueError("its history lacks a step")
        if network is not None:
            network = wrapped(network, config["graft"].get("inside") or -1, len(config["label_names"]))
        memories = memories_of(described, remembered)
        bundle = assembled(config, tensors, network, f"'{folder}'")
    return replace(bundle, memories=memories, history=tuple(history), undone=tuple(undone))


def _parsed(text: str) -> Any:
    """JSON that can be written again: JSON can escape halves of characters, which no file takes."""
    content = json.loads(text)
    json.dumps(content, ensure_ascii=False).encode()
    return content


def _regular(path: Path) -> None:
    """Refuse what a reader would wait for without end, such as a pipe or a device."""
    if os.path.lexists(path) and not os.path.isfile(path):
        raise InputError(f"'{path}' cannot be read (it is no file); restore the bundle or import the model again.")


def _read_json(path: Path) -> dict[str, Any]:
    _regular(path)
    try:
        if path.stat().st_size > LARGEST_JSON:
            raise ValueError(f"it is larger than {LARGEST_JSON:,} bytes")
        content = _parsed(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"'{path}' cannot be read ({error}); restore the bundle or import the model again.") from error
    if not isinstance(content, dict):
        raise InputError(f"'{path}' is no JSON object; restore the bundle or import the model again.")
    return content


def _read_tensors(path: Path) -> dict[str, Tensor]:
    _regular(path)
    try:
        return load_file(path)
    except (OSError, SafetensorError, ValueError) as error:
        raise InputError(f"'{path}' cannot be read ({error}); restore the bundle or import the model again.") from error
