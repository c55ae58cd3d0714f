"""The commands from end to end, as a newcomer runs them."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from outside import NEW, OLD, Tiny, contents, copied, done, furnish, hurried, is_sentence, photo, photos, run, table
from PIL import Image

import classgraft
from classgraft import api, catalogue, demonstration, looking
from classgraft.data.images import Images
from classgraft.training.answers import answers


@pytest.fixture(scope="module")
def furnished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return furnish(tmp_path_factory.mktemp("furnished"))


@pytest.fixture
def place(furnished: Path, tmp_path: Path) -> Path:
    """A model, its extension, and photos, to do with as one likes."""
    return copied(furnished, tmp_path / "place")


def logits(folder: Path, photos: Path) -> torch.Tensor:
    bundle = classgraft.load(folder)
    return classgraft.api.logits_of(bundle, [photos])[0]


def process(*words: object, **options: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "classgraft", *map(str, words)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False, **options)  # type: ignore[call-overload, no-any-return]


# -- stories -------------------------------------------------------------------------------------------------------


def test_a_model_is_imported_with_what_it_needs_inside(place: Path) -> None:
    ran = done("import", "cifar:resnet20", "--weights", place / "w.safetensors", "--classes", place / "names.txt",
               "--out", place / "b", "--mean", 0.5, 0.4, 0.3, "--std", 0.2, 0.25, 0.3, "--size", 28,
               "--resize", 30)  # fmt: skip
    assert "3 classes, 28 pixels" in ran.out
    for name in ("w.safetensors", "names.txt"):
        (place / name).unlink()
    bundle = classgraft.load(place / "b")
    assert bundle.classes == OLD
    assert bundle.preparation == classgraft.Preparation(28, 30, (0.5, 0.4, 0.3), (0.2, 0.25, 0.3))


def test_pictures_are_squeezed_where_that_is_how_it_was_trained(place: Path) -> None:
    for word, stretched in (("--stretch", True), ("--crop", False)):
        done("import", "cifar:resnet20", "--weights", place / "w.safetensors", "--classes", place / "names.txt",
             "--out", place / "b", word)  # fmt: skip
        bundle = classgraft.load(place / "b")
        assert bundle.preparation.stretched == stretched
        assert json.loads((place / "b/config.json").read_text("utf-8"))["pretrained_cfg"]["crop_mode"] == (
            "squash" if stretched else "center"
        )
    left = Image.new("RGB", (96, 32))
    left.paste((255, 255, 255), (0, 0, 16, 32))
    left.save(place / "left.png")
    pixels = {
        stretched: api.pictures(
            dataclasses.replace(bundle, preparation=dataclasses.replace(bundle.preparation, stretched=stretched)),
            place / "left.png",
        ).pixels
        for stretched in (False, True)
    }
    assert pixels[False].max() == 0
    assert pixels[True].max() == 255


def test_old_logits_stay_bit_for_bit_and_the_base_as_it_was(place: Path) -> None:
    before = contents(place / "base")
    old = logits(place / "base", place / "old")
    ran = done("extend", place / "base", place / "new", "--out", place / "g", "--set", "views=2")
    assert "2 classes added by glne from 6 photos" in ran.out
    assert "5 classes, new: cyan, pink" in ran.out
    assert torch.equal(logits(place / "g", place / "old")[:, :3], old)
    assert contents(place / "base") == before


def test_the_grown_model_is_evaluated_in_one_joint_label_space(place: Path) -> None:
    bundle = classgraft.load(place / "grown")
    found = json.loads(done("evaluate", place / "grown", place / "old", place / "new", "--json").out)
    assert set(found) == {"old", "new", "harmonic", "all", "ece", "n", "per_class"}
    assert found["n"] == {"old": 9, "new": 6, "all": 15}
    right = {}
    for name, folder in [(n, "old") for n in OLD] + [(n, "new") for n in NEW]:
        files = sorted((place / folder / name).iterdir())
        right[name] = [p.classes[0] == name for p in classgraft.predict(bundle, files, 1)]
        assert found["per_class"][name] == {"n": 3, "accuracy": sum(right[name]) / 3}
    assert found["old"] == pytest.approx(sum(sum(right[n]) for n in OLD) / 9)
    assert found["new"] == pytest.approx(sum(sum(right[n]) for n in NEW) / 6)
    assert found["all"] == pytest.approx(sum(map(sum, right.values())) / 15)
    assert "9 + 6" in done("evaluate", place / "grown", place / "old", place / "new").out


def test_predict_names_every_picture_best_class_first(place: Path) -> None:
    (found,) = json.loads(done("predict", place / "grown", place / "new/cyan/0.png", "--json", "--top", 5).out)
    assert found["file"].endswith("cyan/0.png")
    assert set(found["classes"]) == {*OLD, *NEW}
    values = list(found["classes"].values())
    assert values == sorted(values, reverse=True)
    assert sum(values) == pytest.approx(1)
    lines = done("predict", place / "grown", place / "new", place / "old/red/1.png", "--top", 1).out.splitlines()
    assert len(lines) == 7
    assert lines[-1].startswith(str(place / "old/red/1.png") + ": ")


def test_fewer_photos_than_shots_are_all_used_and_said(place: Path) -> None:
    (place / "new/pink/2.png").unlink()
    ran = run("extend", place / "base", place / "new", "--out", place / "g", "--method", "imprint", "--shots", 3)
    assert ran.code == 0
    assert ran.err == "warning: The class 'pink' has 2 photos, fewer than the 3 asked for; all are used.\n"
    assert "from 5 photos" in ran.out


def test_the_same_seed_gives_the_same_model_and_another_seed_another(place: Path) -> None:
    words = ("extend", place / "base", place / "new", "--method", "imprint", "--shots", 1)
    for name, seed in (("a", 4), ("b", 4), ("c", 0)):
        done(*words, "--seed", seed, "--out", place / name)
    a, b, c = ((place / name / "model.safetensors").read_bytes() for name in "abc")
    assert a == b
    assert a != c


def test_settings_reach_the_method_and_the_history(place: Path) -> None:
    done("extend", place / "base", place / "new", "--out", place / "g", "--method", "rows", "--set", "steps=3",
         "--set", "lr=1")  # fmt: skip
    event = classgraft.load(place / "g").history[-1]
    assert (event["method"], event["settings"]["steps"], event["settings"]["lr"]) == ("rows", 3, 1.0)
    assert event["classes"] == list(NEW)


@pytest.mark.parametrize("method", ["finetune", "joint"])
def test_methods_that_train_everything(method: str, place: Path) -> None:
    old = ["--old-images", place / "old"] if method == "joint" else []
    done("extend", place / "base", place / "new", "--out", place / "g", "--method", method, *old, "--set", "epochs=1",
         "--set", "milestones=[0.5]", "--set", "optimiser=adamw", "--set", "augment=none")  # fmt: skip
    assert not torch.equal(logits(place / "g", place / "old")[:, :3], logits(place / "base", place / "old"))
    done("undo", place / "g")
    assert torch.equal(logits(place / "g", place / "old"), logits(place / "base", place / "old"))


def test_undo_in_place_and_as_a_copy(place: Path) -> None:
    before = contents(place / "grown")
    assert "taken back: 2 classes added by imprint" in done("undo", place / "grown", "--out", place / "copy").out
    assert contents(place / "grown") == before
    done("undo", place / "grown")
    for folder in ("grown", "copy"):
        assert classgraft.load(place / folder).classes == OLD
        assert torch.equal(logits(place / folder, place / "old"), logits(place / "base", place / "old"))
    assert not list((place / "grown").glob("undo-*"))


def test_extended_in_place_again_and_again_and_undone_to_the_start(place: Path) -> None:
    base, folder = logits(place / "base", place / "old"), place / "base"
    done("extend", folder, place / "new", "--out", folder, "--method", "imprint")
    done("extend", folder, photos(place / "more", ["grey"]), "--out", folder, "--method", "rows", "--set", "steps=2")
    done("remove", folder, "green")
    assert classgraft.load(folder).classes == ("red", "blue", "cyan", "pink", "grey")
    sentences = [done("undo", folder).out for _ in range(3)]
    assert ["removed" in sentences[0], "by rows" in sentences[1], "by imprint" in sentences[2]] == [True] * 3
    assert torch.equal(logits(folder, place / "old"), base)
    assert run("undo", folder).code == 2


def test_a_removed_class_is_never_predicted_and_the_others_keep_their_logits(place: Path) -> None:
    before = logits(place / "grown", place / "old")
    ran = done("remove", place / "grown", "green", "--out", place / "less")
    assert ran.out == "the class 'green' was removed; 4 are left\n"
    bundle = classgraft.load(place / "less")
    assert (bundle.classes, bundle.added) == (("red", "blue", "cyan", "pink"), NEW)
    after = answers(bundle.model, classgraft.api.labelled(bundle, [place / "old"], skip_unknown=True))
    kept = [i for i in range(9) if not 3 <= i < 6]  # folders are read in order of their names: blue, green, red
    assert torch.allclose(after, before[kept][:, [0, 2, 3, 4]], atol=1e-5)


def test_the_report_is_one_page_in_the_bundle_or_elsewhere(place: Path) -> None:
    assert done("report", place / "grown", place / "old", place / "new").out == f"{place / 'grown/report.html'}\n"
    page = (place / "grown/report.html").read_text("utf-8")
    assert all(name in page for name in (*OLD, *NEW))
    assert "http-equiv=refresh" not in page
    assert '<script src="http' not in page
    done("report", place / "grown", place / "new", "--out", place / "deep/page.html")
    assert (place / "deep/page.html").stat().st_size > 10_000
    assert classgraft.load(place / "grown").classes == (*OLD, *NEW)


def test_a_report_after_a_removal_is_about_the_extension(place: Path) -> None:
    done("remove", place / "grown", "red")
    done("report", place / "grown", place / "old", place / "new")
    assert "2 classes grafted onto 3" in (place / "grown/report.html").read_text("utf-8")


NAMES = (
    "日本 語.v2",
    "naïve 🌸",
    "a/b",
    "../../etc/passwd",
    "con",
    ".hidden",
    "-x",
    "العربية",
    "x" * 300,
    "{0} %s \\n",
)


def test_names_in_any_script_come_back_as_they_were(place: Path) -> None:
    source = table(place / "t.parquet", NAMES, ["cyan", "pink"] * 5)
    before = set(os.listdir(place))
    done("extend", place / "base", source, "--out", place / "g", "--method", "imprint")
    assert set(os.listdir(place)) == before | {"g"}  # a name is never a path
    assert classgraft.load(place / "g").classes == (*OLD, *NAMES)
    assert set(json.loads(done("evaluate", place / "g", source, "--json").out)["per_class"]) == set(NAMES)
    done("report", place / "g", source)
    for name in NAMES[:3]:
        done("remove", place / "g", name)
    done("remove", place / "g", "--", "-x")
    assert classgraft.load(place / "g").classes == (*OLD, *NAMES[3:6], *NAMES[7:])


def test_folders_in_two_unicode_forms_are_one_class(place: Path) -> None:
    photo(place / "p/cafe\u0301 ☕/0.png", "cyan")
    done("extend", place / "base", place / "p", "--out", place / "g", "--method", "imprint")
    assert classgraft.load(place / "g").added == ("caf\u00e9 ☕",)
    done("remove", place / "g", "cafe\u0301 ☕")


def test_skipped_images_are_counted_on_standard_error(place: Path) -> None:
    (place / "new/cyan/0.png").write_bytes(b"")
    whole = (place / "new/pink/1.png").read_bytes()
    (place / "new/pink/1.png").write_bytes(whole[: len(whole) // 2])
    ran = run("extend", place / "base", place / "new", "--out", place / "g", "--method", "imprint")
    assert (ran.code, ran.err.count("\n")) == (0, 1)
    assert "warning: 2 corrupt images skipped: image 'cyan/0.png'" in ran.err
    assert "from 4 photos" in ran.out
    ran = run("evaluate", place / "grown", place / "new", "--json")
    assert json.loads(ran.out)["n"]["all"] == 4
    assert "2 corrupt images skipped" in ran.err
    ran = run("predict", place / "grown", place / "new")
    assert (len(ran.out.splitlines()), "2 corrupt images skipped" in ran.err) == (4, True)


def test_images_of_unknown_classes_are_left_out_on_request_and_counted(place: Path) -> None:
    copied(place / "new", place / "mixed")
    copied(place / "old", place / "mixed")
    ran = run("evaluate", place / "base", place / "mixed", "--skip-unknown", "--json")
    assert (ran.code, json.loads(ran.out)["n"]) == (0, {"old": 9, "new": 0, "all": 9})
    assert ran.err == "warning: 6 images of 2 classes that the model does not have are left out.\n"


def test_methods_are_listed_each_on_a_line() -> None:
    lines = done("methods").out.splitlines()
    assert [line.split()[:2] for line in lines] == [["extend", "auto"], *([e.verb, e.name] for e in catalogue.ENTRIES)]


@pytest.mark.parametrize(
    "command",
    ["import", "extend", "evaluate", "predict", "report", "undo", "remove", "rename", "merge", "demo", "latent"],
)
def test_every_command_says_what_it_takes(command: str) -> None:
    assert f"Usage: classgraft {command}" in done(command, "--help").out


def test_without_a_command_the_help_is_shown() -> None:
    assert done().out == done("--help").out


def test_the_demonstration_saves_a_grown_model_and_its_page(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    train, test = demonstration.digits(0)

    def few(seed: int) -> tuple[Images, Images]:
        return train.shots(6, seed), test.shots(3, seed)

    monkeypatch.setattr(demonstration, "digits", few)
    out = done("demo", "--out", tmp_path / "d").out
    for name in ("before", "glne", "finetune", "joint"):
        assert name in out
    assert "24 + 6" in out
    bundle = classgraft.load(tmp_path / "d")
    assert (bundle.classes, bundle.added) == (demonstration.NAMES, ("eight", "nine"))
    assert "eight" in (tmp_path / "d/report.html").read_text("utf-8")
    done("undo", tmp_path / "d")
    assert classgraft.load(tmp_path / "d").classes == demonstration.NAMES[:8]


# -- as processes --------------------------------------------------------------------------------------------------


def test_exit_codes_and_streams_of_a_process(place: Path) -> None:
    good = process("predict", place / "grown", place / "new/cyan/0.png", "--json")
    assert (good.returncode, good.stderr) == (0, "")
    assert json.loads(good.stdout)[0]["file"].endswith("0.png")
    bad = process("undo", place / "base")
    assert (bad.returncode, bad.stdout, bad.stderr.count("\n")) == (2, "", 1)
    assert "nothing to undo" in bad.stderr


@pytest.mark.parametrize("words", [["methods"], ["evaluate", "grown", "new"], ["predict", "grown", "new"], ["--help"]])
def test_a_reader_that_leaves_is_no_fault(words: list[str], place: Path) -> None:
    source, sink = os.pipe()
    os.close(source)
    ran = subprocess.run([sys.executable, "-m", "classgraft", *words], cwd=place, stdout=sink, stderr=subprocess.PIPE,
                         env={**os.environ, "PYTHONPATH": str(Path(classgraft.__file__).parents[1])})  # fmt: skip
    os.close(sink)
    assert (ran.returncode, ran.stderr) == (0, b"")


def test_renamed_and_merged_in_place(place: Path) -> None:
    assert done("rename", place / "grown", "red", "rot").out == "the class 'red' was renamed 'rot'\n"
    ran = done("merge", place / "grown", "cyan", "pink", "--name", "pastel")
    assert ran.out == "the classes 'cyan' and 'pink' were made one, 'pastel'; 4 are left\n"
    assert classgraft.load(place / "grown").classes == ("rot", "green", "blue", "pastel")
    assert classgraft.load(place / "grown").added == ("pastel",)
    done("undo", place / "grown")
    done("undo", place / "grown")
    assert classgraft.load(place / "grown").classes == (*OLD, *NEW)


def test_images_from_several_sources_and_data_sets(place: Path) -> None:
    table(place / "t.parquet", ["grey"], ["grey"])
    ran = done("extend", place / "base", place / "new", place / "t.parquet", "torchvision:FakeData,size=4,num_classes=1",
               "--out", place / "g", "--method", "imprint")  # fmt: skip
    assert "4 classes added by imprint from 12 photos" in ran.out
    assert classgraft.load(place / "g").added == ("cyan", "pink", "grey", "0")


def test_a_terminal_that_knows_only_ascii(place: Path) -> None:
    source = table(place / "t.parquet", ["日本 🌸"], ["cyan"])
    words = ("extend", place / "base", source, "--out", place / "g", "--method", "imprint")
    ran = process(*words, env={**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0"})
    assert (ran.returncode, ran.stderr) == (0, "")
    assert "new: \\u65e5\\u672c" in ran.stdout


# -- real data -----------------------------------------------------------------------------------------------------


def test_a_real_imagenet_model_learns_two_flowers_from_one_photo_each(data: Path, tmp_path: Path) -> None:
    weights = data / "weights"
    done("import", "timm:mobilenetv2_100", "--arch-arg", "pad_type=same", "--out", tmp_path / "base",
         "--weights", weights / "mobilenetv2_100-imagenet.safetensors", "--classes", weights / "imagenet_classes.txt",
         "--mean", 0.5, 0.5, 0.5, "--std", 0.5, 0.5, 0.5)  # fmt: skip
    flowers = sorted(path.name for path in (data / "flowers_dev/train").iterdir())[:2]
    for split in ("train", "test"):
        (tmp_path / split).mkdir()
        for name in flowers:
            copied(data / "flowers_dev" / split / name, tmp_path / split / name)
    ran = run("extend", tmp_path / "base", tmp_path / "train", "--out", tmp_path / "grown", "--shots", 1)
    assert ran.code == 0, ran
    assert "1002 classes" in ran.out
    found = json.loads(done("evaluate", tmp_path / "grown", tmp_path / "test", "--json").out)
    assert found["new"] > 0.6  # of 1002 classes, from one photo each
    assert found["old"] is None
    done("undo", tmp_path / "grown")
    base, undone = classgraft.load(tmp_path / "base"), classgraft.load(tmp_path / "grown")
    assert undone.classes == base.classes
    for key, value in base.model.state_dict().items():
        assert torch.equal(value, undone.model.state_dict()[key])
    picture = sorted((tmp_path / "test" / flowers[0]).iterdir())[0]
    (answer,) = json.loads(done("predict", tmp_path / "grown", picture, "--json").out)
    assert not set(answer["classes"]) & set(flowers)


# -- what a person gives -------------------------------------------------------------------------------------------


def test_every_command_for_pictures_takes_tables_shards_and_data_sets(place: Path) -> None:
    (place / "shards").mkdir()
    for part in (0, 1):
        table(place / "shards" / f"train-{part}.parquet", OLD, OLD, 1)
    single = table(place / "one.parquet", OLD, OLD)
    assert len(done("predict", place / "base", single, place / "old").out.splitlines()) == 6 + 9
    assert len(done("predict", place / "base", place / "shards").out.splitlines()) == 6
    assert len(done("predict", place / "base", "torchvision:FakeData,size=4").out.splitlines()) == 4
    done("verify", place / "grown", "--images", place / "shards")
    done("export", place / "base", "--format", "torch-export", "--out", place / "e", "--images", place / "shards")
    for free in (place / "shards", "torchvision:FakeData,size=4"):
        out = place / f"s{len(str(free))}"
        hurried("self-train", place / "base", place / "old", free, "--epochs", 1, "--batch-size", 4, "--out", out)
        done(
            "distill", place / "base", free, "--unlabelled", "--student", "cifar:resnet20", "--epochs", 1, "--out", out
        )


def test_a_page_of_a_class_that_was_renamed_since_takes_its_new_name(place: Path) -> None:
    done("rename", place / "grown", "cyan", "teal")
    done("rename", place / "grown", "pink", "cyan")
    (place / "new" / "cyan").rename(place / "new" / "teal")
    (place / "new" / "pink").rename(place / "new" / "cyan")
    done("report", place / "grown", place / "old", place / "new")
    assert "teal" not in (place / "grown" / "report.html").read_text("utf-8")
    done("distill", place / "grown", place / "old", "--student", "cifar:resnet20", "--epochs", 1, "--out", place / "d")
    ran = run("report", place / "d", place / "old")
    assert (ran.code, is_sentence(ran.err.strip())) == (2, True)
    assert "report the one that was extended" in ran.err


def test_a_page_of_classes_that_were_merged_since_is_of_both(place: Path) -> None:
    done("merge", place / "grown", "cyan", "pink", "--name", "pastel")
    assert run("report", place / "grown", place / "old", place / "new").code == 0
    (place / "new" / "cyan").rename(place / "new" / "pastel")
    ran = run("report", place / "grown", place / "old", place / "new")
    assert ran.code == 2
    assert "'pastel' was still two classes" in ran.err
    assert "'cyan' and 'pink'; give their images under these names" in ran.err
    assert "2 classes grafted onto 3" in (place / "grown" / "report.html").read_text("utf-8")


def test_a_page_is_of_the_last_extension_although_its_classes_are_gone(place: Path) -> None:
    done("remove", place / "grown", "cyan")
    done("remove", place / "grown", "pink")
    done("report", place / "grown", place / "old", place / "new")
    assert "2 classes grafted onto 3" in (place / "grown" / "report.html").read_text("utf-8")


STEPS: dict[str, list[str]] = {
    "extend": ["more", "--out", "link", "--method", "imprint"],
    "remember": ["old", "--method", "ncm"],
    "undo": [],
    "remove": ["red"],
    "rename": ["red", "rot"],
    "merge": ["red", "green"],
    "self-train": ["old", "new", "--epochs", "1", "--batch-size", "4", "--out", "grown"],
    "distill": ["old", "--student", "cifar:resnet20", "--epochs", "1", "--out", "grown"],
}


@pytest.mark.parametrize("command", STEPS)
def test_a_step_that_is_taken_meanwhile_is_not_lost(command: str, place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody renames a class while the command works."""
    (place / "link").symlink_to("grown")
    photos(place / "more", ["grey"])
    opened = classgraft.folder.opened

    def slow(folder: Path, network: None = None) -> object:
        found = opened(folder, network)
        monkeypatch.setattr("classgraft.folder.opened", opened)
        done("rename", place / "grown", "cyan", "teal")
        return found

    monkeypatch.setattr("classgraft.folder.opened", slow)
    ran = run(command, place / "grown", *(place / word if (place / word).exists() else word for word in STEPS[command]))
    assert (ran.code, "was changed after this was made from it; load it again and repeat the step" in ran.err) == (
        2,
        True,
    ), ran
    assert classgraft.load(place / "grown").classes == (*OLD, "teal", "pink")


