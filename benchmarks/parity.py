"""A grafted MobileNetV2 in every export format beside the bundle: probabilities, top class, size.

    python benchmarks/parity.py [--images N]

Ten flowers on the ImageNet MobileNetV2, five photos each: by ``glne``; by ``der``, two bodies side by side; by ``piggyback``,
masks over one. Compared are the ImageNet probe and the test flowers.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
import time
from pathlib import Path
from typing import Any

from flowers import imagenet
from record import data, write

from classgraft import api
from classgraft.data.sources import open_source
from classgraft.errors import InputError
from classgraft.exporting import FORMATS

SETTINGS: dict[str, dict[str, Any]] = {
    "glne": {},
    "der": {"epochs": 2, "finish": "none", "lr": 0.001},
    "piggyback": {"epochs": 5},
}
"""Of the last two, long enough to have something to export; how well they learn is measured elsewhere."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=0, help="of each set (all); fewer are not written down")
    count = parser.parse_args().images
    rows: dict[str, dict[str, Any]] = {}
    base = imagenet()
    old = api.labelled(base, [data() / "imagenet_probe" / "test.parquet"])
    new = api.images_of(open_source(data() / "flowers" / "test"), base.preparation)
    for name, settings in SETTINGS.items():
        shown = old if name == "der" else None
        grown = api.extend(
            base, data() / "flowers" / "train", method=name, settings=settings, shots=5, old_images=shown
        )
        rows[name] = {}
        for format in FORMATS:
            rows[name][format] = {}
            for which, images in {"old": old, "new": new}.items():
                with tempfile.TemporaryDirectory() as folder:
                    started = time.perf_counter()
                    try:
                        parity = api.export(grown, format, Path(folder) / "out", images.some(count, 0))
                    except InputError as error:  # not every format can hold every network
                        rows[name][format] = {"refused": str(error)}
                        print(name, format, error, flush=True)
                        break
                    seconds = time.perf_counter() - started
                    size = sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file())
                rows[name][format][which] = dataclasses.asdict(parity) | {"seconds": seconds}
                rows[name][format]["bytes"] = size
                print(name, format, which, parity.sentence, f"{size:,} bytes, {seconds:.1f} s", flush=True)
    if not count:
        write("parity", "a grafted MobileNetV2 in every export format beside the bundle", models=rows)


if __name__ == "__main__":
    main()
