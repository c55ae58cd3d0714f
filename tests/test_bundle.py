"""Bundles: what is saved comes back, step by step, whatever happens meanwhile; what is damaged is refused."""

from __future__ import annotations

import dataclasses
import json
import os
import random
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from outside import NEW, OLD, Tiny, contents, copied, furnish, is_sentence, photo, photos, run
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

import classgraft
from classgraft import Bundle, Images, InputError, detectors
from classgraft.card import card


@pytest.fixture(scope="module")
def furnished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return furnish(tmp_path_factory.mktemp("furnished"))


@pytest.fixture
def place(furnished: Path, tmp_path: Path) -> Path:
    return copied(furnished, tmp_path / "place")


def tiny(classes: int = 3, seed: int = 0) -> Bundle:
    return classgraft.import_model(Tiny(classes, seed), classes=[f"c{k}" for k in range(classes)], size=16)


def squares(bundle: Bundle, names: tuple[str, ...], count: int = 2, seed: int = 0) -> Images:
    generator = torch.Generator().manual_seed(seed)
    side = bundle.preparation.resize
    pixels = torch.randint(0, 256, (count * len(names), 3, side, side), dtype=torch.uint8, generator=generator)
    return Images(pixels, torch.arange(len(names)).repeat_interleave(count), names, bundle.preparation)


def extended(bundle: Bundle, *names: str, method: str = "imprint", **options: Any) -> Bundle:
    return classgraft.extend(bundle, squares(bundle, names), method=method, **options)


@torch.no_grad()
def logits(bundle: Bundle) -> Tensor:
    side = bundle.preparation.size
    return bundle.model(torch.rand(4, 3, side, side, generator=torch.Generator().manual_seed(9)))


def same(first: Bundle, second: Bundle) -> bool:
    """In everything that counts."""
    return (
        torch.equal(logits(first), logits(second))
        and (first.classes, first.added) == (second.classes, second.added)
        and json.dumps(first.history) == json.dumps(second.history)  # a tuple comes back as a list
        and (first.architecture, first.head, first.preparation)
        == (second.architecture, second.head, second.preparation)
        and first.model.head.rows == second.model.head.rows
        and len(first.undone) == len(second.undone)
    )


# -- there and back ------------------------------------------------------------------------------------------------


def test_what_was_saved_comes_back_bit_for_bit(tmp_path: Path) -> None:
    bundle = extended(tiny(), "new", "newer")
    classgraft.save(bundle, tmp_path / "b")
    assert same(classgraft.load(tmp_path / "b", Tiny(7, seed=5)), bundle)  # any weights, any number of outputs


@pytest.mark.parametrize("seed", range(3))
def test_any_sequence_of_steps_is_undone_step_by_step_through_the_disk(tmp_path: Path, seed: int) -> None:
    draw, folder = random.Random(seed), tmp_path / "b"
    bundle, steps = tiny(), []
    for number in range(8):
        steps.append(bundle)
        action = draw.choice(["imprint", "rows", "finetune", "remove", "remove"])
        if action == "remove" and len(bundle.classes) > 1:
            bundle = classgraft.remove(bundle, draw.choice(bundle.classes))
        else:
            settings = {"rows": {"steps": 2}, "finetune": {"epochs": 1, "augment": "none"}}.get(action, {})
            names = [f"n{number}.{k}" for k in range(draw.randint(1, 2))]
            bundle = extended(bundle, *names, method="imprint" if action == "remove" else action, settings=settings)
        classgraft.save(bundle, folder)
        loaded = classgraft.load(folder, Tiny())
        assert same(loaded, bundle)
        bundle = loaded
    while steps:
        bundle = classgraft.undo(bundle)
        assert same(bundle, steps.pop())
        classgraft.save(bundle, folder)
        bundle = classgraft.load(folder, Tiny())
    assert not list(folder.glob("undo-*"))
    with pytest.raises(InputError, match="nothing to undo"):
        classgraft.undo(bundle)


