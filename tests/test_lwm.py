"""Attention: the maps, their distance and its gradient of second order; LwM beside LwF."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from small import CLASSES, classifier, images
from timm.layers import DropPath
from torch import Tensor, nn
from torchvision.ops import StochasticDepth

from classgraft.data.images import Task
from classgraft.errors import InputError
from classgraft.extenders import lwm
from classgraft.extenders.lwf import LwF
from classgraft.extenders.lwm import LwM
from classgraft.losses.attention import attention_distance, grad_cam
from classgraft.models.classifier import Classifier, Head, frozen
from classgraft.models.stages import Tapped
from classgraft.training.attention import attended, attended_before, drawing, looked_at
from classgraft.training.carries import digest
from classgraft.training.recipe import Recipe

LATER = ("dog", "elk")
SHORT = Recipe(epochs=4, batch_size=8, lr=0.05, weight_decay=0.0, milestones=(), augment="none")


def later(count: int = 24) -> Task:
    shown = images(count, seed=1)
    return Task(LATER, replace(shown, labels=torch.arange(count) % 2, classes=LATER))


def inputs(count: int = 6, seed: int = 3) -> Tensor:
    return images(count, seed=seed).view(torch.arange(count), torch.device("cpu"))


def smooth(seed: int = 0) -> Classifier:
    """Twice convolution and softplus, so that finite differences see a smooth function; double precision."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        parts = [nn.Conv2d(3, 4, 3, stride=2), nn.Softplus(), nn.Conv2d(4, 5, 3), nn.Softplus()]
        body = nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 6), nn.Tanh())
        return Classifier(body, Head([nn.Linear(6, 3)]), CLASSES).double().eval()


# -- losses ---------------------------------------------------------------------------------------------------------


def test_grad_cam_by_hand() -> None:
    """Weights are (2, -1): 2 * [1, 2, 3, 4] - [4, 4, 4, 0] = [-2, 0, 2, 8], of which the ReLU leaves the positive part."""
    activations = torch.tensor([[[[1.0, 2.0], [3.0, 4.0]], [[4.0, 4.0], [4.0, 0.0]]]])
    gradients = torch.tensor([[[[2.0, 2.0], [2.0, 2.0]], [[-4.0, 0.0], [0.0, 0.0]]]])
    assert grad_cam(activations, gradients).tolist() == [[0.0, 0.0, 2.0, 8.0]]


def test_attention_distance_by_hand() -> None:
    """(3, 4) / 5 and (4, 3) / 5 lie |0.6 - 0.8| + |0.8 - 0.6| = 0.4 apart, (1, 0) and (0, 7) by 2."""
    now, before = torch.tensor([[3.0, 4.0], [1.0, 0.0]]), torch.tensor([[4.0, 3.0], [0.0, 7.0]])
    assert float(attention_distance(now, before)) == pytest.approx(1.2)


def test_attention_distance_equals_a_slow_loop() -> None:
    generator = torch.Generator().manual_seed(0)
    now, before = (torch.rand(5, 7, generator=generator, dtype=torch.float64) for _ in range(2))
    total = 0.0
    for q, p in zip(now, before, strict=True):
        for a, b in zip(q, p, strict=True):
            total += abs(float(a) / float((q @ q).sqrt()) - float(b) / float((p @ p).sqrt()))
    assert float(attention_distance(now, before)) == pytest.approx(total / 5)


def test_attention_distance_does_not_see_a_maps_scale() -> None:
    now, before = torch.rand(4, 9).split(2)
    torch.testing.assert_close(attention_distance(1e4 * now, 1e-3 * before), attention_distance(now, before))
    assert float(attention_distance(7 * now, now)) < 1e-6


@pytest.mark.parametrize("side", ["now", "before", "both"])
def test_an_empty_map_adds_nothing_and_leaves_every_gradient_a_number(side: str) -> None:
    now, before = torch.rand(3, 4), torch.rand(3, 4)
    for name, maps in (("now", now), ("before", before)):
        if side in (name, "both"):
            maps[1] = 0
    whole = now.clone().requires_grad_(True)
    distance = attention_distance(whole, before)
    (gradient,) = torch.autograd.grad(distance, whole)
    kept = [0, 2]
    assert float(distance.detach()) == pytest.approx(2 / 3 * float(attention_distance(now[kept], before[kept])))
    assert bool(gradient.isfinite().all())
    assert gradient[1].tolist() == [0.0] * 4
    assert float(gradient[0].abs().max()) > 0


