"""The main job: ten flowers on the ImageNet MobileNetV2, and what else was tried on small networks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from classgraft.metrics.intervals import student_interval
from sections.writing import basis, gains, grid, over

SHOTS = (1, 5, 20)
ORDER = ("glne", "imprint", "imprint, 8 views", "rows", "rows, 1 view", "finetune", "glne, 2 views")


def methods(found: dict[str, Any], split: str) -> dict[str, dict[str, Any]]:
    kept = {r["method"]: r for name, r in found.items() if name.startswith(f"flowers-{split}-")}
    return {name: kept[name] for name in sorted(kept, key=lambda n: (ORDER.index(n) if n in ORDER else 99, n))}


def at(result: dict[str, Any], shots: int) -> list[dict[str, Any]]:
    return [draw for draw in result["draws"] if draw["shots"] == shots]


def flowers_test(found: dict[str, Any]) -> str:
    rows = methods(found, "test")
    if "glne" not in rows:
        return ""
    n = rows["glne"]["n"]
    text = [
        "## Ten flowers on the ImageNet MobileNetV2",
        "The network of the shared data (86.5 % on the probe before), extended with ten Flowers-102 classes; the extension sees"
        f" no ImageNet image. New classes: {n['new']} test photos. Old classes: the probe, one image of each of the 1,000"
        " classes (they may be training images of this network); its even half was looked at during development, and what the"
        " other half says alone stands below. Ten draws at 1 photo a class, five at 5, all 20 photos at 20."
        " Every method has the same draws. Best: the harmonic mean with the old-new offset chosen on these very images;"
        " regret: best minus achieved; area: under new over old accuracy as the offset sweeps, in per cent of the square.",
    ]
    text += [flowers_table(rows, shots) for shots in SHOTS]
    text += [paired(rows), captures(rows), halves(rows), basis(rows["glne"])]
    return "\n\n".join(filter(None, text))


def flowers_table(rows: dict[str, dict[str, Any]], shots: int) -> str:
    keys = ("old", "new", "harmonic", "best", "regret", "area")
    lines = []
    for name, result in rows.items():
        draws = at(result, shots)
        if draws:
            lines.append([name, *(over(draws, key) for key in keys), str(len(draws))])
    return f"### {shots} photo{'s' * (shots > 1)} a class\n\n" + grid(["method", *keys, "draws"], lines)


def paired(rows: dict[str, dict[str, Any]]) -> str:
    lines = []
    ours = rows["glne"]
    for shots in SHOTS:
        mine = {draw["seed"]: draw["harmonic"] for draw in at(ours, shots)}
        rivals = {
            n: at(r, shots) for n, r in rows.items() if not n.startswith("glne") and len(at(r, shots)) == len(mine)
        }
        best = max(rivals, key=lambda n: sum(d["harmonic"] for d in rivals[n]))
        gains = [mine[draw["seed"]] - draw["harmonic"] for draw in rivals[best]]
        mean, half = student_interval(gains)
        shown = f"{mean:+.1f}" if half != half else f"{mean:+.1f} ± {half:.1f}"
        lines.append([str(shots), best, shown, str(len(gains))])
    head = "### glne against the best rival, draw by draw\n\n"
    return head + grid(["photos", "best rival", "difference of harmonic means", "draws"], lines)


def captures(rows: dict[str, dict[str, Any]]) -> str:
    draw = at(rows["glne"], 5)[0]
    kinds = [key for key in draw if key.startswith(("captured", "old error added"))]
    names = [name for name in rows if at(rows[name], 5) and kinds[-1] in at(rows[name], 5)[0]]
    lines = []
    for kind in kinds:
        for shots in SHOTS:
            lines.append([kind, str(shots), *(over(at(rows[name], shots), kind) for name in names)])
    head = (
        "### What the new classes capture\n\nPer cent of images of old classes, or of no class at all, that a new class takes;"
        " and points that the old classes' error rises by over the original network's own on the same images (Gaussian blur of"
        " radius 3, brightness 0.35, JPEG quality 8).\n\n"
    )
    return head + grid(["images", "photos", *names], lines)


def halves(rows: dict[str, dict[str, Any]]) -> str:
    keys = ("old", "harmonic", "regret", "area")
    lines = []
    for shots in SHOTS:
        for half in ("even", "odd"):
            cells = [over(at(rows["glne"], shots), f"{key} (probe {half})") for key in keys]
            lines.append([str(shots), half, *cells])
    head = "### The two halves of the probe\n\nThe even half was looked at during development, the odd one never before.\n\n"
    return head + grid(["photos", "half", *keys], lines)


def flowers_development(found: dict[str, Any]) -> str:
    rows = methods(found, "development")
    if not rows:
        return ""
    head = "## The same on the development flowers\n\nOther flowers and the even half of the probe (85.2 % before): chosen on."
    return "\n\n".join([head, *(flowers_table(rows, shots) for shots in SHOTS), basis(next(iter(rows.values())))])


def exact(found: dict[str, Any]) -> str:
    if "exact" not in found:
        return ""
    rows = [row for row in found["exact"]["rows"] if "batch" in row]
    bodies = [row for row in found["exact"]["rows"] if "batch" not in row]
    lines = []
    for network in dict.fromkeys(row["network"] for row in rows):
        for precision in ("float32", "bfloat16"):
            some = [row for row in rows if row["network"] == network and row["precision"] == precision]
            equal = sum(row["equal"] for row in some)
            sizes = ", ".join(map(str, sorted({row["batch"] for row in some})))
            lines.append([network, precision, sizes, "1, 2", f"{equal} of {len(some)}"])
    bodies_said = "; ".join(
        f"{row['network']}: {row['body tensors']} tensors of the body, {row['of them batch-norm statistics']} of them"
        f" batch-norm statistics, {'all equal' if row['equal'] else 'NOT equal'}"
        for row in bodies
    )
    return (
        "## Old logits bit for bit\n\nBefore, and after two extensions by `glne`.\n\n"
        + grid(["network", "precision", "batch sizes", "threads", "equal"], lines)
        + f"\n\n{bodies_said}.\n\n{basis(found['exact'])}"
    )


def cost(found: dict[str, Any]) -> str:
    if "cost" not in found:
        return ""
    result = found["cost"]
    extension, command, grown = result["extension"], result["command"], result["grown"]

    def seconds(values: list[float]) -> str:
        return " / ".join(f"{v:.1f}" for v in values)

    lines = [
        ["forward pass of all views, s", seconds(extension["forward seconds"])],
        ["whole extension, s", seconds(extension["extension seconds"])],
        ["ratio (median of pairs)", f"{extension['ratio']:.2f}"],
        ["command to saved bundle with 50 photos, imports included, s", seconds(command["seconds"])],
        ["grown over base: bytes", f"{grown['bytes ratio']:.4f}"],
        *([f"grown over base: latency, {key}", f"{value:.3f}"] for key, value in grown["latency ratio"].items()),
    ]
    n = result["n"]
    growth = [
        [
            str(r["old"]),
            str(r["new"]),
            f"{r['seconds']:.1f}",
            f"{100 * r['old accuracy']:.1f}",
            f"{100 * r['new accuracy']:.1f}",
        ]
        for r in result["synthetic"]
    ]
    return (
        f"## What an extension costs\n\n{n['photos']} photos, {n['views']} views each, figures up to {n['repeats']} times.\n\n"
        + grid(["what", "value"], lines)
        + "\n\nGrowth on a **synthetic** head (random rows of width 256, features drawn around them, 5 a new class):\n\n"
        + grid(["old classes", "new classes", "seconds", "old accuracy", "new accuracy"], growth)
        + f"\n\n{basis(result)}"
    )


def small(found: dict[str, Any]) -> str:
    """Filled by benchmarks/small.py."""
    if "small" not in found:
        return ""
    keys = ("old before", "old", "new", "harmonic", "best", "regret", "area")
    rows = found["small"]["rows"]
    lines = []
    for network, method, shots in dict.fromkeys((r["network"], r["method"], r["shots"]) for r in rows):
        draws = [r for r in rows if (r["network"], r["method"], r["shots"]) == (network, method, shots)]
        lines.append([network, method, str(shots), *(over(draws, key) for key in keys), str(len(draws))])
    head = f"## Small networks\n\n{found['small']['what']}.\n\n"
    return head + grid(["network", "method", "photos", *keys, "draws"], lines) + f"\n\n{basis(found['small'])}"


def unequal(found: dict[str, Any]) -> str:
    """Filled by benchmarks/unequal.py."""
    if "unequal" not in found:
        return ""
    result, lines, keys = found["unequal"], [], ("old", "few", "many", "new", "harmonic")
    for photos, name in dict.fromkeys((tuple(row["photos"]), row["name"]) for row in result["rows"]):
        draws = [row for row in result["rows"] if (tuple(row["photos"]), row["name"]) == (photos, name)]
        lines.append([name, f"{photos[0]} or {photos[1]}", *(over(draws, key) for key in keys), str(len(draws))])
    head = ["", "photos a class", "old", "classes of few", "classes of many", "all new", "harmonic", "draws"]
    n = result["n"]
    return (
        f"## Few photos of some classes, many of others\n\n{result['what']} {n['old']} old images and {n['new']} new ones.\n\n"
        f"{grid(head, lines)}\n\n{basis(result)}"
    )


def enrich(found: dict[str, Any]) -> str:
    """Filled by benchmarks/enrich.py."""
    sections = []
    for name, title in (("enrich", "Test"), ("enrich-development", "Development, chosen on")):
        if name in found:
            rows, lines = found[name]["rows"], []
            order = dict.fromkeys((r["shots"], r["name"]) for r in rows)
            for shots, row in sorted(order, key=lambda key: (key[0], key[1] != "photos alone", key[1].endswith(")"))):
                draws, plain = (
                    [r for r in rows if (r["shots"], r["name"]) == (shots, word)] for word in (row, "photos alone")
                )
                right = over([r for r in draws if r["right"] is not None], "right")
                figures = [over(draws, key) for key in ("images", "old", "new", "harmonic")]
                more = "" if row == "photos alone" else gains(draws, plain, "harmonic")
                lines.append([row, str(shots), *figures, more, over(draws, "regret"), right, str(len(draws))])
            head = ["learnt from", "photos a class", "images", "old", "new", "harmonic", "over photos alone", "regret",
                    "named right", "draws"]  # fmt: skip
            n = found[name]["n"]
            words = [f"{n['old']} old images, {n['new']} new ones.", grid(head, lines), *_drawn(name, rows)]
            sections.append(f"### {title}\n\n" + "\n\n".join(words))
    if not sections:
        return ""
    result = found.get("enrich", found.get("enrich-development", {}))
    return f"## More to learn from\n\n{result['what']}\n\n" + "\n\n".join(sections) + f"\n\n{basis(result)}"


def _drawn(name: str, rows: Sequence[dict[str, Any]]) -> list[str]:
    """What the generator's losses came to, and its pictures."""
    words = []
    for shots in sorted({row["shots"] for row in rows if "losses" in row}):
        draws = [row["losses"] for row in rows if row["shots"] == shots and "losses" in row]
        means = ", ".join(f"{key} {sum(draw[key] for draw in draws) / len(draws):.3f}" for key in draws[0])
        words.append(f"The generator's losses in its last epoch, photos a class {shots}: {means}.")
        if name == "enrich":
            words.append(f"![Photos of five classes and pictures made of them](enrich-pictures-{shots}.png)")
    return words


