"""68 points of faces: experts of parts, unlabelled faces, and frames of a video.

    python benchmarks/faces.py                          # all three and three seeds: eight hours of one core
    python benchmarks/faces.py --only data --seeds 0    # experts, data or video
    python benchmarks/faces.py --short                  # does it run at all

Faces cut from video frames, squeezed to squares of 64 pixels; 3,389 of 277 persons to learn from, 843 of 70 others to measure
on, once, at the end. The networks are a feature pyramid on a MobileNetV2 of 0.35 of the width, from fresh weights. Normalised
mean error in per cent: distances over the root of width times height of the box around the 68 points of the face (the distance
between the eyes, which is more usual, is nearly nothing in a profile). Nothing is chosen on any of it.

``experts``: the persons are dealt into three groups, of which one is annotated with jaw and brows alone, one with nose and
eyes, one with the mouth; an expert learns from each group, in as many steps as all others take, so that it sees its part
three times as often as the network that has those annotations alone, which therefore stands here three times as long as
well (first seed alone). One network learns from all faces: from those annotations alone, with the experts' points, with
their maps, with both; with both of experts that never learnt anything (the control, first seed alone); and from all
annotations (the ceiling). ``data``: 300 faces are annotated, 2,500 of other persons are not. A model that learnt the 300
labels the others at one look (the control) or at six, three sizes each with its mirror image; a fresh network learns from
both, on 1 to 4 times the schedule, beside one that sees the 300 alone, in exactly as many steps of nearly as many images:
100 of the 300, where the others see 30 of them and 62 or 63 that are not annotated. The teacher is the same for all
lengths: what 300 faces teach in twice the schedule, 32 a step; or, in the rows of a longer teacher, the network that saw
them alone for four times the schedule, 100 a step. ``labels`` is the error of the labels themselves. ``video``: a teacher
learnt 300 faces; students see two frames of other persons, of whom nothing is annotated. Two frames of a person are seconds
apart, so that heads have turned: points of the middle pair move by 2 pixels of 64, those of one in twenty by more than 8.
Measured on test frames as they are, on frames blurred to a quarter of the resolution, and with a grey square over a third
of the side; ``motion`` is the error of the motion over the motion, in per cent, of the pair in the middle (100: as good as
saying that nothing moves), ``places`` the same of the difference of the places that a network finds in either frame, seen
alone. ``kept`` is the share of frames, or of points, of which a teacher is sure enough (0.5) to be heard. The control
(first seed alone) listens to a teacher that never learnt anything, however unsure. ``true points``: the same student of the
points that people annotated in those frames, the ceiling; it is another kind of network than the teacher. A cell that is in
the results is not run again, nor one that another process is at; what learnt is kept under ``runs``.
"""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image, ImageDraw
from record import RESULTS, Module, add, data, kept, undone

from classgraft.catalogue import distiller, selftrainer
from classgraft.data.images import Images
from classgraft.data.keypoints import Poses, read
from classgraft.distillers.video_pose import VideoPose
from classgraft.metrics.keypoints import point_errors
from classgraft.models.keypoints import Locator, Watcher, decoded, heatmaps, united, watcher
from classgraft.models.preparation import Preparation
from classgraft.training.answers import answers, forget
from classgraft.training.engine import device
from classgraft.training.locating import RECIPE, ensembled, measured, taught, watched
from classgraft.training.recipe import Recipe

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
ALONE = 100
"""Annotated faces a step where there are no others, about as many as of both kinds where there are."""
SIZES = (0.9, 1.0, 1.1)
LOOKS: dict[str, dict[str, Any]] = {
    "one look": {"scales": [1.0], "mirrored": False},
    "six looks": {"scales": list(SIZES), "mirrored": True},
}
SAME = ("part", "name", "times", "seed")
LONG_TEACHER = ", a longer teacher"
LONGER = "annotations alone, three times as long"
ONCE = (LONGER, "and both, untrained experts", "pose and motion, untrained teacher")
"""Rows of the first seed alone."""
DRAWN = {
    ("experts", "and both", 0): "experts",
    ("data", "six looks", 1): "looks",
    ("video", "pose and motion", 0): "video",
}
"""Pictures, drawn of the first seed."""


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


