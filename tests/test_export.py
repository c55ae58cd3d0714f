"""Exports: what other tools load gives the bundle's answers, and names and preprocessing come along."""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from outside import copied, furnish, is_sentence, photo, photos, run
from PIL import Image
from torch import Tensor

import classgraft
from classgraft import InputError, Preparation, exporting
from classgraft.bundle import Bundle
from classgraft.data.decode import open_rgb, square
from classgraft.data.images import Images
from classgraft.data.probes import probes
from classgraft.exporting import FORMATS
from classgraft.models.adapter import adapted
from classgraft.models.classifier import Classifier
from classgraft.models.cut import cut
from classgraft.models.sources import Architecture
from classgraft.models.statistics import Mahalanobis


def grown(name: str = "resnet10t", size: int = 40, resize: int = 45, **arguments: Any) -> Bundle:
    """A timm network of random weights with three classes, extended by two."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        architecture = Architecture(f"timm:{name}", arguments)
        model = cut(architecture.build(3), ("a", "b", "c")).eval()
    head = "fc" if name.startswith("resnet") else "classifier"
    preparation = Preparation(size, resize, (0.5, 0.4, 0.3), (0.2, 0.25, 0.3))
    base = Bundle(model, architecture, head, preparation, history=({"event": "import", "sentence": "imported"},))
    pixels = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (4, 3, resize, resize), np.uint8))
    images = Images(pixels, torch.tensor([0, 0, 1, 1]), ("日本", "e"), preparation)
    return classgraft.extend(base, images, method="imprint", settings={"views": 1})


@pytest.fixture(scope="module")
def bundle() -> Bundle:
    return grown()


def logits(bundle: Bundle, images: Tensor) -> Tensor:
    with torch.inference_mode():
        return bundle.model(images)  # type: ignore[no-any-return]


def network_input(bundle: Bundle, count: int) -> Tensor:
    images = probes(bundle.preparation, bundle.classes, count, seed=7)
    return images.view(torch.arange(count), torch.device("cpu"))


def _timm(folder: Path) -> Callable[[Tensor], Tensor]:
    import timm

    return timm.create_model(f"local-dir:{folder}", pretrained=True).eval()  # type: ignore[no-any-return]


def _hf(folder: Path) -> Callable[[Tensor], Tensor]:
    transformers = pytest.importorskip("transformers")
    network = transformers.AutoModelForImageClassification.from_pretrained(folder).eval()
    return lambda images: network(pixel_values=images).logits  # type: ignore[no-any-return]


def _onnx(folder: Path) -> Callable[[Tensor], Tensor]:
    session = pytest.importorskip("onnxruntime").InferenceSession(folder / "model.onnx")
    return lambda images: torch.from_numpy(session.run(None, {"images": images.numpy()})[0])


def _pt2(folder: Path) -> Callable[[Tensor], Tensor]:
    return torch.export.load(folder / "model.pt2").module()


READERS = {"timm": _timm, "hf": _hf, "onnx": _onnx, "torch-export": _pt2}


@pytest.mark.parametrize("format", FORMATS)
def test_the_tool_it_is_for_gives_the_bundles_logits_for_any_batch(format: str, bundle: Bundle, tmp_path: Path) -> None:
    parity = classgraft.export(bundle, format, tmp_path / "out")
    assert (parity.agreement, parity.generated, parity.images) == (1.0, True, 32)
    assert parity.difference < 1e-4
    read = READERS[format](tmp_path / "out")
    for count in (1, 2, 5):
        images = network_input(bundle, count)
        with torch.inference_mode():
            found = read(images)
        ours = logits(bundle, images)
        assert found.shape == ours.shape
        assert (found - ours).abs().max() < 1e-4 * max(1.0, float(ours.abs().max()))


@pytest.mark.parametrize("format", ["timm", "hf"])
def test_arguments_of_the_network_travel_along(format: str, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    bundle = grown("mobilenetv2_035", size=41, resize=41, pad_type="same")
    assert classgraft.export(bundle, format, tmp_path / "out").difference < 1e-4
    config = json.loads((tmp_path / "out/config.json").read_text("utf-8"))
    assert config["model_args"] == {"pad_type": "same"}
    assert "graft" not in config


@pytest.mark.parametrize("format", ["timm", "hf"])
@pytest.mark.parametrize("stretched", [False, True])
@pytest.mark.parametrize(("size", "resize"), [(40, 45), (13, 15), (1, 93), (112, 128)])
def test_names_and_preprocessing_travel_with_a_folder(
    format: str, size: int, resize: int, stretched: bool, tmp_path: Path
) -> None:
    import timm

    bundle = (
        grown(size=size, resize=resize) if size > 1 else dataclasses.replace(grown(), preparation=Preparation(1, 93))
    )
    preparation = dataclasses.replace(bundle.preparation, stretched=stretched)
    bundle, bundle_out = dataclasses.replace(bundle, preparation=preparation), tmp_path / "out"
    if size > 1:
        classgraft.export(bundle, format, bundle_out)
    else:
        bundle_out.mkdir()
        exporting._write_timm(bundle, bundle_out, {"model_type": "timm_wrapper"} if format == "hf" else {})
    picture = photo(tmp_path / "p.png", "cyan", side=200)
    Image.open(picture).resize((263, 200)).save(picture)
    ours = square(open_rgb(picture, "p"), preparation.canvas)[None]
    images = Images(ours, torch.zeros(1, dtype=torch.int64), bundle.classes, bundle.preparation)
    seen = images.view(torch.arange(1), torch.device("cpu"))
    if format == "timm":
        network = timm.create_model(f"local-dir:{bundle_out}")
        assert network.pretrained_cfg["label_names"] == list(bundle.classes)
        change = timm.data.create_transform(**timm.data.resolve_data_config(network.pretrained_cfg))
        theirs = change(Image.open(picture))[None]
    else:
        transformers = pytest.importorskip("transformers")
        config = transformers.AutoConfig.from_pretrained(bundle_out)
        assert tuple(config.id2label.values()) == bundle.classes
        processor = transformers.AutoImageProcessor.from_pretrained(bundle_out)
        theirs = processor(Image.open(picture), return_tensors="pt")["pixel_values"]
    assert theirs.shape == seen.shape
    assert (theirs - seen).abs().max() < 1e-5


@pytest.mark.parametrize("format", ["onnx", "torch-export"])
def test_names_and_preprocessing_travel_with_a_graph(format: str, bundle: Bundle, tmp_path: Path) -> None:
    classgraft.export(bundle, format, tmp_path / "out")
    beside = json.loads((tmp_path / "out/model.json").read_text("utf-8"))
    if format == "onnx":
        session = pytest.importorskip("onnxruntime").InferenceSession(tmp_path / "out/model.onnx")
        inside = session.get_modelmeta().custom_metadata_map["classgraft"]
        assert session.get_inputs()[0].shape[1:] == [3, 40, 40]
        assert isinstance(session.get_inputs()[0].shape[0], str)
    else:
        extra = {"model.json": ""}
        torch.export.load(tmp_path / "out/model.pt2", extra_files=extra)
        inside = extra["model.json"]
    assert json.loads(inside) == beside
    assert beside["classes"] == ["a", "b", "c", "日本", "e"]
    assert beside["preparation"]["mean"] == [0.5, 0.4, 0.3]
    assert (beside["preparation"]["resize_short_side"], beside["preparation"]["crop_centre"]) == (45, 40)


def changed(bundle: Bundle, kind: str) -> Bundle:
    """With a structure in the body, or a head that is no matrix."""
    if kind == "adapter":
        model = dataclasses.replace(bundle).model.grown(())
        adapter = adapted(model.body, "layer4", network_input(bundle, 1), seed=0)
        with torch.no_grad():
            list(adapter.beside.parameters())[-1].add_(0.01)
        return dataclasses.replace(bundle, model=model)
    width = bundle.model.head.parts[0].in_features
    generator = torch.Generator().manual_seed(0)
    means = torch.randn(5, width, generator=generator)
    rule = Mahalanobis(means, torch.randn(5, width, width, generator=generator) / width)
    return dataclasses.replace(bundle, model=bundle.model.headed([rule], bundle.classes))


@pytest.mark.parametrize("kind", ["adapter", "Mahalanobis"])
@pytest.mark.parametrize("format", FORMATS)
def test_other_bodies_and_heads_are_one_graph_but_no_timm_network(
    kind: str, format: str, bundle: Bundle, tmp_path: Path
) -> None:
    model = changed(bundle, kind)
    if format in ("timm", "hf"):
        with pytest.raises(InputError, match=r"cannot hold this model: .*; choose onnx or torch-export"):
            classgraft.export(model, format, tmp_path / "out")
        assert not list(tmp_path.iterdir())
        return
    classgraft.export(model, format, tmp_path / "out")
    images = network_input(bundle, 3)
    with torch.inference_mode():
        found = READERS[format](tmp_path / "out")(images)
    ours = logits(model, images)
    assert not torch.allclose(ours, logits(bundle, images))
    assert (found - ours).abs().max() < 1e-4 * max(1.0, float(ours.abs().max()))


def test_an_export_that_answers_otherwise_is_not_left_behind(
    bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = exporting._merged

    def without_bias(model: Classifier) -> Classifier:
        model = whole(model)
        with torch.no_grad():
            model.head.linear[0].bias.sub_(torch.arange(5.0))
        return model

    monkeypatch.setattr(exporting, "_merged", without_bias)
    with pytest.raises(InputError, match=r"is not the same model .* nothing was written"):
        classgraft.export(bundle, "torch-export", tmp_path / "out")
    assert not list(tmp_path.iterdir())


def test_parity_counts_what_differs(bundle: Bundle) -> None:
    images = probes(bundle.preparation, bundle.classes, 5)
    turned = exporting._compared(bundle, lambda x: logits(bundle, x).flip(1), images)
    ours = logits(bundle, images.view(torch.arange(5), torch.device("cpu"))).softmax(1)
    assert turned.difference == pytest.approx(float((ours - ours.flip(1)).abs().max()), rel=1e-4)
    assert turned.agreement == float((ours.argmax(1) == 2).double().mean())
    assert not turned.generated


def test_exporting_leaves_the_bundle_as_it_was(bundle: Bundle, tmp_path: Path) -> None:
    before = {name: value.clone() for name, value in bundle.model.state_dict().items()}
    classgraft.export(bundle, "torch-export", tmp_path / "out")
    assert all(torch.equal(value, before[name]) for name, value in bundle.model.state_dict().items())
    assert bundle.model.head.rows == (3, 2)


# -- the command ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def furnished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return furnish(tmp_path_factory.mktemp("furnished"))


@pytest.fixture
def place(furnished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(copied(furnished, tmp_path / "place"))
    return tmp_path / "place"


def test_the_command_says_what_it_compared_on(place: Path) -> None:
    ran = run("export", "grown", "--format", "torch-export", "--out", "x", "--images", "new")
    assert (ran.code, ran.err) == (0, ""), ran
    assert "on 6 images no probability differs by more than" in ran.out
    assert "100.0% have the same top class" in ran.out
    ran = run("export", "grown", "--format", "torch-export", "--out", "y")
    assert "32 images generated from noise" in ran.out


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--format", "tflite", "--out", "x"], "There is no format 'tflite'"),
        (["--format", "onxx", "--out", "x"], "Did you mean 'onnx'?"),
        (["--format", "timm", "--out", "x"], "cifar:resnet20, none of timm's"),
        (["--format", "hf", "--out", "x"], "cifar:resnet20, none of timm's"),
        (["--format", "onnx", "--out", "base"], "'base' is there already"),
        (["--format", "onnx", "--out", "names.txt"], "'names.txt' is there already"),
        (["--format", "torch-export", "--out", "x", "--images", "nowhere"], "'nowhere' does not exist"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_exports_that_cannot_be(words: list[str], says: str, place: Path) -> None:
    before = sorted(place.rglob("*"))
    ran = run("export", "grown", *words)
    assert (ran.code, ran.out) == (2, "")
    assert is_sentence(ran.err.rstrip("\n")), ran.err
    assert says in ran.err
    assert sorted(place.rglob("*")) == before


@pytest.mark.parametrize("format", exporting.NEEDS)
def test_a_package_that_is_missing_is_named(format: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporting, "find_spec", lambda name: None)
    ran = run("export", "grown", "--format", format, "--out", "x")
    assert ran.code == 2
    assert f"install classgraft[{format}]" in ran.err


def test_pictures_may_lie_in_folders_or_flat(place: Path) -> None:
    bundle = classgraft.load("base")
    assert len(classgraft.api.pictures(bundle, "new")) == 6
    assert len(classgraft.api.pictures(bundle, photos(place / "p", ["red"]) / "red")) == 3


FULL = """
import resource, signal, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_export import grown
import classgraft
bundle = grown("mobilenetv2_035")
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (3000, 3000))
for format in ("bundle", *sys.argv[3:]):
    out = Path(sys.argv[2], format)
    try:
        classgraft.save(bundle, out) if format == "bundle" else classgraft.export(bundle, format, out)
        print(format, "was written")
    except classgraft.InputError as error:
        print(format, out.exists(), "could not be written" in str(error))
