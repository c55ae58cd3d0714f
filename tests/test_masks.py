"""Piggyback's masks and channel gating: what learns, what is frozen, what is kept on disk, and what streams make of it."""

from __future__ import annotations

import copy
import itertools
import json
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file
from test_bundle import extended, logits, same, tiny
from test_contract import LATER, NEW, OLD, Body, Residual, bits, empty, inputs, made, photos, task, trained
from torch import Tensor, nn

import classgraft
from classgraft.data.images import Task
from classgraft.errors import InputError
from classgraft.evaluator.protocols import Equal
from classgraft.evaluator.start import Start
from classgraft.extenders.gates import Gates
from classgraft.extenders.piggyback import Piggyback
from classgraft.losses.gates import binary_concrete, open_share
from classgraft.models import cifar_resnet, heads, kinds, structure
from classgraft.models.classifier import Classifier, Head
from classgraft.models.cut import cut
from classgraft.models.gated import Gate, Gated, _shut, check, convolutions
from classgraft.models.kernels import started
from classgraft.models.masked import Choosing, Masked, maskable, packed, thresholded, unpacked, with_mask, zeroed
from classgraft.models.own import Own, judge
from classgraft.training.loop import fit
from classgraft.training.recipe import Recipe

QUICK = Recipe(epochs=12, batch_size=8, optimiser="adamw", lr=0.02, weight_decay=0.0, milestones=(), augment="none")
PRICED = Recipe(epochs=20, batch_size=8, optimiser="adamw", lr=0.05, weight_decay=0.0, milestones=(), augment="none")
"""Long enough for a price on open gates to shut some."""
TASKS = (("ant", "bee"), ("cow", "dog"), ("elk", "fox"))
METHODS = {
    "piggyback": Piggyback(recipe=QUICK),
    "ternary": Piggyback(ternary=True, recipe=QUICK),
    "gates": Gates(exemplars=60, recipe=QUICK),
}
every_method = pytest.mark.parametrize("method", METHODS.values(), ids=METHODS)


OTHERS = ("hen", "ibis", "jay", "kiwi", "lynx", "mole")


