"""The losses that hold on to what was: distillation, the quadratic penalty, and cross-entropy within groups of classes."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from classgraft.losses.classification import among, cross_entropy_among
from classgraft.losses.distillation import distillation
from classgraft.losses.penalties import quadratic


def logits(count: int, classes: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return 3 * torch.randn(count, classes, generator=generator, dtype=torch.float64)


# -- distillation ---------------------------------------------------------------------------------------------------


def test_distillation_worked_by_hand() -> None:
    # at T = 2 the teacher's logits 2 log 3 and 0 give 3/4 and 1/4, the student's equal ones 1/2 and 1/2
    teacher, student = torch.tensor([[2 * math.log(3), 0.0]]), torch.tensor([[5.0, 5.0]])
    expected = 3 / 4 * math.log(3 / 2) + 1 / 4 * math.log(1 / 2)
    assert float(distillation(student, teacher, 2.0)) == pytest.approx(expected, rel=1e-6)
    assert float(distillation(student, teacher, 2.0, squared=True)) == pytest.approx(4 * expected, rel=1e-6)


def test_distillation_equals_the_papers_cross_entropy_of_roots_less_the_teachers_entropy() -> None:
    """Li and Hoiem write y'(k) = y(k)^(1/T) / sum y(j)^(1/T), here one number at a time."""

    def softened(row: list[float], temperature: float) -> list[float]:
        total = sum(math.exp(z) for z in row)
        roots = [(math.exp(z) / total) ** (1 / temperature) for z in row]
        return [root / sum(roots) for root in roots]

    student, teacher = logits(6, 4), logits(6, 4, 1)
    for temperature in (1.0, 2.0, 5.0):
        losses = []
        for s, t in zip(student.tolist(), teacher.tolist(), strict=True):
            p, q = softened(t, temperature), softened(s, temperature)
            losses.append(sum(-a * math.log(b) + a * math.log(a) for a, b in zip(p, q, strict=True)))
        assert float(distillation(student, teacher, temperature)) == pytest.approx(sum(losses) / 6, rel=1e-10)


def gradient(student: Tensor, teacher: Tensor, temperature: float, squared: bool = False) -> Tensor:
    student = student.clone().requires_grad_()
    (found,) = torch.autograd.grad(distillation(student, teacher, temperature, squared), student)
    return found


@pytest.mark.parametrize("temperature", [1.0, 2.0, 20.0])
def test_a_student_that_answers_as_its_teacher_has_neither_loss_nor_gradient(temperature: float) -> None:
    teacher = logits(5, 7)
    assert float(distillation(teacher + 3, teacher, temperature)) == pytest.approx(0, abs=1e-12)
    assert gradient(teacher + 3, teacher, temperature).abs().max() < 1e-12


def test_times_the_temperature_squared_the_gradient_keeps_its_size_and_ends_as_matching_of_logits() -> None:
    student, teacher = logits(200, 10), logits(200, 10, 1)
    sizes = [float(gradient(student, teacher, t, squared=True).norm()) for t in (1.0, 2.0, 5.0, 20.0)]
    assert max(sizes) < 2.5 * min(sizes)
    bare = [float(gradient(student, teacher, t).norm()) for t in (1.0, 20.0)]
    assert bare[0] > 100 * bare[1]
    apart = (student - student.mean(1, keepdim=True)) - (teacher - teacher.mean(1, keepdim=True))
    found = gradient(student, teacher, 1e5, squared=True)
    torch.testing.assert_close(found, apart / 10 / 200, rtol=1e-3, atol=1e-7)


def test_gradcheck_of_distillation() -> None:
    teacher = logits(4, 5, 1)
    assert torch.autograd.gradcheck(lambda s: distillation(s, teacher, 2.0), [logits(4, 5).requires_grad_()])


# -- the quadratic penalty ------------------------------------------------------------------------------------------


def weights(seed: int) -> list[Tensor]:
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator, dtype=torch.float64) for shape in ((3, 2, 2, 2), (4,), (), (2, 5))]


