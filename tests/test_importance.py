"""Fisher information and its relatives against slow loops and closed forms; quadratics against exact posteriors."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from small import classifier, images
from torch import Tensor, nn

from classgraft.data.images import Images, Task
from classgraft.errors import InputError
from classgraft.extenders.ewc import EWC
from classgraft.extenders.mas import MAS
from classgraft.extenders.ncm import NearestClassMean
from classgraft.extenders.slda import SLDA
from classgraft.models.classifier import Classifier
from classgraft.training import gradients
from classgraft.training.answers import answers
from classgraft.training.fisher import fisher_information
from classgraft.training.importance import Importance, around, holding, moved, summed
from classgraft.training.recipe import Recipe

CPU = torch.device("cpu")
HEAD = "head.blocks.0.weight"


def grown() -> Classifier:
    """Two heads: three classes and two."""
    generator = torch.Generator().manual_seed(5)
    return classifier().grown(("dog", "elk"), torch.randn(2, 8, generator=generator), torch.zeros(2)).eval()


def photos(count: int = 35) -> Images:
    """Of all five classes; more than are looked at together, so that the last part is smaller."""
    return replace(images(count), labels=torch.arange(count) % 5, classes=grown().classes)


def slow_exact(model: Classifier, seen: Images, first: int = 0, last: int | None = None) -> dict[str, Tensor]:
    """One image and one label at a time, in a softmax over some columns of the logits."""
    found = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    for i in range(len(seen)):
        logits = model(seen.view(torch.tensor([i]), CPU))[0, first:last]
        logs = logits.log_softmax(0)
        for log in logs:
            gradients = torch.autograd.grad(log, list(model.parameters()), retain_graph=True, allow_unused=True)
            for name, gradient in zip(found, gradients, strict=True):
                if gradient is not None:
                    found[name] += log.detach().exp() * gradient.square() / len(seen)
    return found


def close(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, part in found.items():
        torch.testing.assert_close(part, expected[name], rtol=1e-3, atol=1e-7, msg=lambda text, n=name: f"{n}: {text}")


# -- Fisher information ---------------------------------------------------------------------------------------------


def test_exact_fisher_information_equals_a_slow_loop_over_images_and_labels() -> None:
    model = classifier(dropout=0.5).train()
    found = fisher_information(model, images(35), "exact")
    assert model.training
    close(found, slow_exact(model.eval(), images(35)))


def test_exact_fisher_information_of_heads_equals_a_slow_loop_over_each_head() -> None:
    model, seen = grown(), photos()
    found = fisher_information(model, seen, "exact", model.head.groups)
    parts = []
    for first, last in ((0, 3), (3, 5)):
        part = seen.subset(torch.nonzero((seen.labels >= first) & (seen.labels < last))[:, 0])
        parts.append({name: fisher * len(part) / 35 for name, fisher in slow_exact(model, part, first, last).items()})
    close(found, {name: parts[0][name] + parts[1][name] for name in found})


def test_exact_fisher_information_of_a_linear_softmax_is_its_closed_form() -> None:
    """sum_y p_y (p_k - [y = k])^2 x^2 = p_k (1 - p_k) x^2."""
    model, seen = classifier().eval(), images(40)
    features, chances = answers(model, seen, model.features), answers(model, seen).softmax(1)
    expected = torch.einsum("nk,nd->kd", chances * (1 - chances), features.square()) / 40
    torch.testing.assert_close(fisher_information(model, seen, "exact")[HEAD], expected, rtol=1e-4, atol=1e-7)


def test_sampled_fisher_information_comes_to_the_exact_one_with_many_draws() -> None:
    model, seen = grown(), photos(20)
    for groups in (None, model.head.groups):
        draws = [fisher_information(model, seen, "sampled", groups, seed)[HEAD] for seed in range(150)]
        exact = fisher_information(model, seen, "exact", groups)[HEAD]
        assert not torch.allclose(draws[0], draws[1])
        assert float((torch.stack(draws).mean(0) - exact).norm() / exact.norm()) < 0.1
        assert float((draws[0] - exact).norm() / exact.norm()) > 0.1


def test_empirical_fisher_information_takes_the_true_labels_image_by_image() -> None:
    """Not the square of a batch's mean gradient, which many libraries take."""
    model, seen = classifier().eval(), images(33)
    features, chances = answers(model, seen, model.features), answers(model, seen).softmax(1)
    error = chances - F.one_hot(seen.labels, 3)
    found = fisher_information(model, seen, "empirical")[HEAD]
    torch.testing.assert_close(found, torch.einsum("nk,nd->kd", error.square(), features.square()) / 33)
    of_batch = (error.T @ features / 33).square()
    assert float(found.sum() / of_batch.sum()) > 5


