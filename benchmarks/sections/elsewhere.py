"""Boxes, masks and points."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

from sections.writing import above, basis, grid, of_parts, over, spread, verdict

Rows = list[dict[str, Any]]


def tested_by(rows: Rows, name: str, key: str, value: int) -> Rows:
    """Test scores by seed of the rows of this name for which ``key`` has this value."""
    return [{"seed": row["seed"], **row["test"]} for row in rows if (row["name"], row[key]) == (name, value)]


def by_base(draws: Rows) -> Rows:
    """Means over the draws of images for each base."""
    seeds: dict[int, Rows] = {}
    for row in draws:
        seeds.setdefault(row["seed"], []).append(row)
    return [{"seed": seed} | {key: sum(row[key] for row in own) / len(own) for key in own[0] if key != "seed"}
            for seed, own in seeds.items()]  # fmt: skip


def where_any(differences: list[float]) -> str:
    return spread(differences) if differences else ""


def cells(found: dict[str, Any]) -> str:
    """Filled by benchmarks/bccd.py."""
    if "bccd" not in found:
        return ""
    result, sections = found["bccd"], []
    words = of_parts(result["what"], ("distill", "graft"))
    looked = ("train", "held out", "test")
    students = [row for row in result["rows"] if row["part"] == "distill"]
    if students:
        lines, differences = [], dict[str, dict[str, list[float]]]()
        for name in dict.fromkeys(row["name"] for row in students):
            draws = [row for row in students if row["name"] == name]
            values = [over([row[part] for row in draws], "all") for part in looked]
            ours, plain = ([{"seed": row["seed"], **{part: row[part]["all"] for part in looked}} for row in rows]
                           for rows in (draws, [row for row in students if row["name"] == "labels alone"]))  # fmt: skip
            bare = name in ("the teacher", "labels alone")
            gain = {part: above(ours, plain, part) for part in ("train", "test")}
            if not bare:
                differences[name] = gain
            shown = [*values, *("" if bare else spread(values) for values in gain.values())]
            lines.append([name, f"{draws[0]['parameters']:,}", *shown, str(len(draws))])
        against = ["train, over labels alone", "test, over labels alone"]
        head = ["student learns from", "parameters", *looked, *against, "seeds"]
        said = [f"On {part} {verdict('labels alone', {name: own[part] for name, own in differences.items()})}."
                for part in ("test", "train")]  # fmt: skip
        sections.append(f"### Narrow detectors\n\n{words['distill']}\n\n{grid(head, lines)}\n\n" + " ".join(said))
    rows = [row for row in result["rows"] if row["part"] == "graft"]
    if rows:
        lines, tested = [], dict[tuple[str, int], dict[tuple[int, int], dict[str, float]]]()
        for row in rows:
            test = {key: row["test"][key] for key in ("before", "old", "new", "proposed") if key in row["test"]}
            test["harmonic"] = 2 * test["old"] * test["new"] / max(test["old"] + test["new"], 1e-9)
            tested.setdefault((row["name"], row["shots"]), {})[row["seed"], row["draw"]] = test
        for (name, shots), own in sorted(tested.items(), key=lambda pair: pair[0][1]):
            bases = by_base([{"seed": seed, **test} for (seed, _), test in own.items()])
            values = [over(bases, key) for key in ("before", "old", "new", "harmonic", "proposed")]
            rivals = tested.get(("rows", shots), {}) if name != "rows" else {}
            paired = [{"seed": key[0], "gain": test["harmonic"] - rivals[key]["harmonic"]}
                      for key, test in own.items() if key in rivals]  # fmt: skip
            over_rows, count = over(by_base(paired), "gain") if paired else "", len({draw for _, draw in own})
            lines.append([name, str(shots) if shots else "all", *values, over_rows, str(count), str(len(bases))])
        head = ["method", "images", "old before", "old", "new", "harmonic", "proposed", "harmonic, over rows"]
        sections.append(
            f"### Platelets grafted onto a detector of the other cells\n\n{words['graft']}\n\nAverage precision on test: means"
            " over the draws of images for each base, ± over bases; over rows, of the same base and draw. Proposed is the share"
            f" of Platelets that are proposed at all.\n\n{grid([*head, 'draws', 'bases'], lines)}"
        )
    return f"## Blood cells\n\n{words['']}\n\n" + "\n\n".join(sections) + f"\n\n{basis(result)}"


def streets(found: dict[str, Any]) -> str:
    """Filled by benchmarks/camvid.py."""
    if "camvid" not in found:
        return ""
    result, lines, terms, differences = found["camvid"], [], [], dict[str, list[float]]()
    of: dict[tuple[str, str], Rows] = {}
    for row in result["rows"]:
        of.setdefault((row["student"], row["method"]), []).append(row)
    for (student, method), draws in sorted(of.items(), key=lambda pair: pair[0][0]):
        size = f"{draws[0]['parameters']:,}"
        plain, earlier = (of.get((student, one), []) for one in ("plain", EARLIER.get(method, "")))
        gain = [] if method in ("teacher", "plain") else above(draws, plain, "test")
        step = spread(above(draws, earlier, "test")) if earlier else ""
        differences[f"{method}, {student}"] = gain
        values = [over(draws, "train"), over(draws, "test"), where_any(gain), step, over(draws, "pixels")]
        lines.append([method, student, size, *values, str(len(draws))])
    widths = list(dict.fromkeys(student for student, _ in of if student))
    for method, before in EARLIER.items():
        if len(widths) > 1 and all((width, one) in of for width in widths for one in (method, before)):
            ours, earlier = ([{**row, "seed": (width, row["seed"])} for width in widths for row in of[width, one]]
                             for one in (method, before))  # fmt: skip
            count = len({row["seed"] for row in ours} & {row["seed"] for row in earlier})
            terms.append([method, before, spread(above(ours, earlier, "test")), str(count)])
    head = ["method", "student", "parameters", "mIoU train", "mIoU test", "over plain", "over the row before"]
    tables = [grid([*head, "test pixels right", "seeds"], lines)]
    if said := verdict("plain", differences):
        tables.append(f"On test {said}.")
    if terms:
        both = "Both widths together, pairs of students of the same width and seed, by mIoU on test:"
        tables += [both, grid(["method", "over", "by", "pairs"], terms)]
    return "\n\n".join(["## Labels for every pixel, distilled", result["what"], *tables, basis(result)])


EARLIER = {"+ pixel": "plain", "+ pair": "+ pixel", "+ holistic": "+ pair"}
"""What each row of CamVid's has a term more than."""


