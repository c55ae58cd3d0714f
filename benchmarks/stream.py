"""Every learner on a stream of Tiny-ImageNet classes; DER whole and pruned; equal bytes beside equal exemplars.

    python benchmarks/stream.py                          # every cell and its seeds: days on two cores, hours on a GPU
    python benchmarks/stream.py --only "der" wa --seeds 0
    python benchmarks/stream.py --short                  # does it run at all

50 classes in five steps of ten at 32 pixels, ResNet-32, 30 epochs a step, 2,000 exemplars, the order of seed 1993: the
usual stream of ``classgraft bench``, and every row by the same recipe. Methods that leave the body alone have it from the
first step of fine-tuning. The balanced stage of DER takes 30 epochs, as the authors'; masks with four weights of the sparsity
loss. In rows "as many bytes" model and memory together take what those of DER do after the last step. ``--seeds 0``
is one run of every row; the rest are of the rows that are compared. A cell that is in the results is not run again, and one
that was broken off goes on from ``benchmarks/runs/stream``; two processes with other ``--only`` may share the results.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, fields, replace
from functools import cache
from pathlib import Path
from typing import Any

from record import RESULTS, add, data

from classgraft import api, catalogue
from classgraft.data.images import Images
from classgraft.data.sources import open_source
from classgraft.evaluator.bench import bench
from classgraft.evaluator.protocols import Equal
from classgraft.evaluator.settings import Setting
from classgraft.training.recipe import Recipe

SPARSITIES = (0.1, 0.3, 1.0, 3.0)
"""Lambda_s, a factor of about three from one to the next; chosen before any accuracy was seen."""
SETTING = Setting(Equal(10, 10, 50), size=32, exemplars=2000)
SHORT = replace(SETTING, protocol=Equal(2, 2, 6), exemplars=12, recipe=Recipe(epochs=1, batch_size=32))
BODY = 1_860_000
"""Bytes of a ResNet-32 without its head, about; DER has five after the last step."""
KEPT = (
    "average",
    "last",
    "old",
    "new",
    "harmonic",
    "forgetting",
    "seen",
    "parameters",
    "model_bytes",
    "bytes",
    "seconds",
)


@dataclass(frozen=True)
class Cell:
    """A row of the table; the fields in which its method differs from the catalogue's, and the exemplars' budget."""

    name: str
    method: str = ""
    """Of the catalogue; empty: the name."""
    settings: tuple[tuple[str, Any], ...] = ()
    sparsity: float | None = None
    """Weight of the sparsity loss, where channels are masked."""
    more: int = 0
    """Bytes of exemplars beyond those of the others."""


USUAL_LWF = (("softmax", "sides"), ("strength", 3.0), ("warm_up", 0.0), ("statistics", True))
"""As the PyCIL library has it: cross-entropy among the new classes alone."""
CELLS = (
    *map(Cell, ("finetune", "exemplars", "icarl", "wa", "lwf", "joint", "der")),
    *map(Cell, ("bic", "podnet", "ewc", "mas", "rows", "imprint", "ncm", "slda", "fecam", "ranpac", "knn", "glne")),
    Cell("icarl, a fifth of the rate", "icarl", (("lr", 0.02),)),
    Cell("lwf, new among new", "lwf", USUAL_LWF),
    Cell("der, rows aligned", "der", (("finish", "aligned"),)),
    *(Cell(f"der, sparsity {weight:g}", "der", (("masks", True), ("sparsity", weight)), weight) for weight in SPARSITIES),
    *(Cell(f"{name}, as many bytes as der", name, more=4 * BODY) for name in ("exemplars", "icarl", "wa")),
)  # fmt: skip
WHAT = (
    "Tiny-ImageNet-100 at 32 pixels, 50 classes in five steps, ResNet-32, 30 epochs a step, 2,000 exemplars, class order of"
    " seed 1993"
)
COMPARED = ("finetune", "exemplars", "icarl", "wa", "lwf", "joint", "der")
"""With three seeds."""


@cache
def pictures(part: str, short: bool) -> Images:
    found = api.images_of(
        open_source(data() / "tinyimagenet100" / f"{part}.parquet"), SETTING.start.preparation(SETTING.size)
    )
    return found.shots(8, 0) if short else found


def method_of(cell: Cell) -> str:
    return cell.method or cell.name


def begins_trained(cell: Cell) -> bool:
    return bool(getattr(catalogue.method_type(catalogue.entry(method_of(cell), "extend")), "needs_trained_body", False))


def settings_of(cell: Cell, setting: Setting) -> dict[str, Any]:
    found = dict(cell.settings)
    if cell.more:
        one = 3 * setting.size**2 + 8
        found |= {"exemplars": (setting.exemplars or 0) * one + cell.more, "unit": "bytes"}
    if "views" in {field.name for field in fields(catalogue.method_type(catalogue.entry(method_of(cell), "extend")))}:
        found["views"] = 1  # 25,000 images are seen as they are
    return found


def run(cells: Sequence[Cell], seed: int, out: Path, short: bool) -> Iterator[dict[str, Any]]:
    """Rows of cells that share what they begin with."""
    setting = SHORT if short else SETTING
    found = bench(
        {cell.name: method_of(cell) for cell in cells}, pictures("train", short), pictures("test", short),
        out=out / f"{cells[0].name}-{seed}", protocol=setting, seeds=(seed,),
        settings={cell.name: settings_of(cell, setting) for cell in cells},
    )  # fmt: skip
    for cell in cells:
        (line,) = found["methods"][cell.name]
        yield {"method": cell.name, "seed": seed, "sparsity": cell.sparsity, **{key: line[key] for key in KEPT}}


def rows() -> list[dict[str, Any]]:
    path = RESULTS / "stream.json"
    return json.loads(path.read_text("utf-8"))["rows"] if path.exists() else []


def main() -> None:
    names = [cell.name for cell in CELLS]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--only", nargs="*", choices=names, default=names, metavar="METHOD")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "runs" / "stream")
    parser.add_argument("--short", action="store_true", help="few images and epochs, nothing is written to the results")
    given = parser.parse_args()
    for seed in [int(word) for word in given.seeds.split(",")][: 1 if given.short else None]:
        done = set() if given.short else {row["method"] for row in rows() if row["seed"] == seed}
        wanted = [c for c in CELLS if c.name in set(given.only) - done and (seed == 0 or c.name in COMPARED)]
        together = [cell for cell in wanted if begins_trained(cell)]
        for cells in [*([cell] for cell in wanted if cell not in together), *([together] if together else [])]:
            for row in run(cells, seed, given.out / "short" if given.short else given.out, given.short):
                print(row, flush=True)
                if not given.short:
                    add("stream", WHAT, [row], n=50 * 50, order=lambda row: (names.index(row["method"]), row["seed"]))


if __name__ == "__main__":
    main()
