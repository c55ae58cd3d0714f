"""Ten flowers that ImageNet lacks, grafted onto an ImageNet MobileNetV2 without an ImageNet image.

    python benchmarks/flowers.py --development     flowers_dev and the even half of the probe: to choose on
    python benchmarks/flowers.py                   flowers and both halves: the final table, opened once choices are made

Ten draws at 1 photo a class, five at 5, all photos at 20; every method on the same draws. What a frozen body sees in the
test images is computed once. Finetuning moves the body, so it gets one draw at each size.
"""

from __future__ import annotations

import argparse
import io
import re
import time
from collections.abc import Callable
from typing import Any

import torch
from PIL import Image, ImageEnhance, ImageFilter
from record import data, write
from torch import Tensor

from classgraft import api
from classgraft.bundle import Bundle
from classgraft.data.images import Images
from classgraft.data.sources import load, open_files, open_source
from classgraft.metrics import tradeoff
from classgraft.training.answers import answers

DRAWS = {1: 10, 5: 5, 20: 1}
METHODS: dict[str, tuple[str, dict[str, Any]]] = {
    "glne": ("glne", {}),
    "imprint": ("imprint", {}),
    "imprint, 8 views": ("imprint", {"views": 8}),
    "rows": ("rows", {}),
    "rows, 1 view": ("rows", {"views": 1}),
    "finetune": ("finetune", {}),
    "glne without base term (control)": ("glne", {"base": 0.0}),
    "glne without prior (control)": ("glne", {"prior": 0.0}),
    "glne, 2 views": ("glne", {"views": 2}),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--development", action="store_true")
    parser.add_argument("--methods", nargs="*", default=list(METHODS))
    options = parser.parse_args()
    base = imagenet()
    flowers = data() / ("flowers_dev" if options.development else "flowers")
    sets = look(base, flowers, options.development)
    photos = api.images_of(open_source(flowers / "train"), base.preparation)
    for name in options.methods:
        method, settings = METHODS[name]
        shown = []
        for shots, draws in DRAWS.items():
            for seed in range(1 if method == "finetune" else draws):
                started = time.perf_counter()
                grown = api.extend(base, photos, method=method, settings=settings, shots=shots, seed=seed)
                seconds = time.perf_counter() - started
                row = {"shots": shots, "seed": seed, "seconds": seconds, **measure(base, grown, sets)}
                shown.append(row)
                print(
                    name,
                    {k: round(v, 2) if isinstance(v, float) else v for k, v in row.items() if k != "curve"},
                    flush=True,
                )
        split = "development" if options.development else "test"
        counts = {key: len(labels) for key, (_, labels) in sets.items()}
        write(
            f"flowers-{split}-" + re.sub(r"\W+", "-", name).strip("-"),
            f"ten flowers on the ImageNet MobileNetV2, {split}: {name}",
            method=name,
            settings=settings,
            n=counts,
            draws=shown,
        )


def imagenet() -> Bundle:
    """The real ImageNet classifier that is extended."""
    weights = data() / "weights"
    half = (0.5, 0.5, 0.5)
    return api.import_model(
        "timm:mobilenetv2_100",
        weights / "mobilenetv2_100-imagenet.safetensors",
        weights / "imagenet_classes.txt",
        arguments={"pad_type": "same"},
        mean=half,
        std=half,
    )


def look(base: Bundle, flowers: Any, development: bool) -> dict[str, tuple[Images, Tensor]]:
    """Every set of test images by name, with labels: places in the head, -1 for images of no known class."""
    side = base.preparation.resize
    new = load(open_source(flowers / "test"), side)
    sets = {"new": (_images(base, new.pixels), new.labels + len(base.classes))}
    probe = load(open_source(data() / "imagenet_probe" / "test.parquet"), side)
    names = open_source(data() / "imagenet_probe" / "test.parquet").classes
    place = torch.tensor([base.classes.index(name) for name in names])
    labels = place[probe.labels]
    for half, first in (("even", 0),) if development else (("even", 0), ("odd", 1)):
        pixels = probe.pixels[first::2]
        for kind, change in CORRUPTIONS.items():
            sets[f"probe {half}, {kind}"] = (_images(base, change(pixels)), labels[first::2])
    if development:
        for name in ("cifar10", "fashion_mnist", "mnist"):
            sets[name] = _foreign(base, data() / name / "test.parquet", 500)
    else:
        sets["Tiny-ImageNet, upscaled"] = _foreign(base, data() / "tinyimagenet100" / "test.parquet")
        sets["faces"] = _files(base, _faces(side))
        for name, files in (("CamVid", data() / "camvid/test/images"), ("blood cells", data() / "bccd/JPEGImages")):
            found = load(open_files([files]), side)
            sets[name] = _files(base, found.pixels)
    return sets


def _images(base: Bundle, pixels: Tensor) -> Images:
    return Images(pixels, torch.zeros(len(pixels), dtype=torch.int64), base.classes, base.preparation)


def _files(base: Bundle, pixels: Tensor) -> tuple[Images, Tensor]:
    return _images(base, pixels), torch.full((len(pixels),), -1)


def _foreign(base: Bundle, path: Any, most: int | None = None) -> tuple[Images, Tensor]:
    pixels = load(open_source(path), base.preparation.resize).pixels
    if most:
        pixels = pixels[torch.randperm(len(pixels), generator=torch.Generator().manual_seed(0))[:most]]
    return _files(base, pixels)


def _faces(side: int) -> Tensor:
    import pyarrow.parquet as pq

    from classgraft.data.decode import open_rgb, square

    rows = pq.read_table(data() / "face_keypoints" / "test.parquet", columns=["image"]).column("image").to_pylist()
    return torch.stack([square(open_rgb(row["bytes"], "a face"), side) for row in rows])


def _each(change: Callable[[Image.Image], Image.Image]) -> Callable[[Tensor], Tensor]:
    from torchvision.transforms.functional import pil_to_tensor, to_pil_image

    return lambda pixels: torch.stack([pil_to_tensor(change(to_pil_image(image))) for image in pixels])


def _compressed(image: Image.Image) -> Image.Image:
    stream = io.BytesIO()
    image.save(stream, "JPEG", quality=8)
    return Image.open(stream).convert("RGB")


CORRUPTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "clean": lambda pixels: pixels,
    "blurred": _each(lambda image: image.filter(ImageFilter.GaussianBlur(3))),
    "darkened": _each(lambda image: ImageEnhance.Brightness(image).enhance(0.35)),
    "compressed": _each(_compressed),
}


