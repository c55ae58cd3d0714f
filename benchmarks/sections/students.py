"""Smaller networks that learn from larger ones."""

from __future__ import annotations

from typing import Any

from sections.writing import basis, grid, over

MISSING = ("threes before", "threes at 0.01", "corrected at 0.01", "threes at 0.03", "corrected at 0.03")
PARTS = {
    "missing": "MNIST, a student that never saw a 3",
    "temperature": "MNIST, temperatures",
    "depth": "MNIST, thin students, deeper and deeper",
    "cifar": "CIFAR-10",
}


def distillation(found: dict[str, Any]) -> str:
    """Filled by benchmarks/distill.py."""
    if "distill" not in found:
        return ""
    result, sections = found["distill"], []
    for part, title in PARTS.items():
        rows = [row for row in result["rows"] if row["part"] == part]
        if not rows:
            continue
        keys = ("accuracy", *(MISSING if part == "missing" else ()))
        master = rows[0]["teacher"]
        lines = [["teacher", "", f"{master['parameters']:,}", f"{master['accuracy']:.1f}", *[""] * (len(keys) - 1)]]
        for student, method in dict.fromkeys((row["student"], row["method"]) for row in rows):
            draws = [row for row in rows if (row["student"], row["method"]) == (student, method)]
            lines.append([method, student, f"{draws[0]['parameters']:,}", *(over(draws, key) for key in keys)])
        head = ["method", "student", "parameters", *keys]
        sections.append(f"### {title}\n\n{rows[0]['n']} test images.\n\n{grid(head, lines)}")
    drawn = any(row["part"] == "temperature" for row in result["rows"])
    figure = "\n\n![Errors over the temperature](temperature.svg)" if drawn else ""
    return f"## Smaller students\n\n{result['what']}\n\n" + "\n\n".join(sections) + figure + f"\n\n{basis(result)}"


def smaller(found: dict[str, Any]) -> str:
    """Filled by benchmarks/smaller.py."""
    if "smaller" not in found:
        return ""
    result, lines = found["smaller"], []
    for part, row in dict.fromkeys((r["part"], r["row"]) for r in result["rows"]):
        draws = [r for r in result["rows"] if (r["part"], r["row"]) == (part, row)]
        values = [over(draws, key) for key in ("old", "new", "harmonic")]
        lines.append([f"{part}: {row}", draws[0]["network"], f"{draws[0]['parameters']:,}", *values, str(len(draws))])
    counts = "; ".join(
        f"{part}: {row['n'][0]:,} old and {row['n'][1]:,} new"
        for part, row in {row["part"]: row for row in result["rows"]}.items()
    )
    return (
        f"## Smaller after an extension\n\n{result['what']} Test images: {counts}.\n\n"
        + grid(["row", "network", "parameters", "old", "new", "harmonic", "seeds"], lines)
        + f"\n\n{basis(result)}"
    )
