"""The flowers again, for whoever can still look at some images of the old classes: what is a memory of them worth?

    python benchmarks/flowers_memory.py [--methods NAME ...]

The even half of the probe, one image of each of 500 classes, stands for the old images; old classes are measured on the odd
half. Three draws at 1 and 5 photos a class, the single set at 20; methods that move the body get one draw at 5. Each
finished row is kept in ``results/flowers-memory.json`` and not run again.
"""

from __future__ import annotations

import argparse
import json
import time
from typing import Any

import torch
from flowers import imagenet, measure
from record import RESULTS, data, write

from classgraft import api
from classgraft.data.images import Images
from classgraft.data.sources import load, open_source
from classgraft.training.answers import forget

DRAWS = {1: 3, 5: 3, 20: 1}
WITHOUT: dict[str, tuple[str, dict[str, Any]]] = {
    "auto": ("auto", {}),
    "glne, data-free": ("glne", {}),
    "imprint": ("imprint", {}),
    "rows": ("rows", {}),
    "acwod, head": ("acwod", {"layers": "head"}),
}
"""See no old image."""
WITH: dict[str, tuple[str, dict[str, Any]]] = {
    "auto, old images": ("auto", {}),
    "glne, mixtures": ("glne", {}),
    "glne, real features": ("glne", {"memory": "features"}),
    "soft distillation": ("soft-distillation", {}),
    "glne, literal objective (control)": ("glne-literal", {}),
}
"""See the even half of the probe, or what is kept of it."""
MOVING: dict[str, tuple[str, dict[str, Any], bool]] = {
    "finetune": ("finetune", {}, False),
    "lwf": ("lwf", {}, False),
    "acwod, last block": ("acwod", {"layers": "last-block"}, False),
    "acwod, adapter": ("acwod", {"layers": "adapter"}, False),
    "joint, 5 epochs": ("joint", {"epochs": 5}, True),
}
"""Move the body: everything is computed anew."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    rows: dict[str, tuple[str, dict[str, Any], bool, dict[int, int]]] = {
        **{name: (*row, False, DRAWS) for name, row in WITHOUT.items()},
        **{name: (*row, True, DRAWS) for name, row in WITH.items()},
        **{name: (*row, {5: 1}) for name, row in MOVING.items()},
    }
    parser.add_argument("--methods", nargs="+", default=list(rows))
    chosen = parser.parse_args()
    base = imagenet()
    side = base.preparation.resize
    probe, source = (f(data() / "imagenet_probe" / "test.parquet") for f in (open_source, open_source))
    found = load(probe, side)
    places = torch.tensor([base.classes.index(name) for name in source.classes])[found.labels]
    old = Images(found.pixels[::2], places[::2], base.classes, base.preparation)
    test = load(open_source(data() / "flowers" / "test"), side)
    blank = torch.zeros(len(test.pixels), dtype=torch.int64)
    sets = {
        "new": (Images(test.pixels, blank, base.classes, base.preparation), test.labels + len(base.classes)),
        "probe odd, clean": (Images(found.pixels[1::2], places[1::2], base.classes, base.preparation), places[1::2]),
    }
    photos = api.images_of(open_source(data() / "flowers" / "train"), base.preparation)
    path = RESULTS / "flowers-memory.json"
    cells: list[dict[str, Any]] = json.loads(path.read_text())["cells"] if path.exists() else []
    for name in chosen.methods:
        method, settings, sees, draws = rows[name]
        for shots, count in draws.items():
            for seed in range(count):
                if any((c["name"], c["shots"], c["seed"]) == (name, shots, seed) for c in cells):
                    continue
                forget()  # a row's seconds are its own, whatever ran before it
                started = time.perf_counter()
                grown = api.extend(
                    base,
                    photos,
                    method=method,
                    settings=settings,
                    shots=shots,
                    seed=seed,
                    old_images=old if sees else None,
                )
                event = grown.history[-1]
                row = {"name": name, "sees old images": sees, "picked": event["method"], "shots": shots, "seed": seed}
                row |= {"seconds": time.perf_counter() - started, "memory bytes": event.get("bytes")}
                row |= {k: v for k, v in measure(base, grown, sets).items() if k != "curve"}
                cells.append(row)
                print(row, flush=True)
                write(
                    "flowers-memory",
                    "ten flowers on the ImageNet MobileNetV2, with the even half of the probe as old images and without",
                    n={"old": len(old), "new test": len(blank), "old test": len(places[1::2])},
                    cells=cells,
                )


if __name__ == "__main__":
    main()
