"""The benchmark from end to end: the numbers, what is kept and not run again, and the command."""

from __future__ import annotations

import functools
import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from outside import photos as folders
from outside import run, table
from test_contract import Body, photos
from torch import Tensor, nn

import classgraft
from classgraft.data.images import Images, Task
from classgraft.errors import InputError
from classgraft.evaluator.cells import kept_bytes
from classgraft.evaluator.protocols import Domains, Equal, Split
from classgraft.evaluator.settings import Setting
from classgraft.evaluator.start import Start
from classgraft.extenders.finetune import Finetune
from classgraft.models.classifier import Classifier
from classgraft.training.answers import answers
from classgraft.training.recipe import Recipe
from classgraft.verbs import Extender

NAMES = tuple("abcdefg")
COLOURS = ("red", "green", "blue", "cyan", "pink", "grey")
QUICK = {"epochs": 3, "batch_size": 8, "lr": 0.05}
KEYS = {"seed", "order", "matrix", "average", "last", "forgetting", "old", "new", "harmonic", "bytes", "parameters",
        "seconds"}  # fmt: skip


@dataclass(frozen=True)
class Means(Extender):
    """Rows that point to the classes' mean features; counts what it was given."""

    keeps: ClassVar[str] = "statistics"
    seed: int = 0
    exemplars: int = 9
    recipe: Recipe = Recipe(epochs=1)

    def remember(self, model: Classifier, task: Task, memory: object | None) -> Tensor:
        before = memory if isinstance(memory, Tensor) else torch.zeros(0)
        assert len(before) + len(task.classes) == len(model.classes)
        return torch.ones(len(model.classes))

    def extend(self, model: Classifier, memory: object | None, task: Task) -> Classifier:
        assert (memory is None) == (not model.classes)
        features = answers(model, task.train, model.features)
        rows = torch.stack([features[task.train.labels == k].mean(0) for k in range(len(task.classes))])
        return model.grown(task.classes, rows, -rows.square().sum(1) / 2)


def data(test: int = 4) -> tuple[Images, Images]:
    return photos(NAMES, 8), photos(NAMES, test, 1)


def bench(methods: Any, out: Path, **options: Any) -> dict[str, Any]:
    given = {"protocol": Equal(3, 2), "start": Start(Body), "recipe": QUICK, **options}
    return classgraft.bench(methods, *data(), out=out, **given)


def without_times(results: Any) -> Any:
    if isinstance(results, dict):
        return {key: without_times(value) for key, value in results.items() if "seconds" not in key}
    return [without_times(value) for value in results] if isinstance(results, list) else results


# -- the numbers ---------------------------------------------------------------------------------------------------


def test_a_class_of_ones_own_joins_by_its_instance_and_is_measured_as_by_hand(tmp_path: Path) -> None:
    heard: list[str] = []
    found = bench([Means()], tmp_path / "o", seeds=(3,), tell=heard.append)
    (line,) = found["methods"]["Means"]
    assert set(line) >= KEYS
    assert found == json.loads((tmp_path / "o" / "results.json").read_text())
    assert len(heard) == 1
    assert heard[0].startswith("Means, seed 3, order 1993: average ")
    # the same by hand: frozen features and nearest means
    train, test = data()
    order = [NAMES[k] for k in torch.tensor(np.random.RandomState(1993).permutation(7)).tolist()]
    model = Start(Body).classifier(3)
    features = {part: answers(model, part.of(order), model.features) for part in (train, test)}
    means = torch.stack([features[train][train.of(order).labels == k].mean(0) for k in range(7)])
    truth, groups = test.of(order).labels, [(0, 3), (3, 5), (5, 7)]
    for t, (_, known) in enumerate(groups):
        said = torch.cdist(features[test], means[:known]).argmin(1)
        for j, (first, end) in enumerate(groups):
            here = (truth >= first) & (truth < end)
            if j > t:
                assert line["matrix"][t][j] is None
                continue
            assert line["matrix"][t][j] == pytest.approx(float((said == truth)[here].double().mean()))
            own = torch.cdist(features[test], means[first:end]).argmin(1) + first
            assert line["task_matrix"][t][j] == pytest.approx(float((own == truth)[here].double().mean()))
        seen = truth < known
        assert line["seen"][t] == pytest.approx(float((said == truth)[seen].double().mean()))
    assert line["average"] == pytest.approx(sum(line["seen"]) / 3)
    assert line["bytes"] == 7 * 4
    assert line["parameters"] == sum(p.numel() for p in model.parameters()) + 7 * (6 + 1)
    assert len(line["step_seconds"]) == 3


