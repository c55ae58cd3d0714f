"""Networks from words, and weights from files that are only ever read as tensors."""

from __future__ import annotations

import argparse
import json
import math
import pickle
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import timm
import torch
import torch.nn.functional as F
import torchvision
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from classgraft.data.decode import open_rgb, square
from classgraft.data.images import Images
from classgraft.errors import InputError
from classgraft.metrics.classification import evaluation
from classgraft.models import hugging_face
from classgraft.models.cifar_resnet import CifarResNet
from classgraft.models.preparation import Preparation
from classgraft.models.sources import CIFAR, Architecture, argument, load_weights, read_weights
from classgraft.training.answers import answers

STATE = {"fc.weight": torch.arange(6.0).view(2, 3), "fc.bias": torch.tensor([1.0, -1.0])}


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Several threads on busy cores wait for one another at every layer, a hundred times longer than they work."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def plain() -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(4, 2))


def same(one: dict[str, Tensor], other: dict[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


def saved(path: Path, content: object, form: str) -> Path:
    if form == "safetensors":
        path = path.with_suffix(".safetensors")
        save_file(content, path)
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == "zip")
    return path


# -- names ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ("cifar:resnet-20", r"no network 'cifar:resnet-20'\. Did you mean 'resnet20'\? Known: .*resnet56"),
        ("timm:mobilnetv2_100", r"timm has no network 'mobilnetv2_100'.*mobilenetv2_100"),
        ("timm:", "timm has no network ''"),
        ("resnet18", r"'resnet18' does not say where .*timm:NAME, torchvision:NAME, hf:ID-or-folder or cifar:NAME"),
        ("pickle:x", "'pickle:x' does not say where"),
    ],
)
def test_an_unknown_network_is_refused_and_the_nearest_named(source: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        Architecture(source).build(3)


@pytest.mark.parametrize(
    "source",
    [
        "timm:resnet18",
        "cifar:resnet20",
    ],
)
def test_an_argument_that_the_network_does_not_take_is_named(source: str) -> None:
    with pytest.raises(InputError, match="depht=3"):
        Architecture(source, {"depht": 3}).build(3)


def test_arguments_reach_the_network() -> None:
    network = Architecture("timm:vit_tiny_patch16_224", {"img_size": 32, "depth": 1}).build(4)
    assert network(torch.rand(2, 3, 32, 32)).shape == (2, 4)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("img_size=64", ("img_size", 64)),
        ("pad_type=same", ("pad_type", "same")),
        ("drop_rate=0.1", ("drop_rate", 0.1)),
        ("flag=true", ("flag", True)),
        ("shape=[1, 2]", ("shape", [1, 2])),
        ("name=a=b", ("name", "a=b")),
        ("empty=", ("empty", "")),
    ],
)
def test_an_argument_is_json_where_it_is_and_else_a_word(text: str, expected: tuple[str, Any]) -> None:
    assert argument(text) == expected


@pytest.mark.parametrize("text", ["img_size", "=3", ""])
def test_an_argument_without_a_key_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="key=value"):
        argument(text)


# -- preparation ---------------------------------------------------------------------------------------------------


def test_the_preparation_of_a_timm_network_is_its_own() -> None:
    found = Architecture("timm:mobilenetv2_100").preparation()
    assert found == Preparation(224, 256, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    assert Architecture("timm:vit_tiny_patch16_224").preparation().mean == (0.5, 0.5, 0.5)
    assert Architecture("cifar:resnet20").preparation() == Preparation(
        32, 32, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    )


@pytest.mark.parametrize(
    "name",
    [
        "mobilenetv2_100",
        "resnet18",
        "vit_tiny_patch16_224",
    ],
)
def test_the_short_side_is_what_timm_resizes_to(name: str) -> None:
    from timm.data import create_transform
    from timm.models import get_pretrained_cfg

    config = get_pretrained_cfg(name)
    resize = create_transform(config.input_size, crop_pct=config.crop_pct, interpolation="bicubic").transforms[0].size
    assert Architecture(f"timm:{name}").preparation().resize == resize


def test_the_preparation_of_a_torchvision_network_is_that_of_its_weights() -> None:
    resnet = Architecture("torchvision:resnet50")
    assert resnet.preparation() == Preparation(224, 232)
    assert resnet.preparation(weights=Path("resnet50-0676ba61.pth")) == Preparation(224, 256)
    assert Architecture("torchvision:inception_v3").preparation() == Preparation(299, 342)


HALF = ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))