def cells() -> Iterator[Cell]:
    """Every cell, those of a part together."""
    yield Cell("experts", "the experts themselves")
    for name in ("annotations alone", LONGER):
        yield Cell("experts", name, settings={"experts": 0.0, "maps": 0.0})
    yield Cell("experts", "and experts' points", settings={"maps": 0.0})
    yield Cell("experts", "and experts' maps", settings={"experts": 0.0})
    yield Cell("experts", "and both")
    yield Cell("experts", "and both, untrained experts", settings={"confidence": 0.0})
    yield Cell("experts", "all annotations")
    yield Cell("data", "the teacher")
    for times in (1, 2, 3, 4):
        yield Cell("data", "annotated faces alone", times)
        for teacher in ("", LONG_TEACHER):
            yield from (Cell("data", name + teacher, times, looks) for name, looks in LOOKS.items())
    yield Cell("video", "the teacher, one frame")
    yield Cell("video", "true points", settings={"motion": 1.0})
    yield Cell("video", "pose alone", settings={"motion": 0.0})
    yield Cell("video", "pose and motion", settings={"motion": 1.0})
    yield Cell("video", "pose and motion, untrained teacher", settings={"motion": 1.0, "confidence": 0.0})


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


def stored(name: str, blank: Module, learn: Callable[[], Module], short: bool, *keys: object) -> Module:
    usual = (LABELLED, UNLABELLED, SCHEDULE, RATIO, PARTS, PREPARATION, ENCODER, WIDTH, RECIPE)
    return learn() if short else kept(f"faces/{name}", blank, learn, *usual, *keys)


def of_points(name: str, blank: Locator, poses: Poses, recipe: Recipe, short: bool) -> Locator:
    return stored(name, blank, lambda: taught(blank, poses, recipe), short, recipe)


@cache
def experts(seed: int, short: bool) -> Locator:
    """One of each part, from the faces that are annotated with it; a third of all, so three times as often."""
    groups, recipe = annotated_apart(faces("train", short), seed)[1], whole(seed, short)
    recipe = replace(recipe, epochs=epochs(len(PARTS) * WHOLE, short))
    return united([
        of_points(f"{name}-{seed}", fresh(seed + 10 * k, part), group, recipe, short)
        for k, ((name, part), group) in enumerate(zip(PARTS.items(), groups, strict=True), start=1)
    ])  # fmt: skip


@cache
def of_few(seed: int, times: int, short: bool, size: int = RECIPE.batch_size) -> Locator:
    """From annotated faces alone, for as many steps as the schedule takes with the unlabelled ones beside them."""
    labelled, free = divided(seed, short)
    steps = math.ceil(len(free) / (RATIO * RECIPE.batch_size)) * SCHEDULE * times
    passes = round(steps / math.ceil(len(labelled) / size))
    recipe = replace(RECIPE, epochs=epochs(passes, short), seed=seed, batch_size=size)
    return of_points(f"of-few-{seed}-{times}-{size}", fresh(seed), labelled, recipe, short)


def the_teacher(seed: int, short: bool) -> Locator:
    """Of unlabelled faces and of frames, whatever the schedule of the student."""
    return of_few(seed, 2, short)


@cache
def divided(seed: int, short: bool) -> tuple[Poses, Poses]:
    """The annotated faces, and of other persons those that are not (their points are there to measure labels by)."""
    labelled, others = few(faces("train", short), 16 if short else LABELLED, seed)
    free = others.some(UNLABELLED, seed)
    assert isinstance(free, Poses)
    return labelled, free


