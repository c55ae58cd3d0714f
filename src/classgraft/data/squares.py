"""Squares of pixels that lie outside of memory and are read when they are needed, by threads ahead of their use.

A file is read with ``pread``, not mapped: the system caches it with whatever memory is free, and the process itself
holds no more than the batches under way.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import IO, Any, Protocol, cast

import torch
from torch import Tensor

from classgraft.errors import InputError

WORKERS = 2
"""Threads that read ahead."""
AHEAD = 2
"""Batches read ahead."""


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
    return as_pixels(replace(held, rows=held.rows[index])) if isinstance(held, Squares) else pixels[index]


def together(first: Tensor, second: Tensor) -> Tensor:
    """The pixels of two sets, one after the other; they stream if either does."""
    if not streams(first) and not streams(second):
        return torch.cat([first, second])
    one, two = _squares(first), _squares(second)
    length = sum(len(store) for store in one.stores)
    return as_pixels(Squares(one.stores + two.stores, torch.cat([one.rows, two.rows + length])))


def streams(pixels: object) -> bool:
    """Whether these pixels are read when they are needed."""
    return isinstance(pixels, Squares)


def _squares(pixels: object) -> Squares:
    if isinstance(pixels, Squares):
        return pixels
    held = cast(Tensor, pixels)
    return Squares((Memory(held),), torch.arange(len(held)))


def as_pixels(squares: Squares) -> Tensor:
    """For ``Images.pixels``: whoever is given images indexes those and asks for their shape, as with a tensor."""
    return cast(Tensor, cast(Any, squares))
