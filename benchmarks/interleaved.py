"""Rates of several contenders that take turns, so that whatever else the machine does falls on all alike."""

from __future__ import annotations

import os
import statistics
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from record import write

Contender = Callable[[], float]
"""Takes its turn and returns the images a second of it."""


def rates(contenders: Mapping[str, Contender], rounds: int) -> dict[str, list[float]]:
    """``rounds`` turns of each, after one that does not count."""
    for turn in contenders.values():
        turn()
    found: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(rounds):
        names = list(contenders)
        for name in names[number % len(names) :] + names[: number % len(names)]:
            found[name].append(contenders[name]())
    return found


def tell(
    name: str | None, what: str, found: Mapping[str, Sequence[float]], against: Sequence[str], **facts: Any
) -> None:
    """Print medians and ratios to each of ``against``, and keep them in ``results/NAME.json``, if there is a name.

    A ratio is the median over rounds of the ratio within a round, which is steadier than that of the medians.
    """
    ratios = {
        row: {to: statistics.median(a / b for a, b in zip(values, found[to], strict=True)) for to in against}
        for row, values in found.items()
    }
    print(what)
    for row, values in found.items():
        shown = "  ".join(f"x {ratio:.3f} of {to}" for to, ratio in ratios[row].items())
        print(f"  {row:20} {statistics.median(values):9.1f}  ({min(values):.1f} .. {max(values):.1f})  {shown}")
    medians = {row: statistics.median(values) for row, values in found.items()}
    n = len(next(iter(found.values())))
    load = os.getloadavg()[0]
    if name is not None:
        write(name, what, n=n, medians=medians, ratios=ratios, values=found, load=load, **facts)
