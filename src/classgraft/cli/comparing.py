"""Commands that show methods side by side."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from classgraft.cli.options import ArchArg, Device, OfChannels, Precision, Seed
from classgraft.cli.running import running
from classgraft.cli.terminal import command, progress, table, warn


def methods() -> None:
    """List the methods."""
    from classgraft.catalogue import ENTRIES

    width = max(len(entry.name) for entry in ENTRIES)
    print(
        f"{'extend':12}{'auto':{width}}  chosen by what is kept of the old classes, and told why (extend, remember, serve)"
    )
    for entry in ENTRIES:
        print(f"{entry.verb:12}{entry.name:{width}}  {entry.summary}")


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
    with progress():
        story = demonstration.tell(seed)
    demonstration.save(story, out, command())
    table([(row.name, row.evaluation) for row in story.rows])
    print(f"{out}: the grown model and report.html")


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
    mean: OfChannels = None,
    std: OfChannels = None,
    exemplars: Annotated[
        int | None, typer.Option(help="images, of all classes together, that methods with a memory of images may keep")
    ] = None,
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
    precision: Precision = None,
) -> None:
    """Send a stream of classes through methods, and measure them after every step."""
    from classgraft.evaluator import words
    from classgraft.evaluator.bench import bench as run
    from classgraft.storage import check_text

    check_text(out / "results.json")
    recipe = {"epochs": epochs, "batch_size": batch_size, "lr": lr, "weight_decay": weight_decay, "augment": augment,
              "milestones": milestones}  # fmt: skip
    steps = {"first": first, "step": step, "classes": classes, "shots": shots, "blur": blur, "sizes": sizes}
    chosen = words.setting(protocol, steps, arch, arch_arg, weights, mean, std)
    changed = {"size": size, "exemplars": exemplars, "orders": words.orders(order_seed)}
    with running(device, precision), progress():
        run(
            words.listed(methods), images, test, out=out, protocol=chosen, seeds=words.numbers("--seeds", seeds),
            recipe=words.given(recipe), settings=words.settings(set_), ray=ray, device=device, precision=precision,  # type: ignore[arg-type]
            tell=print, warn=warn, command=command(), **words.given(changed),
        )  # fmt: skip
    print(f"{out}: results.json and report.html")
