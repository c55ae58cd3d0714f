"""Photos that are not shared out evenly: five of ten flowers have one or three photos each, the others ten or fifteen.

    python benchmarks/unequal.py           # five minutes of one core

``glne`` on the ImageNet MobileNetV2, without an ImageNet image; four draws of photos and of the five classes. Each class
counts alike, as it does in the library, and, as the control, each photo. Chosen on flowers_dev and the even half of the
probe, measured on the test flowers and the odd half.
"""

from __future__ import annotations

from typing import Any
from unittest import mock

import torch
from flowers import imagenet
from record import data, write

from classgraft import api
from classgraft.catalogue import extender
from classgraft.data.images import Task
from classgraft.data.sources import open_source
from classgraft.extenders import glne
from classgraft.losses.classification import by_class
from classgraft.metrics.classification import harmonic
from classgraft.training.answers import answers
from classgraft.training.engine import device

SHARES = ((10, 1), (15, 3))
"""Photos of a class that has many, and of one that has few."""
DRAWS = range(4)


def main() -> None:
    base = imagenet()
    model = base.model.to(device())
    photos, new = (
        api.images_of(open_source(data() / "flowers" / part), base.preparation) for part in ("train", "test")
    )
    probe = api.labelled(base, [data() / "imagenet_probe" / "test.parquet"])
    old = probe.subset(torch.arange(1, len(probe), 2))
    seen_old, seen_new = (answers(model, images, model.features) for images in (old, new))
    rows: list[dict[str, Any]] = []
    for seed in DRAWS:
        for many, few in SHARES:
            random = torch.Generator().manual_seed(seed)
            rare = set(torch.randperm(len(photos.classes), generator=random)[: len(photos.classes) // 2].tolist())
            places = []
            for k in range(len(photos.classes)):
                own = torch.nonzero(photos.labels == k)[:, 0]
                places.append(own[torch.randperm(len(own), generator=random)][: few if k in rare else many])
            task = Task(photos.classes, photos.subset(torch.cat(places)))
            for name, weight in (
                ("each class alike", by_class),
                ("each photo alike (control)", lambda labels: None),
            ):
                with mock.patch.object(glne, "by_class", weight), torch.no_grad():
                    head = extender("glne", {"seed": seed}).extend(model, None, task).head.cpu()
                right = head(seen_new).argmax(1) - len(model.classes) == new.labels
                kept = head(seen_old).argmax(1) == old.labels
                scarce = torch.tensor([k in rare for k in new.labels.tolist()])
                found = {"old": kept, "few": right[scarce], "many": right[~scarce], "new": right}
                shares = {part: 100 * float(own.double().mean()) for part, own in found.items()}
                rows.append({"name": name, "photos": [few, many], "seed": seed, **shares,
                             "harmonic": harmonic(shares["old"], shares["new"])})  # fmt: skip
                print(rows[-1], flush=True)
    what = " ".join(__doc__.split("\n\n")[2].split())
    write("unequal", what, n={"old": len(old), "new": len(new)}, rows=rows)


if __name__ == "__main__":
    main()
