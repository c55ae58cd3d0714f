"""Images decoded within a budget of memory; what is more lies in a file.

The file has no name (it is gone with the process, however that ends). Every photo is decoded once.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from typing import IO, cast

import torch

from classgraft.data.decode import BadImage, open_rgb, square
from classgraft.data.sources import Loaded, Photo, Source, check_none_empty, load
from classgraft.data.squares import File, Squares, as_pixels
from classgraft.errors import InputError
from classgraft.models.preparation import Canvas

BUDGET = 4 << 30
"""Bytes of pixels that may lie in memory; more than that streams."""
CHUNK = 1024
"""Photos decoded at a time."""


def load_within(
    source: Source,
    canvas: Canvas | int,
    budget: int = BUDGET,
    *,
    strict: bool = False,
    progress: Callable[[int], None] | None = None,
) -> Loaded:
    """As ``classgraft.data.sources.load``; pixels that take more than ``budget`` bytes lie in a file, not in memory.

    Raises:
        BadImage, InputError: as ``load`` does; or there is no room on the disk.
    """
    canvas = Canvas(canvas) if isinstance(canvas, int) else canvas
    side = canvas.side
    if len(source.photos) * 3 * side * side <= budget:
        return load(source, canvas, strict=strict, progress=progress)
    file = cast(IO[bytes], tempfile.TemporaryFile(prefix="classgraft-"))  # noqa: SIM115 - it lives with the squares
    names: list[str] = []
    kept: list[int] = []
    skipped: list[str] = []
    chunk = max(1, min(CHUNK, budget // (8 * 3 * side * side)))
    for first in range(0, len(source.photos), chunk):
        part = Source((), source.photos[first : first + chunk], ())
        try:
            found = load(part, canvas, strict=strict)
        except InputError:  # with strict the first bad image, else not one of this chunk is good
            if strict:
                raise
            skipped += [_why(photo, canvas) for photo in part.photos]
            continue
        try:
            file.write(found.pixels.numpy().data)
        except OSError as error:
            raise InputError(f"No room for decoded images in '{tempfile.gettempdir()}' ({error.strerror}).") from error
        names += found.names
        kept += [first + place for place in found.kept]
        skipped += found.skipped
        del found  # before the next chunk needs its place
        if progress:
            progress(min(first + chunk, len(source.photos)))
    file.flush()
    check_none_empty(source, kept)
    labels = torch.tensor([source.labels[place] for place in kept] if source.classes else [], dtype=torch.int64)
    squares = Squares((File(file, (len(kept), 3, side, side)),), torch.arange(len(kept)))
    return Loaded(as_pixels(squares), labels, tuple(names), tuple(kept), tuple(skipped))


def _why(photo: Photo, canvas: Canvas) -> str:
    try:
        square(open_rgb(photo.read(), photo.name), canvas)
    except (OSError, BadImage) as error:
        return str(error)
    return ""