def frames(seed: int, short: bool) -> Poses:
    """Of the persons of whom nothing is annotated, all frames."""
    return few(faces("train", short), len(divided(seed, short)[0]), seed)[1]


# -- cells ----------------------------------------------------------------------------------------------------------


def errors(model: Locator | Watcher, poses: Poses) -> dict[str, float]:
    """NME in per cent, of all points and of each part."""
    found = measured(model, poses)
    return {"all": 100 * found.mean, **{name: 100 * found.of(part) for name, part in PARTS.items()}}


def by_experts(cell: Cell, seed: int, short: bool) -> tuple[Locator, dict[str, Any]]:
    given, _ = annotated_apart(faces("train", short), seed)
    if cell.name == "the experts themselves":
        return experts(seed, short), {}
    recipe = whole(seed, short)
    if cell.name == "all annotations":
        return of_points(f"{cell.name}-{seed}", fresh(seed), faces("train", short), recipe, short), {}
    master = experts(seed, short)
    if "untrained" in cell.name:
        master = united([fresh(seed + 70 + k, part) for k, part in enumerate(PARTS.values())])
    passes = epochs(WHOLE * (3 if cell.name == LONGER else 1), short)
    method: Any = distiller("part-experts", {**cell.settings, "seed": seed, "epochs": passes})
    found: Locator = stored(
        f"{cell.name}-{seed}", fresh(seed), lambda: method.distill(master, fresh(seed), given), short, method, recipe
    )
    if not cell.settings.get("maps", 1) and not cell.settings.get("experts", 1):
        return found, {}
    missing = ~given.named(master.classes).annotated
    return found, {"kept": 100 * float(method.told(master, given).annotated[missing].double().mean())}


def master(name: str, seed: int, short: bool) -> Locator:
    """The teacher of a row with unlabelled faces."""
    return of_few(seed, 4, short, ALONE) if name.endswith(LONG_TEACHER) else the_teacher(seed, short)


@cache
def labels(name: str, seed: int, short: bool) -> float:
    """Error of what the teacher says of the unlabelled faces, looking as the row does."""
    _, free = divided(seed, short)
    method: Any = selftrainer("data-distillation-keypoints", LOOKS[name.removesuffix(LONG_TEACHER)])
    said = method.distilled(master(name, seed, short), Images(free.pixels, free.labels, (), PREPARATION), 1.0)
    return 100 * point_errors(said.points, free.points, free.annotated, NAMES).mean


def by_data(cell: Cell, seed: int, short: bool) -> tuple[Locator, dict[str, Any]]:
    if not cell.times:
        return the_teacher(seed, short), {}
    if not cell.settings:
        return of_few(seed, cell.times, short, ALONE), {}
    labelled, free = divided(seed, short)
    recipe = {"epochs": epochs(SCHEDULE * cell.times, short), "seed": seed, "ratio": RATIO}
    method: Any = selftrainer("data-distillation-keypoints", {**cell.settings, **recipe})
    bare = Images(free.pixels, free.labels, (), PREPARATION)
    found: Locator = stored(
        f"{cell.name}-{cell.times}-{seed}", fresh(seed),
        lambda: method.train(master(cell.name, seed, short), fresh(seed), labelled, bare), short, method,
    )  # fmt: skip
    return found, {"labels": labels(cell.name, seed, short)}