def test_identity_is_one_everywhere_and_looks_at_nothing() -> None:
    found = fisher_information(classifier(), images(0), "identity")
    assert all(bool((part == 1).all()) for part in found.values())
    assert found.keys() == dict(classifier().named_parameters()).keys()


def test_weights_that_do_not_learn_now_have_a_fisher_information_too() -> None:
    close(
        fisher_information(classifier().requires_grad_(False), images(5), "exact"),
        fisher_information(classifier(), images(5), "exact"),
    )


# -- memory-aware synapses ------------------------------------------------------------------------------------------


def test_mas_of_a_linear_layer_is_its_closed_form() -> None:
    """|d sum_k y_k^2 / d w_kj| = 2 |y_k x_j|, for each image by itself."""
    model, seen = classifier().eval(), images(35)
    memory = MAS(images=0).remember(model, Task(seen.classes, seen), None)
    features, logits = answers(model, seen, model.features), answers(model, seen)
    expected = 2 * torch.einsum("nk,nd->kd", logits.abs(), features.abs()) / 35
    torch.testing.assert_close(memory.importance[HEAD], expected, rtol=1e-4, atol=1e-6)


def test_mas_equals_a_slow_loop_over_images() -> None:
    model, seen = classifier(dropout=0.5).train(), images(33)
    memory = MAS(images=0).remember(model, Task(seen.classes, seen), None)
    model.eval()
    expected = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    for i in range(33):
        length = model(seen.view(torch.tensor([i]), CPU)).square().sum()
        for name, gradient in zip(expected, torch.autograd.grad(length, list(model.parameters())), strict=True):
            expected[name] += gradient.abs() / 33
    close(memory.importance, expected)


