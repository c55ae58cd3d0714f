"""Draws what the JSON files under benchmarks/results/ hold, and the gallery of the documents' figures; see tables.py."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Collection, Iterator
from pathlib import Path
from typing import Any

from sections.streams import PERMUTED

from classgraft.metrics.intervals import student_interval
from classgraft.report import plots

DOCS = Path(__file__).parents[1] / "docs"
Found = dict[str, Any]
"""Every result by the name of its file."""


def pictures(found: Found) -> dict[Path, str]:
    """Every drawing that there are results for."""
    return {DOCS / f"{name}.svg": drawing for name, drawing in _drawn(found)}


def _drawn(found: Found) -> Iterator[tuple[str, str]]:
    if "acwod" in found:
        yield "acwod", acwod_plot(found["acwod"])
    if "frozen" in found:
        yield "frozen", classes_plot(found["frozen"])
        yield "frozen-first", first_plot(found["frozen"])
    for name in ("few-cifar10", "few-flowers"):
        for kind in ("glico", "glo") if found.get(name, {}).get("maps") else ():
            yield f"{name}-{kind}", latent_plot(found[name]["maps"], kind)
    for name in ("cifar", "tiny"):
        if f"memories-{name}" in found:
            yield f"memories-{name}", memory_plot(found[f"memories-{name}"])
    if any(row["part"] == "temperature" for row in found.get("distill", {}).get("rows", ())):
        yield "temperature", temperature_plot(found["distill"])
    if "stream" in found and any(row["method"].startswith("der") for row in found["stream"]["rows"]):
        yield "stream", stream_plot(found["stream"])
    if any(row["part"] == "gates" for row in found.get("masks", {}).get("rows", ())):
        yield "gates", gates_plot(found["masks"])
    for protocol in dict.fromkeys(row["protocol"] for row in found.get("permuted", {}).get("rows", ())):
        yield f"permuted-{protocol}", strength_plot(found["permuted"], protocol)
    for pair in dict.fromkeys(line["pair"] for line in found.get("dropout", {}).get("summaries", ())):
        yield f"dropout-{pair}", frontier_plot(found["dropout"], pair)
    if "growth" in found:
        yield "growth", growth_plot(found["growth"])


GALLERY = (
    ("N5", "Adaptation strategies: best epsilon over the share of original classes", "acwod.svg", "acwod.py",
     "A point is the epsilon that was best on held-out images, a line the fit through those of one choice of layers."),
    ("D15", "Accuracy on all classes so far, while ten are added at a time", "frozen.svg", "frozen.py",
     "Tiny-ImageNet classes on frozen features of an ImageNet network."),
    ("L55", "Accuracy on the first ten classes, while others are added", "frozen-first.svg", "frozen.py",
     "The same streams: what is left of the classes that came first."),
    ("D15", "Accuracy over parameters, with masks and without", "stream.svg", "stream.py",
     "Tiny-ImageNet classes from scratch. Masks are joined along the weight of their sparsity loss."),
    ("L6", "Students' errors over the temperature", "temperature.svg", "distill.py",
     "Two hidden layers of 800 units and of 30, on MNIST, taught by one wide network."),
    ("L21", "Likeness of images as teacher and students see it", "distill-*.png", "distill.py",
     "Twelve CIFAR-10 test images of each class, in the order of classes; bright is alike. Left the teacher, right a student."),
    ("L15", "Boxes that teacher and students find", "bccd-*.png", "bccd.py",
     "Four held-out pictures of blood; red and white cells in their colours, platelets yellow."),
    ("L17", "Points that experts of parts and their student find", "faces-experts.png", "faces.py",
     "Training faces: the part that was annotated, what the three experts find, what the student of both finds, the truth."),
    ("L18", "Poses and motions that teacher and student find", "faces-video.png", "faces.py",
     "Frames of which nothing was annotated; a line leads from where a point was in the frame before. Left the teacher, which"
     " sees one frame at a time, in the middle the student, right the truth."),
    ("L23", "Streets labelled with the teacher's help and without", "camvid.png", "camvid.py",
     "Validation frames, their masks, a narrow student of the masks alone, and one of all three terms as well."),
    ("L26", "One face under several views, mapped back", "faces-looks.png", "faces.py",
     "Left a colour for each view, in the middle all views together, right the truth."),
    ("L48", "Two moons and six labels", "moons.png", "moons.py",
     "Dots are unlabelled, circles labelled. First row: labels alone, pseudo-labels, VAT; second"
     " row: ICT, meta pseudo labels, the same without feedback."),
    ("L56", "Frontiers of errors with dropout and without", "dropout-*.svg", "dropout.py",
     "No configuration of an arm has fewer errors on both tasks than a point of its line."),
    ("L72", "Maps of attention before and after", "lwm-*.png", "lwm.py",
     "Test images of the first task; where the network looks after it, and after the last."),
    ("L77", "Accuracy over the strength with which weights are held", "permuted-*.svg", "permuted.py",
     "MNIST under other permutations of its pixels, and two digits at a time."),
    ("L84", "What the scholar draws", "replay-*.png", "replay.py",
     "A row after each task: two digits first, two more each time."),
    ("L92", "Accuracy over kernels in use", "gates.svg", "masks.py",
     "Two digits at a time; a point for each weight of the sparsity loss."),
    ("S10", "Points of images by class, GLICO and GLO", "few-*-gl*.svg", "few.py",
     "Ten images of each class, along the two axes on which the learnt points differ most."),
    ("S18", "Pictures along great circles", "few-*-glico.png", "few.py",
     "A row a class: a photo, eight pictures that the generator makes on the way, and another photo of the class."),
)  # fmt: skip
"""Item of docs/coverage.md, title, files under docs, script, what is seen."""


def gallery(drawn: Collection[Path]) -> str:
    """The page: figures of the documents, drawn of our own runs; ``drawn`` may not be on disk yet."""
    shown, missing = [], []
    for item, title, pattern, script, seen in GALLERY:
        here = sorted({path for path in [*DOCS.glob(pattern), *drawn] if path.match(pattern)})
        if here:
            drawings = "\n\n".join(
                f"{_subtitle(path) if '*' in pattern else ''}![{title}]({path.name})" for path in here
            )
            where = f"Item {item} of [coverage](coverage.md); `benchmarks/{script}`."
            shown.append(f"## {title}\n\n{seen}\n\n{drawings}\n\n{where}")
        else:
            missing.append(f"- {title} ({item}, `{script}`)")
    parts = [
        "# Gallery\n\nFigures of the five documents that this project set out from, drawn again of its own runs. Numbers,"
        " machines and versions are in [results](results.md); what a run is of, and where it differs from a document's, in"
        " [coverage](coverage.md).",
        *shown,
    ]
    if missing:
        words = "Their scripts are written, and have not had their hours yet:"
        parts.append(f"## Not drawn yet\n\n{words}\n\n" + "\n".join(missing))
    return "\n\n".join(parts) + "\n"


def _subtitle(path: Path) -> str:
    """Which of several drawings: what follows the first word of its file's name."""
    return f"{path.stem.partition('-')[2].replace('-', ' ')}\n\n"


