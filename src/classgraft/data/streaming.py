"""Squares of pixels that do not fit in memory: decoded once into a file, read back by threads ahead of their use.

The file has no name (it is gone with the process, however that ends) and is read with ``pread``, not mapped: the
system caches it with whatever memory is free, and the process itself holds no more than the batches under way.
"""

from __future__ import annotations

import os
import tempfile
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import IO, Any, Protocol, cast

import torch
from torch import Tensor

from classgraft.data.decode import BadImage, open_rgb, square
from classgraft.data.sources import Loaded, Photo, Source, _check_none_empty, load
from classgraft.errors import InputError

BUDGET = 4 << 30
"""Bytes of pixels that may lie in memory; more than that streams."""
WORKERS = 2
"""Threads that read ahead."""
AHEAD = 4
"""Batches read ahead."""
CHUNK = 1024
"""Photos decoded at a time."""


class Store(Protocol):
    """Where squares come from."""

    def __len__(self) -> int: ...

    @property
    def shape(self) -> tuple[int, ...]: ...

    def read(self, rows: Tensor) -> Tensor:
        """uint8 (B, 3, S, S)."""


@dataclass(frozen=True, eq=False)
class File:
    """Squares one after the other in a file without a name."""

    file: IO[bytes]
    shape: tuple[int, ...]

    def __len__(self) -> int:
        return self.shape[0]

    def read(self, rows: Tensor) -> Tensor:
        found = torch.empty((len(rows), *self.shape[1:]), dtype=torch.uint8)
        square = found[:1].numel()
        for row, into in zip(rows.tolist(), found.numpy(), strict=True):
            if os.preadv(self.file.fileno(), [into.data], row * square) != square:
                raise InputError("the temporary file of decoded images was cut short; see that the disk has room.")
        return found


@dataclass(frozen=True, eq=False)
class Memory:
    """Squares in memory, beside others that stream."""

    pixels: Tensor

    def __len__(self) -> int:
        return len(self.pixels)

    @property
    def shape(self) -> tuple[int, ...]:
        return tuple(self.pixels.shape)

    def read(self, rows: Tensor) -> Tensor:
        return self.pixels[rows]


@dataclass(frozen=True, eq=False)
class Squares:
    """Rows out of stores that follow one another; what one can do with a tensor of pixels but for arithmetic."""

    stores: tuple[Store, ...]
    rows: Tensor
    """int64 (N,), counted through all stores."""

    dtype = torch.uint8
    device = torch.device("cpu")

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def shape(self) -> tuple[int, ...]:
        return (len(self), *self.stores[0].shape[1:])

    def is_floating_point(self) -> bool:
        return False

    def __getitem__(self, index: Tensor | int | slice) -> Tensor:
        """uint8 (B, 3, S, S), or (3, S, S) for a number."""
        rows = self.rows[index]
        return self._read(rows[None])[0] if rows.ndim == 0 else self._read(rows)

    def ahead(self, order: Sequence[Tensor]) -> Iterator[Tensor]:
        """The squares of one batch of places after the other, in order, the next ones being read meanwhile."""
        todo = iter(order)
        under_way: deque[Future[Tensor]] = deque()
        pool = ThreadPoolExecutor(WORKERS, thread_name_prefix="classgraft-read")
        try:
            while True:
                while len(under_way) < AHEAD and (index := next(todo, None)) is not None:
                    under_way.append(pool.submit(self.__getitem__, index))
                if not under_way:
                    return
                yield under_way.popleft().result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)

    def _read(self, rows: Tensor) -> Tensor:
        if len(self.stores) == 1:
            return self.stores[0].read(rows)
        found = torch.empty((len(rows), *self.shape[1:]), dtype=torch.uint8)
        first = 0
        for store in self.stores:
            here = ((rows >= first) & (rows < first + len(store))).nonzero()[:, 0]
            found[here] = store.read(rows[here] - first)
            first += len(store)
        return found


def rows_of(pixels: Tensor, index: Tensor) -> Tensor:
    """The pixels at these places; squares that stream are not read yet."""
    held: object = pixels
    return _as_pixels(replace(held, rows=held.rows[index])) if isinstance(held, Squares) else pixels[index]


def together(first: Tensor, second: Tensor) -> Tensor:
    """The pixels of two sets, one after the other; they stream if either does."""
    if not streams(first) and not streams(second):
        return torch.cat([first, second])
    one, two = _squares(first), _squares(second)
    length = sum(len(store) for store in one.stores)
    return _as_pixels(Squares(one.stores + two.stores, torch.cat([one.rows, two.rows + length])))


def streams(pixels: object) -> bool:
    """Whether these pixels are read when they are needed."""
    return isinstance(pixels, Squares)


def _squares(pixels: object) -> Squares:
    if isinstance(pixels, Squares):
        return pixels
    held = cast(Tensor, pixels)
    return Squares((Memory(held),), torch.arange(len(held)))


def _as_pixels(squares: Squares) -> Tensor:
    # Whoever is given images indexes their pixels and asks for their shape; Squares does both as a tensor does.
    return cast(Tensor, cast(Any, squares))


def load_within(
    source: Source,
    side: int,
    budget: int = BUDGET,
    *,
    strict: bool = False,
    progress: Callable[[int], None] | None = None,
) -> Loaded:
    """As ``classgraft.data.sources.load``; pixels that take more than ``budget`` bytes lie in a file, not in memory.

    Raises:
        BadImage, InputError: as ``load`` does; or there is no room on the disk.
    """
    if len(source.photos) * 3 * side * side <= budget:
        return load(source, side, strict=strict, progress=progress)
    file = cast(IO[bytes], tempfile.TemporaryFile(prefix="classgraft-"))  # noqa: SIM115 - it lives with the squares
    names: list[str] = []
    kept: list[int] = []
    skipped: list[str] = []
    chunk = max(1, min(CHUNK, budget // (4 * 3 * side * side)))
    for first in range(0, len(source.photos), chunk):
        part = Source((), source.photos[first : first + chunk], ())
        try:
            found = load(part, side, strict=strict)
        except InputError:  # with strict the first bad image, else not one of this chunk is good
            if strict:
                raise
            skipped += [_why(photo, side) for photo in part.photos]
            continue
        try:
            file.write(found.pixels.numpy().data)
        except OSError as error:
            raise InputError(f"No room for decoded images in '{tempfile.gettempdir()}' ({error.strerror}).") from error
        names += found.names
        kept += [first + place for place in found.kept]
        skipped += found.skipped
        if progress:
            progress(min(first + chunk, len(source.photos)))
    file.flush()
    _check_none_empty(source, kept)
    labels = torch.tensor([source.labels[place] for place in kept] if source.classes else [], dtype=torch.int64)
    squares = Squares((File(file, (len(kept), 3, side, side)),), torch.arange(len(kept)))
    return Loaded(_as_pixels(squares), labels, tuple(names), tuple(kept), tuple(skipped))


def _why(photo: Photo, side: int) -> str:
    try:
        square(open_rgb(photo.read(), photo.name), side)
    except (OSError, BadImage) as error:
        return str(error)
    return ""
