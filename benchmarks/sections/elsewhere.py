"""Boxes, masks and points."""

from __future__ import annotations

from typing import Any

from sections.writing import basis, gains, grid, over


def tested_by(rows: list[dict[str, Any]], name: str, key: str, value: int) -> list[dict[str, Any]]:
    """Test scores by seed of the rows of this name for which ``key`` has this value."""
    return [{"seed": row["seed"], **row["test"]} for row in rows if (row["name"], row[key]) == (name, value)]


def cells(found: dict[str, Any]) -> str:
    """Filled by benchmarks/bccd.py."""
    if "bccd" not in found:
        return ""
    result, sections = found["bccd"], []
    looked = ("train", "held out", "test")
    students = [row for row in result["rows"] if row["part"] == "distill"]
    if students:
        lines = []
        for name in dict.fromkeys(row["name"] for row in students):
            draws = [row for row in students if row["name"] == name]
            values = [over([row[part] for row in draws], "all") for part in looked]
            ours, plain = ([{"seed": row["seed"], "test": row["test"]["all"]} for row in rows]
                           for rows in (draws, [row for row in students if row["name"] == "labels alone"]))  # fmt: skip
            gain = "" if name in ("the teacher", "labels alone") else gains(ours, plain, "test")
            lines.append([name, f"{draws[0]['parameters']:,}", *values, gain, str(len(draws))])
        head = ["student learns from", "parameters", *looked, "test, over labels alone", "seeds"]
        sections.append(f"### Narrow detectors\n\nMean average precision at an overlap of 0.5.\n\n{grid(head, lines)}")
    rows = [row for row in result["rows"] if row["part"] == "graft"]
    if rows:
        lines = []
        for name, shots in sorted(dict.fromkeys((row["name"], row["shots"]) for row in rows), key=lambda key: key[1]):
            tested = [row["test"] for row in rows if (row["name"], row["shots"]) == (name, shots)]
            for draw in tested:
                draw["harmonic"] = 2 * draw["old"] * draw["new"] / max(draw["old"] + draw["new"], 1e-9)
            values = [over(tested, key) for key in ("before", "old", "new", "harmonic", "proposed")]
            ours, rivals = (tested_by(rows, one, "shots", shots) for one in (name, "rows"))
            gain = "" if name == "rows" or not shots else gains(ours, rivals, "harmonic")
            lines.append([name, str(shots) if shots else "all", *values, gain, str(len(tested))])
        head = ["method", "images", "old before", "old", "new", "harmonic", "proposed", "harmonic, over rows", "seeds"]
        sections.append(
            "### Platelets grafted onto a detector of the other cells\n\nAverage precision at an overlap of 0.5 on test;"
            f" proposed is the share of Platelets that the first stage proposes at all.\n\n{grid(head, lines)}"
        )
    return f"## Blood cells\n\n{result['what']}\n\n" + "\n\n".join(sections) + f"\n\n{basis(result)}"


def streets(found: dict[str, Any]) -> str:
    """Filled by benchmarks/camvid.py."""
    if "camvid" not in found:
        return ""
    result, lines = found["camvid"], []
    for student, method in dict.fromkeys((row["student"], row["method"]) for row in result["rows"]):
        draws = [row for row in result["rows"] if (row["student"], row["method"]) == (student, method)]
        size = f"{draws[0]['parameters']:,}"
        plain = [row for row in result["rows"] if (row["student"], row["method"]) == (student, "plain")]
        gain = "" if method in ("teacher", "plain") else gains(draws, plain, "test")
        values = [over(draws, "train"), over(draws, "test"), gain, over(draws, "pixels")]
        lines.append([method, student, size, *values, str(len(draws))])
    head = ["method", "student", "parameters", "mIoU train", "mIoU test", "over plain", "test pixels right", "seeds"]
    return f"## Labels for every pixel, distilled\n\n{result['what']}\n\n{grid(head, lines)}\n\n{basis(result)}"


def faces(found: dict[str, Any]) -> str:
    """Filled by benchmarks/faces.py."""
    if "faces" not in found:
        return ""
    result, sections = found["faces"], []
    regions = ("all", "jaw and brows", "nose and eyes", "mouth")
    titles = {"experts": "Experts of parts", "data": "Unlabelled faces", "video": "Frames of a video"}
    for part, title in titles.items():
        rows, lines = [row for row in result["rows"] if row["part"] == part], []
        for name, times in dict.fromkeys((row["name"], row["times"]) for row in rows):
            draws = [row for row in rows if (row["name"], row["times"]) == (name, times)]
            tested = [row["test"] for row in draws]
            against = {"experts": "annotations alone", "data": "one look", "video": "pose alone"}[part]
            ours, rivals = (tested_by(rows, one, "times", times) for one in (name, against))
            gain = "" if name == against or not rivals else gains(ours, rivals, "all")
            if part == "experts":
                more = [*(over(tested, region) for region in regions), gain, over(draws, "kept")]
            elif part == "data":
                more = [str(times or ""), over(tested, "all"), gain, over(draws, "labels")]
            else:
                worse = [over([row[kind] for row in draws], "all") for kind in ("blurred", "occluded")]
                more = [over(tested, "all"), gain, *worse, over(draws, "motion"), over(draws, "kept")]
            lines.append([name, *more, str(len(draws))])
        head = {"experts": ["learns from", *regions, "over annotations alone", "kept"],
                "data": ["learns from", "times the schedule", "error", "over one look", "labels"],
                "video": ["", "as they are", "over pose alone", "blurred", "occluded", "motion", "kept"]}[part]  # fmt: skip
        if lines:
            sections.append(f"### {title}\n\n{grid([*head, 'seeds'], lines)}")
    figure = "![Points of six looks brought back, of all together, and the truth](faces-looks.png)"
    drawn = any((row["name"], row["times"], row["seed"]) == ("six looks", 1, 0) for row in result["rows"])
    return "\n\n".join([f"## Points of faces\n\n{result['what']}", *sections, *[figure] * drawn, basis(result)])