def test_a_place_that_cannot_be_written_is_refused_before_the_work(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object, **__: object) -> None:
        raise AssertionError

    for work in ("api.extend", "api.remember", "api.export", "pages.of_extension", "latent_page.of_latent",
                 "evaluator.bench.bench"):  # fmt: skip
        monkeypatch.setattr(f"classgraft.{work}", never)
    for command in (
        ["extend", place / "base", place / "new"], ["remember", place / "base", place / "old", "--method", "ncm"],
        ["export", place / "base", "--format", "timm"], ["report", place / "grown", place / "old"],
        ["latent", place / "old"], ["bench", "--methods", "rows", "--images", place / "old", "--test", place / "old"],
    ):  # fmt: skip
        for out in ("/proc/x", place / "names.txt" / "x"):
            ran = run(*command, "--out", out)
            assert (ran.code, is_sentence(ran.err.strip()), str(out) in ran.err) == (2, True, True), ran
    ran = run("report", place / "grown", place / "old", "--out", place / "new")
    assert "(it is a folder); name a file in it" in ran.err


def test_arguments_of_a_network_that_nobody_builds_are_refused(place: Path) -> None:
    ran = run(
        "self-train", place / "base", place / "old", place / "new", "--arch-arg", "nonsense=1", "--out", place / "x"
    )
    assert (ran.code, "name it with --student, or leave it out" in ran.err) == (2, True)
    ran = run("distill", place / "base", place / "old", "--student", place / "grown", "--arch-arg", "nonsense=1", "--out",
              place / "x")  # fmt: skip
    assert (ran.code, "is a folder with one; leave it out" in ran.err) == (2, True)