LONG_TEACHER = ", a longer teacher"
"""Rows of faces.py that are compared among themselves."""
FEW = "annotated faces alone"
"""What they are all compared with."""


def faces(found: dict[str, Any]) -> str:
    """Filled by benchmarks/faces.py."""
    if "faces" not in found:
        return ""
    result, sections = found["faces"], []
    regions = ("all", "jaw and brows", "nose and eyes", "mouth")
    words = of_parts(result["what"], ("experts", "data", "video"))
    titles = {"experts": "Experts of parts", "data": "Unlabelled faces", "video": "Frames of a video"}
    for part, title in titles.items():
        rows, lines = [row for row in result["rows"] if row["part"] == part], []
        against = {"experts": "annotations alone", "data": "one look", "video": "pose alone"}[part]
        differences = defaultdict[str, dict[str, list[float]]](dict)
        for name, times in dict.fromkeys((row["name"], row["times"]) for row in rows):
            draws = [row for row in rows if (row["name"], row["times"]) == (name, times)]
            tested = [row["test"] for row in draws]
            rival = against + LONG_TEACHER * name.endswith(LONG_TEACHER)
            ours, rivals = (tested_by(rows, one, "times", times) for one in (name, rival))
            gain = [] if name == rival else above(ours, rivals, "all")
            row = name + f", {times} x" * (times > 0)
            if name != FEW:
                differences[rival][row] = gain
            if part == "experts":
                more = [*(over(tested, region) for region in regions), where_any(gain), over(draws, "kept")]
            elif part == "data":
                alone = tested_by(rows, FEW, "times", times)
                on_alone = [] if not times or ours == alone else above(ours, alone, "all")
                differences[FEW][row] = on_alone
                less = [over(tested, "all"), where_any(on_alone), where_any(gain)]
                more = [str(times or ""), *less, over(draws, "labels")]
            else:
                worse = [over([row[kind] for row in draws], "all") for kind in ("blurred", "occluded")]
                more = [
                    over(tested, "all"),
                    where_any(gain),
                    *worse,
                    *(over(draws, key) for key in ("motion", "places", "kept")),
                ]
            lines.append([name, *more, str(len(draws))])
        head = {"experts": ["learns from", *regions, "over annotations alone", "kept"],
                "data": ["learns from", "times the schedule", "error", "over annotated faces alone", "over one look", "labels"],
                "video": ["", "as they are", "over pose alone", "blurred", "occluded", "motion", "places",
                          "kept"]}[part]  # fmt: skip
        if lines:
            sections.append(f"### {title}\n\n{words[part]}\n\n{grid([*head, 'seeds'], lines)}")
            for rival, each in differences.items():
                if said := verdict(rival, each):
                    of = "Of a longer teacher, by" if rival.endswith(LONG_TEACHER) else "By"
                    sections.append(f"{of} the error of all points {said}.")
        heard = [row["kept"] for row in rows if row["name"] in ("and both", "pose and motion")]
        if heard:
            share, what = sum(heard) / len(heard), "frames" if part == "video" else "points that nobody annotated"
            hardly = ", so that nothing here says what it is good for" if share > 99 else ""
            sections.append(f"The gate, at 0.5, kept {share:.1f} % of the {what}{hardly}.")
    figure = "![Points of six looks brought back, of all together, and the truth](faces-looks.png)"
    drawn = any((row["name"], row["times"], row["seed"]) == ("six looks", 1, 0) for row in result["rows"])
    return "\n\n".join([f"## Points of faces\n\n{words['']}", *sections, *[figure] * drawn, basis(result)])
