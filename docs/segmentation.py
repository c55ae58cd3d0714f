"""A small network learns to label every pixel from a larger one, and a page shows what both see.

    python docs/segmentation.py path/to/camvid --out segmentation.html
    python docs/segmentation.py path/to/camvid --epochs 1 --frames 16      # does it run at all: seconds

The folder holds ``train`` and ``test``, each with ``images`` and ``masks`` (PNG: a class's place in each pixel, 11 is void).
Networks that label pixels are used from Python; the command line is about classes.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch

from classgraft.data.scenes import Scenes, read
from classgraft.distillers.structured import StructuredDistillation
from classgraft.models.preparation import Preparation
from classgraft.models.segmenter import pyramid
from classgraft.report.gallery import Gallery, coloured, render
from classgraft.training.answers import answers
from classgraft.training.progress import printed, show_progress
from classgraft.training.recipe import Recipe
from classgraft.training.segmenting import measured, taught

CLASSES = ("sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "cyclist")
COLOURS = torch.tensor([
    [120, 170, 230], [150, 75, 60], [200, 200, 120], [110, 90, 140], [230, 150, 190], [70, 130, 60],
    [240, 130, 40], [130, 110, 90], [60, 60, 190], [220, 50, 60], [0, 160, 160],
], dtype=torch.uint8)  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, default=Path("segmentation.html"))
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--frames", type=int, default=0, help="of each part; 0: all")
    parser.add_argument("--side", type=int, default=128, help="pixels that the networks see")
    given = parser.parse_args()
    preparation = Preparation(given.side, given.side, (0.5,) * 3, (0.5,) * 3)
    train, test = (
        read(given.folder / part / "images", given.folder / part / "masks", CLASSES, preparation, void=len(CLASSES))
        for part in ("train", "test")
    )
    if given.frames:
        train, test = train.subset(torch.arange(given.frames)), test.subset(torch.arange(given.frames))
    recipe = Recipe(
        given.epochs, 8, optimiser="adamw", lr=2e-3, weight_decay=1e-4, milestones=(), augment="resized-crop-flip"
    )

    small = pyramid("mobilenetv2_035", CLASSES, width=32)
    show_progress(printed)
    teacher = taught(pyramid("mobilenetv2_100", CLASSES, width=64), train, recipe)
    networks = {
        "teacher": teacher,
        "student, masks alone": taught(small, train, recipe),
        "student, distilled": StructuredDistillation(recipe=recipe).distill(teacher, small, train),
    }
    numbers = []
    for name, network in networks.items():
        size = f"{sum(p.numel() for p in network.parameters()):,}"
        numbers.append((name, size, *(f"{100 * measured(network, part).mean:.1f}" for part in (train, test))))
        print(*numbers[-1], sep="  ")
    page = Gallery(
        "Streets, pixel by pixel",
        f"CamVid at {given.side} x {given.side} pixels, {given.epochs} epochs from fresh weights, one seed. mIoU in per cent"
        f" over {len(train)} training and {len(test)} test frames; void pixels are left out.",
        ("", "parameters", "mIoU train", "mIoU test"), tuple(numbers),
        tuple((name, f"#{r:02x}{g:02x}{b:02x}") for name, (r, g, b) in zip(CLASSES, COLOURS.tolist(), strict=True)),
        ("frame", "truth", *networks), pictures(networks, test),
    )  # fmt: skip
    given.out.write_text(render(page), "utf-8")
    print(given.out)


def pictures(networks: dict, test: Scenes, count: int = 8) -> tuple:
    """Rows of a frame, its mask, and what each network makes of it, in the frame's own shape again."""
    some = test.subset(torch.linspace(0, len(test) - 1, min(count, len(test))).long())
    said = [answers(network, some, network.favoured).to(torch.uint8) for network in networks.values()]
    rows = []
    for i, frame in enumerate(some.pixels):
        row = [frame, *(coloured(frame, mask[i], COLOURS) for mask in (some.masks, *said))]
        rows.append(tuple(_wide(picture) for picture in row))
    return tuple(rows)


def _wide(picture: torch.Tensor) -> torch.Tensor:
    """4 to 3, as the frames are, by repeating pixels."""
    height, width = 180, 240
    rows, columns = (torch.arange(n) * side // n for n, side in zip((height, width), picture.shape[1:], strict=True))
    return picture[:, rows][:, :, columns]


if __name__ == "__main__":
    main()
