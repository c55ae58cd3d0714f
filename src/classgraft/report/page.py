"""One self-contained HTML page about one extension: what it won, what it cost, and what was checked.

The page loads nothing and runs nothing: style, plots and pictures stand inside it. A part whose data is absent leaves
no trace. Every name is treated as hostile text.
"""

from __future__ import annotations

import base64
import io
import math
import re
import statistics
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from jinja2 import Environment, PackageLoader, StrictUndefined
from PIL import Image
from torch import Tensor

from classgraft.report import plots
from classgraft.report.plots import Curve

__all__ = ["ClassResult", "Confusion", "Cost", "Curve", "Pair", "Picture", "Promise", "Report", "Result", "render"]

LISTED = 30
"""Up to so many classes each get a line; of more, the `NAMED` most telling ones do."""
NAMED = 15
DRAWN = 40
"""Up to so many classes the confusion is drawn whole."""


@dataclass(frozen=True)
class Result:
    """A line of the headline table. Accuracies are fractions over images, in the joint label space; None: not so."""

    name: str
    old: float | None
    new: float | None
    harmonic: float | None
    all: float | None
    n: tuple[int, int]
    """Test images of old and of new classes."""
    role: Literal["before", "chosen", "other", "control", "ceiling"] = "other"
    """`chosen` is the one that this page is about; a `control` should lose, a `ceiling` saw what others may not."""
    note: str = ""
    plus_minus: tuple[float | None, float | None, float | None, float | None] | None = None
    """Half widths of the intervals of old, new, harmonic and all, as fractions."""


@dataclass(frozen=True)
class ClassResult:
    """One class. Accuracies are fractions; None where there was no image, or no class yet."""

    name: str
    n: int
    after: float | None
    before: float | None = None


@dataclass(frozen=True, eq=False)
class Confusion:
    """Counts of (truth, answer)."""

    counts: Tensor
    """(K, K) integers, dense or sparse: rows the truth, columns the answer."""
    names: tuple[str, ...]
    """The K class names in head order."""
    new: int
    """How many of them, the last ones, are new."""


@dataclass(frozen=True, eq=False)
class Picture:
    """A small picture and the words below it."""

    image: Tensor | Image.Image
    """(3, H, W) uint8, or a PIL image."""
    caption: str = ""


@dataclass(frozen=True, eq=False)
class Pair:
    """Images of one class that were taken for another."""

    true: str
    predicted: str
    count: int
    share: float
    """`count` over the images of the true class, 0..1."""
    pictures: tuple[Picture, ...] = ()


@dataclass(frozen=True)
class Cost:
    """What the extension took; pairs are (before, after)."""

    phases: tuple[tuple[str, float], ...] = ()
    """(name, seconds) in order."""
    bytes: tuple[int, int] | None = None
    parameters: tuple[int, int] | None = None
    images_per_second: tuple[float, float] | None = None
    memory_bytes: int | None = None
    """What is kept about the old classes for the next extension."""


@dataclass(frozen=True)
class Promise:
    """What is said to hold, what was measured, and on how many of which images."""

    claim: str
    measured: str
    n: int
    images: str
    held: bool | None = None
    """None: measured, but nothing was promised."""


@dataclass(frozen=True)
class Report:
    """All that the page shows. What is empty or None does not appear."""

    title: str
    model: str
    method: str
    why: str
    """One sentence: why this method."""
    date: str
    versions: tuple[str, ...] = ()
    machine: str = ""
    warnings: tuple[str, ...] = ()
    results: tuple[Result, ...] = ()
    interval: str = ""
    """What the ± of the results means, a sentence."""
    curves: tuple[Curve, ...] = ()
    old_classes: tuple[ClassResult, ...] = ()
    new_classes: tuple[ClassResult, ...] = ()
    confusion: Confusion | None = None
    pairs: tuple[Pair, ...] = ()
    cost: Cost | None = None
    promises: tuple[Promise, ...] = ()
    command: str = ""
    seed: int | None = None
    provenance: tuple[tuple[str, str], ...] = ()
    """Further (name, value) lines, fingerprints for instance."""


