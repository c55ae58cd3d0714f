"""Networks are cut into body and head, and put together again."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator
from functools import cache

import pytest
import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from classgraft.errors import InputError
from classgraft.models.cut import cut, head_name, joined, prove

NAMES = ("ant", "bee", "cow", "dog", "elk")


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Several threads on busy cores wait for one another at every layer, a hundred times longer than they work."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


class TwoLinear(nn.Module):
    """Registered in another order than used: a head, then a hidden layer and another of as many outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 6, 3, stride=2)
        self.squeeze = nn.Linear(6, 5)
        self.head = nn.Linear(8, 5)
        self.hidden = nn.Linear(5, 8)

    def forward(self, images: Tensor) -> Tensor:
        x = F.relu(self.convolution(images)).mean((2, 3))
        return self.head(F.relu(self.hidden(F.relu(self.squeeze(x)))))


class NoLinear(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.convolution = nn.Conv2d(3, 5, 3)

    def forward(self, images: Tensor) -> Tensor:
        return self.convolution(images).mean((2, 3))


class WeightsByHand(nn.Module):
    """Calls its head's weights rather than its head."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, 5)

    def forward(self, images: Tensor) -> Tensor:
        return F.linear(images.mean((2, 3)), self.head.weight, self.head.bias)


class TokenHead(nn.Module):
    """A linear layer over positions."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, 5)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(images.flatten(2).transpose(1, 2))


class Auxiliary(nn.Module):
    """Its head is not the last layer with as many outputs."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, 5)
        self.auxiliary = nn.Linear(3, 5)

    def forward(self, images: Tensor) -> Tensor:
        x = images.mean((2, 3))
        return self.head(x) + (self.auxiliary(x) if self.training else 0)


def small(*after: nn.Module, bias: bool = True) -> nn.Sequential:
    layers = [nn.Conv2d(3, 6, 3, stride=2), nn.BatchNorm2d(6), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(6, 5, bias), *after)


@cache
def of_timm(name: str, **arguments: object) -> nn.Module:
    """Built once: no test may change it."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return timm.create_model(name, num_classes=5, **arguments)


NETWORKS = {
    "mobilenet": (lambda: of_timm("mobilenetv2_100", pad_type="same"), 32, "classifier"),
    "resnet": (lambda: of_timm("resnet18"), 32, "fc"),
    "vit": (lambda: of_timm("vit_tiny_patch16_224", img_size=64, depth=2), 64, "head"),
    "sequential": (small, 12, "5"),
    "dropout after the head": (lambda: small(nn.Dropout(0.5)), 12, "5"),
    "dropout before the head": (
        lambda: nn.Sequential(OrderedDict(flat=nn.Flatten(), drop=nn.Dropout(0.5), top=nn.Linear(432, 5))),
        12,
        "top",
    ),
    "nested": (lambda: nn.Sequential(OrderedDict(inner=small())), 12, "inner.5"),
    "no biases": (lambda: small(bias=False), 12, "5"),
}
networks = pytest.mark.parametrize("kind", NETWORKS)


def built(kind: str) -> tuple[nn.Module, Tensor, str]:
    make, size, head = NETWORKS[kind]
    return make(), torch.rand(3, 3, size, size, generator=torch.Generator().manual_seed(1)), head


def state(network: nn.Module) -> dict[str, bytes]:
    return {key: value.numpy().tobytes() for key, value in network.state_dict().items()}


@networks
@torch.no_grad()
def test_the_cut_classifier_gives_the_networks_own_logits(kind: str) -> None:
    network, images, head = built(kind)
    network.eval()
    assert head_name(network, 5) == head
    model = cut(network, NAMES)
    assert model.classes == NAMES
    assert model.features(images).shape == (3, model.head.weight.shape[1])
    assert torch.equal(model(images), network(images))
    prove(network, model, images.shape[-1])


@networks
@pytest.mark.parametrize("training", [True, False])
@torch.no_grad()
def test_the_network_given_stays_as_it_was(kind: str, training: bool) -> None:
    network, images, _ = built(kind)
    network.train(training)
    before, layers = state(network), [type(part) for part in network.modules()]
    model = cut(network, NAMES)
    prove(network, model, images.shape[-1])
    assert [type(part) for part in network.modules()] == layers
    assert {part.training for part in network.modules()} == {training}
    for value in model.state_dict().values():
        value.zero_()
    assert state(network) == before


def test_a_part_in_another_mode_stays_in_it() -> None:
    network = small().train()
    network[1].eval()  # a frozen batch norm, as in fine-tuning
    prove(network, cut(network, NAMES), 12)
    assert not network[1].training


@networks
@torch.no_grad()
def test_a_joined_network_has_the_plain_keys_and_one_wider_layer(kind: str) -> None:
    network, images, head = built(kind)
    network.eval()
    weight = torch.randn(2, cut(network, NAMES).head.weight.shape[1], generator=torch.Generator().manual_seed(2))
    model = cut(network, NAMES).grown(["fox", "gnu"], weight)
    plain = joined(model, head)
    assert plain.state_dict().keys() == network.state_dict().keys() | {f"{head}.bias"}
    assert plain.get_submodule(head).out_features == 7
    torch.testing.assert_close(plain(images), model(images))
    assert cut(plain, model.classes).head.rows == (7,)
    assert type(model.body.get_submodule(head)) is nn.Identity
    if hasattr(network, "num_classes"):
        assert plain.num_classes == 7


@pytest.mark.parametrize(
    "kind",
    [
        "resnet",
        "sequential",
        pytest.param(
            "no biases", marks=pytest.mark.xfail(strict=True, reason="joined makes a bias where there is none")
        ),
    ],
)
def test_cut_and_joined_is_the_same_network(kind: str) -> None:
    network, _, head = built(kind)
    assert state(joined(cut(network, NAMES), head)) == state(network)


def test_the_last_linear_layer_with_the_right_number_of_outputs_is_the_head() -> None:
    assert head_name(TwoLinear(), 5) == "head"  # registered last of those with five
    assert head_name(TwoLinear(), 8) == "hidden"
    assert head_name(TwoLinear()) == "hidden"


def test_a_head_can_be_named_where_the_wrong_layer_would_be_found() -> None:
    network = Auxiliary()
    assert head_name(network, 5) == "auxiliary"
    model = cut(network, NAMES, "head")
    prove(network, model, 12)
    assert torch.equal(model.head.weight, network.head.weight)


def test_a_head_by_another_number_of_outputs_is_refused_with_both_numbers() -> None:
    with pytest.raises(InputError, match=r"'5' has 5 outputs but there are 3 class names"):
        cut(small(), NAMES[:3], "5")
    with pytest.raises(InputError, match=r"with 3 outputs.*5 \(5\)"):
        cut(small(), NAMES[:3])
    with pytest.raises(InputError, match=r"'fc' has 5 outputs but there are 3"):
        cut(of_timm("resnet18"), NAMES[:3])


@pytest.mark.parametrize(("head", "kind"), [("0", "Conv2d"), ("nowhere", "NoneType")])
def test_a_named_head_that_is_no_linear_layer_is_refused(head: str, kind: str) -> None:
    with pytest.raises(InputError, match=f"'{head}' is {kind}, not a linear layer"):
        cut(small(), NAMES, head)


def test_a_network_without_a_linear_layer_is_refused() -> None:
    with pytest.raises(InputError, match=r"NoLinear has no linear layer with 5 outputs.*none at all"):
        cut(NoLinear(), NAMES)


@pytest.mark.parametrize("after", [nn.Softmax(1), nn.LogSoftmax(1), nn.Sigmoid(), nn.Hardtanh(-1e-3, 1e-3)], ids=repr)
def test_something_after_the_head_is_refused(after: nn.Module) -> None:
    network = small(after)
    with pytest.raises(InputError, match="Sequential does something after its last linear layer"):
        prove(network, cut(network, NAMES), 12)


@pytest.mark.parametrize(("make", "head"), [(TwoLinear, "squeeze"), (Auxiliary, None)])
def test_another_layer_taken_for_the_head_is_refused(make: type[nn.Module], head: str | None) -> None:
    network = make()
    with pytest.raises(InputError):
        prove(network, cut(network, NAMES, head), 12)


def test_features_that_are_not_one_row_an_image_are_refused() -> None:
    network = TokenHead()
    with pytest.raises(InputError, match=r"shape \(2, 144, 3\), not one row of features an image"):
        prove(network, cut(network, NAMES), 12)


def test_a_network_that_reads_its_heads_weights_itself_is_refused() -> None:
    network = WeightsByHand()
    with pytest.raises(InputError):
        prove(network, cut(network, NAMES), 12)


@pytest.mark.xfail(strict=True, raises=InputError, reason="prove looks with three channels whatever the network takes")
def test_a_network_for_grey_images_passes() -> None:
    network = nn.Sequential(nn.Conv2d(1, 6, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 5))
    prove(network, cut(network, NAMES), 12)


def test_proving_draws_nothing_from_the_global_generator() -> None:
    network = small()
    model = cut(network, NAMES)
    before = torch.get_rng_state()
    prove(network, model, 12)
    assert torch.equal(torch.get_rng_state(), before)
