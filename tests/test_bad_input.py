"""Bad input: exit code 2, one sentence that names the thing, no traceback, and nothing that was there is changed."""

from __future__ import annotations

import json
import os
import pickle
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from outside import NEW, OLD, Tiny, contents, copied, done, furnish, is_sentence, photo, photos, run, state, table
from safetensors.torch import save_file
from torch import nn

import classgraft
from classgraft import Images, InputError, Preparation, looking
from classgraft.data.sources import open_source


@pytest.fixture(scope="module")
def furnished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return furnish(tmp_path_factory.mktemp("furnished"))


@pytest.fixture
def place(furnished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with all that a newcomer has; the commands run inside."""
    monkeypatch.chdir(copied(furnished, tmp_path / "place"))
    return tmp_path / "place"


def refused(*words: object, says: str, warnings: int = 0) -> None:
    """A command in the working directory that must be refused with these words, and change nothing there."""
    before = contents(Path.cwd())
    ran = run(*words)
    *warned, last = ran.err.splitlines()
    assert ran.code == 2, ran
    assert ran.out == ""
    assert is_sentence(last), ran.err
    assert len(warned) == warnings, ran.err
    assert all(line.startswith("warning: ") for line in warned)
    assert says in last, last
    assert contents(Path.cwd()) == before


def refused_extension(*words: object, says: str, photos: object = "new", bundle: object = "base") -> None:
    method = () if "--method" in words else ("--method", "imprint")
    refused("extend", bundle, photos, "--out", "x", *method, *words, says=says)


def refused_import(*words: object, says: str, source: str = "cifar:resnet20", **files: object) -> None:
    weights, classes = files.get("weights", "w.safetensors"), files.get("classes", "names.txt")
    refused("import", source, "--weights", weights, "--classes", classes, "--out", "x", *words, says=says)


# -- the command's own words ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["extned"], "'extned'"),
        (["extend", "base", "new"], "'--out'"),
        (["extend", "base"], "'photos'"),
        (["extend", "base", "new", "--out", "x", "--shots", "many"], "'--shots'"),
        (["extend", "base", "new", "--out", "x", "--seed", "-1"], "'--seed'"),
        (["extend", "base", "new", "--out", "x", "--seed", str(2**32)], "'--seed'"),
        (["extend", "base", "new", "--out", "x", "--methud", "glne"], "--methud"),
        (["predict", "base", "old", "--top", "0"], "'--top'"),
        (["predict", "base"], "'files'"),
        (["import", "cifar:resnet20", "--out", "x"], "The class names are missing"),
        (
            ["import", "cifar:resnet20", "--classes", "names.txt", "--out", "x"],
            "The weights of cifar:resnet20 are missing",
        ),
        (["rename", "grown", "red"], "'NEW'"),
        (["rename", "grown", "red", "blue"], "already has the class 'blue'"),
        (["merge", "grown", "red", "redd"], "no class 'redd'"),
        (["merge", "grown", "red", "blue", "--name", "green"], "already has the class 'green'"),
        (["demo", "--seed", "x"], "'--seed'"),
        (["demo", "--seed", "-1"], "'--seed'"),
        (["undo"], "'BUNDLE'"),
        (["--version2"], "--version2"),
    ],
    ids=" ".join,
)
def test_words_that_no_command_takes(words: list[str], says: str, place: Path) -> None:
    refused(*words, says=says)


# -- photos --------------------------------------------------------------------------------------------------------


def test_the_first_corrupt_image_with_strict(place: Path) -> None:
    (place / "new/pink/1.png").write_bytes((place / "new/pink/1.png").read_bytes()[:99])
    refused_extension("--strict", says="'pink/1.png'")
    refused("evaluate", "grown", "new", "--strict", says="'pink/1.png'")
    refused("predict", "grown", "new", "--strict", says="pink/1.png'")


@pytest.mark.parametrize("content", [b"", b"GIF89a", b"no image at all", b"\x89PNG\r\n\x1a\n"])
def test_a_class_left_without_a_usable_image(content: bytes, place: Path) -> None:
    for file in (place / "new/cyan").iterdir():
        file.write_bytes(content)
    refused_extension(says="'cyan' has no image left")
    refused("evaluate", "grown", "new", says="'cyan' has no image left", warnings=1)


def test_no_usable_image_at_all(place: Path) -> None:
    for file in place.glob("new/*/*"):
        file.write_bytes(b"x")
    refused("evaluate", "grown", "new", says="none of the 6 images can be used")
    refused("predict", "grown", "new", says="none of the 6 images can be used")


def test_more_images_than_are_read_at_a_time_none_of_them_usable(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("classgraft.looking.decoded.__defaults__", (4,))
    monkeypatch.setattr("classgraft.api.chunks.__defaults__", (False, False, print, 4))
    for file in place.glob("new/cyan/*"):
        file.write_bytes(b"x")
    ran = run("predict", "grown", "new")  # a part of four of which one can be used, and a part of two
    assert (ran.code, len(ran.out.splitlines()), "3 corrupt images skipped" in ran.err) == (0, 3, True)
    refused("evaluate", "grown", "new", says="'cyan' has no image left", warnings=1)
    for file in place.glob("new/*/*"):
        file.write_bytes(b"x")
    refused("predict", "grown", "new", says="6 images can be used")
    refused("evaluate", "grown", "new", says="6 images can be used")


def test_an_empty_class_folder(place: Path) -> None:
    (place / "new/nothing").mkdir()
    refused_extension(says="'nothing' is empty")
    refused("evaluate", "grown", "new", says="'nothing' is empty")


def test_a_class_folder_of_other_files(place: Path) -> None:
    (place / "new/words").mkdir()
    (place / "new/words/a.txt").write_text("hello")
    refused_extension(says="'words' is empty")
    refused("predict", "base", "new/words", says="holds no image but 1 other files")


@pytest.mark.parametrize(
    ("photos", "says"),
    [
        ("nowhere", "'nowhere' does not exist"),
        ("hf:nowhere/at/all", "hf:nowhere/at/all cannot be opened"),
        ("torchvision:MNIST", "torchvision:MNIST needs the folder of its files"),
        ("names.txt", "'names.txt' is no image source"),
        ("new/cyan/0.png", "'new/cyan/0.png' is no image source"),
        ("new/cyan", "'new/cyan' holds no class"),
        ("base", "'base' holds no class"),
        ("n" * 300, "File name too long"),
    ],
)
def test_photos_that_are_none(photos: str, says: str, place: Path) -> None:
    refused_extension(photos=photos, says=says)
    refused("evaluate", "base", photos, says=says)
    refused("report", "grown", photos, says=says)


def test_pictures_that_are_none(place: Path) -> None:
    refused("predict", "base", "nowhere.jpg", says="'nowhere.jpg' does not exist")
    refused("predict", "base", "names.txt", says="'names.txt'")


def test_a_class_that_is_there_already(place: Path) -> None:
    refused_extension(bundle="grown", says="already has the class 'cyan' and 1 more")
    photo(place / "again/red/0.png", "red")
    refused_extension(photos="again", says="already has the class 'red'; rename")


@pytest.mark.parametrize("name", [" ", "a\nb", "tab\there", "bad\x1b[31m"])
def test_folder_names_that_name_no_class(name: str, place: Path) -> None:
    photo(place / "odd" / name / "0.png", "cyan")
    refused_extension(photos="odd", says="the folders in 'odd'")


def test_folder_names_that_are_no_text(place: Path) -> None:
    photo(place / "odd/a/0.png", "cyan")
    os.rename("odd/a", b"odd/\xff\xfe")
    ran = run("extend", "base", "odd", "--out", "x")
    assert (ran.code, is_sentence(ran.err.rstrip("\n"))) == (2, True)


def test_two_folders_of_one_class(place: Path) -> None:
    photo(place / "odd/caf\u00e9/0.png", "cyan")
    photo(place / "odd/cafe\u0301/0.png", "cyan")
    refused_extension(photos="odd", says="two folders for class 'caf\u00e9'")


@pytest.mark.parametrize(
    ("names", "says"),
    [(["a", "a"], "'a' stands at"), (["a", ""], "is empty"), (["a"], "has the label 1"), (["red", "x"], "'red'")],
)
def test_tables_whose_names_do_not_do(names: list[str], says: str, place: Path) -> None:
    refused_extension(photos=table(place / "t.parquet", names, NEW), says=says)


@pytest.mark.parametrize("content", [b"", b"PAR1", b"hello", b"PAR1" * 50])
def test_tables_that_are_none(content: bytes, place: Path) -> None:
    (place / "t.parquet").write_bytes(content)
    refused_extension(photos="t.parquet", says="'t.parquet' is not a readable parquet file")


def test_a_link_that_leads_out_of_the_folder(place: Path) -> None:
    (place / "new/secret").symlink_to(place / "old/red")
    refused_extension(says="is a link that leads out of")


def test_images_of_classes_that_the_model_lacks(place: Path) -> None:
    refused("evaluate", "base", "new", says="2 of the classes of these images: 'cyan', 'pink'")
    refused("evaluate", "base", "new", "--skip-unknown", says="No image is left", warnings=1)
    photos(place / "grey", ["grey"])
    refused(
        "report",
        "grown",
        "old",
        "grey",
        says="'grey'; extend it by them first, or leave those images out (with --skip-",
    )
    refused("extend", "base", "new", "--out", "x", "--method", "joint", "--old-images", "grey", says="'grey'")


# -- methods and settings ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--method", "glme"], "Did you mean 'glne'? Known: "),
        (["--method", ""], "no method ''"),
        (["--method", "plain"], "no method 'plain' to extend with"),
        (["--method", "joint"], "joint training needs the old images; give them with --old-images"),
        (["--set", "view=2"], "Did you mean 'views'?"),
        (["--set", "views"], "'views' is not of the form key=value"),
        (["--set", "=2"], "'=2' is not of the form key=value"),
        *[
            (["--set", f"views={value}"], "views of imprint is")
            for value in ("", "0", "-1", "1e3", "2.5", "true", "[1]")
        ],
        *[(["--set", f"seed={value}"], "seed of imprint is") for value in ("x", "null", "-1", 2**32, '"1"')],
        (["--method", "finetune", "--set", "optimiser=adam"], "optimiser of finetune cannot be 'adam'. Did you mean"),
        (["--method", "finetune", "--set", "milestones=0.5"], "milestones of finetune is a list"),
        (["--method", "finetune", "--set", 'milestones=["late"]'], "milestones of finetune is float, not 'late'"),
        (["--method", "finetune", "--set", "augment=crop"], "no augmentation 'crop'"),
        (["--method", "finetune", "--set", "batch_size=0"], "batch_size of finetune is 0; it is 1 at least"),
        (["--method", "finetune", "--set", "epochs=-1"], "epochs of finetune is -1"),
        (["--method", "finetune", "--set", "recipe=fast"], "recipe of finetune"),
        *[
            (["--method", "finetune", "--set", f"lr={v}"], "lr of finetune is")
            for v in ("-1", "NaN", "Infinity", "high")
        ],
        (["--method", "finetune", "--set", "momentum=2"], "momentum of finetune is 2.0; it is 0 at least, 1 at most"),
        (["--method", "joint", "--set", "balanced=1"], "balanced of joint is bool, not 1"),
        *[(["--method", "glne", "--set", f"prior={v}"], "prior of glne is") for v in ("-1", "NaN", "Infinity", "true")],
        (["--method", "glne", "--set", "confidence=1.5"], "confidence of glne is 1.5"),
        (["--method", "glne", "--set", "samples=-1"], "samples of glne is -1"),
        (["--shots", "0"], "--shots"),
        (["--shots", "-3"], "--shots"),
    ],
    ids=lambda value: " ".join(map(str, value)) if isinstance(value, list) else "",
)
def test_methods_and_settings_that_do_not_exist_or_fit(words: list[str], says: str, place: Path) -> None:
    refused_extension(*words, says=says)


# -- models --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("cifar:resnet21", "no network 'cifar:resnet21'. Did you mean"),
        ("cifar:", "no network 'cifar:'"),
        ("timm:resnet81", "timm has no network 'resnet81'. The nearest"),
        ("timm:", "timm has no network ''"),
        ("timm:hf-hub:someone/net", "timm has no network 'hf-hub:someone/net'"),
        ("timm:../net", "timm has no network '../net'"),
        ("resnet18", "'resnet18' does not say where the network comes from"),
        ("hf:", "'hf:' does not say which model"),
        ("hf:old", "hf:old cannot be used"),
        ("hf:/nowhere/vit", "hf:/nowhere/vit cannot be used"),
        ("torchvision:resnet19", "torchvision has no classifier 'resnet19'. Did you mean 'resnet18'?"),
        ("torchvision:fcn_resnet50", "torchvision has no classifier 'fcn_resnet50'"),
        ("", "'' does not say"),
    ],
)
def test_unknown_networks(source: str, says: str, place: Path) -> None:
    refused_import(source=source, says=says)


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (["--arch-arg", "depth=3"], "cifar:resnet20 takes no arguments, but was given depth=3"),
        (["--arch-arg", "depth"], "'depth' is not of the form key=value"),
        (["--head", "fc"], "'fc'"),
        (["--head", "conv1"], "'conv1' is Conv2d, not a linear layer"),
        (["--size", "0"], "size is 0"),
        (["--size", "-1"], "size is -1"),
        (["--size", "1000000"], "size is 1000000"),
        (["--resize", "0"], "0 pixels"),
        (["--size", "32", "--resize", "10"], "10 pixels"),
        (["--mean", "a", "b", "c"], "'--mean'"),
        (["--mean", "0.5", "0.5"], "'--mean'"),
        (["--mean", "nan", "0", "0"], "nan"),
        (["--std", "0", "1", "1"], "std above 0"),
        (["--std", "-1", "1", "1"], "std above 0"),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_arguments_that_do_not_fit_the_network(words: list[str], says: str, place: Path) -> None:
    refused_import(*words, says=says)


@pytest.mark.parametrize(
    ("argument", "says"),
    [
        ("depht=3", "depht=3"),
        ("num_classes=7", "'num_classes' is no argument of the network"),
        ("pretrained=true", "'pretrained' is no argument of the network"),
        ("checkpoint_path=w.pth", "'checkpoint_path' is no argument of the network"),
        ("act_layer=3", "act_layer=3"),
        ("in_chans=1", "fails on RGB images"),
    ],
)
def test_arguments_that_timm_does_not_take(argument: str, says: str, place: Path) -> None:
    import timm

    network = timm.create_model("mobilenetv2_035", num_classes=3, in_chans=1 if argument == "in_chans=1" else 3)
    save_file(network.state_dict(), place / "t.safetensors")
    refused_import("--arch-arg", argument, source="timm:mobilenetv2_035", weights="t.safetensors", says=says)


@pytest.mark.parametrize(
    ("argument", "says"),
    [
        ("depht=3", "depht=3"),
        ("weights=DEFAULT", "'weights' is no argument of the network"),
        ("num_classes=7", "'num_classes' is no argument of the network"),
    ],
)
def test_arguments_that_torchvision_does_not_take(argument: str, says: str, place: Path) -> None:
    refused_import("--arch-arg", argument, source="torchvision:squeezenet1_1", says=says)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"model_type": "nothing"}, "cannot be used"),
        ({"model_type": "bert"}, "bert, which is no image classifier"),
        ({"auto_map": {"AutoModelForImageClassification": "code.Trap"}, "model_type": "trap"}, "cannot be used"),
        ({"model_type": "timm_wrapper", "architecture": "resnet18"}, "import it as timm:resnet18"),
        ({}, "cannot be used"),  # no weights
    ],
)
def test_folders_of_hugging_face_that_do_not_do(change: dict[str, Any], says: str, place: Path) -> None:
    config = {"model_type": "vit", "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 1,
              "intermediate_size": 8, "image_size": 16, "patch_size": 8, "id2label": {"0": "a", "1": "b"}}  # fmt: skip
    (place / "hf").mkdir()
    (place / "hf/config.json").write_text(json.dumps(config | change))
    (place / "hf/code.py").write_text("import os; os.system('touch sprung')")
    refused("import", "hf:hf", "--out", "x", says=says)
    torch.save({"vit.embeddings.cls_token": Trap()}, place / "hf/pytorch_model.bin")
    refused("import", "hf:hf", "--out", "x", says=says)
    assert not (place / "sprung").exists()


@pytest.mark.parametrize(
    ("words", "missing"),
    [(["import", "hf:x", "--out", "x"], "transformers"), (["evaluate", "base", "hf:x"], "datasets")],
)
def test_a_library_is_missing(words: list[str], missing: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, missing, None)
    refused(*words, says="install it with pip install 'classgraft[hf]'")


def test_a_model_of_hugging_face_without_its_head(place: Path) -> None:
    import transformers

    config = transformers.ViTConfig(hidden_size=8, num_hidden_layers=1, num_attention_heads=1, intermediate_size=8,
                                    image_size=16, patch_size=8, num_labels=3)  # fmt: skip
    transformers.ViTModel(config).save_pretrained(place / "hf")
    refused("import", "hf:hf", "--classes", "names.txt", "--out", "x", says="no fitting weights for 2 tensors")
    refused("import", "hf:hf", "--out", "x", says="The class names are missing")
    refused("import", "hf:hf", "--arch-arg", "depht=3", "--out", "x", says="'depht' is no argument of hf:hf")


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a\nb\n", "linear.bias is (3,) in the file and (2,) in the network"),
        ("a\nb\nc\nd\n", "linear.weight is (3, 64) in the file and (4, 64) in the network"),
        ("a\n\nc", "line 2 is empty"),
        ("a\nb\na", "'a' stands at line 1 and 3"),
        ("caf\u00e9\ncafe\u0301\nb", "stands at line 1 and 2"),
        ("a\nb\x00\nc", "unprintable"),
        ("", "names2.txt holds no name"),
        (b"\xff\xfe\n", "line 1 is not UTF-8"),
    ],
)
def test_class_names_that_do_not_do(text: str | bytes, says: str, place: Path) -> None:
    (place / "names2.txt").write_bytes(text if isinstance(text, bytes) else text.encode())
    refused_import(classes="names2.txt", says=says)


def test_missing_files(place: Path) -> None:
    refused_import(classes="nowhere.txt", says="nowhere.txt cannot be read")
    refused_import(classes="old", says="old cannot be read")
    refused_import(weights="nowhere.pth", says="nowhere.pth")
    refused_import(weights="old", says="no weights file old")
    for command in ("undo", "evaluate", "predict", "report", "remove", "rename", "merge"):
        more = {"undo": (), "remove": ("red",), "rename": ("red", "rot"), "merge": ("red", "blue")}.get(
            command, ("old",)
        )
        refused(command, "nowhere", *more, says="'nowhere' is not there")
        refused(command, "old", *more, says="'old' is no bundle")
        refused(command, "names.txt", *more, says="'names.txt'")
    refused_extension(bundle="nowhere", says="'nowhere' is not there")


class Trap:
    """A pickle that would write a file when it is opened."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.system, ("touch sprung",)


def torch_file(content: object, zipped: bool = True) -> Callable[[Path], object]:
    return lambda path: torch.save(content, path, _use_new_zipfile_serialization=zipped)


def cut_short(length: int, zipped: bool = True) -> Callable[[Path], object]:
    def write(path: Path) -> None:
        torch_file(state(), zipped)(path)
        path.write_bytes(path.read_bytes()[:length])

    return write


UNREADABLE: dict[str, Callable[[Path], object]] = {
    "pickle with code": lambda path: path.write_bytes(pickle.dumps({"conv1.weight": Trap()})),
    "torch file with code": torch_file({"conv1.weight": Trap()}),
    "old torch file with code": torch_file({"conv1.weight": Trap()}, zipped=False),
    "whole module": torch_file(nn.Linear(2, 2)),
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("hello"),
    "cut short": cut_short(5000),
    "cut shorter": cut_short(10),
    "old and cut short": cut_short(5000, zipped=False),
    "numbers": torch_file({"conv1.weight": 3}),
    "numbered tensors": torch_file({1: torch.zeros(2)}),
    "a tensor": torch_file(torch.zeros(2)),
    "nothing": torch_file({}),
    "sparse": torch_file({"linear.weight": torch.zeros(3, 64).to_sparse()}),
    "no data": torch_file({"linear.weight": torch.zeros(3, 64, device="meta")}),
}


@pytest.mark.parametrize("kind", UNREADABLE)
def test_weight_files_that_are_none_are_refused_and_never_run(kind: str, place: Path) -> None:
    UNREADABLE[kind](place / "odd.pth")
    refused_import(weights="odd.pth", says="odd.pth")
    assert not (place / "sprung").exists()


def test_the_trap_is_one(place: Path) -> None:
    call, arguments = Trap().__reduce__()
    call(*arguments)
    assert (place / "sprung").exists()


@pytest.mark.parametrize("content", [b"", b"hello", bytes(range(100)), b"\x02" + bytes(7) + b"{}", b"\xff" * 8])
def test_safetensors_files_that_are_none(content: bytes, place: Path) -> None:
    (place / "odd.safetensors").write_bytes(content)
    refused_import(weights="odd.safetensors", says="odd.safetensors")


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"conv1.weight": None}, "1 tensors are missing in the file (conv1.weight)"),
        ({"extra": torch.zeros(1)}, "1 tensors are not in the network (extra)"),
        ({"conv1.weight": torch.zeros(16, 1, 3, 3)}, "conv1.weight is (16, 1, 3, 3) in the file and (16, 3, 3, 3) in"),
        ({"conv1.weight": torch.zeros(16, 3, 3, 3, dtype=torch.int8)}, "conv1.weight is torch.int8 in the file"),
        ({"conv1.weight": torch.full((16, 3, 3, 3), torch.nan)}, "not finite; its weights are damaged"),
    ],
)
def test_weights_that_do_not_fit(change: dict[str, torch.Tensor | None], says: str, place: Path) -> None:
    weights = {key: value for key, value in {**state(), **change}.items() if value is not None}
    save_file(weights, place / "odd.safetensors")
    refused_import(weights="odd.safetensors", says=says)
    torch.save(weights, place / "odd.pth")
    refused_import(weights="odd.pth", says=says)