def flowers_memory(found: dict[str, Any]) -> str:
    """Filled by benchmarks/flowers_memory.py."""
    if "flowers-memory" not in found:
        return ""
    result, lines = found["flowers-memory"], []
    cells = result["cells"]
    for name, shots in dict.fromkeys((c["name"], c["shots"]) for c in cells):
        draws = [c for c in cells if (c["name"], c["shots"]) == (name, shots)]
        first = draws[0]
        picked = first["picked"] if name.startswith("auto") else ""
        figures = [over(draws, key) for key in ("old", "new", "harmonic", "regret", "captured: clean")]
        lines.append([name, picked, "yes" if first["sees old images"] else "no", str(shots), *figures,
                      f"{first['memory bytes'] or 0:,}", over(draws, "seconds"), str(len(draws))])  # fmt: skip
    n = result["n"]
    head = ["method", "picked", "sees old images", "photos", "old", "new", "harmonic", "regret", "captured", "bytes kept",
            "seconds", "draws"]  # fmt: skip
    return (
        f"## Flowers, with a memory and without\n\n{result['what'][0].upper()}{result['what'][1:]}: {n['old']} old"
        f" images, one of each of {n['old']} classes; {n['old test']} other images measure the old classes. Methods that move"
        " the body had one draw. `joint` learns from one image of half of the old classes, over and over, and unlearns the"
        " others: it needs old images in number. Features that an earlier row had computed were at hand, so that the seconds of"
        " `glne` are those of `auto`.\n\n" + grid(head, lines) + f"\n\n{basis(result)}"
    )