def test_an_undone_step_can_be_taken_again_to_the_same_end() -> None:
    once = extended(extended(tiny(), "a"), "b")
    again = extended(classgraft.undo(once), "b")
    assert torch.equal(logits(once), logits(again))
    assert once.classes == again.classes


def test_steps_before_a_training_cannot_be_undone_but_those_after_can() -> None:
    grown = extended(tiny(), "new")
    trained = classgraft.train(grown, squares(grown, ("c0", "new")).of(grown.classes), settings={"epochs": 1})
    with pytest.raises(InputError, match="nothing to undo"):
        classgraft.undo(trained)
    more = extended(trained, "newer")
    assert torch.equal(logits(classgraft.undo(more)), logits(trained))


def test_a_network_that_is_given_beside_weights_stays_as_it_was(tmp_path: Path) -> None:
    save_file(Tiny(seed=1).state_dict(), tmp_path / "w.safetensors")
    network = Tiny()
    bundle = classgraft.import_model(network, tmp_path / "w.safetensors", ["a", "b", "c"], size=12)
    assert torch.equal(network.stem[0].weight, Tiny().stem[0].weight)
    assert torch.equal(bundle.model.head.weight, Tiny(seed=1).answer.weight)


def test_a_network_without_biases_comes_back(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Conv2d(3, 6, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 2, bias=False))
    bundle = extended(classgraft.import_model(network, classes=["a", "b"], size=12), "c")
    classgraft.save(bundle, tmp_path / "b")
    loaded = classgraft.load(tmp_path / "b", network)
    assert torch.allclose(logits(loaded), logits(bundle), atol=1e-6)
    classgraft.save(classgraft.undo(loaded), tmp_path / "b")
    assert classgraft.load(tmp_path / "b", network).classes == ("a", "b")


def test_a_network_given_from_python_needs_its_code(tmp_path: Path) -> None:
    classgraft.save(tiny(), tmp_path / "b")
    with pytest.raises(InputError, match=r"given from Python \(Tiny\); load it there with network="):
        classgraft.load(tmp_path / "b")
    with pytest.raises(InputError):
        classgraft.load(tmp_path / "b", nn.Sequential(nn.Flatten(), nn.Linear(3, 3)))


def test_the_network_given_to_load_stays_as_it_was(tmp_path: Path) -> None:
    classgraft.save(tiny(), tmp_path / "b")
    network = Tiny(seed=3)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    classgraft.load(tmp_path / "b", network).model.body.stem[0].weight.data.zero_()
    assert all(torch.equal(value, before[key]) for key, value in network.state_dict().items())


@pytest.mark.parametrize("name", ["resnet18", "mobilenetv2_100"])
def test_timm_itself_loads_the_folder(name: str, tmp_path: Path) -> None:
    import timm

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = timm.create_model(name, num_classes=4)
    save_file(network.state_dict(), tmp_path / "w.safetensors")
    bundle = classgraft.import_model(f"timm:{name}", tmp_path / "w.safetensors", ["a", "b", "c", "d"], size=64)
    grown = classgraft.remove(extended(bundle, "e", "f"), "b")
    for number, step in enumerate((bundle, grown)):
        classgraft.save(step, tmp_path / str(number))
        plain = timm.create_model(f"local-dir:{tmp_path / str(number)}", pretrained=True).eval()
        images = torch.rand(3, 3, 64, 64, generator=torch.Generator().manual_seed(1))
        with torch.no_grad():
            ours = step.model(images)
            assert (plain(images) - ours).abs().max() < 1e-5 * max(1.0, float(ours.abs().max()))
        config = plain.pretrained_cfg
        assert (config["label_names"], config["num_classes"]) == (list(step.classes), len(step.classes))
        assert tuple(config["mean"]) == step.preparation.mean
        loaded = classgraft.load(tmp_path / str(number))
        assert torch.equal(loaded.model(images), step.model(images))