# -- places --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "out",
    ["names.txt", "names.txt/x", "old", "old/red", ".", "/", "..", "/dev/null", "/dev/null/x", "/proc/x", "/proc/x/y",
     "n" * 300, "dangling"],
)  # fmt: skip
def test_places_where_no_bundle_can_be_written(out: str, place: Path) -> None:
    (place / "dangling").symlink_to("nowhere")
    commands = [
        ["extend", "base", "new", "--out", out, "--method", "imprint"],
        ["import", "cifar:resnet20", "--weights", "w.safetensors", "--classes", "names.txt", "--out", out],
        ["undo", "grown", "--out", out],
        ["remove", "grown", "red", "--out", out],
        ["rename", "grown", "red", "rot", "--out", out],
        ["merge", "grown", "red", "blue", "--out", out],
    ]
    for command in commands:
        refused(*command, says="n" * 300 if out[0] == "n" and out[1] == "n" else "")


def test_a_place_that_no_shell_can_name(place: Path) -> None:
    with pytest.raises(classgraft.InputError, match="cannot be"):
        classgraft.save(classgraft.load("base"), "a\0b")


@pytest.mark.skipif(os.geteuid() == 0, reason="root writes anywhere")
def test_a_folder_without_write_permission(place: Path) -> None:
    (place / "sealed").mkdir(mode=0o555)
    refused("extend", "base", "new", "--out", "sealed/x", "--method", "imprint", says="sealed/x")


