"""What methods keep in a bundle: stored, undone, removed and refused with it."""

from __future__ import annotations

import contextlib
import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from outside import NEW, OLD, Tiny, copied, done, furnish, is_sentence, photos, run
from safetensors.torch import load_file

import classgraft
from classgraft import Bundle, Images, InputError, catalogue, memories
from classgraft.bundle import grafted
from classgraft.data.images import Task
from classgraft.extenders.mas import MAS
from classgraft.models.classifier import Classifier
from classgraft.packing import packed, words
from classgraft.training.importance import Importance
from classgraft.training.journal import keeping


@pytest.fixture(scope="module")
def furnished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return furnish(tmp_path_factory.mktemp("furnished"))


@pytest.fixture
def place(furnished: Path, tmp_path: Path) -> Path:
    return copied(furnished, tmp_path / "place")


QUICK = {"epochs": 1, "augment": "none"}


def squares(bundle: Bundle, names: tuple[str, ...], count: int = 2, seed: int = 0) -> Images:
    generator = torch.Generator().manual_seed(seed)
    side = bundle.preparation.resize
    pixels = torch.randint(0, 256, (count * len(names), 3, side, side), dtype=torch.uint8, generator=generator)
    return Images(pixels, torch.arange(len(names)).repeat_interleave(count), names, bundle.preparation)


@pytest.fixture
def base() -> Bundle:
    return classgraft.import_model(Tiny(), classes=["c0", "c1", "c2"], size=16)


def images_in(bundle: Bundle) -> Images:
    found = memories.recall(bundle, "joint")
    assert found is not None
    return found.images  # type: ignore[attr-defined,no-any-return]


def test_what_was_remembered_is_what_an_extension_sees_and_then_holds_the_new_classes(base: Bundle) -> None:
    old = squares(base, base.classes)
    kept = classgraft.remember(base, old, "joint")
    assert images_in(kept).classes == base.classes
    grown = classgraft.extend(kept, squares(base, ("new",)), method="joint", settings=QUICK)
    direct = classgraft.extend(base, squares(base, ("new",)), method="joint", settings=QUICK, old_images=old)
    assert torch.equal(grown.model.head.weight, direct.model.head.weight)
    assert images_in(grown).classes == images_in(direct).classes == (*base.classes, "new")
    assert grown.history[-1]["bytes"] == grown.memories["joint"].content.nbytes > 8 * 3 * 16 * 16


def test_memory_goes_through_the_disk_and_every_step_back(base: Bundle, tmp_path: Path) -> None:
    steps = [base]
    steps.append(classgraft.remember(base, squares(base, base.classes), "joint"))
    steps.append(classgraft.extend(steps[-1], squares(base, ("new",)), method="joint", settings=QUICK))
    steps.append(classgraft.remove(steps[-1], "c1"))
    steps.append(classgraft.remember(steps[-1], squares(base, ("c0",), 1, seed=3), "joint"))
    classgraft.save(steps[-1], tmp_path / "b")
    now = classgraft.load(tmp_path / "b", Tiny())
    for step in reversed(steps):
        assert (now.classes, now.memories.keys()) == (step.classes, step.memories.keys())
        if step.memories:
            assert torch.equal(images_in(now).pixels, images_in(step).pixels)
            assert images_in(now).classes == images_in(step).classes
        if step is not base:
            classgraft.save(classgraft.undo(now), tmp_path / "b")
            now = classgraft.load(tmp_path / "b", Tiny())
    assert not list((tmp_path / "b").glob("memory.*"))


def test_a_removed_class_leaves_no_picture_behind(base: Bundle) -> None:
    kept = classgraft.remove(classgraft.remember(base, squares(base, base.classes), "joint"), "c1")
    assert images_in(kept).classes == ("c0", "c2")
    assert len(images_in(kept)) == 4


def test_remembering_a_class_again_replaces_what_was_kept_of_it(base: Bundle) -> None:
    once = classgraft.remember(base, squares(base, base.classes), "joint")
    again = classgraft.remember(once, squares(base, ("c1",), count=3, seed=5), "joint")
    counts = {name: int((images_in(again).labels == k).sum()) for k, name in enumerate(images_in(again).classes)}
    assert counts == {"c0": 2, "c1": 3, "c2": 2}


