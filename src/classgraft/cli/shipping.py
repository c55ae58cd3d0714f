"""Commands that bring a bundle to where it is used."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from classgraft.cli.options import BundleArgument, Device, Method, Set
from classgraft.cli.running import load, placed, running, settings_of
from classgraft.cli.terminal import progress, warn
from classgraft.errors import InputError


def export(
    bundle: BundleArgument,
    format_: Annotated[str, typer.Option("--format", help="timm, hf, onnx or torch-export")],
    out: Annotated[Path, typer.Option(help="a new folder to write to")],
    images: Annotated[
        str | None, typer.Option(help="pictures to check the export on (generated ones); a folder, a .parquet file ...")
    ] = None,
) -> None:
    """Write the model for other tools, and check that it answers there as it does here."""
    from classgraft import api
    from classgraft.storage import check_beside

    check_beside(out)
    with progress():
        parity = api.export(load(bundle), format_, out, images, warn=warn)
    print(f"{out}: written as {format_}; {parity.sentence}")


def serve(
    bundle: BundleArgument,
    images: Annotated[
        list[str], typer.Option(help="labelled images to measure proposals on, one folder a class; repeatable")
    ] = [],  # noqa: B006
    host: Annotated[str, typer.Option(help="name or address to listen on")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="of it; 0 for any that is free", min=0, max=65535)] = 8000,
    method: Method = "auto",
    set_: Set = [],  # noqa: B006
    device: Device = None,
) -> None:
    """Show a page on this machine, to try the model on pictures and to teach it classes with photos."""
    from importlib.util import find_spec

    missing = [name for name in ("fastapi", "uvicorn", "python_multipart") if find_spec(name) is None]
    if missing:
        raise InputError(f"The page needs {' and '.join(missing)}; install with: pip install 'classgraft[serve]'.")
    from classgraft.serving.app import run
    from classgraft.serving.desk import Desk

    with running(device, None):
        desk = Desk(bundle, images=images, method=method, settings=settings_of(set_), placed=placed, warn=warn)
        try:
            run(desk, host, port, lambda at: print(f"{at} shows {bundle}; Ctrl-C ends it", flush=True), warn)
        finally:
            desk.close()
