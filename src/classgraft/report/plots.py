"""Small SVG plots as strings: pure functions of numbers and names. Colours and fonts come from the page's style sheet.

Accuracies are fractions in 0..1 and are labelled in per cent. Every plot carries a title, and so does every mark that
cannot be read off the axes.
"""

from __future__ import annotations

import itertools
import math
import unicodedata
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor

Point = tuple[float, float]
Window = tuple[Point, Point]

COLOURS = 6
_EM = 6.4  # mean width in pixels of a character of the labels, which are 12 pixels high
_LEFT, _TOP = 52.0, 10.0  # pixels beside and above the drawing within the axes


@dataclass(frozen=True)
class Curve:
    """What an offset between old and new logits trades."""

    name: str
    points: tuple[Point, ...]
    """(old, new) accuracy for each offset, in the order of the sweep."""
    achieved: Point | None = None
    """(old, new) accuracy at the offset that the model has."""
    area: float | None = None
    """Area under the curve, 0..1."""
    regret: float | None = None
    """Calibration regret: harmonic mean at the best offset less the achieved one, 0..1."""

    @property
    def best(self) -> Point:
        """The (old, new) point of highest harmonic mean."""
        return max(self.points, key=harmonic)


def harmonic(point: Point) -> float:
    """Harmonic mean of (old, new), 0..1."""
    old, new = point
    return 2 * old * new / (old + new) if old + new > 0 else 0.0


def ticks(low: float, high: float, about: int = 5) -> list[float]:
    """Round numbers from `low` or a little below to `high` or a little above, some `about` steps apart.

    >>> ticks(0, 1), ticks(0.93, 1.0, about=4), ticks(-0.31, 0.08, about=4)
    ([0.0, 0.2, 0.4, 0.6, 0.8, 1.0], [0.92, 0.94, 0.96, 0.98, 1.0], [-0.4, -0.3, -0.2, -0.1, 0.0, 0.1])
    """
    raw = max(high - low, 1e-6) / about
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor > raw * 0.999)
    first = math.floor(low / step + 1e-6)
    last = max(first + 1, math.ceil(high / step - 1e-6))
    return [round(step * k, 9) + 0.0 for k in range(first, last + 1)]


def shortened(text: str, width: int = 24) -> str:
    """One line of at most `width` columns, with an ellipsis where something was cut; wide characters count two.

    >>> shortened("giant schnauzer", 8), shortened("大王花大王花", 8)
    ('giant s…', '大王花…')
    """
    text = " ".join(text.split())
    ends = list(itertools.accumulate(map(_columns, text)))
    if not ends or ends[-1] <= width:
        return text
    return text[: sum(end < width for end in ends)].rstrip() + "…"


def trade(curves: Sequence[Curve], window: Window = ((0.0, 1.0), (0.0, 1.0))) -> str:
    """New over old accuracy, a line a curve, inside `window` = ((lowest, highest) old, (lowest, highest) new).

    A full dot is what was achieved, a diamond the best harmonic mean; grey lines join points of equal harmonic mean.
    """
    x, y = (ticks(*side) for side in window)
    plot = _axes(
        "New accuracy over old accuracy", (460, 400), _percents(x), _percents(y), "old accuracy, %", "new accuracy, %"
    )
    top = harmonic((x[-1], y[-1]))
    for level in (level for level in ticks(harmonic((x[0], y[0])), top) if 0 < level < top):
        start = max(x[0], level * y[-1] / (2 * y[-1] - level))
        steps = [start + (x[-1] - start) * k / 40 for k in range(41)]
        line = [(old, level * old / (2 * old - level)) for old in steps]
        _put(plot.inside, "polyline", class_="contour", points=plot.path(line))
        middle = min((plot.place(point) for point in line), key=lambda at: abs(at["x"] + at["y"] - plot.height))
        _put(plot.inside, "text", f"{100 * level:g}", class_="faint halo", text_anchor="middle", **middle)
    for k, curve in enumerate(curves):
        _put(plot.inside, "polyline", class_=f"line {colour(k)}", points=plot.path(curve.points))
    for k, curve in enumerate(curves):
        for kind, point in (("best", curve.best), ("achieved", curve.achieved)):
            if point is None or not (x[0] <= point[0] <= x[-1] and y[0] <= point[1] <= y[-1]):
                continue
            at = plot.place(point)
            across, down = _LEFT + at["x"], _TOP + at["y"]
            words = f"{isolated(curve.name)}, {kind}: old {100 * point[0]:.1f} %, new {100 * point[1]:.1f} %"
            if kind == "achieved":
                mark = _put(plot.svg, "circle", class_=f"dot {colour(k)}", cx=across, cy=down, r=5)
            else:
                corner = f"M{across:.1f} {down - 8:.1f}l8 8l-8 8l-8-8z"
                mark = _put(plot.svg, "path", class_=f"diamond {colour(k)}", d=corner)
            _put(mark, "title", words)
    return _text(plot.svg)


