"""Losses of keypoints: numbers worked by hand, slow references, properties and gradients."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from classgraft.losses.keypoints import heatmap_divergence, map_divergence, squared_distance, weighted_mean


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def counted(*shape: int, seed: int = 5) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) < 0.6


def places(*shape: int, side: float, seed: int = 3) -> Tensor:
    return side * torch.rand(*shape, 2, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# -- maps and points ------------------------------------------------------------------------------------------------


def test_heatmap_divergence_worked_by_hand() -> None:
    # two cells side by side; the point is at the centre of the first, one cell from the other's: with sigma^2 = 1 / (2 ln 3)
    # the Gaussian is 3/4 and 1/4. The first map says 1/2 and 1/2; the second, way off, does not count
    logits = torch.tensor([[[[0.0, 0.0]], [[0.0, 99.0]]]])
    points = torch.tensor([[[0.5, 0.5], [0.5, 0.5]]])
    spread = math.sqrt(1 / (2 * math.log(3)))
    found = heatmap_divergence(logits, points, torch.tensor([[True, False]]), spread)
    assert float(found) == pytest.approx(0.75 * math.log(1.5) - 0.25 * math.log(2), rel=1e-5)
    assert float(heatmap_divergence(logits, points, torch.tensor([[False, False]]), spread)) == 0


def test_heatmap_divergence_equals_loops_over_cells() -> None:
    logits, points, weight = drawn(2, 3, 4, 5), places(2, 3, side=4.0), counted(2, 3)
    each = []
    for b, k in weight.nonzero().tolist():
        bell = {
            (y, x): math.exp(-((x + 0.5 - points[b, k, 0]) ** 2 + (y + 0.5 - points[b, k, 1]) ** 2) / (2 * 0.7**2))
            for y in range(4) for x in range(5)
        }  # fmt: skip
        total, over = sum(bell.values()), sum(math.exp(v) for v in logits[b, k].flatten())
        each.append(sum(
            g / total * (math.log(g / total) - math.log(math.exp(logits[b, k, y, x]) / over)) for (y, x), g in bell.items()
        ))  # fmt: skip
    assert float(heatmap_divergence(logits, points, weight, 0.7)) == pytest.approx(sum(each) / len(each), rel=1e-9)


def test_heatmap_divergence_is_least_and_0_at_the_gaussian_itself_and_finite_far_away() -> None:
    points, every = places(1, 2, side=6.0), torch.ones(1, 2)
    y, x = torch.meshgrid(torch.arange(6) + 0.5, torch.arange(6) + 0.5, indexing="ij")
    at = points[..., None, None]
    bell = -((x - at[:, :, 0]) ** 2 + (y - at[:, :, 1]) ** 2) / 2
    assert float(heatmap_divergence(bell, points, every, 1.0)) == pytest.approx(0, abs=1e-12)
    assert float(heatmap_divergence(bell + 0.1 * drawn(1, 2, 6, 6), points, every, 1.0)) > 1e-4
    assert float(heatmap_divergence(bell + 5.0, points, every, 1.0)) == pytest.approx(0, abs=1e-12)
    assert bool(heatmap_divergence(drawn(1, 2, 6, 6).float(), 1e3 + points.float(), every, 1e-2).isfinite())


def test_map_divergence_worked_by_hand() -> None:
    teacher, student = torch.tensor([[[[math.log(3), 0.0]]]]), torch.zeros(1, 1, 1, 2)
    expected = 0.75 * math.log(1.5) - 0.25 * math.log(2)
    assert float(map_divergence(student, teacher, torch.ones(1, 1))) == pytest.approx(expected, rel=1e-6)
    both = map_divergence(student.repeat(1, 2, 1, 1), torch.cat([teacher, student], 1), torch.tensor([[1.0, 3.0]]))
    assert float(both) == pytest.approx(expected / 4, rel=1e-6)


def test_map_divergence_equals_a_sum_over_places_and_is_0_for_the_teacher_s_own() -> None:
    student, teacher, weight = drawn(2, 3, 4, 4), drawn(2, 3, 4, 4, seed=1), counted(2, 3)
    each = []
    for b, k in weight.nonzero().tolist():
        p, q = (maps[b, k].flatten().softmax(0) for maps in (teacher, student))
        each.append(float((p * (p / q).log()).sum()))
    assert float(map_divergence(student, teacher, weight)) == pytest.approx(sum(each) / len(each), rel=1e-9)
    assert float(map_divergence(teacher + 3.0, teacher, weight)) == pytest.approx(0, abs=1e-12)


# -- places ---------------------------------------------------------------------------------------------------------


def test_squared_distance_worked_by_hand_and_equals_a_loop() -> None:
    # 3, 4 apart: 25; 1, 0 apart: 1; the third does not count
    found, wanted = (
        torch.tensor([[[3.0, 4.0], [1.0, 1.0], [9.0, 9.0]]]),
        torch.tensor([[[0.0, 0.0], [0.0, 1.0], [0.0, 0.0]]]),
    )
    assert float(squared_distance(found, wanted, torch.tensor([[True, True, False]]))) == 13
    found, wanted, weight = drawn(3, 4, 2), drawn(3, 4, 2, seed=1), counted(3, 4)
    each = [sum(float(found[b, k, i] - wanted[b, k, i]) ** 2 for i in (0, 1)) for b, k in weight.nonzero().tolist()]
    assert float(squared_distance(found, wanted, weight)) == pytest.approx(sum(each) / len(each))


def test_only_the_ratio_of_weights_matters_and_none_at_all_is_0() -> None:
    each, weight = drawn(3, 4).abs(), torch.rand(3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert float(weighted_mean(each, weight)) == pytest.approx(float(weighted_mean(each, 7 * weight)))
    assert float(weighted_mean(each, 0 * weight)) == 0


@pytest.mark.parametrize("name", ["heatmap", "map", "place"])
def test_gradients_are_those_of_finite_differences_and_0_where_nothing_counts(name: str) -> None:
    weight = torch.tensor([[1.0, 0.0, 0.5], [0.0, 1.0, 1.0]], dtype=torch.float64)
    given = (drawn(2, 3, 2) if name == "place" else drawn(2, 3, 3, 4)).requires_grad_()

    def loss(own: Tensor) -> Tensor:
        if name == "heatmap":
            return heatmap_divergence(own, places(2, 3, side=3.0), weight, 0.8)
        return (map_divergence if name == "map" else squared_distance)(own, drawn(*own.shape, seed=1), weight)

    assert torch.autograd.gradcheck(loss, given)
    (gradient,) = torch.autograd.grad(loss(given), given)
    assert torch.equal(gradient.flatten(2).abs().amax(2) > 0, weight > 0)
