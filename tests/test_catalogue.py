"""The list of methods: found by name, made with settings, and quick to import."""

from __future__ import annotations

import dataclasses
import itertools
import subprocess
import sys
from typing import Any

import pytest

from classgraft import catalogue
from classgraft.errors import InputError, nearest
from classgraft.verbs import Distiller, Extender, SelfTrainer, Trainer

VERBS: dict[str, type] = {"extend": Extender, "train": Trainer, "self-train": SelfTrainer, "distill": Distiller}
every_entry = pytest.mark.parametrize("entry", catalogue.ENTRIES, ids=lambda e: e.name)


def test_importing_the_catalogue_imports_neither_torch_nor_a_method() -> None:
    code = (
        "import sys, classgraft.catalogue\n"
        "print(sorted(m for m in sys.modules if m.split('.')[0] in ('torch', 'numpy', 'timm')"
        " or m.startswith(('classgraft.distillers', 'classgraft.extenders', 'classgraft.trainers',"
        " 'classgraft.selftrainers'))))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


@every_entry
def test_every_entry_is_a_frozen_dataclass_with_its_verb(entry: catalogue.Entry) -> None:
    kind = catalogue.method_type(entry)
    assert issubclass(kind, VERBS[entry.verb])
    assert kind.__dataclass_params__.frozen  # type: ignore[attr-defined]
    assert kind.__module__ == entry.module


@every_entry
def test_every_setting_says_in_the_source_what_it_is(entry: catalogue.Entry) -> None:
    """A docstring follows each field but the recipe, which documents its own."""
    import ast
    import inspect

    kinds = [kind for kind in catalogue.method_type(entry).__mro__ if dataclasses.is_dataclass(kind)]
    body = [line for kind in kinds for node in ast.parse(inspect.getsource(kind)).body for line in node.body]  # type: ignore[attr-defined]
    documented = {
        field.target.id  # type: ignore[union-attr]
        for field, after in itertools.pairwise(body)
        if isinstance(field, ast.AnnAssign) and isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant)
    }
    assert {f.name for f in dataclasses.fields(catalogue.method_type(entry))} - {"recipe"} <= documented


def test_names_are_unique_and_each_has_a_line() -> None:
    names = [(entry.verb, entry.name) for entry in catalogue.ENTRIES]
    assert len(set(names)) == len(names)
    assert all(entry.summary and "\n" not in entry.summary for entry in catalogue.ENTRIES)


@every_entry
def test_every_method_is_made_by_name_with_its_defaults(entry: catalogue.Entry) -> None:
    verbs = {
        "extend": catalogue.extender,
        "train": catalogue.trainer,
        "self-train": catalogue.selftrainer,
        "distill": catalogue.distiller,
    }
    make = verbs[entry.verb]
    assert make(entry.name) == catalogue.method_type(entry)()


@pytest.mark.parametrize(("given", "suggested"), [("gnle", "glne"), ("fine-tune", "finetune"), ("Rows", "rows")])
def test_an_unknown_method_is_refused_and_the_nearest_named(given: str, suggested: str) -> None:
    with pytest.raises(
        InputError, match=f"no method '{given}' to extend with.*Did you mean '{suggested}'.*imprint, joint"
    ):
        catalogue.extender(given)


def test_a_method_of_another_verb_is_not_found() -> None:
    with pytest.raises(InputError, match="no method 'plain' to extend"):
        catalogue.extender("plain")
    with pytest.raises(InputError, match="no method 'glne' to train"):
        catalogue.trainer("glne")


def test_settings_of_the_method_and_of_its_recipe_are_set_and_the_others_kept() -> None:
    from classgraft.extenders.finetune import Finetune
    from classgraft.extenders.glne import GLNE

    assert catalogue.extender("glne", {"views": 3, "base": 0.5}) == GLNE(views=3, base=0.5)
    changed = dataclasses.replace(Finetune().recipe, epochs=3, seed=7)
    assert catalogue.extender("finetune", {"epochs": 3, "seed": 7}) == Finetune(recipe=changed)


def test_a_number_is_taken_as_the_fields_type_where_nothing_is_lost() -> None:
    found = catalogue.extender("glne", {"base": 2})
    assert (found.base, type(found.base)) == (2.0, float)  # type: ignore[attr-defined]
    assert catalogue.trainer("plain", {"milestones": [0.5, 0.75]}).recipe.milestones == (0.5, 0.75)  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("name", "settings", "words"),
    [
        ("glne", {"view": 3}, r"glne has no setting 'view'\. Did you mean 'views'\? Known: .*confidence"),
        ("glne", {"epochs": 3}, "glne has no setting 'epochs'"),
        ("finetune", {"batchsize": 3}, r"Did you mean 'batch_size'"),
        ("glne", {"views": 2.5}, "setting views of glne is int, not 2.5"),
        ("glne", {"views": "many"}, "setting views of glne is int, not 'many'"),
        ("glne", {"base": "much"}, "setting base of glne is float, not 'much'"),
        ("glne", {"base": True}, "setting base of glne is float, not True"),
        ("glne", {"views": True}, "setting views of glne is int, not True"),
        ("finetune", {"epochs": "3"}, "setting epochs of finetune is int, not '3'"),
        ("finetune", {"augment": 3}, "setting augment of finetune is str, not 3"),
    ],
    ids=lambda value: repr(value) if isinstance(value, dict) else "",
)
def test_a_setting_that_does_not_exist_or_fit_is_named(name: str, settings: dict[str, Any], words: str) -> None:
    with pytest.raises(InputError, match=words):
        catalogue.extender(name, settings)


@pytest.mark.parametrize(
    ("setting", "value"),
    [("optimiser", "adam"), ("milestones", 0.5), ("milestones", ["late"]), ("recipe", "fast")],
)
def test_a_setting_of_another_type_is_checked_as_well(setting: str, value: Any) -> None:
    with pytest.raises(InputError, match=setting):
        catalogue.extender("finetune", {setting: value})


@pytest.mark.parametrize(
    ("method", "setting", "value"),
    [
        ("glne", "views", 0),
        ("glne", "confidence", 1.5),
        ("glne", "prior", -1.0),
        ("glne", "base", float("nan")),
        ("finetune", "batch_size", 0),
        ("finetune", "augment", "crop"),
    ],
)
def test_a_value_that_cannot_work_is_refused_before_any_work(method: str, setting: str, value: Any) -> None:
    with pytest.raises(InputError, match=setting):
        catalogue.extender(method, {setting: value})


@pytest.mark.parametrize(
    ("word", "remark"),
    [
        ("glna", " Did you mean 'glne'? Known: glne, rows."),
        ("zzzzzz", " Known: glne, rows."),
    ],
)
def test_the_closing_remark_of_an_error(word: str, remark: str) -> None:
    assert nearest(word, ["rows", "glne"]) == remark
