"""Streams through methods: ``classgraft.bench`` and the command of that name.

OUT/results.json       every cell's line, the recipe and the versions
OUT/cells/NAME.json    one finished cell (method, seed, order); it is not run again
OUT/runs/NAME/         the run journal of a cell that is under way
OUT/report.html        the page
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from classgraft.data.images import Images
from classgraft.data.squares import streams
from classgraft.errors import InputError
from classgraft.evaluator.cells import Cell, measured
from classgraft.evaluator.expected import told
from classgraft.evaluator.methods import Methods, cells_of, seeded
from classgraft.evaluator.orders import Order
from classgraft.evaluator.page import page
from classgraft.evaluator.protocols import Equal, Protocol, Stream
from classgraft.evaluator.reading import Given, chosen, read
from classgraft.evaluator.settings import Setting, named
from classgraft.evaluator.spread import one_by_one, over_ray
from classgraft.extenders.finetune import Finetune
from classgraft.history import versions
from classgraft.models.classifier import Classifier
from classgraft.storage import write_text
from classgraft.training.carries import digest
from classgraft.training.engine import device as chosen_device
from classgraft.training.engine import engine, part_of
from classgraft.training.journal import keeping


def bench(
    methods: Methods,
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
            Where the network is fresh, a method with ``needs_trained_body`` begins with a body that has learnt the first
            task by fine-tuning, in the setting's recipe; the time of that counts as its own.
        images: the training images; None: those of the protocol.
        test: the test images, on which nothing is chosen.
        out: the folder of the results. Given again, finished cells are read and the one that was broken off goes on.
        protocol: a name of ``classgraft.evaluator.settings.NAMED``, a protocol, or a whole setting.
        seeds: of fresh weights, the images' order, their augmentation and what a stream draws.
        recipe: fields of the recipe that differ from the setting's. A method by name learns by the setting's recipe with
            these, and lets batch-norm statistics follow; an extender of one's own keeps what it has but for these and the
            exemplars.
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
    asked = setting if isinstance(setting, Setting) else Setting(setting)
    if "exemplars" in changed:
        changed = {"unit": "images", **changed}  # whatever the protocol counts
    setting = dataclasses.replace(asked, **changed)
    setting = dataclasses.replace(setting, recipe=dataclasses.replace(setting.recipe, **(recipe or {})))
    if setting != asked:
        setting = dataclasses.replace(setting, expected=())
    pairs = methods.items() if isinstance(methods, Mapping) else zip(methods, methods, strict=True)
    by_name = [label for label, method in pairs if label == method]
    known = [one for one in setting.expected if one.method in by_name and one.method not in (settings or {})]
    setting = dataclasses.replace(setting, expected=tuple(known))
    cells = cells_of(methods, setting, seeds, recipe or {}, settings or {})
    images, test = setting.images if images is None else images, setting.test if test is None else test
    train, tested = read(images, test, setting, warn)
    if ray and (streams(train.pixels) or streams(tested.pixels)):
        raise InputError(
            "The images are too many for memory, which Ray needs them in; leave --ray out, or take a smaller size."
        )
    folder = Path(out).resolve()
    job = _Job(setting, train, tested, folder, device, precision)
    found: dict[str, dict[str, Any]] = {}
    for cell in cells:
        if (line := _finished(folder, cell, job.facts(cell))) is not None:
            found[cell.name] = line
            tell(_told(cell, line, " (was there)"))
    for cell, line in (over_ray if ray else one_by_one)(job, [cell for cell in cells if cell.name not in found]):
        write_text(json.dumps({"facts": job.facts(cell), "result": line}, indent=1), _file(folder, cell))
        shutil.rmtree(job.runs(cell), ignore_errors=True)
        found[cell.name] = line
        tell(_told(cell, line))
        _put(folder, setting, cells, found, command)
    results = _put(folder, setting, cells, found, command)
    for check in results["expected"]:
        tell(told(check))
    return results


@dataclasses.dataclass(frozen=True)
class _Job:
    """What every cell needs; called with a cell it gives its line, in this process or another."""

    setting: Setting
    train: Images
    test: Images
    folder: Path
    device: str | None
    precision: Literal["fp32", "bf16"] | None
    known: dict[Order, dict[str, str]] = dataclasses.field(default_factory=dict)
    """Fingerprints of the images that come in an order."""
    prints: dict[int, str] = dataclasses.field(default_factory=dict)
    """Of the weights that a stream starts from, by seed."""
    bodies: dict[tuple[int, Order], tuple[Classifier, float]] = dataclasses.field(default_factory=dict)
    """What has learnt the first task, without its head, by seed and order; and the seconds that it took."""

    def __call__(self, cell: Cell) -> dict[str, Any]:
        runs, seconds = self.runs(cell), 0.0
        stream = Stream(self.setting.protocol, self.train, self.test, cell.order, cell.seed)
        looks = self.setting.recipe.epochs * stream.length
        with engine(device=self.device, precision=self.precision), part_of(looks * (self.setting.size / 32) ** 2):
            start = self.setting.start.classifier(cell.seed).to(chosen_device())
            if _begins(self.setting, cell):
                start, seconds = self.begun(cell, start, stream)
            with keeping(runs, cell.settings):
                return measured(cell, start, stream, runs / "seconds.json", seconds)

    def begun(self, cell: Cell, start: Classifier, stream: Stream) -> tuple[Classifier, float]:
        """A body that has learnt the first task by fine-tuning; once for all methods that need one."""
        if (cell.seed, cell.order) not in self.bodies:
            recipe = dataclasses.replace(self.setting.recipe, seed=cell.seed)
            began = time.perf_counter()
            with keeping(self.runs(cell) / "body", repr(recipe)):
                learnt = Finetune(statistics=True, recipe=recipe).extend(start, None, next(iter(stream))[0])
            self.bodies[cell.seed, cell.order] = learnt.headed([], ()).eval(), time.perf_counter() - began
        return self.bodies[cell.seed, cell.order]

    def runs(self, cell: Cell) -> Path:
        """Where the cell's training is kept safe while it is under way."""
        return self.folder / "runs" / f"{cell.name}-{digest(repr(self.facts(cell)))[:8]}"

    def facts(self, cell: Cell) -> dict[str, str]:
        """What a finished cell must agree in to be taken for one of this benchmark."""
        return {
            "method": cell.settings,
            "protocol": repr(self.setting.protocol),
            "network": f"{self.setting.start} {self._weights(cell.seed)}".strip() + self._begins_by(cell),
            "preparation": repr(self.train.preparation),
            **self._prints(cell.order),
        }

    def _begins_by(self, cell: Cell) -> str:
        return f", first fine-tuned by {self.setting.recipe}" if _begins(self.setting, cell) else ""

    def _weights(self, seed: int) -> str:
        """A fingerprint of trained weights, or of what a function makes, which its name does not tell."""
        if seed not in self.prints:
            start = self.setting.start
            print_ = hashlib.sha256(start.weights.read_bytes()).hexdigest() if start.weights else ""
            if not isinstance(start.source, str):
                body = start.classifier(seed).body
                print_ = digest(repr(body), body)
            self.prints[seed] = print_
        return self.prints[seed]

    def _prints(self, order: Order) -> dict[str, str]:
        if order not in self.known:
            coming = [name for name in self.train.classes if name in chosen(self.train.classes, self.setting, order)]
            sets = {"training images": self.train, "test images": self.test}
            self.known[order] = {words: images.of(coming).fingerprint for words, images in sets.items()}
        return self.known[order]