def test_gradients_of_maps_and_distance_are_right() -> None:
    generator = torch.Generator().manual_seed(1)
    a, g = (
        torch.randn(2, 3, 2, 2, generator=generator, dtype=torch.float64, requires_grad=True).abs() for _ in range(2)
    )
    a, g = a.detach().requires_grad_(True), g.detach().requires_grad_(True)
    assert torch.autograd.gradcheck(grad_cam, (a, g))
    q, p = (torch.rand(3, 4, generator=generator, dtype=torch.float64) + 0.1 for _ in range(2))
    assert torch.autograd.gradcheck(lambda maps: attention_distance(maps, p), (q.requires_grad_(True),))


# -- maps of a network ----------------------------------------------------------------------------------------------


def distance(model: Classifier, teacher: Classifier, shown: Tensor) -> Tensor:
    layer = looked_at(teacher, "", shown[:1])
    _, favoured, looked = attended_before(Tapped(teacher, layer), shown)
    return attention_distance(attended(Tapped(model, layer), shown, favoured)[1], looked)


def test_the_gradient_of_the_distance_is_that_of_finite_differences_through_the_score_too() -> None:
    """Public implementations detach the map or its weights: then the first differs from the second, or is missing."""
    model, teacher, shown = smooth(1), frozen(smooth(0)), inputs().double()
    found = torch.autograd.grad(distance(model, teacher, shown), list(model.parameters()), allow_unused=True)
    gradients = dict(zip(dict(model.named_parameters()), found, strict=True))
    # the head's rows and the layer under it are reached through the weights of the map alone
    for name in ("body.0.weight", "body.2.weight", "body.6.weight", "head.blocks.0.weight"):
        weight, gradient = model.get_parameter(name), gradients[name]
        assert gradient is not None
        place = int(gradient.flatten().abs().argmax())
        with torch.no_grad():
            ends = []
            for step in (1e-6, -2e-6):
                weight.view(-1)[place] += step
                with torch.enable_grad():
                    ends.append(float(distance(model, teacher, shown).detach()))
            weight.view(-1)[place] += 1e-6
        expected = (ends[0] - ends[1]) / 2e-6
        assert abs(expected) > 1e-4
        assert float(gradient.view(-1)[place]) == pytest.approx(expected, rel=1e-3)


def test_where_nothing_has_changed_both_look_at_the_same_place() -> None:
    assert float(distance(smooth(), frozen(smooth()), inputs().double())) == 0
    grown = smooth().grown(LATER)
    assert float(distance(grown, frozen(smooth()), inputs().double())) == 0  # of the same old class, new rows or not


def test_a_map_is_that_of_its_own_image_alone() -> None:
    model, shown = smooth(), inputs().double()
    _, maps = attended(Tapped(model, "2"), shown)
    alone = torch.cat([attended(Tapped(model, "2"), each[None])[1] for each in shown])
    torch.testing.assert_close(maps, alone)


def test_the_old_networks_maps_have_no_graph_and_leave_its_mode_and_gradients_alone() -> None:
    teacher = classifier(0.5).train()
    logits, favoured, maps = attended_before(Tapped(teacher, "0"), inputs())
    assert teacher.training
    assert [part.requires_grad for part in (logits, maps)] == [False, False]
    torch.testing.assert_close(logits, teacher.eval()(inputs()).detach())
    assert torch.equal(favoured, logits.argmax(1))
    assert [p.grad for p in teacher.parameters()] == [None] * len(list(teacher.parameters()))


def test_layers_without_a_map_are_refused_in_a_sentence() -> None:
    assert looked_at(smooth(), "", inputs().double()) == "3"
    with pytest.raises(InputError, match=r"no layer '9'\."):
        looked_at(smooth(), "9", inputs().double())
    with pytest.raises(InputError, match=r"'5' gives \(6, 5\), no map"):
        looked_at(smooth(), "5", inputs().double())
    with pytest.raises(InputError, match="no intermediate maps"):
        looked_at(Classifier(nn.Sequential(nn.Flatten(), nn.Linear(432, 4)), Head(), ()), "", inputs())


# -- the method -----------------------------------------------------------------------------------------------------


def drift(grown: Classifier, before: Classifier) -> float:
    """How far the attention to the old classes has moved, on images that nobody learnt from."""
    return float(distance(grown.eval(), frozen(before), inputs(24, seed=7)).detach())


