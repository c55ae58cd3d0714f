"""Classes that come in steps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch

from classgraft.metrics.intervals import student_interval
from classgraft.metrics.tradeoff import frontier, unreached
from sections.writing import above, basis, gains, grid, over, processors, spread, verdict

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
            name = f"{way}, of other classes than are tested" if (pair, way) == ("flowers", "joint") else way
            lines.append(
                [name, *shown, over(sizes, "seconds"), over(sizes, "ms"), over(sizes, "bytes"), kept, str(len(draws))]
            )
        if lines:
            before = sum(row["old before"] for row in rows) / len(rows)
            head = ["way", "old", "new", "seconds to learn", "ms an image", "MiB stored", "old images needed", "seeds"]
            n = result["n"][pair]
            right = {"old": before / 100, "new": next(row["new"] for row in rows if row["way"] == "LwF") / 100}
            noise = {key: 196 * math.sqrt(p * (1 - p) / n[key]) for key, p in right.items()}
            parts.append(
                f"### {title}\n\nn = {n['old']} old and {n['new']} new test images; {before:.1f} % of the old ones before."
                f" So many images alone leave an accuracy uncertain by {noise['old']:.1f} points of old and {noise['new']:.1f}"
                f" of new. A difference between two ways is surer than that, for both are asked the same images, and by how"
                f" much was not kept.\n\n{grid(head, lines)}"
            )
    return (
        "## Ways to learn a second task\n\nAfter table 1 of Learning without Forgetting: LwF in per cent, the others as"
        " differences to it. Each task answers among its own classes, so the task is known. Times are of one thread beside"
        " other jobs: those of asking one and the same network scatter by a factor of two. Duplicating asks two networks.\n\n"
        + "\n\n".join(parts)
        + f"\n\n{basis(result)}"
    )


SIZED = ("exemplars", "icarl", "wa", "der")
"""Of which there are rows of other sizes in benchmarks/stream.py."""


ALIKE = ("finetune", "lwf", "ewc", "mas", "joint", "exemplars", "wa", "bic", "der")
"""Methods whose first step is plain training, but for where rows start and which of them have a bias."""


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
        if not other or name not in SIZED:
            kept, minutes = f"{mean['bytes'] / 2**20:.1f}", f"{mean['seconds'] / 60:.0f}"
            learners.append(
                [*row, over(shown, "forgetting"), kept, minutes, processors({**result, "rows": draws}), str(len(draws))]
            )
        if name in SIZED:
            thousands = over([{"": row["parameters"] / 1000} for row in draws], "")
            whole = f"{(mean['bytes'] + mean['model_bytes']) / 2**20:.1f}"
            sized.append([*row, thousands, whole, str(len(draws))])
    first = [100 * row["seen"][0] for row in result["rows"] if row["method"] in ALIKE and row.get("seen")]
    spread = (
        f" The first ten classes, which {len(first)} of these runs learn alike but for chance and for how their rows begin, are"
        f" between {min(first):.0f} and {max(first):.0f} % right, so that of one seed each a few points say nothing."
        if first
        else ""
    )
    parts = [
        f"## A stream of Tiny-ImageNet classes\n\n{result['what']}; {result['n']:,} test images after the last step. One recipe"
        " for all. Average: mean over the steps of the accuracy on all classes so far; old, new and harmonic mean after the"
        " last. Methods that leave the body alone have it from the first step of fine-tuning. Minutes are of one thread"
        f" beside one to three other jobs.{spread}",
        grid(["method", *keys, "forgetting", "memory, MiB", "minutes", "on", "seeds"], learners),
        *beside_exemplars(result["rows"]),
    ]
    if any(method.startswith("der") for method, *_ in sized):
        parts += [
            "### Bytes and parameters\n\nThe rows of one budget of exemplars, and those whose model and memory together take as"
            " many bytes as DER's. Parameters of the model that answers after the last step; masks with four weights of the"
            " sparsity loss.\n\n![Average accuracy over parameters](stream.svg)",
            grid(["method", *keys, "thousand parameters", "model and memory, MiB", "seeds"], sized),
        ]
    return "\n\n".join([*parts, basis(result)])


def beside_exemplars(rows: Sequence[dict[str, Any]]) -> list[str]:
    """Differences from plain exemplars at the same seed, of what was run at more than one."""
    of_method: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        shown = {"seed": row["seed"], **{key: 100 * row[key] for key in ("average", "last")}}
        of_method.setdefault(row["method"], []).append(shown)
    plain = of_method.pop("exemplars", [])
    seeds = {row["seed"] for row in plain}
    shared = {
        method: own
        for method, draws in of_method.items()
        if len(own := [row for row in draws if row["seed"] in seeds]) > 1
    }
    if not shared:
        return []
    less = {method: {key: above(draws, plain, key) for key in ("average", "last")} for method, draws in shared.items()}
    told = " ".join(
        f"{key.capitalize()}: {verdict('exemplars', {method: own[key] for method, own in less.items()})}."
        for key in ("average", "last")
    )
    lines = [[method, *map(spread, own.values()), str(len(shared[method]))] for method, own in less.items()]
    return [
        f"### Beside exemplars\n\nDifferences from plain training on new images and exemplars, paired by seed. {told}",
        grid(["method", "average", "last", "seeds"], lines),
    ]


def leaders(found: dict[str, Any]) -> str:
    """Every learner of the stream by what it ends with, the best first."""
    if "stream" not in found:
        return ""
    lines = []
    for method in dict.fromkeys(row["method"] for row in found["stream"]["rows"] if "," not in row["method"]):
        draws = [row for row in found["stream"]["rows"] if row["method"] == method]
        keys = ("last", "average", "old", "new", "harmonic")
        shown = [{key: 100 * row[key] for key in keys} for row in draws]
        size, kept = (sum(row[key] for row in draws) / len(draws) / 2**20 for key in ("model_bytes", "bytes"))
        last = sum(row["last"] for row in draws) / len(draws)
        lines.append(
            (last, [method, *(over(shown, key) for key in keys), f"{size:.1f}", f"{kept:.1f}", str(len(draws))])
        )
    lines.sort(key=lambda line: -line[0])
    head = ["method", "last", "average", "old", "new", "harmonic", "model, MiB", "memory, MiB", "seeds"]
    return f"\n{grid(head, [line for _, line in lines])}\n\n"


def reference(found: dict[str, Any]) -> str:
    """Filled by benchmarks/reference.py: the same streams by other libraries."""
    if "reference" not in found:
        return ""
    result, lines = found["reference"], []
    for method in dict.fromkeys(row["method"] for row in result["rows"]):
        sides: dict[str, dict[int, dict[str, Any]]] = {}
        for row in (row for row in result["rows"] if row["method"] == method):
            percent = {key: 100 * row[key] for key in ("average", "last")}
            sides.setdefault(row["side"], {})[row["seed"]] = {**row, **percent}
        for side, rows in sorted(sides.items(), key=lambda pair: pair[0] == "ours"):
            draws = list(rows.values())
            timed = [
                row["seconds"] / 60 for row in draws if "seconds" in row
            ]  # not beside more jobs than there are threads
            minutes = f"{sum(timed) / len(timed):.1f}" if timed else "-"
            shown = [over(draws, "average"), over(draws, "last"), minutes, processors({**result, "rows": draws})]
            lines.append([method, side, *shown, str(len(draws))])
        for side in (side for side in sides if side != "ours"):
            both = sorted(sides.get("ours", {}).keys() & sides[side].keys())
            ours, theirs = ([sides[one][seed] for seed in both] for one in ("ours", side))
            if both:
                less = [gains(ours, theirs, key) for key in ("average", "last")]
                lines.append([method, f"ours less {side}", *less, "", "", str(len(both))])
    versions = sorted({row["versions"]["avalanche"] for row in result["rows"] if row["side"] == "avalanche"})
    rivals = [f"Avalanche {', '.join(versions)}"] if versions else []
    rivals += ["PyCIL's code"] if any(row["side"] == "pycil" for row in result["rows"]) else []
    return (
        f"## Streams beside Avalanche and PyCIL\n\n{result['what']}; {result['n']:,} test images. The same images, order,"
        f" network and recipe by {' and by '.join(rivals)}; benchmarks/reference.py says where they cannot be the same. The"
        " rate of 0.1 is five times that of iCaRL's authors, on both sides. Minutes are of one thread beside one other"
        " job, of the runs that had no more beside them.\n\n"
        f"{grid(['method', 'side', 'average', 'last', 'minutes', 'on', 'seeds'], lines)}\n\n{basis(result)}"
    )


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


def at_their_best(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Of each method the rows at the rate that is best on held-out images, where there are several."""
    best = {}
    for method in dict.fromkeys(row["method"] for row in rows):
        rates: dict[float, list[float]] = {}
        for row in rows:
            if row["method"] == method:
                rates.setdefault(row["rate"], []).append(row.get("held", 0.0))
        best[method] = max(rates, key=lambda rate: sum(rates[rate]) / len(rates[rate]))
    return [row for row in rows if row["rate"] == best[row["method"]]]


