"""Grafted networks in every export format beside the bundle: probabilities, top class, size.

    python benchmarks/parity.py [--images N]

``glne``: ten flowers from five photos each on the ImageNet MobileNetV2; compared are the test flowers and the ImageNet probe.
``der`` (pruned) and ``piggyback``: ten Tiny-ImageNet classes on a public CIFAR-10 ResNet-20, after a few epochs; compared are
the test images of both.
"""

from __future__ import annotations

import argparse
import dataclasses
import tempfile
import time
from pathlib import Path
from typing import Any

from flowers import imagenet
from memories import CIFAR
from record import data, write

from classgraft import api
from classgraft.bundle import Bundle
from classgraft.data.images import Images
from classgraft.data.sources import open_source
from classgraft.exporting import FORMATS

SHORT: dict[str, dict[str, Any]] = {"der": {"masks": True, "epochs": 5}, "piggyback": {"epochs": 5}}
"""Long enough to have something to export; how well they learn is measured elsewhere."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=0, help="of each set (all); fewer are not written down")
    count = parser.parse_args().images
    rows: dict[str, dict[str, Any]] = {}
    for name, (grown, sets) in {"glne": flowers(), "der": tiny("der"), "piggyback": tiny("piggyback")}.items():
        rows[name] = {}
        for format in FORMATS:
            rows[name][format] = {}
            for which, images in sets.items():
                with tempfile.TemporaryDirectory() as folder:
                    started = time.perf_counter()
                    parity = api.export(grown, format, Path(folder) / "out", images.some(count, 0))
                    seconds = time.perf_counter() - started
                    size = sum(file.stat().st_size for file in Path(folder).rglob("*") if file.is_file())
                rows[name][format][which] = dataclasses.asdict(parity) | {"seconds": seconds}
                rows[name][format]["bytes"] = size
                print(name, format, which, parity.sentence, f"{size:,} bytes, {seconds:.1f} s", flush=True)
    if not count:
        write("parity", "grafted networks in every export format beside the bundle", models=rows)


def flowers() -> tuple[Bundle, dict[str, Images]]:
    grown = api.extend(imagenet(), data() / "flowers" / "train", shots=5)
    return grown, {
        "old": api.pictures(grown, data() / "imagenet_probe" / "test.parquet"),
        "new": api.images_of(open_source(data() / "flowers" / "test"), grown.preparation),
    }


def tiny(method: str) -> tuple[Bundle, dict[str, Images]]:
    base = api.import_model("cifar:resnet20", data() / "weights" / "resnet20-12fca82f.th", CIFAR)
    old, known = (api.labelled(base, [data() / "cifar10" / f"{part}.parquet"]) for part in ("train", "test"))
    new, added = (
        api.images_of(open_source(data() / "tinyimagenet100" / f"{part}.parquet"), base.preparation)
        for part in ("train", "test")
    )
    names = new.classes[:10]
    grown = api.extend(
        base,
        new.of(names),
        method=method,
        settings=SHORT[method],
        old_images=old.shots(100, 0) if method == "der" else None,
    )
    return grown, {"old": known, "new": added.of(names)}


if __name__ == "__main__":
    main()
