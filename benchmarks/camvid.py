"""CamVid: two small students of a network that labels every pixel of a street, term by term.

    python benchmarks/camvid.py                        # three seeds: seven hours of one core
    python benchmarks/camvid.py --seeds 0 --students "width 0.35"      # the teacher, half an hour, and an hour and a quarter
    python benchmarks/camvid.py --short                # does it run at all

Whole frames, squeezed to 160 x 160 pixels, which is where they are measured too; 11 classes, void left out. The teacher is a
MobileNetV2 (ImageNet's weights) under a feature pyramid; students are the same at 0.5 and 0.35 of its width, from fresh
weights. The 367 training frames are learnt, the 233 test frames are measured once at the end; nothing is chosen on either. The
teacher's learning rate is chosen of three on the 101 validation frames; its row tells them all. The control, of the first seed
alone, learns from a teacher's network that never learnt anything. A cell that is in the results is not run again, nor one that
another process is at; what learnt is kept under ``runs``.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from record import RESULTS, add, data, kept, undone
from safetensors.torch import load_file

from classgraft.data.scenes import Scenes, read
from classgraft.distillers.structured import StructuredDistillation
from classgraft.models.preparation import Preparation
from classgraft.models.segmenter import Pyramid, Segmenter, pyramid
from classgraft.training.answers import answers, forget
from classgraft.training.engine import device
from classgraft.training.recipe import Recipe
from classgraft.training.segmenting import measured, taught

CLASSES = ("sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "cyclist")
PREPARATION = Preparation(160, 160, (0.5,) * 3, (0.5,) * 3)
STUDENTS = {"width 0.5": ("mobilenetv2_050", 48), "width 0.35": ("mobilenetv2_035", 32)}
"""Encoder, and channels of the pyramid."""
RATES = (5e-5, 1.5e-4, 5e-4)
"""Of the teacher, whose batch norm is folded away: with too large a one ImageNet's features are gone at once."""
TEACHING = Recipe(40, 8, optimiser="adamw", weight_decay=1e-4, milestones=(), augment="resized-crop-flip+jitter")
LEARNING = replace(TEACHING, epochs=60, lr=2e-3)
NONE = StructuredDistillation(pixel=0.0, pair=0.0, holistic=0.0, recipe=LEARNING)
USUAL = StructuredDistillation(recipe=LEARNING)
ROWS = {
    "plain": NONE,
    "+ pixel": replace(NONE, pixel=USUAL.pixel),
    "+ pair": replace(NONE, pixel=USUAL.pixel, pair=USUAL.pair),
    "+ holistic": USUAL,
    "control: all three of a teacher that learnt nothing": USUAL,
}
SAME = ("student", "method", "seed")
DRAWN = [("width 0.35", "plain", 0), ("width 0.35", "+ holistic", 0)]
COLOURS = (
    (128, 128, 128), (128, 0, 0), (192, 192, 128), (128, 64, 128), (60, 40, 222), (128, 128, 0), (192, 128, 128),
    (64, 64, 128), (64, 0, 128), (64, 64, 0), (0, 128, 192),
)  # fmt: skip
"""CamVid's own, of ``CLASSES``."""


@cache
def scenes(part: str) -> Scenes:
    folder = data() / "camvid" / part
    return read(folder / "images", folder / "masks", CLASSES, PREPARATION, void=len(CLASSES))


def untrained(seed: int = 0) -> Segmenter:
    """The teacher's network, its encoder with ImageNet's weights."""
    model = pyramid("mobilenetv2_100", CLASSES, 64, seed=seed, pad_type="same")
    assert isinstance(model.network, Pyramid)
    weights = load_file(data() / "weights" / "mobilenetv2_100-imagenet.safetensors")
    wanted = model.network.encoder.state_dict()
    kept = {name: weights[name] for name in wanted if name in weights}
    if missing := [name for name in wanted if name not in kept and not name.endswith("num_batches_tracked")]:
        raise SystemExit(f"the weights lack {missing[0]} and {len(missing) - 1} more")
    model.network.encoder.load_state_dict(wanted | kept)
    return model.to(device())


@cache
def teachers(short: bool) -> dict[float, tuple[float, Segmenter]]:
    """One of each rate, with its mIoU on the validation frames; kept, so that a run that goes on has the same."""
    found = {}
    for lr in RATES:
        recipe = replace(TEACHING, lr=lr, epochs=1 if short else TEACHING.epochs)

        def learn(recipe: Recipe = recipe) -> Segmenter:
            # its batch norm is folded into its weights, so that its statistics stay as they are
            return taught(untrained(), part("train", short), recipe, statistics=False)

        one = learn() if short else kept(f"camvid/teacher-{lr:g}", untrained(), learn, recipe, PREPARATION)
        found[lr] = measured(one, part("val", short)).mean, one
        print(f"the teacher at {lr:g}: {100 * found[lr][0]:.1f} on the validation frames", flush=True)
    return found