LEARNERS = {
    "ranpac, 5,000": "RanPAC",
    "glne, shared covariance": "GLNE, one covariance",
    "glne": "GLNE",
    "fecam": "FeCAM",
    "ncm": "nearest mean",
}
"""Of frozen.py, at most five; what the drawing calls them."""


def classes_plot(result: dict[str, Any]) -> str:
    """The figure that every paper on class-incremental learning has: accuracy on all classes so far."""
    return _stream(result, lambda row: sum(row) / len(row), "Accuracy on all classes so far")


def first_plot(result: dict[str, Any]) -> str:
    """What is left of the first classes."""
    return _stream(result, lambda row: row[0], "Accuracy on the first ten classes")


def _stream(result: dict[str, Any], of: Callable[[list[float]], float], title: str) -> str:
    matrices = {row["learner"]: row["matrix"] for row in result["rows"] if row["stream"].startswith("100 ")}
    series = []
    for learner, name in LEARNERS.items():
        points = [(10.0 * (k + 1), of(row)) for k, row in enumerate(matrices[learner])]
        series.append((name, points, points))
    x = {10.0 * k: f"{10 * k}" for k in range(1, 11)}
    values = [value for _, points, _ in series for _, value in points]
    y = {tick: f"{tick:g}" for tick in plots.ticks(min(values), max(values))}
    return alone(plots.lines(series, title, x, y, ("classes so far", "accuracy, %")))