def test_another_body_drops_it_with_a_word_and_undo_brings_it_back(base: Bundle) -> None:
    kept = classgraft.remember(base, squares(base, base.classes), "joint")
    words: list[str] = []
    forgot = classgraft.extend(kept, squares(base, ("new",)), method="finetune", settings=QUICK, warn=words.append)
    assert "joint" not in forgot.memories
    assert words == ["What joint kept belongs to the weights before this step and is dropped; undo brings it back."]
    assert "joint" in classgraft.undo(forgot).memories
    beside = classgraft.extend(kept, squares(base, ("new",)), method="imprint", warn=words.append)
    assert "joint" in beside.memories
    assert len(words) == 1


def test_a_stale_memory_is_refused_with_the_remedy(base: Bundle) -> None:
    kept = classgraft.remember(base, squares(base, base.classes), "joint")
    other = dataclasses.replace(kept, model=classgraft.import_model(Tiny(seed=7), classes=["c0", "c1", "c2"]).model)
    with pytest.raises(InputError, match=r"joint keeps .* made with other weights.*run remember --method joint"):
        classgraft.extend(other, squares(base, ("new",)), method="joint", settings=QUICK)
    assert images_in(classgraft.remember(other, squares(base, base.classes), "joint")).classes == base.classes


def test_a_method_that_keeps_nothing_has_nothing_to_remember(base: Bundle) -> None:
    with pytest.raises(InputError, match="imprint keeps nothing"):
        classgraft.remember(base, squares(base, base.classes), "imprint")


def test_what_does_not_fit_the_method_is_damage(base: Bundle) -> None:
    kept = classgraft.remember(base, squares(base, base.classes), "joint")
    wrong = dataclasses.replace(kept.memories["joint"], content=packed({"images": 3}))
    with pytest.raises(InputError, match="joint keeps in this bundle is damaged"):
        memories.recall(dataclasses.replace(kept, memories={"joint": wrong}), "joint")


def test_from_the_shell(place: Path) -> None:
    said = done("remember", place / "base", place / "old", "--method", "joint", "--out", place / "kept").out
    assert "bytes kept by joint (images)" in said
    bundle = place / "kept"
    assert (bundle / "memory.json").is_file()
    assert (bundle / "memory.safetensors").is_file()
    assert "Memory of joint: " in (bundle / "README.md").read_text("utf-8")
    quick = ["--method", "joint", "--set", "epochs=1"]
    done("extend", bundle, place / "new", "--out", place / "more", *quick)
    refused = run("extend", place / "base", place / "new", "--out", place / "none", *quick)
    assert (refused.code, is_sentence(refused.err.strip())) == (2, True)
    done("remove", place / "more", OLD[0])
    assert OLD[0] not in (place / "more" / "memory.json").read_text("utf-8")
    for _ in range(3):
        done("undo", place / "more")
    assert not (place / "more" / "memory.json").exists()
    assert NEW[0] not in (place / "more" / "config.json").read_text("utf-8")


def test_images_of_unknown_classes_cannot_be_remembered(place: Path) -> None:
    ran = run("remember", place / "base", place / "new", "--method", "joint")
    assert ran.code == 2
    assert "does not have" in ran.err


@pytest.mark.parametrize("file", ["memory.json", "memory.safetensors"])
@pytest.mark.parametrize("damage", ["gone", "cut", "flipped"])
def test_a_damaged_memory_is_refused(file: str, damage: str, place: Path) -> None:
    done("remember", place / "base", place / "old", "--method", "joint")
    path = place / "base" / file
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    if damage == "gone":
        path.unlink()
    else:
        path.write_bytes(bytes(content if damage == "flipped" else content[:-20]))
    ran = run("predict", place / "base", place / "old")
    assert (ran.code, is_sentence(ran.err.strip())) == (2, True)


CHANGES: list[Any] = [
    {"joint": 3},
    {"joint": {"body": 3, "content": {}}},
    {"joint": {"body": "x"}},
    {"joint": {"body": "x", "content": {"images": {"tensor": "elsewhere", "shape": [1]}}}},
]


@pytest.mark.parametrize("change", CHANGES, ids=str)
def test_a_tampered_memory_is_refused_even_with_its_checksum(change: Any, place: Path) -> None:
    import hashlib

    done("remember", place / "base", place / "old", "--method", "joint")
    bundle = place / "base"
    (bundle / "memory.json").write_text(json.dumps(change))
    config = json.loads((bundle / "config.json").read_text())
    config["graft"]["sha256"]["memory.json"] = hashlib.sha256((bundle / "memory.json").read_bytes()).hexdigest()
    (bundle / "config.json").write_text(json.dumps(config))
    ran = run("predict", bundle, place / "old")
    assert (ran.code, is_sentence(ran.err.strip())) == (2, True)


