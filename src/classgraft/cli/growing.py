"""Commands that make a bundle, grow it, and change its classes."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from classgraft.cli.options import (
    ArchArg,
    AugmentName,
    BatchSize,
    BundleArgument,
    Copy,
    Device,
    Epochs,
    Images,
    Method,
    Milestones,
    OfChannels,
    Out,
    Precision,
    Rate,
    Resize,
    RunFolder,
    Seed,
    Set,
    Shots,
    Size,
    Stretch,
    Strict,
    WeightDecay,
)
from classgraft.cli.running import changing, recipe, running, settings_of
from classgraft.cli.terminal import progress, warn


def import_(
    source: Annotated[str, typer.Argument(help="timm:NAME, torchvision:NAME, hf:ID-or-folder or cifar:NAME")],
    out: Out,
    weights: Annotated[Path | None, typer.Option(help=".safetensors, or a torch file of tensors (hf: its own)")] = None,
    classes: Annotated[
        Path | None, typer.Option(help="text file of class names, one a line, in head order (hf: its own)")
    ] = None,
    arch_arg: ArchArg = [],  # noqa: B006
    mean: OfChannels = None,
    std: OfChannels = None,
    size: Size = None,
    resize: Resize = None,
    stretch: Stretch = None,
    head: Annotated[str | None, typer.Option(help="the layer that gives the logits, where it cannot be found")] = None,
) -> None:
    """Make a bundle of a trained classifier."""
    from classgraft import api
    from classgraft.models.sources import argument

    api.check_place(out)
    bundle = api.import_model(
        source,
        weights,
        classes,
        arguments=dict(map(argument, arch_arg)),
        head=head,
        mean=mean,
        std=std,
        size=size,
        resize=resize,
        stretched=stretch,
        warn=warn,
    )
    api.save(bundle, out)
    print(f"{out}: {source} with {len(bundle.classes)} classes, {bundle.preparation.size} pixels, head '{bundle.head}'")


def remember(
    bundle: BundleArgument,
    images: Annotated[
        str, typer.Argument(help="images of the old classes: a folder with one folder a class, a .parquet file ...")
    ],
    method: Annotated[str, typer.Option(help="the method that will extend; see classgraft methods")],
    set_: Set = [],  # noqa: B006
    out: Copy = None,
    device: Device = None,
    strict: Strict = False,
) -> None:
    """Keep what a method needs of the old images, while they are there."""
    from classgraft import api

    with running(device, None), progress():
        before, save = changing(bundle, out)
        after = api.remember(before, images, method, settings_of(set_), strict=strict, warn=warn)
    save(after)
    print(after.history[-1]["sentence"])


def extend(
    bundle: BundleArgument,
    photos: Images,
    out: Annotated[Path, typer.Option(help="folder to write the grown bundle to")],
    method: Method = "auto",
    shots: Shots = None,
    seed: Seed = 0,
    old_images: Annotated[
        list[str], typer.Option(help="images of the old classes: remember runs on them first; repeatable")
    ] = [],  # noqa: B006
    unlabelled: Annotated[
        str | None, typer.Option(help="pictures without labels; those that are surely of a new class count as photos")
    ] = None,
    enrich: Annotated[int, typer.Option(help="pictures to make of each class first, between its photos", min=0)] = 0,
    update: Annotated[
        bool, typer.Option("--update", help="photos may be of classes that an extension added; refine these")
    ] = False,
    epochs: Epochs = None,
    batch_size: BatchSize = None,
    lr: Rate = None,
    weight_decay: WeightDecay = None,
    milestones: Milestones = None,
    augment: AugmentName = None,
    set_: Set = [],  # noqa: B006
    device: Device = None,
    precision: Precision = None,
    run_folder: RunFolder = None,
    strict: Strict = False,
) -> None:
    """Add classes from a few photos."""
    from classgraft import api

    started = time.perf_counter()
    settings = recipe(epochs, batch_size, lr, weight_decay, milestones, augment) | settings_of(set_)
    with running(device, precision, run_folder, f"{method} {settings} {shots} {seed} {enrich}"), progress():
        base, save = changing(bundle, out)
        grown = api.extend(
            base, photos, method=method, settings=settings, shots=shots, seed=seed, old_images=old_images or None,
            unlabelled=unlabelled, enrich=enrich, update=update, strict=strict, warn=warn,
        )  # fmt: skip
    save(grown)
    event = grown.history[-1]
    print(f"{event['sentence']} ({event['why']}) in {time.perf_counter() - started:.1f} s")
    new = event["classes"] or event["updated"]
    print(f"{out}: {len(grown.classes)} classes, {'new' if event['classes'] else 'refined'}: {', '.join(new)}")


def undo(
    bundle: BundleArgument,
    out: Copy = None,
) -> None:
    """Take back the last extension, removal, renaming or merging."""
    from classgraft import api

    before, save = changing(bundle, out)
    save(api.undo(before))
    print(f"taken back: {before.history[-1]['sentence']}")


def remove(
    bundle: BundleArgument,
    name: Annotated[str, typer.Argument(help="the class, by its exact name")],
    out: Copy = None,
) -> None:
    """Remove a class; the others keep their order."""
    from classgraft import api

    before, save = changing(bundle, out)
    smaller = api.remove(before, name)
    save(smaller)
    print(f"{smaller.history[-1]['sentence']}; {len(smaller.classes)} are left")


def rename(
    bundle: BundleArgument,
    old: Annotated[str, typer.Argument(help="the class, by its exact name", metavar="OLD")],
    new: Annotated[str, typer.Argument(help="its new name", metavar="NEW")],
    out: Copy = None,
) -> None:
    """Give a class another name."""
    from classgraft import api

    before, save = changing(bundle, out)
    renamed = api.rename(before, old, new)
    save(renamed)
    print(renamed.history[-1]["sentence"])


def merge(
    bundle: BundleArgument,
    first: Annotated[str, typer.Argument(help="a class, by its exact name", metavar="A")],
    second: Annotated[str, typer.Argument(help="the class to count as A from now on", metavar="B")],
    name: Annotated[str | None, typer.Option(help="of the two together (A's)")] = None,
    out: Copy = None,
) -> None:
    """Make two classes one, whose probability is the sum of theirs."""
    from classgraft import api

    before, save = changing(bundle, out)
    merged = api.merge(before, first, second, name)
    save(merged)
    print(f"{merged.history[-1]['sentence']}; {len(merged.classes)} are left")