def render(report: Report) -> str:
    """The page as text, to be written as UTF-8."""
    page = ENVIRONMENT.get_template("page.html.jinja").render(
        report=report,
        chosen=next((row for row in report.results if row.role == "chosen"), None),
        before=next((row for row in report.results if row.role == "before"), None),
        window=_window(report.curves),
        groups=[group for group in (_group("old", report.old_classes), _group("new", report.new_classes)) if group],
        confusion=report.confusion and _folded(report.confusion),
        fate=report.confusion and _fate(report.confusion),
    )
    return without_controls(page)


def without_controls(page: str) -> str:
    """Names of files may hold control characters and halves of surrogate pairs, which neither XML nor UTF-8 can carry."""
    return re.sub("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]", "\ufffd", page)


@dataclass(frozen=True)
class _Group:
    """The old or the new classes as shown."""

    kind: str
    count: int
    empty: int
    """Classes without a test image."""
    changes: tuple[float, ...]
    """After less before, where both are known; in points / 100."""
    rows: tuple[ClassResult, ...]
    """Those that were tested, the most lost or the weakest first."""
    marks: tuple[float, ...]
    """Ticks of the axis of the lines."""

    @property
    def named(self) -> tuple[ClassResult, ...]:
        """The classes that get a line each; of many, those that changed, if it is told which did."""
        if len(self.rows) <= LISTED:
            return self.rows
        if not self.changes:
            return self.rows[:NAMED]
        changed = [row for row in self.rows if _change(row)]
        return tuple(sorted(changed, key=lambda row: -abs(_change(row) or 0.0))[:NAMED])

    @property
    def median(self) -> float:
        return statistics.median(self.changes)


def _change(row: ClassResult) -> float | None:
    return None if row.after is None or row.before is None else round(row.after - row.before, 9)


def _group(kind: str, classes: Sequence[ClassResult]) -> _Group | None:
    tested = [row for row in classes if row.n and row.after is not None]
    if not tested:
        return None
    changes = tuple(change for row in tested if (change := _change(row)) is not None)
    rows = sorted(tested, key=lambda row: (_change(row) or 0.0, row.after))
    # Dots may start anywhere, bars only at zero.
    lowest = min(min(row.after or 0.0, row.before or 0.0) for row in tested) if len(changes) == len(tested) else 0.0
    marks = tuple(plots.ticks(lowest, 1.0))
    return _Group(kind, len(classes), len(classes) - len(tested), changes, tuple(rows), marks)


def _window(curves: Sequence[Curve]) -> plots.Window | None:
    """The part of the trade plot worth a second look, enlarged; None where it is most of the plot."""
    if not curves:
        return None
    top = max(plots.harmonic(curve.best) for curve in curves)
    near = [curve for curve in curves if plots.harmonic(curve.best) > top - 0.15]
    points = [curve.best for curve in near] + [curve.achieved for curve in curves[:1] if curve.achieved]
    sides = []
    for values in zip(*points, strict=True):
        pad = max(0.04, 0.3 * (max(values) - min(values)))
        sides.append((max(0.0, min(values) - pad), min(1.0, max(values) + pad)))
    (left, right), (low, high) = sides
    return ((left, right), (low, high)) if max(right - left, high - low) < 0.5 else None


def _folded(confusion: Confusion) -> tuple[Tensor, list[str], int]:
    """Counts (G, G) as drawn, the G names and how many of them are old.

    Whole up to `DRAWN` classes; beyond, the classes most involved with the other side and all others as one.
    """
    true, answer, images = _listed(confusion)
    total, old = len(confusion.names), len(confusion.names) - confusion.new

    def of_each(images: Tensor) -> Tensor:
        """(K,): images of each class and images taken for it."""
        none = torch.zeros(total, dtype=torch.float64)
        return none.index_add_(0, true, images.double()).index_add_(0, answer, images.double())

    mistakes = of_each(images * (true != answer))
    involved = of_each(images * ((true < old) != (answer < old))) + mistakes / (mistakes.max() + 1)
    keep_new = confusion.new if total <= DRAWN else min(confusion.new, 16)
    keep_old = old if total <= DRAWN else 28 - keep_new
    parts = [
        _apart(involved[:old], 0, keep_old, "other old"),
        _apart(involved[old:], old, keep_new, "other new"),
    ]
    groups = [group for part in parts for group in part]
    group = torch.zeros(total, dtype=torch.int64)
    for g, (_, indices) in enumerate(groups):
        group[indices] = g
    names = [rest or confusion.names[indices[0]] for rest, indices in groups]
    counts = torch.zeros(len(groups), len(groups), dtype=torch.float64)
    return counts.index_put_((group[true], group[answer]), images.double(), accumulate=True), names, len(parts[0])


