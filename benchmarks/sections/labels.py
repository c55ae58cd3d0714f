"""Learning from few labels, and from images without any."""

from __future__ import annotations

from typing import Any

from sections.writing import basis, gains, grid, over


def few(found: dict[str, Any]) -> str:
    """Filled by benchmarks/few.py."""
    sections = []
    for name, title in (("few-cifar10", "CIFAR-10"), ("few-flowers", "Ten flowers, ImageNet body")):
        if name in found:
            result, lines = found[name], []
            for shots, row in sorted(
                dict.fromkeys((r["shots"], r["row"]) for r in result["rows"]), key=lambda key: key[0]
            ):
                draws = [r for r in result["rows"] if (r["shots"], r["row"]) == (shots, row)]
                lines.append([row, str(shots), over(draws, "top-1"), over(draws, "top-5"), str(len(draws))])
            table = grid(["row", "images a class", "top-1", "top-5", "seeds"], lines) if lines else "No row yet."
            drawn = "\n\n".join(
                f"{words}: the points of ten images a class, and pictures on the way from one image of a class to another."
                f"\n\n![Points]({name}-{kind}.svg)\n\n![Pictures]({name}-{kind}.png)"
                for kind, words in (("glico", "GLICO"), ("glo", "GLO, without the class loss"))
                if result.get("maps")
            )
            n = result["n"]["test"]
            sections.append(f"### {title}\n\n{n:,} test images.\n\n{table}\n\n{drawn}\n\n{basis(result)}")
    if not sections:
        return ""
    what = next(found[name]["what"] for name in ("few-cifar10", "few-flowers") if name in found)
    return f"## Few labelled images and nothing else\n\n{what}\n\n" + "\n\n".join(sections)


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
    for of, labels, row in dict.fromkeys((r["set"], r["labels"], r["row"]) for r in result["rows"]):
        draws = [r for r in result["rows"] if (r["set"], r["labels"], r["row"]) == (of, labels, row)]
        plain = [r for r in result["rows"] if (r["set"], r["labels"], r["row"]) == (of, labels, "supervised")]
        more = "" if row == "supervised" else gains(draws, plain, "clean")
        lines.append(
            [row, of, f"{labels:,}", over(draws, "clean"), more, over(draws, "under corruption"), str(len(draws))]
        )
    head = ["row", "set", "labels", "accuracy", "over supervised", "under corruption", "seeds"]
    about = f"{result['what']} {result['n']:,} test images."
    return f"## Few labels, many images\n\n{about}\n\n{grid(head, lines)}\n\n{basis(result)}"


def transfer(found: dict[str, Any]) -> str:
    """Filled by benchmarks/transfer.py."""
    if "transfer" not in found:
        return ""
    result = found["transfer"]
    rows, lines = result["rows"], []
    for shots, way in sorted(dict.fromkeys((row["shots"], row["way"]) for row in rows), key=lambda key: key[0]):
        draws = [row for row in rows if (row["shots"], row["way"]) == (shots, way)]
        lines.append([way, str(shots), over(draws, "accuracy"), f"{draws[0]['rate']:g}", str(len(draws))])
    bodies = over(list({row["seed"]: row for row in rows}.values()), "body")
    return (
        f"## A trained body on other classes\n\n{result['what']} {result['n']['test images a seed']:,} test images a seed."
        f" The body on its own five classes: {bodies}.\n\n"
        + grid(["way", "images a class", "accuracy", "rate", "seeds"], lines)
        + f"\n\n{basis(result)}"
    )