@pytest.mark.parametrize(
    ("stated", "expected"),
    [
        ({"size": {"height": 32, "width": 32}, "image_mean": [0.4] * 3, "image_std": [0.2] * 3},
         Preparation(32, 32, (0.4,) * 3, (0.2,) * 3, stretched=True)),
        ({"size": {"shortest_edge": 256}, "crop_size": {"height": 224, "width": 224}, "do_center_crop": True},
         Preparation(224, 256, *HALF)),
        ({"size": {"shortest_edge": 224}, "crop_pct": 0.875}, Preparation(224, 256, *HALF)),
        ({"size": 64, "crop_size": 48, "do_center_crop": False}, Preparation(64, 64, *HALF)),
        ({"size": 64, "do_normalize": False}, Preparation(64, 64, (0.0,) * 3, (1.0,) * 3)),
        (None, Preparation(112, 128, *HALF)),
    ],
)  # fmt: skip
def test_the_preparation_of_a_hugging_face_model(tmp_path: Path, stated: Any, expected: Preparation) -> None:
    if stated:
        (tmp_path / "preprocessor_config.json").write_text(json.dumps(stated))
    assert hugging_face.preparation(str(tmp_path), {"image_size": 112}) == expected


@pytest.mark.parametrize(
    ("processor", "options"),
    [
        ("ViTImageProcessor", {"size": {"height": 48, "width": 48}, "resample": 3}),
        ("EfficientNetImageProcessor", {"size": {"height": 48, "width": 48}, "resample": 3, "do_center_crop": False}),
        ("ConvNextImageProcessor", {"size": {"shortest_edge": 48}, "crop_pct": 0.875, "resample": 3}),
        ("CLIPImageProcessor", {"size": {"shortest_edge": 56}, "crop_size": {"height": 48, "width": 48}}),
    ],
)
@pytest.mark.parametrize("size", [(90, 60), (61, 87), (70, 70)])
def test_a_picture_is_prepared_as_the_image_processor_prepares_it(
    processor: str, options: dict[str, Any], size: tuple[int, int], tmp_path: Path
) -> None:
    transformers = pytest.importorskip("transformers")
    made = getattr(transformers, processor)(**options)
    made.save_pretrained(tmp_path)
    across, down = Image.linear_gradient("L").rotate(90).resize(size), Image.linear_gradient("L").resize(size)
    picture = Image.merge("RGB", (across, down, across.point(lambda value: 255 - value)))
    theirs = made(picture, return_tensors="pt")["pixel_values"]
    found = hugging_face.preparation(str(tmp_path), {})
    images = Images(square(picture, found.canvas)[None], torch.zeros(1, dtype=torch.int64), ("a",), found)
    ours = images.view(torch.arange(1), torch.device("cpu"))
    assert ours.shape == theirs.shape
    assert (
        float((ours - theirs).abs().max()) < 0.15
    )  # theirs may lie a pixel beside; a crop for a stretch is 0.3 and more


def test_what_an_image_processor_does_beyond_is_refused(tmp_path: Path) -> None:
    transformers = pytest.importorskip("transformers")
    transformers.MobileViTImageProcessor(size={"shortest_edge": 48}).save_pretrained(tmp_path)
    with pytest.raises(InputError, match="do_flip_channel_order: True"):
        hugging_face.preparation(str(tmp_path), {})


def test_pictures_are_stretched_where_timm_stretches_them() -> None:
    assert Architecture("timm:convnext_base.fb_in22k_ft_in1k_384").preparation() == Preparation(
        384, 384, stretched=True
    )
    assert not Architecture("timm:resnet50.a1_in1k").preparation().stretched


def test_class_names_that_are_only_numbers_are_none() -> None:
    assert hugging_face.names({"id2label": {"1": "b", "0": "a"}}) == ("a", "b")
    assert hugging_face.names({"id2label": {0: "LABEL_0", 1: "LABEL_1"}}) == ()
    assert hugging_face.names({}) == ()


