"""What is kept of old classes, in features and memories, and adaptation without original data."""

from __future__ import annotations

from typing import Any

from sections.writing import basis, grid, over

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
        title = {"memories-cifar": "CIFAR-10", "memories-tiny": "Tiny-ImageNet"}[name]
        head = (
            f"## Memories of {title} classes\n\n{result['what'][0].upper()}{result['what'][1:]}. Bytes kept of each old"
            f" class, and their share of the bytes of every real feature.{added}\n\n![Harmonic mean over bytes]({name}.svg)\n\n"
        )
        parts.append(head + grid(["method", "photos", "bytes", *keys, "draws"], lines) + f"\n\n{basis(result)}")
    return "\n\n".join(parts)


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
