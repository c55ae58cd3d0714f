"""Hidden units beside new rows: the block by hand, GLNE's claim with its control, and what a bundle does with them."""

from __future__ import annotations

import math
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from test_glne import classifier, pictured, softmax_regression
from torch import Tensor, nn

import classgraft
from classgraft.data.images import Task
from classgraft.errors import InputError
from classgraft.extenders import glne
from classgraft.extenders.glne import GLNE
from classgraft.extenders.imprint import Imprint
from classgraft.models.classifier import Classifier, Head
from classgraft.models.heads import assembled, build, descriptions, tensors_of
from classgraft.models.hidden import Hidden, with_units
from classgraft.models.merged import merged
from classgraft.models.preparation import Preparation
from classgraft.models.sources import Architecture
from classgraft.packing import without
from classgraft.training.mixtures import Mixtures
from classgraft.training.views import new_features

METHOD = GLNE(views=1, hidden=4)
SURROUNDING, LATER = ("around",), ("left", "right")


def around(centre: tuple[float, float], radius: float, count: int, seed: int) -> Tensor:
    """Features (count, 3) on a circle in the first two of them, with noise in all three; radius 0: one Gaussian."""
    generator = torch.Generator().manual_seed(seed)
    angle = 2 * math.pi * torch.rand(count, generator=generator)
    place = torch.tensor(centre) + radius * torch.stack([angle.cos(), angle.sin()], 1)
    return F.pad(place, (0, 1)) + 0.3 * torch.randn(count, 3, generator=generator)