def test_as_many_classes_are_shown_as_python_gives(place: Path) -> None:
    (line,) = done("predict", place / "grown", place / "new/cyan/0.png").out.splitlines()
    (found,) = classgraft.predict(classgraft.load(place / "grown"), [place / "new/cyan/0.png"])
    assert line.count("%") == len(found.classes) == 5


def test_a_folder_that_is_gone_under_ones_feet_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    ran = run("methods")
    assert (ran.code, is_sentence(ran.err.strip()), "is gone" in ran.err) == (2, True, True)


@pytest.mark.parametrize("device", ["foo", "mps", "cuda:99", "meta"])
def test_a_device_that_is_not_there_is_a_sentence(device: str, place: Path) -> None:
    ran = run("extend", place / "base", place / "new", "--out", place / "x", "--device", device)
    assert (ran.code, is_sentence(ran.err.strip())) == (2, True), ran.err
    assert f"The device '{device}' is not to be had here" in ran.err
    assert not (place / "x").exists()


def test_a_name_that_is_among_the_synonyms_of_an_old_class_is_pointed_out(place: Path) -> None:
    done("rename", place / "base", "red", "red, Cyan")
    ran = run("extend", place / "base", place / "new", "--out", place / "x")
    assert "'cyan' is added beside 'red, Cyan', which may be the same; remove it again if it is." in ran.err
    assert classgraft.load(place / "x").classes[-2:] == NEW