def test_of_large_networks_fewer_images_are_looked_at_together(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each image's gradient is as large as what learns; of small networks 32 fit."""
    model, seen, sizes = classifier().eval(), images(35), []
    honest = gradients.of_each

    def noting(module: nn.Module, loss: Any, shown: Tensor, targets: Tensor) -> dict[str, Tensor]:
        sizes.append(len(shown))
        return honest(module, loss, shown, targets)

    monkeypatch.setattr(gradients, "of_each", noting)
    expected = fisher_information(model, seen, "empirical")
    assert sizes == [32, 3]
    each = sum(p.nbytes for p in model.parameters())
    for room, parts in ((10 * each, [10, 10, 10, 5]), (each // 2, [1] * 35)):
        sizes.clear()
        monkeypatch.setattr(gradients, "ROOM", room)
        close(fisher_information(model, seen, "empirical"), expected)
        assert sizes == parts


def test_mas_looks_at_unlabelled_images_alone_where_there_are_any() -> None:
    model, seen, other = classifier(), images(10), images(12, seed=1)
    unlabelled = replace(other, labels=torch.zeros(12, dtype=torch.int64), classes=("",))
    found = MAS().remember(model, Task(seen.classes, seen.subset(torch.arange(0)), unlabelled), None)
    same = MAS().remember(model, Task(seen.classes, seen, unlabelled), None)
    expected = MAS().remember(model, Task(seen.classes, other), None)
    close(found.importance, expected.importance)
    close(same.importance, expected.importance)


def test_mas_of_heads_asks_the_tasks_own_head_alone() -> None:
    model, seen = grown(), photos()
    task = Task(("dog", "elk"), seen.of(("dog", "elk")))
    found = MAS(softmax="heads").remember(model, task, None).importance
    assert float(found[HEAD].abs().max()) == 0
    assert float(found["head.blocks.1.weight"].abs().max()) > 0
    assert float(MAS().remember(model, task, None).importance[HEAD].abs().max()) > 0


# -- one quadratic --------------------------------------------------------------------------------------------------


def pair(seed: int, size: int = 6) -> Importance:
    generator = torch.Generator().manual_seed(seed)
    return Importance({"w": torch.randn(size, generator=generator)}, {"w": torch.rand(size, generator=generator) + 0.1})


def value(memory: Importance, w: Tensor) -> Tensor:
    return (memory.importance["w"] * (w - memory.anchor["w"]) ** 2).sum()


def test_the_sum_of_quadratics_has_the_gradient_of_a_penalty_for_each_task() -> None:
    tasks = [pair(seed) for seed in range(4)]
    together: Importance | None = None
    for one in tasks:
        together = summed(together, one)
    assert together is not None
    w = torch.randn(6, generator=torch.Generator().manual_seed(9)).requires_grad_()
    (found,) = torch.autograd.grad(value(together, w), w)
    (expected,) = torch.autograd.grad(torch.stack([value(one, w) for one in tasks]).sum(), w)
    torch.testing.assert_close(found, expected)


def test_two_tasks_of_linear_regression_give_the_exact_bayesian_posterior() -> None:
    """With inputs that are uncorrelated the Hessian is diagonal, so the sum of both quadratics is the joint solution."""
    generator = torch.Generator().manual_seed(0)
    inputs, answers_ = [], []
    parts: Importance | None = None
    for scale in (1.0, 3.0):
        orthogonal = torch.linalg.qr(torch.randn(30, 6, generator=generator)).Q * torch.linspace(scale, 2, 6)
        target = torch.randn(30, generator=generator)
        best = torch.linalg.lstsq(orthogonal, target[:, None]).solution[:, 0]
        parts = summed(parts, Importance({"w": best}, {"w": orthogonal.square().sum(0)}))
        inputs.append(orthogonal)
        answers_.append(target)
    joint = torch.linalg.lstsq(torch.cat(inputs), torch.cat(answers_)[:, None]).solution[:, 0]
    assert parts is not None
    torch.testing.assert_close(parts.anchor["w"], joint, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(parts.importance["w"], torch.cat(inputs).square().sum(0))


def test_where_nothing_ever_mattered_the_anchor_is_the_latest() -> None:
    nothing = Importance({"w": torch.ones(2)}, {"w": torch.zeros(2)})
    later = Importance({"w": torch.full((2,), 5.0)}, {"w": torch.zeros(2)})
    assert torch.equal(summed(nothing, later).anchor["w"], later.anchor["w"])


def test_online_keeps_one_anchor_and_lets_earlier_importance_fade() -> None:
    found = moved(pair(0), pair(1), decay=0.5)
    assert torch.equal(found.anchor["w"], pair(1).anchor["w"])
    assert torch.equal(found.importance["w"], pair(1).importance["w"] + 0.5 * pair(0).importance["w"])


@pytest.mark.parametrize("merge", [summed, moved])
def test_rows_that_came_later_join_when_they_are_remembered(merge: object) -> None:
    before = around(classifier(), {HEAD: torch.ones(3, 8)})
    now = around(grown(), {HEAD: torch.ones(3, 8), "head.blocks.1.weight": torch.full((2, 8), 7.0)})
    found = merge(before, now)  # type: ignore[operator]
    assert torch.equal(found.importance[HEAD], torch.full((3, 8), 2.0))
    assert torch.equal(found.importance["head.blocks.1.weight"], torch.full((2, 8), 7.0))


@pytest.mark.parametrize(
    ("method", "other"),
    [
        (EWC(), NearestClassMean()),  # blocks of other names
        (EWC(), SLDA()),  # of the same names and other shapes
        (EWC(online=True), SLDA()),
        (MAS(), NearestClassMean("euclidean")),
    ],
    ids=["ewc-ncm", "ewc-slda", "online-slda", "mas-ncm"],
)
def test_of_a_head_that_another_method_made_anew_nothing_is_left_and_of_the_body_all(
    method: EWC | MAS, other: NearestClassMean | SLDA
) -> None:
    model, later = classifier(), Task(("dog",), replace(images(4), labels=torch.zeros(4).long(), classes=("dog",)))
    known = Task(model.classes, images(9))
    memory = method.remember(model, known, None)
    anew = other.extend(model, other.remember(model, known, None), later)
    found, alone = method.remember(anew, later, memory), method.remember(anew, later, None)
    for name, part in alone.importance.items():
        if name.startswith("head."):
            assert torch.equal(found.importance[name], part)
            assert torch.equal(found.anchor[name], alone.anchor[name])
        else:
            torch.testing.assert_close(found.importance[name], part + memory.importance[name])
    assert found.importance.keys() == alone.importance.keys()


@pytest.mark.parametrize("merge", [summed, moved])
def test_what_was_remembered_of_another_body_is_refused_by_name(merge: object) -> None:
    before, now = (around(classifier(), {name: classifier().get_parameter(name)}) for name in ("body.0.weight", HEAD))
    with pytest.raises(InputError, match=r"body\.0\.weight.*remember it again"):
        merge(before, now)  # type: ignore[operator]


def test_the_penalty_is_zero_where_it_was_taken_and_leaves_new_rows_alone() -> None:
    model = classifier()
    memory = EWC().remember(model, Task(model.classes, images(9)), None)
    larger = model.grown(("dog",))
    held = holding(larger, memory, 3.0, 0.1)
    assert held().item() == 0
    with torch.no_grad():
        larger.head.linear[1].weight += 1
    assert held().item() == 0
    with torch.no_grad():
        larger.head.linear[0].weight += 1
    assert held().item() == pytest.approx(3 * float(memory.importance[HEAD].sum()), rel=1e-5)


def test_any_strength_leaves_gradient_descent_stable() -> None:
    """Uncut, the weight would leap over its anchor, further at every step."""
    layer = nn.Linear(1, 1)
    memory = Importance({"weight": layer.weight.detach().clone()}, {"weight": torch.full((1, 1), 1e6)})
    held = holding(layer, memory, 1e3, 0.1)
    optimizer = torch.optim.SGD(layer.parameters(), 0.1, 0.9, nesterov=True)
    with torch.no_grad():
        layer.weight += 1
    for _ in range(300):
        optimizer.zero_grad()
        held().backward()
        optimizer.step()
    torch.testing.assert_close(layer.weight.detach(), memory.anchor["weight"], rtol=0, atol=1e-5)


def test_a_memory_of_another_network_is_refused_by_name() -> None:
    memory = around(classifier(), {HEAD: torch.ones(3, 8)})
    with pytest.raises(InputError, match=r"head\.blocks\.0\.weight.*remember it again"):
        holding(classifier().without(("bee",)), memory, 1.0, 0.1)


@pytest.mark.parametrize("method", [EWC(recipe=Recipe(epochs=1)), MAS(recipe=Recipe(epochs=1))])
def test_classes_that_came_since_it_looked_are_not_forgotten_in_silence(method: EWC | MAS) -> None:
    model, seen = classifier(), images(9)
    memory = method.remember(model, Task(model.classes, seen), None)
    new = Task(("dog",), replace(seen.subset(torch.arange(0, 9, 3)), classes=("dog", "x", "y")))
    assert method.extend(model, memory, new).classes == (*model.classes, "dog")
    with pytest.raises(InputError, match="has not looked at, so that they would be forgotten"):
        method.extend(model.grown(("elk",)), memory, new)
    method.extend(model.grown(("elk",)).without(("elk",)), memory, new)
    method.extend(model.grown(("elk",)), memory.without(("bee",)), new)  # whose its rows are is not known any more


@pytest.mark.parametrize("method", [EWC(), MAS()])
def test_without_memory_the_old_images_are_asked_for(method: EWC | MAS) -> None:
    with pytest.raises(InputError, match="--old-images"):
        method.extend(classifier(), None, Task(("dog",), replace(images(4), classes=("dog", "x", "y"))))