def drawn(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Old classes 0 and 1, beside one another; class 2 surrounds the first of them; 3 and 4 lie far off."""
    places = (((0.0, 0.0), 0.0), ((6.0, 0.0), 0.0), ((0.0, 0.0), 3.0), ((0.0, 9.0), 0.0), ((0.0, -9.0), 0.0))
    features = [around(centre, radius, count, 10 * seed + k) for k, (centre, radius) in enumerate(places)]
    return torch.cat(features), torch.arange(5).repeat_interleave(count)


def task(names: tuple[str, ...], first: int, count: int = 60, seed: int = 1) -> Task:
    features, labels = drawn(count, seed)
    own = (labels >= first) & (labels < first + len(names))
    return Task(names, pictured(features[own], labels[own] - first, names))


@cache
def old() -> tuple[Classifier, Mixtures]:
    """A softmax classifier of the old classes, and what is kept of them."""
    features, labels = drawn(60, 1)
    seen = labels < 2
    model = classifier(*softmax_regression(features[seen], labels[seen], 2))
    memory = METHOD.remember(model, task(model.classes, 0), None)
    assert memory is not None
    return model, memory


@cache
def twice() -> tuple[Classifier, Mixtures]:
    """Two extensions in a row, both with hidden units."""
    model, memory = old()
    for names, first in ((SURROUNDING, 2), (LATER, 3)):
        model = METHOD.extend(model, memory, task(names, first))
        found = METHOD.remember(model, task(names, first), memory)
        assert found is not None
        memory = found
    return model, memory


@torch.no_grad()
def logits(model: Classifier, features: Tensor) -> Tensor:
    return model(features.view(-1, 3, 1, 1))  # type: ignore[no-any-return]


def recalls(model: Classifier) -> list[float]:
    """Of each class that the model has, on features drawn anew."""
    features, labels = drawn(200, 7)
    right = logits(model, features).argmax(1) == labels
    return [float(right[labels == k].float().mean()) for k in range(len(model.classes))]


# -- the block ------------------------------------------------------------------------------------------------------


@torch.no_grad()
def by_hand() -> Hidden:
    """Two classes with two units each of two features."""
    rows = nn.Linear(2, 2)
    rows.weight.copy_(torch.tensor([[1.0, 2.0], [0.0, -1.0]]))
    rows.bias.copy_(torch.tensor([0.5, 0.0]))
    block = Hidden(rows, 2)
    block.inner.copy_(torch.tensor([[[1.0, 0.0], [-1.0, 0.0]], [[0.0, 1.0], [1.0, 1.0]]]))
    block.offset.copy_(torch.tensor([[0.0, 1.0], [-3.0, 0.0]]))
    block.outer.copy_(torch.tensor([[2.0, -1.0], [5.0, 0.5]]))
    return block


@torch.no_grad()
def test_the_logits_worked_by_hand() -> None:
    # (3, 4): 3 + 8 + 0.5 + 2 relu(3) - relu(-3 + 1) = 17.5;  -4 + 5 relu(4 - 3) + 0.5 relu(7) = 4.5
    # (-2, 1): -2 + 2 + 0.5 + 2 relu(-2) - relu(2 + 1) = -2.5;  -1 + 5 relu(1 - 3) + 0.5 relu(-1) = -1
    assert by_hand()(torch.tensor([[3.0, 4.0], [-2.0, 1.0]])).tolist() == [[17.5, 4.5], [-2.5, -1.0]]


@torch.no_grad()
def test_a_class_alone_is_what_it_was_among_others() -> None:
    x = torch.randn(5, 2, generator=torch.Generator().manual_seed(0))
    for kept in ([1], [1, 0]):
        torch.testing.assert_close(by_hand().only(kept)(x), by_hand()(x)[:, kept])


@torch.no_grad()
def test_it_is_built_again_from_its_description_and_its_tensors() -> None:
    head = Head([nn.Linear(2, 3), by_hand()])
    again = assembled(descriptions(head), tensors_of(head))
    x = torch.randn(5, 2, generator=torch.Generator().manual_seed(0))
    assert torch.equal(again(x), head(x))


@pytest.mark.parametrize(
    "change",
    [
        {"units": 0},
        {"units": "many"},
        {"units": 1 << 40},
        {"rows": {"kind": "unit"}},
        {"rows": by_hand().spec()},
        {"rows": None},
    ],
    ids=str,
)
def test_a_tampered_description_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="restore the bundle"):
        build({**by_hand().spec(), **change})


def test_tensors_of_another_shape_are_refused() -> None:
    head = Head([by_hand()])
    with pytest.raises(InputError, match="restore it"):
        assembled([{**by_hand().spec(), "units": 3}], tensors_of(head))


@torch.no_grad()
def test_units_are_given_to_single_classes_and_taken_away() -> None:
    model = Classifier(nn.Identity(), Head([nn.Linear(2, 2)]), ("a", "b"))
    x = torch.randn(6, 2, generator=torch.Generator().manual_seed(0))
    first = [part[:1] for part in by_hand().units]
    one = with_units(model, ("b",), first)
    assert torch.equal(one(x)[:, 0], model(x)[:, 0])
    torch.testing.assert_close(one(x)[:, 1] - model(x)[:, 1], 2 * x[:, 0].relu() - (1 - x[:, 0]).relu())
    two = with_units(one, ("a",), [torch.cat([part, part], 1) for part in first])  # four units, beside the other's two
    assert torch.equal(two(x)[:, 1], one(x)[:, 1])
    torch.testing.assert_close(two(x)[:, 0] - model(x)[:, 0], 2 * (one(x) - model(x))[:, 1])
    none = with_units(two, ("a", "b"), ())
    assert type(none.head.blocks[0]) is nn.Linear
    assert torch.equal(none(x), model(x))


# -- the claim ------------------------------------------------------------------------------------------------------


def test_a_class_that_surrounds_an_old_one_is_learnt_by_hidden_units_and_not_by_a_row() -> None:
    """The control is the same method without them."""
    model, memory = old()
    surrounding = task(SURROUNDING, 2)
    with_them = recalls(METHOD.extend(model, memory, surrounding))
    control = recalls(GLNE(views=1).extend(model, memory, surrounding))
    assert min(with_them) > 0.95, with_them
    assert min(control) < 0.8, control


def test_the_terms_are_the_cross_entropies_of_the_grown_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Features are centred while the units learn, and not afterwards."""
    caught: dict[str, Any] = {}

    def solving(terms: Any, *given: Any, **options: Any) -> Any:
        caught["found"] = solve(terms, *given, **options)
        caught["terms"] = terms(*caught["found"])
        return caught["found"]

    def making(*given: Any, **options: Any) -> Any:
        caught["new"] = new_features(*given, **options)
        return caught["new"]

    solve = glne.solve
    monkeypatch.setattr(glne, "solve", solving)
    monkeypatch.setattr(glne, "new_features", making)
    model, memory = old()
    grown = METHOD.extend(model, memory, task(SURROUNDING, 2))
    features, labels = caught["new"]
    with torch.no_grad():
        expected = F.cross_entropy(grown.head(features), labels + 2)
    torch.testing.assert_close(caught["terms"]["new"], expected, atol=1e-4, rtol=1e-3)
    weight, _, inner, _, outer = caught["found"]
    centred = model.head.weight - model.head.weight.mean(0)
    scale = float(centred.square().sum(1).mean())
    decay = 0.015 * (weight.square().sum() / scale + (inner.square().sum() + outer.square().sum()) / scale**0.5)
    torch.testing.assert_close(caught["terms"]["decay"], decay)


# -- several steps --------------------------------------------------------------------------------------------------


def test_two_extensions_in_a_row_leave_earlier_logits_their_bits() -> None:
    model, memory = old()
    once, (both, _) = METHOD.extend(model, memory, task(SURROUNDING, 2)), twice()
    assert both.classes == (*model.classes, *SURROUNDING, *LATER)
    assert [type(block) for block in both.head.blocks] == [nn.Linear, Hidden, Hidden]
    features, _ = drawn(5, 3)
    for batch in (1, 3, 25):
        x = features[:batch]
        assert torch.equal(logits(once, x)[:, :2], logits(model, x))
        assert torch.equal(logits(both, x)[:, :3], logits(once, x))
    assert min(recalls(both)) > 0.95


@pytest.mark.parametrize("hidden", [0, 4])
def test_a_further_extension_works_where_nothing_was_kept(hidden: int) -> None:
    model, _ = old()
    once = METHOD.extend(model, None, task(SURROUNDING, 2))
    both = GLNE(views=1, hidden=hidden).extend(once, None, task(LATER, 3))
    features, _ = drawn(5, 3)
    assert torch.equal(logits(both, features)[:, :3], logits(once, features))
    assert min(recalls(both)[3:]) > 0.9


@pytest.mark.parametrize("hidden", [0, 2, 5])
def test_more_photos_of_a_class_with_units_refine_it_alone(hidden: int) -> None:
    model, memory = twice()
    again = GLNE(views=1, hidden=hidden).extend(model, memory, task(("right",), 4, 20, seed=2))
    features, _ = drawn(5, 3)
    before, after = logits(model, features), logits(again, features)
    assert again.classes == model.classes
    assert torch.equal(after[:, :4], before[:, :4])
    assert not torch.equal(after[:, 4], before[:, 4])
    last = again.head.blocks[2]
    assert isinstance(last, Hidden)
    assert last.outer.shape == (2, max(4, hidden))
    assert last.outer[1].count_nonzero() == hidden
    assert min(recalls(again)) > 0.9


def test_removed_classes_leave_the_others_as_they_were() -> None:
    model, memory = twice()
    features, _ = drawn(5, 3)
    fewer = model.without(["left"])
    assert fewer.head.rows == (2, 1, 1)
    torch.testing.assert_close(logits(fewer, features), logits(model, features)[:, [0, 1, 2, 4]])
    later = METHOD.extend(fewer, without(memory, ["left"]), task(("left",), 3))
    assert later.classes == (*fewer.classes, "left")


def test_what_needs_plain_rows_says_so() -> None:
    model, _ = twice()
    with pytest.raises(InputError, match=r"not made of linear rows \(Hidden\)"):
        Imprint().extend(model, None, task(("more",), 3))
    with pytest.raises(InputError, match=r"'left' and 'right' cannot be made one .* \(Hidden\); undo .* extend again"):
        merged(model, "left", "right")


def test_a_bundle_keeps_units_and_undoes_step_by_step(tmp_path: Path) -> None:
    model, memory = old()
    network = nn.Sequential(nn.Flatten(), nn.Linear(3, 2))
    once, (both, _) = METHOD.extend(model, memory, task(SURROUNDING, 2)), twice()
    bundle = classgraft.Bundle(model, Architecture("python:Sequential"), "1", Preparation(1, 1))
    steps = [bundle]
    for grown, names in ((once, SURROUNDING), (both, LATER)):
        steps.append(steps[-1].then(grown, {"event": "extend", "sentence": "more"}, names, {}))
    steps.append(classgraft.remove(steps[-1], "left"))
    features, _ = drawn(5, 3)
    now = steps[-1]
    for expected in reversed(steps):
        assert now.classes == expected.classes
        assert torch.equal(logits(now.model, features), logits(expected.model, features))
        classgraft.save(now, tmp_path)
        now = classgraft.load(tmp_path, network)
        assert torch.equal(logits(now.model, features), logits(expected.model, features))
        now = classgraft.undo(now) if now.undone else now
