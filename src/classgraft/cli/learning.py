"""Commands that train a network: from few images, from unlabelled ones, from another network."""

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
from classgraft.cli.running import changing, placed, recipe, running, settings_of
from classgraft.cli.terminal import command, progress, warn
from classgraft.errors import InputError


def train(
    images: Images,
    arch: Annotated[str, typer.Option(help="timm:NAME, torchvision:NAME, hf:ID-or-folder or cifar:NAME")],
    out: Out,
    weights: Annotated[
        Path | None, typer.Option(help="of a trained network, whose head is replaced (from scratch without)")
    ] = None,
    method: Method = "plain",
    shots: Shots = None,
    mean: OfChannels = None,
    std: OfChannels = None,
    size: Size = None,
    resize: Resize = None,
    stretch: Stretch = None,
    arch_arg: ArchArg = [],  # noqa: B006
    epochs: Epochs = None,
    batch_size: BatchSize = None,
    lr: Rate = None,
    weight_decay: WeightDecay = None,
    milestones: Milestones = None,
    augment: AugmentName = None,
    seed: Seed = 0,
    set_: Set = [],  # noqa: B006
    device: Device = None,
    precision: Precision = None,
    run_folder: RunFolder = None,
    strict: Strict = False,
) -> None:
    """Train a classifier from labelled images: from scratch, or from a trained network."""
    from classgraft import api, teaching
    from classgraft.data.sources import open_sources
    from classgraft.models.sources import argument

    started = time.perf_counter()
    api.check_place(out)
    settings = recipe(epochs, batch_size, lr, weight_decay, milestones, augment, seed) | settings_of(set_)
    with running(device, precision, run_folder, f"train {method} {settings} {shots}"), progress():
        source = open_sources(images)
        bundle = teaching.start(
            arch, source.classes, weights, arguments=dict(map(argument, arch_arg)), size=size, resize=resize,
            mean=mean, std=std, stretched=stretch, seed=seed, warn=warn,
        )  # fmt: skip
        known = api.images_of(source, bundle.preparation, strict=strict, warn=warn)
        bundle = teaching.train(placed(bundle), known, method, settings, shots=shots, warn=warn)
    api.save(bundle, out)
    print(f"{bundle.history[-1]['sentence']} in {time.perf_counter() - started:.1f} s")
    print(f"{out}: {arch} with {len(bundle.classes)} classes, {bundle.preparation.size} pixels")


def self_train(
    bundle: BundleArgument,
    labelled: Annotated[str, typer.Argument(help="a folder with one folder a class, a .parquet file, hf:ID ...")],
    unlabelled: Annotated[str, typer.Argument(help="a folder of pictures, a .parquet file ... (labels are not read)")],
    out: Out,
    method: Method = "pseudo-labels",
    student: Annotated[
        str | None, typer.Option(help="timm:NAME, cifar:NAME ..., fresh, in place of the model itself")
    ] = None,
    arch_arg: ArchArg = [],  # noqa: B006
    epochs: Epochs = None,
    batch_size: BatchSize = None,
    lr: Rate = None,
    weight_decay: WeightDecay = None,
    milestones: Milestones = None,
    augment: AugmentName = None,
    seed: Seed = 0,
    set_: Set = [],  # noqa: B006
    device: Device = None,
    precision: Precision = None,
    run_folder: RunFolder = None,
    strict: Strict = False,
) -> None:
    """Train on a few labelled and many unlabelled images; an epoch is a pass over whichever are more."""
    from classgraft import teaching
    from classgraft.models.sources import argument

    started = time.perf_counter()
    if arch_arg and student is None:
        raise InputError(
            "--arch-arg is of a fresh network, and none is asked for; name it with --student, or leave it out."
        )
    settings = recipe(epochs, batch_size, lr, weight_decay, milestones, augment, seed) | settings_of(set_)
    with running(device, precision, run_folder, f"self-train {method} {settings} {student}"), progress():
        (model, save), pupil = changing(bundle, out), None
        if student is not None:
            fresh = teaching.start(
                student,
                model.classes,
                arguments=dict(map(argument, arch_arg)),
                preparation=model.preparation,
                seed=seed,
            )
            pupil = placed(fresh)
        trained = teaching.self_train(
            model, labelled, unlabelled, method, settings, student=pupil, strict=strict, warn=warn
        )
    save(trained)
    print(f"{trained.history[-1]['sentence']} in {time.perf_counter() - started:.1f} s")
    print(f"{out}: {trained.architecture.source} with {len(trained.classes)} classes")


