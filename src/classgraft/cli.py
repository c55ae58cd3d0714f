"""The command line: words, progress and exit codes; no mathematics. It imports no torch until a command runs."""

from __future__ import annotations

import contextlib
import io
import json
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from classgraft.errors import InputError

if TYPE_CHECKING:
    from classgraft.bundle import Bundle
    from classgraft.metrics import Evaluation

app = typer.Typer(
    help="Graft new classes onto a trained image classifier: from a few photos, without the old data.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

BundleArgument = Annotated[Path, typer.Argument(help="folder of the model", metavar="BUNDLE")]
Set = Annotated[
    list[str], typer.Option("--set", help="a field of the method, as field=value; repeatable", metavar="FIELD=VALUE")
]
Strict = Annotated[bool, typer.Option("--strict", help="stop at the first corrupt image instead of skipping it")]
Seed = Annotated[int, typer.Option(help="of every draw", min=0, max=2**63 - 1)]
Images = Annotated[
    list[str],
    typer.Argument(
        help="folders with one folder a class, .parquet files, hf:ID[,split=NAME], torchvision:NAME[,root=DIR]"
    ),
]
Json = Annotated[bool, typer.Option("--json", help="print one JSON object on standard output")]


Epochs = Annotated[int | None, typer.Option(help="passes over the images", min=1)]
BatchSize = Annotated[int | None, typer.Option(help="images a step", min=1)]
Rate = Annotated[float | None, typer.Option("--lr", help="learning rate at the start")]
WeightDecay = Annotated[float | None, typer.Option(help="decay of every weight")]
Milestones = Annotated[
    tuple[float, float] | None,
    typer.Option(help="shares of the epochs after which the rate is divided by ten", metavar="FIRST SECOND"),
]
AugmentName = Annotated[str | None, typer.Option("--augment", help="such as none, crop-flip, crop-flip+autoaugment")]
ArchArg = Annotated[
    list[str], typer.Option(help="argument of the network, as key=value; repeatable", metavar="KEY=VALUE")
]
RunFolder = Annotated[
    Path | None, typer.Option(help="keep training safe from a stop here; the same command again goes on")
]
Device = Annotated[str | None, typer.Option(help="cpu, cuda, cuda:1 ... (the accelerator where there is one)")]


def main() -> None:
    """Run a command. Exit code 0: done; 2: the input is at fault, one sentence on standard error; 1: a bug."""
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a terminal may not know every script that names come in
    try:
        code = app(sys.argv[1:] or ["--help"], prog_name="classgraft", standalone_mode=False)
        sys.stdout.flush()
        sys.exit(code)
    except BrokenPipeError:
        _unheard()
    except SystemExit as exit_:
        if not isinstance(exit_.__context__, BrokenPipeError):  # which click and rich make an exit with code 1 of
            raise
        _unheard()
    except Exception as error:
        sentence = _fault(error)
        if not sentence:
            raise
        _say(f"classgraft: {sentence}")
        sys.exit(2)
    except KeyboardInterrupt:
        sys.exit(130)


def _unheard() -> None:
    """Whoever read standard output has left, as ``head`` does: not a fault."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)  # for what Python still flushes when it ends
    sys.exit(0)


def _fault(error: Exception) -> str:
    """What is wrong with the input, in a sentence; empty for what is a bug."""
    if isinstance(error, InputError):
        return str(error)
    if isinstance(error, OSError) and error.filename is not None:
        return f"'{error.filename}' cannot be used: {error.strerror}; choose another path."
    if hasattr(error, "format_message"):  # of the command line's own words
        context = getattr(error, "ctx", None)
        command = context.command_path if context else "classgraft"
        return f"{error.format_message().rstrip('.')}; see {command} --help."
    return ""


@app.command("import")
def import_(
    source: Annotated[str, typer.Argument(help="timm:NAME, torchvision:NAME, hf:ID-or-folder or cifar:NAME")],
    out: Annotated[Path, typer.Option(help="folder to write the bundle to")],
    weights: Annotated[Path | None, typer.Option(help=".safetensors, or a torch file of tensors (hf: its own)")] = None,
    classes: Annotated[
        Path | None, typer.Option(help="text file of class names, one a line, in head order (hf: its own)")
    ] = None,
    arch_arg: ArchArg = [],  # noqa: B006
    mean: Annotated[
        tuple[float, float, float] | None, typer.Option(help="of each channel, in 0..1", metavar="R G B")
    ] = None,
    std: Annotated[
        tuple[float, float, float] | None, typer.Option(help="of each channel, in 0..1", metavar="R G B")
    ] = None,
    size: Annotated[int | None, typer.Option(help="side of the square that the network sees")] = None,
    resize: Annotated[int | None, typer.Option(help="short side before the centre crop")] = None,
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
    )
    api.save(bundle, out)
    print(f"{out}: {source} with {len(bundle.classes)} classes, {bundle.preparation.size} pixels, head '{bundle.head}'")


@app.command()
def extend(
    bundle: BundleArgument,
    photos: Images,
    out: Annotated[Path, typer.Option(help="folder to write the grown bundle to")],
    method: Annotated[str, typer.Option(help="see classgraft methods")] = "auto",
    shots: Annotated[int | None, typer.Option(help="photos to draw of each class (all)")] = None,
    seed: Seed = 0,
    old_images: Annotated[
        list[str], typer.Option(help="images of the old classes: remember runs on them first; repeatable")
    ] = [],  # noqa: B006
    unlabelled: Annotated[
        Path | None, typer.Option(help="pictures without labels; those that are surely of a new class count as photos")
    ] = None,
    enrich: Annotated[int, typer.Option(help="pictures to make of each class first, between its photos", min=0)] = 0,
    update: Annotated[
        bool, typer.Option("--update", help="photos may be of classes that an extension added; refine these")
    ] = False,
    set_: Set = [],  # noqa: B006
    device: Device = None,
    precision: Annotated[str | None, typer.Option(help="fp32 or bf16, of training alone (chosen)")] = None,
    run_folder: RunFolder = None,
    strict: Strict = False,
) -> None:
    """Add classes from a few photos."""
    from classgraft import api

    started = time.perf_counter()
    api.check_place(out)
    with _running(device, precision, run_folder, f"{method} {set_} {shots} {seed} {enrich}"), _progress():
        base = _load(bundle)
        grown = api.extend(
            base, photos, method=method, settings=_settings(set_), shots=shots, seed=seed, old_images=old_images or None,
            unlabelled=unlabelled, enrich=enrich, update=update, strict=strict, warn=_warn,
        )  # fmt: skip
    api.save(grown, out)
    event = grown.history[-1]
    print(f"{event['sentence']} ({event['why']}) in {time.perf_counter() - started:.1f} s")
    new = event["classes"] or event["updated"]
    print(f"{out}: {len(grown.classes)} classes, {'new' if event['classes'] else 'refined'}: {', '.join(new)}")


@app.command()
def remember(
    bundle: BundleArgument,
    images: Annotated[
        Path, typer.Argument(help="images of the old classes: a folder with one folder a class, or a .parquet file")
    ],
    method: Annotated[str, typer.Option(help="the method that will extend; see classgraft methods")],
    set_: Set = [],  # noqa: B006
    out: Annotated[Path | None, typer.Option(help="write a copy instead")] = None,
    device: Device = None,
    strict: Strict = False,
) -> None:
    """Keep what a method needs of the old images, while they are there."""
    from classgraft import api

    with _running(device, None), _progress():
        after = api.remember(_load(bundle), images, method, _settings(set_), strict=strict, warn=_warn)
    api.save(after, out or bundle)
    print(after.history[-1]["sentence"])


@app.command()
def distill(
    teacher: Annotated[Path, typer.Argument(help="folder of the model to learn from", metavar="TEACHER")],
    images: Annotated[
        Path, typer.Argument(help="a folder with one folder a class, a .parquet file, or a folder of unlabelled images")
    ],
    student: Annotated[
        str, typer.Option(help="a fresh network, as timm:NAME, or a bundle that starts from its weights")
    ],
    out: Annotated[Path, typer.Option(help="folder to write the student's bundle to")],
    method: Annotated[str, typer.Option(help="see classgraft methods")] = "kd",
    arch_arg: ArchArg = [],  # noqa: B006
    seed: Seed = 0,
    set_: Set = [],  # noqa: B006
    unlabelled: Annotated[
        bool, typer.Option("--unlabelled", help="do not look at labels: images of any classes are fine")
    ] = False,
    skip_unknown: Annotated[
        bool, typer.Option("--skip-unknown", help="leave out images of classes the teacher lacks")
    ] = False,
    device: Device = None,
    precision: Annotated[str | None, typer.Option(help="fp32 or bf16, of training alone (chosen)")] = None,
    run_folder: RunFolder = None,
    strict: Strict = False,
) -> None:
    """Shrink a model: teach another network its classes, from images with or without labels."""
    from classgraft import api, shrinking
    from classgraft.models.sources import argument

    started = time.perf_counter()
    api.check_place(out)
    with _running(device, precision, run_folder, f"distill {method} {student} {arch_arg} {set_} {seed}"), _progress():
        learnt = shrinking.distill(
            _load(teacher), images, student, method=method, settings=_settings(set_),
            arguments=dict(map(argument, arch_arg)), seed=seed, unlabelled=unlabelled, skip_unknown=skip_unknown,
            strict=strict, warn=_warn,
        )  # fmt: skip
    api.save(learnt, out)
    print(f"{learnt.history[-1]['sentence']}, in {time.perf_counter() - started:.1f} s")
    print(f"{out}: {learnt.architecture.source} with {len(learnt.classes)} classes")


@app.command()
def train(
    images: Images,
    arch: Annotated[str, typer.Option(help="timm:NAME, torchvision:NAME, hf:ID-or-folder or cifar:NAME")],
    out: Annotated[Path, typer.Option(help="folder to write the bundle to")],
    weights: Annotated[
        Path | None, typer.Option(help="of a trained network, whose head is replaced (from scratch without)")
    ] = None,
    method: Annotated[str, typer.Option(help="see classgraft methods")] = "plain",
    shots: Annotated[int | None, typer.Option(help="photos to draw of each class (all)", min=1)] = None,
    size: Annotated[int | None, typer.Option(help="side of the square that the network sees")] = None,
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
    precision: Annotated[str | None, typer.Option(help="fp32 or bf16, of training alone (chosen)")] = None,
    run_folder: RunFolder = None,
    strict: Strict = False,
) -> None:
    """Train a classifier from labelled images: from scratch, or from a trained network."""
    from classgraft import api, teaching
    from classgraft.data.sources import open_sources
    from classgraft.models.sources import argument

    started = time.perf_counter()
    api.check_place(out)
    settings = _recipe(epochs, batch_size, lr, weight_decay, milestones, augment, seed) | _settings(set_)
    with _running(device, precision, run_folder, f"train {method} {settings} {shots}"), _progress():
        source = open_sources(images)
        bundle = teaching.start(
            arch, source.classes, weights, arguments=dict(map(argument, arch_arg)), size=size, seed=seed
        )
        known = api.images_of(source, bundle.preparation, strict=strict, warn=_warn)
        bundle = api.train(_placed(bundle), known.shots(shots, seed) if shots else known, method, settings)
    api.save(bundle, out)
    print(f"{bundle.history[-1]['sentence']} in {time.perf_counter() - started:.1f} s")
    print(f"{out}: {arch} with {len(bundle.classes)} classes, {bundle.preparation.size} pixels")


@app.command()
def latent(
    images: Images,
    out: Annotated[Path, typer.Option(help="the page")] = Path("latent.html"),
    arch: Annotated[str, typer.Option(help="as of train; its preprocessing sizes the pictures")] = "cifar:resnet20",
    weights: Annotated[Path | None, typer.Option(help="of a trained network, whose maps compare pictures")] = None,
    shots: Annotated[int | None, typer.Option(help="photos to draw of each class (all)", min=1)] = None,
    size: Annotated[int | None, typer.Option(help="side of the square that the network sees")] = None,
    arch_arg: ArchArg = [],  # noqa: B006
    seed: Seed = 0,
    set_: Set = [],  # noqa: B006
    device: Device = None,
    strict: Strict = False,
) -> None:
    """Write a page of what glico learns of a few images: pictures between them, and its latent space by class."""
    from classgraft import api, pages, teaching
    from classgraft.data.sources import open_sources
    from classgraft.models.sources import argument

    with _running(device, None), _progress():
        source = open_sources(images)
        bundle = teaching.start(
            arch, source.classes, weights, arguments=dict(map(argument, arch_arg)), size=size, seed=seed
        )
        known = api.images_of(source, bundle.preparation, strict=strict, warn=_warn)
        known, settings = known.shots(shots, seed) if shots else known, {"seed": seed} | _settings(set_)
        html = pages.of_latent(_placed(bundle), known, settings, command=_command())
    pages.write(html, out)
    print(out)


@app.command("self-train")
def self_train(
    bundle: BundleArgument,
    labelled: Annotated[str, typer.Argument(help="a folder with one folder a class, a .parquet file, hf:ID ...")],
    unlabelled: Annotated[Path, typer.Argument(help="a folder of pictures, or a .parquet file (labels are not read)")],
    out: Annotated[Path, typer.Option(help="folder to write the bundle to")],
    method: Annotated[str, typer.Option(help="see classgraft methods")] = "pseudo-labels",
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
    precision: Annotated[str | None, typer.Option(help="fp32 or bf16, of training alone (chosen)")] = None,
    run_folder: RunFolder = None,
    strict: Strict = False,
) -> None:
    """Train on a few labelled and many unlabelled images; epochs are passes over the unlabelled ones."""
    from classgraft import api, teaching
    from classgraft.models.sources import argument

    started = time.perf_counter()
    api.check_place(out)
    settings = _recipe(epochs, batch_size, lr, weight_decay, milestones, augment, seed) | _settings(set_)
    with _running(device, precision, run_folder, f"self-train {method} {settings} {student}"), _progress():
        model, pupil = _load(bundle), None
        if student is not None:
            fresh = teaching.start(
                student,
                model.classes,
                arguments=dict(map(argument, arch_arg)),
                preparation=model.preparation,
                seed=seed,
            )
            pupil = _placed(fresh)
        trained = teaching.self_train(
            model, labelled, unlabelled, method, settings, student=pupil, strict=strict, warn=_warn
        )
    api.save(trained, out)
    print(f"{trained.history[-1]['sentence']} in {time.perf_counter() - started:.1f} s")
    print(f"{out}: {trained.architecture.source} with {len(trained.classes)} classes")


@app.command()
def evaluate(
    bundle: BundleArgument,
    images: Images,
    json_: Json = False,
    skip_unknown: Annotated[
        bool, typer.Option("--skip-unknown", help="leave out images of classes the model lacks")
    ] = False,
    strict: Strict = False,
) -> None:
    """Measure accuracy on labelled images: old classes, new classes, harmonic mean, all."""
    from classgraft import api

    with _progress():
        result = api.evaluate(_load(bundle), *images, skip_unknown=skip_unknown, strict=strict, warn=_warn)
    if json_:
        print(json.dumps(result.summary(), ensure_ascii=False))
    else:
        _table([("", result)])


@app.command()
def predict(
    bundle: BundleArgument,
    files: Annotated[list[Path], typer.Argument(help="pictures, or folders of pictures")],
    top: Annotated[int, typer.Option(help="classes to show for each", min=1)] = 3,
    json_: Json = False,
    strict: Strict = False,
) -> None:
    """Name what is in pictures; "unknown" is from 0 to 1 and higher where it may be none of the model's classes."""
    from classgraft import api

    with _progress():
        found = api.predict(_load(bundle), files, top, strict=strict, warn=_warn)
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


@app.command()
def report(
    bundle: BundleArgument,
    images: Images,
    out: Annotated[Path | None, typer.Option(help="the page (BUNDLE/report.html)")] = None,
    skip_unknown: Annotated[
        bool, typer.Option("--skip-unknown", help="leave out images of classes the model lacks")
    ] = False,
) -> None:
    """Write a page that shows what the last extension gave and what it cost, on labelled images."""
    from classgraft import pages

    page = out or bundle / "report.html"
    with _progress():
        html = pages.of_extension(_load(bundle), images, skip_unknown=skip_unknown, command=_command(), warn=_warn)
    pages.write(html, page)
    print(page)


@app.command()
def export(
    bundle: BundleArgument,
    format_: Annotated[str, typer.Option("--format", help="timm, hf, onnx or torch-export")],
    out: Annotated[Path, typer.Option(help="a new folder to write to")],
    images: Annotated[
        Path | None, typer.Option(help="pictures to check the export on (generated ones); a folder or a .parquet file")
    ] = None,
) -> None:
    """Write the model for other tools, and check that it answers there as it does here."""
    from classgraft import api

    with _progress():
        parity = api.export(_load(bundle), format_, out, images, warn=_warn)
    print(f"{out}: written as {format_}; {parity.sentence}")


@app.command()
def verify(
    bundle: BundleArgument,
    images: Annotated[
        Path | None, typer.Option(help="pictures to compare on as well; old ones in one folder a class show the change")
    ] = None,
) -> None:
    """Check that a bundle is whole and keeps what its model card promises."""
    from classgraft import api

    with _progress():
        found = api.verify(bundle, images, warn=_warn)
    print("\n".join(found))


@app.command()
def serve(
    bundle: BundleArgument,
    images: Annotated[
        list[str], typer.Option(help="labelled images to measure proposals on, one folder a class; repeatable")
    ] = [],  # noqa: B006
    host: Annotated[str, typer.Option(help="name or address to listen on")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="of it; 0 for any that is free", min=0, max=65535)] = 8000,
    method: Annotated[str, typer.Option(help="see classgraft methods")] = "auto",
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

    with _running(device, None):
        desk = Desk(bundle, images=images, method=method, settings=_settings(set_), placed=_placed, warn=_warn)
        try:
            run(desk, host, port, lambda at: print(f"{at} shows {bundle}; Ctrl-C ends it", flush=True), _warn)
        finally:
            desk.close()


@app.command()
def undo(
    bundle: BundleArgument,
    out: Annotated[Path | None, typer.Option(help="write a copy instead")] = None,
) -> None:
    """Take back the last extension, removal, renaming or merging."""
    from classgraft import api

    before = _load(bundle)
    api.save(api.undo(before), out or bundle)
    print(f"taken back: {before.history[-1]['sentence']}")


@app.command()
def remove(
    bundle: BundleArgument,
    name: Annotated[str, typer.Argument(help="the class, by its exact name")],
    out: Annotated[Path | None, typer.Option(help="write a copy instead")] = None,
) -> None:
    """Remove a class; the others keep their order."""
    from classgraft import api

    smaller = api.remove(_load(bundle), name)
    api.save(smaller, out or bundle)
    print(f"{smaller.history[-1]['sentence']}; {len(smaller.classes)} are left")


@app.command()
def rename(
    bundle: BundleArgument,
    old: Annotated[str, typer.Argument(help="the class, by its exact name", metavar="OLD")],
    new: Annotated[str, typer.Argument(help="its new name", metavar="NEW")],
    out: Annotated[Path | None, typer.Option(help="write a copy instead")] = None,
) -> None:
    """Give a class another name."""
    from classgraft import api

    renamed = api.rename(_load(bundle), old, new)
    api.save(renamed, out or bundle)
    print(renamed.history[-1]["sentence"])


@app.command()
def merge(
    bundle: BundleArgument,
    first: Annotated[str, typer.Argument(help="a class, by its exact name", metavar="A")],
    second: Annotated[str, typer.Argument(help="the class to count as A from now on", metavar="B")],
    name: Annotated[str | None, typer.Option(help="of the two together (A's)")] = None,
    out: Annotated[Path | None, typer.Option(help="write a copy instead")] = None,
) -> None:
    """Make two classes one, whose probability is the sum of theirs."""
    from classgraft import api

    merged = api.merge(_load(bundle), first, second, name)
    api.save(merged, out or bundle)
    print(f"{merged.history[-1]['sentence']}; {len(merged.classes)} are left")


@app.command()
def methods() -> None:
    """List the methods."""
    from classgraft.catalogue import ENTRIES

    width = max(len(entry.name) for entry in ENTRIES)
    for entry in ENTRIES:
        print(f"{entry.verb:12}{entry.name:{width}}  {entry.summary}")


@app.command()
def demo(
    out: Annotated[Path, typer.Option(help="folder to write the grown bundle and the page to")] = Path(
        "classgraft-demo"
    ),
    seed: Seed = 0,
) -> None:
    """Show the whole job on scikit-learn's handwritten digits: train 0 to 7, throw them away, graft 8 and 9."""
    from classgraft import demonstration
    from classgraft.folder import check_place

    check_place(out)
    with _progress():
        story = demonstration.tell(seed)
    demonstration.save(story, out, _command())
    _table([(row.name, row.evaluation) for row in story.rows])
    print(f"{out}: the grown model and report.html")


@app.command()
def bench(
    methods: Annotated[str, typer.Option(help="names from classgraft methods, with commas between", metavar="A,B")],
    out: Annotated[Path, typer.Option(help="folder of the results; given again, finished cells are not run again")],
    images: Annotated[
        str | None, typer.Option(help="training images: a folder with one folder a class, or .parquet")
    ] = None,
    test: Annotated[str | None, typer.Option(help="test images, on which nothing is chosen")] = None,
    protocol: Annotated[str | None, typer.Option(help="a paper's, by name, with its images and recipe")] = None,
    first: Annotated[int | None, typer.Option(help="classes of the first step (10)")] = None,
    step: Annotated[int | None, typer.Option(help="classes of each later step (10)")] = None,
    classes: Annotated[int | None, typer.Option(help="only the first so many of the order (all)")] = None,
    sizes: Annotated[
        str | None, typer.Option(help="classes of each step, where they are not equal", metavar="N,N,N")
    ] = None,
    shots: Annotated[int | None, typer.Option(help="images of each class from the second step on (all)")] = None,
    blur: Annotated[
        float | None, typer.Option(help="share of each class's images that come in other steps (0)")
    ] = None,
    order_seed: Annotated[str | None, typer.Option(help="seeds or names of class orders (1993)", metavar="N,N")] = None,
    seeds: Annotated[str, typer.Option(help="each a run of every method on every order", metavar="N,N")] = "0",
    size: Annotated[int | None, typer.Option(help="side of the squares, in pixels (32)")] = None,
    arch: Annotated[str | None, typer.Option(help="cifar:NAME or timm:NAME (cifar:resnet32)")] = None,
    arch_arg: ArchArg = [],  # noqa: B006
    weights: Annotated[Path | None, typer.Option(help="trained weights that the body starts from (fresh ones)")] = None,
    mean: Annotated[
        tuple[float, float, float] | None, typer.Option(help="of each channel, in 0..1", metavar="R G B")
    ] = None,
    std: Annotated[
        tuple[float, float, float] | None, typer.Option(help="of each channel, in 0..1", metavar="R G B")
    ] = None,
    exemplars: Annotated[int | None, typer.Option(help="images that methods with a memory of images may keep")] = None,
    epochs: Annotated[int | None, typer.Option(help="of each step, of every method (30)")] = None,
    batch_size: Annotated[int | None, typer.Option(help="images a step of the optimiser (64)")] = None,
    lr: Annotated[float | None, typer.Option(help="learning rate at the start (0.1)")] = None,
    weight_decay: Annotated[float | None, typer.Option(help="of every weight that learns (0.0005)")] = None,
    milestones: Annotated[
        tuple[float, float] | None,
        typer.Option(help="shares of the epochs after which it is divided by ten (0.6 0.85)"),
    ] = None,
    augment: Annotated[str | None, typer.Option(help="augmentation by name (crop-flip)")] = None,
    set_: Annotated[
        list[str], typer.Option("--set", help="a field of one method; repeatable", metavar="METHOD.FIELD=VALUE")
    ] = [],  # noqa: B006
    ray: Annotated[bool, typer.Option("--ray", help="spread the runs over a Ray cluster")] = False,
    device: Device = None,
    precision: Annotated[str | None, typer.Option(help="fp32 or bf16, of training alone (chosen)")] = None,
) -> None:
    """Send a stream of classes through methods, and measure them after every step."""
    from classgraft.evaluator import words
    from classgraft.evaluator.bench import bench as run

    recipe = {"epochs": epochs, "batch_size": batch_size, "lr": lr, "weight_decay": weight_decay, "augment": augment,
              "milestones": milestones}  # fmt: skip
    steps = {"first": first, "step": step, "classes": classes, "shots": shots, "blur": blur, "sizes": sizes}
    chosen = words.setting(protocol, steps, arch, arch_arg, weights, mean, std)
    changed = {"size": size, "exemplars": exemplars, "orders": words.orders(order_seed)}
    with _running(device, precision), _progress():
        run(
            words.listed(methods), images, test, out=out, protocol=chosen, seeds=words.numbers("--seeds", seeds),
            recipe=words.given(recipe), settings=words.settings(set_), ray=ray, device=device, precision=precision,  # type: ignore[arg-type]
            tell=print, warn=_warn, command=_command(), **words.given(changed),
        )  # fmt: skip
    print(f"{out}: results.json and report.html")


def _load(folder: Path) -> Bundle:
    from classgraft import api

    return _placed(api.load(folder))


def _placed(bundle: Bundle) -> Bundle:
    """The bundle, its model on the device that was asked for."""
    from classgraft.training.engine import device

    bundle.model.to(device())
    return bundle


def _recipe(
    epochs: int | None,
    batch_size: int | None,
    lr: float | None,
    weight_decay: float | None,
    milestones: tuple[float, float] | None,
    augment: str | None,
    seed: int,
) -> dict[str, Any]:
    """The recipe's fields that were given."""
    given = {"epochs": epochs, "batch_size": batch_size, "lr": lr, "weight_decay": weight_decay,
             "milestones": milestones, "augment": augment, "seed": seed}  # fmt: skip
    return {name: value for name, value in given.items() if value is not None}


@contextlib.contextmanager
def _running(
    device: str | None, precision: str | None, run_folder: Path | None = None, command: str = ""
) -> Iterator[None]:
    """The engine that was asked for, said in a line when it is chosen, and the run folder."""
    import logging

    from classgraft.training.engine import engine
    from classgraft.training.journal import keeping

    if precision not in (None, "fp32", "bf16"):
        raise InputError(f"--precision is '{precision}'; say fp32 or bf16.")
    logging.basicConfig(format="%(message)s", stream=sys.stderr)
    logging.getLogger("classgraft").setLevel(logging.INFO)
    kept = keeping(run_folder, command) if run_folder else contextlib.nullcontext()
    with engine(device=device, precision=precision), kept:  # type: ignore[arg-type]
        yield


def _settings(words: list[str]) -> dict[str, Any]:
    from classgraft.models.sources import argument

    return dict(map(argument, words))


def _table(rows: list[tuple[str, Evaluation]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name in ("", "old %", "new %", "harmonic %", "all %", "n old + new"):
        table.add_column(name, justify="left" if not name else "right", no_wrap=True)
    for name, evaluation in rows:
        summary = evaluation.summary()
        cells = [
            "-" if summary[key] is None else f"{100 * summary[key]:.1f}" for key in ("old", "new", "harmonic", "all")
        ]
        table.add_row(name, *cells, f"{summary['n']['old']} + {summary['n']['new']}")
    Console().print(table)


class _progress:
    """Progress bars for whatever takes longer than two seconds; none where standard error is no terminal."""

    def __enter__(self) -> None:
        from classgraft.training.loop import show_progress, silent

        self.bars: Any = None
        if not sys.stderr.isatty():
            show_progress(silent)
            return
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        self.bars = Progress(
            TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(),
            TextColumn("{task.fields[terms]}"),
            console=Console(stderr=True), transient=True,
        )  # fmt: skip
        self.started = time.monotonic()
        self.tasks: dict[str, Any] = {}
        show_progress(self.show)

    def show(self, what: str, done: int, total: int, terms: dict[str, float]) -> None:
        if time.monotonic() - self.started < 2:
            return
        self.bars.start()
        if what not in self.tasks:
            self.tasks[what] = self.bars.add_task(what, total=total, terms="")
        shown = "  ".join(f"{name} {value:.4g}" for name, value in terms.items())
        self.bars.update(self.tasks[what], completed=done, total=total, terms=shown)

    def __exit__(self, *error: object) -> None:
        if self.bars is not None:
            self.bars.stop()


def _warn(sentence: str) -> None:
    _say(f"warning: {sentence}")


def _say(sentence: str) -> None:
    """One line, whatever control characters a file's name holds."""
    print("".join(c if c.isprintable() else " " for c in sentence), file=sys.stderr)


def _command() -> str:
    import shlex

    return shlex.join(["classgraft", *sys.argv[1:]])
