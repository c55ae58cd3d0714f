"""Commands that ask a bundle: how right it is, what is in pictures, whether it is whole."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from classgraft.cli.options import BundleArgument, Images, Json, SkipUnknown, Strict
from classgraft.cli.running import load
from classgraft.cli.terminal import command, progress, table, warn


def evaluate(
    bundle: BundleArgument,
    images: Images,
    json_: Json = False,
    skip_unknown: SkipUnknown = False,
    strict: Strict = False,
) -> None:
    """Measure accuracy on labelled images: old classes, new classes, harmonic mean, all."""
    from classgraft import api

    with progress():
        result = api.evaluate(load(bundle), *images, skip_unknown=skip_unknown, strict=strict, warn=warn)
    if json_:
        print(json.dumps(result.summary(), ensure_ascii=False))
    else:
        table([("", result)])


def predict(
    bundle: BundleArgument,
    files: Annotated[list[str], typer.Argument(help="pictures, folders of pictures, or sources as of evaluate")],
    top: Annotated[int, typer.Option(help="classes to show for each", min=1)] = 5,
    json_: Json = False,
    strict: Strict = False,
) -> None:
    """Name what is in pictures; "unknown" is from 0 to 1 and higher where it may be none of the model's classes."""
    from classgraft import api

    with progress():
        found = api.predict(load(bundle), files, top, strict=strict, warn=warn)
    if json_:
        rows = [
            {"file": p.name, "classes": dict(zip(p.classes, p.probabilities, strict=True)), "unknown": p.unknown}
            for p in found
        ]
        print(json.dumps(rows, ensure_ascii=False))
        return
    for p in found:
        shown = ", ".join(f"{name} {value:.1%}" for name, value in zip(p.classes, p.probabilities, strict=True))
        print(f"{p.name}: {shown} (unknown {p.unknown:.2f})")


def report(
    bundle: BundleArgument,
    images: Images,
    out: Annotated[Path | None, typer.Option(help="the page (BUNDLE/report.html)")] = None,
    skip_unknown: SkipUnknown = False,
) -> None:
    """Write a page that shows what the last extension gave and what it cost, on labelled images."""
    from classgraft.pages import of_extension
    from classgraft.storage import check_text, write_text

    page = out or bundle / "report.html"
    with progress():
        base = load(bundle)
        check_text(page)
        html = of_extension(base, images, skip_unknown=skip_unknown, command=command(), warn=warn)
    write_text(html, page)
    print(page)


def verify(
    bundle: BundleArgument,
    images: Annotated[
        str | None, typer.Option(help="pictures to compare on as well; old ones in one folder a class show the change")
    ] = None,
) -> None:
    """Check that a bundle is whole and keeps what its model card promises."""
    from classgraft import api

    with progress():
        found = api.verify(bundle, images, warn=warn)
    print("\n".join(found))
