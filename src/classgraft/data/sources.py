"""Where images come from: folders, files and parquet tables, opened lazily and decoded by threads."""

from __future__ import annotations

import json
import os
import re
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from threading import Lock
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from classgraft.data.decode import FORMATS, BadImage, open_rgb, square
from classgraft.data.names import check_names, normal
from classgraft.errors import InputError

EXTENSIONS = frozenset(extension for extensions in FORMATS.values() for extension in extensions)
"""What marks a file as an image, in lower case."""

_LITTER = {"Thumbs.db", "desktop.ini", "__MACOSX"}
_SPLITS = {"train", "training", "test", "testing", "val", "valid", "validation"}
_AHEAD = 1024
"""Photos handed to the threads at a time."""


@dataclass(frozen=True)
class Photo:
    """An encoded image that has not been read yet."""

    name: str
    """What a person finds it by: the path in its folder, or `file.parquet[row]`, rows counted from zero."""
    read: Callable[[], bytes] = field(repr=False)


@dataclass(frozen=True)
class Source:
    """Encoded images in a fixed order, each with its class or all without."""

    classes: tuple[str, ...]
    """Names in Unicode NFC, each borne by one photo at least; empty where nothing is labelled."""
    photos: tuple[Photo, ...]
    labels: tuple[int, ...]
    """One index into `classes` a photo; empty where nothing is labelled."""
    ignored: int = 0
    """Files that were passed over because their extension is not an image's."""


@dataclass(frozen=True, eq=False)
class Loaded:
    """N decoded images, in the order of their source."""

    pixels: torch.Tensor
    """uint8 (N, 3, side, side), RGB."""
    labels: torch.Tensor
    """int64 (N,) into the source's classes; (0,) where nothing is labelled."""
    names: tuple[str, ...]
    """N names of photos."""
    kept: tuple[int, ...]
    """N places in the source's photos."""
    skipped: tuple[str, ...]
    """A sentence for each image that could not be used."""


def open_source(where: str | Path) -> Source:
    """Labelled images: a folder with one folder a class, a parquet file, or a folder of the shards of one.

    Folders: classes sorted by name; folders inside a class are searched too; hidden files are passed over.
    Parquet, as Hugging Face writes it: a column `image` (a struct with `bytes`, or plain binary) and a column `label`:
    text, or integers that the schema names; without names their digits are the name. Classes that no row bears are left
    out. Images are read when first asked for, a row group at a time, and stay encoded in Arrow's memory.

    Raises:
        InputError: there is nothing there, or it is not of this form, or a class is empty or occurs twice.
    """
    path = Path(where)
    if path.is_dir():
        shards = _shards(path)
        return _parquet_source(shards) if shards else _folder_source(path)
    if not path.exists():
        raise InputError(f"'{path}' does not exist; give a folder with one folder a class, or a .parquet file.")
    if path.suffix.lower() != ".parquet":
        raise InputError(f"'{path}' is no image source; give a folder with one folder a class, or a .parquet file.")
    return _parquet_source([path])


def open_files(paths: Sequence[str | Path]) -> Source:
    """Images without labels: files, whatever their extension, and the images in folders and the folders inside.

    Raises:
        InputError: a path does not exist, a folder holds no image, or there are no paths.
    """
    if not paths:
        raise InputError("no images are given; name files or folders.")
    photos: list[Photo] = []
    ignored = 0
    for path in map(Path, paths):
        if path.is_dir():
            found, others = _images(path, _real(path))
            if not found:
                raise InputError(_no_image(path, others))
            photos += [_photo(str(file), file) for file in found]
            ignored += others
        elif path.exists():
            photos.append(_photo(str(path), path))
        else:
            raise InputError(f"'{path}' does not exist; name image files or folders of them.")
    return Source((), tuple(photos), (), ignored)