def test_a_stream_off_b0_10_gives_every_number(tmp_path: Path) -> None:
    for number, protocol in enumerate([Split((1, 4, 2)), Split((5, 1)), Split((7,)), Equal(3, 2, shots=1),
                                       Equal(3, 2, blur=0.5)]):  # fmt: skip
        (line,) = bench(["finetune"], tmp_path / str(number), protocol=protocol)["methods"]["finetune"]
        many = len(line["classes"]) > 1
        assert (line["forgetting"] is not None) == (line["harmonic"] is not None) == many
        assert all(row[t] is not None for t, row in enumerate(line["matrix"]))


def test_a_cell_that_strays_measured_at_one_seed_alone_has_no_mean_on_the_page(tmp_path: Path) -> None:
    blurry = {"protocol": Equal(2, 2, 6, blur=0.1), "seeds": (4, 0)}
    one, other = bench(["imprint"], tmp_path / "o", **blurry)["methods"]["imprint"]
    assert (one["matrix"][0][1] is None, other["matrix"][0][1] is None) == (False, True)
    assert (tmp_path / "o" / "report.html").exists()


def test_forward_transfer_is_measured_where_the_classes_are_known_already(tmp_path: Path) -> None:
    (line,) = bench(["joint"], tmp_path / "o", protocol=Domains("rotated", 3))["methods"]["joint"]
    assert line["matrix"][0][1] is not None
    assert line["matrix"][0][2] is None
    assert line["forward"] == pytest.approx((line["matrix"][0][1] + line["matrix"][1][2]) / 2 - 1 / 7)
    assert line["classes"] == [7, 7, 7]


def test_the_recipe_and_the_budget_reach_whoever_has_them(tmp_path: Path) -> None:
    methods = {"mine": Means(), "by name": "finetune"}
    settings = {"by name": {"lr": 0.01, "statistics": True}}
    found = bench(methods, tmp_path / "o", exemplars=5, seeds=(2, 7), settings=settings)
    assert list(found["methods"]) == ["mine", "by name"]
    mine, named = (found["settings"][label] for label in methods)
    assert mine == repr(Means(exemplars=5, recipe=Recipe(**QUICK)))
    assert named == repr(Finetune(statistics=True, recipe=Recipe(**{**QUICK, "lr": 0.01})))
    cell = json.loads((tmp_path / "o" / "cells" / "mine-seed7-order1993.json").read_text())
    assert cell["facts"]["method"] == repr(Means(seed=7, exemplars=5, recipe=Recipe(**QUICK, seed=7)))
    assert found["recipe"]["epochs"] == 3
    a, b = found["methods"]["mine"]
    assert a["matrix"] != b["matrix"], "another seed draws other weights"


@dataclass(frozen=True)
class Burst(Extender):
    """Diverges."""

    def extend(self, model: Classifier, memory: object | None, task: Task) -> Classifier:
        return model.grown(task.classes, torch.full((len(task.classes), 6), torch.nan))


@dataclass(frozen=True)
class OnABody(Means):
    """Likewise, and looks at the body that it is given."""

    needs_trained_body: ClassVar[bool] = True
    bodies: ClassVar[list[dict[str, Tensor]]] = []

    def extend(self, model: Classifier, memory: object | None, task: Task) -> Classifier:
        if not model.classes:
            self.bodies.append(model.body.state_dict())
        return super().extend(model, memory, task)


def test_what_leaves_the_body_alone_begins_with_one_that_learnt_the_first_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    OnABody.bodies.clear()
    start, learnings = Start("cifar:resnet20"), []
    extend = Finetune.extend

    def counted(self: Finetune, *given: Any) -> Classifier:
        learnings.append(extend(self, *given))
        return learnings[-1]

    monkeypatch.setattr(Finetune, "extend", counted)
    found = bench({"one": OnABody(), "two": OnABody(), "fine": "finetune"}, tmp_path / "o", start=start)
    assert len(learnings) == 1 + 3, "once for both methods; and finetune's own steps"
    for given in OnABody.bodies:
        for other in learnings[:2]:  # the first step of fine-tuning is no different
            assert all(torch.equal(value, other.body.state_dict()[key]) for key, value in given.items())
    assert found["begun"] == ["one", "two"]
    assert "one, two" in (tmp_path / "o" / "report.html").read_text("utf-8")
    assert found["methods"]["one"][0]["seconds"] > found["methods"]["one"][0]["step_seconds"][1]
    fresh = start.classifier(0).body.state_dict()
    assert not all(torch.equal(value, fresh[key]) for key, value in OnABody.bodies[0].items())
    with pytest.raises(InputError, match="network differ"):
        bench({"one": OnABody()}, tmp_path / "o", start=start, recipe={"epochs": 1})
    bench({"one": OnABody()}, tmp_path / "trained")  # a body of one's own may have been trained elsewhere
    assert len(learnings) == 4


