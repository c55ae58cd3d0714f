"""Answers: in fp32, remembered by what they depend on; and gradients of each image by itself."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from small import classifier, images
from torch import Tensor, nn

from classgraft.data.augment import centre, flip
from classgraft.data.images import Images
from classgraft.training import answers as module_of_answers
from classgraft.training.answers import answers
from classgraft.training.gradients import mean_of_each, of_each
from classgraft.training.loop import show_progress, silent

CPU = torch.device("cpu")


@pytest.fixture
def looks() -> Iterator[list[int]]:
    """Grows by one with every batch that is looked at."""
    seen: list[int] = []
    module_of_answers._remembered.clear()
    show_progress(lambda what, done, total, terms: seen.append(done))
    yield seen
    show_progress(silent)


def test_nothing_is_looked_at_twice(looks: list[int]) -> None:
    model, seen = classifier(), images(70)
    first = answers(model, seen, model.features)
    assert looks == [64, 70]
    again = answers(model, images(70), model.features)
    assert looks == [64, 70]
    assert torch.equal(first, again)
    first.zero_()
    assert torch.equal(answers(model, seen, model.features), again)


def test_whatever_changes_the_answers_is_looked_at_anew(looks: list[int]) -> None:
    model, seen = classifier().eval(), images(10)
    asked = [
        lambda: answers(model, seen),
        lambda: answers(model, seen, model.features),
        lambda: answers(model, seen, augment=flip),
        lambda: answers(model, seen, augment=flip, seed=1),
        lambda: answers(model, seen, augment=flip, epoch=1),
        lambda: answers(model, images(10, seed=1)),
        lambda: answers(model, replace(seen, preparation=replace(seen.preparation, mean=(0.0, 0.0, 0.0)))),
        lambda: answers(classifier(seed=1), seen),
    ]
    for number, ask in enumerate(asked, start=1):
        ask()
        ask()
        assert len(looks) == number
    with torch.no_grad():
        model.body[1].running_mean += 1
    answers(model, seen)
    assert len(looks) == len(asked) + 1


def test_what_has_no_name_is_not_remembered(looks: list[int]) -> None:
    model, seen = classifier(), images(10)
    for scale in (1.0, 2.0):
        found = answers(model, seen, lambda x, s=scale: s * model(x))  # type: ignore[misc]
        assert torch.allclose(found, scale * answers(model, seen))
    answers(model, seen, augment=lambda pixels, size, draws: centre(pixels, size))
    answers(model, seen, augment=lambda pixels, size, draws: centre(pixels, size).flip(-1))
    assert len(looks) == 5


class Bent(nn.Module):
    """Computes with what it was given beside weights."""

    def __init__(self, *steps: object) -> None:
        super().__init__()
        self.steps = list(steps)

    def forward(self, x: Tensor) -> Tensor:
        for step in self.steps:
            x = step(x) if callable(step) else x * step
        return x.mean((2, 3))


def test_networks_that_differ_in_more_than_weights_answer_for_themselves(looks: list[int]) -> None:
    seen = images(10)
    for steps in ([torch.tanh], [torch.relu], [torch.relu, 2.0], [torch.relu, -2.0]):
        expected = Bent(*steps)(seen.view(torch.arange(10), CPU))
        for _ in range(2):  # the same settings in another list are the same network
            assert torch.allclose(answers(Bent(*steps), seen), expected)
    assert len(looks) == 4
    for scale in (2.0, 3.0):  # what has no name is asked each time
        assert torch.allclose(answers(Bent(lambda x, s=scale: s * x), seen), scale * answers(Bent(1.0), seen))
    plain, hooked = classifier().eval(), classifier().eval()
    hooked.body[0].register_forward_hook(lambda *given: 10 * given[-1])  # type: ignore[operator]
    assert not torch.allclose(answers(hooked, seen), answers(plain, seen))


def test_memory_for_answers_is_bounded(looks: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    model = classifier()
    monkeypatch.setattr(module_of_answers, "REMEMBERED", 2 * 10 * 3 * 4)
    sets = [images(10, seed=seed) for seed in range(3)]
    for seen in (*sets, *sets):
        answers(model, seen)
    assert len(looks) == 6
    assert sum(tensor.nbytes for tensor in module_of_answers._remembered.values()) <= 2 * 10 * 3 * 4


def test_several_threads_may_ask_while_answers_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module_of_answers, "REMEMBERED", 3 * 5 * 3 * 4)  # three of the six sets' answers
    model, sets = classifier().eval(), [images(5, seed=seed) for seed in range(6)]
    expected = [answers(model, some) for some in sets]
    with ThreadPoolExecutor(4) as pool:
        found = list(pool.map(lambda i: answers(model, sets[i % 6]), range(300)))
    assert all(torch.equal(answer, expected[i % 6]) for i, answer in enumerate(found))


def test_modes_come_back_even_after_an_error() -> None:
    model = classifier().train()
    model.body[1].eval()
    with pytest.raises(ZeroDivisionError):
        answers(model, images(3), lambda x: 1 // 0)  # type: ignore[arg-type,return-value]
    assert model.training
    assert not model.body[1].training


def test_answers_may_stand_in_a_loss() -> None:
    model = classifier()
    weight = torch.zeros(8, requires_grad=True)
    (answers(model, images(5), model.features) @ weight).sum().backward()  # type: ignore[no-untyped-call]
    assert weight.grad is not None


def cross_entropy(logits: Tensor, targets: Tensor) -> Tensor:
    return F.cross_entropy(logits, targets)


def test_gradients_of_each_image_are_those_taken_one_by_one() -> None:
    model, seen = classifier(dropout=0.5).train(), images(7)
    model.body[0].requires_grad_(False)
    found = of_each(model, cross_entropy, seen.view(torch.arange(7), CPU), seen.labels)
    assert model.training
    model.eval()
    names = [name for name, p in model.named_parameters() if p.requires_grad]
    assert list(found) == names
    for i in range(7):
        model.zero_grad()
        one = torch.tensor([i])
        cross_entropy(model(seen.view(one, CPU)), seen.labels[one]).backward()  # type: ignore[no-untyped-call]
        for name in names:
            gradient = model.get_parameter(name).grad
            assert gradient is not None
            assert torch.allclose(found[name][i], gradient, atol=1e-6)


def test_fisher_of_a_linear_softmax_is_its_closed_form() -> None:
    """For a linear head the squared gradient of a row is (p - y)^2 x^2."""
    model, seen = classifier().eval(), images(40)
    fisher = mean_of_each(model, seen, cross_entropy)
    features, logits = answers(model, seen, model.features), answers(model, seen)
    error = logits.softmax(1) - F.one_hot(seen.labels, 3)
    expected = torch.einsum("nk,nd->kd", error.square(), features.square()) / 40
    assert torch.allclose(fisher["head.blocks.0.weight"], expected, atol=1e-6)


def test_no_images_have_no_answers() -> None:
    nothing: Images = images(4).subset(torch.arange(0))
    assert len(answers(classifier(), nothing)) == 0