def _listed(confusion: Confusion) -> tuple[Tensor, Tensor, Tensor]:
    """(M,) each: truth, answer and images of every pair that there is; a full matrix of many classes takes gigabytes."""
    counts = confusion.counts.cpu().to_sparse().coalesce()
    return *counts.indices(), counts.values()


def _apart(score: Tensor, first: int, keep: int, rest: str) -> list[tuple[str, list[int]]]:
    """(name or "", class indices) of groups: the `keep` highest scores alone in head order, then the rest as one."""
    top = sorted(score.argsort(descending=True, stable=True)[:keep].tolist())
    others = sorted(set(range(len(score))) - set(top))
    alone: list[tuple[str, list[int]]] = [("", [first + k]) for k in top]
    return alone + ([(f"{rest} ({len(others):,})", [first + k for k in others])] if others else [])


def _fate(confusion: Confusion) -> list[tuple[str, list[int], int]]:
    """(side, [right, wrong among old, wrong among new], images) for the sides old and new that have images."""
    true, answer, images = _listed(confusion)
    old = len(confusion.names) - confusion.new
    fates = []
    for side, here in (("old", true < old), ("new", true >= old)):
        right = int(images[here & (true == answer)].sum())
        to_old, to_new = (int(images[here & there].sum()) for there in (answer < old, answer >= old))
        wrong = [to_old - right, to_new] if side == "old" else [to_old, to_new - right]
        if to_old + to_new:
            fates.append((side, [right, *wrong], to_old + to_new))
    return fates


def _percent(value: float | None) -> str:
    """87.3, or a dash where nothing was measured."""
    return "–" if value is None or math.isnan(value) else f"{100 * value:.1f}"


def _points(value: float | None) -> str:
    """A signed difference in points: +0.4, −1.2, 0.0."""
    if value is None or math.isnan(value):
        return "–"
    text = f"{100 * value:+.1f}".replace("-", "−")
    return "0.0" if text[1:] == "0.0" else text


def _size(count: float) -> str:
    """Bytes in decimal units: 812 B, 13.6 MB."""
    for unit in ("B", "kB", "MB", "GB"):
        if count < 999.5 or unit == "GB":
            break
        count /= 1000
    return f"{count:.0f} {unit}" if unit == "B" or count >= 99.95 else f"{count:.1f} {unit}"


def _duration(seconds: float) -> str:
    """12.3 s, 4 min 05 s, 2 h 07 min."""
    if seconds < 59.95:
        return f"{seconds:.2f} s" if seconds < 0.995 else f"{seconds:.1f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02d} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02d} min"


def _ratio(pair: tuple[float, float]) -> str:
    """After over before: ×1.004."""
    return f"×{round(pair[1] / pair[0], 3):g}" if pair[0] else "–"


def _address(image: Tensor | Image.Image, side: int = 120) -> str:
    """A JPEG of at most `side` pixels as a data address; tiny images grow by whole pixels and stay sharp."""
    if isinstance(image, Tensor):
        _, height, width = image.shape
        pixels = image.permute(1, 2, 0).contiguous().cpu().numpy().tobytes()
        image = Image.frombytes("RGB", (width, height), pixels)
    small = image.convert("RGB")
    small.thumbnail((side, side))
    if (times := side // max(small.size)) > 1:
        small = small.resize((small.width * times, small.height * times), Image.Resampling.NEAREST)
    stream = io.BytesIO()
    small.save(stream, "JPEG", quality=82)
    return "data:image/jpeg;base64," + base64.b64encode(stream.getvalue()).decode()


ENVIRONMENT = Environment(
    loader=PackageLoader("classgraft.report", ""),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)
ENVIRONMENT.filters |= {
    "percent": _percent,
    "points": _points,
    "count": "{:,}".format,
    "size": _size,
    "duration": _duration,
    "ratio": _ratio,
    "address": _address,
    "change": _change,
    "harmonic": plots.harmonic,
    "colour": plots.colour,
}
ENVIRONMENT.globals["plots"] = plots
