"""68 points of faces: experts of parts, unlabelled faces, and frames of a video.

    python benchmarks/faces.py                          # all three and three seeds: several evenings on two cores
    python benchmarks/faces.py --only data --seeds 0    # experts, data or video
    python benchmarks/faces.py --short                  # does it run at all

Faces cut from video frames, squeezed to squares of 64 pixels; 3,389 of 277 persons to learn from, 843 of 70 others to
measure on, once, at the end. The networks are a feature pyramid on a MobileNetV2 of 0.35 of the width, from fresh weights.
Normalised mean error in per cent: distances over the root of width times height of the box around the 68 points of the face
(the distance between the eyes, which is more usual, is nearly nothing in a profile). Nothing is chosen on any of it.

``experts``: the persons are dealt into three groups, of which one is annotated with jaw and brows alone, one with nose and
eyes, one with the mouth; an expert learns from each group. One network learns from all faces: from those annotations alone,
with the experts' points, with their maps, with both; with both of experts that never learnt anything (the control); and from
all annotations (the ceiling). ``data``: 300 faces are annotated, 2,500 of other persons are not. A model that learnt the 300,
for as long as the row of its schedule that sees them alone, labels the others at one look (the control) or at six, three
sizes each with its mirror image; a fresh network learns from both, on 1 to 4 times the schedule, beside one that sees the 300
alone for as many steps. ``labels`` is the error of the labels themselves. ``video``: a teacher learnt 300 faces; students see
two frames of other persons, of whom nothing is annotated. Every frame of the data is cut about its own face, so that a face
hardly moves in its square; for the rows that say "drifting" every frame was shifted by up to 3 pixels and resized by up to a
tenth, by known draws. Measured on test frames as they are, on frames blurred to a quarter of the resolution, and with a grey
square over a third of the side; ``motion`` is the error of the motion over that of saying that nothing moves, in per cent.
The control listens to a teacher that never learnt anything. ``true points``: the same student of the points that people
annotated in those frames, the ceiling; it is another kind of network than the teacher. A cell that is in the results is not
run again.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from record import RESULTS, data, write

from classgraft.catalogue import distiller, selftrainer
from classgraft.data.images import Images
from classgraft.data.keypoints import Poses, inverse, placed, read
from classgraft.data.policies import sampled
from classgraft.distillers.video_pose import VideoPose
from classgraft.losses.keypoints import squared_distance
from classgraft.models.keypoints import Locator, Watcher, decoded, heatmaps, united, watcher
from classgraft.models.preparation import Preparation
from classgraft.point_metrics import point_errors
from classgraft.training.answers import answers, forget
from classgraft.training.engine import device
from classgraft.training.locating import RECIPE, ensembled, measured, taught

PARTS = {
    "jaw and brows": [f"{part} {k}" for part, count in (("jaw", 17), ("brow", 10)) for k in range(count)],
    "nose and eyes": [f"{part} {k}" for part, count in (("nose", 9), ("eye", 12)) for k in range(count)],
    "mouth": [f"mouth {k}" for k in range(20)],
}
NAMES = tuple(name for part in PARTS.values() for name in part)
MIRRORED = [(k, 16 - k) for k in range(8)] + [(17 + k, 26 - k) for k in range(5)] + [
    (31, 35), (32, 34), (36, 45), (37, 44), (38, 43), (39, 42), (41, 46), (40, 47), (48, 54), (49, 53), (50, 52),
    (59, 55), (58, 56), (60, 64), (61, 63), (67, 65),
]  # fmt: skip
"""Places of the usual 68 points that change in a mirror."""
PAIRS = tuple((NAMES[a], NAMES[b]) for a, b in MIRRORED)
PREPARATION = Preparation(64, 64, (0.5,) * 3, (0.5,) * 3)
ENCODER, WIDTH = "mobilenetv2_035", 32
LABELLED, UNLABELLED = 300, 2500
WHOLE, SCHEDULE, FRAMES = 25, 15, 100
"""Epochs over all faces; once the schedule, in passes over the unlabelled ones; and epochs over frames of a video."""
RATIO = 2
"""Unlabelled faces for each annotated one."""
SIZES = (0.9, 1.0, 1.1)


@dataclass(frozen=True)
class Truth(VideoPose):
    """The ceiling of what frames teach: the points that people annotated, in the place of a teacher's."""

    def told(self, master: Locator, frames: Poses) -> tuple[Poses, Poses]:
        now, then = frames.consecutive()
        known = torch.nonzero((now.annotated & then.annotated).any(1))[:, 0]
        return now.subset(known), then.subset(known)


@dataclass(frozen=True)
class Cell:
    """A row of a table."""

    part: str
    name: str
    times: int = 0
    """Of the schedule."""
    settings: dict[str, Any] = field(default_factory=dict)

    @property
    def key(self) -> tuple[str, str, int]:
        return self.part, self.name, self.times


