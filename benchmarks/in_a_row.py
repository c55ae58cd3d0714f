"""Five extensions in a row beside a single one, and five updates in a row beside all photos at once.

    python benchmarks/in_a_row.py

Ten flowers on the ImageNet MobileNetV2: two classes a step, five photos each, without old images and with what is kept of
the even half of the probe; then the same ten classes from four photos and four more, five times (``--update``). Old classes
are measured on the odd half of the probe. Two draws.
"""

from __future__ import annotations

from typing import Any

import torch
from flowers import imagenet
from record import data, write

from classgraft import api
from classgraft.bundle import Bundle
from classgraft.data.images import Images
from classgraft.data.sources import load, open_source
from classgraft.metrics.classification import harmonic
from classgraft.training.answers import answers

DRAWS, STEPS, SHOTS = 2, 5, 5


def main() -> None:
    base = imagenet()
    side = base.preparation.resize
    source = open_source(data() / "imagenet_probe" / "test.parquet")
    probe = load(source, side)
    places = torch.tensor([base.classes.index(name) for name in source.classes])[probe.labels]
    old, rest = (Images(probe.pixels[k::2], places[k::2], base.classes, base.preparation) for k in (0, 1))
    photos = api.images_of(open_source(data() / "flowers" / "train"), base.preparation)
    test = api.images_of(open_source(data() / "flowers" / "test"), base.preparation)
    features = [answers(base.model, images, base.model.features) for images in (rest, test)]
    names = photos.classes
    remembered = {"nothing": base, "mixtures": api.remember(base, old, "glne")}

    @torch.inference_mode()
    def measured(now: Bundle) -> dict[str, Any]:
        """On all classes that are there by now."""
        there = [k for k, name in enumerate(names) if name in now.classes]
        own = torch.isin(test.labels, torch.tensor(there))
        place = torch.tensor([now.classes.index(name) if name in now.classes else -1 for name in names])
        kept = float((now.model.head(features[0]).argmax(1) == rest.labels).double().mean())
        new = float((now.model.head(features[1][own]).argmax(1) == place[test.labels[own]]).double().mean())
        size = now.memories["glne"].content.nbytes if "glne" in now.memories else 0
        return {"old": 100 * kept, "new": 100 * new, "harmonic": 100 * (harmonic(kept, new) or 0.0), "bytes": size}

    rows: list[dict[str, Any]] = []
    for kept, start in remembered.items():
        for seed in range(DRAWS):
            drawn = photos.shots(SHOTS, seed)
            now = start
            for step in range(STEPS):
                part = names[2 * step : 2 * step + 2]
                now = api.extend(now, drawn.of(part), method="glne", seed=seed)
                rows.append(
                    {"what": "two classes a step", "kept": kept, "seed": seed, "step": step + 1, **measured(now)}
                )
            once = api.extend(start, drawn, method="glne", seed=seed)
            rows.append({"what": "all ten at once", "kept": kept, "seed": seed, "step": 1, **measured(once)})
            order = torch.cat([torch.nonzero(photos.labels == k)[:, 0] for k in range(len(names))]).view(len(names), -1)
            generator = torch.Generator().manual_seed(seed)
            order = order[:, torch.randperm(order.shape[1], generator=generator)]
            now = start
            for step in range(STEPS):
                batch = photos.subset(order[:, 4 * step : 4 * step + 4].flatten())
                now = api.extend(now, batch, method="glne", seed=seed, update=step > 0)
                rows.append(
                    {
                        "what": "four photos a class a step",
                        "kept": kept,
                        "seed": seed,
                        "step": step + 1,
                        **measured(now),
                    }
                )
            once = api.extend(start, photos, method="glne", seed=seed)
            rows.append({"what": "all twenty photos at once", "kept": kept, "seed": seed, "step": 1, **measured(once)})
            print(kept, seed, rows[-1], flush=True)
    what = "five extensions and five updates in a row, ten flowers on the ImageNet MobileNetV2"
    write("in-a-row", what, n={"old": len(rest), "new": len(test), "draws": DRAWS}, rows=rows)


if __name__ == "__main__":
    main()
