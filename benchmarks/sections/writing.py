"""What the sections share: tables in Markdown, means with their intervals, and what a file says of itself."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from classgraft.metrics.intervals import student_interval


def grid(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def over(draws: Sequence[dict[str, Any]], key: str) -> str:
    values = [draw[key] for draw in draws if key in draw]
    if not values:
        return "-"
    mean, half = student_interval(values)
    return f"{mean:.1f}" if half != half else f"{mean:.1f} ± {half:.1f}"


def gains(draws: Sequence[dict[str, Any]], plain: Sequence[dict[str, Any]], key: str) -> str:
    """By how much each draw is above the plain one of its seed; both hold ``seed`` and ``key``."""
    of_seed = {row["seed"]: row[key] for row in plain}
    return over([{key: row[key] - of_seed[row["seed"]]} for row in draws if row["seed"] in of_seed], key)


def basis(result: dict[str, Any]) -> str:
    machine, versions = result["machine"], result["versions"]
    where = machine.get("gpu") or f"{processors(result)}, {machine['cores']} cores"
    return f"{where}; " + ", ".join(f"{name} {version}" for name, version in versions.items()) + f"; {result['date']}."


def processors(result: dict[str, Any]) -> str:
    """Of all rows, for a table is filled over days on more than one machine."""
    own, rows = result["machine"]["cpu"], result.get("rows")
    rows = [row for row in rows if isinstance(row, dict)] if isinstance(rows, list) else []
    return " and ".join(sorted({row.get("cpu", own) for row in rows} or {own}))