def test_pictures_of_one_class_are_enough(place: Path) -> None:
    done("remember", place / "base", photos(place / "few", OLD[1:2]), "--method", "joint")
    assert images_in(classgraft.load(place / "base")).classes == OLD[1:2]


def test_tensors_of_the_memory_are_stored_once(base: Bundle, tmp_path: Path) -> None:
    kept = classgraft.remember(base, squares(base, base.classes, 40), "joint")
    grown = classgraft.extend(kept, squares(base, ("new",)), method="joint", settings=QUICK)
    classgraft.save(grown, tmp_path / "b")
    # the pixels before the extension are the first rows of those after it
    undone = load_file(tmp_path / "b" / "undo-1.safetensors")
    assert not [name for name in undone if name.endswith("images.pixels")]


# -- more photos of a class ----------------------------------------------------------------------------------------


def test_a_class_that_an_extension_added_is_refined_and_undone(base: Bundle) -> None:
    grown = classgraft.extend(base, squares(base, ("new",)), method="glne")
    before = grown.model.head.weight
    more = classgraft.extend(grown, squares(base, ("new",), 3, seed=8), method="glne", update=True)
    assert more.classes == grown.classes
    assert more.added == ("new",)
    assert more.history[-1]["updated"] == ["new"]
    assert "1 class refined by glne from 3 photos" in more.history[-1]["sentence"]
    assert torch.equal(more.model.head.weight[:3], before[:3])
    assert not torch.equal(more.model.head.weight[3], before[3])
    kept: Any = memories.recall(more, "glne")
    assert kept.classes["new"].count == 5
    back = classgraft.undo(more)
    assert torch.equal(back.model.head.weight, before)
    again: Any = memories.recall(back, "glne")
    assert again.classes["new"].count == 2


@pytest.mark.parametrize(
    ("names", "update", "words"),
    [
        (("new",), False, "already has the class 'new'.*--update"),
        (("c1",), False, "already has the class 'c1'"),
        (("c1",), True, "only classes that an extension added"),
        (("new", "c1"), True, "'c1'"),
    ],
)
def test_known_names_stay_refused_otherwise(base: Bundle, names: tuple[str, ...], update: bool, words: str) -> None:
    grown = classgraft.extend(base, squares(base, ("new",)), method="glne")
    with pytest.raises(InputError, match=words):
        classgraft.extend(grown, squares(base, names), method="glne", update=update)


def test_a_method_that_kept_nothing_of_the_class_cannot_refine_it(base: Bundle) -> None:
    grown = classgraft.extend(base, squares(base, ("new",)), method="imprint")
    for method in ("imprint", "glne"):
        with pytest.raises(InputError, match=f"{method} has kept nothing of the class 'new'"):
            classgraft.extend(grown, squares(base, ("new",)), method=method, update=True)


def test_update_from_the_shell(place: Path) -> None:
    done("extend", place / "base", place / "new", "--out", place / "more")
    said = done("extend", place / "more", place / "new", "--out", place / "more", "--update").out
    assert "2 classes refined by glne" in said
    assert "refined: cyan, pink" in said
    assert run("extend", place / "more", place / "new", "--out", place / "more").code == 2


KEEPING = [
    entry.name
    for entry in catalogue.ENTRIES
    if entry.verb == "extend" and getattr(catalogue.method_type(entry), "memory_type", None) is not None
]


@pytest.mark.parametrize("method", KEEPING)
def test_what_a_method_keeps_of_a_class_is_kept_under_its_new_name(method: str, base: Bundle) -> None:
    kept = classgraft.remember(base, squares(base, base.classes, 3), method)
    before, after = memories.recall(kept, method), memories.recall(classgraft.rename(kept, "c1", "z"), method)
    names = set(words(before)) & set(base.classes)
    assert set(words(after)) & {*base.classes, "z"} == {{"c1": "z"}.get(name, name) for name in names}
    assert type(after) is type(before)