def load(source: Source, side: int, *, strict: bool = False, progress: Callable[[int], None] | None = None) -> Loaded:
    """Decode every photo onto a square canvas of `side` pixels; `progress` hears how many are done.

    An image that cannot be used is skipped and recorded; with `strict` the first such is an error.

    Raises:
        BadImage: with `strict`.
        InputError: a class, or a source without classes, is left with no image.
    """
    pixels = torch.empty((len(source.photos), 3, side, side), dtype=torch.uint8)

    def decode(index: int) -> BadImage | None:
        photo = source.photos[index]
        try:
            pixels[index] = square(open_rgb(photo.read(), photo.name), side)
        except OSError as error:
            return BadImage(f"image {photo.name!r} cannot be read: {error.strerror}; replace or delete it.")
        except BadImage as error:
            return error
        return None

    kept: list[int] = []
    skipped: list[str] = []
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        for start in range(0, len(source.photos), _AHEAD):
            ahead = range(start, min(start + _AHEAD, len(source.photos)))
            for index, error in zip(ahead, pool.map(decode, ahead), strict=True):
                if error and strict:
                    raise error
                if error:
                    skipped.append(str(error))
                else:
                    if skipped:  # close the gap in place: a second array of this size may not fit
                        pixels[len(kept)] = pixels[index]
                    kept.append(index)
                if progress:
                    progress(index + 1)
    check_none_empty(source, kept)
    labels = [source.labels[index] for index in kept] if source.classes else []
    names = tuple(source.photos[index].name for index in kept)
    return Loaded(pixels[: len(kept)], torch.tensor(labels, dtype=torch.int64), names, tuple(kept), tuple(skipped))


def check_none_empty(source: Source, kept: Sequence[int]) -> None:
    if source.photos and not kept:
        first = source.photos[0].name
        raise InputError(f"none of the {len(source.photos)} images can be used, {first!r} first; give other ones.")
    left = {source.labels[index] for index in kept} if source.classes else set()
    for label, name in enumerate(source.classes):
        if label not in left:
            count = source.labels.count(label)
            raise InputError(f"class {name!r} has no image left: none of its {count} can be used; add some or drop it.")


# Folders


def _folder_source(root: Path) -> Source:
    real = _real(root)
    folders: dict[str, Path] = {}
    ignored = 0
    for entry in _entries(root, real):
        name = normal(entry.name)
        if not os.path.isdir(entry):
            ignored += 1
        elif name in folders:
            twice = f"{folders[name].name!a} and {entry.name!a}"
            raise InputError(f"'{root}' has two folders for class {name!r}, {twice}; rename or merge them.")
        else:
            folders[name] = Path(entry)
    if not folders:
        raise InputError(f"'{root}' holds no class; put the images of each class in a folder named after it.")
    if len(folders) > 1 and {name.casefold() for name in folders} <= _SPLITS:
        raise InputError(f"'{root}' holds splits ({', '.join(sorted(folders))}), not classes; name one of them.")
    classes = check_names(sorted(folders), f"the folders in '{root}'")
    photos: list[Photo] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        found, others = _images(folders[name], real)
        if not found:
            raise InputError(f"class {name!r} is empty: {_no_image(folders[name], others)}")
        photos += [_photo(file.relative_to(root).as_posix(), file) for file in found]
        labels += [label] * len(found)
        ignored += others
    return Source(classes, tuple(photos), tuple(labels), ignored)


def _images(folder: Path, root: Path) -> tuple[list[Path], int]:
    """The image files in a folder and those inside it, sorted, and the number of other files."""
    found: list[Path] = []
    ignored = 0
    seen: set[Path] = set()  # links may lead in circles
    todo = [folder]
    while todo:
        here = todo.pop()
        if _real(here) in seen:
            continue
        seen.add(_real(here))
        for entry in _entries(here, root):
            if os.path.isdir(entry):
                todo.append(Path(entry))
            elif os.path.isfile(entry) and Path(entry).suffix.lower() in EXTENSIONS:
                found.append(Path(entry))
            else:
                ignored += 1
    return sorted(found), ignored


def _entries(folder: Path, root: Path) -> list[os.DirEntry[str]]:
    """What a folder holds but for hidden files and litter; refuses links that lead out of `root`."""
    try:
        listed = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        raise InputError(f"'{folder}' cannot be listed: {error.strerror}; check its permissions.") from error
    entries = [entry for entry in listed if not entry.name.startswith(".") and entry.name not in _LITTER]
    for entry in entries:
        if entry.is_symlink() and not _real(entry).is_relative_to(root):
            raise InputError(f"'{entry.path}' is a link that leads out of '{root}'; put the files themselves there.")
    return entries


def _real(path: os.PathLike[str]) -> Path:
    return Path(os.path.realpath(path))  # unlike Path.resolve it survives a link to itself


def _photo(name: str, file: Path) -> Photo:
    # A file name on Linux may hold bytes that are not UTF-8, and a name is printed and written to JSON.
    return Photo(name.encode("utf-8", "backslashreplace").decode(), file.read_bytes)


def _no_image(folder: Path, others: int) -> str:
    passed = f" but {others} other files" if others else ""
    return f"'{folder}' holds no image{passed}; add some ({', '.join(sorted(EXTENSIONS))})."


# Parquet