def test_a_place_that_is_taken_is_refused_before_the_work(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError

    monkeypatch.setattr("classgraft.api.extend", never)
    monkeypatch.setattr("classgraft.demonstration.tell", never)
    refused("extend", "base", "new", "--out", "old", says="'old' is not empty and no bundle")
    refused("demo", "--out", "names.txt", says="'names.txt' is a file")


def test_refused_extensions_into_their_own_bundle_leave_it(place: Path) -> None:
    refused("extend", "grown", "new", "--out", "grown", says="already has the class")
    shutil.rmtree(place / "new/pink")
    (place / "new/pink").mkdir()
    refused("extend", "base", "new", "--out", "base", says="'pink' is empty")


def test_names_that_classes_had_before_are_told(place: Path) -> None:
    done("merge", "grown", "cyan", "pink", "--name", "pastel")
    done("rename", "grown", "pastel", "pale")
    refused("evaluate", "grown", "new", says="'cyan' is 'pale' by now: put its images under that name.")
    refused("remove", "grown", "pink", says="has no class 'pink' any more; it is 'pale' by now.")
    refused("remove", "grown", "pastel", says="it is 'pale' by now.")
    done("remove", "grown", "pale")
    refused("evaluate", "grown", "new", says="'cyan', 'pink'; extend it by them first")


def test_reports_that_cannot_be_written(place: Path) -> None:
    for out in ("old", "names.txt/page.html", "/proc/page.html"):
        refused("report", "grown", "new", "--out", out, says=f"'{out}' cannot be written")
    refused("report", "base", "old", says="nothing to report")


def test_classes_that_cannot_be_removed(place: Path) -> None:
    refused("remove", "grown", "redd", says="no class 'redd'. Did you mean 'red'?")
    refused("remove", "grown", "", says="no class ''")
    for name in OLD[:2]:
        assert run("remove", "base", name).code == 0
    refused("remove", "base", OLD[2], says="'blue' is the model's only class")


def test_a_file_name_cannot_break_the_line(place: Path) -> None:
    (place / "two\nlines\x1b[31m").mkdir()
    refused("undo", "two\nlines\x1b[31m", says="'two lines [31m' is no bundle")


def test_a_process_shows_one_line_and_no_traceback(place: Path) -> None:
    torch.save({"a": Trap()}, place / "odd.pth")
    command = [sys.executable, "-m", "classgraft", "import", "cifar:resnet20", "--weights", "odd.pth",
               "--classes", "names.txt", "--out", "x"]  # fmt: skip
    env = {**os.environ, "PYTHONPATH": str(Path(classgraft.__file__).parents[1])}
    ran = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, env=env)
    assert (ran.returncode, ran.stdout, ran.stderr.count("\n")) == (2, "", 1)
    assert is_sentence(ran.stderr.rstrip("\n"))
    assert not (place / "sprung").exists()