def latent(
    images: Images,
    out: Annotated[Path, typer.Option(help="the page")] = Path("latent.html"),
    arch: Annotated[str, typer.Option(help="as of train; its preprocessing sizes the pictures")] = "cifar:resnet20",
    weights: Annotated[Path | None, typer.Option(help="of a trained network, whose maps compare pictures")] = None,
    shots: Shots = None,
    size: Size = None,
    arch_arg: ArchArg = [],  # noqa: B006
    seed: Seed = 0,
    set_: Set = [],  # noqa: B006
    device: Device = None,
    strict: Strict = False,
) -> None:
    """Write a page of what glico learns of a few images: pictures between them, and its latent space by class."""
    from classgraft import api, teaching
    from classgraft.data.sources import open_sources
    from classgraft.latent_page import of_latent
    from classgraft.models.sources import argument
    from classgraft.storage import check_text, write_text

    check_text(out)
    with running(device, None), progress():
        source = open_sources(images)
        bundle = teaching.start(
            arch, source.classes, weights, arguments=dict(map(argument, arch_arg)), size=size, seed=seed, warn=warn
        )
        known = api.images_of(source, bundle.preparation, strict=strict, warn=warn)
        known, settings = known.shots(shots, seed) if shots else known, {"seed": seed} | settings_of(set_)
        html = of_latent(placed(bundle), known, settings, command=command())
    write_text(html, out)
    print(out)


def distill(
    teacher: Annotated[Path, typer.Argument(help="folder of the model to learn from", metavar="TEACHER")],
    images: Annotated[
        str,
        typer.Argument(help="a folder with one folder a class, a .parquet file ..., or a folder of unlabelled images"),
    ],
    student: Annotated[
        str, typer.Option(help="a fresh network, as timm:NAME, or a bundle that starts from its weights")
    ],
    out: Annotated[Path, typer.Option(help="folder to write the student's bundle to")],
    method: Method = "kd",
    arch_arg: ArchArg = [],  # noqa: B006
    epochs: Epochs = None,
    batch_size: BatchSize = None,
    lr: Rate = None,
    weight_decay: WeightDecay = None,
    milestones: Milestones = None,
    augment: AugmentName = None,
    seed: Seed = 0,
    set_: Set = [],  # noqa: B006
    unlabelled: Annotated[
        bool, typer.Option("--unlabelled", help="do not look at labels: images of any classes are fine")
    ] = False,
    skip_unknown: Annotated[
        bool, typer.Option("--skip-unknown", help="leave out images of classes the teacher lacks")
    ] = False,
    device: Device = None,
    precision: Precision = None,
    run_folder: RunFolder = None,
    strict: Strict = False,
) -> None:
    """Shrink a model: teach another network its classes, from images with or without labels."""
    from classgraft import shrinking
    from classgraft.models.sources import argument

    started = time.perf_counter()
    if arch_arg and Path(student).is_dir():
        raise InputError(f"--arch-arg is of a fresh network, and '{student}' is a folder with one; leave it out.")
    settings = recipe(epochs, batch_size, lr, weight_decay, milestones, augment) | settings_of(set_)
    with running(device, precision, run_folder, f"distill {method} {student} {arch_arg} {settings} {seed}"), progress():
        model, save = changing(teacher, out)
        learnt = shrinking.distill(
            model, images, student, method=method, settings=settings,
            arguments=dict(map(argument, arch_arg)), seed=seed, unlabelled=unlabelled, skip_unknown=skip_unknown,
            strict=strict, warn=warn,
        )  # fmt: skip
    save(learnt)
    print(f"{learnt.history[-1]['sentence']}, in {time.perf_counter() - started:.1f} s")
    print(f"{out}: {learnt.architecture.source} with {len(learnt.classes)} classes")