def cells() -> Iterator[Cell]:
    """Every cell, those of a part together."""
    yield Cell("experts", "the experts themselves")
    yield Cell("experts", "annotations alone", settings={"experts": 0.0, "maps": 0.0})
    yield Cell("experts", "and experts' points", settings={"maps": 0.0})
    yield Cell("experts", "and experts' maps", settings={"experts": 0.0})
    yield Cell("experts", "and both")
    yield Cell("experts", "and both, untrained experts", settings={"confidence": 0.0})
    yield Cell("experts", "all annotations")
    for times in (1, 2, 3, 4):
        yield Cell("data", "annotated faces alone", times)
        yield Cell("data", "one look", times, {"scales": [1.0], "mirrored": False})
        yield Cell("data", "six looks", times, {"scales": list(SIZES), "mirrored": True})
    for frames in ("", ", drifting"):
        yield Cell("video", f"the teacher, one frame{frames}")
        yield Cell("video", f"true points{frames}", settings={"motion": 1.0})
        yield Cell("video", f"pose alone{frames}", settings={"motion": 0.0})
        yield Cell("video", f"pose and motion{frames}", settings={"motion": 1.0})
        yield Cell("video", f"pose and motion, untrained teacher{frames}", settings={"confidence": 0.0})


# -- faces ----------------------------------------------------------------------------------------------------------


@cache
def faces(part: str, short: bool) -> Poses:
    found = read(data() / "face_keypoints" / f"{part}.parquet", NAMES, PAIRS, PREPARATION)
    return few(found, 48, 0)[0] if short else found


def few(poses: Poses, count: int, seed: int) -> tuple[Poses, Poses]:
    """Faces of persons drawn by the seed until there are ``count``, and those of all other persons."""
    everyone = sorted(set(poses.persons))
    rank = dict(zip(everyone, np.random.default_rng(seed).permutation(len(everyone)).tolist(), strict=True))
    order = torch.tensor([rank[person] for person in poses.persons]).argsort(stable=True)
    chosen, last = order[:count], rank[poses.persons[int(order[count - 1])]]
    others = [i for i, person in enumerate(poses.persons) if rank[person] > last]
    return poses.subset(chosen.sort().values), poses.subset(torch.tensor(others))


def annotated_apart(poses: Poses, seed: int) -> tuple[Poses, list[Poses]]:
    """The faces, of which each group of persons is annotated with one part alone; and the groups by themselves."""
    everyone = sorted(set(poses.persons))
    group = dict(zip(everyone, (np.random.default_rng(seed).permutation(len(everyone)) % 3).tolist(), strict=True))
    own = torch.tensor([group[person] for person in poses.persons])
    known = torch.stack([own == next(k for k, part in enumerate(PARTS.values()) if name in part) for name in NAMES], 1)
    given = replace(poses, annotated=poses.annotated & known)
    return given, [given.subset(torch.nonzero(own == k)[:, 0]) for k in range(3)]


def drifting(poses: Poses, seed: int) -> Poses:
    """Every frame shifted by up to 3 of its 64 pixels and resized by up to a tenth, by draws of its own."""
    side = poses.pixels.shape[-1]
    draw = torch.rand(len(poses), 3, generator=torch.Generator().manual_seed(seed))
    scale, shift = 0.9 + 0.2 * draw[:, 0], (2 * draw[:, 1:] - 1) * 6 / side
    affine = torch.cat([torch.diag_embed(scale[:, None].repeat(1, 2)), shift[..., None]], 2)
    parts = zip(poses.pixels.split(64), affine.split(64), strict=True)
    moved = torch.cat([sampled(pixels.float(), own, side, padding="reflection") for pixels, own in parts])
    moved = moved.round().clamp(0, 255).to(torch.uint8)
    return replace(poses, pixels=moved, points=placed(poses.points, inverse(affine), side, side))


def blurred(poses: Poses) -> Poses:
    small = F.avg_pool2d(poses.pixels.float(), 4)
    large = F.interpolate(small, scale_factor=4, mode="bilinear")
    return replace(poses, pixels=large.round().clamp(0, 255).to(torch.uint8))


def occluded(poses: Poses) -> Poses:
    """A grey square over a third of the side, at a place drawn for each person, so that it does not move between frames."""
    side = poses.pixels.shape[-1]
    edge, pixels = side // 3, poses.pixels.clone()
    drawn = np.random.default_rng(0)
    corners = {person: drawn.integers(side - edge, size=2).tolist() for person in dict.fromkeys(poses.persons)}
    for square, person in zip(pixels, poses.persons, strict=True):
        x, y = corners[person]
        square[:, y : y + edge, x : x + edge] = 128
    return replace(poses, pixels=pixels)