def lines(
    series: Sequence[tuple[str, Sequence[Point], Sequence[Point]]],
    title: str,
    x: Mapping[float, str],
    y: Mapping[float, str],
    labels: tuple[str, str],
) -> str:
    """Named points, each with the line that belongs to them, and a key in the corner where they hide least.

    Args:
        series: (name, points, corners of the line).
        title: of the whole.
        x: labels by tick; the axis ends with them.
        y: likewise.
        labels: of the axes, x then y.
    """
    plot = _axes(title, (560, 400), x, y, *labels)
    key_x, key_y = _free_corner(plot, [corners for *_, corners in series], [shortened(name, 40) for name, *_ in series])
    for k, (name, points, corners) in enumerate(series):
        _put(plot.inside, "polyline", class_=f"line {colour(k)}", points=plot.path(corners))
        for point in points:
            at = plot.place(point)
            mark = _put(plot.svg, "circle", class_=f"dot {colour(k)}", cx=_LEFT + at["x"], cy=_TOP + at["y"], r=5)
            _put(mark, "title", f"{isolated(name)}: {point[0]:g}, {point[1]:g}")
        _put(plot.svg, "circle", class_=f"dot {colour(k)}", cx=_LEFT + key_x, cy=_TOP + key_y + 18 * k, r=5)
        _put(plot.svg, "text", shortened(name, 40), class_="halo", x=_LEFT + key_x + 10, y=_TOP + key_y + 4 + 18 * k)
    return _text(plot.svg)


def _free_corner(plot: _Plot, paths: Sequence[Sequence[Point]], names: Sequence[str]) -> tuple[float, float]:
    """Where the first dot of a key stands, in pixels, so that the least of these lines lies behind the key."""
    width, height = 34 + 7.0 * max(map(len, names), default=0), 10 + 18.0 * len(names)
    behind: dict[tuple[float, float], int] = {}
    for left in (0.0, plot.width - width):
        for top in (0.0, plot.height - height):
            behind[left + 14, top + 14] = sum(
                left <= x <= left + width and top <= y <= top + height
                for path in paths
                for before, after in itertools.pairwise([plot.place(point) for point in path])
                for part in range(21)
                for x, y in [[before[k] + (after[k] - before[k]) * part / 20 for k in ("x", "y")]]
            )
    return min(behind, key=lambda corner: behind[corner])


SHAPES = (
    "m-4.5 0a4.5 4.5 0 1 0 9 0a4.5 4.5 0 1 0-9 0z",
    "m-4 -4h8v8h-8z",
    "m0 -5.5l5.5 5.5l-5.5 5.5l-5.5-5.5z",
    "m0 -5l5 9h-10z",
)
"""Marks about a point: a disc, a square, a diamond, a triangle."""


