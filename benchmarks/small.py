"""Small networks with few classes: where the head tells little of the old classes.

    python benchmarks/small.py

CIFAR-10 ResNet-20 and -56 extended with ten Tiny-ImageNet classes that are no kinds of CIFAR-10 classes, at 32 pixels.
"""

from __future__ import annotations

from typing import Any

import torch
from exact import CIFAR
from record import data, write

from classgraft import api
from classgraft.data.sources import open_source
from classgraft.metrics import tradeoff
from classgraft.training.answers import answers

DRAWS = {1: 5, 5: 5, 20: 5}
CLASSES = (
    "trilobite", "bee", "cash machine", "fountain", "maypole",
    "poncho", "sombrero", "guacamole", "obelisk", "potter's wheel",
)  # fmt: skip


def main() -> None:
    rows: list[dict[str, Any]] = []
    tiny = data() / "tinyimagenet100"
    for network, weights in (("resnet20", "resnet20-12fca82f.th"), ("resnet56", "resnet56-4bfd9763.th")):
        base = api.import_model(f"cifar:{network}", data() / "weights" / weights, CIFAR)
        old = api.labelled(base, [data() / "cifar10" / "test.parquet"])
        train, test = (
            api.images_of(open_source(tiny / f"{part}.parquet"), base.preparation) for part in ("train", "test")
        )
        names = tuple(next(full for full in train.classes if full.split(",")[0] == name) for name in CLASSES)
        train, test = train.of(names), test.of(names)
        first = len(base.classes)
        before = 100 * float((answers(base.model, old).argmax(1) == old.labels).double().mean())
        for method in ("glne", "imprint", "rows"):
            for shots, draws in DRAWS.items():
                for seed in range(draws):
                    grown = api.extend(base, train, method=method, shots=shots, seed=seed)
                    with torch.inference_mode():
                        logits = [
                            grown.model.head(answers(base.model, part, base.model.features)) for part in (old, test)
                        ]
                    curve = tradeoff.curve(logits[0], old.labels, logits[1], test.labels + first, first)
                    here = int(curve.offset.abs().argmin())
                    numbers = {"old": float(curve.old[here]), "new": float(curve.new[here]), "harmonic": curve.achieved,
                               "best": curve.best, "regret": curve.regret, "area": curve.area}  # fmt: skip
                    row = {key: 100 * value for key, value in numbers.items()}
                    rows.append(
                        {
                            "network": network,
                            "method": method,
                            "shots": shots,
                            "seed": seed,
                            "old before": before,
                            **row,
                        }
                    )
            print(rows[-1], flush=True)
    what = f"CIFAR-10 ResNets of 64 features extended with ten Tiny-ImageNet classes ({', '.join(CLASSES)}); old: {len(old)} CIFAR-10 test images, new: {len(test)}"  # noqa: E501
    write("small", what, n={"old": len(old), "new": len(test)}, rows=rows)


if __name__ == "__main__":
    main()
