"""Makes the pages, drawings and short tables that hold what the JSON files under benchmarks/results/ say.

python benchmarks/tables.py            writes them
python benchmarks/tables.py --check    fails if they are not what the JSON files give
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

import torch
from pictures import DOCS, gallery, pictures
from record import RESULTS
from sections.elsewhere import cells, faces, streets
from sections.flowers import (
    cost,
    enrich,
    exact,
    flowers_development,
    flowers_memory,
    flowers_test,
    in_a_row,
    short,
    small,
    unequal,
)
from sections.keeping import acwod, frozen, memories
from sections.labels import few, moons, transfer, unlabelled
from sections.rates import speed
from sections.streams import attention, dropout, leaders, masks, permuted, reference, replay, stream, ways
from sections.students import distillation, smaller
from sections.trust import broken, parity, release, unknown

ROOT = Path(__file__).parents[1]


def main() -> None:
    torch.set_num_threads(1)  # small matrices: beside other work several threads take ten times as long
    found = {path.stem: json.loads(path.read_text("utf-8")) for path in sorted(RESULTS.glob("*.json"))}
    parts = (flowers_test, flowers_development, exact, cost, small, flowers_memory, in_a_row, unequal, enrich, memories, frozen,
             acwod, distillation, smaller, transfer, few, moons, unlabelled, ways, permuted, stream, reference, masks, replay,
             attention, dropout, cells, streets, faces, parity, unknown, broken, release, speed)  # fmt: skip
    sections = [section(found) for section in parts]
    pages = {DOCS / "results.md": "\n\n".join([HEAD, *filter(None, sections)]) + "\n"}
    drawings = pictures(found)
    pages |= {**drawings, DOCS / "gallery.md": gallery(drawings)}
    tables = {"flowers": short(found), "stream": leaders(found)}
    for page in (ROOT / "README.md", DOCS / "choosing.md"):
        pages[page] = filled(page.read_text("utf-8"), tables)
    stale = [path for path, text in pages.items() if not path.exists() or path.read_text("utf-8") != text]
    if "--check" in sys.argv:
        sys.exit(f"stale, run benchmarks/tables.py: {', '.join(map(str, stale))}" if stale else 0)
    for path in stale:
        path.write_text(pages[path], "utf-8")
        print(path)


def filled(page: str, tables: dict[str, str]) -> str:
    """A page with these tables between the comments that name them."""
    for name, table in tables.items():
        before, begins, rest = page.partition(f"<!-- {name} -->")
        if begins:
            _, ends, after = rest.partition(f"<!-- /{name} -->")
            page = f"{before}{begins}\n{table}{ends}{after}"
    return page


HEAD = """# Results

Made by `python benchmarks/tables.py` from the files under `benchmarks/results/`, each of which says what it was obtained
on. Accuracies in per cent, over images, in the joint label space of old and new classes; ± is the half-width of the 95 %
interval over draws of the photos (Student's t). No choice was made on a test image but where a section says so.

Networks in tables of before 2026-11-29, and those of "Smaller students", were trained with an epoch's last batch as small as
what was left over, which moves accuracy where that is a few images (either way, see CHANGELOG);
batches are of one size since then. The rows of a table share it."""


if __name__ == "__main__":
    main()
