"""Streams through methods: ``classgraft.bench`` and the command of that name.

    OUT/results.json       every cell's line, the recipe and the versions
    OUT/cells/NAME.json    one finished cell (method, seed, order); it is not run again
    OUT/runs/NAME/         the run journal of a cell that is under way
    OUT/report.html        the page
"""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch

from classgraft import api, catalogue
from classgraft.data.images import Images
from classgraft.data.sources import Source, open_source
from classgraft.errors import InputError
from classgraft.evaluator.cells import Cell, measured
from classgraft.evaluator.orders import Order, ordered
from classgraft.evaluator.page import page
from classgraft.evaluator.protocols import Equal, Protocol, Stream
from classgraft.evaluator.settings import Setting, named
from classgraft.evaluator.spread import one_by_one, over_ray
from classgraft.pages import write
from classgraft.training.engine import device as chosen_device
from classgraft.training.engine import engine
from classgraft.training.journal import keeping
from classgraft.verbs import Extender

Given = str | Path | Source | Images
"""Where images are, or the images."""


def bench(
    methods: Sequence[str | Extender] | Mapping[str, str | Extender],
    images: Given | None = None,
    test: Given | None = None,
    *,
    out: str | Path,
    protocol: str | Protocol | Setting = Equal(10, 10),
    seeds: Sequence[int] = (0,),
    recipe: Mapping[str, Any] | None = None,
    settings: Mapping[str, Mapping[str, Any]] | None = None,
    ray: bool = False,
    device: str | None = None,
    precision: Literal["fp32", "bf16"] | None = None,
    tell: Callable[[str], None] = lambda line: None,
    warn: Callable[[str], None] = lambda sentence: None,
    command: str = "",
    **changed: Any,
) -> dict[str, Any]:
    """Run every method on every order and seed; what ``results.json`` holds.

    Args:
        methods: names of the catalogue and extenders of one's own, which need no registration; a mapping names them anew.
        images: the training images; None: those of the protocol.
        test: the test images, on which nothing is chosen.
        out: the folder of the results. Given again, finished cells are read and the one that was broken off goes on.
        protocol: a name of ``classgraft.evaluator.settings.NAMED``, a protocol, or a whole setting.
        seeds: of fresh weights, the images' order, their augmentation and what a stream draws.
        recipe: fields of the recipe that differ from the setting's. A method by name learns by the setting's recipe with
            these; an extender of one's own keeps its recipe but for these.
        settings: of methods by name, {"lwf": {"temperature": 3}}; they go before the recipe.
        ray: spread the cells over a Ray cluster.
        device: as of ``classgraft.training.engine.engine``.
        precision: likewise.
        tell: hears one line a cell.
        warn: hears of images that were skipped.
        command: the words that this was asked for with, for the page.
        changed: other fields of ``Setting``: size, start, orders, exemplars.

    Raises:
        InputError: what does not fit, or ``out`` holds another benchmark's cells.
    """
    setting = named(protocol) if isinstance(protocol, str) else protocol
    setting = setting if isinstance(setting, Setting) else Setting(setting)
    setting = dataclasses.replace(setting, **changed)
    setting = dataclasses.replace(setting, recipe=dataclasses.replace(setting.recipe, **(recipe or {})))
    cells = _cells(methods, setting, seeds, recipe or {}, settings or {})
    train, tested = _read(*(alt if given is None else given for given, alt in ((images, setting.images), (test, setting.test))), setting, warn)
    folder = Path(out)
    job = _Job(setting, train, tested, folder, device, precision)
    facts = job.facts()
    found: dict[str, dict[str, Any]] = {}
    for cell in cells:
        if (line := _finished(folder, cell, facts)) is not None:
            found[cell.name] = line
            tell(_told(cell, line, " (was there)"))
    for cell, line in (over_ray if ray else one_by_one)(job, [cell for cell in cells if cell.name not in found]):
        write(json.dumps({"facts": {**facts, "method": cell.settings}, "result": line}, indent=1), _file(folder, cell))
        shutil.rmtree(folder / "runs" / cell.name, ignore_errors=True)
        found[cell.name] = line
        tell(_told(cell, line))
        _put(folder, setting, cells, found, command)
    return _put(folder, setting, cells, found, command)