def masks(found: dict[str, Any]) -> str:
    """Filled by benchmarks/masks.py."""
    if "masks" not in found:
        return ""
    result, sections = found["masks"], []
    for part, (title, keys) in MASKED.items():
        rows = at_their_best([row for row in result["rows"] if row["part"] == part])
        if not rows:
            continue
        lines = []
        for method in dict.fromkeys(row["method"] for row in rows):
            draws = [row for row in rows if row["method"] == method]
            lines.append([method, f"{draws[0]['rate']:g}", *(over(draws, key) for key in keys), str(len(draws))])
        counts = ", ".join(f"{value} {key}" for key, value in rows[0]["n"].items())
        before = f" ImageNet's own before: {rows[0]['old before']:.1f}." if "old before" in rows[0] else ""
        if part == "flowers":
            n, right = rows[0]["n"]["new"], sum(row["own"] for row in rows) / len(rows) / 100
            before += (
                f" All seeds share all photos: ± is of how they are learnt, not of which they are, and {n} test images"
                f" alone leave an accuracy uncertain by {196 * math.sqrt(right * (1 - right) / n):.1f} points."
            )
        figure = "![Accuracy over capacity](gates.svg)\n\n" if part == "gates" else ""
        table = grid(["method", "rate", *keys.values(), "seeds"], lines)
        sections.append(f"### {title}\n\nImages: {counts}.{before}\n\n{figure}{table}")
    return f"## Masks and gates\n\n{result['what']}\n\n" + "\n\n".join(sections) + f"\n\n{basis(result)}"


