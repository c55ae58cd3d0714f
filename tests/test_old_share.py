"""The old network's share of a soft target."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from classgraft.losses.distillation import old_share


def drawn(batch: int, old: int, new: int) -> tuple[Tensor, Tensor]:
    """Joint logits and the old network's probabilities, in double."""
    generator = torch.Generator().manual_seed(batch + 10 * old + 100 * new)
    logits = 3 * torch.randn(batch, old + new, generator=generator, dtype=torch.float64)
    return logits, (2 * torch.randn(batch, old, generator=generator, dtype=torch.float64)).softmax(1)


def slow_reference(logits: Tensor, old: Tensor) -> float:
    """The poster's double sum, one sample and one class at a time; a mean where it has a sum, and minus."""
    total = 0.0
    for t in range(len(logits)):
        whole = sum(math.exp(logit) for logit in logits[t].tolist())
        for i in range(old.shape[1]):
            total += float(old[t, i]) * math.log(math.exp(float(logits[t, i])) / whole)
    return -total / len(logits)


def test_two_samples_worked_by_hand() -> None:
    # sample 1: exp of the logits 1, 1, 2: p = 1/4, 1/4 (old), 1/2 (new); old says 1/2, 1/2: log 4.
    # sample 2: exp 2, 6, 8: p = 1/8, 3/8, 1/2; old says 1, 0: log 8. Mean: (2 log 2 + 3 log 2) / 2
    logits = torch.tensor([[1.0, 1.0, 2.0], [2.0, 6.0, 8.0]]).log()
    old = torch.tensor([[0.5, 0.5], [1.0, 0.0]])
    assert float(old_share(logits, old)) == pytest.approx(2.5 * math.log(2), rel=1e-6)


@pytest.mark.parametrize(("batch", "old", "new"), [(1, 1, 1), (7, 3, 2), (20, 12, 5)])
def test_it_equals_a_slow_reference(batch: int, old: int, new: int) -> None:
    logits, said = drawn(batch, old, new)
    assert float(old_share(logits, said)) == pytest.approx(slow_reference(logits, said), rel=1e-12)


@pytest.mark.parametrize("epsilon", [0.1, 0.7])
def test_with_the_label_s_share_it_is_the_cross_entropy_to_the_whole_soft_target(epsilon: float) -> None:
    logits, said = drawn(8, 4, 3)
    labels = 4 + torch.arange(8) % 3
    target = torch.cat([epsilon * said, (1 - epsilon) * F.one_hot(labels - 4, 3)], 1)
    ours = (1 - epsilon) * F.cross_entropy(logits, labels) + epsilon * old_share(logits, said)
    torch.testing.assert_close(ours, F.cross_entropy(logits, target))


def test_it_rises_with_what_a_new_class_takes_though_the_old_keep_their_shares() -> None:
    logits, said = drawn(6, 4, 2)
    taken = logits + torch.tensor([0.0] * 4 + [1.0] * 2)
    assert float(old_share(taken, said)) > float(old_share(logits, said)) + 0.01
    torch.testing.assert_close(old_share(logits + 5, said), old_share(logits, said))


def test_logits_beyond_the_range_of_exp_stay_finite() -> None:
    logits = torch.tensor([[900.0, -900.0, 1000.0]], requires_grad=True)
    loss = old_share(logits, torch.tensor([[1.0, 0.0]]))
    loss.backward()
    assert loss.item() == pytest.approx(100)
    assert logits.grad is not None
    assert logits.grad.isfinite().all()


def test_gradcheck() -> None:
    logits, said = drawn(5, 3, 4)
    assert torch.autograd.gradcheck(old_share, [logits.requires_grad_(), said])