"""


def test_a_write_that_really_fails_is_refused_in_a_sentence_and_leaves_nothing(tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    pytest.importorskip("onnxruntime")
    arguments = [str(Path(__file__).parent), str(tmp_path / "to"), *FORMATS]
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FULL, *arguments], capture_output=True, text=True, timeout=300
    )
    # exporters talk on standard output as well
    said = [line for line in ran.stdout.splitlines() if line.partition(" ")[0] in ("bundle", *FORMATS)]
    assert said == [f"{format} False True" for format in ("bundle", *FORMATS)], ran.stderr
    assert not any((tmp_path / "to").iterdir())


@pytest.mark.parametrize("format", ["onnx", "torch-export"])
def test_nearest_neighbours_are_one_graph(format: str, tmp_path: Path) -> None:
    bundle = grown()
    pixels = torch.from_numpy(np.random.default_rng(1).integers(0, 256, (6, 3, 45, 45), np.uint8))
    images = Images(pixels, torch.arange(6) % 2, ("x", "y"), bundle.preparation)
    old = Images(pixels, torch.arange(6) % 5, bundle.classes, bundle.preparation)
    near = classgraft.extend(bundle, images, method="knn", old_images=old)
    assert classgraft.export(near, format, tmp_path / "out").agreement == 1.0
    again = classgraft.load(classgraft.save(near, tmp_path / "b") or tmp_path / "b")
    assert classgraft.export(again, format, tmp_path / "again").agreement == 1.0
