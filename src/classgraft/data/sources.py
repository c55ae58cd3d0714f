"""Where images come from, in words: folders, files, parquet tables, data sets of Hugging Face and torchvision."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from classgraft.data import folders, hugging_face, parquet, torchvision_sets
from classgraft.data.photos import Loaded, Photo, Source, check_none_empty, load, together
from classgraft.errors import InputError

_SCHEMES = ("hf:", "torchvision:")
FORMS = "a folder with one folder a class, a .parquet file, hf:ID or torchvision:NAME"


def open_source(where: str | Path) -> Source:
    """Labelled images: a folder with one folder a class, a parquet file, a folder of the shards of one, or a data set.

    Folders: classes sorted by name; folders inside a class are searched too; hidden files are passed over. An image is told
    by its extension, or where it has none by its first bytes (JPEG, PNG, GIF, WebP).
    Parquet, as Hugging Face writes it: a column `image` (a struct with `bytes`, or plain binary) and a column `label`:
    text, or integers that the schema names; without names their digits are the name. Classes that no row bears are left
    out. Images are read when first asked for, a row group at a time, and stay encoded in Arrow's memory.
    Data sets: `hf:ID` (or a folder that the datasets library wrote) and `torchvision:NAME`, followed by options such as
    `,split=test` or `,root=FOLDER`.

    Raises:
        InputError: there is nothing there, or it is not of this form, or a class is empty or occurs twice.
    """
    if str(where).startswith(_SCHEMES):
        return _data_set(str(where))
    path = Path(where)
    if path.is_dir():
        shards = parquet.shards(path)
        return parquet.opened(shards) if shards else folders.opened(path)
    if not path.exists():
        raise InputError(f"'{path}' does not exist; give {FORMS}.")
    if path.suffix.lower() != ".parquet":
        raise InputError(f"'{path}' is no image source; give {FORMS}.")
    return parquet.opened([path])


def open_sources(where: str | Path | Source | Sequence[str | Path | Source]) -> Source:
    """One source or several as one."""
    several = [where] if isinstance(where, str | Path | Source) else list(where)
    if not several:
        raise InputError(f"No image source is given; give {FORMS}.")
    return together([one if isinstance(one, Source) else open_source(one) for one in several])


def _data_set(where: str, labels: bool = True) -> Source:
    scheme, _, rest = where.partition(":")
    name, *words = re.split(r",(?=\w+=)", rest)
    options = dict(map(_option, words))
    return hugging_face.opened(name, options, labels) if scheme == "hf" else torchvision_sets.opened(name, options)


def _option(text: str) -> tuple[str, Any]:
    key, _, value = text.partition("=")
    return key, {"true": True, "false": False}.get(value.lower(), int(value) if value.isdecimal() else value)


def open_files(paths: str | Path | Source | Sequence[str | Path | Source]) -> Source:
    """Images without labels: files, whatever their extension, and the images in folders and the folders inside.

    Tables, folders of nothing but their shards, and data sets (``open_source``) are taken too; their labels are not.
    One path, or several.

    Raises:
        InputError: a path does not exist, a folder holds no image, or there are no paths.
    """
    several = [paths] if isinstance(paths, str | Path | Source) else list(paths)
    if not several:
        raise InputError("no images are given; name files or folders.")
    parts = [one if isinstance(one, Source) else _unlabelled(one) for one in several]
    photos = tuple(photo for part in parts for photo in part.photos)
    return Source((), photos, (), tuple(name for part in parts for name in part.unread))


def _unlabelled(where: str | Path) -> Source:
    path = Path(where)
    if str(where).startswith(_SCHEMES):
        return _data_set(str(where), labels=False)
    if path.is_dir():
        found, others = folders.images(path, folders.real(path))
        if not found and (tables := parquet.shards(path)):
            return parquet.opened(tables, labels=False)
        if not found:
            raise InputError(folders.no_image(path, others))
        return Source((), tuple(folders.photo(str(file), file) for file in found), (), folders.unread(others, path))
    if not path.exists():
        raise InputError(f"'{path}' does not exist; name image files or folders of them.")
    if path.suffix.lower() == ".parquet":
        return parquet.opened([path], labels=False)
    return Source((), (folders.photo(str(path), path),), ())


__all__ = [
    "Loaded",
    "Photo",
    "Source",
    "check_none_empty",
    "load",
    "open_files",
    "open_source",
    "open_sources",
    "together",
]