def test_old_images_that_a_method_cannot_keep_are_said_to_be_measured_on_alone(place: Path) -> None:
    ran = run("extend", place / "base", place / "new", "--out", place / "x", "--method", "finetune", "--epochs", 1,
              "--old-images", place / "old")  # fmt: skip
    assert ran.code == 0
    assert "finetune keeps nothing of old images; those given are only what its change is measured on." in ran.err
    assert classgraft.load(place / "x").history[-1]["settings"]["recipe"]["epochs"] == 1


def test_the_list_of_methods_names_auto_and_bench_says_what_it_is() -> None:
    assert "auto" in done("methods").out
    ran = run("bench", "--methods", "auto", "--images", "a", "--test", "b", "--out", "c")
    assert (ran.code, "where several are compared, name them" in ran.err) == (2, True)


def test_numbers_that_are_none_are_sentences(place: Path) -> None:
    ran = run("extend", place / "base", place / "new", "--out", place / "x", "--set", f"views={'9' * 5000}")
    assert (ran.code, is_sentence(ran.err.strip())) == (2, True)
    ran = run("bench", "--methods", "rows", "--images", place / "old", "--test", place / "old", "--out", place / "x",
              "--order-seed", "²")  # fmt: skip
    assert (ran.code, is_sentence(ran.err.strip())) == (2, True), ran.err


