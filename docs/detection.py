"""A narrow detector learns from a wide one, another takes a new class from a few images, and a page shows what each finds.

    python docs/detection.py path/to/voc --classes RBC,WBC,Platelets --out detection.html
    python docs/detection.py path/to/voc --classes RBC,WBC,Platelets --epochs 1 --tune 1 --images 12    # does it run at all

The folder has Pascal VOC's layout (``ImageSets/Main``, ``Annotations``, ``JPEGImages``). The last class is the new one: its
base learns the others from images that do not show it, as far as there are such, and then sees ``--shots`` images of it in
which nothing else is annotated. ``pip install 'classgraft[boxes]'`` brings what measures.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import torch
from torchvision.utils import draw_bounding_boxes

from classgraft import detectors
from classgraft.catalogue import distiller
from classgraft.report.gallery import Gallery, render
from classgraft.training.detecting import RECIPE
from classgraft.training.progress import printed, show_progress

COLOURS = ("#e6194b", "#4363d8", "#ffe119", "#3cb44b", "#f58231", "#42d4f4", "#f032e6", "#fabed4", "#9a6324", "#808000")
SURE = 0.5
"""Score from which on a box is drawn."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--classes", required=True, help="names with commas between them, the new one last")
    parser.add_argument("--out", type=Path, default=Path("detection.html"))
    parser.add_argument("--epochs", type=int, default=RECIPE.epochs)
    parser.add_argument("--images", type=int, default=0, help="of each part; 0: all")
    parser.add_argument("--side", type=int, default=256, help="pixels that the networks see")
    parser.add_argument("--shots", type=int, default=5, help="images of the new class")
    parser.add_argument("--tune", type=int, default=400, help="steps of training the grafted detector further")
    given = parser.parse_args()
    classes = tuple(given.classes.split(","))
    *old, new = classes
    train, test = (detectors.read_voc(given.folder, part, classes, given.side) for part in ("trainval", "test"))
    if given.images:
        train, test = train.some(given.images, 0), test.some(given.images, 0)
    recipe = replace(RECIPE, epochs=given.epochs)
    show_progress(printed)

    teacher = detectors.train(fresh(32, classes, given.side), train, recipe)
    narrow = fresh(8, classes, given.side)
    distilled = distiller("detection", {"epochs": given.epochs}).distill(teacher, narrow, train)
    shows = set(train.owner[train.labels == classes.index(new)].tolist())
    others = [k for k in range(len(train)) if k not in shows] or list(range(len(train)))
    base = detectors.train(fresh(32, old, given.side), train.subset(torch.tensor(others)).of(old), recipe)
    few = train.showing((new,)).some(given.shots, 0).of((new,))
    networks = {
        "teacher": teacher,
        "student, boxes alone": detectors.train(narrow, train, recipe),
        "student, distilled": distilled,
        "base": base,
        "grafted": detectors.extend(base, few, warn=print),
        "grafted, tuned": detectors.extend(base, few, tune=given.tune),
    }
    numbers = []
    for name, network in networks.items():
        each = detectors.evaluate(network, test)["per_class"]
        numbers.append(
            (name, f"{sum(p.numel() for p in network.parameters()):,}", *(percent(each.get(c)) for c in classes))
        )
        print(*numbers[-1], sep="  ")
    page = Gallery(
        f"{new}, and what was there before",
        f"Average precision at half an overlap, in per cent, of each class in {len(test)} test images of {given.side} pixels;"
        f" one seed. Trained from scratch on {len(train)} images for {given.epochs} epochs; the base on {len(others)} of them,"
        f" which then saw {given.shots} images of {new} and no other box. Boxes with a score of {SURE} are drawn.",
        ("", "parameters", *classes), tuple(numbers), tuple(zip(classes, COLOURS, strict=False)),
        ("truth", *networks), pictures(networks, test),
    )  # fmt: skip
    given.out.write_text(render(page), "utf-8")
    print(given.out)


def fresh(width: int, classes: tuple[str, ...] | list[str], side: int) -> detectors.Detector:
    """Untrained; of one side all look at the same anchors, so that narrow ones can learn from wide ones."""
    anchors = [side * part // 256 for part in (20, 44, 88)]
    return detectors.Detector(detectors.small(len(classes), width, side, anchors), classes)


def percent(precision: float | None) -> str:
    return "" if precision is None else f"{100 * precision:.1f}"


def pictures(networks: dict, test: detectors.Boxed, count: int = 6) -> tuple:
    """Rows of a test image with its true boxes, and with those that each network is sure of."""
    some = test.subset(torch.linspace(0, len(test) - 1, min(count, len(test))).long())
    said = [detectors.found(network, some) for network in networks.values()]
    rows = []
    for place, pixels in enumerate(some.images.pixels):
        own = (some.owner == place) & (some.labels >= 0)
        row = [drawn(pixels, some.boxes[own], some.labels[own])]
        for found in (results[place] for results in said):
            sure = found["scores"] >= SURE
            row.append(drawn(pixels, found["boxes"][sure], found["labels"][sure] - 1))
        rows.append(tuple(row))
    return tuple(rows)


def drawn(pixels: torch.Tensor, boxes: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    colours = [COLOURS[int(label) % len(COLOURS)] for label in labels]
    return draw_bounding_boxes(pixels, boxes, colors=colours, width=2) if colours else pixels


if __name__ == "__main__":
    main()
