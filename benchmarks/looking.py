"""Images a second that a network looks at without learning: ours beside the loop that one would write.

    python benchmarks/looking.py [--images 256] [--rounds 5]

The ImageNet MobileNetV2 at 224 pixels, decoded squares of noise, features out. Each turn is a process of its own, for what
one keeps of freed memory would help the next; the first pass of a process does not count.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time

import torch
from flowers import imagenet
from interleaved import Contender, rates, tell

from classgraft.data.images import Images
from classgraft.training.answers import answers, forget

CONTENDERS = (
    "bare, batches of 64",
    "bare, channels-last, batches of 64",
    "bare, channels-last, batches of 4",
    "answers",
)


def looked(name: str, count: int) -> float:
    """Images a second."""
    base = imagenet()
    form, body = base.preparation, base.model.body.eval()
    pixels = torch.randint(0, 256, (count, 3, form.resize, form.resize), dtype=torch.uint8)
    images = Images(pixels, torch.zeros(count, dtype=torch.int64), base.classes, form)
    layout = torch.channels_last if "channels-last" in name else torch.contiguous_format

    def ours() -> None:
        forget()
        answers(body, images)

    def bare() -> None:
        body.to(memory_format=layout)
        edge = (form.resize - form.size) // 2
        with torch.inference_mode():
            for part in pixels.split(int(name.split()[-1])):
                part = part[:, :, edge : edge + form.size, edge : edge + form.size].float() / 255
                body(form.normalise(part).contiguous(memory_format=layout))

    take = ours if name == "answers" else bare
    take()
    started = time.perf_counter()
    take()
    return count / (time.perf_counter() - started)


def turn(name: str, count: int) -> Contender:
    command = [sys.executable, __file__, "--images", str(count), "--one", name]
    return lambda: float(subprocess.run(command, check=True, capture_output=True).stdout.split()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--one", help="measure this contender, print its rate, and no more")
    chosen = parser.parse_args()
    if chosen.one:
        print(looked(chosen.one, chosen.images))
        return
    found = rates({name: turn(name, chosen.images) for name in CONTENDERS}, chosen.rounds)
    what = f"images a second, MobileNetV2 at 224 pixels, features of {chosen.images} images"
    tell("looking", what, found, CONTENDERS[:1], threads=torch.get_num_threads())


if __name__ == "__main__":
    main()