def test_the_quadratic_worked_by_hand() -> None:
    found = quadratic(
        [torch.tensor([1.0, 2.0]), torch.tensor(3.0)],
        [torch.tensor([0.0, 4.0]), torch.tensor(3.0)],
        [torch.tensor([5.0, 0.5]), torch.tensor(9.0)],
    )
    assert float(found) == 5 * 1 + 0.5 * 4


def test_the_quadratic_and_its_gradient_equal_those_of_plain_sums_in_any_layout() -> None:
    now, anchors, importance = weights(0), weights(1), [part.abs() for part in weights(2)]
    now[0] = now[0].contiguous(memory_format=torch.channels_last)
    found = quadratic([part.requires_grad_() for part in now], anchors, importance)
    slow = torch.zeros((), dtype=torch.float64)
    for weight, anchor, important in zip(now, anchors, importance, strict=True):
        slow = slow + (important * (weight - anchor) ** 2).sum()
    torch.testing.assert_close(found, slow)
    for mine, other in zip(torch.autograd.grad(3 * found, now), torch.autograd.grad(3 * slow, now), strict=True):
        torch.testing.assert_close(mine, other)


def test_at_the_anchors_the_quadratic_and_its_gradient_are_zero() -> None:
    now = [part.requires_grad_() for part in weights(0)]
    found = quadratic(now, [part.detach().clone() for part in now], [part.abs().detach() for part in now])
    assert found.item() == 0
    assert all(float(part.abs().max()) == 0 for part in torch.autograd.grad(found, now))


def test_gradcheck_of_the_quadratic() -> None:
    anchors, importance = weights(1), [part.abs() for part in weights(2)]
    assert torch.autograd.gradcheck(
        lambda *now: quadratic(now, anchors, importance), [part.requires_grad_() for part in weights(0)]
    )


# -- cross-entropy within groups ------------------------------------------------------------------------------------

GROUPS = torch.tensor([0, 0, 2, 2, 2, 1])
TARGETS = torch.tensor([0, 5, 3, 1, 2])


def test_cross_entropy_among_two_of_four_classes_worked_by_hand() -> None:
    given = torch.tensor([[math.log(3), 0.0, 50.0, 60.0]])
    found = cross_entropy_among(given, torch.tensor([0]), torch.tensor([0, 0, 1, 1]))
    assert float(found) == pytest.approx(math.log(4 / 3), rel=1e-6)


def test_cross_entropy_among_groups_equals_a_cross_entropy_on_each_samples_own_columns() -> None:
    given = logits(5, 6).requires_grad_()
    slow = []
    for row, target in zip(given, TARGETS.tolist(), strict=True):
        columns = [k for k in range(6) if GROUPS[k] == GROUPS[target]]
        slow.append(F.cross_entropy(row[columns][None], torch.tensor([columns.index(target)])))
    expected = torch.stack(slow).mean()
    found = cross_entropy_among(given, TARGETS, GROUPS)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(torch.autograd.grad(found, given)[0], torch.autograd.grad(expected, given)[0])


def test_the_logits_of_other_groups_do_not_matter_and_have_no_chance() -> None:
    given, own = logits(5, 6), GROUPS[TARGETS]
    other = torch.where(own[:, None] == GROUPS, given, given.flip(0) * 100)
    torch.testing.assert_close(cross_entropy_among(other, TARGETS, GROUPS), cross_entropy_among(given, TARGETS, GROUPS))
    assert bool((among(given, own, GROUPS).softmax(1)[own[:, None] != GROUPS] == 0).all())


def test_without_groups_it_is_the_usual_cross_entropy() -> None:
    given = logits(5, 6)
    torch.testing.assert_close(cross_entropy_among(given, TARGETS), F.cross_entropy(given, TARGETS))


def test_gradcheck_of_cross_entropy_among_groups() -> None:
    assert torch.autograd.gradcheck(lambda z: cross_entropy_among(z, TARGETS, GROUPS), [logits(5, 6).requires_grad_()])