def wide() -> Classifier:
    """A classifier without classes that has more channels than a task needs."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        parts = [nn.Conv2d(3, 12, 3, 2, bias=False), nn.BatchNorm2d(12), nn.ReLU()]
        parts += [
            nn.Conv2d(12, 16, 3, bias=False),
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
        ]
        body = nn.Sequential(*parts)
    body.num_features = 16  # type: ignore[assignment]
    return Classifier(body, Head(), ()).eval()


def stream(method: Any, start: Classifier | None = None, remembering: bool = False) -> list[Classifier]:
    """The classifier after each of the three tasks, from one without classes."""
    model, memory, found = start or empty(), None, []
    for number, classes in enumerate(TASKS):
        new = task(classes, 8, number)
        model = method.extend(model, memory, new)
        memory = method.remember(model, new, memory) if remembering else None
        found.append(model)
    return found


def right(model: Classifier, classes: tuple[str, ...], among: bool = True, seed: int = 77) -> float:
    """The share of other pictures of these classes that are told right, among themselves or among all."""
    images = photos(classes, 10, seed)
    with torch.no_grad():
        found = model(images.view(torch.arange(len(images)), torch.device("cpu")))
    places = torch.tensor([model.classes.index(name) for name in classes])
    if among:
        return float((found[:, places].argmax(1) == images.labels).double().mean())
    return float((found.argmax(1) == places[images.labels]).double().mean())


# -- masks ---------------------------------------------------------------------------------------------------------


def test_masks_are_packed_as_by_hand() -> None:
    binary = torch.tensor([1, 0, 1, 1, 0, 0, 0, 1, 1])
    assert packed(binary, 2).tolist() == [0b10001101, 1]
    # digits 1, 2 (for -1), 0, 0, 1: 1 + 2 * 3 + 81
    assert packed(torch.tensor([1, -1, 0, 0, 1, -1]), 3).tolist() == [88, 2]


@pytest.mark.parametrize("base", [2, 3])
@pytest.mark.parametrize("shape", [(1,), (3, 5), (4, 3, 3, 3), (40, 8)])
def test_packing_is_taken_back_and_takes_a_bit_a_weight(base: int, shape: tuple[int, ...]) -> None:
    values = torch.randint(0, base, shape, generator=torch.Generator().manual_seed(0))
    values = torch.where(values == 2, -1, values).to(torch.int8)
    held = packed(values, base)
    assert torch.equal(unpacked(held, base, shape), values)
    assert (held.dtype, len(held)) == (torch.uint8, -(-values.numel() // {2: 8, 3: 5}[base]))


def test_thresholds_are_strict_and_hand_the_gradient_on() -> None:
    real = torch.tensor([0.1, 0.2, 0.3, -0.2, -0.3], requires_grad=True)
    upstream = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0])
    for base, mask in ((2, [0, 0, 1, 0, 0]), (3, [0, 0, 1, 0, -1])):
        found = thresholded(real, 0.2, base)
        assert found.tolist() == mask
        assert torch.equal(torch.autograd.grad(found, real, upstream)[0], upstream)


def test_the_gradient_of_a_real_mask_is_that_of_its_weight_times_the_weight() -> None:
    body, images = trained().body.requires_grad_(False), inputs()
    choosing = Choosing(body, 1e-2, 5e-3, 2)
    choosing(images).square().sum().backward()
    free = copy.deepcopy(body).requires_grad_(True)
    free(images).square().sum().backward()
    for moved, weight in zip(choosing.moved, maskable(free).values(), strict=True):
        assert weight.grad is not None
        assert torch.allclose(moved.grad, weight.grad * weight, atol=1e-6)
        assert moved.grad.abs().max() > 0


def test_masks_start_spread_out_above_the_threshold_and_alike_by_the_seed() -> None:
    body = trained().body.requires_grad_(False)
    first, again, other = (
        torch.cat([start.flatten() for start in Choosing(body, 1e-2, 5e-3, 2, 1.0, seed).starts]) for seed in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert 5e-3 < float(first.min()) < 6e-3
    assert 14e-3 < float(first.max()) <= 15e-3
    assert float(first.mean()) == pytest.approx(1e-2, rel=0.1)
    assert all(bool((mask == 1).all()) for mask in Choosing(body, 1e-2, 5e-3, 2, 1.0).masks())


def test_masks_of_ones_are_the_network_itself() -> None:
    body = trained().body
    ones = [torch.ones_like(weight) for weight in maskable(body).values()]
    with torch.no_grad():
        both = with_mask(body, ones, 2, bare=True)(inputs())
        assert torch.equal(both[:, :6], body(inputs()))
        assert torch.equal(both[:, 6:], body(inputs()))
        ones[0][0] = 0
        assert not torch.equal(with_mask(body, ones, 2, bare=True)(inputs())[:, 6:], body(inputs()))


@pytest.mark.parametrize("ternary", [False, True])
def test_a_task_masks_some_weights_and_leaves_every_bit_of_the_network(ternary: bool) -> None:
    model = trained()
    grown = Piggyback(ternary=ternary, recipe=QUICK).extend(model, None, task(NEW, 8))
    assert isinstance(grown.body, Masked)
    assert bits(grown.body.body.state_dict()) == bits(model.body.state_dict())
    assert 0 < zeroed(grown.body, 0) < 1
    values = {int(v) for mask in grown.body.masks(0) for v in mask.values.unique()}
    assert values <= ({-1, 0, 1} if ternary else {0, 1})


@pytest.mark.parametrize(("batches", "flips"), [(4, False), (25, True)])
def test_no_mask_flips_before_the_steps_that_its_distance_takes(batches: int, flips: bool) -> None:
    # Adam moves a number by its rate at most (early on): from 1e-2 to 5e-3 at 1e-3 it takes five steps
    recipe = Recipe(epochs=batches, batch_size=16, optimiser="adamw", lr=1e-3, weight_decay=0.0, milestones=(),
                    augment="none")  # fmt: skip
    grown = Piggyback(spread=0.0, recipe=recipe).extend(trained(), None, task(NEW, 8))
    assert isinstance(grown.body, Masked)
    assert (zeroed(grown.body, 0) > 0) == flips


def test_weight_decay_does_not_mask_weights() -> None:
    method = Piggyback(start=1e-2, recipe=Recipe(30, 16, optimiser="sgd", lr=1e-7, weight_decay=1e6, milestones=()))
    grown = method.extend(
        trained(), None, task(NEW, 2)
    )  # rates times decay: the reals would be 0.9 ** 30 of their start
    assert isinstance(grown.body, Masked)
    assert zeroed(grown.body, 0) == 0


def test_masks_learn_what_rows_alone_cannot() -> None:
    """Six new classes on a network of four; the control starts so far from the threshold that no mask ever flips."""
    base, new = Piggyback(recipe=QUICK).extend(wide(), None, task(OLD, 8)), task(OTHERS, 8)
    recipe = Recipe(60, 8, optimiser="adamw", lr=1e-3, weight_decay=0.0, milestones=(0.5,), augment="none")
    losses = {}
    for start in (1e-2, 10.0):
        found = Piggyback(start=start, spread=float(start < 1), recipe=recipe).extend(base, None, new)
        with torch.no_grad():
            logits_ = found(new.train.view(torch.arange(48), torch.device("cpu")))[:, 4:]
        losses[start] = float(F.cross_entropy(logits_, new.train.labels))
        assert isinstance(found.body, Masked)
        assert (zeroed(found.body, 0) > 0) == (start < 1)
    assert losses[1e-2] < 0.8 * losses[10.0]


def test_a_first_task_trains_a_fresh_network_and_masks_a_trained_one() -> None:
    fresh = Piggyback(recipe=QUICK).extend(empty(), None, task(OLD))
    assert isinstance(fresh.body, Body)
    assert not torch.equal(fresh.body.first.weight, empty().body.first.weight)
    before = Classifier(trained().body, Head(), ()).eval()
    grown = Piggyback(recipe=QUICK).extend(before, None, task(OLD))
    assert isinstance(grown.body, Masked)
    assert (grown.body.bare, grown.body.streams) == (False, 1)
    assert grown.body(inputs()).shape == (7, 6)


def test_masks_of_ones_alone_may_be_asked_for_but_not_of_zeros() -> None:
    with pytest.raises(InputError, match="set start above the threshold"):
        Piggyback(start=1e-3).extend(trained(), None, task(NEW))
    body = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(432))
    with pytest.raises(InputError, match="Sequential has no convolution or linear layer"):
        Piggyback().extend(Classifier(body, Head([nn.Linear(432, 4)]), OLD), None, task(NEW))


def test_linear_layers_and_attention_are_masked_too() -> None:
    torch.manual_seed(0)
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
    body = nn.Sequential(nn.Conv2d(3, 8, 4, 4), nn.Flatten(2), nn.Unflatten(1, (8,)), Turned(), layer, Mean())
    assert {name.rpartition(".")[0] for name in maskable(body)} == {
        "0", "4.self_attn.out_proj", "4.linear1", "4.linear2"
    }  # fmt: skip
    model = Classifier(body, Head([nn.Linear(8, 4)]), OLD).eval()
    grown = Piggyback(recipe=QUICK).extend(model, None, task(NEW))
    assert torch.equal(grown(inputs())[:, :4], model(inputs()))
    assert isinstance(grown.body, Masked)
    assert all(bool((mask.values == 0).any()) for mask in grown.body.masks(0)[:3])


class Turned(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.flatten(2).transpose(1, 2)


class Mean(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.mean(1)


# -- gates ---------------------------------------------------------------------------------------------------------


def test_gates_are_drawn_with_the_probability_of_their_logits() -> None:
    logits_ = torch.tensor([-2.0, 0.0, 0.7, 2.0], requires_grad=True)
    uniform = torch.rand(20_000, 4, generator=torch.Generator().manual_seed(0))
    drawn = binary_concrete(logits_.expand(20_000, 4), uniform, 2 / 3)
    assert set(drawn.detach().round(decimals=5).unique().tolist()) == {0.0, 1.0}
    assert torch.allclose(drawn.detach().mean(0), logits_.detach().sigmoid(), atol=0.015)
    # by hand: noise log(u / (1 - u)) = 0 at u = 1/2, so the soft sample is sigmoid(0.7 / T), its slope s (1 - s) / T
    logit = torch.tensor(0.7, requires_grad=True)
    soft = torch.sigmoid(torch.tensor(0.7 * 1.5))
    found = torch.autograd.grad(binary_concrete(logit, torch.tensor(0.5), 2 / 3), logit)[0]
    assert torch.allclose(found, soft * (1 - soft) * 1.5)


def test_gates_are_drawn_as_finely_in_sixteen_bits_as_in_thirty_two() -> None:
    """Noise in steps of 1/256 would shut a gate that is open for 999 images in 1000 four times as often."""
    gate, images = Gate(2, 50), torch.zeros(2000, 2, 1, 1)
    with torch.no_grad():
        for part in gate.parameters():
            part.zero_()
        gate.last.bias.fill_(7.0)
    shut = []
    for lowered in (False, True):
        with torch.random.fork_rng(), torch.autocast("cpu", torch.bfloat16, enabled=lowered):
            torch.manual_seed(0)
            shut.append(gate(images).detach() < 0.5)
    assert torch.equal(*shut)
    assert float(shut[0].double().mean()) == pytest.approx(float(torch.tensor(-7.0).sigmoid()), rel=0.3)


def test_maps_of_sixteen_bits_stay_so_under_gates() -> None:
    maps, gates = torch.randn(2, 3, 4, 4, dtype=torch.bfloat16), torch.tensor([[1.0, 0.0, 1.0]] * 2)
    assert torch.equal(_shut(maps, gates), _shut(maps, gates.bool()))
    assert _shut(maps, gates).dtype == torch.bfloat16


def test_open_gates_are_counted_layer_by_layer() -> None:
    gates = [torch.tensor([[1.0, 0.0], [1.0, 1.0]]), torch.tensor([[0.0, 0.0, 0.0, 1.0], [0.0, 0.0, 0.0, 0.0]])]
    assert float(open_share(gates)) == pytest.approx((3 / 4 + 1 / 8) / 2)
    drawn = [torch.rand(3, n, dtype=torch.float64, requires_grad=True) for n in (2, 5, 1)]
    slow = sum(float(layer[b, c]) / layer.numel() for layer in drawn for b in range(3) for c in range(layer.shape[1]))
    assert float(open_share(drawn)) == pytest.approx(slow / 3)
    assert float(open_share([torch.ones(2, 3), torch.ones(2, 7)])) == 1.0  # whatever the widths
    assert torch.autograd.gradcheck(lambda *layers: open_share(layers), drawn)


def cifar(name: str = "resnet20") -> nn.Module:
    torch.manual_seed(0)
    return cut(cifar_resnet.build(name, 2), ("a", "b"), "linear").body.eval()


def timm_body(name: str) -> nn.Module:
    timm = pytest.importorskip("timm")
    torch.manual_seed(0)
    return cut(timm.create_model(name, num_classes=3), ("a", "b", "c")).body.eval()


BODIES: dict[str, Callable[[], nn.Module]] = {
    "contract": torch.enable_grad()(lambda: trained().body),
    "cifar:resnet20": cifar,
    "projections": lambda: cut(cifar_resnet.CifarResNet((1, 1), (4, 8), True, 2), ("a", "b"), "linear").body.eval(),
    "timm:resnet10t": lambda: timm_body("resnet10t"),
    "no norm": lambda: nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()),
}  # fmt: skip


@pytest.mark.parametrize("name", BODIES)
@torch.no_grad()
def test_a_network_with_all_gates_open_is_the_network_itself(name: str) -> None:
    body = BODIES[name]()
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    for part in body.modules():  # statistics that are not those of a fresh network
        if isinstance(part, nn.BatchNorm2d):
            part.running_mean.uniform_(-0.1, 0.1)
            part.running_var.uniform_(0.5, 2)
    check(body, images)
    lane = started(body, torch.device("cpu"), 2 / 3, 0).eval()
    for gate in lane.gates:
        gate.last.bias.fill_(1e4)
    features, opened = lane(body, images)
    assert torch.equal(features, body(images))
    assert [each.shape[1] for each in opened] == [conv.out_channels for conv in convolutions(body)]
    lane.gates[0].fired[:] = False
    assert not torch.equal(lane(body, images)[0], body(images))


@pytest.mark.parametrize(
    ("body", "says"),
    [
        (nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(400, 6)), "Sequential has 2.weight beside them"),
        (nn.Sequential(nn.Flatten(), nn.BatchNorm1d(432)), "has no convolution"),
        (nn.Sequential(Residual(3), Turned(), Mean()), ""),
    ],
)
def test_other_networks_are_refused_in_a_sentence(body: nn.Module, says: str) -> None:
    with torch.no_grad():
        width = body.eval()(inputs()).shape[1]
    model = Classifier(body, Head([nn.Linear(width, 4)]), OLD).eval()
    if not says:
        assert made("gates").extend(model, None, task(NEW)).classes == OLD + NEW
        return
    with pytest.raises(InputError, match=f"{says}.*choose another method, such as piggyback"):
        made("gates").extend(model, None, task(NEW))


def test_norms_before_convolutions_are_refused() -> None:
    class Before(nn.Module):
        num_features = 3

        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norm, self.last = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3), nn.Conv2d(3, 3, 1)

        def forward(self, x: Tensor) -> Tensor:
            return self.last(self.conv(self.norm(x))).mean((2, 3))

    with pytest.raises(InputError, match="cannot tell which batch norm of Before"):
        made("gates").extend(Classifier(Before(), Head(), ()), None, task(NEW))


def test_networks_that_other_methods_changed_are_refused() -> None:
    grown = made("piggyback").extend(trained(), None, task(NEW))
    with pytest.raises(InputError, match="takes a network as it was imported"):
        made("gates").extend(grown, None, task(LATER))
    with pytest.raises(InputError, match=r"not made of linear rows \(Own\)"):
        made("glne").extend(grown, None, task(LATER))


def test_kernels_that_fired_are_frozen_and_the_others_learn_or_are_drawn_anew() -> None:
    first, second, third = stream(Gates(sparsity=5.0, recipe=PRICED), wide())
    for before, after in ((first, second), (second, third)):
        moved = 0
        for number, used in enumerate(before.body.used):
            one, two = (convolutions(model.body.body)[number].weight for model in (before, after))
            assert torch.equal(one[used], two[used])
            moved += int((one[~used] != two[~used]).sum())
        assert moved > 0
        assert before.body.capacity <= after.body.capacity
    assert 0 < first.body.capacity < 1


def test_what_never_fired_stays_shut_whatever_the_image() -> None:
    """Images far from all that was learnt: without the guard their gates open kernels that later tasks have moved."""
    odd = 30 * torch.randn(64, 3, 12, 12, generator=torch.Generator().manual_seed(0))
    first, _, third = stream(Gates(sparsity=5.0, recipe=PRICED), wide())
    with torch.no_grad():
        assert torch.equal(first(odd), third(odd)[:, :2])
        for model in (first, third):
            for gate in model.body.lanes[0].gates:
                assert not gate.fired.all()
                gate.fired[:] = True
        assert not torch.equal(first(odd), third(odd)[:, :2])


@pytest.mark.parametrize("decay", [0.0, 0.3])
def test_neither_momentum_nor_weight_decay_moves_a_kernel_in_use(decay: float) -> None:
    recipe = replace(PRICED, epochs=10, optimiser="sgd", lr=0.1, weight_decay=decay)
    models = stream(Gates(sparsity=5.0, recipe=recipe), wide())
    with torch.no_grad():
        assert torch.equal(models[0](inputs()), models[2](inputs())[:, :2])
        assert torch.equal(models[1](inputs()), models[2](inputs())[:, :4])


def test_a_price_on_open_gates_leaves_more_of_the_network_free() -> None:
    used = []
    for price in (0.0, 5.0):
        grown = Gates(sparsity=price, recipe=PRICED).extend(wide(), None, task(TASKS[0], 8))
        assert isinstance(grown.body, Gated)
        used.append(grown.body.capacity)
    assert used[1] < 0.8 * used[0]


@pytest.mark.parametrize(("price", "warnings"), [(0.0, 0), (1e3, 1)])
def test_gates_that_all_shut_are_warned_of(price: float, warnings: int, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "classgraft"):
        Gates(sparsity=price, patience=0.0, recipe=PRICED).extend(wide(), None, task(TASKS[0], 8))
    assert [f"lower sparsity (now {price:g})" in line for line in caplog.messages] == warnings * [True]


def test_what_tells_tasks_apart_learns_for_as_many_steps_as_the_task_did(monkeypatch: pytest.MonkeyPatch) -> None:
    from classgraft.extenders import gates

    steps: dict[str, int] = {}

    def counting(
        module: nn.Module, objective: Callable[..., Any], images: Any, recipe: Recipe, *given: Any, **options: Any
    ) -> Any:
        steps[given[0]] = recipe.epochs * -(-len(images) // recipe.batch_size)
        return fit(module, objective, images, recipe, *given, **options)

    monkeypatch.setattr(gates, "fit", counting)
    method = Gates(exemplars=2, unit="images a class", recipe=replace(QUICK, epochs=3))
    first = task(TASKS[0], 16)
    before = method.extend(wide(), None, first)
    method.extend(before, method.remember(before, first, None), task(TASKS[1], 16))
    assert steps["telling tasks apart"] == steps["learning"] > 3


def test_the_price_waits_for_its_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    from classgraft.extenders import gates

    seen: list[tuple[int, bool]] = []

    def spying(module: nn.Module, objective: Callable[..., Any], *given: Any, **options: Any) -> Any:
        def noting(batch: Any) -> Any:
            terms = objective(batch)
            seen.append((batch.epoch, "sparsity" in terms))
            return terms

        return fit(module, noting, *given, **options)

    monkeypatch.setattr(gates, "fit", spying)
    Gates(patience=0.5, recipe=QUICK).extend(empty(), None, task(OLD))
    assert {(epoch, epoch >= 6) for epoch in range(12)} == set(seen)


def test_a_network_trained_without_gates_is_all_in_use() -> None:
    model = trained()
    grown = Gates(recipe=QUICK).extend(model, None, task(NEW, 8))
    assert isinstance(grown.body, Gated)
    assert (grown.body.bare, grown.body.capacity) == (True, 1.0)
    assert bits(grown.body.body.state_dict()) == bits(model.body.state_dict())
    assert right(grown, NEW) > 0.8


# -- the task classifier ---------------------------------------------------------------------------------------------


def test_the_task_classifier_tells_tasks_apart_and_moves_no_earlier_logit() -> None:
    method = METHODS["gates"]
    alone, judged = stream(method), stream(method, remembering=True)
    every = tuple(name for classes in TASKS for name in classes)
    with torch.no_grad():
        for before, after in itertools.pairwise(judged):
            assert torch.equal(before(inputs()), after(inputs())[:, : len(before.classes)])
        assert torch.equal(alone[0](inputs()), judged[0](inputs()))
    assert [part.judge is not None for part in judged[2].head.parts] == [False, True, True]
    assert not [part for part in alone[2].head.parts if part.judge is not None]
    assert right(judged[2], every, among=False) > right(alone[2], every, among=False)
    for classes in TASKS:  # within a task one number is added to all
        assert right(judged[2], classes) == right(alone[2], classes)


def test_without_images_of_every_task_there_is_no_task_classifier() -> None:
    method, model = METHODS["gates"], trained()
    grown = method.extend(model, None, task(NEW))
    memory = method.remember(grown, task(NEW), None)
    last = method.extend(grown, memory, task(LATER))
    assert [part.judge for part in last.head.parts] == [None, None, None]


# -- the head ----------------------------------------------------------------------------------------------------------


@torch.no_grad()
def test_blocks_read_their_own_features_and_are_described() -> None:
    torch.manual_seed(0)
    features = torch.randn(3, 10)
    plain, judging = nn.Linear(4, 2), judge(7, 5)
    for part in judging.parameters():
        part.normal_()
    head = Head([Own(nn.Linear(3, 2), 0, 10), Own(plain, 3, 10, judging)])
    found = head(features)
    assert torch.equal(found[:, 2:], plain(features[:, 3:7].contiguous()) + judging(features[:, :7].contiguous()))
    features[:, 7:] = torch.nan  # of tasks to come
    assert torch.equal(head(features), found)
    said = json.loads(json.dumps(heads.descriptions(head)))
    assert torch.equal(heads.assembled(said, heads.tensors_of(head))(features), found)
    assert torch.equal(Head([head.parts[1].only([1])])(features), found[:, 3:])
    for change in (
        {"first": 7},
        {"first": -1},
        {"inputs": 6},
        {"units": -1},
        {"units": 1 << 30},
        {"block": {"kind": "own"}},
    ):
        with pytest.raises(InputError):
            heads.build({**said[1], **change})


# -- streams, bundles, exports ----------------------------------------------------------------------------------------


@every_method
def test_streams_keep_every_task_and_learn_each(method: Any) -> None:
    models = stream(method)
    for number, model in enumerate(models):
        assert right(model, TASKS[number]) > 0.8
        for later in models[number + 1 :]:
            for size in (1, 2, 7):
                with torch.no_grad():
                    assert torch.equal(model(inputs(size)), later(inputs(size))[:, : len(model.classes)])


@pytest.mark.parametrize("name", ["piggyback", "gates"])
def test_the_evaluator_shows_tasks_that_do_not_fade(name: str, tmp_path: Path) -> None:
    names = tuple("abcdef")
    results = classgraft.bench(
        [name], photos(names, 8), photos(names, 6, 1), out=tmp_path, protocol=Equal(2, 2), start=Start(Body),
        recipe={"epochs": 6, "batch_size": 8, "lr": 0.05}, exemplars=18,
    )  # fmt: skip
    (line,) = results["methods"][name]
    own = line["task_matrix"]
    assert all(own[t][j] == own[j][j] for j in range(3) for t in range(j, 3))
    assert line["task_last"] > 0.6
    assert (line["bytes"] > 18 * 3 * 14 * 14) == (name == "gates")


SETTINGS: dict[str, dict[str, Any]] = {
    "piggyback": {"epochs": 3, "lr": 3e-3, "augment": "none"},
    "gates": {"epochs": 2, "lr": 0.02, "augment": "none"},
}


def of(outputs: int) -> nn.Module:
    from outside import Tiny

    return Tiny(outputs, seed=5)


@pytest.mark.parametrize("name", SETTINGS)
def test_bundles_of_several_tasks_come_back_lose_a_class_and_are_undone(name: str, tmp_path: Path) -> None:
    steps = [tiny()]
    for number in range(2):
        names = [f"new {number}", f"newer {number}"]
        steps.append(extended(steps[-1], *names, method=name, settings=SETTINGS[name]))
        assert steps[-1].history[-1]["promise"]["bits"]
        classgraft.save(steps[-1], tmp_path / "b")
        steps[-1] = classgraft.load(tmp_path / "b", of(7))
    assert same(steps[-1], classgraft.load(tmp_path / "b", of(2)))
    assert structure.spec(steps[-1].model.body)["kind"] == {"piggyback": "masked", "gates": "gated"}[name]
    assert len(classgraft.verify(tmp_path / "b", network=of(2))) == 3
    smaller = classgraft.remove(steps[-1], "newer 0")
    classgraft.save(smaller, tmp_path / "s")
    kept = [k for k, one in enumerate(steps[-1].classes) if one != "newer 0"]
    assert same(classgraft.load(tmp_path / "s", of(2)), smaller)
    assert torch.allclose(logits(smaller), logits(steps[-1])[:, kept], atol=1e-6)
    bundle = steps[-1]
    for earlier in reversed(steps[:-1]):
        bundle = classgraft.undo(bundle)
        assert same(bundle, earlier)


def test_a_binary_mask_takes_a_bit_a_weight_on_disk(tmp_path: Path) -> None:
    grown = extended(tiny(), "new", "newer", method="piggyback", settings=SETTINGS["piggyback"])
    classgraft.save(grown, tmp_path / "b")
    tensors = load_file(tmp_path / "b" / "model.safetensors")
    masks = {key: value for key, value in tensors.items() if key.endswith("packed")}
    assert [(value.dtype, tuple(value.shape)) for value in masks.values()] == [(torch.uint8, (-(-12 * 27 // 8),))]
    masks["tasks.0.0.packed"] = masks["tasks.0.0.packed"][1:]
    from safetensors.torch import save_file

    config = json.loads((tmp_path / "b" / "config.json").read_text("utf-8"))
    save_file({**tensors, **masks}, tmp_path / "b" / "model.safetensors")
    del config["graft"]["sha256"]["model.safetensors"]
    (tmp_path / "b" / "config.json").write_text(json.dumps(config), "utf-8")
    with pytest.raises(InputError, match=r"tasks\.0\.0\.packed is \(40,\)"):
        classgraft.load(tmp_path / "b", of(3))


@pytest.mark.parametrize(
    "part",
    [
        {"kind": "masked", "bare": 1, "mask0": 7},
        {"kind": "masked", "bare": -1},
        {"kind": "gated", "bare": 1, "tasks": 6000},
    ],
)
def test_trees_that_no_classgraft_wrote_are_refused(part: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        kinds.build({**part, "inner": [structure.PLAIN]}, Body())


@pytest.mark.parametrize("format", ["onnx", "torch-export"])
@pytest.mark.parametrize("name", SETTINGS)
def test_masks_and_gates_are_one_graph(name: str, format: str, tmp_path: Path) -> None:
    from test_export import READERS, network_input

    bundle = tiny()
    for names in (("new", "newer"), ("last", "very last")):
        bundle = extended(bundle, *names, method=name, settings=SETTINGS[name])
    assert classgraft.export(bundle, format, tmp_path / "out").difference < 1e-4
    read = READERS[format](tmp_path / "out")
    for count in (1, 3):
        images = network_input(bundle, count)
        with torch.inference_mode():
            ours, theirs = bundle.model(images), read(images)
        assert (theirs - ours).abs().max() < 1e-4 * max(1.0, float(ours.abs().max()))


@pytest.mark.parametrize("name", ["piggyback", "gates"])
def test_compiled_bodies_learn_the_same(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    from classgraft.training import engine as engines

    monkeypatch.setattr(engines, "BACKEND", "eager")
    found = []
    for compiled in (False, True):
        with engines.engine(compile=compiled):
            model = made(name, epochs=1).extend(trained(), None, task(NEW))
            found.append(made(name, epochs=1).extend(model, None, Task(LATER, photos(LATER, 4))))
    assert torch.allclose(found[0](inputs()), found[1](inputs()), atol=1e-5)
