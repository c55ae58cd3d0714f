"""Learning from few labels, and from images without any."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from sections.writing import basis, gains, grid, over

NOISED, STILL = "supervised, under the student's noise", "meta pseudo labels, no feedback"
UNLABELLED = [
    "nearest neighbour", "supervised", NOISED, "pseudo-labels", "fixmatch", "student without noise",
    *(f"noisy student, generation {k}" for k in (1, 2, 3)),
    STILL, "meta pseudo labels", "meta pseudo labels, wrong sign", "meta pseudo labels, shuffled",
]  # fmt: skip
"""Rows in the order in which they are read, each after what it is compared with."""


def few(found: dict[str, Any]) -> str:
    """Filled by benchmarks/few.py."""
    sections = []
    for name, title in (("few-cifar10", "CIFAR-10"), ("few-flowers", "Ten flowers, ImageNet body")):
        if name in found and found[name]["rows"]:
            result, lines = found[name], []
            for shots, row in sorted(
                dict.fromkeys((r["shots"], r["row"]) for r in result["rows"]), key=lambda key: key[0]
            ):
                draws, plain = (
                    [r for r in result["rows"] if (r["shots"], r["row"]) == (shots, word)] for word in (row, "plain")
                )
                more = "" if row == "plain" else gains(draws, plain, "top-1")
                lines.append([row, str(shots), over(draws, "top-1"), more, over(draws, "top-5"),
                              _likeness([r["likeness"] for r in draws if "likeness" in r]), str(len(draws))])  # fmt: skip
            head = ["row", "images a class", "top-1", "over plain", "top-5", "likeness in a class, across", "seeds"]
            table = grid(head, lines)
            alike = (result.get("maps") or {}).get("likeness", {})
            drawn = "\n\n".join(
                f"{words}: the points of ten images a class, and pictures on the way from one image of a class to another."
                + (f" Likeness in a class, across classes: {_likeness([alike[kind]])}." if kind in alike else "")
                + f"\n\n![Points]({name}-{kind}.svg)\n\n![Pictures]({name}-{kind}.png)"
                for kind, words in (("glico", "GLICO"), ("glo", "GLO, without the class loss"))
                if result.get("maps")
            )
            n = result["n"]["test"]
            sections.append(f"### {title}\n\n{n:,} test images.\n\n{table}\n\n{drawn}\n\n{basis(result)}")
    if not sections:
        return ""
    what = next(found[name]["what"] for name in ("few-cifar10", "few-flowers") if name in found)
    return f"## Few labelled images and nothing else\n\n{what}\n\n" + "\n\n".join(sections)


def _likeness(pairs: Sequence[Sequence[float]]) -> str:
    """Means of pairs of cosines."""
    return ", ".join(f"{sum(part) / len(part):.2f}" for part in zip(*pairs, strict=True))


def moons(found: dict[str, Any]) -> str:
    """Filled by benchmarks/moons.py."""
    if "moons" not in found:
        return ""
    result, lines = found["moons"], []
    for row in dict.fromkeys(r["row"] for r in result["rows"]):
        draws = [r for r in result["rows"] if r["row"] == row]
        lines.append([row, over(draws, "accuracy"), str(len(draws))])
    words = ", ".join(line[0] for line in lines)
    return (
        f"## Two moons\n\n{result['what']}\n\n{grid(['row', 'accuracy', 'seeds'], lines)}\n\n"
        f"![Boundaries, row by row: {words}](moons.png)\n\n{basis(result)}"
    )


def unlabelled(found: dict[str, Any]) -> str:
    """Filled by benchmarks/unlabelled.py."""
    if "unlabelled" not in found:
        return ""
    result, lines = found["unlabelled"], []
    sets = dict.fromkeys((r["set"], r["labels"], r["row"]) for r in result["rows"])
    for of, labels, row in sorted(sets, key=lambda key: (key[0] != "mnist", key[1], UNLABELLED.index(key[2]))):
        control = NOISED if row.startswith("noisy") else STILL if row.startswith("meta") and row != STILL else ""
        draws, plain, beside = (
            [r for r in result["rows"] if (r["set"], r["labels"], r["row"]) == (of, labels, word)]
            for word in (row, "supervised", control)
        )
        more = "" if row == "supervised" else gains(draws, plain, "clean")
        own = gains(draws, beside, "clean") if control else ""
        lines.append(
            [row, of, f"{labels:,}", over(draws, "clean"), more, own, over(draws, "under corruption"), str(len(draws))]
        )
    head = ["row", "set", "labels", "accuracy", "over supervised", "over its control", "under corruption", "seeds"]
    controls = (
        " The control of noisy student is the supervised network under the student's noise, that of meta pseudo labels the same"
        " without feedback."
    )
    about = f"{result['what']}{controls} {result['n']:,} test images."
    return f"## Few labels, many images\n\n{about}\n\n{grid(head, lines)}\n\n{basis(result)}"


def transfer(found: dict[str, Any]) -> str:
    """Filled by benchmarks/transfer.py."""
    if "transfer" not in found:
        return ""
    result = found["transfer"]
    rows, lines = result["rows"], []
    for shots, way in sorted(dict.fromkeys((row["shots"], row["way"]) for row in rows), key=lambda key: key[0]):
        draws, scratch, tuned = (
            [row for row in rows if (row["shots"], row["way"]) == (shots, word)]
            for word in (way, "from scratch", "fine-tuning")
        )
        more = "" if way == "from scratch" else gains(draws, scratch, "accuracy")
        beyond = "" if way == "fine-tuning" else gains(draws, tuned, "accuracy")
        rate = f"{draws[0]['head']:g}, then {draws[0]['rate']:g}" if way == "LP-FT" else f"{draws[0]['rate']:g}"
        lines.append([way, str(shots), over(draws, "accuracy"), more, beyond, rate, str(len(draws))])
    bodies = over(list({row["seed"]: row for row in rows}.values()), "body")
    return (
        f"## A trained body on other classes\n\n{result['what']} {result['n']['test images a seed']:,} test images a seed."
        f" The body on its own five classes: {bodies}.\n\n"
        + grid(["way", "images a class", "accuracy", "over scratch", "over fine-tuning", "rate", "seeds"], lines)
        + f"\n\n{basis(result)}"
    )