@dataclass(frozen=True, eq=False)
class _RowGroup:
    """A part of a parquet file whose images are decompressed together, when the first of them is read."""

    path: Path
    number: int

    def read(self, row: int) -> bytes:
        with _reading:
            column = self._images
        value = column[row].as_py()
        # A row without bytes is reported as an empty image; its path is never followed.
        return (value.get("bytes") if isinstance(value, dict) else value) or b""

    @cached_property
    def _images(self) -> Any:
        try:
            with pq.ParquetFile(self.path, memory_map=True) as file:
                return file.read_row_group(self.number, columns=["image"])["image"]
        except (OSError, pa.ArrowException) as error:
            raise InputError(f"'{self.path}' is damaged in row group {self.number}; get the file again.") from error


_reading = Lock()
"""Held while a row group is decompressed, so that threads that need the same one do it once (`cached_property` has had
no lock of its own since Python 3.12)."""


def _shards(folder: Path) -> list[Path]:
    """The parquet files of a folder that holds nothing else but files of other kinds; none if it has folders."""
    entries = _entries(folder, _real(folder))
    shards = sorted(Path(entry) for entry in entries if entry.name.lower().endswith(".parquet"))
    if any(map(os.path.isdir, entries)):
        return []
    if len({re.sub(r"\d+", "#", shard.name) for shard in shards}) > 1:  # train and test must never flow together
        names = ", ".join(shard.name for shard in shards)
        raise InputError(f"'{folder}' holds several tables, not the numbered shards of one; name one of: {names}.")
    return shards


def _parquet_source(paths: Sequence[Path]) -> Source:
    photos: list[Photo] = []
    given: list[Any] = []
    kinds: list[tuple[str, tuple[str, ...] | None]] = []
    for path in paths:
        try:
            with pq.ParquetFile(path, memory_map=True) as file:
                kinds.append(_label_kind(file.schema_arrow, path))
                given += file.read(columns=["label"])["label"].to_pylist()
                sizes = [file.metadata.row_group(number).num_rows for number in range(file.num_row_groups)]
        except (OSError, pa.ArrowException) as error:
            raise InputError(f"'{path}' is not a readable parquet file; get it again or give a folder.") from error
        if kinds[-1] != kinds[0]:
            raise InputError(f"'{path}' and '{paths[0]}' do not name the same labels; open them one by one.")
        groups = [_RowGroup(path, number) for number in range(len(sizes))]
        places = [(group, row) for group, size in zip(groups, sizes, strict=True) for row in range(size)]
        photos += [Photo(f"{path.name}[{i}]", partial(group.read, row)) for i, (group, row) in enumerate(places)]
    if not photos:
        raise InputError(f"'{paths[0]}' holds no rows; give one with images.")
    kind, names = kinds[0]
    limit = len(names) if names else sys.maxsize
    for photo, label in zip(photos, given, strict=True):
        if label is None or (kind == "number" and not 0 <= label < limit):
            raise InputError(f"{photo.name} has the label {label}, which names no class; correct it or drop the row.")
    borne = sorted(set(given), key=normal if kind == "text" else None)
    classes = check_names([names[label] if names else str(label) for label in borne], f"the classes of '{paths[0]}'")
    index = {label: place for place, label in enumerate(borne)}
    return Source(classes, tuple(photos), tuple(index[label] for label in given))


def _label_kind(schema: Any, path: Path) -> tuple[str, tuple[str, ...] | None]:
    """The type of the labels, text or whole number, and for numbers the names in the schema's metadata, if any."""
    for name in ("image", "label"):
        if name not in schema.names:
            has = ", ".join(schema.names)
            raise InputError(f"'{path}' has no column '{name}' (it has: {has}); rename the one that is meant.")
    image, label = schema.field("image").type, schema.field("label").type
    binary = image.field("bytes").type if pa.types.is_struct(image) and image.get_field_index("bytes") >= 0 else image
    if not (pa.types.is_binary(binary) or pa.types.is_large_binary(binary)):
        raise InputError(f"'{path}': its column 'image' holds {image}, not encoded images; store the files' bytes.")
    if pa.types.is_dictionary(label):
        label = label.value_type
    if pa.types.is_string(label) or pa.types.is_large_string(label):
        return "text", None
    if not pa.types.is_integer(label):
        raise InputError(f"'{path}': its column 'label' holds {label}; store class names or whole numbers.")
    try:
        features = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        names = features.get("info", {}).get("features", {}).get("label", {}).get("names")
        return "number", None if names is None else tuple(map(str, names))
    except (ValueError, AttributeError, TypeError) as error:
        raise InputError(f"'{path}': its Hugging Face metadata is damaged; write the file again.") from error
