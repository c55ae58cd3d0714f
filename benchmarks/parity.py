"""A grafted MobileNetV2 in every export format beside the bundle: probabilities, top class, size.

    python benchmarks/parity.py [--images N]

Ten flowers are grafted by GLNE from five photos each; compared are the test flowers and the ImageNet probe.
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
from classgraft.exporting import FORMATS


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=0, help="of each set (all); fewer are not written down")
    count = parser.parse_args().images
    grown = api.extend(imagenet(), data() / "flowers" / "train", shots=5)
    sets = {
        "flowers": api.images_of(open_source(data() / "flowers" / "test"), grown.preparation),
        "probe": api.pictures(grown, data() / "imagenet_probe" / "test.parquet"),
    }
    sets = {name: images.some(count, 0) for name, images in sets.items()}
    rows: dict[str, Any] = {}
    for format in FORMATS:
        rows[format] = {}
        for name, images in sets.items():
            with tempfile.TemporaryDirectory() as folder:
                started = time.perf_counter()
                parity = api.export(grown, format, Path(folder) / "out", images)
                seconds = time.perf_counter() - started
                size = sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file())
            rows[format][name] = dataclasses.asdict(parity) | {"seconds": seconds}
            rows[format]["bytes"] = size
            print(format, name, parity.sentence, f"{size:,} bytes, {seconds:.1f} s", flush=True)
    if not count:
        write("parity", "a GLNE-extended MobileNetV2 in every export format beside the bundle", formats=rows)


if __name__ == "__main__":
    main()
