"""Changed networks: where the last block is, adapters beside it, the tree that describes them, and bundles of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from outside import Tiny
from test_bundle import extended, logits, same, tiny
from torch import Tensor, nn

import classgraft
from classgraft.errors import InputError
from classgraft.models import cifar_resnet
from classgraft.models.adapter import Adapter, adapted, last_block
from classgraft.models.cut import cut, headless
from classgraft.models.kinds import build
from classgraft.models.structure import PLAIN, plain, spec

ADAPTED: dict[str, Any] = {"method": "acwod", "settings": {"layers": "adapter", "epochs": 1, "augment": "none"}}


def timm_body(name: str, **arguments: Any) -> nn.Module:
    timm = pytest.importorskip("timm")
    return cut(timm.create_model(name, num_classes=3, **arguments), ("a", "b", "c")).body.eval()


@pytest.mark.parametrize(
    ("name", "block", "arguments"),
    [
        ("resnet18", "layer4", {}),
        ("vit_tiny_patch16_224", "blocks.11", {"img_size": 32}),
        ("convnext_atto", "stages.3", {}),
        ("mobilenetv2_035", "conv_head", {}),
        ("swin_tiny_patch4_window7_224", "layers.3", {}),
        ("vgg11", "pre_logits.fc2", {}),
    ],
)
def test_the_last_block_of_networks_of_timm(name: str, block: str, arguments: dict[str, Any]) -> None:
    timm = pytest.importorskip("timm")
    with torch.device("meta"):
        network = timm.create_model(name, num_classes=3, **arguments)
    assert last_block(headless(network, str(network.default_cfg["classifier"]))) == block


@pytest.mark.parametrize("name", ["resnet20", "resnet18"])
def test_the_last_block_of_cifar_networks_is_their_last_stage(name: str) -> None:
    body = cut(cifar_resnet.build(name, 2), ("a", "b"), "linear").body
    assert last_block(body) == {"resnet20": "layer3", "resnet18": "layer4"}[name]


def test_normalisations_and_whole_networks_are_no_blocks() -> None:
    inside = nn.Sequential(nn.Linear(9, 9), nn.ReLU(), nn.Linear(9, 9), nn.LayerNorm(2))
    assert last_block(nn.Sequential(inside, nn.BatchNorm1d(2))) == "0.2"
    assert last_block(nn.Sequential(nn.Linear(4, 4), inside, nn.BatchNorm1d(2))) == "1"
    with pytest.raises(InputError, match="Sequential has no part"):
        last_block(nn.Sequential(nn.BatchNorm1d(4), nn.Flatten()))


def cifar_body() -> nn.Module:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return cut(cifar_resnet.build("resnet20", 2), ("a", "b"), "linear").body.eval()


def pictures(side: int = 32) -> Tensor:
    return torch.randn(2, 3, side, side, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", ["resnet20", "resnet10t", "test_vit", "test_convnext"])
@torch.no_grad()
def test_an_adapter_starts_as_the_old_network_and_changes_it_once_it_has_learnt(name: str) -> None:
    body = cifar_body() if name == "resnet20" else timm_body(name)
    images = pictures(160 if name.startswith("test") else 32)
    before, state = body(images), torch.get_rng_state()
    adapter = adapted(body, last_block(body), images, seed=0)
    assert torch.equal(body(images), before)
    assert torch.equal(torch.get_rng_state(), state)
    adapter.beside[2].weight.normal_()
    assert not torch.allclose(body(images), before, atol=1e-3)
    weights = sum(p.numel() for p in adapter.beside.parameters())
    assert weights < 0.4 * sum(p.numel() for p in adapter.block.parameters())


def test_an_adapter_by_hand() -> None:
    adapter = Adapter([nn.Identity()], 1, 1, 1, 1)
    with torch.no_grad():
        for parameter in adapter.parameters():
            parameter.fill_(1.0)
    # 3x3 ones over ones of 2x2 pixels with a border of zeros: 4, plus bias 1: 5; times 1 plus 1: 6; beside the 1 itself
    assert torch.equal(adapter(torch.ones(1, 1, 2, 2)), torch.full((1, 1, 2, 2), 7.0))


def test_a_block_of_another_form_is_refused_in_a_sentence() -> None:
    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.block = nn.Conv2d(3, 4, 3), nn.LSTM(30, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.block(self.stem(x)[0])[0]

    with pytest.raises(InputError, match="No adapter can stand beside the block 'block'"):
        adapted(Pair(), "block", pictures(), 0)


@torch.no_grad()
def test_a_tree_of_json_builds_the_network_again() -> None:
    body, images = cifar_body(), pictures()
    original = cifar_body()
    assert spec(body) == PLAIN
    for seed in range(2):  # the second adapter stands beside the adapted block
        adapter = adapted(body, last_block(body), images, seed)
        adapter.beside[2].weight.normal_()
    tree = json.loads(json.dumps(spec(body)))
    (place,) = tree["parts"].values()
    assert (place["kind"], place["inner"][0]["kind"], place["hidden"]) == ("adapter", "adapter", 16)
    again = build(tree, original).eval()
    again.load_state_dict(body.state_dict())
    assert torch.equal(again(images), body(images))
    assert torch.equal(plain(body)(images), original(images))
    assert plain(body).state_dict().keys() == original.state_dict().keys()


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"kind": "os.system"}, "os.system"),
        ({"hidden": 10**12}, "size"),
        ({"hidden": True}, "size"),
        ({"hidden": "x"}, "x"),
    ],
)
def test_a_tree_that_no_classgraft_wrote_is_refused(change: dict[str, Any], word: str) -> None:
    part = {"kind": "adapter", "inside": 4, "outside": 4, "hidden": 1, "stride": 1, "inner": [PLAIN], **change}
    with pytest.raises(InputError, match=word):
        build({"kind": "plain", "parts": {"0": part}}, nn.Sequential(nn.Identity()))


# -- in bundles ------------------------------------------------------------------------------------------------------


def test_an_adapted_network_is_saved_loaded_extended_and_undone(tmp_path: Path) -> None:
    base, folder = tiny(), tmp_path / "b"
    steps = [base]
    for number in range(3):
        options = ADAPTED if number != 1 else {}  # imprinting between two adapters
        grown = extended(steps[-1], f"new {number}", **options)
        classgraft.save(grown, folder)
        loaded = classgraft.load(folder, Tiny(7, seed=5))
        assert same(loaded, grown)
        assert spec(loaded.model.body) == spec(grown.model.body) != PLAIN
        steps.append(loaded)
    config = json.loads((folder / "config.json").read_text("utf-8"))
    assert "architecture" not in config  # timm's key, and timm cannot build this
    assert config["graft"]["body"]["parts"]
    for earlier in reversed(steps[:-1]):
        before = classgraft.undo(classgraft.load(folder, Tiny()))
        assert same(before, earlier)
        classgraft.save(before, folder)
    assert torch.equal(logits(classgraft.load(folder, Tiny())), logits(base))
    assert "body" not in json.loads((folder / "config.json").read_text("utf-8"))["graft"]


def test_a_class_can_be_removed_from_an_adapted_network_and_come_back(tmp_path: Path) -> None:
    grown = extended(tiny(), "new", "newer", **ADAPTED)
    smaller = classgraft.remove(grown, "c1")
    classgraft.save(smaller, tmp_path / "b")
    loaded = classgraft.load(tmp_path / "b", Tiny())
    assert same(loaded, smaller)
    assert torch.equal(logits(classgraft.undo(loaded)), logits(grown))


def test_a_damaged_tree_is_refused_in_a_sentence(tmp_path: Path) -> None:
    classgraft.save(extended(tiny(), "new", **ADAPTED), tmp_path / "b")
    path = tmp_path / "b" / "config.json"
    config = json.loads(path.read_text("utf-8"))
    for body in ({"kind": "mystery"}, {"kind": "plain", "parts": {"nowhere": {"kind": "plain"}}}, [], PLAIN):
        path.write_text(json.dumps({**config, "graft": {**config["graft"], "body": body}}), "utf-8")
        with pytest.raises(InputError):
            classgraft.load(tmp_path / "b", Tiny())
