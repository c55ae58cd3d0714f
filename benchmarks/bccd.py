"""Blood cells: narrow detectors that learn from a wide one, and Platelets grafted onto a detector of the other cells.

    python benchmarks/bccd.py                              # both parts and three seeds: four hours of one core
    python benchmarks/bccd.py --only graft --seeds 0
    python benchmarks/bccd.py --only distill --soft 0.5    # another setting, looked at on the held-out part alone
    python benchmarks/bccd.py --short                      # does it run at all

BCCD (RBC, WBC, Platelets), pictures of 640 x 480 stretched to squares of 256; torchvision's Faster R-CNN on a backbone of six
convolutions, from scratch. Of BCCD's trainval 15 % are held out to choose on; mean average precision at an overlap of 0.5 is
measured on the rest ("train"), on the held-out part and on BCCD's test.

``distill``: a teacher of width 32, students of width 8: labels alone, with the teacher's answers, with its hint, with both;
the control, of the first seed alone, hears an untrained teacher. ``graft``, on test alone: a base of RBC and WBC learns from
the training images that show no Platelets, for as many steps as the ceiling takes; of the others 1, 5 or 20 are drawn, in
which the Platelets alone have boxes. Beside new rows: rows without made-up old features, rows that find only what the base's
first stage proposes, rows that read the box head's features alone, rows from boxes in wrong places (the control),
fine-tuning of everything on the same images for 400 steps at two rates, its batch-norm statistics held (where the Platelets
alone have boxes, it learns old cells as background; once more with all boxes, and once from the new rows and with the boxes
that the base finds), and training on all boxes of all images (the ceiling: the teacher of the other part). Rows, and most
fine-tuning on 1 image, are means over five draws of images for each base, other ones for another base; the rest has the first
of these draws. The rows' settings were looked at on the held-out part, from three draws and the first base. A cell that is in
the results is not run again, nor one that another process is at; what took minutes to learn is kept under ``runs``.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from record import RESULTS, add, data, kept, undone
from torch import nn
from torchvision.utils import draw_bounding_boxes, make_grid

from classgraft import detectors
from classgraft.catalogue import distiller
from classgraft.data.boxes import Boxed, read_voc
from classgraft.extenders.detector_rows import DetectorRows, coverage
from classgraft.metrics.detection import mean
from classgraft.models.detector import Detector
from classgraft.models.detector_parts import small
from classgraft.training.detecting import RECIPE, found, train
from classgraft.training.engine import device

OLD, NEW = ("RBC", "WBC"), ("Platelets",)
CELLS = (*OLD, *NEW)
SIDE, TEACHER, STUDENT = 256, 32, 8
HELD_OUT, SHOTS, DRAWS = 0.15, (1, 5, 20), 5
NOTHING = {"soft": 0.0, "bounded": 0.0, "hint": 0.0}
ANSWERS = {"soft": 0.2, "bounded": 0.5}
BOXED, OWN = "fine-tuning at 0.001, old boxes too", "rows, then fine-tuning with the base's own boxes"
TUNING, STEPS = {"fine-tuning at 0.0003": 3e-4, "fine-tuning at 0.001": 1e-3, BOXED: 1e-3}, 400
"""Rates and steps of fine-tuning on a few images; the base was trained at 0.001."""
SAME = ("part", "name", "shots", "draw", "seed")
ONCE = ("the teacher", "both, untrained teacher", "all boxes of all images")
"""Rows of the first seed alone."""
DRAWN = (("rows", 5), ("fine-tuning at 0.001", 5), ("the teacher", 0), ("labels alone", 0), ("both", 0))
"""Rows and images whose boxes are drawn."""


@dataclass(frozen=True)
class Cell:
    """A row of a table."""

    part: str
    name: str
    shots: int = 0
    settings: dict[str, Any] = field(default_factory=dict)
    draw: int = 0
    """Of the images."""


def cells() -> Iterator[Cell]:
    """Every cell, those of a part together."""
    yield Cell("distill", "the teacher")
    yield Cell("distill", "labels alone", settings=NOTHING)
    yield Cell("distill", "distillation", settings={**NOTHING, **ANSWERS})
    yield Cell("distill", "hint", settings={**NOTHING, "hint": 0.5})
    yield Cell("distill", "both", settings={**ANSWERS, "hint": 0.5})
    yield Cell("distill", "both, untrained teacher", settings={**ANSWERS, "hint": 0.5})
    for shots in SHOTS:
        for draw in range(DRAWS):
            yield Cell("graft", "rows", shots, {}, draw)
            yield Cell("graft", "rows, nothing made up", shots, {"base": 0.0}, draw)
            yield Cell("graft", "rows, the first stage's proposals alone", shots, {"regions": 0}, draw)
            yield Cell("graft", "rows, no pooled maps", shots, {"maps": 0.0}, draw)
            yield Cell("graft", "rows, boxes in wrong places", shots, {}, draw)
            for name in [*TUNING, OWN] if not draw else TUNING if shots == 1 else ():
                yield Cell("graft", name, shots, {}, draw)
    yield Cell("graft", "all boxes of all images")


@cache
def parts(short: bool) -> tuple[Boxed, Boxed, Boxed]:
    """To train on, held out, test."""
    side, root = (96 if short else SIDE), data() / "bccd"
    whole = read_voc(root, "trainval", CELLS, side)
    test = read_voc(root, "test", CELLS, side)
    if short:
        whole, test = whole.some(24, 0), test.some(6, 0)
    return (*whole.split(HELD_OUT, 0), test)


@cache
def separate(short: bool) -> tuple[Boxed, Boxed]:
    """Training images without Platelets, and those with some."""
    images = parts(short)[0]
    shown = set(images.owner[images.labels == CELLS.index(NEW[0])].tolist())
    others = [i for i in range(len(images)) if i not in shown]
    return images.subset(torch.tensor(others)), images.showing(NEW)


def fresh(width: int, classes: tuple[str, ...], seed: int, short: bool) -> Detector:
    side, width = (96, width // 4) if short else (SIDE, width)
    anchors = [round(side / SIDE * size) for size in (20, 44, 88)]
    return Detector(small(len(classes), width, side, anchors, seed=seed), classes).to(device())


@cache
def teacher(short: bool) -> Detector:
    """One for all seeds."""
    recipe, blank = quick(short, 100), fresh(TEACHER, CELLS, 100, short)
    return stored("bccd/teacher", blank, lambda: train(blank, parts(short)[0], recipe), short, recipe)


@cache
def base(seed: int, short: bool) -> Detector:
    """Of the old cells; as many steps on fewer images."""
    images, recipe = separate(short)[0].of(OLD), quick(short, seed)
    passes = 1 if short else round(recipe.epochs * len(parts(short)[0]) / len(images))
    recipe, blank = replace(recipe, epochs=passes), fresh(TEACHER, OLD, seed, short)
    return stored(f"bccd/base-{seed}", blank, lambda: train(blank, images, recipe), short, recipe)


def stored(name: str, blank: Detector, learn: Callable[[], Detector], short: bool, *keys: object) -> Detector:
    return learn() if short else kept(name, blank, learn, SIDE, HELD_OUT, *keys)


@cache
def before(seed: int, part: str, short: bool) -> float:
    """Mean average precision of the base, in per cent."""
    images = dict(zip(("train", "held out", "test"), parts(short), strict=True))[part]
    return float(percent(detectors.evaluate(base(seed, short), images.of(OLD)))["all"])


def quick(short: bool, seed: int) -> Any:
    return replace(RECIPE, epochs=1 if short else RECIPE.epochs, seed=seed)


def network(cell: Cell, seed: int, short: bool) -> Detector:
    return (student if cell.part == "distill" else grafted)(cell, seed, short)


def student(cell: Cell, seed: int, short: bool) -> Detector:
    if cell.name == "the teacher":
        return teacher(short)
    method: Any = distiller("detection", {**cell.settings, "seed": seed, **({"epochs": 1} if short else {})})
    blank = fresh(STUDENT, CELLS, seed, short)

    def learn() -> Detector:
        master = fresh(TEACHER, CELLS, 7, short) if "untrained" in cell.name else teacher(short)
        return method.distill(master, blank, parts(short)[0])  # type: ignore[no-any-return]

    return stored(f"bccd/{cell.name}-{seed}", blank, learn, short, method, TEACHER, STUDENT, quick(short, 100))


def grafted(cell: Cell, seed: int, short: bool) -> Detector:
    if not cell.shots:
        return teacher(short)
    of_draw = 100 * seed + cell.draw
    few, start = separate(short)[1].some(cell.shots, of_draw), base(seed, short)
    if cell.name != BOXED:
        few = few.of(NEW)
    if cell.name == OWN:
        return detectors.extend(start, few, method=DetectorRows(seed=of_draw), tune=1 if short else STEPS)
    if cell.name in TUNING:
        width = start.first.cls_score.in_features
        rows, offsets = nn.Linear(width, len(NEW)), nn.Linear(width, 4 * len(NEW))
        for parameter in (*rows.parameters(), *offsets.parameters()):
            nn.init.zeros_(parameter)
        passes = 1 if short else math.ceil(STEPS / math.ceil(len(few) / RECIPE.batch_size))
        recipe = replace(RECIPE, epochs=passes, lr=TUNING[cell.name], seed=of_draw)
        name, blank = f"bccd/{cell.name}-{cell.shots}-{of_draw}", start.grown(NEW, rows, offsets)
        keys = (TEACHER, quick(short, seed), recipe)
        return stored(name, blank, lambda: train(blank, few, recipe, statistics=False), short, *keys)
    if "wrong" in cell.name:
        side = few.images.pixels.shape[-1]
        away = torch.rand(len(few.boxes), 2, generator=torch.Generator().manual_seed(of_draw))
        sides = few.boxes[:, 2:] - few.boxes[:, :2]
        corner = away * (side - sides)
        few = replace(few, boxes=torch.cat([corner, corner + sides], 1).clamp(0, side))
    return detectors.extend(start, few, method=DetectorRows(seed=of_draw, **cell.settings))


def run(cell: Cell, seed: int, short: bool, chosen: bool) -> dict[str, Any]:
    """One row; while something is being chosen, without a look at the test images."""
    seen, held, test = parts(short)
    started = time.perf_counter()
    model = network(cell, seed, short)
    row: dict[str, Any] = {
        "part": cell.part, "name": cell.name, "shots": cell.shots, "draw": cell.draw, "seed": seed,
        "seconds": time.perf_counter() - started, "parameters": sum(p.numel() for p in model.parameters()),
        "settings": cell.settings,
    }  # fmt: skip
    looked = {"train": seen, "held out": held} if cell.part == "distill" else {}
    looked |= {} if chosen else {"test": test}
    for name, images in looked.items():
        row[name] = percent(detectors.evaluate(model, images))
    if cell.part == "graft" and cell.shots:
        for name, images in looked.items():
            row[name]["before"] = before(seed, name, short)
            row[name]["proposed"] = 100 * coverage(model, images.of(NEW))
    return row


def percent(scores: dict[str, Any]) -> dict[str, Any]:
    """In per cent; what has no box to find is None."""
    each = scores["per_class"]
    flat = {**each, "old": mean(each, OLD), "new": each.get(NEW[0]), "all": mean(each)}
    return {name: None if value is None else 100 * value for name, value in flat.items()}


def picture(model: Detector, images: Boxed) -> Image.Image:
    """What is found with a score of at least one half in four pictures: RBC red, WBC white, Platelets yellow."""
    few, shown = images.showing(NEW).some(4, 0), []
    for pixels, own in zip(few.images.pixels, found(model, few), strict=True):
        sure = own["scores"] >= 0.5
        colours = [("red", "white", "yellow")[int(k) - 1] for k in own["labels"][sure]]
        shown.append(draw_bounding_boxes(pixels, own["boxes"][sure], colors=colours, width=2) if colours else pixels)
    return Image.fromarray(make_grid(shown, 4, 4, pad_value=255).permute(1, 2, 0).numpy())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--only", choices=["distill", "graft", "all"], default="all")
    parser.add_argument("--soft", type=float, help="1 - mu, to choose on the held-out part; nothing is written")
    parser.add_argument("--short", action="store_true", help="few images and epochs, nothing is written")
    given = parser.parse_args()
    trial, only = given.short or given.soft is not None, "distill" if given.soft is not None else given.only
    todo = {
        (cell.part, cell.name, cell.shots, cell.draw, seed): cell
        for seed in [int(word) for word in given.seeds.split(",")][: 1 if given.short else None]
        for cell in cells()
        if only in (cell.part, "all") and not (seed and cell.name in ONCE) and not (given.short and cell.draw)
    }
    folder = Path(tempfile.mkdtemp()) if trial else RESULTS.parents[1] / "docs"
    for key in todo if trial else undone("bccd", SAME, todo):
        cell, seed = todo[key], key[-1]
        if given.soft is not None and cell.settings.get("soft"):
            cell = replace(cell, settings={**cell.settings, "soft": given.soft})
        row = run(cell, seed, given.short, given.soft is not None)
        print(row, flush=True)
        if not trial:
            what = __doc__.split("\n\n", 2)[2].rpartition(" A cell")[0]
            add("bccd", " ".join(what.split()), [row], same=SAME)
        if (seed, cell.draw) == (0, 0) and (cell.name, cell.shots) in DRAWN:
            path = folder / f"bccd-{cell.name}.png".replace(" ", "-")
            picture(network(cell, seed, given.short), parts(given.short)[1]).save(path)
            print(path)


if __name__ == "__main__":
    main()
