"""What an extension costs.

    python benchmarks/cost.py

1. At 20 photos a class: seconds of the extension over one forward pass of all the views that it uses, same run, in turn.
2. From the command to the saved bundle with 50 photos, imports included, as a whole process.
3. Latency and size of the grown model over the base model's.
4. Growth to 10,000 old and 1,000 new classes on a synthetic head (random rows, features drawn around them).
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
from flowers import imagenet
from record import data, write

from classgraft import api
from classgraft.data.images import Images, Task
from classgraft.data.sources import open_source
from classgraft.extenders.glne import GLNE
from classgraft.models.classifier import Classifier, Head
from classgraft.models.preparation import Preparation
from classgraft.training import answers as cache
from classgraft.training.views import look

REPEATS = 2  # of the whole command; one of the extension, which takes minutes


def main() -> None:
    base = imagenet()
    source = data() / "flowers_dev" / "train"
    photos = api.images_of(open_source(source), base.preparation)
    method = GLNE()
    task = Task(photos.classes, photos)

    def forward() -> object:
        return look(base.model, photos, method.views, 0)

    passes, extensions = turns(forward, lambda: method.extend(base.model, None, task), 1)
    ratio = statistics.median(b / a for a, b in zip(passes, extensions, strict=True))
    print(f"forward {passes}, extension {extensions}, ratio {ratio:.3f}", flush=True)

    with tempfile.TemporaryDirectory() as folder:
        bundle, grown_folder = Path(folder) / "base", Path(folder) / "grown"
        api.save(base, bundle)
        command = [sys.executable, "-m", "classgraft", "extend", str(bundle), str(source), "--out", str(grown_folder)]
        whole = []
        for _ in range(REPEATS):
            started = time.perf_counter()
            subprocess.run([*command, "--shots", "5"], check=True, capture_output=True)
            whole.append(time.perf_counter() - started)
        sizes = [sum(f.stat().st_size for f in at.glob("model.safetensors")) for at in (bundle, grown_folder)]
        grown = api.load(grown_folder)
    print(f"command to bundle with 50 photos {whole}, bytes {sizes}", flush=True)

    latency = {}
    for batch in (1, 16):
        images = torch.randn(batch, 3, 224, 224)
        rounds = 60 if batch == 1 else 24
        with torch.inference_mode():
            old, new = turns(lambda: base.model(images), lambda: grown.model(images), rounds)  # noqa: B023
        latency[f"batch {batch}"] = statistics.median(b / a for a, b in zip(old, new, strict=True))
    print(latency)

    growth = [synthetic(old, new) for old, new in ((100, 10), (1000, 10), (1000, 100), (10_000, 100), (10_000, 1000))]
    write(
        "cost",
        "what an extension by glne costs on the ImageNet MobileNetV2",
        n={"photos": len(photos), "views": method.views, "repeats": REPEATS},
        extension={"forward seconds": passes, "extension seconds": extensions, "ratio": ratio},
        command={"photos": 50, "seconds": whole},
        grown={"bytes": sizes, "bytes ratio": sizes[1] / sizes[0], "latency ratio": latency},
        synthetic=growth,
    )


def turns(
    first: Callable[[], object], second: Callable[[], object], rounds: int = REPEATS
) -> tuple[list[float], list[float]]:
    """Seconds of both, one after the other, again and again; nothing is remembered between."""
    seconds: tuple[list[float], list[float]] = ([], [])
    for _ in range(rounds):
        for timed, into in ((first, seconds[0]), (second, seconds[1])):
            cache.forget()
            started = time.perf_counter()
            timed()
            into.append(time.perf_counter() - started)
    return seconds


def synthetic(old: int, new: int, width: int = 256, shots: int = 5) -> dict[str, object]:
    """Seconds and old accuracy when a random head grows; the body passes its input on."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(old + new, width, generator=generator)
    centres = centres / centres.norm(dim=1, keepdim=True) * 8
    head = torch.nn.Linear(width, old)
    with torch.no_grad():
        head.weight.copy_(centres[:old] / 4)
        head.bias.zero_()
    names = tuple(f"old {k}" for k in range(old))
    model = Classifier(torch.nn.Flatten(), Head([head]), names)
    labels = torch.arange(new).repeat_interleave(shots)
    features = centres[old:][labels] + 0.5 * torch.randn(len(labels), width, generator=generator)
    photos = Images(
        features[:, :, None, None],
        labels,
        tuple(f"new {k}" for k in range(new)),
        Preparation(1, 1, (0.0,) * 3, (1.0,) * 3),
    )
    started = time.perf_counter()
    grown = GLNE(views=1).extend(model, None, Task(photos.classes, photos))
    seconds = time.perf_counter() - started
    test = centres.repeat(2, 1) + 0.5 * torch.randn(2 * (old + new), width, generator=generator)
    with torch.inference_mode():
        right = (
            (grown(test[:, :, None, None]).argmax(1) == torch.arange(old + new).repeat(2)).float().view(2, -1).mean(0)
        )
    row: dict[str, object] = {"old": old, "new": new, "width": width, "seconds": seconds, "old accuracy": float(right[:old].mean()), "new accuracy": float(right[old:].mean())}  # fmt: skip  # noqa: E501
    print(row, flush=True)
    return row


if __name__ == "__main__":
    main()
