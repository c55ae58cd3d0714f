"""Losses on maps, and the gradient penalty."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from classgraft.losses.segmentation import (
    gradient_penalty,
    pair_distance,
    pixel_cross_entropy,
    pixel_distance,
    region_means,
)


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def chosen(*shape: int, seed: int = 5) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) < 0.6


# -- pixels ---------------------------------------------------------------------------------------------------------


def test_pixel_cross_entropy_worked_by_hand() -> None:
    # probabilities 3/4 and 1/4 at one pixel of class 0, 1/2 and 1/2 at one of class 1; a third, way off, is void
    logits = torch.tensor([[[[math.log(3), 0.0, 0.0]], [[0.0, 0.0, 99.0]]]])
    masks = torch.tensor([[[0, 1, 255]]])
    assert float(pixel_cross_entropy(logits, masks)) == pytest.approx(-(math.log(0.75) + math.log(0.5)) / 2, rel=1e-6)
    assert float(pixel_cross_entropy(logits, torch.full_like(masks, 255))) == 0


def test_pixel_cross_entropy_equals_a_loop() -> None:
    logits, masks = drawn(2, 3, 4, 5), torch.randint(0, 4, (2, 4, 5), generator=torch.Generator().manual_seed(1))
    masks[masks == 3] = 255
    rows = [
        -math.log(math.exp(logits[b, k, y, x]) / sum(math.exp(v) for v in logits[b, :, y, x]))
        for b in range(2) for y in range(4) for x in range(5) if (k := int(masks[b, y, x])) != 255
    ]  # fmt: skip
    assert float(pixel_cross_entropy(logits, masks)) == pytest.approx(sum(rows) / len(rows), rel=1e-12)


def test_pixel_distance_worked_by_hand() -> None:
    # the teacher says 3/4 and 1/4 everywhere, the student 1/2 and 1/2 at the first pixel and the same at the second;
    # the third, where it says something else, does not count
    teacher = torch.tensor([math.log(3), 0.0]).view(1, 2, 1, 1).repeat(1, 1, 1, 3)
    student = teacher.clone()
    student[0, :, 0, 0], student[0, 1, 0, 2] = 0.0, 5.0
    counted = torch.tensor([[[True, True, False]]])
    expected = (0.75 * math.log(1.5) - 0.25 * math.log(2)) / 2
    assert float(pixel_distance(student, teacher, counted)) == pytest.approx(expected, rel=1e-6)
    assert float(pixel_distance(student, teacher, torch.zeros_like(counted))) == 0


def test_pixel_distance_equals_a_loop() -> None:
    student, teacher, counted = drawn(2, 3, 4, 5), drawn(2, 3, 4, 5, seed=1), chosen(2, 4, 5)
    total = 0.0
    for b, y, x in counted.nonzero().tolist():
        q, p = student[b, :, y, x].softmax(0).tolist(), teacher[b, :, y, x].softmax(0).tolist()
        total += sum(pk * math.log(pk / qk) for pk, qk in zip(p, q, strict=True))
    assert float(pixel_distance(student, teacher, counted)) == pytest.approx(total / int(counted.sum()), rel=1e-10)


def test_pixels_that_do_not_count_give_no_gradient_and_the_teacher_s_logits_are_the_minimum() -> None:
    student, teacher, counted = drawn(2, 3, 4, 5).requires_grad_(), drawn(2, 3, 4, 5, seed=1), chosen(2, 4, 5)
    masks = torch.where(counted, 1, 255)
    for loss in (pixel_distance(student, teacher, counted), pixel_cross_entropy(student, masks)):
        (gradient,) = torch.autograd.grad(loss, student)
        size = gradient.abs().sum(1)
        assert torch.equal(size > 0, counted)
    (gradient,) = torch.autograd.grad(pixel_distance(student, student.detach(), counted), student)
    assert float(gradient.abs().max()) < 1e-15


# -- regions and pairs ----------------------------------------------------------------------------------------------


def test_region_means_worked_by_hand() -> None:
    # four pixels in a row, two regions: in the first 1 counts and 5 does not, in the second nothing does
    maps = torch.tensor([1.0, 5.0, 2.0, 4.0]).view(1, 1, 1, 4).repeat(1, 1, 2, 1)
    counted = torch.tensor([True, False, False, False]).view(1, 1, 4).repeat(1, 2, 1)
    means, some = region_means(maps, counted, 2)
    assert means.shape == (1, 4, 1)
    assert means.flatten().tolist() == [1, 0, 1, 0]
    assert some.tolist() == [[True, False, True, False]]


def test_region_means_equal_a_loop_at_two_resolutions() -> None:
    """The mask is twice as fine as the map, so that a place of the map counts by quarters."""
    maps, counted = drawn(2, 3, 6, 6), chosen(2, 12, 12)
    counted[0, :4, :4] = False
    means, some = region_means(maps, counted, 3)
    for b in range(2):
        for region in range(9):
            top, left = 2 * (region // 3), 2 * (region % 3)
            total, weight = torch.zeros(3, dtype=torch.float64), 0.0
            for y in range(top, top + 2):
                for x in range(left, left + 2):
                    share = float(counted[b, 2 * y : 2 * y + 2, 2 * x : 2 * x + 2].double().mean())
                    total, weight = total + share * maps[b, :, y, x], weight + share
            assert bool(some[b, region]) == (weight > 0)
            torch.testing.assert_close(means[b, region], total / weight if weight else total)
    assert not some[0, 0]


def test_pair_distance_worked_by_hand() -> None:
    # the teacher's two regions stand at right angles, cosines 1 0 0 1; the student's agree, 1 1 1 1: two of four differ
    teacher, student = torch.eye(2)[None], torch.ones(1, 2, 5)
    all_, one = torch.ones(1, 2, dtype=torch.bool), torch.tensor([[True, False]])
    assert float(pair_distance(student, teacher, all_)) == pytest.approx(0.5)
    assert float(pair_distance(student, teacher, one)) == pytest.approx(0, abs=1e-12)  # a pair with itself
    two = [rows.repeat(2, 1, 1) for rows in (student, teacher)]
    assert float(pair_distance(*two, torch.cat([all_, ~all_]))) == pytest.approx(
        0.5
    )  # an image of void does not dilute


def test_pair_distance_equals_loops_over_pairs() -> None:
    student, teacher, counted = drawn(3, 4, 2), drawn(3, 4, 5, seed=1), chosen(3, 4)
    means = []
    for own, wanted, some in zip(student, teacher, counted, strict=True):
        places = some.nonzero()[:, 0].tolist()
        parts = [
            (float(F.cosine_similarity(own[i], own[j], 0)) - float(F.cosine_similarity(wanted[i], wanted[j], 0))) ** 2
            for i in places for j in places
        ]  # fmt: skip
        means += [sum(parts) / len(parts)] if parts else []
    assert len(means) > 1
    assert float(pair_distance(student, teacher, counted)) == pytest.approx(sum(means) / len(means), rel=1e-10)


def test_pairs_do_not_see_a_turn_of_the_channels_nor_who_is_the_teacher() -> None:
    student, teacher, counted = drawn(3, 6, 5), drawn(3, 6, 8, seed=1), chosen(3, 6)
    turn = torch.linalg.qr(drawn(5, 5, seed=2))[0]
    once = pair_distance(student, teacher, counted)
    torch.testing.assert_close(pair_distance(3 * student @ turn, 0.1 * teacher, counted), once)
    torch.testing.assert_close(pair_distance(teacher, student, counted), once)
    assert float(pair_distance(student @ turn, student, counted)) < 1e-25
    assert float(once) > 1e-3


# -- the critic's gradient ------------------------------------------------------------------------------------------


def test_gradient_penalty_worked_by_hand() -> None:
    # lengths 5 and 0: (4^2 + 1^2) / 2
    assert float(gradient_penalty(torch.tensor([[[3.0], [4.0]], [[0.0], [0.0]]]))) == pytest.approx(8.5, rel=1e-4)


def test_gradient_penalty_equals_a_loop() -> None:
    gradient = drawn(4, 2, 3, 3)
    rows = [(math.sqrt(sum(v * v for v in row)) - 1) ** 2 for row in gradient.flatten(1).tolist()]
    assert float(gradient_penalty(gradient)) == pytest.approx(sum(rows) / 4, rel=1e-9)


def test_a_linear_critic_of_unit_length_is_not_penalised_and_a_longer_one_is_shortened() -> None:
    weight = F.normalize(drawn(12), dim=0).requires_grad_()
    for scale in (1.0, 2.0):
        shown = drawn(5, 12, seed=1).requires_grad_()
        (slope,) = torch.autograd.grad((shown @ (scale * weight)).sum(), shown, create_graph=True)
        penalty = gradient_penalty(slope)
        assert float(penalty.detach()) == pytest.approx((scale - 1) ** 2, abs=1e-9)
        (second,) = torch.autograd.grad(penalty, weight)  # a gradient of a gradient
        assert float(second @ weight.detach()) == pytest.approx(2 * scale * (scale - 1), abs=1e-9)


def test_no_gradient_at_all_has_a_finite_gradient() -> None:
    slope = torch.zeros(2, 3, requires_grad=True)
    assert torch.autograd.grad(gradient_penalty(slope), slope)[0].isfinite().all()


# -- gradients ------------------------------------------------------------------------------------------------------


def test_gradients_equal_finite_differences() -> None:
    counted, masks = chosen(2, 4, 4), torch.where(chosen(2, 4, 4, seed=6), 2, 255)
    logits, teacher = drawn(2, 3, 4, 4).requires_grad_(), drawn(2, 3, 4, 4, seed=1)
    assert torch.autograd.gradcheck(lambda given: pixel_cross_entropy(given, masks), logits)
    assert torch.autograd.gradcheck(lambda given: pixel_distance(given, teacher, counted), logits)

    def pairs(maps: Tensor) -> Tensor:
        (own, some), (wanted, _) = region_means(maps, counted, 2), region_means(teacher, counted, 2)
        return pair_distance(own, wanted, some)

    assert torch.autograd.gradcheck(pairs, logits)
    assert torch.autograd.gradgradcheck(gradient_penalty, drawn(3, 4).requires_grad_())
