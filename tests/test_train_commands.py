"""Training and self-training from the shell, as a person does it."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from outside import NEW, OLD, copied, done, furnish, hurried, is_sentence, run, table
from safetensors.torch import load_file, save_file

import classgraft


@pytest.fixture(scope="module")
def furnished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return furnish(tmp_path_factory.mktemp("furnished"))


@pytest.fixture
def place(furnished: Path, tmp_path: Path) -> Path:
    return copied(furnished, tmp_path / "place")


QUICK = ("--epochs", 3, "--batch-size", 4, "--lr", 0.02, "--augment", "flip")


def test_a_classifier_is_trained_from_scratch_with_the_recipe_that_was_given(place: Path) -> None:
    ran = hurried("train", place / "old", "--arch", "cifar:resnet20", "--out", place / "b", *QUICK, "--seed", 3,
               "--weight-decay", 0.001, "--milestones", 0.5, 0.75, "--method", "cosine", "--shots", 2)  # fmt: skip
    assert "trained by cosine on 6 images" in ran.out
    bundle = classgraft.load(place / "b")
    assert bundle.classes == tuple(sorted(OLD))
    recipe = bundle.history[-1]["settings"]["recipe"]
    expected = {"epochs": 3, "batch_size": 4, "lr": 0.02, "augment": "flip", "seed": 3, "weight_decay": 0.001}
    assert {key: recipe[key] for key in expected} == expected
    assert tuple(recipe["milestones"]) == (0.5, 0.75)
    drawn = bundle.history[-1]
    assert (drawn["shots"], drawn["seed"], drawn["images"]["seen"]) == (2, 3, 6)
    assert len(drawn["images"]["fingerprint"]) == 64


def test_a_trained_body_is_kept_and_its_head_replaced(place: Path) -> None:
    start = classgraft.start("cifar:resnet20", ("a", "b"), place / "w.safetensors")
    base = classgraft.load(place / "base").model
    for mine, theirs in zip(start.model.body.parameters(), base.body.parameters(), strict=True):
        assert torch.equal(mine, theirs)
    assert start.model.head.weight.shape == (2, 64)
    assert start.model.head.weight.abs().max() > 0
    again = classgraft.start("cifar:resnet20", ("a", "b"), place / "w.safetensors")
    other = classgraft.start("cifar:resnet20", ("a", "b"), seed=1)
    assert torch.equal(start.model.head.weight, again.model.head.weight)
    assert not torch.equal(start.model.head.weight, other.model.head.weight)
    hurried("train", place / "new", "--arch", "cifar:resnet20", "--weights", place / "w.safetensors", "--out",
         place / "b", *QUICK)  # fmt: skip
    assert classgraft.load(place / "b").classes == NEW


@pytest.mark.parametrize("student", [(), ("--student", "cifar:resnet32")])
def test_a_model_trains_on_with_unlabelled_pictures(place: Path, student: tuple[str, ...]) -> None:
    ran = hurried("self-train", place / "base", place / "old", place / "new", "--out", place / "s", *QUICK,
               "--method", "mean-teacher", *student)  # fmt: skip
    assert "trained by mean-teacher on 9 labelled and 6 unlabelled images" in ran.out
    found = classgraft.load(place / "s")
    assert found.classes == OLD
    assert found.architecture.source == f"cifar:resnet{32 if student else 20}"
    assert found.history[-1]["event"] == "self-train"


def test_a_table_without_a_glance_at_its_labels_and_a_flat_folder_are_unlabelled_pictures(place: Path) -> None:
    bundle = classgraft.load(place / "base")
    found = classgraft.api.unlabelled_images(bundle, table(place / "t.parquet", ("x", "y"), ("pink", "grey")))
    assert (len(found), found.classes, int(found.labels.max())) == (4, ("",), 0)
    assert len(classgraft.api.unlabelled_images(bundle, place / "new/cyan")) == 3


def test_unlabelled_pictures_reach_a_method_that_looks_at_them_itself(place: Path) -> None:
    done("extend", place / "base", place / "new", "--out", place / "g", "--unlabelled", place / "old", "--method", "mas",
         "--set", "epochs=1")  # fmt: skip
    found = classgraft.load(place / "g")
    assert (found.added, found.history[-1]["named"]) == (NEW, 0)


def test_unlabelled_pictures_that_are_surely_of_a_new_class_count_as_photos_of_it(place: Path) -> None:
    words = ("extend", place / "base", place / "new", "--shots", 1, "--out", place / "g", "--set", "views=1")
    done(*words)
    alone = classgraft.load(place / "g").model.head.weight
    ran = done(*words, "--unlabelled", place / "new")
    found = classgraft.load(place / "g")
    count = found.history[-1]["named"]
    assert 0 < count <= 6
    assert f"from 2 photos and {count} that it named itself" in ran.out
    assert not torch.equal(found.model.head.weight, alone)


@pytest.mark.parametrize(
    ("words", "part"),
    [
        (("--arch", "cifar:resnet21"), "resnet20"),
        (("--arch", "cifar:resnet20", "--method", "glne"), "no method 'glne' to train"),
        (("--arch", "cifar:resnet20", "--augment", "crop"), "no augmentation 'crop'"),
        (("--arch", "cifar:resnet32", "--weights", "w.safetensors"), "do not fit"),
    ],
)
def test_what_does_not_fit_is_said_in_a_sentence(place: Path, words: tuple[str, ...], part: str) -> None:
    given = [place / word if word.endswith(".safetensors") else word for word in words]
    ran = run("train", place / "old", "--out", place / "b", *given)
    assert ran.code == 2
    assert is_sentence(ran.err.strip())
    assert part in ran.err
    assert not (place / "b").exists()


def test_photos_are_enriched_before_the_extension(place: Path) -> None:
    from classgraft import extending
    from classgraft.data.images import Task
    from classgraft.trainers.glico import GLICO

    seen: list[Task] = []
    spied = extending.enriched

    def quick(task: Task, count: int, model: classgraft.Classifier, method: GLICO) -> Task:
        seen.append(spied(task, count, model, GLICO(width=4, drawing=2, recipe=method.recipe)))
        return seen[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(extending, "enriched", quick)
        done("extend", place / "base", place / "new", "--out", place / "g", "--enrich", 4, "--set", "views=2")
    assert len(seen[0].train) == 6 + 2 * 4
    assert classgraft.load(place / "g").history[-1]["enriched"] == 4
    words = ("--shots", 1, "--enrich", 4, "--set", "views=2")
    ran = run("extend", place / "base", place / "new", "--out", place / "g1", *words)
    assert (ran.code, ran.err.count("Of 2 classes, such as 'cyan', there is one photo")) == (0, 1)


def test_a_page_shows_what_lies_between_the_photos(place: Path) -> None:
    quick = ("--shots", 2, "--set", "drawing=2", "--set", "width=4", "--set", "dimension=8")
    assert done("latent", place / "old", "--out", place / "l.html", *quick).out == f"{place / 'l.html'}\n"
    page = (place / "l.html").read_text("utf-8")
    assert page.count("data:image/jpeg") == 3 * 10
    assert all(name in page for name in OLD)


def test_weights_from_elsewhere_learn_more_gently_than_fresh_ones_unless_a_rate_is_asked_for(place: Path) -> None:
    trained = load_file(place / "w.safetensors")
    trained["bn1.running_mean"] += 0.1
    save_file(trained, place / "trained.safetensors")
    weights = ("--weights", place / "trained.safetensors")

    def recipe(*words: object, out: str = "b") -> tuple[str, float]:
        hurried(*words, "--out", place / out, "--epochs", 1)
        found = classgraft.load(place / out).history[-1]["settings"]["recipe"]
        return found["optimiser"], found["lr"]

    train = ("train", place / "old", "--arch", "cifar:resnet20")
    assert recipe(*train, *weights) == ("adamw", 5e-4)
    norms = [name for name in trained if "bn" in name]
    flat = {**trained, **{name: torch.zeros_like(trained[name]) for name in norms if "running_mean" in name}}
    save_file(
        {**flat, **{name: flat[name] + 0.1 for name in norms if name.endswith("bias")}}, place / "flat.safetensors"
    )
    assert recipe(*train, "--weights", place / "flat.safetensors") == ("adamw", 2e-4)  # batch norm is folded
    assert recipe(*train) == ("sgd", 0.1)
    assert recipe(*train, *weights, "--lr", 0.02) == ("sgd", 0.02)
    assert recipe(*train, *weights, "--set", "optimiser=adamw", "--lr", 0.002) == ("adamw", 0.002)
    assert recipe(*train, *weights, "--set", "linear_probe=1") == ("sgd", 0.1)
    assert recipe(*train, *weights, "--set", "linear_probe=0.5") == ("adamw", 5e-4)
    done("import", "cifar:resnet20", *weights, "--classes", place / "names.txt", "--out", place / "imported")
    further = ("self-train", place / "imported", place / "old", place / "new")
    assert recipe(*further, out="s") == ("adamw", 5e-4)
    assert recipe(*further, "--student", "cifar:resnet20", out="fresh") == ("sgd", 0.03)
    grown = (
        "extend",
        place / "imported",
        place / "new",
        "--old-images",
        place / "old",
        "--set",
        "epochs=1",
        "--method",
    )
    for method, given, expected in (
        ("wa", (), ("adamw", 5e-4)), ("wa", ("--set", "lr=0.01"), ("sgd", 0.01)), ("ewc", (), ("adamw", 2e-4)),
    ):  # fmt: skip
        done(*grown, method, *given, "--out", place / "grown further")
        found = classgraft.load(place / "grown further").history[-1]["settings"]["recipe"]
        assert (found["optimiser"], found["lr"]) == expected, method
    shrunk = ("distill", place / "base", place / "old", "--student")
    assert recipe(*shrunk, place / "imported", out="d") == ("adamw", 5e-4)
    assert recipe(*shrunk, "cifar:resnet20", out="d2") == ("sgd", 0.05)
    hurried(*train, "--out", place / "own", "--epochs", 1)
    assert recipe("self-train", place / "own", place / "old", place / "new", out="s2") == ("sgd", 0.03)


def test_training_takes_images_as_the_trained_network_took_them(place: Path) -> None:
    hurried("train", place / "old", "--arch", "cifar:resnet20", "--weights", place / "w.safetensors", "--out", place / "b",
         "--size", 24, "--resize", 28, "--mean", 0.5, 0.5, 0.4, "--std", 0.5, 0.5, 0.6, "--stretch", *QUICK)  # fmt: skip
    assert classgraft.load(place / "b").preparation == classgraft.Preparation(
        24, 28, (0.5, 0.5, 0.4), (0.5, 0.5, 0.6), True
    )


def test_a_network_that_answers_one_class_to_all_is_told_of(place: Path) -> None:
    bundle = classgraft.start("cifar:resnet20", OLD, size=16)
    with torch.no_grad():
        bundle.model.head.weight.zero_()
        bundle.model.head.bias.copy_(torch.tensor([0.0, 1.0, 0.0]))
    told: list[str] = []
    classgraft.train(bundle, str(place / "old"), settings={"epochs": 1, "lr": 1e-9}, warn=told.append)
    assert (
        [sentence for sentence in told if f"for '{OLD[1]}'" in sentence and "learning rate" in sentence] == told != []
    )
    told.clear()
    classgraft.train(bundle, str(place / "old"), settings={"epochs": 20, "lr": 0.02, "batch_size": 4}, warn=told.append)
    assert told == []
