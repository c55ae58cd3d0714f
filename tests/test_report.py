"""The report page: well-formed, self-contained, unmoved by hostile names, and true to the numbers it was given."""

from __future__ import annotations

import base64
import io
import itertools
import re
import xml.etree.ElementTree as ET
from dataclasses import replace
from html.parser import HTMLParser
from typing import Any

import pytest
import torch
from PIL import Image

from classgraft.report import page, plots
from classgraft.report.page import (
    ClassResult,
    Confusion,
    Cost,
    Curve,
    Pair,
    Picture,
    Promise,
    Report,
    Result,
    render,
)

HOSTILE = (
    "<script>alert(1)</script>",
    "a\"b'c/d\\e &amp; {{ 7 * 7 }} {% raw %}",
    "🌺🌼👩‍🌾",
    "زهرة اللوتس الكبيرة في الحديقة الخلفية",
    "turned \u202eround",
    "x" * 300,
    "一个非常长的名字一个非常长的名字一个非常长的名字",
    "</svg></style></title>--> ]]>",
    '" onload="alert(1)',
    "two\nlines",
)
VOID = {"meta", "link", "img"}


class Page(HTMLParser):
    """Reads a page and fails on any element that is not closed in order."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words = ""
        self.feed(text)
        self.close()
        assert not self.open
        self.sections = [attributes["id"] for tag, attributes in self.elements if tag == "section"]
        # Nested drawings belong to their plot, so the outermost ends are counted out.
        self.svgs, depth = [], 0
        for mark in re.finditer(r"<svg\b|</svg>", text):
            depth += -1 if mark[0] == "</svg>" else 1
            if mark[0] != "</svg>" and depth == 1:
                start = mark.start()
            elif depth == 0:
                self.svgs.append(ET.fromstring(text[start : mark.end()]))

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] != "style":
            self.words += data if data.strip() else " "


def report(old: int, new: int, names: tuple[str, ...] = ()) -> Report:
    """A report with every part, about `old` + `new` classes of 20 images each."""
    names = names or tuple(f"class {k}" for k in range(old + new))
    draw = torch.Generator().manual_seed(0)
    counts = torch.randint(0, 3, (old + new, old + new), generator=draw) * (
        torch.rand(old + new, old + new, generator=draw) < 5 / (old + new)
    )
    counts += 15 * torch.eye(old + new, dtype=torch.int64)
    picture = Picture(torch.randint(0, 256, (3, 28, 28), generator=draw, dtype=torch.uint8), names[-1])
    steps = [k / 50 for k in range(51)]
    return Report(
        title="A graft",
        model=names[0],
        method="glne",
        why="It was best on held-out images.",
        date="2026-11-20",
        versions=("classgraft 0.1.0",),
        machine="2 cores",
        warnings=("5 corrupt images were skipped.",),
        results=(
            Result("before", 0.8765, None, None, 0.8765, (20 * old, 0), "before"),
            Result(
                names[-1], 0.8614, 0.9123, 0.8861, 0.8699, (20 * old, 20 * new), "chosen", "", (0.01, None, 0.02, 0.01)
            ),
            Result("finetune", 0.05, 0.99, 0.0952, 0.1, (20 * old, 20 * new), "control", "forgets"),
        ),
        interval="± is the 95 % interval.",
        curves=(Curve(names[0], tuple((x, (1 - x**4) ** 0.25) for x in steps), (0.8614, 0.8123), 0.9271, 0.0123),),
        old_classes=tuple(ClassResult(name, 20, k % 7 / 10, k % 5 / 10) for k, name in enumerate(names[:old])),
        new_classes=tuple(ClassResult(name, 20, 0.5 + k % 5 / 10) for k, name in enumerate(names[old:])),
        confusion=Confusion(counts, names, new),
        pairs=(Pair(names[0], names[-1], 7, 0.35, (picture,) * 4), Pair(names[-1], names[0], 2, 0.1)),
        cost=Cost((("read", 0.5), (names[0], 71.0)), (14_012_320, 28_024_640), (1000, 1004), (400.4, 200.2), 1_310_720),
        promises=(Promise("old logits keep their bits", "largest difference 0", 1000, "probe images", True),),
        command=f"classgraft extend base/ {names[0]}",
        seed=1993,
        provenance=(("weights", "sha256 95798"),),
    )


def bare() -> Report:
    return Report("A graft", "resnet20", "glne", "", "2026-11-20")


@pytest.mark.parametrize(("old", "new"), [(1, 1), (8, 2), (38, 2), (39, 2), (5, 60), (1000, 10)])
def test_any_number_of_classes_gives_a_well_formed_page(old: int, new: int) -> None:
    text = render(report(old, new))
    read = Page(text)
    assert read.sections == ["result", "trade", "classes", "confusion", "cost", "promises", "provenance"]
    assert len(read.svgs) > 5
    assert all(svg.find("title") is not None for svg in read.svgs)
    assert len(text.encode()) < 1_500_000
    assert all(f"class {k}" in text for k in range(old + new))


def test_the_page_loads_nothing() -> None:
    text = render(report(8, 2))
    for _, attributes in Page(text).elements:
        for key in ("src", "href", "srcset", "data", "action", "xlink:href"):
            assert (attributes.get(key) or "data:").startswith("data:")
    assert not re.search(r"https?://|@import|url\(|<script", text)
    assert "default-src 'none'" in text


def test_hostile_names_stay_text() -> None:
    read = Page(render(report(8, 2, HOSTILE)))
    tags = {tag for tag, _ in read.elements}
    assert "script" not in tags
    assert not any(key.startswith("on") for _, attributes in read.elements for key in attributes)
    assert all(name in read.words for name in HOSTILE)
    plain = Page(render(report(8, 2)))
    assert [tag for tag, _ in read.elements] == [tag for tag, _ in plain.elements]
    assert all(attributes.get("alt") for tag, attributes in read.elements if tag == "img")


def test_names_that_no_encoding_carries_are_replaced() -> None:
    names = ("nul\x00", "half \ud800 a pair", "bell\x07")
    text = render(report(2, 1, names))
    Page(text)
    assert "nul\ufffd" in text
    assert text.encode("utf-8")


def test_long_names_are_cut_but_kept_in_the_title() -> None:
    name = "宽" * 40
    (svg, *_) = [
        svg for svg in Page(render(report(1, 1, (name, "b")))).svgs if "Confusion" in (svg.findtext("title") or "")
    ]
    labels = [text for text in svg.iter("text") if text.findtext("title") == name]
    assert len(labels) == 2
    assert all(label.text == "宽" * 11 + "…" for label in labels)


def test_a_bare_report_has_a_header_and_no_holes() -> None:
    text = render(bare())
    read = Page(text)
    assert read.sections == []
    assert not {"table", "svg", "ul", "dl", "h2", "pre"} & {tag for tag, _ in read.elements}
    assert "None" not in read.words


@pytest.mark.parametrize(
    ("section", "fields"),
    [
        ("result", ["results"]),
        ("trade", ["curves"]),
        ("classes", ["old_classes"]),
        ("classes", ["new_classes"]),
        ("confusion", ["confusion"]),
        ("confusion", ["pairs"]),
        ("cost", ["cost"]),
        ("promises", ["promises"]),
        ("provenance", ["command"]),
        ("provenance", ["seed"]),
        ("provenance", ["provenance"]),
    ],
)
def test_each_part_stands_alone_and_vanishes_alone(section: str, fields: list[str]) -> None:
    full, empty = report(3, 2), bare()
    given: dict[str, Any] = {field: getattr(full, field) for field in fields}
    assert Page(render(replace(empty, **given))).sections == [section]
    partners = {"classes": ["old_classes", "new_classes"], "confusion": ["confusion", "pairs"]}
    partners["provenance"] = ["command", "seed", "provenance"]
    gone: dict[str, Any] = {field: getattr(empty, field) for field in partners.get(section, fields)}
    assert section not in Page(render(replace(full, **gone))).sections


def test_seed_zero_and_partial_costs_are_shown() -> None:
    assert Page(render(replace(bare(), seed=0))).sections == ["provenance"]
    words = Page(render(replace(bare(), cost=Cost(memory_bytes=0)))).words
    assert "0 B" in words
    assert "before" not in words


def test_figures_appear_with_the_right_rounding() -> None:
    words = " ".join(Page(render(report(8, 2))).words.split())
    for figure in (
        "87.6", "86.1 ± 1.0", "91.2", "88.6 ± 2.0", "87.0 ± 1.0", "160 + 40", "−1.5 points since before",  # headline
        "area under the curve is 92.7 %", "achieved 86.1 old and 81.2 new", "regret: 1.2 points",  # trade
        "1 min 11 s", "0.50 s", "1 min 12 s", "14.0 MB", "28.0 MB", "×2", "×1.004", "×0.5", "1.3 MB", "400",  # cost
        "35.0", "1,000 probe images", "✓ holds", "1993",
    ):  # fmt: skip
        assert figure in words, figure


def test_an_average_always_has_old_new_and_harmonic_beside_it() -> None:
    rows = re.findall(r"<tr class=\"(?:before|chosen|control)\">.*?</tr>", render(report(8, 2)), re.S)
    assert len(rows) == 3
    assert all(len(re.findall(r'<td class="number">', row)) == 5 for row in rows)


def test_class_summary_counts_losses_gains_and_the_untested() -> None:
    classes = (
        ClassResult("a", 10, 0.5, 0.7),
        ClassResult("b", 10, 0.3, 0.1 + 0.2),
        ClassResult("c", 10, 0.9, 0.8),
        ClassResult("d", 0, None, None),
    )
    words = " ".join(Page(render(replace(bare(), old_classes=classes))).words.split())
    assert "1 lost, 1 gained, 1 stayed the same; median change 0.0 points, from −20.0 to +10.0." in words
    assert "1 without a test image is left out." in words


def test_many_classes_name_the_most_changed() -> None:
    classes = tuple(ClassResult(f"class {k}", 100, 0.5 + (k - 20) / 100, 0.5) for k in range(60))
    text = render(replace(bare(), old_classes=classes))
    first = re.findall(r'<bdi class="name" title="([^"]+)">', text)
    assert first == [f"class {k}" for k in range(59, 44, -1)]
    assert "All 60 old classes" in text


def test_of_many_classes_those_that_stayed_the_same_get_no_line() -> None:
    for moved in (0, 2):
        classes = tuple(ClassResult(f"class {k}", 10, 0.5, 0.6 if k < moved else 0.5) for k in range(60))
        text = render(replace(bare(), old_classes=classes))
        assert re.findall(r'<bdi class="name" title="([^"]+)">', text) == [f"class {k}" for k in range(moved)]
        assert ("The 2 most changed" in text, "most changed" in text) == (bool(moved), bool(moved))
        assert f"{60 - moved} stayed the same" in " ".join(Page(text).words.split())
        assert "All 60 old classes" in text


def test_folding_keeps_every_image_and_the_classes_mistaken_across_the_line() -> None:
    counts = 5 * torch.eye(100, dtype=torch.int64)
    counts[70, 97], counts[98, 3] = 4, 2
    counts[20:60, 19] += 9
    names = tuple(map(str, range(100)))
    for given in (counts, counts.to_sparse()):
        drawn, shown, old = page._folded(Confusion(given, names, 4))
        assert drawn.sum() == counts.sum()
        assert {"70", "3", "19"} <= set(shown[:old])
        assert shown[old - 1] == "other old (72)"
        assert shown[old:] == ["96", "97", "98", "99"]
        assert drawn[shown.index("70"), shown.index("97")] == 4
    assert page._fate(Confusion(counts, names, 4)) == [("old", [480, 360, 4], 844), ("new", [20, 2, 0], 22)]


def test_many_classes_take_no_matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    places = torch.tensor([[3, 3, 21_840], [3, 21_840, 21_840]])
    counts = torch.sparse_coo_tensor(places, torch.tensor([5, 1, 2]), (21_841, 21_841), check_invariants=True)
    monkeypatch.setattr(torch.Tensor, "to_dense", None)  # 3.8 GB
    given = Confusion(counts, tuple(map(str, range(21_841))), 1)
    drawn, shown, old = page._folded(given)
    assert ("3" in shown[:old], shown[old:], drawn.sum()) == (True, ["21840"], 8)
    assert drawn[shown.index("3"), -1] == 1
    assert page._fate(given) == [("old", [5, 0, 1], 6), ("new", [2, 0, 0], 2)]


def test_small_confusions_are_drawn_whole() -> None:
    counts = torch.arange(9).view(3, 3)
    drawn, names, old = page._folded(Confusion(counts, ("a", "b", "c"), 0))
    assert drawn.tolist() == counts.tolist()
    assert (names, old) == (["a", "b", "c"], 3)


@pytest.mark.parametrize(
    ("image", "size"),
    [
        (torch.tensor([255, 0, 0], dtype=torch.uint8).view(3, 1, 1).expand(3, 28, 14), (56, 112)),
        (Image.new("RGBA", (300, 600), (255, 0, 0, 255)), (60, 120)),
        (Image.new("P", (64, 64), 0), (64, 64)),
    ],
)
def test_pictures_become_small_jpegs(image: torch.Tensor | Image.Image, size: tuple[int, int]) -> None:
    head, data = page._address(image).split(",")
    small = Image.open(io.BytesIO(base64.b64decode(data)))
    assert (head, small.format, small.size) == ("data:image/jpeg;base64", "JPEG", size)
    if not (isinstance(image, Image.Image) and image.mode == "P"):
        red, green, blue = small.convert("RGB").getpixel((5, 5))  # type: ignore[misc]
        assert red > 240 > 20 > max(green, blue)


def test_durations_and_sizes_carry_over_at_their_edges() -> None:
    assert [page._duration(t) for t in (0.0, 0.994, 59.94, 59.96, 3599.6, 7620)] == [
        "0.00 s", "0.99 s", "59.9 s", "1 min 00 s", "1 h 00 min", "2 h 07 min",
    ]  # fmt: skip
    assert [page._size(n) for n in (0, 999, 1000, 99_960, 999_600, 5e12)] == [
        "0 B", "999 B", "1.0 kB", "100 kB", "1.0 MB", "5000 GB",
    ]  # fmt: skip
    assert [page._points(x) for x in (0.0041, -0.0041, -0.0004, float("nan"), None)] == [
        "+0.4",
        "−0.4",
        "0.0",
        "–",
        "–",
    ]


@pytest.mark.parametrize(("low", "high"), [(0, 1), (0.5, 0.5), (-0.02, 0.013), (0.93, 0.931), (0, 1010), (-1, 0)])
def test_ticks_are_even_round_and_enclose(low: float, high: float) -> None:
    marks = plots.ticks(low, high)
    steps = {round(b - a, 9) for a, b in itertools.pairwise(marks)}
    assert marks[0] <= low <= high <= marks[-1]
    assert 2 <= len(marks) <= 9
    assert len(steps) == 1
    assert f"{steps.pop():e}"[0] in "125"


def test_the_best_point_of_a_curve_has_the_highest_harmonic_mean() -> None:
    curve = Curve("a", ((0.0, 1.0), (0.9, 0.1), (0.5, 0.7), (0.6, 0.6), (1.0, 0.0)))
    assert curve.best == (0.6, 0.6)
    assert plots.harmonic((0.0, 0.0)) == 0


def test_a_long_sweep_stays_small_and_marks_sit_where_the_axes_say() -> None:
    points = tuple((k / 100_000, 1 - k / 100_000) for k in range(100_001))
    svg = ET.fromstring(plots.trade([Curve("a", points, (0.25, 0.75))]))
    assert len(ET.tostring(svg)) < 20_000
    box = svg.find("svg")
    dot = next(mark for mark in svg.iter("circle"))
    assert box is not None
    assert float(dot.get("cx", 0)) == pytest.approx(float(box.get("x", 0)) + 0.25 * float(box.get("width", 0)), abs=0.1)
    assert float(dot.get("cy", 0)) == pytest.approx(
        float(box.get("y", 0)) + 0.25 * float(box.get("height", 0)), abs=0.1
    )
    assert "old 25.0 %, new 75.0 %" in (dot.findtext("title") or "")


def test_row_plots_measure_from_the_axis() -> None:
    bar = ET.fromstring(plots.bar(0.25, "new", (0.0, 0.5, 1.0))).find("rect")
    ends = ET.fromstring(plots.change(0.95, 0.92, (0.9, 0.95, 1.0))).findall("circle")
    assert bar is not None
    assert bar.get("width") == "25.00%"
    assert [end.get("cx") for end in ends] == ["50.00%", "20.00%"]
    assert "loss" in (ends[1].get("class") or "")


def test_colours_go_round() -> None:
    assert plots.colour(0) == plots.colour(plots.COLOURS) != plots.colour(1)


def test_points_and_their_lines_are_drawn_where_they_belong() -> None:
    x, y = ({tick: f"{tick:g}" for tick in (0.0, 1.0)} for _ in range(2))
    series = [(name, [(0.0, 0.0), (1.0, 1.0)], ((0.0, 0.0), (1.0, 1.0))) for name in HOSTILE]
    svg = ET.fromstring(plots.lines(series, "title", x, y, ("over", "up")))
    dots = [node for node in svg if node.tag == "circle"]
    assert len(dots) == 3 * len(HOSTILE)  # two points and a key each
    first, second = dots[0].attrib, dots[1].attrib
    assert float(first["cx"]) < float(second["cx"])
    assert float(first["cy"]) > float(second["cy"])  # pixels count downwards
    found = [node.attrib["points"].split() for node in svg.iter("polyline")]
    assert {len(points) for points in found} == {2}


def test_groups_of_points_are_marked_where_they_lie_each_in_its_own_way() -> None:
    groups = [(f"group {k}", [(float(k), 2.0), (0.0, 0.0)]) for k in range(8)]
    svg = ET.fromstring(plots.scatter(groups, "title", ("across", "up")))
    marks = [mark for mark in svg.iter("path") if mark.get("class", "").startswith("dot")]
    assert len(marks) == 8 * 3
    looks = {(mark.get("class"), mark.get("d", "").partition("m")[2]) for mark in marks}
    assert len(looks) == 8  # six colours, then another shape
    texts = [text.text for text in svg.iter("text")]
    assert all(name in texts for name, _ in groups)
    ends = [mark.get("d", "").partition("m")[0] for mark in marks[1::3]]
    assert len(set(ends)) == 1  # all at (0, 0)