def test_a_bug_is_no_bad_input(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> None:
        raise KeyError("a bug")

    monkeypatch.setattr("classgraft.api.undo", broken)
    with pytest.raises(KeyError):
        run("undo", "grown")


# -- from Python ---------------------------------------------------------------------------------------------------

FLOATS = torch.rand(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize(
    ("names", "photos", "options", "says"),
    [
        (["a", "b"], {"n": FLOATS}, {}, "no linear layer with 2 outputs"),
        (["a", "b", "b"], {"n": FLOATS}, {}, "'b' stands at position 2 and 3"),
        (["a", "b", ""], {"n": FLOATS}, {}, "position 3 is empty"),
        (["a", "b", "c"], {"c": FLOATS}, {}, "already has the class 'c'"),
        (["a", "b", "c"], {"": FLOATS}, {}, "is empty"),
        (["a", "b", "c"], {"n": FLOATS[:0]}, {}, "'n' has no photo"),
        (["a", "b", "c"], {"n": []}, {}, "no images are given"),
        (["a", "b", "c"], {}, {}, "There are no photos"),
        (["a", "b", "c"], {"n": ["nowhere.jpg"]}, {}, "'nowhere.jpg' does not exist"),
        (["a", "b", "c"], {"n": FLOATS, "m": FLOATS[:, :, :8, :8]}, {}, "differ in type or size"),
        (["a", "b", "c"], {"n": FLOATS[:, :1]}, {}, "give RGB as uint8 or floats"),
        (["a", "b", "c"], {"n": FLOATS.long()}, {}, "int64"),
        (["a", "b", "c"], {"n": torch.zeros(2, 1, 9, 8, dtype=torch.uint8)}, {}, "uint8 (2, 1, 9, 8)"),
        (["a", "b", "c"], {"n": FLOATS[0, 0]}, {}, "(3, H, W)"),
        (["a", "b", "c"], {"n": FLOATS[..., :12]}, {}, "give squares of at least 12 pixels"),
        (["a", "b", "c"], {"n": FLOATS[:, :, :12]}, {}, "give squares of at least 16 pixels"),
        (["a", "b", "c"], {"n": FLOATS}, {"seed": -1}, "seed is -1"),
        (["a", "b", "c"], {"n": FLOATS}, {"shots": 0}, "--shots is 0"),
        (["a", "b", "c"], {"n": FLOATS}, {"method": "glme"}, "Did you mean 'glne'"),
        (["a", "b", "c"], {"n": FLOATS}, {"head": "stem.0"}, "'stem.0' is Conv2d"),
    ],
)
def test_python_calls_are_refused_with_the_same_sentences(
    names: list[str], photos: dict[str, Any], options: dict[str, Any], says: str
) -> None:
    with pytest.raises(InputError, match=r"^[^\n]*$") as error:
        classgraft.extend(Tiny(), names, photos, **options)
    assert says in str(error.value)


SMALL = Preparation(12, 16)


def given(*names: str, shown: int | None = None, preparation: Preparation = SMALL) -> Images:
    """A grey square of each of the first ``shown`` classes."""
    labels = torch.arange(len(names) if shown is None else shown)
    return Images(torch.full((len(labels), 3, 16, 16), 99, dtype=torch.uint8), labels, names, preparation)


def tiny(*classes: str) -> classgraft.Bundle:
    return classgraft.import_model(Tiny(len(classes)), classes=classes, size=SMALL.size, resize=SMALL.resize)


@pytest.mark.parametrize("names", [("x ", "e\u0301"), ("\u00a0x", "\u00e9")])
def test_names_of_images_are_what_those_of_folders_would_be(names: tuple[str, ...]) -> None:
    assert looking.new_images(given(*names), SMALL).classes == ("x", "\u00e9")
    known = looking.known_images(tiny("\u00e9", "b", "x"), given(*names))
    assert (known.classes, known.labels.tolist()) == (("\u00e9", "b", "x"), [2, 0])


@pytest.mark.parametrize(
    ("images", "says"),
    [
        (given("x", ""), "position 2 is empty"),
        (given("x", "x "), "'x' stands at position 1 and 2"),
        (given("x\ny"), "unprintable"),
        (given("x", "y", shown=1), "'y' has no photo"),
        (given(shown=0), "have no class names"),
        (
            given("x", preparation=Preparation(12, 16, (0.0,) * 3, (1.0,) * 3)),
            "(mean (0.0, 0.0, 0.0) instead of (0.485,",
        ),
        (given("x", preparation=Preparation(16, 16)), "(size 16 instead of 12); make them with the bundle's"),
        (given("x", preparation=Preparation(12, 16, stretched=True)), "(stretched True instead of False)"),
    ],
)
def test_images_that_are_no_new_classes(images: Images, says: str) -> None:
    with pytest.raises(InputError) as error:
        looking.new_images(images, SMALL)
    assert says in str(error.value)


def test_images_that_are_prepared_otherwise_or_of_other_classes_are_refused_wherever_they_are_given() -> None:
    bundle = tiny("a", "b", "c")
    other = given("a", preparation=Preparation(12, 16, (0.5,) * 3, (0.5,) * 3))
    for call in (
        classgraft.predict, classgraft.evaluate, classgraft.train, looking.unlabelled_images, looking.pictures,
    ):  # fmt: skip
        with pytest.raises(InputError, match="not prepared as the model takes them"):
            call(bundle, other)
    with pytest.raises(InputError, match="of these images: 'zebra'"):
        classgraft.remember(bundle, given("zebra", "a"), "glne")
    left = looking.known_images(bundle, given("zebra", "c"), skip_unknown=True)
    assert (left.classes, left.labels.tolist()) == (bundle.classes, [2])
    floats = Images(FLOATS, torch.zeros(2, dtype=torch.int64), ("a",), Preparation(16, 16, (0.0,) * 3, (1.0,) * 3))
    assert len(classgraft.predict(bundle, floats)) == 2  # these the network is given as they are


def test_images_in_memory_are_evaluated_by_their_names() -> None:
    bundle, images = tiny("a", "b", "c"), given("c", "a")
    (one, two), found = classgraft.predict(bundle, images), classgraft.evaluate(bundle, images)
    right = [one.classes[0] == "c", two.classes[0] == "a"]
    assert (found.totals.tolist(), found.accuracy()) == ([1, 0, 1], sum(right) / 2)


def test_one_picture_is_one_picture(tmp_path: Path) -> None:
    file, bundle = photo(tmp_path / "red.png", "red"), tiny("a", "b", "c")
    for one in (file, str(file), tmp_path):
        assert [found.name for found in classgraft.predict(bundle, one)] == [str(file)]
        assert len(looking.in_memory({"x": one}, SMALL)) == 1


def test_what_looks_like_a_picture_and_cannot_be_read_is_told(tmp_path: Path) -> None:
    root, bundle = tmp_path / "p", tiny("a", "b", "c")
    photo(root / "a/0.png", "red")
    for name in ("1.heic", "2.HEIC", "notes.txt", "Thumbs.db"):
        (root / "a" / name).write_bytes(b"x")
    said: list[str] = []
    classgraft.api.images_of(open_source(root), SMALL, warn=said.append)
    classgraft.predict(bundle, root, warn=said.append)
    looking.known_images(bundle, root, warn=said.append)
    assert [sentence.split(";")[0] for sentence in said] == 3 * [
        "2 files are no images that can be read, such as 'a/1.heic'"
    ]


def test_pictures_beside_the_folders_of_the_classes_are_told(tmp_path: Path) -> None:
    photo(tmp_path / "a/0.png", "red")
    photo(tmp_path / "loose.png", "red")
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere.png")
    said: list[str] = []
    assert len(classgraft.api.images_of(open_source(tmp_path), SMALL, warn=said.append)) == 1
    assert said == [
        "1 image lies beside the folders of the classes, such as 'loose.png', and in none; put them into theirs."
    ]


def test_a_grown_model_that_gives_no_numbers_is_refused() -> None:
    """Its weights are finite, and so was every loss before the only step."""
    bundle = tiny("a", "b", "c")
    side = bundle.preparation.resize
    pixels = torch.randint(0, 256, (4, 3, side, side), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    photos = Images(pixels, torch.tensor([0, 0, 1, 1]), ("x", "y"), bundle.preparation)
    settings = {"epochs": 1, "optimiser": "sgd", "lr": 1e25, "milestones": (), "batch_size": 4}
    with pytest.raises(
        InputError, match="What finetune learnt gives no numbers for its photos; lower its learning rate"
    ):
        classgraft.extend(bundle, photos, method="finetune", settings=settings)


def test_what_has_no_end_is_quoted_with_its_middle_left_out() -> None:
    said = str(InputError(f"'{'a' * 5000}' is no class; give one of these: {'name, ' * 1000}or none."))
    assert said.startswith("'aaaa")
    assert "' is no class; give one of these: name, name" in said
    assert said.endswith("name, or none.")
    assert len(said) <= 1500
    words = "give it a name of its own, such as 'foxglove'."
    assert str(InputError(words)) == words


def test_names_that_are_no_paths_from_python() -> None:
    names = ("../../etc/passwd", "日本/語 🌸", "a.b", "\u0639\u0631\u0628\u064a")
    grown = classgraft.extend(Tiny(), ["a", "b", "c"], dict.fromkeys(names, FLOATS), method="imprint")
    assert grown.classes == ("a", "b", "c", *names)


def test_a_damaged_bundle_is_named_in_python_too(place: Path) -> None:
    config = json.loads((place / "grown/config.json").read_text())
    config["format"] = 7
    (place / "grown/config.json").write_text(json.dumps(config))
    with pytest.raises(InputError, match=r"grown.*has format 7.*upgrade"):
        classgraft.load(place / "grown")
