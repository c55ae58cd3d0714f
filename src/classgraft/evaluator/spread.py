"""Cells one after the other, or over a Ray cluster."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from classgraft.errors import InputError
from classgraft.evaluator.cells import Cell

Line = dict[str, Any]
Job = Callable[[Cell], Line]


def one_by_one(job: Job, cells: Sequence[Cell]) -> Iterator[tuple[Cell, Line]]:
    """In this process."""
    for cell in cells:
        yield cell, job(cell)


def over_ray(job: Job, cells: Sequence[Cell]) -> Iterator[tuple[Cell, Line]]:
    """As they finish. The cluster that ``RAY_ADDRESS`` names, else one on this machine; a GPU each where there are any.

    Raises:
        InputError: Ray is not installed, or the images stream from a file of this machine.
    """
    try:
        import ray as found
    except ImportError as error:
        raise InputError("Ray is not installed; pip install 'classgraft[ray]', or leave --ray out.") from error
    if not cells:
        return
    ray: Any = found
    started = not ray.is_initialized()
    if started:
        ray.init(include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    try:
        gpus = 1 if ray.cluster_resources().get("GPU") else 0
        shared = ray.put(job)
        take = ray.remote(num_cpus=1, num_gpus=gpus)(_take)
        waiting = {take.remote(shared, cell): cell for cell in cells}
        while waiting:
            (done, *_), _ = ray.wait(list(waiting), num_returns=1)
            yield waiting.pop(done), _got(ray, done)
    finally:
        if started:
            ray.shutdown()


def _take(job: Job, cell: Cell) -> Line:
    return job(cell)


def _got(ray: Any, done: Any) -> Line:
    try:
        line: Line = ray.get(done)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, InputError):
            raise error.cause from None
        raise
    return line