def by_video(cell: Cell, seed: int, short: bool) -> tuple[Locator | Watcher, dict[str, Any]]:
    """The network, its errors on worse test frames, and that of the motion."""
    test, shown = faces("test", short), frames(seed, short)
    teacher = fresh(seed + 70) if "untrained" in cell.name else the_teacher(seed, short)
    model: Locator | Watcher = teacher
    found: dict[str, Any] = {}
    if not cell.name.startswith("the teacher"):
        loose = {"confidence": 0.0} if short else {}
        settings = {**cell.settings, **loose, "seed": seed, "epochs": epochs(FRAMES, short)}
        student = watcher(ENCODER, NAMES, PAIRS, seed=seed).to(device())
        method: Any = distiller("video-pose", settings)
        clips = shown.bare()
        if cell.name == "true points":
            method, clips = Truth(method.motion, 0.0, method.recipe), shown
        else:
            found["kept"] = 100 * len(method.told(teacher, clips)[0]) / len(clips.consecutive()[0])
        model = stored(f"{cell.name}-{seed}", student, lambda: method.distill(teacher, student, clips), short, method)
    worse = {"blurred": blurred(test), "occluded": occluded(test)}
    found |= {name: errors(model, frames_of(model, each)) for name, each in worse.items()}
    now, then = test.consecutive()
    found["places"] = astray(places(model, now) - places(model, then), now, then)
    if isinstance(model, Watcher) and cell.settings.get("motion"):  # without a weight nobody taught it
        found["motion"] = astray(motion(model, now, then), now, then)
    return model, found


def frames_of(model: Locator | Watcher, poses: Poses) -> Poses:
    """The frames that a network which sees motion is measured on, so that the teacher is measured on the same."""
    return poses if isinstance(model, Watcher) else poses.consecutive()[0]


def places(model: Locator | Watcher, frames: Poses) -> torch.Tensor:
    """Places in frames, each seen alone, in pixels (N, K, 2)."""
    if isinstance(model, Watcher):
        return watched(model, frames, frames)
    return answers(model, frames, model.located)[..., :2]


def motion(model: Watcher, now: Poses, then: Poses) -> torch.Tensor:
    """What it says of the motion, in pixels (N, K, 2)."""
    found = []
    with torch.inference_mode():
        for index in torch.arange(len(now)).split(64):
            seen = (part.view(index, model.device) for part in (now, then))
            found.append(PREPARATION.size * model.seen(*seen)[1].float().cpu())
    return torch.cat(found)


def astray(said: torch.Tensor, now: Poses, then: Poses) -> float:
    """Error of the motion over the motion in per cent, root mean squares over the points of a pair: that of the middle pair."""
    truth = now.points - then.points
    own, moved = ((part**2).mean((1, 2)).sqrt() for part in (said - truth, truth))
    return 100 * float((own / moved.clamp(min=1e-6)).median())


def run(cell: Cell, seed: int, short: bool) -> dict[str, Any]:
    started = time.perf_counter()
    found: dict[str, Any] = {}
    model: Locator | Watcher
    test = faces("test", short)
    if cell.part == "experts":
        model, found = by_experts(cell, seed, short)
    elif cell.part == "data":
        model, found = by_data(cell, seed, short)
    else:
        model, found = by_video(cell, seed, short)
        test = frames_of(model, test)
    forget()
    count = len(test.consecutive()[0] if isinstance(model, Watcher) else test)
    return {
        "part": cell.part, "name": cell.name, "times": cell.times, "seed": seed, "test": errors(model, test), **found,
        "n": count, "parameters": sum(p.numel() for p in model.parameters()), "settings": cell.settings,
        "seconds": time.perf_counter() - started,
    }  # fmt: skip


# -- pictures -------------------------------------------------------------------------------------------------------


def drawn(cell: Cell, short: bool) -> Image.Image:
    """Of training faces: the test ones are measured alone."""
    if cell.part == "data":
        return picture(the_teacher(0, short), spread(divided(0, short)[1]))
    if cell.part == "experts":
        given = annotated_apart(faces("train", short), 0)[0]
        groups = [torch.nonzero(given.annotated[:, NAMES.index(part[0])])[:, 0] for part in PARTS.values()]
        index = torch.stack([group.median() for group in groups])
        told, shown = given.subset(index), faces("train", short).subset(index)
        known = torch.where(told.annotated[..., None], told.points, torch.nan)
        said = [places(model, shown) for model in (experts(0, short), by_experts(cell, 0, short)[0])]
        return page(shown, [[(known, "white")], *([(each, "yellow")] for each in said), [(shown.points, "lime")]])
    now, then = (spread(part) for part in frames(0, short).consecutive())
    student, teacher = by_video(cell, 0, short)[0], the_teacher(0, short)
    assert isinstance(student, Watcher)
    own = watched(student, now, then)
    return page(now, [[(places(teacher, now), "yellow", places(teacher, then))],
                      [(own, "yellow", own - motion(student, now, then))], [(now.points, "lime", then.points)]])  # fmt: skip


