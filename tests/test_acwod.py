"""ACWOD: its rule, its layers, and its claim on classes whose distribution is known, with control rows."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from classgraft.catalogue import extender
from classgraft.data.images import Images, Task
from classgraft.errors import InputError
from classgraft.extenders import acwod
from classgraft.extenders.acwod import ACWOD, SLOPES
from classgraft.extenders.finetune import Finetune
from classgraft.losses.distillation import old_share
from classgraft.metrics.classification import evaluation
from classgraft.models.classifier import Classifier, Head
from classgraft.models.preparation import Preparation
from classgraft.training import unseen
from classgraft.training.loop import Batch, fit
from classgraft.training.recipe import Recipe
from classgraft.training.unseen import level_rows

OLD, NEW, SIDE = 9, 3, 6
RECIPE = Recipe(epochs=30, batch_size=16, optimiser="adamw", lr=2e-3, weight_decay=0.0, augment="none")
LAYERS = ("all", "last-block", "head", "adapter")


class Body(nn.Module):
    """Three blocks with batch norm over images of 6 pixels."""

    num_features = 24

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 1, 1), nn.BatchNorm2d(8), nn.ReLU())
        self.middle = nn.Sequential(nn.Conv2d(8, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU())
        self.last = nn.Sequential(nn.Conv2d(16, 24, 3, 2, 1), nn.BatchNorm2d(24), nn.ReLU())
        self.norm = nn.BatchNorm2d(24)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.last(self.middle(self.stem(x)))).mean((2, 3))


def names(classes: range) -> tuple[str, ...]:
    return tuple(f"c{k}" for k in classes)


def drawn(classes: range, count: int, seed: int) -> Images:
    """``count`` noisy pictures of each class's pattern, as floats that need no preparation."""
    patterns = torch.randn(OLD + NEW, 3, SIDE, SIDE, generator=torch.Generator().manual_seed(0))
    labels = torch.tensor(classes).repeat_interleave(count)
    noise = torch.randn(len(labels), 3, SIDE, SIDE, generator=torch.Generator().manual_seed(seed))
    as_it_is = Preparation(SIDE, SIDE, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    return Images(patterns[labels] + 1.5 * noise, labels - classes[0], names(classes), as_it_is)


@cache
def base() -> Classifier:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = Classifier(Body(), Head([nn.Linear(Body.num_features, OLD)]), names(range(OLD)))

    def objective(batch: Batch) -> dict[str, Tensor]:
        return {"class": F.cross_entropy(model(batch.images), batch.targets)}

    fit(model, objective, drawn(range(OLD), 60, 1), replace(RECIPE, lr=3e-3, epochs=25))
    return model


@cache
def task() -> Task:
    return Task(names(range(OLD, OLD + NEW)), drawn(range(OLD, OLD + NEW), 20, 2))


def method(**settings: Any) -> ACWOD:
    return ACWOD(**{"recipe": RECIPE, **settings})


def weights(model: Classifier) -> dict[str, Tensor]:
    return model.state_dict()


def measured(model: Classifier) -> dict[str, float]:
    test = drawn(range(OLD + NEW), 40, 3)
    logits = model(test.pixels).detach()
    return evaluation(logits, test.labels, model.classes, range(OLD, OLD + NEW)).summary()


# -- the claim and its control ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("layers", LAYERS)
def test_more_of_the_old_classes_is_kept_than_without_and_the_new_are_still_learnt(layers: Any) -> None:
    ours = measured(method(layers=layers, epsilon=0.2).extend(base(), None, task()))
    control = measured(method(layers=layers, epsilon=0.0).extend(base(), None, task()))
    finetune = measured(Finetune(recipe=RECIPE).extend(base(), None, task()))
    assert ours["old"] > max(control["old"], finetune["old"]) + 0.05
    if layers != "head":  # which alone forgets so little that its harmonic mean hardly moves
        assert ours["harmonic"] > control["harmonic"] + 0.05
    assert ours["harmonic"] > finetune["harmonic"] + 0.05
    assert ours["new"] > 0.4


def test_at_epsilon_zero_on_all_layers_it_is_fine_tuning_bit_for_bit() -> None:
    ours = method(layers="all", epsilon=0.0).extend(base(), None, task())
    started = base().grown(task().classes, *level_rows(base(), task().train, task().classes))
    theirs = Finetune(recipe=RECIPE).extend(started, None, task())
    assert all(torch.equal(ours.state_dict()[key], value) for key, value in weights(theirs).items())


def test_the_larger_epsilon_the_more_is_kept_and_the_less_is_learnt() -> None:
    found = [measured(method(epsilon=e).extend(base(), None, task())) for e in (0.05, 0.2, 0.6)]
    assert found[0]["old"] < found[1]["old"] < found[2]["old"]
    assert found[2]["new"] < found[0]["new"]


def test_rows_from_zero_are_the_worse_start(monkeypatch: pytest.MonkeyPatch) -> None:
    epsilons = (0.1, 0.2, 0.4)
    ours = [measured(method(epsilon=e).extend(base(), None, task()))["harmonic"] for e in epsilons]
    nothing = (torch.zeros(NEW, Body.num_features), torch.zeros(NEW))
    monkeypatch.setattr(unseen, "level_rows", lambda *given: nothing)
    theirs = [measured(method(epsilon=e).extend(base(), None, task()))["harmonic"] for e in epsilons]
    assert max(ours) > max(theirs) + 0.02


# -- epsilon ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layers", LAYERS)
def test_epsilon_grows_linearly_with_the_share_of_old_classes(layers: Any) -> None:
    few, more = base().grown(["x"] * 1), base().grown([f"x{k}" for k in range(9)])
    assert method(layers=layers).weight(base(), few) == pytest.approx(SLOPES[layers] * 0.9)
    assert method(layers=layers).weight(base(), more) == pytest.approx(SLOPES[layers] * 0.5)
    assert method(layers=layers, epsilon=0.05).weight(base(), more) == 0.05


def test_the_rule_gives_what_its_value_gives() -> None:
    value = SLOPES["last-block"] * OLD / (OLD + NEW)
    ruled, given = (method(epsilon=e).extend(base(), None, task()) for e in (None, value))
    assert all(torch.equal(given.state_dict()[key], value) for key, value in weights(ruled).items())


def test_epsilon_may_be_left_to_the_rule_and_must_lie_in_its_range() -> None:
    assert extender("acwod", {"epsilon": None}).epsilon is None  # type: ignore[attr-defined]
    assert extender("acwod", {"epsilon": 1}).epsilon == 1.0  # type: ignore[attr-defined]
    for wrong in (1.5, -0.1, "much"):
        with pytest.raises(InputError, match="epsilon"):
            extender("acwod", {"epsilon": wrong})


@pytest.mark.parametrize("epsilon", [0.0, 1.0])
def test_a_term_of_no_weight_is_left_out(epsilon: float, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: set[str] = set()

    def spying(module: nn.Module, objective: Any, *given: Any, **options: Any) -> Any:
        def noting(batch: Batch) -> dict[str, Tensor]:
            terms = objective(batch)
            seen.update(terms)
            return terms

        return fit(module, noting, *given, **options)

    monkeypatch.setattr(acwod, "fit", spying)
    method(epsilon=epsilon).extend(base(), None, task())
    assert seen == {"old" if epsilon else "new"}


# -- what learns -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("layers", "moved"),
    [
        ("all", {"stem", "middle", "last", "norm"}),
        ("last-block", {"last"}),
        ("head", set()),
        ("adapter", set()),
    ],
)
def test_only_the_chosen_layers_move_and_no_statistics(layers: Any, moved: set[str]) -> None:
    grown = method(layers=layers, epsilon=0.3).extend(base(), None, task())
    before = base().body.state_dict()
    after = {key.replace("last.block.", "last."): value for key, value in grown.body.state_dict().items()}
    changed = {key for key, value in before.items() if not torch.equal(after[key], value)}
    assert {key.split(".")[0] for key in changed} == moved
    assert not [key for key in changed if "running" in key or "tracked" in key]
    assert {key.split(".")[1] for key in after.keys() - before.keys()} == ({"beside"} if layers == "adapter" else set())
    assert not torch.equal(grown.head.weight[:OLD], base().head.weight)
    assert all(parameter.requires_grad for parameter in grown.parameters())


@pytest.mark.parametrize("layers", LAYERS)
def test_before_the_first_step_the_old_logits_are_the_old_network_s(layers: Any) -> None:
    grown = method(layers=layers, recipe=replace(RECIPE, lr=0.0)).extend(base(), None, task())
    images = drawn(range(OLD), 3, 4).pixels
    assert torch.equal(grown(images)[:, :OLD], base()(images))
    lengths = (grown.head.weight - grown.head.weight[:OLD].mean(0)).norm(dim=1)
    assert float(lengths[OLD:].std()) < 1e-5
    assert float(lengths[OLD:].mean()) == pytest.approx(float(lengths[:OLD].mean()), rel=1e-5)


@pytest.mark.parametrize("layers", LAYERS)
def test_every_choice_keeps_the_contract_of_a_method(layers: Any) -> None:
    """From nothing, twice in a row, from one photo a class; the model given is untouched; the same seed, the same bits."""
    before = {key: value.clone() for key, value in weights(base()).items()}
    empty, state = Classifier(Body(), Head(), ()), torch.get_rng_state()
    quick = method(layers=layers, recipe=replace(RECIPE, epochs=2, augment="crop-flip"))
    once, again = (quick.extend(base(), None, task()) for _ in range(2))
    assert all(torch.equal(again.state_dict()[key], value) for key, value in weights(once).items())
    later = quick.extend(once, None, Task(("x",), replace(drawn(range(1), 1, 5), classes=("x",))))
    assert later(drawn(range(1), 2, 5).pixels).isfinite().all()
    assert not [part for part in later.modules() if part.training]
    started = quick.extend(empty, None, task())
    assert not torch.equal(started.body.stem[0].weight, empty.body.stem[0].weight)  # nothing to keep: all learns
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(before[key], value) for key, value in weights(base()).items())


