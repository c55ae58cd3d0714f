"""Every family of networks that people start from, with random weights: imported, extended, saved, loaded, no code given.

The torchvision list is that of the lecture notes that ask for transfer learning with each of its constructors.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import timm
import torch
import torchvision
import transformers
from safetensors.torch import save_file
from torch import Tensor, nn

import classgraft
from classgraft.data.images import Images
from classgraft.models.sources import Architecture
from classgraft.models.wrapped import wrapped

CLASSES = ("ant", "bee", "cow")
NEW = ("fox", "gnu")


@pytest.fixture(autouse=True)
def _seeded() -> Iterator[None]:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        yield


def photos(side: int) -> dict[str, Tensor]:
    return {name: torch.rand(2, 3, side, side) for name in NEW}


def images(bundle: classgraft.Bundle) -> Images:
    side = bundle.preparation.resize
    pixels = torch.randint(0, 256, (4, 3, side, side), dtype=torch.uint8)
    return Images(pixels, torch.tensor([0, 0, 1, 1]), NEW, bundle.preparation)


@torch.no_grad()
def check(source: str, network: nn.Module, folder: Path, method: str = "imprint", **options: Any) -> classgraft.Bundle:
    """A source of which ``network`` has the weights: imported, extended, saved, loaded; old logits keep their bits."""
    network.eval()
    base = classgraft.import_model(source, **options)
    side = base.preparation.size
    seen = torch.randn(2, 3, side, side)
    old = network(seen) if source[:2] != "hf" else network(pixel_values=seen).logits
    assert torch.equal(base.model(seen), old)
    grown = classgraft.extend(base, images(base), method=method)
    classgraft.save(grown, folder)
    loaded = classgraft.load(folder)
    assert loaded.classes == (*CLASSES, *NEW)
    for model in (grown.model, loaded.model):
        assert torch.equal(model(seen)[:, :3], old)
    assert torch.equal(loaded.model(seen), grown.model(seen))
    assert loaded.model(seen)[:, 3:].isfinite().all()
    undone = classgraft.undo(loaded)
    assert undone.classes == CLASSES
    assert torch.equal(undone.model(seen), old)
    trained = grown.model.requires_grad_(True).train()  # auxiliary heads, if any, must not come between
    with torch.enable_grad():
        trained(torch.randn(2, 3, side, side)).sum().backward()
    return loaded


TORCHVISION = {  # the lecture's constructor, the smallest of its family, pixels
    "alexnet": ("alexnet", 64),
    "vgg16": ("vgg11", 32),
    "resnet18": ("resnet18", 32),
    "squeezenet1_0": ("squeezenet1_0", 48),
    "densenet161": ("densenet121", 32),
    "inception_v3": ("inception_v3", 75),
    "googlenet": ("googlenet", 32),
    "shufflenet_v2_x1_0": ("shufflenet_v2_x0_5", 32),
    "mobilenet_v2": ("mobilenet_v2", 32),
    "resnext50_32x4d": ("resnext50_32x4d", 32),
    "wide_resnet50_2": ("wide_resnet50_2", 32),
    "mnasnet1_0": ("mnasnet0_5", 32),
}


def of_torchvision(name: str, side: int, tmp_path: Path) -> None:
    more = {"transform_input": True, "init_weights": False} if name in ("googlenet", "inception_v3") else {}
    network = torchvision.models.get_model(name, num_classes=3, **more)
    save_file(network.state_dict(), tmp_path / "w.safetensors")  # with the auxiliary heads, as it was trained
    check(f"torchvision:{name}", network, tmp_path / "b",
          weights=tmp_path / "w.safetensors", classes=CLASSES, size=side)  # fmt: skip


class Narrow(nn.Linear):
    """AlexNet's and VGG's hidden layers with 64 units in place of 4,096, which nothing here depends on but the time."""

    def __init__(self, inside: int, outside: int) -> None:
        super().__init__(*(64 if width == 4096 else width for width in (inside, outside)))


@pytest.mark.parametrize("constructor", TORCHVISION)
def test_torchvision(constructor: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("alexnet", "vgg"):
        parts = SimpleNamespace(**{**vars(nn), "Linear": Narrow})
        monkeypatch.setattr(sys.modules[f"torchvision.models.{module}"], "nn", parts)
    of_torchvision(*TORCHVISION[constructor], tmp_path)


@pytest.mark.slow
@pytest.mark.parametrize("constructor", [name for name, (small, _) in TORCHVISION.items() if name != small])
def test_torchvision_in_the_lectures_size(constructor: str, tmp_path: Path) -> None:
    of_torchvision(constructor, TORCHVISION[constructor][1], tmp_path)


@pytest.mark.parametrize(
    ("name", "arguments", "side"),
    [
        ("vit_tiny_patch16_224", {"img_size": 32, "depth": 2}, 32),
        ("convnext_atto", {"depths": [1, 1, 1, 1], "dims": [8, 16, 24, 32]}, 32),
        ("efficientnet_lite0", {}, 32),
    ],
)
def test_timm(name: str, arguments: dict[str, Any], side: int, tmp_path: Path) -> None:
    network = Architecture(f"timm:{name}", arguments).build(3)
    save_file(network.state_dict(), tmp_path / "w.safetensors")
    check(f"timm:{name}", network, tmp_path / "b", "glne",
          weights=tmp_path / "w.safetensors", classes=CLASSES, size=side, arguments=arguments)  # fmt: skip


HUGGING_FACE = {
    "ViT": {"image_size": 32, "patch_size": 8},
    "Swin": {
        "image_size": 32,
        "patch_size": 4,
        "embed_dim": 16,
        "depths": [1, 1],
        "num_heads": [2, 2],
        "window_size": 4,
    },
    "Dinov2": {"image_size": 28, "patch_size": 14},
}
SMALL = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}


@pytest.mark.parametrize("family", HUGGING_FACE)
def test_hugging_face(family: str, tmp_path: Path) -> None:
    config = getattr(transformers, f"{family}Config")(
        **(HUGGING_FACE[family] if family == "Swin" else {**HUGGING_FACE[family], **SMALL}),
        id2label=dict(enumerate(CLASSES)), label2id={name: i for i, name in enumerate(CLASSES)},
    )  # fmt: skip
    network = getattr(transformers, f"{family}ForImageClassification")(config)
    network.save_pretrained(tmp_path / "hf")
    loaded = check(f"hf:{tmp_path / 'hf'}", network, tmp_path / "b", "glne")
    assert loaded.preparation.size == config.image_size
    assert loaded.architecture.source == "hf:hf"  # no path of this machine


def test_a_hugging_face_network_as_an_object(tmp_path: Path) -> None:
    config = transformers.ViTConfig(**HUGGING_FACE["ViT"], **SMALL, num_labels=3)
    network = transformers.ViTForImageClassification(config).eval()
    base = classgraft.import_model(network, classes=CLASSES, size=32)
    grown = classgraft.extend(base, images(base), method="imprint")
    classgraft.save(grown, tmp_path)
    seen = torch.randn(2, 3, 32, 32)
    loaded = classgraft.load(tmp_path, transformers.ViTForImageClassification(config))
    assert torch.equal(loaded.model(seen)[:, :3], network(seen).logits)


def test_a_squeezenet_as_an_object_keeps_its_logits_beside_what_its_convolution_sees() -> None:
    network = torchvision.models.squeezenet1_1(num_classes=3).eval()
    grown = classgraft.extend(network, CLASSES, photos(48), method="imprint")
    seen = torch.rand(2, 3, 48, 48)
    assert torch.equal(grown(seen)[:, :3], network(seen))
    features = grown.features(seen)
    assert torch.equal(features[:, 512:], network(seen))
    assert torch.equal(features[:, :512], network.features(seen).mean((2, 3)))
    assert wrapped(network, 4) is network  # no such head


def test_a_linear_layer_of_timms_own_is_saved_as_plain_rows(tmp_path: Path) -> None:
    network = timm.create_model("mobilenetv3_small_050", num_classes=3)
    bundle = classgraft.import_model(network, classes=["a", "b", "c"], size=32)
    classgraft.save(bundle, tmp_path)
    seen = torch.rand(2, 3, 32, 32)
    assert torch.equal(classgraft.load(tmp_path, network).model(seen), bundle.model(seen))
