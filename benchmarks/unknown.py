"""How well a score tells images of no known class from known ones: the area under the ROC curve.

    python benchmarks/unknown.py

Known are the ImageNet probe's images, unknown other data; before the flowers are grafted these are unknown too, after it
they are known. The score of ``predict`` was chosen on the even half of the probe beside ``flowers_dev``, CIFAR-10 and
MNIST (``--development``); the table is of the odd half and of sets that were not looked at before.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable

import torch
import torch.nn.functional as F
from flowers import _faces, _files, _foreign, _images, imagenet
from record import data, write
from torch import Tensor

from classgraft import api, novelty
from classgraft.bundle import Bundle
from classgraft.data.images import Images
from classgraft.data.sources import load, open_files, open_source
from classgraft.training.answers import answers

SCORES: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "maximum softmax probability": lambda z, f, w: 1 - z.softmax(1).amax(1),
    "energy": lambda z, f, w: -z.logsumexp(1),
    "maximum logit": lambda z, f, w: -z.amax(1),
    "entropy": lambda z, f, w: -(z.softmax(1) * z.log_softmax(1)).sum(1),
    "generalised entropy": lambda z, f, w: novelty.unknown(z),
    "maximum logit in deviations": lambda z, f, w: -(z.amax(1) - z.mean(1)) / z.std(1),
    "cosine to the nearest row": lambda z, f, w: -(F.normalize(f) @ F.normalize(w).T).amax(1),
}
"""Logits (N, K), features (N, D) and rows (K, D) to a number an image, larger where the class is less known."""
MOST = 250
"""Images of a set."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--development", action="store_true")
    development = parser.parse_args().development
    base = imagenet()
    known, others = looked_at(base, development)
    flowers = data() / ("flowers_dev" if development else "flowers")
    inside = _files(base, load(open_source(flowers / "test"), base.preparation.resize).pixels)[0]
    rows: dict[str, dict[str, float]] = {}
    kept: dict[str, dict[str, float]] = {}
    photos = api.images_of(open_source(flowers / "train"), base.preparation)
    grown = api.extend(base, photos, shots=5)
    for stage, bundle in (("before", base), ("after", grown)):
        knowns = [known] if stage == "before" else [known, inside]
        unknowns = {**others, **({"flowers": inside} if stage == "before" else {})}
        seen = {name: look(bundle, images) for name, images in unknowns.items()}
        logits, features = (torch.cat(part) for part in zip(*[look(bundle, images) for images in knowns], strict=True))
        weight = bundle.model.head.weight
        for name, score in SCORES.items():
            ours = score(logits, features, weight)
            found = {what: novelty.auroc(ours, score(*theirs, weight)) for what, theirs in seen.items()}
            found["mean"] = sum(found.values()) / len(found)
            rows[f"{name}, {stage}"] = found
            limit = ours.quantile(0.95)
            kept[f"{name}, {stage}"] = {
                what: float((score(*theirs, weight) > limit).double().mean()) for what, theirs in seen.items()
            }
            print(f"{name:30} {stage:7}", {what: round(value, 3) for what, value in found.items()}, flush=True)
    count = {"known": len(known), "flowers": len(inside), **{name: len(images) for name, images in others.items()}}
    if not development:
        write("unknown", "images of no known class told from known ones", n=count, auroc=rows, refused_at_95=kept)


def looked_at(base: Bundle, development: bool) -> tuple[Images, dict[str, Images]]:
    """Images of known classes, and sets of others."""
    side = base.preparation.resize
    probe = load(open_source(data() / "imagenet_probe" / "test.parquet"), side).pixels[0 if development else 1 :: 2]
    if development:
        others = {name: _foreign(base, data() / name / "test.parquet", MOST) for name in ("cifar10", "mnist")}
    else:
        others = {
            "faces": _files(base, _faces(side)),
            "street scenes": _files(base, load(open_files([data() / "camvid/test/images"]), side).pixels),
            "blood cells": _files(base, load(open_files([data() / "bccd/JPEGImages"]), side).pixels),
            "Fashion-MNIST": _foreign(base, data() / "fashion_mnist/test.parquet", MOST),
        }
    return _images(base, probe), {name: images.some(MOST, 0) for name, (images, _) in others.items()}


def look(bundle: Bundle, images: Images) -> tuple[Tensor, Tensor]:
    """Logits and features."""
    features = answers(bundle.model, images, bundle.model.features)
    with torch.inference_mode():
        return bundle.model.head(features), features


if __name__ == "__main__":
    main()