def in_a_row(found: dict[str, Any]) -> str:
    """Filled by benchmarks/in_a_row.py."""
    if "in-a-row" not in found:
        return ""
    result, lines = found["in-a-row"], []
    for what, kept, step in dict.fromkeys((r["what"], r["kept"], r["step"]) for r in result["rows"]):
        draws = [r for r in result["rows"] if (r["what"], r["kept"], r["step"]) == (what, kept, step)]
        lines.append(
            [what, kept, str(step), *(over(draws, key) for key in ("old", "new", "harmonic")), f"{draws[0]['bytes']:,}"]
        )
    lines.sort(key=lambda line: (line[1], "all twenty" in line[0] or "four" in line[0], "once" in line[0]))
    return (
        f"## In a row\n\n{result['what'][0].upper()}{result['what'][1:]}. New: all classes added so far.\n\n"
        + grid(["what", "kept of the old classes", "step", "old", "new", "harmonic", "bytes kept"], lines)
        + f"\n\n{basis(result)}"
    )


def short(found: dict[str, Any]) -> str:
    rows = methods(found, "test")
    if "glne" not in rows:
        return ""
    shown: list[tuple[str, Callable[[str], bool]]] = [
        ("glne", lambda n: n == "glne"),
        ("rivals", lambda n: not n.startswith("glne")),
    ]
    lines = []
    for _, wanted in shown:
        for name in filter(wanted, rows):
            for shots in SHOTS:
                draws = at(rows[name], shots)
                if draws and name in ("glne", "imprint", "rows", "finetune"):
                    lines.append([name, str(shots), *(over(draws, key) for key in ("old", "new", "harmonic"))])
    before = at(rows["glne"], 5)[0]["old before"]
    head = grid(["method", "photos a class", f"old (before: {before:.1f})", "new", "harmonic mean"], lines)
    unseen = ", ".join(over(at(rows["glne"], shots), "harmonic (probe odd)") for shots in SHOTS)
    told = (
        "Photos are drawn ten times at 1 a class and five times at 5; ± is the 95 % interval over the draws, and a row without"
        " it is one draw. Half of the old images were looked at during development; with the other half alone the harmonic"
        f" means of `glne` are {unseen}."
    )
    return f"\n{head}\n\n{told}\n\n"
