"""Encoded images with their labels, opened lazily and decoded by threads."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field

import torch

from classgraft.data.decode import BadImage, open_rgb, square
from classgraft.data.names import check_names, normal
from classgraft.errors import InputError
from classgraft.models.preparation import Canvas

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
    unread: tuple[str, ...] = ()
    """Files beside them that a person may take for pictures, of kinds that are not read."""


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


def labelled(
    photos: Sequence[Photo], given: Sequence[int | str | None], names: Sequence[str] | None, where: str
) -> Source:
    """Photos with a label each: class names, or whole numbers that `names` names; without names their digits do.

    Classes that no photo bears are left out; the others stand in the order of their numbers, or of their names.

    Raises:
        InputError: a label names no class.
    """
    limit = len(names) if names else sys.maxsize
    for photo, label in zip(photos, given, strict=True):
        if label is None or (isinstance(label, int) and not 0 <= label < limit):
            raise InputError(f"{photo.name} has the label {label}, which names no class; correct it or drop the row.")
    texts = any(isinstance(label, str) for label in given)
    borne: list[int | str] = sorted(set(given), key=normal if texts else None)  # type: ignore[type-var, arg-type]
    called = [names[label] if names and isinstance(label, int) else str(label) for label in borne]
    classes = check_names(called, f"the classes of '{where}'")
    index = {label: place for place, label in enumerate(borne)}
    return Source(classes, tuple(photos), tuple(index[label] for label in given if label is not None))


def together(sources: Sequence[Source]) -> Source:
    """Several labelled sources as one: the classes of the first, then what each further one brings."""
    if len(sources) == 1:
        return sources[0]
    classes = tuple(dict.fromkeys(name for source in sources for name in source.classes))
    place = {name: label for label, name in enumerate(classes)}
    labels = tuple(place[source.classes[label]] for source in sources for label in source.labels)
    photos = tuple(photo for source in sources for photo in source.photos)
    return Source(classes, photos, labels, tuple(name for source in sources for name in source.unread))


def load(
    source: Source, canvas: Canvas | int, *, strict: bool = False, progress: Callable[[int], None] | None = None
) -> Loaded:
    """Decode every photo onto a square canvas, or one of so many pixels; `progress` hears how many are done.

    An image that cannot be used is skipped and recorded; with `strict` the first such is an error.

    Raises:
        BadImage: with `strict`.
        InputError: a class, or a source without classes, is left with no image.
    """
    canvas = Canvas(canvas) if isinstance(canvas, int) else canvas
    pixels = torch.empty((len(source.photos), 3, canvas.side, canvas.side), dtype=torch.uint8)

    def decode(index: int) -> BadImage | None:
        photo = source.photos[index]
        try:
            pixels[index] = square(open_rgb(photo.read(), photo.name), canvas)
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
    check_none_empty(source, kept, skipped)
    labels = [source.labels[index] for index in kept] if source.classes else []
    names = tuple(source.photos[index].name for index in kept)
    return Loaded(pixels[: len(kept)], torch.tensor(labels, dtype=torch.int64), names, tuple(kept), tuple(skipped))


def check_none_empty(source: Source, kept: Sequence[int], skipped: Sequence[str] = ()) -> None:
    if len(skipped) == len(source.photos) == 1:
        raise InputError(skipped[0])
    if source.photos and not kept:
        first = source.photos[0].name
        raise InputError(f"none of the {len(source.photos)} images can be used, {first!r} first; give other ones.")
    left = {source.labels[index] for index in kept} if source.classes else set()
    for label, name in enumerate(source.classes):
        if label not in left:
            count = source.labels.count(label)
            raise InputError(f"class {name!r} has no image left: none of its {count} can be used; add some or drop it.")
