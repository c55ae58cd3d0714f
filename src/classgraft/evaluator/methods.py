"""Methods by name and of one's own, given the recipe, the budget and the seed: the cells of a benchmark."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from classgraft import catalogue
from classgraft.errors import InputError, nearest
from classgraft.evaluator.cells import Cell
from classgraft.evaluator.settings import Setting
from classgraft.verbs import Extender

Methods = Sequence[str | Extender] | Mapping[str, str | Extender]


def cells_of(
    methods: Methods,
    setting: Setting,
    seeds: Sequence[int],
    recipe: Mapping[str, Any],
    settings: Mapping[str, Mapping[str, Any]],
) -> list[Cell]:
    """Method by method, order by order, seed by seed."""
    if not methods or not seeds or not setting.orders:
        raise InputError("There is nothing to run: give one method, one seed and one order at least.")
    pairs = list(methods.items()) if isinstance(methods, Mapping) else [(_label(method), method) for method in methods]
    labels = [label for label, _ in pairs]
    given: list[list[Any]] = [labels, list(seeds), list(setting.orders)]
    for values in given:
        if twice := [value for value in values if values.count(value) > 1]:
            raise InputError(
                f"'{twice[0]}' is given twice; give each method, seed and order once, or a mapping of names."
            )
    if strange := [name for name in settings if name not in labels]:
        raise InputError(
            f"Settings are given for '{strange[0]}', which is not one of the methods: {', '.join(labels)}."
        )
    made = {label: _made(method, setting, recipe, settings.get(label, {})) for label, method in pairs}
    return [
        Cell(label, seeded(made[label], seed), seed, order)
        for label in labels
        for order in setting.orders
        for seed in seeds
    ]


def _label(method: str | Extender) -> str:
    return method if isinstance(method, str) else type(method).__name__


def _made(method: str | Extender, setting: Setting, recipe: Mapping[str, Any], own: Mapping[str, Any]) -> Extender:
    """With the recipe and the budget of exemplars where it has those; by name also with batch-norm statistics that follow."""
    budget = {} if setting.exemplars is None else {"exemplars": setting.exemplars, "unit": setting.unit}
    if not isinstance(method, str):
        ready: Any = method
        fields = _fields(method)
        if untold := sorted(vars(method).keys() - fields):
            raise InputError(
                f"{_label(method)} has '{untold[0]}', which no field tells, so that results could not be told apart; make it a"
                " dataclass with that field."
            )
        if unknown := [key for key in own if key not in fields]:
            raise InputError(f"{_label(method)} has no setting '{unknown[0]}'.{nearest(unknown[0], fields)}")
        chosen = {**{key: value for key, value in budget.items() if key in fields}, **own}
        if "recipe" in fields:
            chosen["recipe"] = dataclasses.replace(chosen.get("recipe", ready.recipe), **recipe)
        return dataclasses.replace(ready, **chosen) if chosen else method
    fields = _fields(catalogue.method_type(catalogue.entry(method, "extend")))
    # networks here learn from nothing and from many images; methods leave statistics alone for the sake of a few photos
    usual: dict[str, Any] = {"statistics": True, **budget}
    given: dict[str, Any] = {key: value for key, value in usual.items() if key in fields}
    if "recipe" in fields:
        given |= {
            f.name: getattr(setting.recipe, f.name) for f in dataclasses.fields(setting.recipe) if f.name not in fields
        }
    return catalogue.extender(method, {**given, **setting.methods.get(method, {}), **own})


def seeded(method: Extender, seed: int) -> Extender:
    """With this seed wherever it has one."""
    ready: Any = method
    chosen: dict[str, Any] = {"seed": seed} if "seed" in _fields(method) else {}
    if "recipe" in _fields(method):
        chosen["recipe"] = dataclasses.replace(ready.recipe, seed=seed)
    return dataclasses.replace(ready, **chosen) if chosen else method


def _fields(method: object) -> set[str]:
    return {field.name for field in dataclasses.fields(method)} if dataclasses.is_dataclass(method) else set()
