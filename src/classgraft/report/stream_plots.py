"""Plots of a stream of tasks, beside those of ``plots``: accuracy as classes come, and the matrix of steps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from classgraft.report.plots import (
    _LEFT,
    _TOP,
    COLOURS,
    Point,
    _axes,
    _percents,
    _put,
    _svg,
    _text,
    colour,
    isolated,
    shortened,
    ticks,
)

_ROOM = 120  # pixels beside the last point for the names of the lines


@dataclass(frozen=True)
class Line:
    """One method's accuracy after each step."""

    name: str
    values: tuple[float, ...]
    """Fractions, one a step."""
    half_widths: tuple[float, ...] = ()
    """Of their intervals; empty where there is a single run."""


def progress(lines: Sequence[Line], at: Sequence[float], label: str) -> str:
    """Accuracy over what has come, a line a method with its name at the end; bands are the intervals."""
    y = ticks(0.0, max(max(line.values) for line in lines) + 1e-9)
    marks = {float(value): f"{value:g}" for value in _thinned(at, 12)}
    span = (at[-1] - at[0]) or 1.0
    end = at[-1] + span * _ROOM / 700  # an axis that goes on where the names stand
    plot = _axes(
        "Accuracy after each step", (940, 400), marks | {end: ""}, _percents(y), label, "accuracy on all seen, %"
    )
    names = []
    for k, line in enumerate(lines):
        points = list(zip(map(float, at), line.values, strict=True))
        if line.half_widths and not any(map(math.isnan, line.half_widths)):
            band: list[Point] = [(x, v + h) for (x, v), h in zip(points, line.half_widths, strict=True)]
            band += [(x, v - h) for (x, v), h in reversed(list(zip(points, line.half_widths, strict=True)))]
            _put(plot.inside, "polygon", class_=f"band {colour(k)}", points=plot.path(band))
        _put(plot.inside, "polyline", class_=f"line {_look(k)}", points=plot.path(points))
        for x, value in points:
            place = plot.place((x, value))
            dot = _put(plot.svg, "circle", class_=f"dot {_look(k)}", cx=_LEFT + place["x"], cy=_TOP + place["y"], r=3.5)
            _put(dot, "title", f"{isolated(line.name)}, {x:g}: {100 * value:.1f} %")
        names.append((plot.place(points[-1]), k))
    names.sort(key=lambda found: found[0]["y"])
    heights = _apart([place["y"] for place, _ in names], 15.0, plot.height)
    for (place, k), height in zip(names, heights, strict=True):
        x, y_at = _LEFT + place["x"] + 10, _TOP + height + 4
        text = _put(plot.svg, "text", shortened(lines[k].name, 17), class_=f"end-name {colour(k)}", x=x, y=y_at)
        _put(text, "title", lines[k].name)
    return _text(plot.svg)


def _look(k: int) -> str:
    """The colour, and a mark of the second round of colours."""
    return colour(k) + " again" * (k >= COLOURS)


def _thinned(values: Sequence[float], most: int) -> list[float]:
    step = math.ceil(len(values) / most)
    return [value for i, value in enumerate(values) if (len(values) - 1 - i) % step == 0]


def _apart(wanted: Sequence[float], gap: float, end: float) -> list[float]:
    """Ascending heights moved as little as need be so that each is ``gap`` below the one before."""
    found: list[float] = []
    for height in wanted:
        found.append(max(height, found[-1] + gap) if found else height)
    for i in reversed(range(len(found))):
        found[i] = min(found[i], end - gap * (len(found) - 1 - i))
    return found


def matrix(values: Sequence[Sequence[float | None]], title: str) -> str:
    """Accuracy after step t (rows) on the images of step j (columns); the deeper, the more are right."""
    size = len(values)
    cell = 34 if size <= 11 else 22 if size <= 21 else 9
    left, top = 78.0, 26.0
    svg = _svg(title, left + cell * size + 8, top + cell * size + 8)
    _put(svg, "text", "after ↓  on →", class_="faint", text_anchor="end", x=left - 6, y=top - 10)
    shown = _thinned([float(k) for k in range(size)], 21)
    for k in map(int, shown):
        middle = (k + 0.5) * cell
        _put(svg, "text", f"{k + 1}", class_="tick", text_anchor="middle", x=left + middle, y=top - 8)
        _put(svg, "text", f"{k + 1}", class_="tick", text_anchor="end", x=left - 8, y=top + middle + 4)
    for t, row in enumerate(values):
        for j, value in enumerate(row):
            x, y = left + j * cell, top + t * cell
            if value is None:
                continue
            box = _put(svg, "rect", class_="right", x=x + 0.5, y=y + 0.5, width=cell - 1, height=cell - 1)
            box.set("fill-opacity", f"{0.06 + 0.94 * value:.2f}")
            _put(box, "title", f"after step {t + 1}, images of step {j + 1}: {100 * value:.1f} %")
            if cell > 20:
                deep = "count deep" if value > 0.45 else "count"
                text = f"{100 * value:.0f}"
                _put(svg, "text", text, class_=deep, text_anchor="middle", x=x + cell / 2, y=y + cell / 2 + 4)
    return _text(svg)


__all__ = ["Line", "matrix", "progress"]
