"""Losses on images without labels, the cosine loss and the relative difference: by hand, slowly, a property, gradcheck."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from classgraft.losses.classification import cosine_distance
from classgraft.losses.consistency import entropy, pseudo_label, sharpened, soft_cross_entropy, squared_difference
from classgraft.losses.reconstruction import relative_difference


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def logits(*probabilities: list[float]) -> Tensor:
    return torch.tensor(probabilities, dtype=torch.float64).log()


# -- pseudo-labels --------------------------------------------------------------------------------------------------


def test_pseudo_label_worked_by_hand() -> None:
    # the first answer favours class 0 with 0.9, the second class 1 with 0.6: at 0.8 the first alone counts, -log 0.5 / 2
    ours, said = logits([0.5, 0.5], [0.2, 0.8]), logits([0.9, 0.1], [0.4, 0.6])
    assert float(pseudo_label(ours, said, 0.8)) == pytest.approx(math.log(2) / 2)
    assert float(pseudo_label(ours, said)) == pytest.approx((math.log(2) - math.log(0.8)) / 2)
    assert float(pseudo_label(ours, said, 0.95)) == 0


@pytest.mark.parametrize("threshold", [0.0, 0.5, 0.7])
def test_pseudo_label_equals_one_image_at_a_time(threshold: float) -> None:
    ours, said = drawn(9, 4), 2 * drawn(9, 4, seed=1)
    total = 0.0
    for row, answer in zip(ours, said.softmax(1), strict=True):
        k = int(answer.argmax())
        if float(answer[k]) >= threshold:
            total -= math.log(float(row.softmax(0)[k]))
    assert float(pseudo_label(ours, said, threshold)) == pytest.approx(total / 9)


def test_no_gradient_runs_through_the_answers_even_where_they_are_the_logits_themselves() -> None:
    ours = drawn(5, 3).requires_grad_()
    (both,) = torch.autograd.grad(pseudo_label(ours, ours), ours)
    (one,) = torch.autograd.grad(F.cross_entropy(ours, ours.detach().argmax(1)), ours)
    torch.testing.assert_close(both, one)


# -- soft targets ---------------------------------------------------------------------------------------------------


def test_soft_cross_entropy_worked_by_hand() -> None:
    # 1/2 log 4 + 1/2 log 4/3, and log 2: the mean of both, or half of the first alone
    ours, targets = logits([0.25, 0.75], [0.5, 0.5]), torch.tensor([[0.5, 0.5], [1.0, 0.0]], dtype=torch.float64)
    first = 0.5 * math.log(4) + 0.5 * math.log(4 / 3)
    assert float(soft_cross_entropy(ours, targets)) == pytest.approx((first + math.log(2)) / 2)
    assert float(soft_cross_entropy(ours, targets, torch.tensor([True, False]))) == pytest.approx(first / 2)


def test_soft_cross_entropy_equals_a_double_sum() -> None:
    ours, targets = drawn(6, 3), drawn(6, 3, seed=1).softmax(1)
    total = 0.0
    for row, target in zip(ours.softmax(1).tolist(), targets.tolist(), strict=True):
        for p, t in zip(row, target, strict=True):
            total -= t * math.log(p)
    assert float(soft_cross_entropy(ours, targets)) == pytest.approx(total / 6)


def test_soft_cross_entropy_is_least_where_the_targets_are_met() -> None:
    targets = drawn(4, 3).softmax(1)
    met = targets.log().requires_grad_()
    (gradient,) = torch.autograd.grad(soft_cross_entropy(met, targets), met)
    assert float(gradient.abs().max()) < 1e-12


# -- squared difference ---------------------------------------------------------------------------------------------


def test_squared_difference_worked_by_hand() -> None:
    # (1/4)^2 + (1/4)^2 over two classes is 1/16; the second image agrees
    ours, targets = logits([0.75, 0.25], [0.5, 0.5]), torch.full((2, 2), 0.5, dtype=torch.float64)
    assert float(squared_difference(ours, targets)) == pytest.approx(1 / 32)


def test_squared_difference_equals_a_double_sum_and_is_bounded() -> None:
    ours, targets = 5 * drawn(6, 3), drawn(6, 3, seed=1).softmax(1)
    total = sum(
        (p - t) ** 2
        for row, target in zip(ours.softmax(1).tolist(), targets.tolist(), strict=True)
        for p, t in zip(row, target, strict=True)
    )
    assert float(squared_difference(ours, targets)) == pytest.approx(total / 18)
    assert float(squared_difference(100 * ours, targets)) <= 2 / 3


# -- entropy and sharpening -----------------------------------------------------------------------------------------


def test_entropy_worked_by_hand() -> None:
    assert float(entropy(logits([0.5, 0.5], [0.25, 0.75]))) == pytest.approx(
        (math.log(2) + 0.25 * math.log(4) + 0.75 * math.log(4 / 3)) / 2
    )


def test_entropy_equals_a_double_sum_and_lies_between_0_and_that_of_ignorance() -> None:
    ours = drawn(6, 4)
    total = -sum(p * math.log(p) for row in ours.softmax(1).tolist() for p in row)
    assert float(entropy(ours)) == pytest.approx(total / 6)
    assert float(entropy(1e3 * ours)) == pytest.approx(0, abs=1e-9)
    assert float(entropy(0 * ours)) == pytest.approx(math.log(4))


def test_sharpening_worked_by_hand_and_slowly() -> None:
    # squares of 1/4 and 3/4 are as 1 to 9
    torch.testing.assert_close(sharpened(torch.tensor([[0.25, 0.75]]), 0.5), torch.tensor([[0.1, 0.9]]))
    given = drawn(5, 3).softmax(1)
    for row, found in zip(given.tolist(), sharpened(given, 0.7).tolist(), strict=True):
        powers = [p ** (1 / 0.7) for p in row]
        assert found == pytest.approx([p / sum(powers) for p in powers])


def test_sharpening_changes_nothing_at_1_and_never_the_order() -> None:
    given = drawn(5, 3).softmax(1)
    torch.testing.assert_close(sharpened(given, 1.0), given)
    assert torch.equal(sharpened(given, 0.3).argsort(1), given.argsort(1))
    torch.testing.assert_close(sharpened(torch.tensor([[1.0, 0.0]]), 0.5), torch.tensor([[1.0, 0.0]]))


# -- cosine ---------------------------------------------------------------------------------------------------------


def test_cosine_distance_worked_by_hand() -> None:
    # 3, 4: the cosine with the first axis is 3/5; 0, 2 lies on the second
    assert float(cosine_distance(torch.tensor([[3.0, 4.0], [0.0, 2.0]]), torch.tensor([0, 1]))) == pytest.approx(0.2)


def test_cosine_distance_equals_half_the_squared_distance_on_the_sphere() -> None:
    outputs, targets = drawn(6, 4), torch.arange(6) % 4
    total = 0.0
    for row, k in zip(outputs.tolist(), targets.tolist(), strict=True):
        length = math.sqrt(sum(x * x for x in row))
        total += sum((x / length - (i == k)) ** 2 for i, x in enumerate(row)) / 2
    assert float(cosine_distance(outputs, targets)) == pytest.approx(total / 6)


def test_cosine_distance_does_not_hang_on_length_and_lies_between_0_and_2() -> None:
    outputs, targets = drawn(6, 4), torch.arange(6) % 4
    torch.testing.assert_close(cosine_distance(7 * outputs, targets), cosine_distance(outputs, targets))
    axes = torch.eye(4)
    assert float(cosine_distance(axes, torch.arange(4))) == 0
    assert float(cosine_distance(-axes, torch.arange(4))) == 2


# -- relative difference --------------------------------------------------------------------------------------------


def test_relative_difference_worked_by_hand() -> None:
    # layer 1: mean |1| over mean |2| is 1/2; layer 2: mean (0, 3) = 3/2 over mean (1, 3) = 2 is 3/4
    ours = [torch.tensor([3.0, 3.0]), torch.tensor([1.0, 0.0])]
    theirs = [torch.tensor([2.0, 2.0]), torch.tensor([1.0, 3.0])]
    assert float(relative_difference(ours, theirs)) == pytest.approx(5 / 8)


def test_relative_difference_equals_a_slow_sum_and_does_not_hang_on_the_scale() -> None:
    ours, theirs = [drawn(2, 3), drawn(4, seed=1)], [drawn(2, 3, seed=2), drawn(4, seed=3)]
    total = 0.0
    for a, b in zip(ours, theirs, strict=True):
        pairs = list(zip(a.flatten().tolist(), b.flatten().tolist(), strict=True))
        total += sum(abs(x - y) for x, y in pairs) / sum(abs(y) for _, y in pairs)
    assert float(relative_difference(ours, theirs)) == pytest.approx(total / 2)
    scaled = relative_difference([100 * ours[0], ours[1]], [100 * theirs[0], theirs[1]])
    torch.testing.assert_close(scaled, relative_difference(ours, theirs))
    assert float(relative_difference(theirs, theirs)) == 0


# -- gradients ------------------------------------------------------------------------------------------------------


def test_gradcheck() -> None:
    ours, targets = drawn(4, 3).requires_grad_(), drawn(4, 3, seed=1).softmax(1)
    labels = torch.arange(4) % 3
    assert torch.autograd.gradcheck(lambda x: pseudo_label(x, 3 * targets.log(), 0.4), ours)
    assert torch.autograd.gradcheck(lambda x: soft_cross_entropy(x, targets), ours)
    assert torch.autograd.gradcheck(lambda x: squared_difference(x, targets), ours)
    assert torch.autograd.gradcheck(entropy, ours)
    assert torch.autograd.gradcheck(lambda x: sharpened(x.softmax(1), 0.5), ours)
    assert torch.autograd.gradcheck(lambda x: cosine_distance(x, labels), ours)
    assert torch.autograd.gradcheck(lambda x: relative_difference([x], [targets]), ours)