# -- weight files --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["safetensors", "zip", "legacy"])
def test_weights_come_back_as_they_were_saved(tmp_path: Path, form: str) -> None:
    assert same(read_weights(saved(tmp_path / "w.pth", STATE, form)), STATE)


@pytest.mark.parametrize("key", ["state_dict", "model", "model_state_dict", "net", "model_state", "ema", "model_ema"])
@pytest.mark.parametrize("prefix", ["", "module.", "_orig_mod.", "module._orig_mod.", "_orig_mod.module."])
def test_a_nested_dictionary_is_unwrapped_and_a_module_prefix_taken_off(tmp_path: Path, key: str, prefix: str) -> None:
    content = {"epoch": 3, key: {prefix + name: value for name, value in STATE.items()}, "best": 0.9}
    assert same(read_weights(saved(tmp_path / "w.pth", content, "zip")), STATE)


OTHER = {name: value + 1 for name, value in STATE.items()}


@pytest.mark.parametrize(
    ("plain", "averaged"),
    [("state_dict", "state_dict_ema"), ("model", "model_ema"), ("model", "ema"), ("params", "params_ema")],
)
def test_averaged_weights_come_first_as_with_timm_and_it_is_said(tmp_path: Path, plain: str, averaged: str) -> None:
    said: list[str] = []
    path = saved(tmp_path / "w.pth", {plain: STATE, averaged: OTHER, "epoch": 3}, "zip")
    assert same(read_weights(path, said.append), OTHER)
    assert said == [
        f"{path} holds two sets of weights; those under '{averaged}' are taken, those under '{plain}' are not."
    ]


def test_weights_are_found_however_deep_and_only_one_set_is_nothing_to_say(tmp_path: Path) -> None:
    said: list[str] = []
    for nested in (
        {"model": {"state_dict": STATE, "step": 3}, "optimizer": {"state": {}}},
        {"net": {"model": {"ema": STATE}}, "epoch": 3},
    ):
        assert same(read_weights(saved(tmp_path / "w.th", nested, "legacy"), said.append), STATE)
    assert not said


@pytest.mark.parametrize("averaged", [{"fc.bias": STATE["fc.bias"] + 1}, {"decay": 0.99, "shadow": OTHER}, {}])
def test_an_average_that_is_not_the_whole_network_gives_way(tmp_path: Path, averaged: dict[str, Any]) -> None:
    assert same(read_weights(saved(tmp_path / "w.th", {"ema": averaged, "model": STATE}, "zip")), STATE)


def test_a_dictionary_that_holds_itself_is_refused(tmp_path: Path) -> None:
    content: dict[str, Any] = {}
    content["model"] = content
    with pytest.raises(InputError, match="holds no dictionary of tensors"):
        read_weights(saved(tmp_path / "w.pt", content, "zip"))


def test_the_options_of_timms_training_script_are_no_obstacle(tmp_path: Path) -> None:
    content = {"state_dict": STATE, "args": argparse.Namespace(model="resnet18", lr=0.1, mean=[0.5], opt_betas=None)}
    assert same(read_weights(saved(tmp_path / "w.pth", content, "zip")), STATE)


def test_a_layer_called_model_is_no_nest(tmp_path: Path) -> None:
    assert same(read_weights(saved(tmp_path / "w.pt", {"model": STATE["fc.bias"]}, "zip")), {"model": STATE["fc.bias"]})


def test_a_module_prefix_that_only_some_keys_have_stays(tmp_path: Path) -> None:
    content = {"module.fc.weight": STATE["fc.weight"], "fc.bias": STATE["fc.bias"]}
    assert same(read_weights(saved(tmp_path / "w.pth", content, "zip")), content)


