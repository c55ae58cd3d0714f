"""Data sets of the datasets library: ``hf:ID``, or a folder that it wrote or would read.

Options: ``split`` (needed where there are several), ``config``, and ``image`` and ``label``, the columns, where they
cannot be told. No code that comes with a data set is run.
"""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

from classgraft.data.photos import Photo, Source, labelled
from classgraft.errors import InputError

_OPTIONS = ("split", "config", "image", "label")


def opened(name: str, options: Mapping[str, Any], labels: bool = True) -> Source:
    """The images of a data set; without ``labels`` only their column is looked at.

    Raises:
        InputError: it is not there, or it is not told which split, which images or which labels.
    """
    where = f"hf:{name}"
    for key in options:
        if key not in _OPTIONS:
            raise InputError(f"{where} takes no option '{key}'; there are: {', '.join(_OPTIONS)}.")
    library = _library()
    table = _table(library, name, options)
    image = _column(where, table, options.get("image"), "image", lambda kind: isinstance(kind, library.Image))
    rows = table.select_columns([image]).cast_column(image, library.Image(decode=False))
    inside = (Path(name).resolve() if Path(name).is_dir() else None, *map(Path, _caches(library)))
    trusted = tuple(str(folder) for folder in inside if folder)
    photos = [Photo(f"{where}[{row}]", partial(_read, rows, image, row, trusted)) for row in range(len(rows))]
    if not photos:
        raise InputError(f"{where} holds no rows; give one with images.")
    if not labels:
        return Source((), tuple(photos), ())
    label = _column(where, table, options.get("label"), "label", lambda kind: isinstance(kind, library.ClassLabel))
    kind = table.features[label]
    names = tuple(kind.names) if isinstance(kind, library.ClassLabel) else None
    given = list(table.select_columns([label])[:][label])
    if not all(isinstance(value, int | str | None) for value in given):
        raise InputError(f"{where}: its column '{label}' holds {kind}; name one of class names or whole numbers.")
    return labelled(photos, given, names, where)


def _table(library: ModuleType, name: str, options: Mapping[str, Any]) -> Any:
    where, split = f"hf:{name}", options.get("split")
    try:
        if any((Path(name) / file).is_file() for file in ("dataset_dict.json", "state.json")):
            found = library.load_from_disk(name)
        else:
            found = library.load_dataset(name, options.get("config"))
    except Exception as error:  # the library raises nearly anything
        reason = " ".join((str(error) or type(error).__name__).split())[:200].rstrip(".")
        raise InputError(f"{where} cannot be opened ({reason}); check the name or folder.") from error
    if not isinstance(found, dict):
        if split is not None:
            raise InputError(f"{where} has no splits; leave split={split} out.")
        return found
    if split is None and len(found) == 1:
        return next(iter(found.values()))
    if split not in found:  # train and test must never flow together
        said = "has several splits" if split is None else f"has no split '{split}'"
        raise InputError(f"{where} {said}; write {where},split=NAME with one of: {', '.join(found)}.")
    return found[split]


def _column(where: str, table: Any, asked: Any, usual: str, fits: Any) -> str:
    """The column asked for, else the only one of the right kind, else the one of the usual name."""
    fitting = [name for name, kind in table.features.items() if fits(kind)]
    if asked is not None:
        found = asked if asked in table.features else None
    elif len(fitting) == 1:
        (found,) = fitting
    else:
        found = next((name for name in (usual, f"{usual}s") if name in (fitting or table.features)), None)
    if found is None or (usual == "image" and found not in fitting):
        raise InputError(f"{where}: it is not clear which column is the {usual}; write {usual}=COLUMN with one of:"
                         f" {', '.join(fitting or table.features)}.")  # fmt: skip
    return str(found)


def _read(rows: Any, image: str, row: int, trusted: tuple[str, ...]) -> bytes:
    cell = rows[row][image] or {}
    if cell.get("bytes"):
        return bytes(cell["bytes"])
    # a table may name any file of this machine: only those of the data set itself are read
    path = Path(cell.get("path") or "").resolve()
    return path.read_bytes() if path.is_file() and any(path.is_relative_to(folder) for folder in trusted) else b""


def _caches(library: ModuleType) -> tuple[str, ...]:
    from huggingface_hub.constants import HF_HUB_CACHE

    return str(Path(library.config.HF_DATASETS_CACHE).resolve()), str(Path(HF_HUB_CACHE).resolve())


def _library() -> ModuleType:
    try:
        library = importlib.import_module("datasets")
    except ImportError as error:
        raise InputError(
            "Data sets of Hugging Face need the datasets library; install it with pip install 'classgraft[hf]'."
        ) from error
    library.disable_progress_bars()
    library.logging.set_verbosity_error()
    return library
