"""Losses that hold a network to another's answers, and those of PODNet."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from classgraft.losses.distillation import distillation, hint_distance, sigmoid_cross_entropy, similarity_distance
from classgraft.losses.podnet import neighbourhood, pooled, pooled_distance, turned


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


# -- distillation ---------------------------------------------------------------------------------------------------


def test_distillation_worked_by_hand() -> None:
    # at T = 2 the teacher's logits 2 log 3 and 0 become 3/4 and 1/4, the student's 0 and 0 become 1/2 each:
    # 3/4 log 3/2 + 1/4 log 1/2; the second student agrees: 0. Multiplied by T squared it is four times as much
    teacher = torch.tensor([[2 * math.log(3), 0.0]] * 2)
    student = torch.tensor([[0.0, 0.0], [2 * math.log(3), 0.0]])
    expected = (0.75 * math.log(1.5) - 0.25 * math.log(2)) / 2
    assert float(distillation(student, teacher, 2.0)) == pytest.approx(expected, rel=1e-6)
    assert float(distillation(student, teacher, 2.0, squared=True)) == pytest.approx(4 * expected, rel=1e-6)


@pytest.mark.parametrize("temperature", [1.0, 2.0, 5.0])
def test_distillation_equals_powers_of_probabilities(temperature: float) -> None:
    """Li and Hoiem write the temperature as a power 1/T of the probabilities, made to sum to one again."""
    student, teacher = drawn(6, 4), drawn(6, 4, seed=1)
    total = 0.0
    for row, target in zip(student.softmax(1).tolist(), teacher.softmax(1).tolist(), strict=True):
        power = [p ** (1 / temperature) for p in row]
        wanted = [p ** (1 / temperature) for p in target]
        for q, p in zip(power, wanted, strict=True):
            total += p / sum(wanted) * math.log(p / sum(wanted) / (q / sum(power)))
    assert float(distillation(student, teacher, temperature)) == pytest.approx(total / 6, rel=1e-10)


def test_the_teacher_s_own_logits_are_the_minimum_of_distillation() -> None:
    teacher = drawn(5, 4)
    student = teacher.clone().requires_grad_()
    loss = distillation(student, teacher, 2.0)
    (gradient,) = torch.autograd.grad(loss, student)
    assert float(loss.detach()) == pytest.approx(0, abs=1e-12)
    assert float(gradient.abs().max()) < 1e-12
    assert float(distillation(drawn(5, 4, seed=1), teacher, 2.0)) > 0.01


def test_the_gradient_of_distillation_is_the_difference_of_probabilities_over_the_temperature() -> None:
    student, teacher = drawn(5, 4).requires_grad_(), drawn(5, 4, seed=1)
    (gradient,) = torch.autograd.grad(distillation(student, teacher, 2.0), student)
    torch.testing.assert_close(gradient, ((student / 2).softmax(1) - (teacher / 2).softmax(1)).detach() / 2 / 5)


def test_at_a_high_temperature_the_squared_form_matches_logits() -> None:
    """Hinton, section 2.1: with logits of mean 0 its gradient goes towards (z - v) / K."""
    student, teacher = (z - z.mean(1, keepdim=True) for z in (drawn(5, 4), drawn(5, 4, seed=1)))
    student.requires_grad_()
    (gradient,) = torch.autograd.grad(distillation(student, teacher, 1e3, squared=True), student)
    torch.testing.assert_close(gradient, ((student - teacher) / 4 / 5).detach(), rtol=1e-2, atol=1e-4)


def test_the_squared_form_s_gradient_keeps_its_size_and_the_other_s_does_not() -> None:
    student, teacher = (6 * drawn(200, 10)).requires_grad_(), 6 * drawn(200, 10, seed=1)
    sizes = {}
    for squared in (True, False):
        for temperature in (1.0, 2.0, 5.0, 10.0, 20.0):
            loss = distillation(student, teacher, temperature, squared)
            sizes[squared, temperature] = float(torch.autograd.grad(loss, student)[0].norm())
    kept = [size for (squared, _), size in sizes.items() if squared]
    assert max(kept) < 5 * min(kept)
    assert sizes[False, 1.0] > 50 * sizes[False, 20.0]


# -- hints ----------------------------------------------------------------------------------------------------------


def test_hint_distance_worked_by_hand() -> None:
    # two positions of two channels: (3, 4) apart and (0, 2) apart: halves of 25 and 4, mean 7.25; a second image agrees
    hint = torch.zeros(2, 2, 1, 2)
    guided = hint.clone()
    guided[0, :, 0, 0] = torch.tensor([3.0, 4.0])
    guided[0, 1, 0, 1] = 2.0
    assert float(hint_distance(guided, hint)) == pytest.approx((12.5 + 2) / 4)


@pytest.mark.parametrize("shape", [(3, 5), (3, 5, 2, 4)])
def test_hint_distance_equals_a_slow_sum(shape: tuple[int, ...]) -> None:
    guided, hint = drawn(*shape), drawn(*shape, seed=1)
    total, places = 0.0, 0
    for a, b in zip(guided.flatten(2).movedim(1, -1).reshape(-1, 5) if len(shape) > 2 else guided,
                    hint.flatten(2).movedim(1, -1).reshape(-1, 5) if len(shape) > 2 else hint, strict=True):  # fmt: skip
        total += sum((float(x) - float(y)) ** 2 for x, y in zip(a, b, strict=True)) / 2
        places += 1
    assert float(hint_distance(guided, hint)) == pytest.approx(total / places, rel=1e-12)


def test_hint_distance_hangs_on_neither_the_batch_nor_the_positions() -> None:
    guided, hint = drawn(2, 3, 4, 4), drawn(2, 3, 4, 4, seed=1)
    once = hint_distance(guided, hint)
    torch.testing.assert_close(hint_distance(guided.repeat(2, 1, 3, 1), hint.repeat(2, 1, 3, 1)), once)
    torch.testing.assert_close(hint_distance(guided.repeat(1, 2, 1, 1), hint.repeat(1, 2, 1, 1)), 2 * once)


# -- similarities ---------------------------------------------------------------------------------------------------


def test_similarity_distance_worked_by_hand() -> None:
    # the teacher's rows stand at right angles: G is the identity. The student's are one and the same: every entry of
    # G is 1/sqrt 2. Differences: 1 - 1/sqrt 2 twice, 1/sqrt 2 twice
    teacher, student = torch.eye(2), torch.ones(2, 7)
    expected = ((1 - math.sqrt(0.5)) ** 2 + 0.5) / 2
    assert float(similarity_distance(student, teacher)) == pytest.approx(expected, rel=1e-6)


def test_similarity_distance_equals_loops_over_pairs() -> None:
    student, teacher = drawn(4, 2, 3, 3), drawn(4, 5, seed=1)

    def matrix(rows: list[list[float]]) -> list[list[float]]:
        found = [[sum(a * b for a, b in zip(one, other, strict=True)) for other in rows] for one in rows]
        return [[value / math.sqrt(sum(v * v for v in row)) for value in row] for row in found]

    own, wanted = matrix(student.flatten(1).tolist()), matrix(teacher.tolist())
    total = sum((own[i][j] - wanted[i][j]) ** 2 for i in range(4) for j in range(4))
    assert float(similarity_distance(student, teacher)) == pytest.approx(total / 16, rel=1e-10)


def test_turned_or_scaled_activations_are_as_similar_as_before() -> None:
    student, teacher = drawn(6, 5), drawn(6, 8, seed=1)
    turn = torch.linalg.qr(drawn(5, 5, seed=2))[0]
    once = similarity_distance(student, teacher)
    torch.testing.assert_close(similarity_distance(3 * student @ turn, 0.1 * teacher), once)
    assert float(similarity_distance(student @ turn, student)) < 1e-25
    assert float(once) > 1e-3


def test_activations_that_are_all_zero_have_a_finite_gradient() -> None:
    student = torch.zeros(3, 4, requires_grad=True)
    loss = similarity_distance(student, drawn(3, 2).float())
    (gradient,) = torch.autograd.grad(loss, student)
    assert loss.isfinite()
    assert gradient.isfinite().all()


# -- sigmoid cross-entropy ------------------------------------------------------------------------------------------


def test_sigmoid_cross_entropy_worked_by_hand() -> None:
    # sigmoids 3/4 and 1/2 with targets 1 and 1/2: -log 3/4 + log 2; the second image: 1/2 and 1/2, targets 0 and 1: 2 log 2
    logits = torch.tensor([[math.log(3), 0.0], [0.0, 0.0]])
    targets = torch.tensor([[1.0, 0.5], [0.0, 1.0]])
    expected = (-math.log(0.75) + 3 * math.log(2)) / 2
    assert float(sigmoid_cross_entropy(logits, targets)) == pytest.approx(expected, rel=1e-6)


def test_sigmoid_cross_entropy_equals_a_slow_sum() -> None:
    logits, targets = drawn(7, 3), drawn(7, 3, seed=1).sigmoid()
    total = 0.0
    for row, wanted in zip(logits.tolist(), targets.tolist(), strict=True):
        for logit, target in zip(row, wanted, strict=True):
            total += -target * math.log(1 / (1 + math.exp(-logit))) - (1 - target) * math.log(1 / (1 + math.exp(logit)))
    assert float(sigmoid_cross_entropy(logits, targets)) == pytest.approx(total / 7, rel=1e-12)


def test_parts_of_the_classes_add_up_and_none_is_nothing() -> None:
    logits, targets = drawn(7, 5), drawn(7, 5, seed=1).sigmoid()
    parts = sigmoid_cross_entropy(logits[:, :2], targets[:, :2]) + sigmoid_cross_entropy(logits[:, 2:], targets[:, 2:])
    torch.testing.assert_close(parts, sigmoid_cross_entropy(logits, targets))
    assert float(sigmoid_cross_entropy(logits[:, :0], targets[:, :0])) == 0


# -- PODNet ---------------------------------------------------------------------------------------------------------


def test_pooled_worked_by_hand() -> None:
    # squares 1 4 / 9 16: columns sum to 10 and 20, rows to 5 and 25; their length is sqrt(100 + 400 + 25 + 625)
    found = pooled(torch.tensor([[1.0, -2.0], [3.0, 4.0]]).view(1, 1, 2, 2))
    torch.testing.assert_close(found, torch.tensor([[10.0, 20.0, 5.0, 25.0]]) / math.sqrt(1150))


def test_pooled_equals_a_slow_sum() -> None:
    maps = drawn(2, 3, 4, 5).float()
    found = pooled(maps)
    for image, row in zip(maps.tolist(), found, strict=True):
        columns = [sum(image[c][h][w] ** 2 for h in range(4)) for c in range(3) for w in range(5)]
        rows = [sum(image[c][h][w] ** 2 for w in range(5)) for c in range(3) for h in range(4)]
        expected = torch.tensor(columns + rows)
        torch.testing.assert_close(row, expected / expected.norm())


def test_pooled_distance_worked_by_hand() -> None:
    # first stage: distances 0 and sqrt 2, mean 0.7071; second stage: 5 and 0, mean 2.5
    one = [torch.tensor([[1.0, 0.0], [1.0, 0.0]]), torch.tensor([[3.0, 4.0], [1.0, 1.0]])]
    other = [torch.tensor([[1.0, 0.0], [0.0, 1.0]]), torch.tensor([[0.0, 0.0], [1.0, 1.0]])]
    assert float(pooled_distance(one, other)) == pytest.approx((math.sqrt(0.5) + 2.5) / 2, rel=1e-6)


def test_pooled_distance_equals_a_slow_loop() -> None:
    one, other = [drawn(3, 4), drawn(3, 7, seed=1)], [drawn(3, 4, seed=2), drawn(3, 7, seed=3)]
    means = []
    for a, b in zip(one, other, strict=True):
        means.append(sum(math.dist(x, y) for x, y in zip(a.tolist(), b.tolist(), strict=True)) / 3)
    assert float(pooled_distance(one, other)) == pytest.approx(sum(means) / 2, rel=1e-12)


def test_what_is_pooled_does_not_see_scale_sign_or_a_shuffle_within_a_row_and_its_column_sums() -> None:
    maps = drawn(2, 3, 4, 4).float()
    torch.testing.assert_close(pooled(-3 * maps), pooled(maps))
    assert float(pooled_distance([pooled(maps)], [pooled(2 * maps)])) == pytest.approx(0, abs=1e-6)
    assert float(pooled_distance([pooled(maps)], [pooled(maps.flip(3))])) > 0.01


def test_the_distance_of_equal_maps_has_a_finite_gradient() -> None:
    maps = drawn(2, 3, 4, 4).float().requires_grad_()
    (gradient,) = torch.autograd.grad(pooled_distance([pooled(maps)], [pooled(maps.detach())]), maps)
    assert gradient.isfinite().all()


def test_turned_worked_by_hand() -> None:
    # a right angle, 60 degrees, opposite: (1 + 1/2 + 2) / 3
    one = torch.tensor([[1.0, 0.0], [2.0, 0.0], [1.0, 1.0]])
    other = torch.tensor([[0.0, 5.0], [0.5, math.sqrt(0.75)], [-1.0, -1.0]])
    assert float(turned(one, other)) == pytest.approx(3.5 / 3, rel=1e-5)


def test_turned_is_half_the_squared_distance_at_unit_length() -> None:
    one, other = drawn(6, 5), drawn(6, 5, seed=1)
    squares = (F.normalize(one, dim=1) - F.normalize(other, dim=1)).square().sum(1)
    torch.testing.assert_close(turned(one, other), squares.mean() / 2)
    torch.testing.assert_close(turned(3 * one, other), turned(one, other))


def test_the_neighbourhood_loss_worked_by_hand() -> None:
    # log(e^0 + e^0) - (1 - 0.6) = 0.6931 - 0.4; the second image: log(e^0 + e^-1) - (3 - 0.6) < 0, a hinge: 0
    logits = torch.tensor([[1.0, 0.0, 0.0], [0.0, 3.0, -1.0]])
    found = neighbourhood(logits, torch.tensor([0, 1]), 0.6)
    assert float(found) == pytest.approx((math.log(2) - 0.4) / 2, rel=1e-6)


def test_the_neighbourhood_loss_equals_a_slow_loop() -> None:
    logits, targets = 2 * drawn(8, 5), torch.arange(8) % 5
    losses = []
    for row, own in zip(logits.tolist(), targets.tolist(), strict=True):
        others = math.log(sum(math.exp(logit) for k, logit in enumerate(row) if k != own))
        losses.append(max(0.0, others - row[own] + 0.3))
    assert float(neighbourhood(logits, targets, 0.3)) == pytest.approx(sum(losses) / 8, rel=1e-12)


def test_the_neighbourhood_loss_is_never_negative_and_nothing_for_one_class() -> None:
    assert float(neighbourhood(10 * F.one_hot(torch.arange(3)).double(), torch.arange(3), 0.6)) == 0
    alone = drawn(4, 1).requires_grad_()
    loss = neighbourhood(alone, torch.zeros(4, dtype=torch.int64), 0.6)
    (gradient,) = torch.autograd.grad(loss, alone)
    assert float(loss.detach()) == 0
    assert not gradient.any()


def test_a_number_added_to_all_logits_changes_no_neighbourhood() -> None:
    logits, targets = drawn(6, 4), torch.arange(6) % 4
    torch.testing.assert_close(neighbourhood(logits + 40, targets, 0.6), neighbourhood(logits, targets, 0.6))


@pytest.mark.parametrize(
    ("loss", "inputs"),
    [
        (lambda x, t: distillation(x, t, 2.0), (drawn(3, 4), drawn(3, 4, seed=1))),
        (lambda x, t: sigmoid_cross_entropy(x, t.sigmoid()), (drawn(3, 4), drawn(3, 4, seed=1))),
        (lambda x, t: pooled_distance([x], [t]), (drawn(3, 4), drawn(3, 4, seed=1))),
        (lambda x, t: pooled_distance([pooled(x)], [pooled(t)]), (drawn(2, 2, 3, 3), drawn(2, 2, 3, 3, seed=1))),
        (lambda x, t: distillation(x, t, 2.0, squared=True), (drawn(3, 4), drawn(3, 4, seed=1))),
        (hint_distance, (drawn(2, 3, 2, 2), drawn(2, 3, 2, 2, seed=1))),
        (similarity_distance, (drawn(4, 2, 2), drawn(4, 3, seed=1))),
        (turned, (drawn(3, 4), drawn(3, 4, seed=1))),
        (lambda x, t: neighbourhood(x, torch.arange(3), t.square()), (drawn(3, 4), drawn(1))),
    ],
    ids=["soft", "sigmoid", "distance", "pooled", "squared", "hint", "similarity", "turned", "neighbourhood"],
)
def test_gradcheck(loss: Callable[..., Tensor], inputs: tuple[Tensor, ...]) -> None:
    assert torch.autograd.gradcheck(loss, [part.clone().requires_grad_() for part in inputs])