_seen: dict[str, Tensor] = {}


def measure(base: Bundle, grown: Bundle, sets: dict[str, tuple[Images, Tensor]]) -> dict[str, Any]:
    """Accuracies, area, regret, and what the new classes capture, in per cent."""
    first = len(base.classes)
    before, after = base.model.body.state_dict(), grown.model.body.state_dict()
    frozen = before.keys() <= after.keys() and all(torch.equal(before[key], after[key]) for key in before)
    logits = {}
    for name, (images, _) in sets.items():
        if not frozen and name != "new" and not name.endswith("clean"):
            continue  # a body that moved costs a pass of its own; capture is measured on frozen ones
        if name not in _seen and frozen:
            _seen[name] = answers(base.model, images, base.model.features)
        with torch.inference_mode():
            logits[name] = grown.model.head(_seen[name]) if frozen else answers(grown.model, images)
    found: dict[str, Any] = {}
    clean = [name for name in sets if name.endswith("clean")]
    for part in clean + (["both halves"] if len(clean) > 1 else []):
        chosen = clean if part == "both halves" else [part]
        old, old_labels = torch.cat([logits[n] for n in chosen]), torch.cat([sets[n][1] for n in chosen])
        curve = tradeoff.curve(old, old_labels, logits["new"], sets["new"][1], first)
        here = int(curve.offset.abs().argmin())
        label = "" if (part == clean[-1] and len(clean) == 1) or part == "both halves" else f" ({part.split(',')[0]})"
        numbers = {"old": float(curve.old[here]), "new": float(curve.new[here]), "harmonic": curve.achieved,
                   "regret": curve.regret, "best": curve.best, "area": curve.area}  # fmt: skip
        found |= {key + label: 100 * value for key, value in numbers.items()}
        if not label:
            found["old before"] = 100 * float((old[:, :first].argmax(1) == old_labels).double().mean())
            step = max(1, len(curve.offset) // 60)
            found["curve"] = [[float(a), float(b)] for a, b in zip(curve.old[::step], curve.new[::step], strict=True)]
    kinds = {name.partition(", ")[2] if name.startswith("probe") else name for name in logits if name != "new"}
    for kind in sorted(kinds):
        names = [name for name in sets if name == kind or (name.startswith("probe") and name.endswith(f", {kind}"))]
        all_, labels = torch.cat([logits[n] for n in names]), torch.cat([sets[n][1] for n in names])
        taken = all_.argmax(1) >= first
        found[f"captured: {kind}"] = 100 * float(taken.double().mean())
        if int(labels.max()) >= 0:
            right = all_[:, :first].argmax(1) == labels
            found[f"old error added: {kind}"] = 100 * float((right & taken).double().mean())
    return found


if __name__ == "__main__":
    main()
