"""Makes the pages, the drawings and the README's table that hold what the JSON files under benchmarks/results/ say.

python benchmarks/tables.py            writes them
python benchmarks/tables.py --check    fails if they are not what the JSON files give
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from pictures import DOCS, gallery, pictures
from record import RESULTS

from classgraft.metrics import student_interval

ROOT = Path(__file__).parents[1]
SHOTS = (1, 5, 20)
ORDER = ("glne", "imprint", "imprint, 8 views", "rows", "rows, 1 view", "finetune", "glne, 2 views")


def main() -> None:
    found = {path.stem: json.loads(path.read_text("utf-8")) for path in sorted(RESULTS.glob("*.json"))}
    parts = (flowers_test, flowers_development, exact, cost, small, flowers_memory, in_a_row, enrich, memories, frozen,
             acwod, distillation, smaller, transfer, few, moons, unlabelled, ways, stream, masks, replay, attention, dropout,
             cells, streets, faces, parity, unknown, broken, release, speed)  # fmt: skip
    sections = [section(found) for section in parts]
    pages = {DOCS / "results.md": "\n\n".join([HEAD, *filter(None, sections)]) + "\n"}
    drawings = pictures(found)
    pages |= {**drawings, DOCS / "gallery.md": gallery(drawings)}
    readme = (ROOT / "README.md").read_text("utf-8")
    before, _, rest = readme.partition("<!-- flowers -->")
    pages[ROOT / "README.md"] = (
        f"{before}<!-- flowers -->\n{short(found)}<!-- /flowers -->{rest.partition('<!-- /flowers -->')[2]}"
    )
    stale = [path for path, text in pages.items() if not path.exists() or path.read_text("utf-8") != text]
    if "--check" in sys.argv:
        sys.exit(f"stale, run benchmarks/tables.py: {', '.join(map(str, stale))}" if stale else 0)
    for path in stale:
        path.write_text(pages[path], "utf-8")
        print(path)


HEAD = """# Results

