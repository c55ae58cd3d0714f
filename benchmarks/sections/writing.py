"""What the sections share: tables in Markdown, means with their intervals, and what a file says of itself."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

from classgraft.metrics.intervals import student_interval


def grid(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def over(draws: Sequence[dict[str, Any]], key: str) -> str:
    return spread([draw[key] for draw in draws if key in draw])


def spread(values: Sequence[float]) -> str:
    """Mean and half-width of the interval, with one digit; a single value has no interval."""
    if not values:
        return "-"
    mean, half = student_interval(values)
    return f"{mean:.1f}" if half != half else f"{mean:.1f} ± {half:.1f}"


def above(draws: Sequence[dict[str, Any]], plain: Sequence[dict[str, Any]], key: str) -> list[float]:
    """By how much each draw is above the plain one of its seed; both hold ``seed`` and ``key``."""
    of_seed = {row["seed"]: row[key] for row in plain}
    return [row[key] - of_seed[row["seed"]] for row in draws if row["seed"] in of_seed]


def gains(draws: Sequence[dict[str, Any]], plain: Sequence[dict[str, Any]], key: str) -> str:
    return spread(above(draws, plain, key))


def verdict(rival: str, found: dict[str, list[float]]) -> str:
    """Which differences from the rival (of ``above``) are larger than their interval, and which are not, as a sentence."""
    split = {name: student_interval(values) for name, values in found.items() if values}
    groups: dict[str, list[str]] = {"more": [], "noise": [], "single": []}
    for name, (mean, half) in split.items():
        groups["single" if half != half else "more" if abs(mean) > half else "noise"].append(f"*{name}*")
    if split and len(groups["single"]) == len(split):
        return "every row is of one seed, which says nothing of noise"
    words = {
        "more": f"{{}} {{is}} away from *{rival}* by more than the interval",
        "noise": f"{{}} {{is}} within noise of *{rival}*",
        "single": "{} {is} of one seed, which says nothing of noise",
    }
    said = [
        words[kind].format(_listed(own), **{"is": "are" if len(own) > 1 else "is"})
        for kind, own in groups.items()
        if own
    ]
    return "; ".join(said)


def _listed(names: Sequence[str]) -> str:
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def of_parts(what: str, names: Sequence[str]) -> dict[str, str]:
    """What a file says of all its rows, under "", and of each part that it names as in "``graft``: a base of ..."."""
    general, *rest = re.split(rf"``({'|'.join(names)})``[:,] ", what)
    told = zip(rest[::2], rest[1::2], strict=True)
    return {"": general.strip(), **{name: text[0].upper() + text[1:].rstrip() for name, text in told}}


def basis(result: dict[str, Any]) -> str:
    machine, versions = result["machine"], result["versions"]
    where = machine.get("gpu") or f"{processors(result)}, {machine['cores']} cores"
    return f"{where}; " + ", ".join(f"{name} {version}" for name, version in versions.items()) + f"; {result['date']}."


def processors(result: dict[str, Any]) -> str:
    """Of all rows, for a table is filled over days on more than one machine."""
    own, rows = result["machine"]["cpu"], result.get("rows")
    rows = [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
    return " and ".join(sorted({row.get("cpu", own) for row in rows} or {own}))