def spread(poses: Poses) -> Poses:
    return poses.subset(torch.linspace(0, len(poses) - 1, 4).long())


def picture(model: Locator, shown: Poses) -> Image.Image:
    """Unlabelled faces: points of each look brought back (a colour each), of all looks together, and the truth."""
    looks = [(scale, mirrored) for scale in SIZES for mirrored in (False, True)]

    def said(images: torch.Tensor) -> torch.Tensor:
        return torch.stack([decoded(ensembled(model, images, each), 64) for each in ([look] for look in looks)]
                           + [decoded(ensembled(model, images, looks), 64)], 1)  # fmt: skip

    *each, together = answers(model, shown, said)[..., :2].unbind(1)
    colours = ("red", "orange", "yellow", "lime", "cyan", "magenta")
    return page(shown, [list(zip(each, colours, strict=True)), [(together, "white")], [(shown.points, "lime")]])


def page(shown: Poses, columns: Sequence[Sequence[tuple[Any, ...]]], side: int = 320) -> Image.Image:
    """A face a row; a column holds points (N, K, 2), their colour and, with a line from there, where they were before."""
    sheet = Image.new("RGB", (len(columns) * side, len(shown) * side), "white")
    for row, pixels in enumerate(shown.pixels):
        face = Image.fromarray(pixels.permute(1, 2, 0).numpy()).resize((side, side))
        for column, sets in enumerate(columns):
            own = face.copy()
            draw = ImageDraw.Draw(own)
            for points, paint, *before in sets:
                here = (points[row] * side / pixels.shape[-1]).tolist()
                there = (before[0][row] * side / pixels.shape[-1]).tolist() if before else here
                for (x, y), start in zip(here, there, strict=True):
                    if x == x:  # what is not annotated is no number
                        draw.line((*start, x, y), fill=paint)
                        draw.ellipse((x - 2, y - 2, x + 2, y + 2), fill=paint)
            sheet.paste(own, (column * side, row * side))
    return sheet


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--only", choices=["experts", "data", "video", "all"], default="all")
    parser.add_argument(
        "--times", type=int, nargs="+", default=range(5), help="of data: its schedule; 0: all that has none"
    )
    parser.add_argument("--short", action="store_true", help="few faces and one epoch, nothing is written")
    given = parser.parse_args()
    todo = {
        (cell.part, cell.name, cell.times, seed): cell
        for seed in [int(word) for word in given.seeds.split(",")][: 1 if given.short else None]
        for cell in cells()
        if given.only in (cell.part, "all")
        and cell.times in given.times
        and not (seed and cell.name in ONCE)
        and not (given.short and cell.times > 1)
    }
    folder = Path(tempfile.mkdtemp()) if given.short else RESULTS.parents[1] / "docs"
    for key in todo if given.short else undone("faces", SAME, todo):
        row = run(todo[key], key[-1], given.short)
        print(row, flush=True)
        if not given.short:
            what = __doc__.split("\n\n", 2)[2].rpartition(" A cell")[0]
            add("faces", " ".join(what.split()), [row], same=SAME)
        if key[:-1] in DRAWN and not key[-1]:
            path = folder / f"faces-{DRAWN[key[:-1]]}.png"
            drawn(todo[key], given.short).save(path)
            print(path)


if __name__ == "__main__":
    main()
