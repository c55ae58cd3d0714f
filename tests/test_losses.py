"""The joint cross-entropy of a head that grows."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from classgraft.losses.classification import by_class, grown_cross_entropy


def drawn(batch: int, old: int, new: int, scale: float = 3.0) -> tuple[Tensor, Tensor]:
    """Joint logits in double and labels that hit old and new classes."""
    generator = torch.Generator().manual_seed(batch + 10 * old + 100 * new)
    logits = scale * torch.randn(batch, old + new, generator=generator, dtype=torch.float64)
    return logits, torch.arange(batch) % (old + new)


def split(logits: Tensor, labels: Tensor, old: int) -> tuple[Tensor, Tensor, Tensor]:
    """What the loss is given: new logits, the old ones' log-sum, each sample's own."""
    return logits[:, old:], logits[:, :old].logsumexp(1), logits.gather(1, labels[:, None])[:, 0]


def slow_reference(logits: Tensor, labels: Tensor) -> float:
    """One sample and one class at a time, in Python's own arithmetic."""
    losses = []
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        total = 0.0
        for logit in row:
            total += math.exp(logit)
        losses.append(-math.log(math.exp(row[label]) / total))
    return sum(losses) / len(losses)


def test_two_samples_worked_by_hand() -> None:
    # sample 1: old sum e^0 + e^0 = 2, new 1 + 1; own is new: -log(1/4). Sample 2: old sum 6, new 1 + 1; own is an old
    # one of size 2: -log(2/8). Both are log 4. Sample 3: old sum 1, new 1 + 2, own is the new 2: -log(2/4).
    new = torch.tensor([[0.0, 0.0], [0.0, 0.0], [0.0, math.log(2)]])
    old = torch.tensor([2.0, 6.0, 1.0]).log()
    own = torch.tensor([0.0, math.log(2), math.log(2)])
    expected = (2 * math.log(4) + math.log(2)) / 3
    assert float(grown_cross_entropy(new, old, own)) == pytest.approx(expected, rel=1e-6)


def test_every_class_counts_alike_worked_by_hand() -> None:
    # three samples of class 0, one of class 2: 4 / 2 / 3 each and 4 / 2 / 1, together 4
    weight = by_class(torch.tensor([0, 2, 0, 0]))
    assert weight is not None
    assert weight.tolist() == pytest.approx([2 / 3, 2, 2 / 3, 2 / 3])
    assert by_class(torch.tensor([1, 0, 0, 1])) is None
    # cross-entropies log 4, log 4, log 2 of classes that count 1/2, 1/2 and 2
    new = torch.tensor([[0.0, 0.0], [0.0, 0.0], [0.0, math.log(2)]])
    old, own = torch.tensor([2.0, 6.0, 1.0]).log(), torch.tensor([0.0, math.log(2), math.log(2)])
    found = grown_cross_entropy(new, old, own, torch.tensor([0.5, 0.5, 2.0]))
    assert float(found) == pytest.approx((0.5 * 2 * math.log(4) + 2 * math.log(2)) / 3, rel=1e-6)


@pytest.mark.parametrize(("batch", "old", "new"), [(1, 1, 1), (7, 3, 2), (20, 12, 5)])
def test_it_equals_a_slow_cross_entropy_over_all_classes(batch: int, old: int, new: int) -> None:
    logits, labels = drawn(batch, old, new)
    assert float(grown_cross_entropy(*split(logits, labels, old))) == pytest.approx(
        slow_reference(logits, labels), rel=1e-12
    )


def test_the_gradient_of_the_new_logits_is_that_of_the_joint_cross_entropy() -> None:
    logits, labels = drawn(9, 4, 3)
    joint = logits.clone().requires_grad_()
    F.cross_entropy(joint, labels).backward()
    new = logits[:, 4:].clone().requires_grad_()
    whole = torch.cat([logits[:, :4], new], 1)
    grown_cross_entropy(new, logits[:, :4].logsumexp(1), whole.gather(1, labels[:, None])[:, 0]).backward()
    assert joint.grad is not None
    torch.testing.assert_close(new.grad, joint.grad[:, 4:])


def test_adding_a_number_to_every_logit_changes_nothing() -> None:
    new, old, own = split(*drawn(6, 4, 3), old=4)
    torch.testing.assert_close(grown_cross_entropy(new + 5, old + 5, own + 5), grown_cross_entropy(new, old, own))


def test_without_old_classes_it_is_the_cross_entropy_of_the_new_alone() -> None:
    logits, labels = drawn(8, 0, 4)
    logits.requires_grad_()
    nothing = torch.full((8,), -torch.inf, dtype=torch.float64)
    loss = grown_cross_entropy(logits, nothing, logits.gather(1, labels[:, None])[:, 0])
    (gradient,) = torch.autograd.grad(loss, logits)
    other = logits.detach().clone().requires_grad_()
    expected = F.cross_entropy(other, labels)
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(gradient, torch.autograd.grad(expected, other)[0])


def test_logits_beyond_the_range_of_exp_stay_finite() -> None:
    new = torch.tensor([[900.0, -900.0]], requires_grad=True)
    loss = grown_cross_entropy(new, torch.tensor([1000.0]), torch.tensor([1000.0]))
    loss.backward()
    assert loss.item() == 0.0
    assert new.grad is not None
    assert new.grad.isfinite().all()


def test_gradcheck() -> None:
    inputs = [part.detach().clone().requires_grad_() for part in split(*drawn(5, 3, 4), old=3)]
    assert torch.autograd.gradcheck(grown_cross_entropy, inputs)