def test_the_card_tells_what_was_done() -> None:
    text = card(classgraft.remove(extended(tiny(), "日本 語"), "c1"))
    assert "python:Tiny with 3 classes" in text
    assert "the class 'c1' was removed" in text
    assert "日本 語" in text


# -- the folder ----------------------------------------------------------------------------------------------------


def test_a_detector_whose_replacement_was_cut_off_is_found_again(tmp_path: Path) -> None:
    network = detectors.small(2, 4, 32, (8, 12), hidden=8)
    detectors.save(detectors.Detector(network, ("a", "b")), tmp_path / "d")
    (tmp_path / "d").rename(tmp_path / ".d.old")  # where a kill between the two renames leaves it
    assert detectors.load(tmp_path / "d", network).classes == ("a", "b")


def test_a_detector_takes_no_other_folders_place(place: Path) -> None:
    before = contents(place)
    detector = detectors.Detector(detectors.small(2, 4, 32, (8, 12), hidden=8), ("a", "b"))
    for taken in ("grown", "names.txt"):
        with pytest.raises(InputError, match="which is no detector's; name another folder"):
            detectors.save(detector, place / taken)
    assert contents(place) == before


def test_files_that_are_not_the_bundles_stay(place: Path) -> None:
    folder = place / "grown"
    (folder / "notes.txt").write_text("mine")
    (folder / ".git/objects").mkdir(parents=True)
    (folder / ".git/objects/run").write_text("#!")
    (folder / ".git/objects/run").chmod(0o755)
    (folder / "link").symlink_to("../names.txt")
    before = (place / "names.txt").stat().st_mode
    assert run("undo", folder).code == 0
    assert (folder / "notes.txt").read_text() == "mine"
    assert os.access(folder / ".git/objects/run", os.X_OK)
    assert os.readlink(folder / "link") == "../names.txt"
    assert (place / "names.txt").stat().st_mode == before
    assert not list(folder.glob("undo-*"))


def test_a_step_leaves_private_files_private(place: Path) -> None:
    folder = place / "grown"
    (folder / "notes.txt").write_text("mine")
    for path in (folder, *folder.iterdir()):
        path.chmod(0o700 if path == folder else 0o600)
    assert run("rename", folder, "cyan", "teal").code == 0
    assert {path.stat().st_mode & 0o077 for path in (folder, folder / "notes.txt", folder / "model.safetensors")} == {0}


