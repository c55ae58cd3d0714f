"""The images of a benchmark, decoded once."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import torch

from classgraft import api
from classgraft.data.images import Images
from classgraft.data.sources import Source, open_source
from classgraft.errors import InputError
from classgraft.evaluator.orders import Order, ordered
from classgraft.evaluator.settings import Setting

Given = str | Path | Source | Images
"""Where images are, or the images."""


def chosen(names: tuple[str, ...], setting: Setting, order: Order) -> set[str]:
    """The classes that come in this order."""
    return {name for group in setting.protocol.groups(ordered(names, order)) for name in group}


def read(images: Given, test: Given, setting: Setting, warn: Callable[[str], None]) -> tuple[Images, Images]:
    """Training and test images of the classes that come in any of the orders, decoded once; ``classes`` are all there are."""
    for given, words in ((images, "training"), (test, "test")):
        if given == "":
            raise InputError(
                f"The {words} images are missing; name a folder with one folder a class, or a .parquet file."
            )
    opened = [given if isinstance(given, Source | Images) else open_source(given) for given in (images, test)]
    names = opened[0].classes
    kept = set().union(*(chosen(names, setting, order) for order in setting.orders))
    train, tested = (_decoded(given, kept, setting, warn) for given in opened)
    borne = {tested.classes[k] for k in tested.labels.unique().tolist()}
    if missing := [name for name in names if name in kept and name not in borne]:
        raise InputError(
            f"The class '{missing[0]}' has no test image; give some, or leave it out of the training images."
        )
    return train, tested


def _decoded(given: Source | Images, kept: set[str], setting: Setting, warn: Callable[[str], None]) -> Images:
    if isinstance(given, Images):
        return given
    names = tuple(name for name in given.classes if name in kept)
    number = {given.classes.index(name): k for k, name in enumerate(names)}
    rows = [row for row, label in enumerate(given.labels) if label in number]
    labels = tuple(number[given.labels[row]] for row in rows)
    part = Source(names, tuple(given.photos[row] for row in rows), labels)
    images = api.images_of(part, setting.start.preparation(setting.size), warn=warn)
    place = torch.tensor(list(number), dtype=torch.int64)
    return dataclasses.replace(images, labels=place[images.labels], classes=given.classes)
