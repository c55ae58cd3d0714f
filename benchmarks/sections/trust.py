"""What a bundle promises, and what it stands."""

from __future__ import annotations

from typing import Any

from sections.writing import basis, grid


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
