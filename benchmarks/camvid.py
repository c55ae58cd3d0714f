"""CamVid: two small students of a network that labels every pixel of a street, term by term.

    python benchmarks/camvid.py                        # three seeds: seven to eight hours of one core
    python benchmarks/camvid.py --seeds 0 --students "width 0.35"      # the teacher, half an hour, and an hour and a quarter
    python benchmarks/camvid.py --short                # does it run at all

Whole frames, squeezed to 160 x 160 pixels, which is where they are measured too; 11 classes, void left out. The teacher is a
MobileNetV2 (ImageNet's weights) under a feature pyramid; students are the same at 0.5 and 0.35 of its width, from fresh
weights. The 367 training frames are learnt, the 233 test frames are measured once at the end; nothing is chosen on either. The
teacher's learning rate is chosen of three on the 101 validation frames; its row tells them all. The control learns from a
teacher's network that never learnt anything. A cell that is in the results is not run again.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import replace
from functools import cache
from typing import Any

import torch
from record import RESULTS, add, data, kept
from safetensors.torch import load_file

from classgraft.data.scenes import Scenes, read
from classgraft.distillers.structured import StructuredDistillation
from classgraft.models.preparation import Preparation
from classgraft.models.segmenter import Pyramid, Segmenter, pyramid
from classgraft.training.answers import forget
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


def row(student: str, method: str, seed: int, short: bool) -> dict[str, Any]:
    """One cell; the teacher's own row is that of the method "teacher"."""
    train, test = part("train", short), part("test", short)
    started = time.perf_counter()
    if method == "teacher":
        found = teacher(short)
    else:
        encoder, width = STUDENTS[student]
        way = ROWS[method]
        way = replace(way, recipe=replace(way.recipe, seed=seed, epochs=1 if short else way.recipe.epochs))
        blank = pyramid("mobilenetv2_100", CLASSES, 64, seed=7, pad_type="same").to(device())
        master = blank if method.startswith("control") else teacher(short)
        found = way.distill(master, pyramid(encoder, CLASSES, width, seed=seed).to(device()), train)
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--students", nargs="+", choices=list(STUDENTS), default=list(STUDENTS), metavar="STUDENT")
    parser.add_argument("--rows", nargs="+", choices=list(ROWS), default=list(ROWS), metavar="ROW")
    parser.add_argument("--short", action="store_true", help="eight frames and one epoch, nothing is written")
    given = parser.parse_args()
    path = RESULTS / "camvid.json"
    rows = json.loads(path.read_text("utf-8"))["rows"] if path.exists() and not given.short else []
    done = {(row["student"], row["method"], row["seed"]) for row in rows}
    seeds = [int(word) for word in given.seeds.split(",")][: 1 if given.short else None]
    cells: list[tuple[str, str, int]] = [("", "teacher", 0)] + [
        (s, method, seed) for seed in seeds for s in given.students for method in given.rows
    ]
    for cell in cells:
        if cell not in done:
            rows.append(row(*cell, given.short))
            print(rows[-1], flush=True)
            if not given.short:
                rows = add("camvid", __doc__.split("\n\n")[2].replace("\n", " "), rows)


if __name__ == "__main__":
    main()