PERMUTED = {
    "permuted": ("Permuted MNIST: the pixels of each task in another order", "MNIST, pixels in another order"),
    "split": ("Split MNIST: two digits a task, answers among the two", "MNIST, two digits a task"),
}
"""Protocols of benchmarks/permuted.py: titles of their tables and of their drawings."""


def permuted(found: dict[str, Any]) -> str:
    """Filled by benchmarks/permuted.py."""
    if "permuted" not in found:
        return ""
    result, sections, keys = found["permuted"], [], ("average", "backward", "last task")
    for protocol, (title, _) in PERMUTED.items():
        lines = []
        for best in result["chosen"]:
            key = (best["protocol"], best["method"], best["strength"])
            draws = [row for row in result["rows"] if (row["protocol"], row["method"], row["strength"]) == key]
            if best["protocol"] == protocol:
                strength = f"{best['strength']:g}" if best["strength"] else ""
                lines.append([best["method"], strength, *(over(draws, key) for key in keys), str(len(draws))])
        if lines:
            head = ["method", "strength", "average", "backward transfer", "last task", "seeds"]
            figure = f"![Average accuracy over the strength](permuted-{protocol}.svg)"
            sections.append(f"### {title}\n\n{grid(head, lines)}\n\n{figure}")
    n = result["n"]
    return (
        f"## What holding weights keeps\n\n{result['what']} {n['test']:,} test images. Shuffled: the importances of online EWC"
        " dealt out to other weights of the same tensor, the control; l2: every weight held alike.\n\n"
        + "\n\n".join(sections)
        + f"\n\n{basis(result)}"
    )


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
            shown = any((row["method"], row["seed"]) == ("generative replay", 0) for row in rows) and part != "photos"
            figure = f"\n\n![Drawn after each task, a row a task](replay-{drawn}.png)" if shown else ""
            head = ["method", "rate" if part == "photos" else "strength", *keys, "bytes kept", "draws"]
            sections.append(f"### {title}\n\n{rows[0]['n']} test images.\n\n{grid(head, lines)}{figure}")
    return f"## Generative replay\n\n{result['what']}\n\n" + "\n\n".join(sections) + f"\n\n{basis(result)}"


DRIFTS = ("drift", "drift, empty counted")
COMPARED = ("first", "last", "all", "first known", "all known", "same")
SEEN = ("first before", *COMPARED, "empty before", "empty after")
"""Keys of rows of benchmarks/lwm.py; of drifts two digits are shown."""


def fine(values: Sequence[float]) -> str:
    mean, half = student_interval(values) if values else (math.nan, math.nan)
    return "-" if mean != mean else f"{mean:.2f}" if half != half else f"{mean:.2f} ± {half:.2f}"