def test_what_diverged_is_wrong_everywhere_and_says_so(tmp_path: Path) -> None:
    heard: list[str] = []
    (line,) = bench([Burst()], tmp_path / "o", tell=heard.append)["methods"]["Burst"]
    assert (line["average"], line["task_last"], line["ece"], line["diverged"]) == (0.0, 0.0, None, True)
    assert "diverged" in heard[0]
    assert "NaN" not in (tmp_path / "o" / "results.json").read_text()


def test_bytes_of_a_memory_by_hand() -> None:
    @dataclass(frozen=True)
    class Kept:
        means: Tensor = field(default_factory=lambda: torch.zeros(2, 3))
        names: tuple[str, ...] = ("a", "é")
        parts: dict[str, Any] = field(default_factory=lambda: {"n": 3, "none": None})

    assert kept_bytes(None) == 0
    assert kept_bytes(Kept()) == 24 + 1 + 2 + (1 + 8) + 4
    assert kept_bytes(torch.zeros(4, dtype=torch.uint8)) == 4
    with pytest.raises(TypeError, match="object"):
        kept_bytes(object())


# -- kept, and not run again ---------------------------------------------------------------------------------------


class Stopped(Exception):
    """The machine stops."""


def test_a_killed_cell_goes_on_and_finished_ones_are_not_run_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = bench(["finetune", "joint"], tmp_path / "whole", seeds=(0, 1))
    steps, limit = [0], [22]
    grad = torch.optim.SGD.step

    def counted(self: Any, *args: Any, **options: Any) -> Any:
        steps[0] += 1
        if steps[0] > limit[0]:
            raise Stopped
        return grad(self, *args, **options)

    monkeypatch.setattr(torch.optim.SGD, "step", counted)
    breaks = 0
    while True:
        steps[0] = 0
        try:
            broken = bench(["finetune", "joint"], tmp_path / "broken", seeds=(0, 1))
            break
        except Stopped:
            breaks += 1
            assert breaks < 60
    assert breaks >= 4
    assert without_times(broken) == without_times(whole)
    assert not list((tmp_path / "broken" / "runs").iterdir()), "journals of finished cells are cleared away"
    limit[0] = 0
    heard: list[str] = []
    again = bench(["finetune", "joint"], tmp_path / "broken", seeds=(0, 1), tell=heard.append)
    assert again == broken, "seconds too: nothing was run"
    assert all(line.endswith("(was there)") for line in heard)


def test_what_is_added_later_joins_what_is_there(tmp_path: Path) -> None:
    first = bench([Means()], tmp_path / "o")
    second = bench([Means(), "joint"], tmp_path / "o", seeds=(0, 1), orders=(1993, 5))
    assert second["methods"]["Means"][0] == first["methods"]["Means"][0]
    assert [(row["order"], row["seed"]) for row in second["methods"]["joint"]] == [(1993, 0), (1993, 1), (5, 0), (5, 1)]


@pytest.mark.parametrize(
    ("change", "word"),
    [
        ({"protocol": Equal(2, 2)}, "protocol"),
        ({"recipe": {"epochs": 1}}, "method"),
        ({"start": Start("cifar:resnet20")}, "network"),
    ],
)
def test_another_benchmark_in_the_folder_is_refused(tmp_path: Path, change: dict[str, Any], word: str) -> None:
    bench(["rows"], tmp_path / "o", settings={"rows": {"steps": 2}})
    if word == "method":
        change = {"settings": {"rows": {"steps": 3}}}
    else:
        change = {"settings": {"rows": {"steps": 2}}, **change}
    with pytest.raises(InputError, match=f"of another benchmark: the .*{word}"):
        bench(["rows"], tmp_path / "o", **change)


