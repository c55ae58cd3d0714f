"""Speed."""

from __future__ import annotations

from typing import Any

from sections.writing import basis, grid, over


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
    tables = [one_bare(found[name]) for name in sorted(found) if name.startswith("bare")]
    head = (
        "### The bare step\n\ncl is channels-last, compile that of the body; ours: the body as a long run of ours has it, in"
        " bf16 but for depthwise convolutions. Medians of rounds in which all take turns."
    )
    return "\n\n".join([head, *tables]) if tables else ""


def one_bare(result: dict[str, Any]) -> str:
    first = next(iter(result["medians"]))
    lines = [
        [name, f"{rate:.0f}", f"{min(result['values'][name]):.0f} to {max(result['values'][name]):.0f}",
         f"{result['ratios'][name][first]:.2f}"]
        for name, rate in result["medians"].items()
    ]  # fmt: skip
    return (
        f"{result['what'][0].upper()}{result['what'][1:]}; {result['n']} rounds, {result['machine']['threads']} threads.\n\n"
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