@pytest.mark.parametrize("method", ["ewc", "mas"])
def test_a_sum_over_all_classes_is_replaced_not_doubled(method: str, base: Bundle) -> None:
    once = classgraft.remember(base, squares(base, base.classes), method)
    twice = classgraft.remember(once, squares(base, base.classes), method)
    first, second = (memories.recall(bundle, method) for bundle in (once, twice))
    for name, value in first.importance.items():  # type: ignore[union-attr]
        assert torch.equal(value, second.importance[name])  # type: ignore[union-attr]


def test_pictures_of_old_classes_are_counted_once_and_the_photos_after_the_extension(
    base: Bundle, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, bool]] = []
    remember = MAS.remember

    def spied(self: MAS, model: Classifier, task: Task, memory: object | None) -> Importance:
        seen.append((len(model.classes), task.unlabelled is None))
        return remember(self, model, task, memory)

    monkeypatch.setattr(MAS, "remember", spied)
    free = dataclasses.replace(squares(base, base.classes), classes=("",), labels=torch.zeros(6, dtype=torch.int64))
    grown = classgraft.extend(base, squares(base, NEW), method="mas", unlabelled=free, settings={"epochs": 1})
    assert seen == [(3, False), (len(grown.classes), True)]


def test_a_class_is_refined_by_the_name_that_it_has_now(base: Bundle) -> None:
    grown = classgraft.extend(base, squares(base, NEW), method="glne")
    renamed = classgraft.rename(grown, NEW[0], "teal")
    assert grafted(renamed) == ("teal", NEW[1])
    refined = classgraft.extend(renamed, squares(base, ("teal",), seed=5), method="glne", update=True)
    assert refined.history[-1]["updated"] == ["teal"]
    assert grafted(classgraft.remove(renamed, "teal")) == (NEW[1],)
    assert grafted(classgraft.merge(renamed, "teal", NEW[1], "both")) == ("both",)
    assert grafted(classgraft.merge(renamed, "teal", base.classes[0])) == (NEW[1],)


def test_the_reason_of_auto_tells_of_how_many_classes_something_is_kept(base: Bundle) -> None:
    grown = classgraft.extend(base, squares(base, NEW), method="glne")
    more = classgraft.extend(grown, squares(base, ("grey",)))
    assert more.history[-1]["why"].startswith("something is kept of 2 of 5 classes")
    whole = classgraft.extend(classgraft.remember(base, squares(base, base.classes), "auto"), squares(base, NEW))
    assert whole.history[-1]["why"].startswith("what is kept of the old classes is used")


@pytest.mark.parametrize("method", ["ewc", "mas"])
def test_importance_that_is_remembered_in_portions_is_added_in_every_part(method: str, base: Bundle) -> None:
    parts = [squares(base, names, seed=i) for i, names in enumerate((("c0",), ("c1",)))]
    one, two = (memories.recall(classgraft.remember(base, part, method), method) for part in parts)
    both = memories.recall(classgraft.remember(classgraft.remember(base, parts[0], method), parts[1], method), method)
    for name, value in both.importance.items():  # type: ignore[union-attr]
        torch.testing.assert_close(value, one.importance[name] + two.importance[name])  # type: ignore[union-attr]


@pytest.mark.parametrize("method", ["soft-distillation", "glne-literal"])
def test_a_method_that_cannot_refine_says_so(method: str, base: Bundle) -> None:
    grown = classgraft.extend(base, squares(base, NEW), method=method)
    with pytest.raises(InputError, match=f"{method} does not learn more of a class that it has added"):
        classgraft.extend(grown, squares(base, NEW[:1], seed=3), method=method, update=True)


def test_images_of_merged_classes_are_kept_as_those_of_one(base: Bundle) -> None:
    for method in ("exemplars", "joint"):
        kept = classgraft.remember(base, squares(base, base.classes), method)
        merged = classgraft.merge(kept, "c0", "c2", "both")
        found = memories.recall(merged, method)
        assert found.images.classes == ("both", "c1")  # type: ignore[union-attr]
        assert found.images.labels.bincount().tolist() == [4, 2]  # type: ignore[union-attr]


def test_the_run_folder_of_other_old_images_is_refused(base: Bundle, tmp_path: Path) -> None:
    for seed in (0, 0, 9):
        refused = pytest.raises(InputError, match="holds another run") if seed else contextlib.nullcontext()
        with keeping(tmp_path, "extend"), refused:
            classgraft.extend(base, squares(base, NEW), method="ewc", settings={"epochs": 1},
                              old_images=squares(base, base.classes, seed=seed))  # fmt: skip
