"""Images a second that stream under a quarter of the memory they would take, beside the same images in memory.

    python benchmarks/streaming.py [--images 4000] [--side 64] [--rounds 7]

``data`` rows only read and augment (nothing hides the reading), ``training`` rows train a ResNet-20 as well. The ratio
that counts is that of the training rows: what a person waits for. Peaks are of more images (``--peak-images``), in processes
of their own: what loading and an epoch of reading add to the most memory that the process had after doing the same with a
few. Buffers of batches, which glibc scatters over tens of megabytes, are of one size whatever the images take.
"""

from __future__ import annotations

import argparse
import io
import resource
import subprocess
import sys
import time

import numpy as np
import torch
import torch.nn.functional as F
from interleaved import Contender, rates, tell
from PIL import Image

from classgraft.data.images import Images
from classgraft.data.sources import Photo, Source
from classgraft.data.streaming import load_within
from classgraft.models.cifar_resnet import build
from classgraft.models.preparation import Preparation
from classgraft.training.loop import Batch, Epochs, Terms, fit
from classgraft.training.recipe import Recipe


def source(count: int, side: int) -> Source:
    """JPEGs of noise."""

    def jpeg(seed: int) -> bytes:
        file = io.BytesIO()
        pixels = np.random.default_rng(seed).integers(0, 256, (side // 4, side // 4, 3), dtype=np.uint8)
        Image.fromarray(pixels).resize((side, side)).save(file, "jpeg")
        return file.getvalue()

    photos = tuple(Photo(f"{i}.jpg", lambda i=i: jpeg(i)) for i in range(count))  # type: ignore[misc]
    return Source(("a", "b"), photos, tuple(i % 2 for i in range(count)))


def reading(images: Images, recipe: Recipe) -> Contender:
    def take() -> float:
        started = time.perf_counter()
        for _ in Epochs(images, recipe, torch.device("cpu"))(0):
            pass
        return len(images) / (time.perf_counter() - started)

    return take


def training(images: Images, recipe: Recipe) -> Contender:
    model = build("resnet20", 2)

    def objective(batch: Batch) -> Terms:
        return {"class": F.cross_entropy(model(batch.images), batch.targets)}

    def take() -> float:
        started = time.perf_counter()
        fit(model, objective, images, recipe)
        return len(images) / (time.perf_counter() - started)

    return take


def loaded(count: int, side: int, budget: int) -> Images:
    found = source(count, side)
    given = load_within(found, side, budget)
    return Images(given.pixels, given.labels, found.classes, Preparation(side, side))


def peak(count: int, side: int, budget: int) -> int:
    """Bytes."""

    def use(count: int) -> int:
        reading(loaded(count, side, budget), Recipe(epochs=1, batch_size=128))()
        return 1024 * resource.getrusage(resource.RUSAGE_SELF).ru_maxrss

    before = use(256)
    return use(count) - before


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=4000)
    parser.add_argument("--peak-images", type=int, default=32_000)
    parser.add_argument("--side", type=int, default=64)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--peak", type=int, metavar="BUDGET", help="print the peak under this budget, and no more")
    chosen = parser.parse_args()
    if chosen.peak:
        print(peak(chosen.peak_images, chosen.side, chosen.peak))
        return
    size = chosen.images * 3 * chosen.side**2
    recipe = Recipe(epochs=1, batch_size=128, lr=0.01)
    contenders: dict[str, Contender] = {}
    for name, budget in (("in memory", size), ("streaming", size // 4)):
        images = loaded(chosen.images, chosen.side, budget)
        contenders[f"data {name}"] = reading(images, recipe)
        contenders[f"training {name}"] = training(images, recipe)
    what = (
        f"images a second, {chosen.images} of {chosen.side} pixels, streaming under a quarter of their {size >> 20} MB"
    )
    peaks, large = {}, chosen.peak_images * 3 * chosen.side**2
    for name, budget in (("peak in memory", large), ("peak streaming", large // 4)):
        asked = {"peak-images": chosen.peak_images, "side": chosen.side, "peak": budget}
        command = [
            sys.executable,
            __file__,
            *(word for key, value in asked.items() for word in (f"--{key}", str(value))),
        ]
        peaks[name] = int(subprocess.run(command, check=True, capture_output=True).stdout)
    peaks |= {"of pixels": large, "budget": large // 4}
    tell("streaming", what, rates(contenders, chosen.rounds), ["data in memory", "training in memory"], peaks=peaks)


if __name__ == "__main__":
    main()