def teacher(short: bool) -> Segmenter:
    """One for all cells, best of its rates on the validation frames."""
    return max(teachers(short).values(), key=lambda pair: pair[0])[1]


def part(name: str, short: bool) -> Scenes:
    found = scenes(name)
    return found.subset(torch.arange(8)) if short else found


def network(student: str, method: str, seed: int, short: bool) -> Segmenter:
    if method == "teacher":
        return teacher(short)
    encoder, width = STUDENTS[student]
    epochs = 1 if short else ROWS[method].recipe.epochs
    way = replace(ROWS[method], recipe=replace(ROWS[method].recipe, seed=seed, epochs=epochs))
    start = pyramid(encoder, CLASSES, width, seed=seed).to(device())

    def learn() -> Segmenter:
        blank = pyramid("mobilenetv2_100", CLASSES, 64, seed=7, pad_type="same").to(device())
        return way.distill(blank if method.startswith("control") else teacher(short), start, part("train", short))

    keys = (way, STUDENTS[student], TEACHING, RATES, PREPARATION)
    return learn() if short else kept(f"camvid/{student}-{method}-{seed}", start, learn, *keys)


def row(student: str, method: str, seed: int, short: bool) -> dict[str, Any]:
    """One cell; the teacher's own row is that of the method "teacher"."""
    train, test = part("train", short), part("test", short)
    started = time.perf_counter()
    found = network(student, method, seed, short)
    seconds = time.perf_counter() - started
    seen = {"train": measured(found, train), "test": measured(found, test)}
    tried = {f"{lr:g}": 100 * mean for lr, (mean, _) in teachers(short).items()} if method == "teacher" else None
    forget()
    return {
        "student": student, "method": method, "seed": seed, "parameters": sum(p.numel() for p in found.parameters()),
        **{name: 100 * overlap.mean for name, overlap in seen.items()},
        "pixels": 100 * seen["test"].accuracy,
        "each": {name: 100 * float(one) for name, one in zip(CLASSES, seen["test"].each, strict=True) if one == one},
        "n": {"train": len(train), "test": len(test)}, "seconds": seconds, **({"validation": tried} if tried else {}),
    }  # fmt: skip


def picture(short: bool) -> Image.Image:
    """Four validation frames: as they are, as people labelled them, and as two students of one width do; void is black."""
    few = part("val", short)
    few = few.subset(torch.linspace(0, len(few) - 1, 4).long())
    paint = torch.zeros(256, 3, dtype=torch.uint8)
    paint[: len(COLOURS)] = torch.tensor(COLOURS, dtype=torch.uint8)
    models = [network(*cell, short) for cell in DRAWN]
    maps = [few.masks, *(answers(model, few, model.favoured) for model in models)]
    columns = [few.pixels.permute(0, 2, 3, 1), *(paint[each.long()] for each in maps)]
    page = Image.fromarray(torch.cat(columns, 2).flatten(0, 1).numpy())
    return page.resize((page.width * 4 // 3, page.height), Image.Resampling.NEAREST)  # frames are 4 to 3


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--students", nargs="+", choices=list(STUDENTS), default=list(STUDENTS), metavar="STUDENT")
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=list(ROWS), metavar="ROW")
    parser.add_argument("--short", action="store_true", help="eight frames and one epoch, nothing is written")
    given = parser.parse_args()
    seeds = [int(word) for word in given.seeds.split(",")][: 1 if given.short else None]
    cells: list[tuple[Any, ...]] = [("", "teacher", 0)] + [
        (s, method, seed)
        for seed in seeds for s in given.students for method in given.rows
        if not (seed and method.startswith("control"))
    ]  # fmt: skip
    rows: list[dict[str, Any]] = []
    for cell in cells if given.short else undone("camvid", SAME, cells):
        student, method, seed = cell
        rows.append(row(student, method, seed, given.short))
        print(rows[-1], flush=True)
        if not given.short:
            rows = add("camvid", __doc__.split("\n\n")[2].rpartition(" A cell")[0].replace("\n", " "), rows, same=SAME)
        if cell in DRAWN and {tuple(row[k] for k in SAME) for row in rows} >= set(DRAWN):
            folder = Path(tempfile.mkdtemp()) if given.short else RESULTS.parents[1] / "docs"
            picture(given.short).save(folder / "camvid.png")
            print(folder / "camvid.png")


if __name__ == "__main__":
    main()