def attention(found: dict[str, Any]) -> str:
    """Filled by benchmarks/lwm.py."""
    if "lwm" not in found:
        return ""
    result, rows, lines, less = found["lwm"], found["lwm"]["rows"], [], []
    drifts, seen, compared = (
        [key for key in keys if any(key in row for row in rows)] for keys in (DRIFTS, SEEN, COMPARED)
    )
    for method in dict.fromkeys(row["method"] for row in rows):
        draws = [row for row in rows if row["method"] == method]
        shown = [fine([row[key] for row in draws if key in row]) for key in drifts]  # not told where every map is empty
        lines.append([method, *shown, *(over(draws, key) for key in seen), str(len(draws))])
        plain = {row["seed"]: row for row in rows if row["method"] == "lwm, gamma 0"}
        pairs = [(row, plain[row["seed"]]) for row in draws if row["seed"] in plain]
        if pairs and method not in ("lwf", "lwm, gamma 0"):
            there = {key: [(a, b) for a, b in pairs if key in a and key in b] for key in (*drifts, *compared)}
            shown = [fine([a[key] - b[key] for a, b in there[key]]) for key in drifts]
            shown += [gains([a for a, _ in there[key]], [b for _, b in there[key]], key) for key in compared]
            less.append([method, *shown, str(len(pairs))])
    maps = "\n\n".join(
        f"{name}: test images, where the network looked after the first task, and after the last.\n\n![{name}](lwm-{file}.png)"
        for name, method, file in (
            ("Fine-tuning", "finetune", "finetune"),
            ("LwF", "lwf", "lwf"),
            ("LwM, gamma 1", "lwm, gamma 1", "lwm-gamma-1"),
        )
        if any((row["method"], row["seed"]) == (method, 0) for row in rows)
    )
    parts = [
        f"## Attention\n\n{result['what']} {rows[0]['n']:,} test images. ± of a method is mostly of the order of classes; the"
        " second table has differences to gamma 0, which is LwF, of the same seed.",
        grid(["method", *drifts, *seen, "draws"], lines),
        *([grid(["method less gamma 0", *drifts, *compared, "seeds"], less)] if less else []),
    ]
    return "\n\n".join([*parts, maps, basis(result)])


def scatter(rows: Sequence[dict[str, Any]], draws: int = 1000) -> tuple[float, float]:
    """Areas under the frontiers of as many configurations, drawn with replacement: the ends of the middle 95 %."""
    runs = [torch.tensor(row["errors"], dtype=torch.float64) for row in rows]
    runs = [errors[frontier(errors[:, :2])] for errors in runs]  # what its own run beats is on no frontier of several
    generator, areas = torch.Generator().manual_seed(0), []
    for _ in range(draws):
        points = torch.cat([runs[k] for k in torch.randint(len(runs), (len(runs),), generator=generator).tolist()])
        areas.append(unreached(points[frontier(points[:, :2]), 2:]))
    low, high = torch.tensor(areas).quantile(torch.tensor([0.025, 0.975])).tolist()
    return low, high


def dropout(found: dict[str, Any]) -> str:
    """Filled by benchmarks/dropout.py."""
    if "dropout" not in found:
        return ""
    result, sections = found["dropout"], []
    for pair in dict.fromkeys(line["pair"] for line in result["summaries"]):
        lines = []
        for line in (line for line in result["summaries"] if line["pair"] == pair):
            own = [row for row in result["rows"] if (row["pair"], row["arm"]) == (pair, line["arm"])]
            ends = " to ".join(f"{100 * end:.1f}" for end in scatter(own)) if len(own) > 1 else "-"
            area, old, new = (f"{100 * line[key]:.1f}" for key in ("area", "old", "new"))
            lines.append([line["arm"], area, ends, old, new, str(line["width"]), str(line["configurations"])])
        head = ["arm", "area under the frontier", "interval", "old error", "new error", "width", "configurations"]
        sections.append(f"### {pair.capitalize()}\n\n{grid(head, lines)}\n\n![Frontiers of errors](dropout-{pair}.svg)")
    return (
        f"## Dropout against forgetting\n\n{result['what']} Errors and width: of the epoch with the least sum of held-out"
        " errors. Interval: the middle 95 % of 1,000 areas, each of as many configurations drawn with replacement; some of"
        " those are the same, so that it lies rather above the area of all. All in per cent.\n\n"
        + "\n\n".join(sections)
        + f"\n\n{basis(result)}"
    )
