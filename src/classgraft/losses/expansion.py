"""What a network that grows by a body at a time pays for the channels of its newest body."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor


def weights_in_use(areas: Sequence[int], inside: Sequence[Tensor], outside: Sequence[Tensor]) -> Tensor:
    """The share of the convolutions' weights that soft masks leave open, 0..1.

    L_S = sum_l K_l |m_{l-1}|_1 |m_l|_1 / sum_l K_l c_{l-1} c_l (Yan, Xie, He: DER, CVPR 2021, arXiv 2103.16788). K_l is
    taken as the area of the kernel, which makes the fraction one of weights.

    Args:
        areas: K_l, places of each convolution's kernel.
        inside: the mask of what each reads (c_{l-1},), in 0..1.
        outside: the mask of what each writes (c_l,), in 0..1.
    """
    parts = list(zip(areas, inside, outside, strict=True))
    used = sum(area * before.sum() * after.sum() for area, before, after in parts)
    return used / sum(area * len(before) * len(after) for area, before, after in parts)  # type: ignore[return-value]