def acwod_plot(result: dict[str, Any]) -> str:
    """The poster's figure: best epsilon over the share of original classes, a line a strategy."""
    series = []
    for layers in dict.fromkeys(key.partition(", by ")[0] for key in result["fits"]):
        fit = result["fits"][f"{layers}, by all"]
        ends = tuple((share / 100, fit["intercept"] + fit["slope"] * share / 100) for share in (0, 100))
        points = [(share / 100, epsilon) for share, epsilon in zip(fit["shares"], fit["epsilons"], strict=True)]
        series.append((f"{layers}, R² {fit['r2']:.2f}", points, (ends[0], ends[1])))
    x, y = ({tick: f"{tick:g}" for tick in plots.ticks(0, most)} for most in (1, 1))
    drawn = plots.lines(series, "Best epsilon", x, y, ("share of original classes", "best epsilon"))
    return alone(drawn)


def memory_plot(result: dict[str, Any], shots: int = 20) -> str:
    """Harmonic mean over the bytes kept of a class, in powers of ten; lines join the smallest memory and the largest."""
    rows = [
        row
        for row in result["rows"]
        if row["shots"] == shots and row["method"].startswith("glne") and row["bytes a class"]
    ]
    groups: dict[str, list[str]] = {}
    for name in dict.fromkeys(row["method"] for row in rows):
        kind = name.removeprefix("glne, ").removeprefix("mixture: ").partition(",")[0]
        groups.setdefault("chosen by bytes" if kind == "chosen" or kind.endswith("bytes") else kind, []).append(name)
    series = []
    for kind, names in groups.items():
        points = []
        for name in names:
            draws = [row for row in rows if row["method"] == name]
            mean = student_interval([row["harmonic"] for row in draws])[0]
            points.append((math.log10(draws[0]["bytes a class"]), mean))
        points.sort()
        if kind != "literal objective":
            series.append((kind, points, (points[0], points[-1])))
    x = {float(power): f"{10**power:,}" for power in range(2, 7)}
    values = [y for _, points, _ in series for _, y in points]
    y = {tick: f"{tick:g}" for tick in plots.ticks(min(values), max(values))}
    label = f"harmonic mean at {shots} photos, %"
    return alone(plots.lines(series, "Harmonic mean over bytes", x, y, ("bytes kept of a class", label)))


def latent_plot(maps: dict[str, Any], kind: str) -> str:
    """The points of images by class, on the two axes along which they differ most."""
    groups = [
        (name, [(x, y) for (x, y), label in zip(maps[kind], maps["labels"], strict=True) if label == k])
        for k, name in enumerate(maps["classes"])
    ]
    return alone(plots.scatter(groups, f"Points of {kind}", ("first axis", "second axis")))


def temperature_plot(result: dict[str, Any]) -> str:
    """Test errors of students over the temperature of their soft targets, means over seeds."""
    errors: dict[str, dict[float, list[float]]] = {}
    for row in result["rows"]:
        if row["part"] == "temperature" and "T = " in row["method"]:
            at = math.log2(float(row["method"].partition("T = ")[2]))
            errors.setdefault(row["student"], {}).setdefault(at, []).append(100 - row["accuracy"])
    series = []
    for student, by_temperature in errors.items():
        points = [(at, sum(values) / len(values)) for at, values in sorted(by_temperature.items())]
        series.append((student, points, points))
    most = max((y for _, points, _ in series for _, y in points), default=1.0)
    x = {at: f"{2**at:.3g}" for at in sorted({at for found in errors.values() for at in found})}
    y = {tick: f"{tick:g}" for tick in plots.ticks(0, most)}
    return alone(plots.lines(series, "Errors over the temperature", x, y, ("temperature", "test errors, %")))


HELD = {"l2": "l2", "ewc exact": "EWC", "ewc online": "EWC, online", "ewc shuffled": "EWC, shuffled", "mas": "MAS"}
"""Of permuted.py, at most five; what the drawing calls them."""


def strength_plot(result: dict[str, Any], protocol: str) -> str:
    """Average accuracy over all tasks, over the strength in powers of ten, means over seeds."""
    series = []
    for method, name in HELD.items():
        found: dict[float, list[float]] = {}
        for row in result["rows"]:
            if (row["protocol"], row["method"]) == (protocol, method):
                found.setdefault(math.log10(row["strength"]), []).append(row["average"])
        points = [(at, sum(values) / len(values)) for at, values in sorted(found.items())]
        if points:
            series.append((name, points, points))
    x = {power: f"1e{power:g}" for power in sorted({at for _, points, _ in series for at, _ in points})}
    values = [value for _, points, _ in series for _, value in points]
    y = {tick: f"{tick:g}" for tick in plots.ticks(min(values), max(values))}
    return alone(plots.lines(series, PERMUTED[protocol][1], x, y, ("strength", "average accuracy, %")))