def test_photos_in_memory_are_cropped_and_counted_as_files_are(tmp_path: Path) -> None:
    bundle = classgraft.import_model(Tiny(), classes=OLD, size=8, resize=8)
    wide = torch.zeros(1, 3, 32, 96, dtype=torch.uint8)
    wide[..., 32:64] = 250
    grown = classgraft.extend(
        bundle.model, OLD, {"x": wide, "y": wide.transpose(2, 3)}, method="imprint", size=8, resize=8
    )
    assert grown.classes == (*OLD, "x", "y")
    across, down = looking.in_memory({"x": wide, "y": wide.transpose(2, 3)}, bundle.preparation).pixels
    assert across.float().mean() > 240
    assert torch.equal(down, across.transpose(1, 2))
    good, bad = photo(tmp_path / "a.png", "cyan"), tmp_path / "b.png"
    bad.write_bytes(b"no picture")
    heard: list[str] = []
    classgraft.extend(Tiny(), OLD, {"x": [good, bad]}, method="imprint", size=8, resize=8, warn=heard.append)
    assert "1 corrupt image skipped" in heard[0]
    with pytest.raises(classgraft.InputError, match=r"b\.png"):
        classgraft.extend(Tiny(), OLD, {"x": [good, bad]}, method="imprint", size=8, resize=8, strict=True)


def test_a_page_is_made_of_a_step_that_only_refined(place: Path) -> None:
    done("extend", place / "base", place / "new", "--out", place / "g", "--method", "glne")
    done(
        "extend", place / "g", photos(place / "more", NEW[:1], 2), "--out", place / "g", "--method", "glne", "--update"
    )
    done("report", place / "g", place / "old", place / "new")
    assert "2 classes grafted onto 3" in (place / "g" / "report.html").read_text("utf-8")


def test_pictures_of_two_sources_that_are_called_the_same_are_told_apart(
    place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[bytes] = []
    monkeypatch.setattr("classgraft.pages.open_rgb", lambda data, name: opened.append(data) or Image.new("RGB", (8, 8)))
    for source, colour in (("one", "red"), ("two", "blue")):
        photo(place / source / "green" / "0.png", colour)  # wrong on purpose, so that they are shown
    run("report", place / "grown", place / "one", place / "two", place / "new")
    shown = {(place / source / "green" / "0.png").read_bytes() for source in ("one", "two")}
    assert shown <= set(opened)
