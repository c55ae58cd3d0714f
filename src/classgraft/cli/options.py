"""Arguments and options that several commands share."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

BundleArgument = Annotated[Path, typer.Argument(help="folder of the model", metavar="BUNDLE")]
Set = Annotated[
    list[str], typer.Option("--set", help="a field of the method, as field=value; repeatable", metavar="FIELD=VALUE")
]
Strict = Annotated[bool, typer.Option("--strict", help="stop at the first corrupt image instead of skipping it")]
Seed = Annotated[int, typer.Option(help="of every draw", min=0, max=2**32 - 1)]
Images = Annotated[
    list[str],
    typer.Argument(
        help="folders with one folder a class, .parquet files, hf:ID[,split=NAME], torchvision:NAME[,root=DIR]"
    ),
]
Json = Annotated[bool, typer.Option("--json", help="print JSON on standard output")]
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
Precision = Annotated[str | None, typer.Option(help="fp32 or bf16, of training alone (chosen)")]
Method = Annotated[str, typer.Option(help="see classgraft methods")]
Shots = Annotated[int | None, typer.Option(help="photos to draw of each class (all)", min=1)]
Size = Annotated[int | None, typer.Option(help="side of the square that the network sees")]
OfChannels = Annotated[
    tuple[float, float, float] | None, typer.Option(help="of each channel, in 0..1", metavar="R G B")
]
Resize = Annotated[int | None, typer.Option(help="short side before the centre crop")]
Stretch = Annotated[
    bool | None,
    typer.Option("--stretch/--crop", help="squeeze pictures into the square, or crop their middle (the source's)"),
]
Out = Annotated[Path, typer.Option(help="folder to write the bundle to")]
Copy = Annotated[Path | None, typer.Option(help="write a copy instead")]
SkipUnknown = Annotated[bool, typer.Option("--skip-unknown", help="leave out images of classes the model lacks")]