def stream_plot(result: dict[str, Any]) -> str:
    """Average accuracy over parameters, in powers of ten, means over seeds; a line joins the weights of the sparsity loss."""
    groups: dict[str, list[tuple[float, float]]] = {}
    rows = [row for row in result["rows"] if row["method"].startswith(("der", "icarl", "wa", "exemplars"))]
    for method in dict.fromkeys(row["method"] for row in rows):
        draws = [row for row in rows if row["method"] == method]
        size, right = (sum(row[key] for row in draws) / len(draws) for key in ("parameters", "average"))
        name = "der, masked" if draws[0]["sparsity"] is not None else method
        groups.setdefault(name, []).append((math.log10(size), 100 * right))
    series = [(name, sorted(points), sorted(points)) for name, points in groups.items()]
    x_values, y_values = zip(*(point for points in groups.values() for point in points), strict=True)
    x = {
        float(power): f"{10.0**power:,.0f}" for power in range(math.floor(min(x_values)), math.ceil(max(x_values)) + 1)
    }
    y = {tick: f"{tick:g}" for tick in plots.ticks(min(y_values), max(y_values))}
    return alone(
        plots.lines(series, "Accuracy over parameters", x, y, ("parameters after the last step", "average, %"))
    )


def gates_plot(result: dict[str, Any]) -> str:
    """Accuracies over the capacity used, a point for each sparsity weight, means over seeds."""
    points: dict[str, list[tuple[float, float]]] = {"task known": [], "task not known": []}
    methods = dict.fromkeys(row["method"] for row in result["rows"] if row["method"].startswith("gates"))
    for method in methods:
        draws = [row for row in result["rows"] if row["method"] == method]
        used, own, joint = (sum(row[key] for row in draws) / len(draws) for key in ("capacity", "own", "joint"))
        points["task known"].append((used, own))
        points["task not known"].append((used, joint))
    series = [(name, sorted(found), sorted(found)) for name, found in points.items()]
    ticks = {tick: f"{tick:g}" for tick in plots.ticks(0, 100)}
    return alone(plots.lines(series, "Accuracy over capacity", ticks, ticks, ("kernels in use, %", "accuracy, %")))


def frontier_plot(result: dict[str, Any], pair: str) -> str:
    """Test errors on the frontier of each arm, joined by steps."""
    series = []
    for line in result["summaries"]:
        if line["pair"] == pair:
            points = [(float(old), float(new)) for old, new in line["frontier"]]
            corners = [points[0]]
            for (_, before), (old, new) in itertools.pairwise(points):
                corners += [(old, before), (old, new)]
            series.append((line["arm"], points, corners))
    most = [max(point[k] for _, points, _ in series for point in points) for k in (0, 1)]
    x, y = ({tick: f"{100 * tick:g}" for tick in plots.ticks(0, end)} for end in most)
    return alone(
        plots.lines(series, "Frontiers of errors", x, y, ("error on the old task, %", "error on the new task, %"))
    )


def growth_plot(result: dict[str, Any]) -> str:
    """Seconds over size, both in powers of ten; the lines join the first point and the last."""
    series = []
    for row in result["rows"]:
        points = [(math.log10(point["size"]), math.log10(point["seconds"])) for point in row["points"]]
        series.append((f"{row['row']} (over {row['of']})", points, (points[0], points[-1])))
    every = [point for _, points, _ in series for point in points]
    x, y = (
        {float(power): f"{10.0**power:g}" for power in range(math.floor(min(v)), math.ceil(max(v)) + 1)}
        for v in zip(*every, strict=True)
    )
    return alone(plots.lines(series, "Seconds over size", x, y, ("size", "seconds")))


def alone(drawn: str) -> str:
    """A drawing as a file of its own, with the colours that the page gives it elsewhere."""
    drawn = drawn.replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" style="background:#fff" ', 1)
    return drawn.replace("<title>", STYLE + "<title>", 1) + "\n"


STYLE = (
    "<style>text{font:12px sans-serif;fill:#333}.grid{stroke:#ddd}.line{fill:none;stroke-width:2}.dot{stroke:#fff}"
    + "".join(
        f".line.c{k}{{stroke:{c}}}.dot.c{k}{{fill:{c}}}"
        for k, c in enumerate(("#1b6ca8", "#c8553d", "#2e8b57", "#7a5195", "#b8860b"), 1)
    )
    + "</style>"
)