@pytest.mark.parametrize("layers", LAYERS)
def test_the_old_network_is_asked_what_it_said_of_the_same_pictures(
    layers: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Remembered answers (no augmentation) and answers to a batch, against the old network itself."""
    model, checked = base(), 0

    def checking(logits: Tensor, said: Tensor) -> Tensor:
        nonlocal checked
        checked += 1
        torch.testing.assert_close(said, wanted[-1], atol=1e-5, rtol=1e-4)
        return old_share(logits, said)

    def spying(module: nn.Module, objective: Any, *given: Any, **options: Any) -> Any:
        def noting(batch: Batch) -> Any:
            with torch.no_grad():
                wanted.append(model(batch.images).softmax(1))
            return objective(batch)

        return fit(module, noting, *given, **options)

    monkeypatch.setattr(acwod, "old_share", checking)
    monkeypatch.setattr(acwod, "fit", spying)
    for augment in ("none", "crop-flip"):
        wanted: list[Tensor] = []
        method(layers=layers, recipe=replace(RECIPE, epochs=2, augment=augment)).extend(model, None, task())
    assert checked == 16


def test_a_network_without_a_last_block_says_what_else_can_learn() -> None:
    model = Classifier(nn.Flatten(), Head([nn.Linear(3 * SIDE * SIDE, OLD)]), names(range(OLD))).eval()
    for layers in ("last-block", "adapter"):
        with pytest.raises(InputError, match="all layers, or the head"):
            method(layers=layers).extend(model, None, task())
    assert method(layers="head").extend(model, None, task()).classes == names(range(OLD + NEW))


def test_level_rows_take_as_much_as_the_old_ones_in_the_middle_and_rise_as_steeply_towards_their_photos() -> None:
    model, photos = base(), task().train
    weight, bias = (part.detach() for part in level_rows(model, photos, task().classes))
    seen = model.features(photos.view(torch.arange(len(photos)), model.device)).detach()
    middle = unseen.OldClasses.of(model, seen, 0.8).mean
    level = float((model.head.weight @ middle + model.head.bias).mean())
    assert (weight @ middle + bias).tolist() == pytest.approx([level] * NEW, abs=1e-4)
    common = model.head.weight.mean(0)
    assert float((weight - common).norm(dim=1).mean()) == pytest.approx(
        float((model.head.weight - common).norm(dim=1).mean()), rel=1e-4
    )
