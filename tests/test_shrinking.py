"""``classgraft distill`` from end to end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from outside import NEW, OLD, contents, copied, done, furnish, is_sentence, photo, photos, run, table

import classgraft
from classgraft.api import labelled
from classgraft.data.images import Images
from classgraft.errors import InputError
from classgraft.training.answers import answers
from classgraft.training.journal import keeping

QUICK = ("--set", "epochs=2", "--set", "batch_size=16")


@pytest.fixture(scope="module")
def furnished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = furnish(tmp_path_factory.mktemp("furnished"))
    photos(place / "all", (*OLD, *NEW), 10)
    for i in range(20):
        photo(place / "flat" / f"{i}.png", (*OLD, *NEW)[i % 5], i)
    return place


@pytest.fixture
def place(furnished: Path, tmp_path: Path) -> Path:
    return copied(furnished, tmp_path / "place")


def distilled(place: Path, images: object, *words: object, student: object = "cifar:resnet20") -> Any:
    """The bundle that the command writes."""
    done("distill", place / "grown", images, "--student", student, "--out", place / "student", *QUICK, *words)
    return classgraft.load(place / "student")


@pytest.mark.parametrize("method", ["kd", "fitnets", "similarity"])
def test_the_student_is_a_full_bundle_with_the_teacher_s_classes(place: Path, method: str) -> None:
    before, teacher = contents(place / "grown"), classgraft.load(place / "grown")
    bundle = distilled(place, place / "all", "--method", method)
    assert contents(place / "grown") == before
    assert (bundle.classes, bundle.added, bundle.preparation) == (teacher.classes, NEW, teacher.preparation)
    assert bundle.history[:-1] == teacher.history
    assert json.loads(done("evaluate", place / "student", place / "all", "--json").out)["n"]["new"] == 20
    photos(place / "newer", ["grey"], 2)
    done("extend", place / "student", place / "newer", "--out", place / "more", "--method", "imprint")
    assert classgraft.load(place / "more").classes == (*OLD, *NEW, "grey")


def test_the_card_tells_teacher_data_and_loss(place: Path) -> None:
    bundle = distilled(place, place / "all")
    card = (place / "student" / "README.md").read_text("utf-8")
    event = bundle.history[-1]
    lost = event["held_out"]
    assert event["sentence"] in card
    assert "distilled by kd from cifar:resnet20 (269,397 parameters) into 269,397" in card
    assert f"on 45 labelled images of 'all'; of 5 held-out images {lost['student']:.1%} are named right" in card
    assert f"by the teacher {lost['teacher']:.1%}" in card
    assert event["settings"]["recipe"]["epochs"] == 2


def test_what_was_lost_is_measured_on_images_that_the_student_did_not_see(place: Path) -> None:
    teacher = classgraft.load(place / "grown")
    images = labelled(teacher, [place / "all"])
    bundle = classgraft.distill(teacher, images, "cifar:resnet20", settings={"epochs": 1, "batch_size": 16}, seed=3)
    seen, held = images.split(0.1, 3)
    found = [answers(model, held).argmax(1) for model in (teacher.model, bundle.model)]
    rights = [float((own == held.labels).double().mean()) for own in found]
    same = float((found[0] == found[1]).double().mean())
    assert bundle.history[-1]["held_out"] == {"n": 5, "agreement": same, "teacher": rights[0], "student": rights[1]}
    assert bundle.history[-1]["images"] == {"name": "", "seen": 45, "fingerprint": seen.fingerprint}


@pytest.mark.parametrize("method", ["kd", "fitnets", "similarity"])
@pytest.mark.parametrize("form", ["flat", "classes", "parquet"])
def test_images_without_labels_serve_as_well(place: Path, method: str, form: str) -> None:
    images, words = place / "flat", ()
    if form == "classes":
        images, words = photos(place / "any", ["grey", "red"], 10), ("--unlabelled",)
    elif form == "parquet":
        images, words = table(place / "any.parquet", ["so", "lo"], ["red", "grey"], 10), ("--unlabelled",)
    bundle = distilled(place, images, "--method", method, *words)
    assert f"on 18 unlabelled images of '{images.name}'; of 2 held-out images" in bundle.history[-1]["sentence"]
    assert bundle.history[-1]["held_out"].keys() == {"n", "agreement"}
    assert bundle.classes == (*OLD, *NEW)


def test_a_changed_network_becomes_a_plain_one_of_another_kind(place: Path) -> None:
    done("extend", place / "base", place / "new", "--out", place / "grown", "--method", "acwod",
         "--set", "layers=adapter", "--set", "epochs=1")  # fmt: skip
    assert "body" in json.loads((place / "grown" / "config.json").read_text("utf-8"))["graft"]
    bundle = distilled(place, place / "all", student="timm:test_resnet")
    config = json.loads((place / "student" / "config.json").read_text("utf-8"))
    assert (config["architecture"], "body" in config["graft"]) == ("test_resnet", False)
    assert sum(p.numel() for p in bundle.model.parameters()) != 269_397


def test_a_student_may_start_from_a_bundle_s_weights(place: Path) -> None:
    start = classgraft.load(place / "base")
    classgraft.save(start, place / "start")
    for teacher, kept in ((place / "grown", False), (place / "base", True)):
        out = place / f"from-{teacher.name}"
        done("distill", teacher, place / "flat", "--student", place / "start", "--out", out, "--set", "epochs=0")
        found = classgraft.load(out)
        assert found.classes == classgraft.load(teacher).classes
        for name, tensor in start.model.body.state_dict().items():
            assert torch.equal(tensor, found.model.body.state_dict()[name]), name
        rows = found.model.head.weight
        assert torch.equal(rows, start.model.head.weight) if kept else not rows.any()


@pytest.mark.parametrize("method", ["kd", "fitnets", "similarity"])
def test_a_student_whose_batch_norm_is_folded_learns_with_the_statistics_that_it_has(method: str, place: Path) -> None:
    start = classgraft.load(place / "base")  # means of 0 and variances of 1 throughout
    with torch.no_grad():
        for name, parameter in start.model.body.named_parameters():
            if name.endswith(("bn1.bias", "bn2.bias")):
                parameter.fill_(0.1)  # yet it was trained
    found = classgraft.distill(start, place / "flat", start, method=method, settings={"epochs": 1, "lr": 0.001})
    for name, before in start.model.body.state_dict().items():
        after = found.model.body.state_dict()[name]
        assert torch.equal(before, after) == ("running" in name or "tracked" in name), name


def test_fresh_weights_are_drawn_by_the_seed(place: Path) -> None:
    teacher = classgraft.load(place / "grown")

    def weights(seed: int, state: int) -> dict[str, torch.Tensor]:
        torch.manual_seed(state)
        settings = {"epochs": 0}
        bundle = classgraft.distill(teacher, place / "flat", "cifar:resnet20", settings=settings, seed=seed)
        return bundle.model.state_dict()

    once, again, other = weights(0, 1), weights(0, 2), weights(1, 1)
    assert all(torch.equal(once[name], again[name]) for name in once)
    assert not torch.equal(once["body.conv1.weight"], other["body.conv1.weight"])


def test_too_few_images_to_hold_some_out_are_all_learnt_from(place: Path) -> None:
    images = photos(place / "one", OLD, 1)
    bundle = distilled(place, images)
    assert "on 3 labelled images of 'one'; what was lost is not measured" in bundle.history[-1]["sentence"]


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("strange", "--student", "cifar:resnet20"), "leave those images out (with --skip-unknown"),
        (("all", "--student", "cifar:resnet21"), "no network 'cifar:resnet21'"),
        (("all", "--student", "nowhere"), "'nowhere' does not say where the network comes from"),
        (("all", "--student", "timm:vit_tiny_patch16_224"), "32 pixels"),
        (
            ("all", "--student", "cifar:resnet20", "--method", "kdd"),
            "no method 'kdd' to distill with. Did you mean 'kd'",
        ),
        (("all", "--student", "cifar:resnet20", "--set", "share=2"), "share of kd is 2"),
        (("all", "--student", "cifar:resnet20", "--method", "fitnets", "--set", "layers=layer2"), "no pair of layers"),
        (("all", "--student", "cifar:resnet20", "--method", "fitnets", "--set", "layers=layer2=layer9"), "'layer9'"),
        (("empty", "--student", "cifar:resnet20"), "holds no class"),
        (("notes", "--student", "cifar:resnet20"), "holds no image"),
    ],
)
def test_what_does_not_fit_is_said_in_a_sentence(
    place: Path, monkeypatch: pytest.MonkeyPatch, words: tuple[object, ...], says: str
) -> None:
    monkeypatch.chdir(place)
    photos(Path("strange"), ["red", "grey"], 2)
    Path("empty").mkdir()
    Path("notes").mkdir()
    Path("notes/a.txt").write_text("none")
    before = contents(place)
    ran = run("distill", "grown", *words, "--out", "x", *QUICK)
    assert (ran.code, ran.out) == (2, ""), ran
    assert is_sentence(ran.err.splitlines()[-1]), ran.err
    assert says in ran.err
    assert contents(place) == before


def test_images_of_unknown_classes_are_left_out_where_that_is_asked_for(place: Path) -> None:
    ran = run("distill", place / "grown", photos(place / "strange", ["red", "grey"], 4), "--student", "cifar:resnet20",
              "--out", place / "x", "--skip-unknown", *QUICK)  # fmt: skip
    assert (ran.code, "4 images of 1 class that the model does not have are left out" in ran.err) == (0, True)


def test_unlabelled_images_are_no_class_and_split_at_random() -> None:
    images = Images(torch.zeros(20, 3, 8, 8, dtype=torch.uint8), torch.zeros(20, dtype=torch.int64), (),
                    classgraft.Preparation(8, 8))  # fmt: skip
    first, second = images.split(0.25, 0)
    assert (len(first), len(second), first.classes) == (15, 5, ())
    with pytest.raises(classgraft.InputError, match="Labels run from 1"):
        Images(images.pixels, images.labels + 1, (), images.preparation)


def test_images_in_memory_are_looked_at_as_it_is_asked() -> None:
    teacher = classgraft.start("cifar:resnet20", ("a", "b"))
    pixels = torch.randint(0, 256, (24, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    images = Images(pixels, torch.arange(24) % 3, ("a", "b", "zebra"), teacher.preparation)
    quick = {"epochs": 1, "batch_size": 8}
    with pytest.raises(InputError, match="of these images: 'zebra'"):
        classgraft.distill(teacher, images, "cifar:resnet20", settings=quick)
    left = classgraft.distill(teacher, images, "cifar:resnet20", settings=quick, skip_unknown=True)
    assert left.history[-1]["images"]["seen"] + left.history[-1]["held_out"]["n"] == 16
    free = classgraft.distill(teacher, images, "cifar:resnet20", settings={**quick, "share": 1.0}, unlabelled=True)
    assert "unlabelled images" in free.history[-1]["sentence"]
    assert "student" not in free.history[-1]["held_out"]


def test_the_run_folder_of_another_teacher_is_refused(tmp_path: Path) -> None:
    teachers = [classgraft.start("cifar:resnet20", ("a", "b"), seed=seed) for seed in (0, 1)]
    pixels = torch.randint(0, 256, (16, 3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    images = Images(pixels, torch.arange(16) % 2, ("a", "b"), teachers[0].preparation)
    quick = {"epochs": 1, "batch_size": 8}
    with keeping(tmp_path, "distill"):
        classgraft.distill(teachers[0], images, "cifar:resnet20", settings=quick)
    with keeping(tmp_path, "distill"), pytest.raises(InputError, match="holds another run: the settings"):
        classgraft.distill(teachers[1], images, "cifar:resnet20", settings=quick)