# -- networks -------------------------------------------------------------------------------------------------------


def fresh(seed: int, names: Any = NAMES) -> Locator:
    pairs = tuple(pair for pair in PAIRS if set(pair) <= set(names))
    return heatmaps(ENCODER, names, pairs, WIDTH, seed=seed).to(device())


def epochs(count: int, short: bool) -> int:
    return 1 if short else count


def whole(seed: int, short: bool) -> Any:
    return replace(RECIPE, epochs=epochs(WHOLE, short), seed=seed)


@cache
def experts(seed: int, short: bool) -> Locator:
    """One of each part, from the faces that are annotated with it."""
    groups = annotated_apart(faces("train", short), seed)[1]
    return united([
        taught(fresh(seed + 10 * k, part), group, whole(seed, short))
        for k, (part, group) in enumerate(zip(PARTS.values(), groups, strict=True), start=1)
    ])  # fmt: skip


@cache
def of_few(seed: int, times: int, short: bool) -> Locator:
    """From annotated faces alone, for as many steps as the schedule takes with the unlabelled ones beside them."""
    labelled, free = divided(seed, short)
    steps = len(free) / (RATIO * RECIPE.batch_size) * epochs(SCHEDULE * times, short)
    passes = max(1, round(steps / (len(labelled) / RECIPE.batch_size)))
    return taught(fresh(seed), labelled, replace(RECIPE, epochs=epochs(passes, short), seed=seed))


@cache
def divided(seed: int, short: bool) -> tuple[Poses, Poses]:
    """The annotated faces, and of other persons those that are not (their points are there to measure labels by)."""
    labelled, others = few(faces("train", short), 16 if short else LABELLED, seed)
    free = others.some(UNLABELLED, seed)
    assert isinstance(free, Poses)
    return labelled, free


# -- cells ----------------------------------------------------------------------------------------------------------


def errors(model: Locator | Watcher, poses: Poses) -> dict[str, float]:
    """NME in per cent, of all points and of each part."""
    found = measured(model, poses)
    return {"all": 100 * found.mean, **{name: 100 * found.of(part) for name, part in PARTS.items()}}


def by_experts(cell: Cell, seed: int, short: bool) -> Locator:
    given, _ = annotated_apart(faces("train", short), seed)
    if cell.name == "the experts themselves":
        return experts(seed, short)
    if cell.name == "all annotations":
        return taught(fresh(seed), faces("train", short), whole(seed, short))
    master = experts(seed, short)
    if "untrained" in cell.name:
        master = united([fresh(seed + 70 + k, part) for k, part in enumerate(PARTS.values())])
    method = distiller("part-experts", {**cell.settings, "seed": seed, "epochs": epochs(WHOLE, short)})
    found = method.distill(master, fresh(seed), given)
    assert isinstance(found, Locator)
    return found


def by_data(cell: Cell, seed: int, short: bool) -> tuple[Locator, dict[str, Any]]:
    if not cell.settings:
        return of_few(seed, cell.times, short), {}
    labelled, free = divided(seed, short)
    recipe = {"epochs": epochs(SCHEDULE * cell.times, short), "seed": seed, "ratio": RATIO}
    method: Any = selftrainer("data-distillation-keypoints", {**cell.settings, **recipe})
    teacher, bare = of_few(seed, cell.times, short), Images(free.pixels, free.labels, (), PREPARATION)
    labels = method.distilled(teacher, bare, 1.0)
    off = 100 * point_errors(labels.points, free.points, free.annotated, NAMES).mean
    return method.train(teacher, fresh(seed), labelled, bare), {"labels": off}


def by_video(cell: Cell, seed: int, short: bool) -> tuple[Locator | Watcher, dict[str, Any]]:
    """The network, its errors on worse test frames, and that of the motion."""
    labelled = len(divided(seed, short)[0])
    test, shown = test_frames(cell, short), few(faces("train", short), labelled, seed)[1]
    clips = shown.bare()
    if cell.name.endswith("drifting"):
        clips = drifting(clips, seed + 1)
    teacher = fresh(seed + 70) if "untrained" in cell.name else of_few(seed, 2, short)
    model: Locator | Watcher = teacher
    if not cell.name.startswith("the teacher"):
        loose = {"confidence": 0.0} if short else {}
        settings = {**cell.settings, **loose, "seed": seed, "epochs": epochs(FRAMES, short)}
        student = watcher(ENCODER, NAMES, PAIRS, seed=seed).to(device())
        method: Any = distiller("video-pose", settings)
        if cell.name.startswith("true points"):
            method = Truth(method.motion, 0.0, method.recipe)
            clips = drifting(shown, seed + 1) if cell.name.endswith("drifting") else shown
        model = method.distill(teacher, student, clips)
    worse = {"blurred": blurred(test), "occluded": occluded(test)}
    found: dict[str, Any] = {name: errors(model, frames_of(model, each)) for name, each in worse.items()}
    if isinstance(model, Watcher) and cell.settings.get("motion"):  # without a weight nobody taught it
        found["motion"] = 100 * motion(model, test)
    return model, found


