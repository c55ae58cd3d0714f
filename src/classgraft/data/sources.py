"""Where images come from, in words: folders, files, parquet tables, data sets of Hugging Face and torchvision."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from classgraft.data import folders, hugging_face, parquet, torchvision_sets
from classgraft.data.photos import Loaded, Photo, Source, check_none_empty, load, together
from classgraft.errors import InputError

_SCHEMES = {"hf": hugging_face.opened, "torchvision": torchvision_sets.opened}
FORMS = "a folder with one folder a class, a .parquet file, hf:ID or torchvision:NAME"


def open_source(where: str | Path) -> Source:
    """Labelled images: a folder with one folder a class, a parquet file, a folder of the shards of one, or a data set.

    Folders: classes sorted by name; folders inside a class are searched too; hidden files are passed over.
    Parquet, as Hugging Face writes it: a column `image` (a struct with `bytes`, or plain binary) and a column `label`:
    text, or integers that the schema names; without names their digits are the name. Classes that no row bears are left
    out. Images are read when first asked for, a row group at a time, and stay encoded in Arrow's memory.
    Data sets: `hf:ID` (or a folder that the datasets library wrote) and `torchvision:NAME`, followed by options such as
    `,split=test` or `,root=FOLDER`.

    Raises:
        InputError: there is nothing there, or it is not of this form, or a class is empty or occurs twice.
    """
    scheme, colon, rest = str(where).partition(":")
    if colon and scheme in _SCHEMES:
        name, *options = re.split(r",(?=\w+=)", rest)
        return _SCHEMES[scheme](name, dict(map(_option, options)))
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


def _option(text: str) -> tuple[str, Any]:
    key, _, value = text.partition("=")
    return key, {"true": True, "false": False}.get(value.lower(), int(value) if value.isdecimal() else value)


def open_files(paths: Sequence[str | Path]) -> Source:
    """Images without labels: files, whatever their extension, and the images in folders and the folders inside.

    Tables, folders of nothing but their shards, and data sets (``open_source``) are taken too; their labels are not.

    Raises:
        InputError: a path does not exist, a folder holds no image, or there are no paths.
    """
    if not paths:
        raise InputError("no images are given; name files or folders.")
    photos: list[Photo] = []
    ignored = 0
    for where in paths:
        path = Path(where)
        if str(where).partition(":")[0] in _SCHEMES or path.suffix.lower() == ".parquet":
            photos += open_source(where).photos
        elif path.is_dir():
            found, others = folders.images(path, folders.real(path))
            if not found and parquet.shards(path):
                photos += open_source(path).photos
                continue
            if not found:
                raise InputError(folders.no_image(path, others))
            photos += [folders.photo(str(file), file) for file in found]
            ignored += others
        elif path.exists():
            photos.append(folders.photo(str(path), path))
        else:
            raise InputError(f"'{path}' does not exist; name image files or folders of them.")
    return Source((), tuple(photos), (), ignored)


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