class Trap:
    """Unpickled by an ordinary reader, it writes a file."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.write_text, (self.path, "the code ran"))


@pytest.mark.parametrize("form", ["zip", "legacy", "plain pickle"])
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_code_in_a_weights_file_is_refused_and_does_not_run(tmp_path: Path, form: str, suffix: str) -> None:
    path, witness = tmp_path / f"w{suffix}", tmp_path / "witness"
    content = {**STATE, "trap": Trap(witness)}
    if form == "plain pickle":
        path.write_bytes(pickle.dumps(content, protocol=2))
    else:
        torch.save(content, path, _use_new_zipfile_serialization=form == "zip")
    with pytest.raises(InputError, match="w"):
        read_weights(path)
    assert not witness.exists()
    call, given = Trap(witness).__reduce__()
    call(*given)
    assert witness.exists()  # so it is a trap


@pytest.mark.parametrize("content", [nn.Linear(2, 2), {"model": nn.Linear(2, 2)}], ids=["module", "nested"])
def test_a_refused_pickle_is_no_advice_to_read_it_unsafely(tmp_path: Path, content: object) -> None:
    with pytest.raises(InputError) as error:
        read_weights(saved(tmp_path / "w.pth", content, "zip"))
    assert str(error.value).isprintable()
    for words in ("trust", "weights_only", "Re-running"):
        assert words not in str(error.value)


@pytest.mark.parametrize(
    "form",
    [
        "safetensors",
        "zip",
        "legacy",
    ],
)
def test_a_weights_file_cut_short_anywhere_is_refused_by_name(tmp_path: Path, form: str) -> None:
    path = saved(tmp_path / "w.pth", STATE, form)
    whole = path.read_bytes()
    for length in {0, 1, 7, 8, 9, *range(0, len(whole), max(1, len(whole) // 40)), len(whole) - 1}:
        path.write_bytes(whole[:length])
        with pytest.raises(InputError, match=r"holds no|cannot be read") as error:
            read_weights(path)
        assert str(path) in str(error.value)


@pytest.mark.parametrize(
    "content", [{}, [STATE["fc.bias"]], {"fc.bias": 1.0}, {"state_dict": {}}, STATE["fc.bias"]], ids=repr
)
def test_a_file_without_a_dictionary_of_tensors_is_refused(tmp_path: Path, content: object) -> None:
    with pytest.raises(InputError, match="holds no dictionary of tensors"):
        read_weights(saved(tmp_path / "w.pth", content, "zip"))


def test_a_weights_file_that_is_not_there_is_refused_by_name(tmp_path: Path) -> None:
    for path in (tmp_path / "nowhere.safetensors", tmp_path):
        with pytest.raises(InputError, match="no weights file") as error:
            read_weights(path)
        assert str(path) in str(error.value)


# -- keys that others gave ----------------------------------------------------------------------------------------


def lightning(network: nn.Module) -> nn.Module:
    """A LightningModule, as far as its keys go."""
    return nn.ModuleDict({"model": network})


def compiled(network: nn.Module) -> nn.Module:
    """By torch.compile, likewise, which would take seconds to import what it never uses here."""
    return nn.ModuleDict({"_orig_mod": network})


@pytest.mark.parametrize(
    "wrappers",
    [
        (lightning,),
        (AveragedModel,),
        (compiled, lightning),
        (AveragedModel, compiled),
        (compiled, AveragedModel),
        (nn.DataParallel, AveragedModel, lightning),
    ],
)
def test_what_wrappers_put_before_every_key_is_taken_off(tmp_path: Path, wrappers: tuple[Any, ...]) -> None:
    architecture = Architecture("cifar:resnet8")
    wrapped = network = architecture.build(3)
    for wrapper in wrappers:
        wrapped = wrapper(wrapped)
    content = {"state_dict": wrapped.state_dict(), "hyper_parameters": {"lr": 0.1}, "optimizer_states": [{}]}
    weights = architecture.needed(read_weights(saved(tmp_path / "w.ckpt", content, "zip")))
    assert same(weights, dict(network.state_dict()))


def test_the_keys_of_a_network_from_python_are_its_own() -> None:
    state = AveragedModel(lightning(plain())).state_dict()
    assert Architecture("code:AveragedModel").needed(state) is state


def test_old_keys_of_torchvisions_densenets_and_transformers_are_renamed_as_torchvision_does() -> None:
    dense = torchvision.models.DenseNet(4, (2, 1), 8, num_classes=3)
    state = {key: value for key, value in dense.state_dict().items() if not key.endswith("num_batches_tracked")}
    old = {re.sub(r"(\.denselayer\d+\.[a-z]+)([12]\.)", r"\1.\2", key): value for key, value in state.items()}
    assert "features.denseblock1.denselayer1.norm.1.weight" in old  # as in the published files
    assert same(Architecture("torchvision:densenet121").needed(old), state)

    transformer = torchvision.models.VisionTransformer(8, 4, 2, 2, 4, 8, num_classes=3)
    state = transformer.state_dict()
    old = {
        key.replace("mlp.0.", "mlp.linear_1.").replace("mlp.3.", "mlp.linear_2."): value for key, value in state.items()
    }
    assert old.keys() != state.keys()
    transformer.load_state_dict(old)  # torchvision takes them
    assert same(Architecture("torchvision:vit_b_16").needed(old), dict(state))


SWIN = {"img_size": 56, "depths": [1, 2], "num_heads": [1, 2], "embed_dim": 8}
NARROW = {"depths": [1, 1, 1, 1], "dims": [8, 16, 24, 32], "conv_mlp": False}
SHORT = {"img_size": 32, "depth": 1}
THEIRS = {
    "swin_tiny_patch4_window7_224": (
        SWIN,
        [(r"layers\.1\.downsample", "layers.0.downsample"), (r"^head\.fc", "head")],
        {
            "layers.0.blocks.0.attn.relative_position_index": torch.zeros(49, 49, dtype=torch.int64),
            "layers.0.blocks.1.attn_mask": torch.zeros(4, 49, 49),
        },
    ),
    "convnext_atto": (
        NARROW,
        [
            (r"head\.norm", "norm"),
            (r"head\.fc", "head"),
            ("conv_dw", "dwconv"),
            (r"mlp\.fc", "pwconv"),
            (r"stages\.(\d)\.downsample", r"downsample_layers.\1"),
            (r"stages\.(\d)\.blocks", r"stages.\1"),
            (r"stem\.", "downsample_layers.0."),
        ],
        {},
    ),
    "deit3_small_patch16_224": (SHORT, [(r"ls(\d)\.gamma", r"gamma_\1")], {}),
}


@pytest.mark.parametrize("name", THEIRS)
def test_published_keys_are_read_as_timms_own_filter_reads_them(name: str) -> None:
    arguments, names, more = THEIRS[name]
    architecture = Architecture(f"timm:{name}", arguments)
    state = dict(architecture.build(3).state_dict())
    theirs = {**state}
    for ours, their in names:
        theirs = {re.sub(ours, their, key): value for key, value in theirs.items()}
    assert theirs.keys() != state.keys()
    assert same(architecture.needed({**theirs, **more}), state)
    assert architecture.needed(state) is state
    unknown = {**theirs, "extra.weight": torch.zeros(1)}
    assert architecture.needed(unknown) is unknown


def test_a_network_that_cannot_be_made_without_memory_is_made_with(monkeypatch: pytest.MonkeyPatch) -> None:
    make = timm.create_model

    def reading(*words: Any, **options: Any) -> nn.Module:
        network: nn.Module = make(*words, **options)
        next(network.parameters()).sum().item()
        return network

    architecture = Architecture("timm:vit_tiny_patch16_224", SHORT)
    state = dict(architecture.build(3).state_dict())
    monkeypatch.setattr(timm, "create_model", reading)
    assert architecture.needed(state) is state


def test_a_shape_that_timm_itself_changes_is_changed() -> None:
    architecture = Architecture("timm:vit_tiny_patch16_224", SHORT)
    state = dict(architecture.build(3).state_dict())
    flat = {**state, "patch_embed.proj.weight": state["patch_embed.proj.weight"].flatten(1)}  # of a linear layer
    assert same(architecture.needed(flat), state)


def test_weights_of_another_image_size_are_refused_not_resized() -> None:
    large, small = (Architecture("timm:vit_tiny_patch16_224", {**SHORT, "img_size": size}) for size in (48, 32))
    with pytest.raises(InputError, match=r"another size of image \(pos_embed would have to be resized\).*img_size"):
        small.needed(dict(large.build(3).state_dict()))


def test_timms_own_weights_come_back_as_they_are(data: Path) -> None:
    weights = read_weights(data / "weights" / "mobilenetv2_100-imagenet.safetensors")
    assert Architecture("timm:mobilenetv2_100").needed(weights) is weights


# -- filling a network ---------------------------------------------------------------------------------------------


def test_weights_that_fit_fill_the_network_even_without_batch_counts() -> None:
    weights = {k: torch.full_like(v, 0.5) for k, v in plain().state_dict().items() if not k.endswith("batches_tracked")}
    network = plain()
    load_weights(network, weights, "it")
    assert all(bool((network.state_dict()[key] == 0.5).all()) for key in weights)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"0.bias": None}, r"1 tensors are missing in the file \(0\.bias\)"),
        ({"extra": torch.zeros(1)}, r"1 tensors are not in the network \(extra\)"),
        ({"3.weight": torch.zeros(7, 4)}, r"3\.weight is \(7, 4\) in the file and \(2, 4\) in the network"),
        (
            {"3.weight": None, "fc.weight": torch.zeros(2, 4)},
            r"missing in the file \(3\.weight\).*network \(fc\.weight\)",
        ),
        ({"1.running_mean": None}, r"missing in the file \(1\.running_mean\)"),
        ({str(k): torch.zeros(1) for k in range(10, 15)}, r"5 tensors .*\(10, 11, 12 and 2 more\)"),
        (
            {"3.weight": torch.zeros(7, 4), "3.bias": torch.zeros(7)},
            r"as many class names as the file has rows for, 7\.",
        ),
        (
            dict.fromkeys(plain().state_dict()) | {"fc.weight": torch.zeros(1)},
            r"8 tensors are missing .*0\.weight.*fc\.weight.*no name is in both, so write the source",
        ),
    ],
)
def test_weights_that_do_not_fit_are_named_and_change_nothing(change: dict[str, Tensor | None], words: str) -> None:
    network = plain()
    before = {key: value.clone() for key, value in network.state_dict().items()}
    weights = {key: value for key, value in ({**plain().state_dict(), **change}).items() if value is not None}
    with pytest.raises(InputError, match=f"do not fit this network.*{words}"):
        load_weights(network, weights, "this network")
    assert same(network.state_dict(), before)


# -- the CIFAR networks --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("resnet8", 75_290),
        ("resnet14", 172_506),
        ("resnet20", 269_722),
        ("resnet32", 464_154),
        ("resnet44", 658_586),
        ("resnet56", 853_018),
    ],
)
def test_cifar_networks_have_the_published_number_of_parameters(name: str, parameters: int) -> None:
    assert sum(p.numel() for p in Architecture(f"cifar:{name}").build(10).parameters()) == parameters


def test_resnet18_for_cifar_has_the_parameters_of_its_layers() -> None:
    def block(inside: int, outside: int) -> int:
        projection = inside * outside + 2 * outside if inside != outside else 0
        return 9 * inside * outside + 9 * outside**2 + 4 * outside + projection

    widths = [(64, 64), (64, 64), (64, 128), (128, 128), (128, 256), (256, 256), (256, 512), (512, 512)]
    expected = 27 * 64 + 128 + sum(block(*pair) for pair in widths) + 513 * 10
    network = Architecture("cifar:resnet18").build(10)
    assert sum(p.numel() for p in network.parameters()) == expected


@pytest.mark.parametrize(
    ("name", "layers"),
    [("resnet8", 8), ("resnet14", 14), ("resnet20", 20), ("resnet32", 32), ("resnet44", 44), ("resnet56", 56)],
)
def test_the_number_in_a_networks_name_counts_its_layers_with_weights(name: str, layers: int) -> None:
    network = Architecture(f"cifar:{name}").build(10)
    assert sum(isinstance(module, nn.Conv2d | nn.Linear) for module in network.modules()) == layers


def by_the_paper(weights: dict[str, Tensor], images: Tensor) -> Tensor:
    """ResNet-20 (section 4.2): a stem, three stages of three blocks, option A where the sides are halved."""

    def normed(x: Tensor, key: str) -> Tensor:
        mean, variance, scale, shift = (
            weights[f"{key}.{part}"].view(-1, 1, 1) for part in ("running_mean", "running_var", "weight", "bias")
        )
        return (x - mean) / (variance + 1e-5).sqrt() * scale + shift

    def convolved(x: Tensor, key: str, stride: int = 1) -> Tensor:
        return F.conv2d(x, weights[f"{key}.weight"], stride=stride, padding=1)

    x = normed(convolved(images, "conv1"), "bn1").relu()
    for stage in (1, 2, 3):
        for block in range(3):
            key, stride = f"layer{stage}.{block}", 2 if stage > 1 and block == 0 else 1
            y = normed(convolved(x, f"{key}.conv1", stride), f"{key}.bn1").relu()
            y = normed(convolved(y, f"{key}.conv2"), f"{key}.bn2")
            if stride == 2:
                nothing = torch.zeros(len(x), x.shape[1] // 2, *y.shape[2:])
                x = torch.cat([nothing, x[:, :, ::2, ::2], nothing], 1)
            x = (x + y).relu()
    return x.mean((2, 3)) @ weights["linear.weight"].T + weights["linear.bias"]


@torch.no_grad()
def test_resnet20_computes_what_the_paper_says() -> None:
    network, generator = Architecture("cifar:resnet20").build(10).eval(), torch.Generator().manual_seed(0)
    for key, value in network.state_dict().items():
        if "bn" in key and not key.endswith("tracked"):
            value.uniform_(0.5, 1.5, generator=generator)
        elif "bn" not in key:
            value.normal_(std=0.1, generator=generator)
    images = torch.randn(3, 3, 32, 32, generator=generator)
    torch.testing.assert_close(network(images), by_the_paper(network.state_dict(), images), atol=1e-4, rtol=1e-4)


@torch.no_grad()
def test_option_a_shortcuts_take_every_second_place_and_pad_channels_on_both_sides() -> None:
    network = Architecture("cifar:resnet20").build(10).eval()
    block = network.layer2[0]
    for parameter in block.parameters():
        parameter.zero_()
    images = torch.rand(2, 16, 8, 8)
    expected = torch.zeros(2, 32, 4, 4)
    expected[:, 8:24] = images[:, :, ::2, ::2]
    assert torch.equal(block(images), expected)


def test_cifar_networks_halve_the_sides_twice_and_average() -> None:
    network = Architecture("cifar:resnet20").build(7).eval()
    assert isinstance(network, CifarResNet)
    assert network.num_features == 64
    sides = []
    for stage in (network.layer1, network.layer2, network.layer3):
        stage.register_forward_hook(lambda module, given, result: sides.append(tuple(result.shape[1:])))
    assert network(torch.rand(2, 3, 32, 32)).shape == (2, 7)
    assert sides == [(16, 32, 32), (32, 16, 16), (64, 8, 8)]


@pytest.fixture(scope="module")
def cifar10(data: Path) -> Images:
    """Every fifth of the 2,000 test images: 40 of each class."""
    import pyarrow.parquet as pq

    table = pq.read_table(data / "cifar10" / "test.parquet").take(list(range(0, 2000, 5)))
    cells = table["image"].to_pylist()
    pixels = torch.stack([square(open_rgb(cell["bytes"], str(i)), 32) for i, cell in enumerate(cells)])
    labels = torch.tensor(table["label"].to_pylist())
    assert torch.bincount(labels).tolist() == [40] * 10
    return Images(pixels, labels, tuple(map(str, range(10))), CIFAR)


@pytest.mark.parametrize(
    ("name", "file", "accuracy"),
    [("resnet20", "resnet20-12fca82f.th", 0.81), ("resnet56", "resnet56-4bfd9763.th", 0.83)],
)
def test_published_weights_load_and_are_as_right_as_they_should_be(
    data: Path, cifar10: Images, name: str, file: str, accuracy: float
) -> None:
    network = Architecture(f"cifar:{name}").build(10)
    load_weights(network, read_weights(data / "weights" / file), name)
    found = evaluation(answers(network, cifar10), cifar10.labels, cifar10.classes)
    all_right = found.accuracy()
    assert all_right is not None
    assert math.isclose(all_right, accuracy, abs_tol=0.05), all_right
