"""Parquet tables of images, as Hugging Face writes them."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from threading import Lock
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from classgraft.data.folders import entries, real
from classgraft.data.photos import Photo, Source, labelled
from classgraft.errors import InputError

LARGEST_GROUP = 4 << 30
"""Bytes that a row group may unpack to: it is held in memory while its images are decoded."""


def opened(paths: Sequence[Path], labels: bool = True) -> Source:
    """The images of a table, or of the shards of one; without ``labels`` only their column is looked at."""
    photos: list[Photo] = []
    given: list[Any] = []
    kinds: list[tuple[str, tuple[str, ...] | None]] = []
    for path in paths:
        try:
            with pq.ParquetFile(path, memory_map=True) as file:
                check_size(file.metadata, path)
                _check_images(file.schema_arrow, path)
                if labels:
                    kinds.append(_label_kind(file.schema_arrow, path))
                    given += file.read(columns=["label"])["label"].to_pylist()
                sizes = [file.metadata.row_group(number).num_rows for number in range(file.num_row_groups)]
        except (OSError, pa.ArrowException, UnicodeDecodeError) as error:
            raise InputError(f"'{path}' is not a readable parquet file; get it again or give a folder.") from error
        if kinds[-1:] != kinds[:1]:
            raise InputError(f"'{path}' and '{paths[0]}' do not name the same labels; open them one by one.")
        groups = [_RowGroup(path, number) for number in range(len(sizes))]
        places = [(group, row) for group, size in zip(groups, sizes, strict=True) for row in range(size)]
        photos += [Photo(f"{path.name}[{i}]", partial(group.read, row)) for i, (group, row) in enumerate(places)]
    if not photos:
        raise InputError(f"'{paths[0]}' holds no rows; give one with images.")
    return labelled(photos, given, kinds[0][1], str(paths[0])) if labels else Source((), tuple(photos), ())


def shards(folder: Path) -> list[Path]:
    """The parquet files of a folder that holds nothing else but files of other kinds; none if it has folders."""
    listed = entries(folder, real(folder))
    tables = sorted(Path(entry) for entry in listed if entry.name.lower().endswith(".parquet"))
    if any(map(os.path.isdir, listed)):
        return []
    plain = (re.sub(r"-[0-9a-f]{16}(?=\.)", "", shard.name) for shard in tables)  # older names on the hub end in a hash
    if len({re.sub(r"\d+", "#", name) for name in plain}) > 1:  # train and test must never flow together
        names = ", ".join(shard.name for shard in tables)
        raise InputError(f"'{folder}' holds several tables, not the numbered shards of one; name one of: {names}.")
    return tables


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


def check_size(metadata: Any, path: Path) -> None:
    """Refuse a table that would unpack to any size; nothing of it has been read yet."""
    if metadata.num_rows > path.stat().st_size:
        raise InputError(
            f"'{path}' states {metadata.num_rows:,} rows in {path.stat().st_size:,} bytes, too few for an image each;"
            " get it again or give a folder."
        )
    for number in range(metadata.num_row_groups):
        group = metadata.row_group(number)
        size = sum(group.column(place).total_uncompressed_size for place in range(group.num_columns))
        if size > LARGEST_GROUP:
            raise InputError(
                f"'{path}' unpacks to {size:,} bytes in row group {number}, more than {LARGEST_GROUP:,};"
                " write it again in smaller groups."
            )


def _column(schema: Any, name: str, path: Path) -> Any:
    """The type of a column."""
    if name not in schema.names:
        has = ", ".join(schema.names)
        raise InputError(f"'{path}' has no column '{name}' (it has: {has}); rename the one that is meant.")
    return schema.field(name).type


def _check_images(schema: Any, path: Path) -> None:
    image = _column(schema, "image", path)
    binary = image.field("bytes").type if pa.types.is_struct(image) and image.get_field_index("bytes") >= 0 else image
    if not (pa.types.is_binary(binary) or pa.types.is_large_binary(binary)):
        raise InputError(f"'{path}': its column 'image' holds {image}, not encoded images; store the files' bytes.")


def _label_kind(schema: Any, path: Path) -> tuple[str, tuple[str, ...] | None]:
    """The type of the labels, text or whole number, and for numbers the names in the schema's metadata, if any."""
    label = _column(schema, "label", path)
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