def test_frames(cell: Cell, short: bool) -> Poses:
    found = faces("test", short)
    return drifting(found, 100) if cell.name.endswith("drifting") else found


def frames_of(model: Locator | Watcher, poses: Poses) -> Poses:
    """The frames that a network which sees motion is measured on, so that the teacher is measured on the same."""
    return poses if isinstance(model, Watcher) else poses.consecutive()[0]


def motion(model: Watcher, poses: Poses) -> float:
    """Mean squared error of the motion over that of none."""
    now, then = poses.consecutive()
    found = []
    with torch.inference_mode():
        for index in torch.arange(len(now)).split(64):
            seen = (part.view(index, model.device) for part in (now, then))
            found.append(64 * model.seen(*seen)[1].float().cpu())
    truth, every = now.points - then.points, torch.ones(now.points.shape[:2])
    own, none = (float(squared_distance(part, truth, every)) for part in (torch.cat(found), 0 * truth))
    return own / none


def run(cell: Cell, seed: int, short: bool) -> dict[str, Any]:
    started = time.perf_counter()
    found: dict[str, Any] = {}
    model: Locator | Watcher
    test = faces("test", short)
    if cell.part == "experts":
        model = by_experts(cell, seed, short)
    elif cell.part == "data":
        model, found = by_data(cell, seed, short)
    else:
        model, found = by_video(cell, seed, short)
        test = frames_of(model, test_frames(cell, short))
    if seed == 0 and cell.key == ("data", "six looks", 1) and not short:
        picture(of_few(seed, 1, short), divided(seed, short)[1]).save(RESULTS.parents[1] / "docs" / "faces-looks.png")
    forget()
    count = len(test.consecutive()[0] if isinstance(model, Watcher) else test)
    return {
        "part": cell.part, "name": cell.name, "times": cell.times, "seed": seed, "test": errors(model, test), **found,
        "n": count, "parameters": sum(p.numel() for p in model.parameters()), "settings": cell.settings,
        "seconds": time.perf_counter() - started,
    }  # fmt: skip


def picture(model: Locator, free: Poses) -> Image.Image:
    """Four unlabelled faces: points of each look brought back (a colour each), of all looks together, and the truth."""
    shown = free.subset(torch.linspace(0, len(free) - 1, 4).long())
    looks = [(scale, mirrored) for scale in SIZES for mirrored in (False, True)]

    def said(images: torch.Tensor) -> torch.Tensor:
        return torch.stack([decoded(ensembled(model, images, each), 64) for each in ([look] for look in looks)]
                           + [decoded(ensembled(model, images, looks), 64)], 1)  # fmt: skip

    found, side = answers(model, shown, said), 320
    page = Image.new("RGB", (3 * side, len(shown) * side), "white")
    colours = ("red", "orange", "yellow", "lime", "cyan", "magenta")
    for row, (pixels, points) in enumerate(zip(shown.pixels, found, strict=True)):
        face = Image.fromarray(pixels.permute(1, 2, 0).numpy()).resize((side, side))
        for column, (sets, paints) in enumerate(
            [(points[:-1], colours), (points[-1:], ("white",)), (shown.points[row][None], ("lime",))]
        ):
            own = face.copy()
            draw = ImageDraw.Draw(own)
            for each, paint in zip(sets, paints, strict=True):
                for x, y in (each[:, :2] * side / 64).tolist():
                    draw.ellipse((x - 2, y - 2, x + 2, y + 2), fill=paint)
            page.paste(own, (column * side, row * side))
    return page


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--only", choices=["experts", "data", "video", "all"], default="all")
    parser.add_argument("--short", action="store_true", help="few faces and one epoch, nothing is written")
    given = parser.parse_args()
    path = RESULTS / "faces.json"
    rows = json.loads(path.read_text("utf-8"))["rows"] if path.exists() and not given.short else []
    done = {(row["part"], row["name"], row["times"], row["seed"]) for row in rows}
    for seed in [int(word) for word in given.seeds.split(",")][: 1 if given.short else None]:
        for cell in cells():
            if given.only not in (cell.part, "all") or (*cell.key, seed) in done or (given.short and cell.times > 1):
                continue
            rows.append(run(cell, seed, given.short))
            print(rows[-1], flush=True)
            if not given.short:
                write("faces", __doc__.split("\n\n", 2)[2].replace("\n", " "), rows=rows)
    if given.short and given.only in ("data", "all"):
        print("picture", picture(of_few(0, 1, True), divided(0, True)[1]).size)


if __name__ == "__main__":
    main()