@pytest.mark.parametrize("statistics", [False, True])
def test_without_attention_it_is_lwf_bit_for_bit(statistics: bool) -> None:
    given = {"strength": 0.7, "statistics": statistics, "recipe": SHORT}
    ours = LwM(attention=0.0, **given).extend(classifier(), None, later())
    theirs = LwF(warm_up=0.0, **given).extend(classifier(), None, later())
    for name, tensor in ours.state_dict().items():
        assert torch.equal(tensor, theirs.state_dict()[name]), name


def test_the_attention_term_keeps_attention_where_it_was() -> None:
    """The direct effect, beside its control with weight 0: the drift on other images goes down as gamma goes up."""
    recipe = replace(SHORT, epochs=10, optimiser="adamw", lr=0.003)
    drifts = [
        drift(LwM(attention=gamma, strength=0.0, recipe=recipe).extend(classifier(), None, later()), classifier())
        for gamma in (0.0, 0.1, 1.0)
    ]
    assert drifts[0] > 5 * drifts[1]
    assert drifts[1] > 2 * drifts[2] > 0


@pytest.fixture
def seen(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The distance of the maps at every step."""
    found: list[float] = []

    def noting(now: Tensor, before: Tensor) -> Tensor:
        distance = attention_distance(now, before)
        found.append(float(distance.detach()))
        return distance

    monkeypatch.setattr(lwm, "attention_distance", noting)
    return found


@pytest.mark.parametrize(("statistics", "dropout"), [(False, 0.0), (True, 0.0), (False, 0.5)])
def test_maps_are_of_evaluation_mode_whatever_mode_the_network_learns_in(
    statistics: bool, dropout: float, seen: list[float]
) -> None:
    """At the first step nothing has changed, so that the distance is 0; a map of training mode would be another one."""
    method = LwM(statistics=statistics, recipe=replace(SHORT, lr=1e-9))
    model = classifier(dropout)
    grown = method.extend(model, None, later())
    first = "body.1.running_mean"
    assert torch.equal(grown.state_dict()[first], model.state_dict()[first]) is not statistics
    assert len(seen) == 12
    if not statistics:  # those that follow have moved by a batch before the first map
        assert seen[0] < 1e-5


class Beside(nn.Module):
    """A branch beside its input, which chance may change."""

    def __init__(self, chance: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.branch, self.chance = nn.Conv2d(8, 8, 1), chance

    def forward(self, x: Tensor) -> Tensor:
        return x + self.chance(self.branch(x))


class Function(nn.Module):
    """Dropout by a function, as of timm's networks."""

    def forward(self, x: Tensor) -> Tensor:
        return F.dropout(x, 0.5, self.training)


CHANCES = {"torchvision": StochasticDepth(0.5, "row"), "timm": DropPath(0.5), "function": Function()}


@pytest.mark.parametrize("name", CHANCES)
def test_no_map_hangs_on_chance_whatever_it_is_called(name: str, seen: list[float]) -> None:
    model = classifier()
    model.body[3] = Beside(CHANCES[name])
    LwM(recipe=replace(SHORT, lr=1e-9, epochs=1)).extend(model, None, later())
    assert len(seen) == 3
    assert max(seen) < 1e-5


def test_whether_there_is_chance_is_told_without_a_trace() -> None:
    torch.manual_seed(3)
    state, model = torch.get_rng_state(), classifier()
    before = digest(model)
    assert not drawing(model, inputs(1))
    model.body[3] = Function()
    assert drawing(model, inputs(1))
    assert (digest(model), model.training) == (before, True)
    assert torch.equal(torch.get_rng_state(), state)


def test_a_network_that_looks_nowhere_still_learns() -> None:
    """Negative rows on positive maps: Grad-CAM is empty everywhere, and must not turn weights into nan."""
    model = classifier()
    with torch.no_grad():
        model.head.linear[0].weight.fill_(-1.0)
    method = LwM(layer="2", recipe=SHORT)
    assert attended_before(Tapped(model, "2"), inputs())[2].abs().max() == 0
    grown = method.extend(model, None, later())
    assert all(bool(tensor.isfinite().all()) for tensor in grown.state_dict().values())
    assert not torch.equal(grown.state_dict()["body.0.weight"], model.state_dict()["body.0.weight"])
