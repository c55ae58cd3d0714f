"""The commands of the README, docs/serving.md and docs/walks.md, run in the order in which they stand, on small things.

The README's Python blocks are doctests; docs/tutorial.md has a test of its own.
"""

from __future__ import annotations

import re
import shlex
import subprocess
import urllib.request
from pathlib import Path
from types import SimpleNamespace

import pytest
import sklearn.datasets
import timm
import torch
from chromium import serving
from outside import done, photo, photos, run, table
from safetensors.torch import save_file

ROOT = Path(__file__).parents[1]
OLD, NEW = ("tabby", "tiger cat", "lynx"), ("foxglove", "lotus")
LOOKS = dict(zip((*OLD, *NEW), ("red", "green", "blue", "cyan", "pink"), strict=True))
LESS = {
    "mobilenetv2_100": "mobilenetv2_035",
    "onnx --out onnx/": "torch-export --out exported/",  # the same, where onnx is not installed
    "--method glico": "--method glico --set drawing=1",
    "--augment crop-flip+autoaugment": "--augment crop-flip+autoaugment --epochs 1",
    "--method fixmatch": "--method fixmatch --set epochs=1",
    "--out latent.html": "--out latent.html --set drawing=1",
    "--out small/": "--out small/ --set epochs=1",
    "--first 10 --step 10": "--first 3 --step 1 --epochs 1",
    "--seeds 0,1,2": "--seeds 0",
    "--epochs 20": "--epochs 1",
    "--epochs 10": "--epochs 1",
    "--epochs 5": "--epochs 1",
    "--protocol cifar100-b50-5": "--protocol cifar100-b50-5 --images many.parquet --test many.parquet --epochs 1",
}
"""What is run shorter than it is written."""


def lines(page: str) -> list[str]:
    """Every line of a page's blocks, without its comment."""
    blocks = re.findall(r"^```sh\n(.*?)^```$", (ROOT / page).read_text("utf-8"), re.M | re.S)
    return [line.partition("  #")[0].strip() for block in blocks for line in block.splitlines()]


WALKS = lines("docs/walks.md")
COMMANDS = [line for page in ("README.md", "docs/serving.md") for line in lines(page)]
INSTALLING = "python3 -m pip install uv"
"""How lines begin that install: this is what runs the tests; the demonstration has its test in test_cli.py."""


def pictures(folder: Path, names: tuple[str, ...], count: int) -> None:
    for name in names:
        for i in range(count):
            photo(folder / name / f"{i}.png", LOOKS[name], i)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """What the README's reader has."""
    place = tmp_path
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = timm.create_model("mobilenetv2_035", num_classes=len(OLD))
    save_file(network.state_dict(), place / "w.safetensors")
    (place / "names.txt").write_text("".join(f"{name}\n" for name in OLD))
    pictures(place / "photos", NEW, 2)
    pictures(place / "more-photos", NEW[:1], 2)
    pictures(place / "test-images", (*OLD, *NEW), 2)
    pictures(place / "old-images", OLD, 2)
    pictures(place / "labelled", NEW, 2)
    for folder in ("images", "any-images", "unlabelled"):
        for i, colour in enumerate(LOOKS.values()):
            photo(place / folder / f"{i}.png", colour, i)
    photo(place / "picture.jpg", "cyan")
    for folder in ("train", "test"):
        photos(place / folder, ("red", "green", "blue", "cyan"), 2)
    table(place / "many.parquet", [f"class {k}" for k in range(100)], ["red", "green"] * 50, 1)
    done("import", "timm:mobilenetv2_035", "--weights", place / "w.safetensors", "--classes", place / "names.txt",
         "--size", 32, "--out", place / "garden")  # fmt: skip
    monkeypatch.chdir(place)
    return place


def carried_out(command: str) -> None:
    for written, less in LESS.items():
        command = command.replace(written, less)
    words = shlex.split(command)
    if words[0] != "classgraft":
        subprocess.run(command, shell=True, check=True)
    elif words[1] == "serve":
        with serving(*words[2:]) as address, urllib.request.urlopen(address) as page:
            assert page.status == 200
    else:
        ended = run(*words[1:])
        assert ended.code == 0, f"{command}: {ended.err}"


def test_every_command_does_its_work(place: Path) -> None:
    for command in COMMANDS:
        if not command.startswith(INSTALLING):
            carried_out(command)
    for name in ("base", "grown", "model", "better", "small", "results", "cifar", "exported"):
        assert any(Path(name).iterdir()), name
    assert Path("latent.html").exists()


def test_the_walks_can_be_walked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    whole = sklearn.datasets.load_digits()
    few = SimpleNamespace(images=whole.images[:450], target=whole.target[:450])
    monkeypatch.setattr(sklearn.datasets, "load_digits", lambda: few)
    (block,) = re.findall(r"^```python\n(.*?)^```$", (ROOT / "docs/walks.md").read_text("utf-8"), re.M | re.S)
    exec(compile(block, "docs/walks.md", "exec"), {})
    assert len([*Path().rglob("*.png")]) == 450  # none is written over another
    for command in WALKS:
        carried_out(command)
    for name in ("base", "grown", "results", "one", "two", "small", "shipped", "few", "better", "helped"):
        assert any(Path(name).iterdir()), name


def test_commands_are_found_and_every_abridgement_is_of_one() -> None:
    assert len(COMMANDS) > 15 < len(WALKS)
    every = [*COMMANDS, *WALKS]
    assert [written for written in LESS if not any(written in command for command in every)] == []
