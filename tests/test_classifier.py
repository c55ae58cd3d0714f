"""A classifier grows and shrinks, and its old logits keep their bits."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
import torchvision
from torch import Tensor, nn

from classgraft.errors import InputError
from classgraft.models.classifier import Classifier, Head, feature_width, frozen, untrained

OLD = ("ant", "bee", "cow")


class Body(nn.Module):
    """A convolution with batch norm, its mean over positions and a wide layer."""

    num_features = 96

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 8, 3, stride=2)
        self.norm = nn.BatchNorm2d(8)
        self.wide = nn.Linear(8, self.num_features)

    def forward(self, images: Tensor) -> Tensor:
        return F.relu(self.wide(F.relu(self.norm(self.convolution(images))).mean((2, 3))))


def made(classes: int = 3, bias: bool = True) -> Classifier:
    with torch.random.fork_rng():
        torch.manual_seed(classes)
        body = Body()
        nn.init.uniform_(body.norm.running_mean, -0.2, 0.2)
        head = Head([nn.Linear(body.num_features, classes, bias)])
    return Classifier(body, head, OLD if classes == 3 else [f"class {k}" for k in range(classes)]).eval()


def rows(count: int, seed: int = 0) -> Tensor:
    return torch.randn(count, Body.num_features, generator=torch.Generator().manual_seed(seed))


def pictures(batch: int) -> Tensor:
    return torch.rand(batch, 3, 12, 12, generator=torch.Generator().manual_seed(batch))


def state(model: nn.Module) -> dict[str, bytes]:
    return {key: value.numpy().tobytes() for key, value in model.state_dict().items()}


@pytest.fixture
def threads(request: pytest.FixtureRequest) -> Iterator[int]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


@pytest.mark.parametrize("threads", [1, 2], indirect=True, ids=["one thread", "two threads"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16", "autocast"])
@pytest.mark.parametrize("classes", [3, 200])
@pytest.mark.parametrize("batch", [1, 2, 7, 128])
@torch.no_grad()
def test_old_logits_keep_their_bits_through_two_growths(batch: int, classes: int, precision: str, threads: int) -> None:
    model, images = made(classes), pictures(batch)
    if precision == "bfloat16":
        model, images = model.bfloat16(), images.bfloat16()
    with torch.autocast("cpu", torch.bfloat16, enabled=precision == "autocast"):
        logits = model(images)
        for step, names in enumerate((["new 1", "new 2"], ["new 3"])):
            model = model.grown(names, rows(len(names), step))
            grown = model(images)
            assert grown.dtype == logits.dtype == (torch.float32 if precision == "float32" else torch.bfloat16)
            assert grown.shape == (batch, logits.shape[1] + len(names))
            assert torch.equal(grown[:, : logits.shape[1]], logits)
            logits = grown


def test_new_rows_give_the_logits_of_their_weights_and_biases() -> None:
    model, weight, bias = made(), rows(2), torch.tensor([0.5, -2.0])
    grown = model.grown(["dog", "elk"], weight, bias)
    features = model.features(pictures(5))
    torch.testing.assert_close(grown(pictures(5))[:, 3:], features @ weight.T + bias)
    torch.testing.assert_close(model.grown(["dog", "elk"], weight)(pictures(5))[:, 3:], features @ weight.T)


def test_new_names_come_after_the_old_in_order_and_known_ones_are_not_added() -> None:
    grown = made().grown(["elk", "bee", "dog"])
    assert grown.classes == (*OLD, "elk", "dog")
    assert grown.head.rows == (3, 2)
    assert made().grown(["bee"]).head.rows == (3,)


@pytest.mark.parametrize("how", ["grown", "known", "without", "frozen"])
def test_the_model_given_stays_as_it_was_and_shares_nothing_with_the_copy(how: str) -> None:
    model = made()
    before, flags = state(model), [p.requires_grad for p in model.parameters()]
    other = {
        "grown": lambda: model.grown(["elk"], rows(1)),
        "known": lambda: model.grown(["bee"]),
        "without": lambda: model.without(["bee"]),
        "frozen": lambda: frozen(model),
    }[how]()
    with torch.no_grad():
        for value in other.state_dict().values():
            value.zero_()
    assert state(model) == before
    assert [p.requires_grad for p in model.parameters()] == flags
    assert (model.classes, model.head.rows) == (OLD, (3,))


@pytest.mark.parametrize("training", [True, False])
def test_a_grown_model_is_in_the_mode_of_the_old(training: bool) -> None:
    assert {part.training for part in made().train(training).grown(["elk"]).modules()} == {training}


@pytest.mark.parametrize(
    "training",
    [
        True,
        False,
    ],
)
def test_a_model_without_a_class_is_in_the_mode_of_the_old(training: bool) -> None:
    assert {part.training for part in made().train(training).without(["bee"]).modules()} == {training}


def test_new_rows_have_the_precision_of_the_old() -> None:
    grown = made().double().grown(["elk"], rows(1))
    assert {p.dtype for p in grown.parameters()} == {torch.float64}


def test_new_rows_start_at_zero_unless_given() -> None:
    block = made(200).grown([f"new {k}" for k in range(200)]).head.linear[1]
    assert block.weight.shape == (200, made().head.weight.shape[1])
    assert not block.weight.any()
    assert not block.bias.any()


def test_a_classifier_without_classes_gives_no_logits_and_grows() -> None:
    empty = Classifier(Body().eval(), Head(), ())
    assert empty(pictures(4)).shape == (4, 0)
    first = empty.grown(["ant", "bee"], rows(2))
    assert first(pictures(4)).shape == (4, 2)
    assert empty.grown(["ant"]).head.rows == (1,)


def test_a_body_that_does_not_say_its_width_cannot_have_its_first_class() -> None:
    empty = Classifier(nn.Sequential(nn.Flatten(), nn.Linear(432, 5)), Head(), ())
    with pytest.raises(InputError, match="num_features"):
        feature_width(empty)


@pytest.mark.parametrize("names", [("ant", "bee"), (*OLD, "dog"), ()])
def test_there_must_be_one_name_a_row(names: tuple[str, ...]) -> None:
    with pytest.raises(InputError, match=f"3 rows but {len(names)} class names"):
        Classifier(Body(), Head([nn.Linear(96, 3)]), names)


def test_a_name_that_is_given_twice_gets_one_row_or_is_refused() -> None:
    try:
        grown = made().grown(["elk", "elk"])
    except InputError:
        return
    assert grown.classes == (*OLD, "elk")


@pytest.mark.parametrize("gone", [["bee"], ["ant", "elk"], ["dog", "elk"], ["ant", "bee", "cow"], ["unknown"]])
@torch.no_grad()
def test_without_leaves_every_other_row_with_its_numbers_in_order(gone: list[str]) -> None:
    model = made().grown(["dog", "elk"], rows(2), torch.tensor([1.0, 2.0]))
    smaller = model.without(gone)
    kept = [k for k, name in enumerate(model.classes) if name not in gone]
    assert smaller.classes == tuple(model.classes[k] for k in kept)
    assert torch.equal(smaller.head.weight, model.head.weight[kept])
    assert torch.equal(smaller.head.bias, model.head.bias[kept])
    torch.testing.assert_close(smaller(pictures(6)), model(pictures(6))[:, kept])


@pytest.mark.parametrize("batch", [1, 7])
@torch.no_grad()
def test_removing_the_classes_of_an_extension_gives_the_earlier_logits_bit_for_bit(batch: int) -> None:
    model = made()
    assert torch.equal(
        model.grown(["dog", "elk"], rows(2)).without(["elk", "dog"])(pictures(batch)), model(pictures(batch))
    )


def test_removing_every_class_leaves_a_classifier_that_can_grow_again() -> None:
    empty = made().without(OLD)
    assert (empty.classes, empty.head.rows) == ((), ())
    assert empty.grown(["elk"]).classes == ("elk",)


def test_a_head_without_biases_keeps_its_logits_and_counts_as_zero_biases() -> None:
    model = made(bias=False)
    grown = model.grown(["elk"], rows(1), torch.ones(1))
    assert torch.equal(grown(pictures(3))[:, :3], model(pictures(3)))
    assert grown.head.bias.tolist() == [0, 0, 0, 1]
    assert grown.without(["bee"]).head.linear[0].bias is None


def test_a_head_gives_copies_of_its_rows() -> None:
    model = made()
    before = state(model)
    model.head.weight.zero_()
    model.head.bias.zero_()
    assert state(model) == before
    assert not model.head.weight.requires_grad


def test_without_normalisation_the_biases_tell_whether_a_body_was_trained() -> None:
    fresh = torchvision.models.squeezenet1_1().features
    assert untrained(fresh)
    with torch.no_grad():
        fresh[0].bias[0] = 0.1
    assert not untrained(fresh)
    assert not untrained(nn.Conv2d(3, 4, 3, bias=False))  # nothing tells
    assert untrained(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)))  # the norm tells


def test_a_frozen_copy_no_longer_learns() -> None:
    learner = copy.deepcopy(made()).train()
    copied = frozen(learner)
    assert not any(p.requires_grad for p in copied.parameters())
    assert not any(part.training for part in copied.modules())
    assert all(p.requires_grad for p in learner.parameters())
    assert all(part.training for part in learner.modules())