def scatter(groups: Sequence[tuple[str, Sequence[Point]]], title: str, labels: tuple[str, str]) -> str:
    """Points of named groups, with a key beside them; colours go round, and after each round comes another shape.

    Args:
        groups: (name, points); one point at least.
        title: of the whole.
        labels: of the axes, x then y.
    """
    sides = zip(*(point for _, points in groups for point in points), strict=True)
    x, y = ({tick: f"{tick:g}" for tick in ticks(min(side), max(side))} for side in sides)
    plot = _axes(title, (560, 400), x, y, *labels)
    height = max(400, 30 + 18 * len(groups))
    plot.svg.attrib |= {"viewBox": f"0 0 760 {height}", "width": "760", "height": str(height)}
    for k, (name, points) in enumerate(groups):
        kind, shape = f"dot {colour(k)}", SHAPES[k // COLOURS % len(SHAPES)]
        for point in points:
            at = plot.place(point)
            mark = _put(plot.svg, "path", class_=kind, d=f"M{_LEFT + at['x']:.1f} {_TOP + at['y']:.1f}{shape}")
            _put(mark, "title", f"{isolated(name)}: {point[0]:.3g}, {point[1]:.3g}")
        _put(plot.svg, "path", class_=kind, d=f"M574 {20 + 18 * k}{shape}")
        label = _put(plot.svg, "text", shortened(name), x=586, y=24 + 18 * k)
        _put(label, "title", name)
    return _text(plot.svg)


def ranked(values: Sequence[float], title: str, label: str) -> str:
    """Numbers in ascending order as one area each side of zero: how many classes, and by how much."""
    values = sorted(values)
    y = ticks(min(0.0, values[0]), max(0.0, values[-1]), about=4)
    count = len(values)
    x = {tick: f"{tick:,.0f}" for tick in ticks(0, count) if tick < count * 0.94} | {float(count): f"{count:,}"}
    plot = _axes(title, (940, 240), x, _percents(y), "classes, in order", label)
    for kind, outline in (("loss", lambda v: min(v, 0.0)), ("gain", lambda v: max(v, 0.0))):
        runs = [(value, len(list(run))) for value, run in itertools.groupby(map(outline, values))]
        ends = itertools.accumulate(length for _, length in runs)
        steps = "".join(
            f"V{plot.place((0, value))['y']:.1f}H{plot.place((end, 0))['x']:.1f}"
            for (value, _), end in zip(runs, ends, strict=True)
        )
        zero = plot.place((0, 0))
        _put(plot.inside, "path", class_=kind, d=f"M0 {zero['y']:.1f}{steps}V{zero['y']:.1f}Z")
    _put(plot.inside, "line", class_="axis", x1=0, x2="100%", y1=zero["y"], y2=zero["y"])
    return _text(plot.svg)


def scale(marks: Sequence[float]) -> str:
    """The head of a column of `change` or `bar` plots: the axis from `marks[0]` to `marks[-1]`."""
    svg = _row("axis in per cent", 16)
    for mark in marks:
        _put(svg, "text", f"{100 * mark:g}", class_="faint", text_anchor="middle", x=_share(mark, marks), y=12)
    return _text(svg)


def change(before: float, after: float, marks: Sequence[float]) -> str:
    """Two accuracies in a table row: a ring before, a dot after, and the way between them."""
    svg = _row(f"from {100 * before:.1f} % to {100 * after:.1f} %", 26, marks)
    kind = "same" if math.isclose(after, before, abs_tol=1e-9) else "loss" if after < before else "gain"
    start, end = _share(before, marks), _share(after, marks)
    _put(svg, "line", class_=f"way {kind}", x1=start, x2=end, y1=13, y2=13)
    _put(svg, "circle", class_="ring", cx=start, cy=13, r=4.5)
    _put(svg, "circle", class_=f"end {kind}", cx=end, cy=13, r=4.5)
    return _text(svg)


def bar(value: float, kind: str, marks: Sequence[float]) -> str:
    """One accuracy in a table row, from zero; `kind` ("old" or "new") picks the colour."""
    svg = _row(f"{100 * value:.1f} %", 26, marks)
    _put(svg, "rect", class_=f"bar {kind}", x=0, y=7, width=_share(value, marks), height=12, rx=2)
    return _text(svg)


def stacked(parts: Sequence[tuple[str, float]], title: str) -> str:
    """Named non-negative amounts as the parts of one bar."""
    svg = _row(title, 22)
    whole = sum(amount for _, amount in parts) or 1.0
    starts = itertools.accumulate((amount for _, amount in parts), initial=0.0)
    for k, ((name, amount), start) in enumerate(zip(parts, starts, strict=False)):
        left, width = f"{100 * start / whole:.2f}%", f"{100 * amount / whole:.2f}%"
        part = _put(svg, "rect", class_=f"part {colour(k)}", x=left, y=0, width=width, height=22)
        _put(part, "title", f"{isolated(name)}: {100 * amount / whole:.0f} %")
    return _text(svg)


def heat(counts: Tensor, names: Sequence[str], old: int) -> str:
    """Confusion counts (G, G), rows the truth, columns what was said; the first `old` of the G groups are old ones.

    A colour's depth is the square root of the share of its row, so that rare mistakes still show.
    """
    size = len(names)
    cell = 44 if size <= 12 else 26 if size <= 20 else 19 if size <= 32 else 16
    labels = [shortened(name) for name in names]
    lengths = [_EM * sum(map(_columns, label)) for label in labels]
    left, top, side = max(*lengths, 84) + 18, 0.74 * max(lengths) + 24, cell * size
    right = max(0.68 * length - cell * (size - k - 0.5) for k, length in enumerate(lengths))
    svg = _svg(
        "Confusion: rows are the truth, columns what the model said", left + side + max(right, 0) + 12, top + side
    )
    _put(svg, "rect", class_="field", x=left, y=top, width=side, height=side)
    _put(svg, "text", "truth ↓  said →", class_="faint", text_anchor="end", x=left - 8, y=top - 8)
    for k, (name, label) in enumerate(zip(names, labels, strict=True)):
        kind, middle = "label new" if k >= old else "label", (k + 0.5) * cell
        line = _put(svg, "text", label, class_=kind, text_anchor="end", x=left - 8, y=top + middle + 4)
        turned = f"translate({left + middle + 4:.1f} {top - 8:.1f}) rotate(-48)"
        for text in (line, _put(svg, "text", label, class_=kind, transform=turned)):
            _put(text, "title", name)
    rows = counts.tolist()
    for i, row in enumerate(rows):
        whole = sum(row)
        for j, count in enumerate(row):
            if count <= 0:
                continue
            share, x, y = count / whole, left + j * cell, top + i * cell
            box = _put(svg, "rect", class_="right" if i == j else "wrong", x=x + 0.5, y=y + 0.5)
            box.attrib |= {"width": f"{cell - 1}", "height": f"{cell - 1}", "fill-opacity": f"{share**0.5:.2f}"}
            words = f"{isolated(names[i])} → {isolated(names[j])}: {count:,.0f} of {whole:,.0f} ({100 * share:.1f} %)"
            _put(box, "title", words)
            if cell > 24 and count < 10_000:
                deep = "count deep" if share > 0.3 else "count"
                _put(svg, "text", f"{count:.0f}", class_=deep, text_anchor="middle", x=x + cell / 2, y=y + cell / 2 + 4)
    if 0 < old < size:
        edge = old * cell
        _put(svg, "path", class_="border", d=f"M{left:g} {top + edge:g}h{side}M{left + edge:g} {top:g}v{side}")
    return _text(svg)


def colour(k: int) -> str:
    """The style sheet's class for the k-th of several things."""
    return f"c{k % COLOURS + 1}"


def isolated(name: str) -> str:
    """A name that cannot turn the direction of the text around it (Unicode's first-strong isolate)."""
    return f"\u2068{name}\u2069"


@dataclass(frozen=True)
class _Plot:
    """Axes, and inside them a drawing that is cut off at their ends."""

    svg: ET.Element
    inside: ET.Element
    x: Point
    y: Point
    """(lowest, highest) of each axis."""
    width: float
    height: float

    def place(self, point: Point) -> dict[str, float]:
        """The drawing's x and y in pixels of a point in the axes' units."""
        return {
            "x": (point[0] - self.x[0]) / (self.x[1] - self.x[0]) * self.width,
            "y": (self.y[1] - point[1]) / (self.y[1] - self.y[0]) * self.height,
        }

    def path(self, points: Sequence[Point]) -> str:
        """Points of a polyline, less those nearer than a pixel to the one before: a sweep may have 100,000."""
        kept: list[Point] = []
        for point in points:
            x, y = self.place(point).values()
            if not kept or math.dist(kept[-1], (x, y)) >= 1:
                kept.append((x, y))
        return " ".join(f"{x:.1f},{y:.1f}" for x, y in kept)


def _axes(
    title: str, size: tuple[int, int], x: Mapping[float, str], y: Mapping[float, str], x_label: str, y_label: str
) -> _Plot:
    """An empty plot; `x` and `y` map the ticks to their labels, and end with the axes."""
    svg = _svg(title, *size)
    width, height = size[0] - _LEFT - 14.0, size[1] - _TOP - 46.0
    inside = ET.Element("svg")
    plot = _Plot(svg, inside, (min(x), max(x)), (min(y), max(y)), width, height)
    for value, label in x.items():
        at = _LEFT + plot.place((value, 0))["x"]
        _put(svg, "line", class_="grid", x1=at, x2=at, y1=_TOP, y2=_TOP + height)
        _put(svg, "text", label, class_="tick", text_anchor="middle", x=at, y=_TOP + height + 17)
    for value, label in y.items():
        at = _TOP + plot.place((0, value))["y"]
        _put(svg, "line", class_="grid", x1=_LEFT, x2=_LEFT + width, y1=at, y2=at)
        _put(svg, "text", label, class_="tick", text_anchor="end", x=_LEFT - 7, y=at + 4)
    _put(svg, "text", x_label, text_anchor="middle", x=_LEFT + width / 2, y=size[1] - 8)
    turned = f"translate(14 {_TOP + height / 2:g}) rotate(-90)"
    _put(svg, "text", y_label, text_anchor="middle", transform=turned)
    inside.attrib |= {"x": f"{_LEFT:g}", "y": f"{_TOP:g}", "width": f"{width:g}", "height": f"{height:g}"}
    svg.append(inside)
    return plot


def _svg(title: str, width: float, height: float) -> ET.Element:
    box = {"viewBox": f"0 0 {width:.0f} {height:.0f}", "width": f"{width:.0f}", "height": f"{height:.0f}"}
    svg = ET.Element("svg", box, role="img")
    _put(svg, "title", title)
    return svg


def _row(title: str, height: int, marks: Sequence[float] = ()) -> ET.Element:
    # Lengths in per cent instead of a view box: the row stretches with its cell, and its dots stay round.
    svg = ET.Element("svg", {"class": "row", "width": "100%", "height": str(height), "role": "img"})
    _put(svg, "title", title)
    for mark in marks:
        _put(svg, "line", class_="grid", x1=_share(mark, marks), x2=_share(mark, marks), y1=0, y2=height)
    return svg


def _put(parent: ET.Element, tag: str, text: str = "", **attributes: float | str) -> ET.Element:
    node = ET.SubElement(parent, tag)
    node.text = text or None
    for key, value in attributes.items():
        written = f"{round(value, 2):g}" if isinstance(value, float) else str(value)
        node.set(key.rstrip("_").replace("_", "-"), written)
    return node


def _text(svg: ET.Element) -> str:
    return ET.tostring(svg, encoding="unicode")


def _columns(character: str) -> int:
    if unicodedata.category(character) in ("Mn", "Me", "Cf"):
        return 0
    return 2 if unicodedata.east_asian_width(character) in "WF" else 1


def _percents(values: Sequence[float]) -> dict[float, str]:
    return {value: f"{100 * value:g}".replace("-", "−") for value in values}


def _share(value: float, marks: Sequence[float]) -> str:
    return f"{100 * (value - marks[0]) / (marks[-1] - marks[0]):.2f}%"