def test_a_step_from_inside_the_bundle_is_refused(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = place / "grown"
    (folder / "deep").mkdir()
    for inside in (folder, folder / "deep"):
        monkeypatch.chdir(inside)
        for given in (folder, os.path.relpath(folder)):
            ran = run("rename", given, "cyan", "teal")
            assert (ran.code, "the current directory is in it; change to one outside" in ran.err) == (2, True)
    assert run("rename", folder, "cyan", "teal", "--out", place / "copy").code == 0
    assert Path.cwd() == folder / "deep"


def test_a_report_does_not_outlive_what_it_reports(place: Path) -> None:
    assert run("report", place / "grown", place / "new").code == 0
    assert run("undo", place / "grown").code == 0
    assert not (place / "grown/report.html").exists()


def test_a_link_to_a_bundle_stays_one(place: Path) -> None:
    (place / "latest").symlink_to("grown")
    assert run("undo", place / "latest").code == 0
    assert (place / "latest").is_symlink()
    assert classgraft.load(place / "grown").classes == OLD


def test_anothers_config_json_is_not_taken_for_a_bundle(place: Path) -> None:
    other = place / "hf"
    other.mkdir()
    (other / "config.json").write_text('{"architectures": ["ViT"]}')
    (other / "pytorch_model.bin").write_bytes(b"precious")
    before = contents(other)
    for command in (
        ["extend", place / "base", place / "new", "--out", other],
        ["undo", place / "grown", "--out", other],
    ):
        ran = run(*command)
        assert ran.code == 2
        assert "not empty and no bundle" in ran.err
    assert contents(other) == before


@pytest.mark.parametrize("damage", [b"", b"{", b"[]", b"\xff"])
def test_a_bundle_with_a_damaged_configuration_can_be_written_over(damage: bytes, place: Path) -> None:
    (place / "grown/config.json").write_bytes(damage)
    assert run("extend", place / "base", place / "new", "--out", place / "grown", "--method", "imprint").code == 0
    assert classgraft.load(place / "grown").added == NEW


# -- kills ---------------------------------------------------------------------------------------------------------

DRIVER = """
import json, os, random, shutil, signal, sys, time
from pathlib import Path
sys.path.insert(0, sys.argv[1])
import torch
torch.set_num_threads(1)
from outside import Tiny
from test_bundle import extended, same, tiny
import classgraft

EVENTS = {"open", "os.rename", "os.mkdir", "os.rmdir", "os.remove", "os.chmod", "os.scandir", "os.listdir"}
state = {"left": -1}

def hook(event, args):
    if state["left"] >= 0 and event in EVENTS:
        if state["left"] == 0:
            os._exit(9)
        state["left"] -= 1

sys.addaudithook(hook)
place = Path(sys.argv[2])
folder = place / "bundle"
old = extended(tiny(), "a")
new = classgraft.remove(extended(old, "b", "c"), "c0")

def which():
    found = classgraft.load(folder, Tiny())
    return "old" if same(found, old) else "new" if same(found, new) else "other"

kept = place.with_name("kept")
classgraft.save(old, kept)
found = {"steps": [], "later": [], "random": []}
step, code = 0, 9
while code == 9:
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(kept, folder)
    child = os.fork()
    if child == 0:
        state["left"] = step
        classgraft.save(new, folder)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, 9), code
    found["steps"].append(which())
    if step % 6 == 0:
        classgraft.save(new, folder)
        found["later"].append(which())
    step += 2
draw = random.Random(0)
for _ in range(12):
    child = os.fork()
    if child == 0:
        while True:
            classgraft.save(old, folder)
            classgraft.save(new, folder)
    time.sleep(draw.uniform(0.001, 0.06))
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    found["random"].append(which())
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def kills(tmp_path_factory: pytest.TempPathFactory) -> dict[str, list[str]]:
    """What a bundle is after a kill before every other file operation of a save, after the next save, and after SIGKILLs."""
    arguments = [str(Path(__file__).parent), str(tmp_path_factory.mktemp("kills") / "place")]
    ran = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", DRIVER, *arguments],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)  # type: ignore[no-any-return]


def test_a_kill_at_any_operation_leaves_the_earlier_bundle_or_the_new_one(kills: dict[str, list[str]]) -> None:
    found = kills["steps"]
    assert len(found) > 20
    assert found == sorted(found, reverse=True)  # old up to some operation, new from there on
    assert set(found) == {"old", "new"}
    assert found.count("old") > 10


def test_after_a_kill_the_next_save_succeeds(kills: dict[str, list[str]]) -> None:
    assert set(kills["later"]) == {"new"}


def test_a_kill_from_outside_at_any_moment_leaves_a_whole_bundle(kills: dict[str, list[str]]) -> None:
    assert len(kills["random"]) == 12
    assert set(kills["random"]) <= {"old", "new"}


def test_an_error_while_saving_leaves_the_earlier_bundle(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = contents(place)

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device", "model.safetensors")

    monkeypatch.setattr("classgraft.folder.save_file", full)
    ran = run("undo", place / "grown")
    assert (ran.code, "No space left on device" in ran.err) == (2, True)
    assert contents(place) == before


# -- damage --------------------------------------------------------------------------------------------------------

FILES = ["config.json", "model.safetensors", "history.jsonl", "undo-0.json", "undo-0.safetensors"]
DAMAGES: dict[str, Callable[[Path], object]] = {
    "missing": lambda path: path.unlink(),
    "empty": lambda path: path.write_bytes(b""),
    "cut short": lambda path: path.write_bytes(path.read_bytes()[: path.stat().st_size // 2]),
    "noise": lambda path: path.write_bytes(random.Random(0).randbytes(300)),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
}


def refused(place: Path, folder: Path) -> str:
    """What is said when the bundle is used; every command says it, and changes nothing."""
    before = contents(place)
    commands = (["predict", folder, place / "new/cyan/0.png"], ["undo", folder], ["remove", folder, "red"])
    said = [run(*command) for command in commands]
    assert contents(place) == before
    for ran in said:
        assert (ran.code, ran.out, ran.err.count("\n")) == (2, "", 1), ran
        assert is_sentence(ran.err.rstrip("\n")), ran.err
        assert str(folder) in ran.err
    return said[0].err


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("file", FILES)
def test_a_damaged_file_is_refused(file: str, damage: str, place: Path) -> None:
    DAMAGES[damage](place / "grown" / file)
    refused(place, place / "grown")


@pytest.mark.parametrize("file", FILES[1:])
def test_a_single_flipped_bit_is_refused_by_the_files_name(file: str, place: Path) -> None:
    path = place / "grown" / file
    content = bytearray(path.read_bytes())
    digit = next(i for i in range(len(content) - 1, 0, -1) if chr(content[i]).isdigit()) if "json" in file else -1
    content[digit] ^= 1
    path.write_bytes(content)
    assert file in refused(place, place / "grown")


DELETED = object()
TAMPERED: list[tuple[Any, ...]] = [
    *[("format", value) for value in (DELETED, 0, -3, 2, 10**9, "1", 1.0, True, None)],
    *[("label_names", value) for value in (DELETED, [], "red", ["a", "b"], None, [1, 2, 3, 4, 5], [[]] * 5)],
    ("label_names", ["a", "a", "b", "c", "d"]),
    ("label_names", ["a", "", "b", "c", "d"]),
    *[("model_args", value) for value in (DELETED, None, 3, {"x": 1}, {"checkpoint_path": "x"})],
    *[("graft", value) for value in (DELETED, [], None, 3)],
    *[
        ("graft", "source", value)
        for value in (DELETED, 3, "cifar:resnet99", "timm:nope", "os:system", "python:Tiny", "")
    ],
    *[("graft", "head", value) for value in (DELETED, "", "conv1", "nowhere", 3)],
    *[("graft", "rows", value) for value in (DELETED, [], [3, 3], [-1, 6], [5, 0], [0, 5], 5, ["a"], None)],
    *[("graft", "added", value) for value in (DELETED, ["zzz"], [3], "cyan", None, [None])],
    *[("graft", "undo", value) for value in (DELETED, 2, 10**9, "a", None)],
    *[("graft", "resize", value) for value in (DELETED, 0, -1, 16, 10**7, "a", None)],
    *[("graft", "sha256", value) for value in (DELETED, "0", {"model.safetensors": "0"}, {"nowhere": "0"}, 3)],
    ("pretrained_cfg", DELETED),
    *[("pretrained_cfg", "input_size", v) for v in (DELETED, [], [3, 0, 0], [3, -5, -5], [3, 10**6, 10**6], None, 3)],
    *[("pretrained_cfg", "mean", value) for value in (DELETED, [1], ["a", "b", "c"], None, [0, 0, float("nan")])],
    *[("pretrained_cfg", "std", value) for value in (DELETED, [0, 0, 0], [1, 1], [-1, 1, 1], None)],
]


@pytest.mark.parametrize("change", TAMPERED, ids=lambda c: " ".join("-" if w is DELETED else str(w) for w in c))
def test_a_tampered_configuration_is_refused(change: tuple[Any, ...], place: Path) -> None:
    *keys, last, value = change
    path = place / "grown/config.json"
    inner = config = json.loads(path.read_text("utf-8"))
    for key in keys:
        inner = inner[key]
    if value is DELETED:
        del inner[last]
    else:
        inner[last] = value
    path.write_text(json.dumps(config))
    refused(place, place / "grown")


def test_a_newer_format_asks_for_a_newer_classgraft(place: Path) -> None:
    path = place / "grown/config.json"
    path.write_text(path.read_text("utf-8").replace('"format": 1', '"format": 2'))
    assert "has format 2 and this classgraft reads up to 1; upgrade" in refused(place, place / "grown")


@pytest.mark.parametrize("text", ["[" * 100_000, "[]", "3", "null", '"x"', "NaN"])
def test_a_configuration_that_is_no_object_is_refused(text: str, place: Path) -> None:
    (place / "grown/config.json").write_text(text)
    assert "config.json" in refused(place, place / "grown")


def reseal(folder: Path) -> None:
    """Write the checksums anew, as who tampers on purpose would."""
    import hashlib

    config = json.loads((folder / "config.json").read_text("utf-8"))
    sums = config["graft"]["sha256"]
    for name in sums:
        sums[name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    (folder / "config.json").write_text(json.dumps(config))


@pytest.mark.parametrize("history", ["", "3\n4\n", "[]\n[]\n", "{}\n{}\n", "{\n", '{"event": "import"}\n' * 2])
def test_a_history_that_is_none_is_refused_even_with_its_checksum(history: str, place: Path) -> None:
    (place / "grown/history.jsonl").write_text(history)
    reseal(place / "grown")
    refused(place, place / "grown")


@pytest.mark.parametrize(
    "undo", [{}, {"graft": {}}, {"graft": {"rows": "a"}}, {"graft": {"rows": [2], "head": "linear", "source": "x"}}]
)
def test_a_step_that_is_none_is_refused_when_it_is_undone(undo: dict[str, Any], place: Path) -> None:
    (place / "grown/undo-0.json").write_text(json.dumps(undo))
    reseal(place / "grown")
    before = contents(place)
    ran = run("undo", place / "grown")
    assert (ran.code, ran.out, "the step before is damaged" in ran.err) == (2, "", True), ran
    assert is_sentence(ran.err.rstrip("\n"))
    assert contents(place) == before


def test_weights_of_another_network_are_refused_by_their_names(place: Path) -> None:
    path = place / "grown/model.safetensors"
    tensors = load_file(path)
    tensors["conv9.weight"] = tensors.pop("conv1.weight")
    save_file(tensors, path)
    reseal(place / "grown")
    said = refused(place, place / "grown")
    assert "conv1.weight" in said
    assert "conv9.weight" in said


def test_a_bundle_names_no_file_to_open(place: Path) -> None:
    """What a bundle passes on to timm cannot make it read, still less run, another file."""
    path = place / "grown/config.json"
    config = json.loads(path.read_text("utf-8"))
    config["graft"]["source"], config["architecture"] = "timm:resnet18", "resnet18"
    for key in ("checkpoint_path", "pretrained", "cache_dir", "pretrained_cfg", "model_name"):
        config["model_args"] = {key: str(place / "w.safetensors")}
        path.write_text(json.dumps(config))
        with pytest.raises(InputError, match=f"'{key}' is no argument of the network"):
            classgraft.load(place / "grown")


def test_bundles_are_immutable() -> None:
    bundle = tiny()
    with pytest.raises(dataclasses.FrozenInstanceError):
        bundle.head = "x"  # type: ignore[misc]
    before = logits(bundle)
    extended(bundle, "new", method="finetune", settings={"epochs": 1})
    classgraft.remove(bundle, "c0")
    assert torch.equal(logits(bundle), before)
    assert (bundle.classes, len(bundle.history)) == (("c0", "c1", "c2"), 1)


def test_a_folder_that_cannot_be_reached_is_no_bundle(tmp_path: Path) -> None:
    for folder in (tmp_path / "nowhere", photo(tmp_path / "x.png", "red"), photos(tmp_path / "p", ["red"]), Path("/")):
        with pytest.raises(InputError):
            classgraft.load(folder)
