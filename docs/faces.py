"""Points of faces from experts of parts, from unlabelled faces and from frames of a video, and a page that shows them.

    python docs/faces.py path/to/face_keypoints --out faces.html
    python docs/faces.py path/to/face_keypoints --epochs 1 --faces 60 --annotated 20 --confidence 0     # does it run

The folder holds ``train.parquet`` and ``test.parquet``: ``image``, ``keypoints`` (the usual 68 of a face), ``person`` and
``frame``. Of the training faces a few are taken as annotated and all others as they come.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import torch
from torchvision.utils import draw_keypoints

from classgraft.catalogue import distiller, selftrainer
from classgraft.data.images import Images
from classgraft.data.keypoints import Poses, read
from classgraft.models.keypoints import Locator, heatmaps, united, watcher
from classgraft.models.preparation import Preparation
from classgraft.report.gallery import Gallery, render
from classgraft.training.answers import answers
from classgraft.training.locating import RECIPE, measured, taught, watched
from classgraft.training.progress import printed, show_progress

COUNTS = {"jaw": 17, "brow": 10, "nose": 9, "eye": 12, "mouth": 20}
NAMES = tuple(f"{part} {k}" for part, count in COUNTS.items() for k in range(count))
PARTS = {"jaw and brows": ("jaw", "brow"), "nose and eyes": ("nose", "eye"), "mouth": ("mouth",)}
MIRRORED = [(k, 16 - k) for k in range(8)] + [(17 + k, 26 - k) for k in range(5)] + [
    (31, 35), (32, 34), (36, 45), (37, 44), (38, 43), (39, 42), (41, 46), (40, 47), (48, 54), (49, 53), (50, 52),
    (59, 55), (58, 56), (60, 64), (61, 63), (67, 65),
]  # fmt: skip
PAIRS = tuple((NAMES[left], NAMES[right]) for left, right in MIRRORED)
ENCODER = "mobilenetv2_035"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--out", type=Path, default=Path("faces.html"))
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--faces", type=int, default=0, help="of each part; 0: all")
    parser.add_argument("--annotated", type=int, default=300, help="of the training faces")
    parser.add_argument("--confidence", type=float, default=0.5, help="from which on a teacher or an expert is heard")
    given = parser.parse_args()
    preparation = Preparation(64, 64, (0.5,) * 3, (0.5,) * 3)
    train, test = (
        by_person(read(given.folder / f"{part}.parquet", NAMES, PAIRS, preparation)) for part in ("train", "test")
    )
    if given.faces:
        train, test = (part.subset(torch.arange(min(given.faces, len(part)))) for part in (train, test))
    few, rest = train.subset(torch.arange(given.annotated)), train.subset(torch.arange(given.annotated, len(train)))
    recipe, heard = replace(RECIPE, epochs=given.epochs), {"epochs": given.epochs, "confidence": given.confidence}
    show_progress(printed)

    # few faces are annotated: each goes round as often as all of them would
    more = replace(recipe, epochs=given.epochs * max(1, len(train) // len(few)))
    teacher = taught(fresh(), few, more)
    bare = Images(rest.pixels, rest.labels, (), preparation)
    distillation = selftrainer("data-distillation-keypoints", {"epochs": given.epochs, "scales": [0.9, 1.0, 1.1]})
    video = distiller("video-pose", {**heard, "motion": 0.0})
    # a third of the faces is annotated with each part; an expert learns from those, one network from all
    third, owner = torch.arange(len(train)) % 3, [part_of(name) for name in NAMES]
    partial = replace(train, annotated=train.annotated & (third[:, None] == torch.tensor(owner)))
    experts = united([
        taught(fresh([name for name, own in zip(NAMES, owner, strict=True) if own == k]), partial, recipe)
        for k in range(len(PARTS))
    ])  # fmt: skip
    networks = {
        f"{len(few)} annotated faces": teacher,
        f"and {len(rest)} unlabelled": distillation.train(teacher, fresh(), few, bare),
        "frames of a video": video.distill(teacher, watcher(ENCODER, NAMES, PAIRS), rest),
        "a part of each face": taught(fresh(), partial, recipe),
        "and experts of parts": distiller("part-experts", heard).distill(experts, fresh(), partial),
    }
    numbers = []
    for name, network in networks.items():
        found = measured(network, test)
        each = (found.of([n for n in NAMES if part_of(n) == k]) for k in range(len(PARTS)))
        size = f"{sum(p.numel() for p in network.parameters()):,}"
        numbers.append((name, size, *(f"{100 * error:.2f}" for error in (found.mean, *each))))
        print(*numbers[-1], sep="  ")
    page = Gallery(
        "Points of faces",
        f"Normalised mean error in per cent of {len(test)} test faces, over the root of width times height of the box around"
        f" the points; one seed, {given.epochs} epochs. Frames of a video are measured where there is one before.",
        ("learnt from", "parameters", "all points", *PARTS), tuple(numbers), (("points", "#3cb44b"),),
        ("face", "truth", *networks), pictures(networks, test),
    )  # fmt: skip
    given.out.write_text(render(page), "utf-8")
    print(given.out)


def by_person(faces: Poses) -> Poses:
    """Those of a person next to each other, so that some of them are frames of one video."""
    return faces.subset(torch.tensor(sorted(range(len(faces)), key=lambda k: faces.persons[k])))


def fresh(names: tuple[str, ...] | list[str] = NAMES) -> Locator:
    return heatmaps(ENCODER, names, tuple(pair for pair in PAIRS if set(pair) <= set(names)), width=32)


def part_of(name: str) -> int:
    """The place among ``PARTS`` of the one that a point belongs to."""
    return next(k for k, kinds in enumerate(PARTS.values()) if name.split()[0] in kinds)


def pictures(networks: dict, test: Poses, count: int = 6) -> tuple:
    """Rows of a test face, its true points, and those that each network finds, four times as large as it sees them."""
    now, before = test.consecutive()
    some = torch.linspace(0, len(now) - 1, min(count, len(now))).long()
    now, before = now.subset(some), before.subset(some)
    said = [now.points]
    for network in networks.values():
        single = isinstance(network, Locator)
        said.append(answers(network, now, network.located)[..., :2] if single else watched(network, now, before))
    large = now.pixels.repeat_interleave(4, 2).repeat_interleave(4, 3)
    return tuple(
        (face, *(draw_keypoints(face, 4 * points[place][None], colors="#3cb44b", radius=2) for points in said))
        for place, face in enumerate(large)
    )


if __name__ == "__main__":
    main()
