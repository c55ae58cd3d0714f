"""DER on a stream of Tiny-ImageNet classes, whole and pruned, beside iCaRL and WA: accuracy against parameters.

    python benchmarks/der.py                          # every cell and three seeds: a day on two cores, hours on a GPU
    python benchmarks/der.py --only "der" wa --seeds 0
    python benchmarks/der.py --short                  # does it run at all

50 classes in five steps of ten at 32 pixels, ResNet-32, 30 epochs a step, 2,000 exemplars, the order of seed 1993: the
usual stream of ``classgraft bench``, and every row by the same recipe. The balanced stage of DER takes 30 epochs, as the
authors'. Masks with four weights of the sparsity loss. A cell that is in the results is not run again, and one that was
broken off goes on from ``benchmarks/runs/der``.
"""

from __future__ import annotations

import argparse
import json
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from record import RESULTS, data, write

from classgraft import api
from classgraft.data.images import Images
from classgraft.data.sources import open_source
from classgraft.evaluator.bench import bench
from classgraft.evaluator.protocols import Equal
from classgraft.evaluator.settings import Setting
from classgraft.extenders.der import DER
from classgraft.extenders.icarl import ICaRL
from classgraft.extenders.wa import WeightAligning
from classgraft.training.recipe import Recipe
from classgraft.verbs import Extender

SPARSITIES = (0.1, 0.3, 1.0, 3.0)
"""Lambda_s, a factor of about three from one to the next; chosen before any accuracy was seen."""
SETTING = Setting(Equal(10, 10, 50), size=32, exemplars=2000)
SHORT = replace(SETTING, protocol=Equal(2, 2, 6), exemplars=12, recipe=Recipe(epochs=1, batch_size=32))
KEPT = ("seed", "average", "last", "old", "new", "harmonic", "forgetting", "seen", "parameters", "model_bytes", "bytes",
        "seconds")  # fmt: skip


@dataclass(frozen=True)
class Cell:
    """A row of the table; its weight of the sparsity loss, where channels are masked."""

    name: str
    method: Extender
    sparsity: float | None = None


CELLS = (
    Cell("icarl", ICaRL()),
    Cell("wa", WeightAligning()),
    Cell("der", DER()),
    Cell("der, rows aligned", DER(finish="aligned")),
    *(Cell(f"der, sparsity {weight:g}", DER(masks=True, sparsity=weight), weight) for weight in SPARSITIES),
)


@cache
def pictures(part: str, short: bool) -> Images:
    found = api.images_of(
        open_source(data() / "tinyimagenet100" / f"{part}.parquet"), SETTING.start.preparation(SETTING.size)
    )
    return found.shots(8, 0) if short else found


def run(cell: Cell, seed: int, out: Path, short: bool) -> dict[str, Any]:
    """One row."""
    setting = SHORT if short else SETTING
    method = replace(cell.method, exemplars=setting.exemplars, recipe=setting.recipe)  # type: ignore[call-arg]
    found = bench(
        {cell.name: method}, pictures("train", short), pictures("test", short), out=out / f"{cell.name}-{seed}",
        protocol=setting, seeds=(seed,),
    )  # fmt: skip
    (line,) = found["methods"][cell.name]
    return {"method": cell.name, "sparsity": cell.sparsity, **{key: line[key] for key in KEPT}}


def main() -> None:
    names = [cell.name for cell in CELLS]
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--only", nargs="*", choices=names, default=names, metavar="METHOD")
    parser.add_argument("--out", type=Path, default=Path(__file__).parent / "runs" / "der")
    parser.add_argument("--short", action="store_true", help="few images and epochs, nothing is written to the results")
    given = parser.parse_args()
    path = RESULTS / "der.json"
    rows = json.loads(path.read_text("utf-8"))["rows"] if path.exists() and not given.short else []
    done = {(row["method"], row["seed"]) for row in rows}
    out = given.out / "short" if given.short else given.out
    for seed in [int(word) for word in given.seeds.split(",")][: 1 if given.short else None]:
        for cell in CELLS:
            if cell.name in given.only and (cell.name, seed) not in done:
                rows.append(run(cell, seed, out, given.short))
                print(rows[-1], flush=True)
                if not given.short:
                    write("der", "Tiny-ImageNet-100 at 32 pixels, 50 classes in five steps, ResNet-32, 30 epochs a step, 2,000"
                          " exemplars, class order of seed 1993", n=50 * 50, rows=rows)  # fmt: skip


if __name__ == "__main__":
    main()