Made by `python benchmarks/tables.py` from the files under `benchmarks/results/`, each of which says what it was obtained
on. Accuracies in per cent, over images, in the joint label space of old and new classes; ± is the half-width of the 95 %
interval over draws of the photos (Student's t). No choice was made on a test image."""


def grid(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---", *["---:"] * (len(header) - 1)], *rows]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def over(draws: Sequence[dict[str, Any]], key: str) -> str:
    values = [draw[key] for draw in draws if key in draw]
    if not values:
        return "-"
    mean, half = student_interval(values)
    return f"{mean:.1f}" if half != half else f"{mean:.1f} ± {half:.1f}"


def parity(found: dict[str, Any]) -> str:
    """Every export format beside the bundle."""
    if "parity" not in found:
        return ""
    lines, models, refused = [], found["parity"]["models"], ""
    for name, formats in models.items():
        for form, row in formats.items():
            line = [name, form]
            if "refused" in row:
                lines.append([*line, *["-"] * 7])
                refused = row["refused"]
                continue
            for part in ("old", "new"):
                line += [
                    f"{row[part]['images']}",
                    f"{row[part]['difference']:.1e}",
                    f"{100 * row[part]['agreement']:.2f}",
                ]
            lines.append([*line, f"{row['bytes'] / 2**20:.1f}"])
    head = ["grafted by", "format"]
    for part in ("old", "new"):
        head += [f"{part}, n", f"{part}: largest difference of a probability", f"{part}: same top class, %"]
    return f"""## Exports beside the bundle

Ten flowers on the ImageNet MobileNetV2 by three methods; old images are the ImageNet probe's, new ones the test flowers, looked
at through the tool that each format is for.
{f"A dash: the export is refused, saying *{refused}*" if refused else ""}

{grid([*head, "MiB"], lines)}

{basis(found["parity"])}"""


def unknown(found: dict[str, Any]) -> str:
    """Area under the ROC curve of scores for images of no known class."""
    if "unknown" not in found:
        return ""
    result = found["unknown"]
    sets = list(dict.fromkeys(key for row in result["auroc"].values() for key in row))
    rows = [[name, *(f"{100 * row[key]:.1f}" if key in row else "-" for key in sets)]
            for name, row in result["auroc"].items()]  # fmt: skip
    return f"""## Images of no known class

Area under the ROC curve in per cent: how often a score is higher for an image of no known class than for one of a known
class, before ten flowers are grafted onto the ImageNet MobileNetV2 and after. `predict` gives the generalised entropy,
which was chosen on other images. No threshold is set.

{grid(["score", *sets], rows)}

{basis(result)}"""


WAYS = {"flowers": "The ImageNet MobileNetV2 learns ten flowers", "mnist": "A CIFAR-10 ResNet-56 learns MNIST"}


def ways(found: dict[str, Any]) -> str:
    """Filled by benchmarks/ways.py: the table of the LwF paper, and the lecture's of properties, measured."""
    if "ways" not in found:
        return ""
    result, parts = found["ways"], []
    for pair, title in WAYS.items():
        rows = [row for row in result["rows"] if row["pair"] == pair]
        lines = []
        for way in dict.fromkeys(row["way"] for row in rows):
            draws = [row for row in rows if row["way"] == way]
            first = {row["seed"]: row for row in rows if row["way"] == "LwF"}
            less = [{key: row[key] - first[row["seed"]][key] for key in ("old", "new")} for row in draws]
            shown = [over(draws, key) for key in ("old", "new")]
            if way != "LwF":
                shown = [
                    text if text.startswith("-") else f"+{text}" for text in (over(less, "old"), over(less, "new"))
                ]
            sizes = [
                {"bytes": row["bytes"] / 2**20, "seconds": row["seconds"], "ms": row["milliseconds"]} for row in draws
            ]
            kept = f"{draws[0]['old images']:,}" if draws[0]["old images"] else "none"
            lines.append(
                [way, *shown, over(sizes, "seconds"), over(sizes, "ms"), over(sizes, "bytes"), kept, str(len(draws))]
            )
        if lines:
            before = sum(row["old before"] for row in rows) / len(rows)
            head = ["way", "old", "new", "seconds to learn", "ms an image", "MiB stored", "old images needed", "seeds"]
            n = result["n"][pair]
            parts.append(
                f"### {title}\n\nn = {n['old']} old and {n['new']} new test images; {before:.1f} % of the old ones before."
                f"\n\n{grid(head, lines)}"
            )
    return (
        "## Ways to learn a second task\n\nAfter table 1 of Learning without Forgetting: LwF in per cent, the others as"
        " differences to it. Each task answers among its own classes, so the task is known. Times are of one thread beside"
        " other jobs: those of asking one and the same network scatter by a factor of two. Duplicating asks two networks.\n\n"
        + "\n\n".join(parts)
        + f"\n\n{basis(result)}"
    )


def broken(found: dict[str, Any]) -> str:
    """Mutated inputs, and faults while something is saved."""
    parts = []
    if "fuzz" in found:
        counts = found["fuzz"]["counts"]
        kinds: dict[str, list[int]] = {}
        for name, count in counts.items():
            kind = name.partition(":")[0] + (", sealed anew" if name.endswith("sealed anew") else "")
            row = kinds.setdefault(kind, [0, 0, 0])
            for place, more in enumerate((1, count["inputs"], count["failures"])):
                row[place] += more
        lines = [[kind, *(f"{number:,}" for number in row)] for kind, row in kinds.items()]
        lines.append(["all", *(f"{sum(row[place] for row in kinds.values()):,}" for place in range(3))])
        parts.append(
            "Inputs mutated at random, under a memory limit. A failure would be anything but work done or a clear sentence:"
            " another exception, 20 seconds, memory, a file changed that was not named. Sealed anew: with checksums that"
            f" fit.\n\n{grid(['input', 'files', 'tried', 'failures'], lines)}\n\n{basis(found['fuzz'])}"
        )
    if "faults" in found:
        rows = found["faults"]["rows"]
        lines = [[row["what"], row["fault"], f"{row['injected']:,}", str(row["failures"])] for row in rows]
        lines.append(["all", "", *(f"{sum(row[key] for row in rows):,}" for key in ("injected", "failures"))])
        parts.append(
            "Faults while it is saved. A failure would be a content that is neither the earlier nor the new one, whole; an"
            " error that is no sentence or says wrongly which of them is there; a next save that does not succeed. So a"
            f" failure would be a file lost.\n\n{grid(['what', 'fault', 'injected', 'failures'], lines)}"
            f"\n\n{basis(found['faults'])}"
        )
    return "\n\n".join(["## Broken inputs and faults", *parts]) if parts else ""


def release(found: dict[str, Any]) -> str:
    """Wheel and sdist in clean environments, the tests with other dependencies."""
    if "release" not in found:
        return ""
    lines = []
    for name, row in found["release"]["rows"].items():
        if "tests" in row:
            counts = ", ".join(f"{count:,} {kind}" for kind, count in row["tests"].items())
        else:
            counts = f"{row['commands'] - len(row['failed'])} of {row['commands']} commands"
        words = ", ".join(f"{name} {version}" for name, version in row["dependencies"].items())
        lines.append([name, counts, words])
    rest = any("tests" in row for row in found["release"]["rows"].values())
    return (
        "## What is released\n\nWheel and sdist: built, installed alone, and a small story told with it by the command line."
        + (" The rest: the tests with other versions." if rest else "")
        + f"\n\n{grid(['what', 'found', 'with'], lines)}\n\n{basis(found['release'])}"
    )


def basis(result: dict[str, Any]) -> str:
    machine, versions = result["machine"], result["versions"]
    where = machine.get("gpu") or f"{machine['cpu']}, {machine['cores']} cores"
    return f"{where}; " + ", ".join(f"{name} {version}" for name, version in versions.items()) + f"; {result['date']}."


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
        " classes (they may be training images of this network). Ten draws at 1 photo a class, five at 5, all 20 photos at 20."
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


STRATEGIES = ("all", "last-block", "adapter", "head")


def acwod(found: dict[str, Any]) -> str:
    """Filled by benchmarks/acwod.py."""
    if "acwod" not in found:
        return ""
    result = found["acwod"]
    rows = [row for row in result["rows"] if row["part"] == "test"]
    lines = []
    for share in sorted({row["share"] for row in rows}):
        at_share = [row for row in rows if row["share"] == share]
        for method, layers in dict.fromkeys((row["method"], row.get("layers")) for row in at_share):
            draws = [row for row in at_share if (row["method"], row.get("layers")) == (method, layers)]
            shown = [{key: 100 * row[key] for key in ("old", "new", "harmonic", "all")} for row in draws]
            epsilon = f"{draws[0]['epsilon']:g}" if layers else "-"
            name = f"{method}, {layers}" if layers else method
            lines.append([name, str(share), epsilon, *(over(shown, key) for key in ("old", "new", "harmonic", "all"))])
    fits = []
    for name, fit in result["fits"].items():
        best = ", ".join(f"{epsilon:g}" for epsilon in fit["epsilons"])
        fits.append([name, best, *(f"{fit[key]:.2f}" for key in ("intercept", "slope", "r2", "rule"))])
    n = result["n"]
    head = (
        f"## Adaptation strategies and the share of original classes\n\n{result['what']}: trained here on"
        f" {n['base a class']} images of each original class, extended with the other classes of the hundred from"
        f" {n['photos a class']} images of each and none of the original ones; {n['test']} test images. Epsilon was chosen on"
        f" {n['held']} held-out training images by the accuracy over all classes. `finetune` keeps nothing on purpose;"
        f" `joint` sees {n['photos a class']} images of each original class too, ten times as often as the others see"
        " theirs.\n\n"
        "The poster's claims: best epsilon is linear in the share, as far as a grid of six values can tell (R squared below)."
        " That it grows with the layers that learn, or shrinks with constraints, is not seen: the slopes are alike.\n\n"
    )
    table = grid(["method", "original classes, %", "epsilon", "old", "new", "harmonic", "all"], lines)
    shares = ", ".join(f"{share} %" for share in next(iter(result["fits"].values()))["shares"])
    line = (
        "\n\n### Best epsilon on a straight line\n\n"
        "Chosen on the held-out images by accuracy over all classes, or by harmonic mean.\n\n"
    )
    columns = ["layers", f"best epsilon at {shares}", "intercept", "slope", "R squared", "slope through zero"]
    figure = "\n\n![Best epsilon over the share of original classes](acwod.svg)"
    return head + table + line + grid(columns, fits) + figure + f"\n\n{basis(result)}"


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


def enrich(found: dict[str, Any]) -> str:
    """Filled by benchmarks/enrich.py."""
    sections = []
    for name, title in (("enrich", "Test"), ("enrich-development", "Development, chosen on")):
        if name in found:
            cells, lines = found[name]["cells"], []
            for shots, row in sorted(dict.fromkeys((c["shots"], c["name"]) for c in cells), key=lambda key: key[0]):
                draws = [c for c in cells if (c["shots"], c["name"]) == (shots, row)]
                right = over([c for c in draws if c["right"] is not None], "right")
                figures = [over(draws, key) for key in ("images", "old", "new", "harmonic", "regret")]
                lines.append([row, str(shots), *figures, right, str(len(draws))])
            head = [
                "learnt from",
                "photos a class",
                "images",
                "old",
                "new",
                "harmonic",
                "regret",
                "named right",
                "draws",
            ]
            n = found[name]["n"]
            sections.append(f"### {title}\n\n{n['old']} old images, {n['new']} new ones.\n\n{grid(head, lines)}")
    if not sections:
        return ""
    result = found.get("enrich", found.get("enrich-development", {}))
    return f"## More to learn from\n\n{result['what']}\n\n" + "\n\n".join(sections) + f"\n\n{basis(result)}"


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
            table = grid(["row", "images a class", "top-1", "top-5", "seeds"], lines)
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
        lines.append([row, of, f"{labels:,}", over(draws, "clean"), over(draws, "under corruption"), str(len(draws))])
    head = ["row", "set", "labels", "accuracy", "under corruption", "seeds"]
    return f"## Few labels, many images\n\n{result['what']}\n\n{grid(head, lines)}\n\n{basis(result)}"


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
            lines.append([name, f"{draws[0]['parameters']:,}", *values, str(len(draws))])
        head = ["student learns from", "parameters", *looked, "seeds"]
        sections.append(f"### Narrow detectors\n\nMean average precision at an overlap of 0.5.\n\n{grid(head, lines)}")
    rows = [row for row in result["rows"] if row["part"] == "graft"]
    if rows:
        lines = []
        for name, shots in sorted(dict.fromkeys((row["name"], row["shots"]) for row in rows), key=lambda key: key[1]):
            tested = [row["test"] for row in rows if (row["name"], row["shots"]) == (name, shots)]
            for draw in tested:
                draw["harmonic"] = 2 * draw["old"] * draw["new"] / max(draw["old"] + draw["new"], 1e-9)
            values = [over(tested, key) for key in ("before", "old", "new", "harmonic", "proposed")]
            lines.append([name, str(shots) if shots else "all", *values, str(len(tested))])
        head = ["method", "images", "old before", "old", "new", "harmonic", "proposed", "seeds"]
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
        lines.append(
            [method, student, size, *(over(draws, key) for key in ("train", "test", "pixels")), str(len(draws))]
        )
    head = ["method", "student", "parameters", "mIoU train", "mIoU test", "test pixels right", "seeds"]
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
            more = {"experts": [over(tested, region) for region in regions],
                    "data": [str(times), over(tested, "all"), over(draws, "labels")],
                    "video": [over(tested, "all"), *(over([row[worse] for row in draws], "all") for worse in
                              ("blurred", "occluded")), over(draws, "motion")]}[part]  # fmt: skip
            lines.append([name, *more, str(len(draws))])
        head = {"experts": ["learns from", *regions], "data": ["learns from", "times the schedule", "error", "labels"],
                "video": ["", "as they are", "blurred", "occluded", "motion"]}[part]  # fmt: skip
        if lines:
            sections.append(f"### {title}\n\n{grid([*head, 'seeds'], lines)}")
    figure = "\n\n![Points of six looks brought back, of all together, and the truth](faces-looks.png)"
    return f"## Points of faces\n\n{result['what']}\n\n" + "\n\n".join(sections) + figure + f"\n\n{basis(result)}"


SIZED = ("exemplars", "icarl", "wa", "der")
"""Of which there are rows of other sizes in benchmarks/stream.py."""


def stream(found: dict[str, Any]) -> str:
    """Filled by benchmarks/stream.py: every learner, and what more bytes or fewer parameters do."""
    if "stream" not in found:
        return ""
    result, keys = found["stream"], ("average", "last", "old", "new", "harmonic")
    learners, sized = [], []
    for method in dict.fromkeys(row["method"] for row in result["rows"]):
        draws = [row for row in result["rows"] if row["method"] == method]
        shown = [{key: 100 * row[key] for key in (*keys, "forgetting")} for row in draws]
        mean = {key: sum(row[key] for row in draws) / len(draws) for key in ("bytes", "model_bytes", "seconds")}
        row = [method, *(over(shown, key) for key in keys)]
        name, _, other = method.partition(",")
        if not other:
            kept, minutes = f"{mean['bytes'] / 2**20:.1f}", f"{mean['seconds'] / 60:.0f}"
            learners.append([*row, over(shown, "forgetting"), kept, minutes, str(len(draws))])
        if name in SIZED:
            thousands = over([{"": row["parameters"] / 1000} for row in draws], "")
            whole = f"{(mean['bytes'] + mean['model_bytes']) / 2**20:.1f}"
            sized.append([*row, thousands, whole, str(len(draws))])
    parts = [
        f"## A stream of Tiny-ImageNet classes\n\n{result['what']}; {result['n']:,} test images after the last step. One recipe"
        " for all. Average: mean over the steps of the accuracy on all classes so far; old, new and harmonic mean after the"
        " last. Methods that leave the body alone have it from the first step of fine-tuning. Minutes are of one thread"
        " beside another job.",
        grid(["method", *keys, "forgetting", "memory, MiB", "minutes", "seeds"], learners),
    ]
    if any(method.startswith("der") for method, *_ in sized):
        parts += [
            "### Bytes and parameters\n\nThe rows of one budget of exemplars, and those whose model and memory together take as"
            " many bytes as DER's. Parameters of the model that answers after the last step; masks with four weights of the"
            " sparsity loss.\n\n![Average accuracy over parameters](stream.svg)",
            grid(["method", *keys, "thousand parameters", "model and memory, MiB", "seeds"], sized),
        ]
    return "\n\n".join([*parts, basis(result)])


MASKED = {
    "flowers": ("Ten flowers on the ImageNet MobileNetV2",
                {"own": "flowers among themselves", "joint": "flowers among all", "old joint": "ImageNet's own among all",
                 "old own": "among themselves", "masked out": "weights masked, %", "bits a weight": "bits a weight"}),
    "split": ("MNIST in five tasks, three convolutions",
              {"own": "task known", "joint": "task not known", "backward": "backward transfer",
               "masked out": "weights masked, %", "bits a weight": "bits a weight"}),
    "gates": ("MNIST in five tasks, gates", {"own": "task known", "joint": "task not known",
                                             "backward": "backward transfer", "capacity": "kernels in use, %"}),
}  # fmt: skip
"""Parts of benchmarks/masks.py, and what is shown of their rows."""


def masks(found: dict[str, Any]) -> str:
    """Filled by benchmarks/masks.py."""
    if "masks" not in found:
        return ""
    result, sections = found["masks"], []
    for part, (title, keys) in MASKED.items():
        rows = [row for row in result["rows"] if row["part"] == part]
        if not rows:
            continue
        lines = []
        for method in dict.fromkeys(row["method"] for row in rows):
            draws = [row for row in rows if row["method"] == method]
            lines.append([method, *(over(draws, key) for key in keys), str(len(draws))])
        counts = ", ".join(f"{value} {key}" for key, value in rows[0]["n"].items())
        before = f" ImageNet's own before: {rows[0]['old before']:.1f}." if "old before" in rows[0] else ""
        figure = "![Accuracy over capacity](gates.svg)\n\n" if part == "gates" else ""
        table = grid(["method", *keys.values(), "seeds"], lines)
        sections.append(f"### {title}\n\nImages: {counts}.{before}\n\n{figure}{table}")
    return f"## Masks and gates\n\n{result['what']}\n\n" + "\n\n".join(sections) + f"\n\n{basis(result)}"


REPLAY = {
    "split": ("Split MNIST, two digits at a time, one label space", ("last", "first task", "last task")),
    "pair, MNIST first": ("MNIST, then Fashion-MNIST", ("last", "first task", "last task")),
    "pair, Fashion-MNIST first": ("Fashion-MNIST, then MNIST", ("last", "first task", "last task")),
    "photos": ("CIFAR-10 ResNet-56 extended with ten Tiny-ImageNet classes", ("old before", "old", "new", "harmonic")),
}


def replay(found: dict[str, Any]) -> str:
    """Filled by benchmarks/replay.py."""
    if "replay" not in found:
        return ""
    result, sections = found["replay"], []
    for part, (title, keys) in REPLAY.items():
        rows, lines = [row for row in result["chosen"] if row["part"] == part], []
        for method in dict.fromkeys(row["method"] for row in rows):
            draws = [row for row in rows if row["method"] == method]
            strength = f"{draws[0]['strength']:g}" if draws[0]["strength"] else ""
            lines.append(
                [method, strength, *(over(draws, key) for key in keys), f"{draws[0]['bytes']:,}", str(len(draws))]
            )
        if lines:
            drawn = part.replace(", ", "-").replace(" ", "-")
            figure = "" if part == "photos" else f"\n\n![Drawn after each task, a row a task](replay-{drawn}.png)"
            head = ["method", "strength", *keys, "bytes kept", "draws"]
            sections.append(f"### {title}\n\n{rows[0]['n']} test images.\n\n{grid(head, lines)}{figure}")
    return f"## Generative replay\n\n{result['what']}\n\n" + "\n\n".join(sections) + f"\n\n{basis(result)}"


def attention(found: dict[str, Any]) -> str:
    """Filled by benchmarks/lwm.py."""
    if "lwm" not in found:
        return ""
    result, lines, keys = found["lwm"], [], ("first before", "first", "last", "all", "same", "empty")
    for method in dict.fromkeys(row["method"] for row in result["rows"]):
        draws = [row for row in result["rows"] if row["method"] == method]
        drifts = [row["drift"] for row in draws if "drift" in row]  # not told where every map is empty
        mean, half = student_interval(drifts) if drifts else (math.nan, math.nan)
        drift = "-" if mean != mean else f"{mean:.2f}" if half != half else f"{mean:.2f} ± {half:.2f}"
        lines.append([method, drift, *(over(draws, key) for key in keys), over(draws, "seconds"), str(len(draws))])
    maps = "\n\n".join(
        f"{name}: test images, where the network looked after the first task, and after the last.\n\n![{name}](lwm-{file}.png)"
        for name, file in (("Fine-tuning", "finetune"), ("LwF", "lwf"), ("LwM, gamma 1", "lwm-gamma-1"))
    )
    head = ["method", "drift", *keys, "seconds", "draws"]
    return f"## Attention\n\n{result['what']}\n\n{grid(head, lines)}\n\n{maps}\n\n{basis(result)}"


def dropout(found: dict[str, Any]) -> str:
    """Filled by benchmarks/dropout.py."""
    if "dropout" not in found:
        return ""
    result, sections = found["dropout"], []
    for pair in dict.fromkeys(line["pair"] for line in result["summaries"]):
        lines = [[line["arm"], *(f"{100 * line[key]:.1f}" for key in ("area", "old", "new")), str(line["width"]),
                  str(line["configurations"])] for line in result["summaries"] if line["pair"] == pair]  # fmt: skip
        head = ["arm", "area under the frontier", "old error", "new error", "width", "configurations"]
        sections.append(f"### {pair.capitalize()}\n\n{grid(head, lines)}\n\n![Frontiers of errors](dropout-{pair}.svg)")
    return (
        f"## Dropout against forgetting\n\n{result['what']} Errors and width: of the epoch with the least sum of held-out"
        " errors. All in per cent.\n\n" + "\n\n".join(sections) + f"\n\n{basis(result)}"
    )


def memories(found: dict[str, Any]) -> str:
    """Filled by benchmarks/memories.py."""
    keys = ("old before", "old", "new", "harmonic", "best", "regret", "captured")
    parts = []
    for name, result in found.items():
        if not name.startswith("memories-"):
            continue
        lines = []
        for method, shots in dict.fromkeys((r["method"], r["shots"]) for r in result["rows"]):
            draws = [r for r in result["rows"] if (r["method"], r["shots"]) == (method, shots)]
            size = f"{draws[0]['bytes a class']:,.0f} ({draws[0]['share of real bytes']:.1f} %)"
            lines.append([method, str(shots), size, *(over(draws, key) for key in keys), str(len(draws))])
        added = f" New classes: {', '.join(result['classes'])}." if "classes" in result else ""
        head = (
            f"## Memories: {result['what']}\n\nBytes kept of each old class, and their share of the bytes of every real"
            f" feature.{added}\n\n![Harmonic mean over bytes]({name}.svg)\n\n"
        )
        parts.append(head + grid(["method", "photos", "bytes", *keys, "draws"], lines) + f"\n\n{basis(result)}")
    return "\n\n".join(parts)


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
        " others: it needs old images in number.\n\n" + grid(head, lines) + f"\n\n{basis(result)}"
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


def frozen(found: dict[str, Any]) -> str:
    """Filled by benchmarks/frozen.py."""
    if "frozen" not in found:
        return ""
    result, n = found["frozen"], found["frozen"]["n"]
    parts = []
    for stream in dict.fromkeys(row["stream"] for row in result["rows"]):
        rows = sorted((r for r in result["rows"] if r["stream"] == stream), key=lambda r: -r["last"])
        lines = [
            [r["learner"], f"{r['average']:.1f}", f"{r['last']:.1f}", f"{r['matrix'][-1][0]:.1f}",
             f"{r['matrix'][-1][-1]:.1f}", f"{r['bytes'] + r['head bytes']:,}", f"{r['seconds']:.1f}"]
            for r in rows
        ]  # fmt: skip
        head = ["learner", "average", "last", "first classes", "last classes", "bytes, head and memory", "seconds"]
        parts.append(f"{stream}:\n\n{grid(head, lines)}")
    return (
        f"## On frozen features\n\n{result['what'][0].upper()}{result['what'][1:]}, order {result['order_seed']};"
        f" {n['images a class']} images a class, {n['test']} test images in all, one run. Average: mean over the steps of the"
        " accuracy on all classes so far; last: after the last step, and there on the classes of the first and of the last"
        " step. Seconds are without the features.\n\n" + "\n\n".join(parts) + f"\n\n{basis(result)}"
    )


def speed(found: dict[str, Any]) -> str:
    """Every run of the speed benchmark: rates beside the bare step, beside Avalanche, beside what the machine can do."""
    parts = [of_run(result) for name, result in found.items() if name.startswith("speed-")]
    if not parts:
        return ""
    return "\n\n".join(
        [
            "## Speed",
            *parts,
            *filter(None, [part(found) for part in (bare, agreement, looking, streaming, growth, kills)]),
        ]
    )


def of_run(result: dict[str, Any]) -> str:
    medians, ratios = result["medians"], result["ratios"]
    bares = [name for name in medians if name.startswith("bare")]
    lines = []
    for name, rate in medians.items():
        method, _, arithmetic = name.partition(" ")
        best = "bf16" in name or arithmetic == "best"
        bare = next(b for b in reversed(bares) if ("bf16" in b) == best)
        own = result["limits"]["bf16" if best and "bf16" in result["limits"] else "fp32"]
        rival = f"avalanche {method}"
        trained = method not in ("fisher",)
        lines.append(
            [
                name,
                f"{rate:.0f}",
                f"{ratios[name][bare]:.2f}" if bare in ratios[name] and trained and method != "avalanche" else "-",
                f"{ratios[name][rival]:.2f}" if rival in ratios[name] else "-",
                f"{100 * rate / own['arithmetic']:.0f} %" if trained else "-",
                f"{100 * rate / own['bandwidth']:.0f} %" if trained else "-",
            ]
        )
    if "avalanche fisher" in result:
        lines.append(["avalanche fisher (of batches)", f"{result['avalanche fisher']:.0f}", *["-"] * 4])
    head = ["what", "images a second", "of the bare step", "of Avalanche", "of arithmetic", "of bandwidth"]
    limits = result["limits"]
    rates = ", ".join(f"{k} {limits[k]['flop a second'] / 1e9:.0f} GFLOP/s" for k in ("fp32", "bf16") if k in limits)
    rivals = ", ".join(f"{k} {v}" for k, v in result.get("avalanche", {}).items())
    return (
        f"{result['what'][0].upper()}{result['what'][1:]}. Medians of {result['n']} rounds in which all take turns; ratios are"
        f" medians within a round. Limits of this machine: {rates} (a large matrix product),"
        f" {limits['copied bytes a second'] / 1e9:.0f} GB/s (a long copy). LwF also asks the old network, which the"
        f" limits do not count. Rival: {rivals}.\n\n" + grid(head, lines) + f"\n\n{basis(result)}"
    )


def bare(found: dict[str, Any]) -> str:
    if "bare" not in found:
        return ""
    result = found["bare"]
    first = next(iter(result["medians"]))
    lines = [
        [name, f"{rate:.0f}", f"{min(result['values'][name]):.0f} to {max(result['values'][name]):.0f}",
         f"{result['ratios'][name][first]:.2f}"]
        for name, rate in result["medians"].items()
    ]  # fmt: skip
    return (
        f"### The bare step\n\n{result['what'][0].upper()}{result['what'][1:]}; cl is channels-last, compile that of the"
        f" body. Medians of {result['n']} rounds in which all take turns.\n\n"
        + grid(["variant", "images a second", "least to most", f"of {first}"], lines)
        + f"\n\n{basis(result)}"
    )


def agreement(found: dict[str, Any]) -> str:
    if "agreement" not in found:
        return ""
    result = found["agreement"]
    kinds = ("old", "new", "all", "old among old")
    lines = []
    for method in dict.fromkeys(cell["method"] for cell in result["cells"]):
        sides: dict[str, dict[int, dict[str, float]]] = {}
        for side in dict.fromkeys(cell["side"] for cell in result["cells"]):
            cells = [c for c in result["cells"] if (c["method"], c["side"]) == (method, side)]
            sides[side] = {c["seed"]: {k: 100 * c[k] for k in kinds} for c in cells}
            percents = list(sides[side].values())
            if not percents:
                continue
            lines.append(
                [method if side == "avalanche" else "", side, *(over(percents, k) for k in kinds), str(len(cells))]
            )
        mine, rival = sides["ours, rows at random"], sides["avalanche"]
        gains = [{k: mine[s][k] - rival[s][k] for k in kinds} for s in sorted(mine.keys() & rival.keys())]
        lines.append(["", "the second less the first, seed by seed", *(over(gains, k) for k in kinds), str(len(gains))])
    return (
        f"### The same accuracies\n\n{result['what']}. No old image is shown again, so the new classes win every test image;"
        " what is left of the old ones shows among themselves.\n\n"
        + grid(["method", "by", *kinds, "seeds"], lines)
        + f"\n\n{basis(result)}"
    )


def streaming(found: dict[str, Any]) -> str:
    if "streaming" not in found:
        return ""
    result = found["streaming"]
    lines = [
        [name, f"{rate:.0f}", f"{result['ratios'][name][name.split()[0] + ' in memory']:.2f}"]
        for name, rate in result["medians"].items()
    ]
    peak = ""
    if "peaks" in result:
        size = {name: f"{count / 1e6:.0f} MB" for name, count in result["peaks"].items()}
        peak = (
            f" A set of {size['of pixels']}, read in a process of its own, adds {size['peak in memory']} to its peak"
            f" from memory and {size['peak streaming']} streaming under a budget of {size['budget']}."
        )
    return (
        f"### Streaming\n\n{result['what'][0].upper()}{result['what'][1:]}.{peak}\n\n"
        + grid(["what", "images a second", "of the rate in memory"], lines)
        + f"\n\n{basis(result)}"
    )


def looking(found: dict[str, Any]) -> str:
    """Filled by benchmarks/looking.py."""
    if "looking" not in found:
        return ""
    result = found["looking"]
    first = next(iter(result["medians"]))
    lines = [[name, f"{rate:.0f}", f"{result['ratios'][name][first]:.2f}"] for name, rate in result["medians"].items()]
    return (
        f"### Looking\n\n{result['what'][0].upper()}{result['what'][1:]}; medians of {result['n']} rounds, each turn a process"
        f" of its own, {result['threads']} threads.\n\n"
        + grid(["what", "images a second", "of the first"], lines)
        + f"\n\n{basis(result)}"
    )


def growth(found: dict[str, Any]) -> str:
    if "growth" not in found:
        return ""
    result = found["growth"]
    lines = []
    for row in result["rows"]:
        for point in row["points"]:
            megabytes = f"{point['more bytes'] / 2**20:.0f}"
            lines.append([row["row"], f"{point['size']:,} {row['of']}", f"{point['seconds']:.2f}", megabytes])
        lines[-1].append(f"{row['exponent']:.2f}")
    for line in lines:
        line.extend([""] * (5 - len(line)))
    return (
        f"### Growth\n\n{result['what'][0].upper()}{result['what'][1:]}. Exponent: the slope in logarithms between the two"
        " largest sizes; 1 is linear, 2 quadratic.\n\n![Seconds over size](growth.svg)\n\n"
        + grid(["what", "size", "seconds", "more memory, MB", "exponent"], lines)
        + f"\n\n{basis(result)}"
    )


def kills(found: dict[str, Any]) -> str:
    if "kills" not in found:
        return ""
    r = found["kills"]
    return (
        f"### Kills\n\n{r['what']}: {r['kills']} kills in {r['trials']} runs of {r['seconds']:.1f} s; {r['same']} of"
        f" {r['trials']} ended with the weights and history of the unbroken run, bit for bit.\n\n{basis(r)}"
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
    return f"\n{head}\n\n"


if __name__ == "__main__":
    main()