@dataclasses.dataclass(frozen=True)
class _Job:
    """What every cell needs; called with a cell it gives its line, in this process or another."""

    setting: Setting
    train: Images
    test: Images
    folder: Path
    device: str | None
    precision: Literal["fp32", "bf16"] | None

    def __call__(self, cell: Cell) -> dict[str, Any]:
        runs = self.folder / "runs" / cell.name
        with engine(device=self.device, precision=self.precision), keeping(runs, cell.settings):
            start = self.setting.start.classifier(cell.seed).to(chosen_device())
            stream = Stream(self.setting.protocol, self.train, self.test, cell.order, cell.seed)
            return measured(cell, start, stream, runs / "seconds.json")

    def facts(self) -> dict[str, str]:
        """What a finished cell must agree in to be taken for one of this benchmark."""
        return {
            "protocol": repr(self.setting.protocol),
            "network": str(self.setting.start),
            "preparation": repr(self.train.preparation),
            "training images": self.train.fingerprint,
            "test images": self.test.fingerprint,
        }


def _cells(
    methods: Sequence[str | Extender] | Mapping[str, str | Extender],
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
    for values in (labels, list(seeds), list(setting.orders)):
        if twice := [value for value in values if values.count(value) > 1]:
            raise InputError(f"'{twice[0]}' is given twice; give each method, seed and order once, or a mapping of names.")
    if strange := [name for name in settings if name not in labels]:
        raise InputError(f"Settings are given for '{strange[0]}', which is not one of the methods: {', '.join(labels)}.")
    made = {label: _made(method, setting, recipe, settings.get(label, {})) for label, method in pairs}
    return [
        Cell(label, _seeded(made[label], seed), seed, order)
        for label in labels
        for order in setting.orders
        for seed in seeds
    ]


def _label(method: str | Extender) -> str:
    return method if isinstance(method, str) else type(method).__name__


def _made(method: str | Extender, setting: Setting, recipe: Mapping[str, Any], own: Mapping[str, Any]) -> Extender:
    """With the recipe and the budget of exemplars, where it has those."""
    budget = {} if setting.exemplars is None else {"exemplars": setting.exemplars}
    if not isinstance(method, str):
        chosen = {key: value for key, value in budget.items() if key in _fields(method)}
        if "recipe" in _fields(method):
            chosen["recipe"] = dataclasses.replace(method.recipe, **recipe)  # type: ignore[attr-defined]
        return dataclasses.replace(method, **chosen) if chosen else method  # type: ignore[type-var]
    fields = _fields(catalogue.method_type(catalogue.entry(method, "extend")))
    given: dict[str, Any] = {key: value for key, value in budget.items() if key in fields}
    if "recipe" in fields:
        given |= {f.name: getattr(setting.recipe, f.name) for f in dataclasses.fields(setting.recipe) if f.name not in fields}
    return catalogue.extender(method, {**given, **own})


def _seeded(method: Extender, seed: int) -> Extender:
    chosen: dict[str, Any] = {"seed": seed} if "seed" in _fields(method) else {}
    if "recipe" in _fields(method):
        chosen["recipe"] = dataclasses.replace(method.recipe, seed=seed)  # type: ignore[attr-defined]
    return dataclasses.replace(method, **chosen) if chosen else method  # type: ignore[type-var]


def _fields(method: object) -> set[str]:
    return {field.name for field in dataclasses.fields(method)} if dataclasses.is_dataclass(method) else set()


def _read(
    images: Given, test: Given, setting: Setting, warn: Callable[[str], None]
) -> tuple[Images, Images]:
    """Training and test images of the classes that come in any of the orders, decoded once; ``classes`` are all there are."""
    for given, words in ((images, "training"), (test, "test")):
        if given == "":
            raise InputError(f"The {words} images are missing; name a folder with one folder a class, or a .parquet file.")
    opened = [given if isinstance(given, Source | Images) else open_source(given) for given in (images, test)]
    names = opened[0].classes
    groups = [group for order in setting.orders for group in setting.protocol.groups(ordered(names, order))]
    kept = {name for group in groups for name in group}
    train, tested = (_decoded(given, kept, setting, warn) for given in opened)
    borne = {tested.classes[k] for k in tested.labels.unique().tolist()}
    if missing := [name for name in names if name in kept and name not in borne]:
        raise InputError(f"The class '{missing[0]}' has no test image; give some, or leave it out of the training images.")
    return train, tested


def _decoded(given: Source | Images, kept: set[str], setting: Setting, warn: Callable[[str], None]) -> Images:
    if isinstance(given, Images):
        return given
    names = tuple(name for name in given.classes if name in kept)
    rows = [row for row, label in enumerate(given.labels) if given.classes[label] in kept]
    labels = tuple(names.index(given.classes[given.labels[row]]) for row in rows)
    part = Source(names, tuple(given.photos[row] for row in rows), labels)
    images = api.images_of(part, setting.start.preparation(setting.size), warn=warn)
    place = torch.tensor([given.classes.index(name) for name in names])
    return dataclasses.replace(images, labels=place[images.labels], classes=given.classes)


def _file(folder: Path, cell: Cell) -> Path:
    return folder / "cells" / f"{cell.name}.json"


def _finished(folder: Path, cell: Cell, facts: Mapping[str, str]) -> dict[str, Any] | None:
    """The line of a cell that was run before."""
    path = _file(folder, cell)
    if not path.exists():
        return None
    try:
        kept = json.loads(path.read_text("utf-8"))
        line: dict[str, Any] = kept["result"]
        asked = {**facts, "method": cell.settings}
        differing = [key for key, value in asked.items() if kept["facts"].get(key) != value]
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise InputError(f"'{path}' is damaged; delete it, and its cell is run again.") from error
    if differing:
        raise InputError(
            f"'{path}' is of another benchmark: the {', '.join(differing)} differ; repeat the same command, or name another"
            " folder with --out."
        )
    return line


def _put(
    folder: Path, setting: Setting, cells: Sequence[Cell], found: Mapping[str, dict[str, Any]], command: str
) -> dict[str, Any]:
    """Write what is known: ``results.json`` and the page."""
    done = [cell for cell in cells if cell.name in found]
    results = {
        "methods": {label: [found[c.name] for c in done if c.label == label] for label in dict.fromkeys(c.label for c in done)},
        "settings": {cell.label: repr(_seeded(cell.method, 0)) for cell in done},
        "protocol": repr(setting.protocol),
        "network": str(setting.start),
        "size": setting.size,
        "exemplars": setting.exemplars,
        "recipe": {key: value for key, value in dataclasses.asdict(setting.recipe).items() if key != "seed"},
        "versions": api.versions(),
    }
    results = json.loads(json.dumps(results))  # as whoever reads the file has it
    write(json.dumps(results, indent=1, ensure_ascii=False) + "\n", folder / "results.json")
    write(page(results, command), folder / "report.html")
    return results


def _told(cell: Cell, line: Mapping[str, Any], note: str = "") -> str:
    forgets = "" if line["forgetting"] is None else f", forgetting {100 * line['forgetting']:.1f}"
    return (
        f"{cell.label}, seed {cell.seed}, order {cell.order}: average {100 * line['average']:.1f} %, last"
        f" {100 * line['last']:.1f} %{forgets}, {line['seconds']:.0f} s{note}"
    )
