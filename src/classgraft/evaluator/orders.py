"""The orders in which classes come."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from classgraft.errors import InputError, nearest

Order = int | str
"""A seed, or a name: ``given`` (as the source has its classes) or one of ``WRITTEN``."""

WRITTEN: dict[str, tuple[int, ...]] = {
    "podnet-1": (
        87, 0, 52, 58, 44, 91, 68, 97, 51, 15, 94, 92, 10, 72, 49, 78, 61, 14, 8, 86, 84, 96, 18, 24, 32,
        45, 88, 11, 4, 67, 69, 66, 77, 47, 79, 93, 29, 50, 57, 83, 17, 81, 41, 12, 37, 59, 25, 20, 80, 73,
        1, 28, 6, 46, 62, 82, 53, 9, 31, 75, 38, 63, 33, 74, 27, 22, 36, 3, 16, 21, 60, 19, 70, 90, 89,
        43, 5, 42, 65, 76, 40, 30, 23, 85, 2, 95, 56, 48, 71, 64, 98, 13, 99, 7, 34, 55, 54, 26, 35, 39,
    ),
    "podnet-2": (
        58, 30, 93, 69, 21, 77, 3, 78, 12, 71, 65, 40, 16, 49, 89, 46, 24, 66, 19, 41, 5, 29, 15, 73, 11,
        70, 90, 63, 67, 25, 59, 72, 80, 94, 54, 33, 18, 96, 2, 10, 43, 9, 57, 81, 76, 50, 32, 6, 37, 7,
        68, 91, 88, 95, 85, 4, 60, 36, 22, 27, 39, 42, 34, 51, 55, 28, 53, 48, 38, 17, 83, 86, 56, 35, 45,
        79, 99, 84, 97, 82, 98, 26, 47, 44, 62, 13, 31, 0, 75, 14, 52, 74, 8, 20, 1, 92, 87, 23, 64, 61,
    ),
    "podnet-3": (
        71, 54, 45, 32, 4, 8, 48, 66, 1, 91, 28, 82, 29, 22, 80, 27, 86, 23, 37, 47, 55, 9, 14, 68, 25,
        96, 36, 90, 58, 21, 57, 81, 12, 26, 16, 89, 79, 49, 31, 38, 46, 20, 92, 88, 40, 39, 98, 94, 19, 95,
        72, 24, 64, 18, 60, 50, 63, 61, 83, 76, 69, 35, 0, 52, 7, 65, 42, 73, 74, 30, 41, 3, 6, 53, 13,
        56, 70, 77, 34, 97, 75, 2, 17, 93, 33, 84, 99, 51, 62, 87, 5, 15, 10, 78, 67, 44, 59, 85, 43, 11,
    ),
}  # fmt: skip
"""The three orders of CIFAR-100 that Douillard, Cord, Ollion, Robert, Valle: PODNet, ECCV 2020, arXiv 2004.13513, report on,
as their code has them (``options/data/cifar100_3orders.yaml`` of arthurdouillard/incremental_learning.pytorch); the
first is also iCaRL's and LUCIR's."""


def ordered(names: Sequence[str], order: Order) -> tuple[str, ...]:
    """The class names in this order; of a seed, ``numpy.random.RandomState(seed).permutation(len(names))``."""
    if order == "given":
        return tuple(names)
    if isinstance(order, int):
        if not 0 <= order < 2**32:
            raise InputError(f"The order's seed is {order}; it is a whole number from 0 to 2**32 - 1.")
        places = np.random.RandomState(order).permutation(len(names)).tolist()
    elif order in WRITTEN:
        places = list(WRITTEN[order])
        if len(names) != len(places):
            raise InputError(
                f"The order '{order}' is of {len(places)} classes, but there are {len(names)}; give a seed."
            )
    else:
        raise InputError(f"There is no order '{order}'; give a seed.{nearest(order, ['given', *WRITTEN])}")
    return tuple(names[place] for place in places)
