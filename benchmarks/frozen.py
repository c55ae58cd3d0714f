"""Learners on frozen features: the ImageNet MobileNetV2 in a stream of Tiny-ImageNet classes, from no class at all.

    python benchmarks/frozen.py FEATURES            50 classes in 5 steps and 100 in 10, order of seed 1993
    python benchmarks/frozen.py FEATURES --smoke    one small stream, nothing is written

What the body sees in each image is computed once and kept in the folder FEATURES (25,000 images: about ten minutes on two
cores); every learner then gets features in place of images, and its seconds are its own alone. "bytes" are those of the
memory after the last step, "head bytes" what the head holds beside the rows that any classifier has.
"""

from __future__ import annotations

import argparse
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from flowers import imagenet
from record import data, write
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from classgraft import api, catalogue
from classgraft.data.images import Images, Task
from classgraft.data.sources import open_source
from classgraft.models.classifier import Classifier, Head
from classgraft.models.preparation import Preparation
from classgraft.training.answers import answers, forget

STREAMS = {"50 classes in 5 steps": (50, 10), "100 classes in 10 steps": (100, 10)}
TRAIN = 200
"""Images a class."""
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "ncm": ("ncm", {}),
    "ncm, euclidean": ("ncm", {"metric": "euclidean"}),
    "slda": ("slda", {}),
    "fecam, shared": ("fecam", {"shared": True}),
    "fecam": ("fecam", {}),
    "ranpac, 2,000": ("ranpac", {"width": 2000}),
    "ranpac, 5,000": ("ranpac", {"width": 5000}),
    "knn": ("knn", {}),
    "imprint": ("imprint", {"views": 1}),
    "glne": ("glne", {"views": 1}),
    "glne, 2,000 bytes a class": ("glne", {"views": 1, "memory_bytes": 2000}),
    "glne, 40,000 bytes a class": ("glne", {"views": 1, "memory_bytes": 40_000}),
    "glne, shared covariance": ("glne", {"views": 1, "covariance": "shared"}),
    "glne, real features": ("glne", {"views": 1, "memory": "features"}),
}
"""By the name of its row; one with a setting that its method does not have is left out, and said so."""


class Features(nn.Flatten):
    """Features that come as images (B, D, 1, 1)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.num_features = width


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("features", type=Path)
    parser.add_argument("--methods", nargs="*", default=list(METHODS))
    parser.add_argument("--smoke", action="store_true")
    options = parser.parse_args()
    per_class = (6, 4) if options.smoke else (TRAIN, None)
    train, test = (
        seen(options.features, part, count) for part, count in zip(("train", "test"), per_class, strict=True)
    )
    order = np.random.RandomState(1993).permutation(len(train.classes))
    streams = {"smoke": (6, 2)} if options.smoke else STREAMS
    rows = []
    for name in options.methods:
        method, settings = METHODS[name]
        if unknown := settings.keys() - vars(catalogue.method_type(catalogue.entry(method, "extend"))()).keys():
            print(f"{name}: left out, {method} has no {', '.join(unknown)}")
            continue
        for stream, (count, step) in streams.items():
            names = [train.classes[k] for k in order[:count]]
            steps = [tuple(names[i : i + step]) for i in range(0, count, step)]
            row = {"learner": name, "stream": stream, **run(method, settings, steps, train, test)}
            rows.append(row)
            print({key: value for key, value in row.items() if key != "matrix"}, flush=True)
    if not options.smoke:
        counts = {"images a class": TRAIN, "test": len(test)}
        what = "Tiny-ImageNet classes in steps on frozen features of the ImageNet MobileNetV2, from no class at all"
        write("frozen", what, n=counts, order_seed=1993, rows=rows)


def run(
    method: str, settings: dict[str, Any], steps: list[tuple[str, ...]], train: Images, test: Images
) -> dict[str, Any]:
    """One learner through one stream."""
    extender = catalogue.extender(method, settings)
    model = Classifier(Features(train.pixels.shape[1]), Head(), ()).eval()
    memory: object | None = None
    matrix: list[list[float]] = []
    totals, seconds, evaluation = [], 0.0, 0.0
    for number, names in enumerate(steps):
        task = Task(names, train.of(names))
        forget()
        started = time.perf_counter()
        model = extender.extend(model, memory, task)
        memory = extender.remember(model, task, memory)
        seconds += time.perf_counter() - started
        started = time.perf_counter()
        known = test.of(model.classes)
        right = [correct(model, known, earlier) for earlier in steps[: number + 1]]
        evaluation += time.perf_counter() - started
        matrix.append([float(part.mean()) for part in right])
        totals.append(100 * float(torch.cat(right).mean()))
    head = sum(tensor.nbytes for tensor in model.head.state_dict().values())
    return {
        "average": sum(totals) / len(totals),
        "last": totals[-1],
        "bytes": size(memory),
        "head bytes": head,
        "seconds": seconds,
        "evaluation": evaluation,
        "matrix": [[100 * value for value in line] for line in matrix],
    }


def correct(model: Classifier, images: Images, names: tuple[str, ...]) -> Tensor:
    """Whether each test image of these classes gets its own among all that the model has, float64 (N,)."""
    places = torch.tensor([model.classes.index(name) for name in names])
    chosen = images.subset(torch.nonzero(torch.isin(images.labels, places))[:, 0])
    with torch.inference_mode():
        found = torch.cat([model(part).argmax(1) for part in chosen.pixels.split(256)])
    return (found == chosen.labels).double()


def size(memory: object | None) -> int:
    """Bytes of the tensors in a memory."""
    if isinstance(memory, Tensor):
        return memory.nbytes
    parts = (
        memory.values() if isinstance(memory, dict) else vars(memory).values() if hasattr(memory, "__dict__") else ()
    )
    return sum(size(part) for part in parts)


def seen(folder: Path, part: str, per_class: int | None) -> Images:
    """Features of the first so many images of each class, as images; from the folder where they are there."""
    source = open_source(data() / "tinyimagenet100" / f"{part}.parquet")
    as_it_is = Preparation(1, 1, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    path = folder / f"{part}-{per_class or 'all'}.safetensors"
    if not path.exists():
        base = imagenet()
        labels = np.array(source.labels)
        ranks = np.array([np.count_nonzero(labels[:i] == label) for i, label in enumerate(labels)])
        some = np.flatnonzero(ranks < per_class) if per_class else np.arange(len(labels))
        source = replace(source, photos=tuple(source.photos[i] for i in some), labels=tuple(labels[some].tolist()))
        images = api.images_of(source, base.preparation)
        folder.mkdir(parents=True, exist_ok=True)
        found = answers(base.model.body, images)
        save_file({"features": found, "labels": images.labels}, path)
    kept = load_file(path)
    return Images(kept["features"][:, :, None, None], kept["labels"], source.classes, as_it_is)


if __name__ == "__main__":
    main()
