"""What an extension promises is measured, stands in the card, and is found broken where it is."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
import math
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from outside import NEW, copied, done, furnish, is_sentence, photos, run
from safetensors.torch import load_file, save_file
from test_bundle import extended, squares, tiny

import classgraft
from classgraft import InputError, promises
from classgraft.card import promised_by
from classgraft.data.probes import probes
from classgraft.metrics.intervals import paired_change
from classgraft.models.preparation import Preparation


@pytest.fixture(scope="module")
def furnished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return furnish(tmp_path_factory.mktemp("furnished"))


@pytest.fixture
def place(furnished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(copied(furnished, tmp_path / "place"))
    return tmp_path / "place"


# -- what is promised ----------------------------------------------------------------------------------------------


def test_kept_bits_are_promised_where_they_are_kept() -> None:
    found = extended(tiny(), "d").history[-1]["promise"]
    assert found["bits"]
    assert (found["classes"], found["images"]) == (3, 32 + 2)
    assert found["sentence"].startswith("The logits of the 3 old classes are bit for bit those of the model before")
    assert "change" not in found


def test_the_least_change_of_a_weight_takes_the_promise_of_bits_away() -> None:
    bundle = tiny()
    after = bundle.model.grown(["d"])
    photos = squares(bundle, ("d",))
    assert promises.promise(bundle, after, photos)["bits"]
    with torch.no_grad():
        after.head.linear[0].bias[1] += 1e-6
    found = promises.promise(bundle, after, photos)
    assert not found["bits"]
    assert found["agreement"] == [32, 32]
    assert "on 32 of 32 generated images (100%; 95 % interval 89% to 100%)" in found["sentence"]


def test_agreement_is_counted_among_the_old_classes() -> None:
    bundle = tiny()
    after = bundle.model.grown(["d"])
    with torch.no_grad():
        after.head.linear[0].bias[1] += 1e6
        after.head.linear[1].bias.fill_(1e9)
    images = probes(bundle.preparation, bundle.classes)
    logits = bundle.model(images.view(torch.arange(32), torch.device("cpu")))
    same = int((logits.argmax(1) == 1).sum())
    assert promises.promise(bundle, after, squares(bundle, ("d",)))["agreement"] == [same, 32]


def test_the_change_on_old_images_counts_what_the_new_classes_take() -> None:
    bundle = tiny()
    old = squares(bundle, bundle.classes, 20)
    logits = bundle.model(old.view(torch.arange(60), torch.device("cpu")))
    old = dataclasses.replace(old, labels=logits.argmax(1), classes=bundle.classes)
    after = bundle.model.grown(["d"])
    with torch.no_grad():
        after.head.linear[1].bias.fill_(float(logits.max(1).values.median()))
    found = promises.promise(bundle, after, squares(bundle, ("d",)), old)
    assert found["bits"]
    assert found["change"]["before"] == 1.0
    assert found["change"]["after"] == pytest.approx(0.5, abs=0.02)
    assert "On 60 old images that were given, accuracy went from 100.0% to 5" in found["sentence"]
    low, high = found["change"]["interval"]
    assert -0.65 < low < found["change"]["after"] - 1 < high < -0.3


def test_a_first_task_promises_nothing() -> None:
    bundle = tiny()
    empty = dataclasses.replace(bundle, model=bundle.model.without(bundle.classes))
    empty.model.body.num_features = 12  # type: ignore[assignment]
    grown = classgraft.extend(empty, squares(bundle, ("a", "b")), method="finetune", settings={"epochs": 1})
    assert "promise" not in grown.history[-1]


def test_the_interval_of_a_change_by_hand() -> None:
    was = torch.tensor([True] * 8 + [False] * 2)
    now = torch.tensor([True] * 5 + [False] * 5)  # 3 lost, none won, of 10
    change, low, high = paired_change(was, now)
    half = 1.959964 * math.sqrt((3.5 + 0.5) / 12 - (3 / 12) ** 2) / math.sqrt(12)
    assert change == -0.3
    assert (low, high) == pytest.approx((-0.25 - half, -0.25 + half), abs=1e-6)


def test_the_interval_holds_the_truth_about_as_often_as_it_says() -> None:
    generator = torch.Generator().manual_seed(0)
    draws = torch.rand(2000, 60, generator=generator)
    inside = 0
    for row in draws:  # 0.1 lost, 0.05 won, 0.6 right before and after
        was, now = (row < 0.7), (row < 0.6) | (row > 0.95)
        _, low, high = paired_change(was, now)
        inside += low <= -0.05 <= high
    assert 0.93 <= inside / 2000 <= 0.985


def test_no_change_seen_is_not_no_change_possible() -> None:
    widths = []
    for count in (10, 1000):
        right = torch.ones(count, dtype=torch.bool)
        change, low, high = paired_change(right, right)
        assert change == 0
        assert low == -high < 0
        widths.append(high)
    assert widths[1] < widths[0] / 20


# -- generated images ----------------------------------------------------------------------------------------------


def test_probes_are_the_same_bits_everywhere() -> None:
    images = probes(Preparation(16, 20), ("a",))
    assert images.pixels.shape == (32, 3, 20, 20)
    assert hashlib.sha256(images.pixels.numpy().tobytes()).hexdigest()[:16] == "4247cb0f50d85f05"
    assert len({bytes(square.numpy().tobytes()) for square in images.pixels}) == 32
    assert not torch.equal(probes(Preparation(16, 20), ("a",), seed=1).pixels, images.pixels)


def test_probes_of_large_squares_are_fewer() -> None:
    assert len(probes(Preparation(2000, 2000), ("a",))) == 2
    plain = Preparation(8, 8, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    assert probes(plain, ("a",), channels=1).pixels.shape == (32, 1, 8, 8)


# -- checking again ------------------------------------------------------------------------------------------------


def test_every_step_is_checked_again_and_through_the_disk(tmp_path: Path) -> None:
    bundle = extended(extended(tiny(), "d"), "e", method="finetune", settings={"epochs": 2, "lr": 0.01})
    renamed = classgraft.remove(bundle, "c1")
    found = promises.recheck(renamed)
    assert len(found) == 2
    assert "generated images" in found[0]
    assert "bit for bit, on 32 images" in found[1]


def reseal(folder: Path) -> None:
    config = json.loads((folder / "config.json").read_text("utf-8"))
    for name in config["graft"]["sha256"]:
        config["graft"]["sha256"][name] = hashlib.sha256((folder / name).read_bytes()).hexdigest()
    (folder / "config.json").write_text(json.dumps(config))


def refused(*words: object) -> str:
    ran = run(*words)
    assert (ran.code, ran.out) == (2, "")
    assert is_sentence(ran.err.rstrip("\n")), ran.err
    return ran.err


def test_the_command(place: Path) -> None:
    ran = done("verify", "grown")
    assert ran.out.splitlines()[0] == "Every file is the one that was saved."
    assert "the old logits are those of the model before, bit for bit, on 32 images" in ran.out
    assert "on 41 images" in done("verify", "grown", "--images", photos(place / "more", ["red", "grey", "blue"])).out
    assert "promises anything" in done("verify", "base").out
    card = (place / "grown/README.md").read_text("utf-8")
    assert all(sentence in card for sentence in promised_by(classgraft.load("grown")))
    assert "## What is promised" in card
    assert "## What is promised" not in (place / "base/README.md").read_text("utf-8")


def test_a_weight_that_was_changed_is_found(place: Path) -> None:
    path = place / "grown/model.safetensors"
    tensors = load_file(path)
    tensors["linear.weight"][0] += 1e-4
    save_file(tensors, path)
    assert "checksum" in refused("verify", "grown")
    reseal(place / "grown")
    assert "undone, the model is not bit for bit the one before the step" in refused("verify", "grown")


def test_a_promise_of_bits_that_moved_is_found() -> None:
    bundle = extended(tiny(), "d", method="finetune", settings={"epochs": 1})
    event = bundle.history[-1]
    event = {**event, "promise": {**event["promise"], "bits": True}}
    with pytest.raises(InputError, match="promised to keep the old logits bit for bit and did not"):
        promises.recheck(dataclasses.replace(bundle, history=(*bundle.history[:-1], event)))


@pytest.mark.parametrize("stated", [[32, 32], None, [], ["a", "b"], 3, {}])
def test_an_agreement_that_is_not_there_is_found(stated: Any, place: Path) -> None:
    done("extend", "base", "new", "--out", "tuned", "--method", "finetune", "--set", "epochs=30", "--set", "lr=0.1")
    lines = (place / "tuned/history.jsonl").read_text("utf-8").splitlines()
    event = json.loads(lines[-1])
    assert event["promise"]["agreement"][0] < 30
    event["promise"]["agreement"] = stated
    (place / "tuned/history.jsonl").write_text("\n".join([*lines[:-1], json.dumps(event)]) + "\n", "utf-8")
    reseal(place / "tuned")
    assert ("promised the old answer on 32 of 32" if stated == [32, 32] else "cannot be read") in refused(
        "verify", "tuned"
    )


def test_a_card_that_says_more_than_was_measured_is_found(place: Path) -> None:
    path = place / "grown/README.md"
    path.write_text(path.read_text("utf-8").replace("3 old classes", "1,000 old classes"), "utf-8")
    assert "'grown/README.md' does not say what was measured" in refused("verify", "grown")
    path.unlink()
    done("verify", "grown")


def test_a_change_is_measured_again_where_old_images_are_given(place: Path) -> None:
    done("extend", "base", "new", "--out", "j", "--method", "joint", "--old-images", "old", "--set", "epochs=2")
    ran = done("verify", "j")
    assert "was not measured again, for want of them" in ran.out
    ran = done("verify", "j", "--images", "old")
    assert "on 9 old images a change of" in ran.out
    event = classgraft.load("j").history[-1]["promise"]
    assert event["change"]["images"] == 9


def test_given_pictures_are_looked_at_where_nothing_was_measured_before(place: Path) -> None:
    done("extend", "base", "new", "--out", "j", "--method", "finetune", "--set", "epochs=1")
    assert "measured again" not in done("verify", "j").out
    ran = done("verify", "j", "--images", "old")
    assert re.search(
        r"and on \d of 9 of those given; on 9 old images a change of .*, of which it promised nothing\.", ran.out
    )


def test_a_promised_change_that_is_exceeded_is_found(place: Path) -> None:
    done("extend", "base", "new", "--out", "j", "--method", "joint", "--old-images", "old", "--set", "epochs=1")
    bundle = classgraft.load("j")
    promise = dict(bundle.history[-1]["promise"])
    promise["change"] = {**promise["change"], "interval": [0.9, 1.0]}
    tampered = dataclasses.replace(bundle, history=(*bundle.history[:-1], {**bundle.history[-1], "promise": promise}))
    old = classgraft.api.labelled(bundle, ["old"])
    with pytest.raises(InputError, match=r"changed by \+90.0 points or better; on these 9"):
        promises.recheck(tampered, None, old)


def test_every_damaged_file_is_named(place: Path) -> None:
    for name in ("model.safetensors", "history.jsonl", "undo-0.json", "undo-0.safetensors"):
        folder = copied(place / "grown", place / f"x-{name}")
        content = bytearray((folder / name).read_bytes())
        content[len(content) // 2] ^= 1
        (folder / name).write_bytes(content)
        assert str(folder.name) in refused("verify", folder.name)


def test_pairs_of_steps_keep_their_own_promises() -> None:
    for first, second in itertools.product(("imprint", "finetune"), repeat=2):
        settings = {"epochs": 1}
        bundle = extended(tiny(), "d", method=first, settings=settings if first == "finetune" else {})
        bundle = extended(bundle, "e", method=second, settings=settings if second == "finetune" else {})
        kinds = [event["promise"]["bits"] for event in bundle.history if "promise" in event]
        assert kinds == [method == "imprint" for method in (first, second)]
        assert len(promises.recheck(bundle)) == 2


@pytest.mark.parametrize(
    "step",
    [
        ("distill", "grown", "old", "--student", "cifar:resnet20", "--epochs", 1, "--set", "share=1.0"),
        ("self-train", "grown", "old", "new", "--student", "cifar:resnet20", "--epochs", 1, "--batch-size", 4),
    ],
)
def test_weights_that_were_learnt_anew_promise_nothing_of_the_steps_before(
    step: tuple[object, ...], place: Path
) -> None:
    assert "What is promised" in (place / "grown" / "README.md").read_text("utf-8")
    assert run(*step, "--out", "after").code == 0
    assert "What is promised" not in (place / "after" / "README.md").read_text("utf-8")
    assert "No step of its history promises anything" in done("verify", "after").out
    assert classgraft.load("after").added == NEW
