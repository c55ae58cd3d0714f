"""The whole job on data that comes with scikit-learn: handwritten digits, trained on 0 to 7, extended with 8 and 9.

The digits are a small copy of Alpaydin and Kaynak: Optical Recognition of Handwritten Digits, UCI repository, 1998:
1,797 images of 8 x 8 pixels.
"""

from __future__ import annotations

import dataclasses
import time
from dataclasses import dataclass
from pathlib import Path

import torch
import torch.nn.functional as F

from classgraft import api, teaching
from classgraft.bundle import Bundle
from classgraft.data.images import Images
from classgraft.metrics.classification import Evaluation, evaluation
from classgraft.models.cut import cut
from classgraft.models.preparation import Preparation
from classgraft.models.sources import Architecture
from classgraft.pages import Role, comparing
from classgraft.report.page import Picture
from classgraft.training.answers import answers

PREPARATION = Preparation(16, 16, (0.3, 0.3, 0.3), (0.38, 0.38, 0.38))
NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
OLD, PHOTOS = 8, 5
REMEMBERED = "glne ({} kB kept of the old images)"


@dataclass(frozen=True)
class Row:
    """One line of the demonstration's table."""

    name: str
    bundle: Bundle
    evaluation: Evaluation
    logits: torch.Tensor
    seconds: float


@dataclass(frozen=True)
class Story:
    """What was trained, what was grown, and the images that it was measured on."""

    rows: tuple[Row, ...]
    test: Images
    chosen: int = 1


def digits(seed: int) -> tuple[Images, Images]:
    """Train and test images (three tenths of each digit), RGB of 16 pixels."""
    from sklearn.datasets import load_digits

    data = load_digits()
    pixels = torch.from_numpy(data.images).float()[:, None] / 16 * 255
    pixels = F.interpolate(pixels, (16, 16), mode="bilinear").round().to(torch.uint8).expand(-1, 3, -1, -1).contiguous()
    return Images(pixels, torch.from_numpy(data.target).long(), NAMES, PREPARATION).split(0.3, seed)


def tell(seed: int = 0) -> Story:
    """Train on the digits 0 to 7, then graft 8 and 9 from five images each, in several ways."""
    train, test = digits(seed)
    old, photos = train.of(NAMES[:OLD]), train.of(NAMES[OLD:]).shots(PHOTOS, seed)
    architecture = Architecture("cifar:resnet20")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = architecture.build(OLD)
    model = cut(network, NAMES[:OLD], "linear")
    untrained = Bundle(model, architecture, "linear", PREPARATION)
    started = time.perf_counter()
    base = teaching.train(untrained, old, settings={"epochs": 12, "augment": "none", "lr": 0.05, "seed": seed})
    rows = [_row("before", base, test.of(NAMES[:OLD]), started)]
    for name, method, source, settings in (
        ("glne", "glne", None, {"views": 1}),
        (REMEMBERED, "glne", old, {"views": 1}),
        ("finetune", "finetune", None, {"augment": "none", "lr": 0.002}),
        ("joint (saw the old images)", "joint", old, {"augment": "none", "epochs": 4}),
    ):
        started = time.perf_counter()
        grown = api.extend(base, photos, method=method, settings=settings, seed=seed, old_images=source)
        kept = sum(memory.content.nbytes for memory in grown.memories.values())
        rows.append(_row(name.format(round(kept / 1000)), grown, test, started))
    return Story(tuple(rows), test)


def _row(name: str, bundle: Bundle, test: Images, started: float) -> Row:
    seconds = time.perf_counter() - started
    test = dataclasses.replace(test, classes=bundle.classes)
    logits = answers(bundle.model, test)
    added = [bundle.classes.index(c) for c in bundle.added]
    return Row(name, bundle, evaluation(logits, test.labels, bundle.classes, added), logits, seconds)


def save(story: Story, out: Path, command: str) -> None:
    """The grown bundle with its page."""
    api.save(story.rows[story.chosen].bundle, out, {"report.html": page(story, command)})


def page(story: Story, command: str) -> str:
    """Every method that was run, beside one another."""
    chosen = story.rows[story.chosen]
    roles: tuple[Role, ...] = ("chosen", "other", "control", "ceiling")
    rows = [(row.name, role, row.logits) for row, role in zip(story.rows[1:], roles, strict=True)]

    def picture(place: int) -> Picture:
        return Picture(story.test.pixels[place], "")

    old = answers(story.rows[0].bundle.model, story.test)
    return comparing(chosen.bundle, rows, old, chosen.logits, story.test.labels, picture, [], command)