def test_another_body_under_the_same_name_is_refused(tmp_path: Path) -> None:
    def body(scale: float) -> nn.Module:
        found = Body()
        with torch.no_grad():
            next(found.parameters()).mul_(scale)
        return found

    for scale in (1.0, 1.0, 2.0):
        start = Start(functools.partial(body, scale))
        if scale == 1:
            assert bench(["imprint"], tmp_path / "o", start=start)["network"] == "a function"
            continue
        with pytest.raises(InputError, match="of another benchmark: the network"):
            bench(["imprint"], tmp_path / "o", start=start)


def test_statistics_of_ones_own_instance_are_left_alone(tmp_path: Path) -> None:
    still = Finetune(recipe=Recipe(**QUICK))
    found = bench({"mine": still, "by name": "finetune"}, tmp_path / "o")
    assert "statistics=False" in found["settings"]["mine"]
    assert "statistics=True" in found["settings"]["by name"]


# -- what cannot be ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Forgetful(Extender):
    """Adds nothing."""

    def extend(self, model: Classifier, memory: object | None, task: Task) -> Classifier:
        return model


class Untold(Forgetful):
    """Has a setting that is no field."""

    def __init__(self, rate: float) -> None:
        object.__setattr__(self, "rate", rate)


def test_a_method_that_does_not_tell_its_settings_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="Untold has 'rate', which no field tells"):
        bench([Untold(0.1)], tmp_path / "o")


@pytest.mark.parametrize(
    ("methods", "options", "words"),
    [
        ([], {}, "nothing to run"),
        (["glnee"], {}, "no method 'glnee'"),
        (["rows", "rows"], {}, "'rows' is given twice"),
        (["rows"], {"seeds": (1, 1)}, "'1' is given twice"),
        (["rows"], {"settings": {"joint": {"lr": 1.0}}}, "'joint', which is not one"),
        (["rows"], {"settings": {"rows": {"lrr": 1.0}}}, "no setting 'lrr'"),
        (["rows"], {"protocol": "cifar100-b1"}, "no protocol 'cifar100-b1'"),
        (["rows"], {"orders": ("podnet-1",)}, "of 100 classes"),
        ([Forgetful()], {}, "without the class"),
    ],
)
def test_bad_input_is_a_sentence(tmp_path: Path, methods: Any, options: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        bench(methods, tmp_path / "o", **options)


def test_test_images_must_cover_every_class(tmp_path: Path) -> None:
    train, test = data()
    with pytest.raises(InputError, match="class 'g' has no test image"):
        classgraft.bench(
            ["rows"], train, test.of(NAMES[:6]), out=tmp_path, protocol=Setting(Equal(3, 2)), start=Start(Body)
        )
    with pytest.raises(InputError, match="test images are missing"):
        classgraft.bench(["rows"], train, out=tmp_path)


# -- Ray -----------------------------------------------------------------------------------------------------------


def test_ray_gives_the_same_numbers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("ray", reason="Ray is not installed")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(Path(__file__).parent), *sys.path]))
    monkeypatch.setenv("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    alone = bench(["finetune", Means()], tmp_path / "alone")
    spread = bench(["finetune", Means()], tmp_path / "ray", ray=True)
    assert without_times(spread) == without_times(alone)


def test_without_ray_there_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"pip install 'classgraft\[ray\]'"):
        bench(["rows"], tmp_path / "o", ray=True)


# -- the command ---------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("bench")
    folders(place / "train", COLOURS, 4)
    folders(place / "test", COLOURS, 2)
    table(place / "test.parquet", COLOURS, COLOURS, 2)
    return place


def words(place: Path, out: Path, *more: object) -> list[object]:
    return ["bench", "--images", place / "train", "--test", place / "test", "--size", 12, "--arch", "cifar:resnet20",
            "--first", 2, "--step", 2, "--epochs", 1, "--batch-size", 8, "--out", out, *more]  # fmt: skip