def _begins(setting: Setting, cell: Cell) -> bool:
    """Whether the body has to learn the first task before the method can do anything with it."""
    return setting.start.fresh and getattr(cell.method, "needs_trained_body", False)


def _file(folder: Path, cell: Cell) -> Path:
    return folder / "cells" / f"{cell.name}.json"


def _finished(folder: Path, cell: Cell, asked: Mapping[str, str]) -> dict[str, Any] | None:
    """The line of a cell that was run before."""
    path = _file(folder, cell)
    if not path.exists():
        return None
    try:
        kept = json.loads(path.read_text("utf-8"))
        line: dict[str, Any] = kept["result"]
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
    lines = {label: [found[cell.name] for cell in done if cell.label == label] for label in {c.label for c in cells}}
    whole = [one for one in setting.expected if len(lines[one.method]) == sum(c.label == one.method for c in cells)]
    gathered = {
        "methods": {label: lines[label] for label in dict.fromkeys(c.label for c in done)},
        "settings": {cell.label: dataclasses.replace(cell, method=seeded(cell.method, 0)).settings for cell in done},
        "begun": list(dict.fromkeys(cell.label for cell in done if _begins(setting, cell))),
        "protocol": repr(setting.protocol),
        "network": str(setting.start),
        "size": setting.size,
        "exemplars": setting.exemplars,
        "unit": setting.unit,
        "expected": [one.check(lines[one.method]) for one in whole],
        "recipe": {key: value for key, value in dataclasses.asdict(setting.recipe).items() if key != "seed"},
        "versions": versions(),
    }
    results: dict[str, Any] = json.loads(json.dumps(gathered, allow_nan=False))  # as whoever reads the file has it
    write_text(json.dumps(results, indent=1, ensure_ascii=False) + "\n", folder / "results.json")
    write_text(page(results, command), folder / "report.html")
    return results


def _told(cell: Cell, line: Mapping[str, Any], note: str = "") -> str:
    forgets = "" if line["forgetting"] is None else f", forgetting {100 * line['forgetting']:.1f}"
    note += " (it diverged: not a number)" * bool(line["diverged"])
    return (
        f"{cell.label}, seed {cell.seed}, order {cell.order}: average {100 * line['average']:.1f} %, last"
        f" {100 * line['last']:.1f} %{forgets}, {line['seconds']:.0f} s{note}"
    )