def test_the_command_gives_what_is_pinned(place: Path, tmp_path: Path) -> None:
    ran = run(*words(place, tmp_path / "o", "--methods", "rows,joint", "--seeds", "0,1", "--classes", 5,
                     "--order-seed", "1993", "--lr", 0.05, "--weight-decay", 0, "--milestones", 0.5, 0.9, "--augment",
                     "flip", "--exemplars", 7, "--set", "rows.steps=3", "--set", "joint.balanced=false"))  # fmt: skip
    assert ran.code == 0, ran.err
    lines = ran.out.splitlines()
    assert len(lines) == 5, "one line a cell, and where it all is"
    assert lines[0].startswith("rows, seed 0, order 1993: average ")
    found = json.loads((tmp_path / "o" / "results.json").read_text())
    assert set(found) >= {"methods", "recipe", "versions"}
    assert found["recipe"] == {"epochs": 1, "batch_size": 8, "optimiser": "sgd", "lr": 0.05, "momentum": 0.9,
                               "weight_decay": 0.0, "milestones": [0.5, 0.9], "augment": "flip"}  # fmt: skip
    assert "steps=3" in found["settings"]["rows"]
    assert "balanced=False" in found["settings"]["joint"]
    for name in ("rows", "joint"):
        assert [line["seed"] for line in found["methods"][name]] == [0, 1]
        for line in found["methods"][name]:
            assert set(line) >= KEYS
            assert line["classes"] == [2, 2, 1]
    page = (tmp_path / "o" / "report.html").read_text()
    for word in ("rows", "joint", "classgraft bench", "Against rows", "±"):
        assert word in page
    assert "http" not in page.replace("http-equiv", "").replace("http://www.w3.org", "")


def test_parquet_unequal_steps_and_trained_weights(place: Path, tmp_path: Path) -> None:
    from outside import state
    from safetensors.torch import save_file

    save_file(state(classes=4), tmp_path / "w.safetensors")
    ran = run("bench", "--images", place / "train", "--test", place / "test.parquet", "--size", 12, "--sizes", "3,1,2",
              "--arch", "cifar:resnet20", "--weights", tmp_path / "w.safetensors", "--methods", "imprint", "--shots", 2,
              "--order-seed", "given,3", "--out", tmp_path / "o")  # fmt: skip
    assert ran.code == 0, ran.err
    found = json.loads((tmp_path / "o" / "results.json").read_text())
    assert [line["order"] for line in found["methods"]["imprint"]] == ["given", 3]
    assert [line["classes"] for line in found["methods"]["imprint"]] == [[3, 1, 2]] * 2
    assert found["network"] == "cifar:resnet20 pretrained"


@pytest.mark.parametrize(
    ("more", "said"),
    [
        (["--methods", "rows", "--seeds", "a"], "--seeds is 'a'"),
        (["--methods", "rows", "--set", "steps=3"], "whose field"),
        (["--methods", "rows", "--protocol", "cifar100-b0-5"], "leave --first out"),
        (["--methods", "rows", "--sizes", "2,2"], "leave --first out"),
        (["--methods", ","], "nothing to run"),
        (["--methods", "rows", "--classes", 9], "9 classes"),
        (["--methods", "rows", "--arch", "cifar:resnet2"], "no network"),
        (["--methods", "rows", "--precision", "fp8"], "fp32 or bf16"),
    ],
)
def test_slips_of_the_pen_exit_with_2(place: Path, tmp_path: Path, more: list[object], said: str) -> None:
    ran = run(*words(place, tmp_path / "o", *more))
    assert ran.code == 2
    assert ran.err.strip().count("\n") == 0
    assert said in ran.err


def test_a_process_that_is_killed_and_started_again_ends_with_the_same_results(place: Path, tmp_path: Path) -> None:
    def command(out: Path) -> list[str]:
        more = ["--methods", "finetune,rows", "--epochs", "6", "--set", "rows.steps=20"]
        return [sys.executable, "-m", "classgraft", *map(str, words(place, out, *more))]

    subprocess.run(command(tmp_path / "whole"), check=True, capture_output=True, timeout=200)
    process = subprocess.Popen(command(tmp_path / "broken"), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    deadline = time.monotonic() + 100
    while len(list((tmp_path / "broken").rglob("*.journal"))) < 2 and time.monotonic() < deadline:
        assert process.poll() is None, "it ended before it could be killed"
        time.sleep(0.005)
    os.kill(process.pid, signal.SIGKILL)  # the second of three steps is done
    process.wait(timeout=100)
    assert not (tmp_path / "broken" / "results.json").exists()
    subprocess.run(command(tmp_path / "broken"), check=True, capture_output=True, timeout=200)
    both = [json.loads((tmp_path / name / "results.json").read_text()) for name in ("whole", "broken")]
    assert without_times(both[0]) == without_times(both[1])


def test_a_number_of_exemplars_is_of_images_whatever_the_protocol_counts(tmp_path: Path) -> None:
    counted = Setting(Equal(2, 2), exemplars=1, unit="images a class")
    found = bench(["exemplars"], tmp_path / "a", protocol=counted, exemplars=7, recipe={"epochs": 1})
    assert (found["exemplars"], found["unit"]) == (7, "images")
