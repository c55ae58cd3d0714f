"""A trained classifier, whatever it comes from, as a bundle."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import nn

from classgraft.bundle import CODE, Bundle
from classgraft.data.names import check_names, read_names
from classgraft.errors import InputError
from classgraft.history import event_of
from classgraft.models.cut import cut, head_name, prove
from classgraft.models.preparation import Preparation
from classgraft.models.sources import Architecture, load_weights, read_weights
from classgraft.models.wrapped import Beside, Logits, wrapped


def import_model(
    source: str | nn.Module,
    weights: str | Path | None = None,
    classes: str | Path | Sequence[str] | None = None,
    *,
    arguments: Mapping[str, Any] | None = None,
    head: str | None = None,
    mean: tuple[float, float, float] | None = None,
    std: tuple[float, float, float] | None = None,
    size: int | None = None,
    resize: int | None = None,
    stretched: bool | None = None,
    warn: Callable[[str], None] = lambda sentence: None,
) -> Bundle:
    """Make a bundle of a trained classifier.

    Args:
        source: ``timm:NAME``, ``torchvision:NAME``, ``hf:ID-or-folder``, ``cifar:NAME``, or a network.
        weights: a ``.safetensors`` or torch file; None where the source brings its own (``hf``, a network).
        classes: names in head order, or a file with one a line; None where the source states them (``hf``).
        arguments: for the network's constructor.
        head: the name of the layer that gives the logits, where it cannot be found.
        mean: of the pixels that the network was trained on, in 0..1; else the source's own.
        std: likewise.
        size: side of the square that the network sees; else the source's own.
        resize: short side before the centre crop; else size / 0.875 from 96 pixels up, else size.
        stretched: whether pictures are squeezed into the square, both sides to ``resize``; else as the source says.
        warn: hears which weights are taken, where a file holds two sets of them.

    Raises:
        InputError: whatever does not fit, and what to do.
    """
    if isinstance(source, nn.Module):
        names = _names(classes, ())
        architecture = Architecture(f"{CODE}:{type(source).__name__}")
        network = source if weights is None else copy.deepcopy(source)
        stated = _stated_preparation(source)
    else:
        architecture = Architecture.of(source, dict(arguments or {}))
        names = _names(classes, architecture.names())
        network = architecture.plain(len(names)) if weights is not None else architecture.pretrained(source)
        stated = architecture.preparation(source, None if weights is None else Path(weights))
    if weights is not None:
        found = architecture.needed(read_weights(Path(weights), warn))
        load_weights(network, found, f"{architecture.source} with {len(names)} classes")
    network = wrapped(network, len(names))
    if isinstance(network, Beside):
        architecture = dataclasses.replace(architecture, inside=len(names))
    if head and isinstance(network, Logits):
        head = f"network.{head}"
    preparation = stated.changed(size, resize, mean, std, stretched)
    name = head or head_name(network, len(names))
    model = cut(network, names, name).eval()
    prove(network, model, preparation.size)
    event = event_of("import", f"imported from {architecture.source}", classes=len(names))
    return Bundle(model, architecture, name, preparation, history=(event,))


def _names(given: str | Path | Sequence[str] | None, stated: Sequence[str]) -> tuple[str, ...]:
    if given is None and not stated:
        raise InputError("The class names are missing; give a file with one name a line, in the order of the head.")
    return read_names(Path(given)) if isinstance(given, str | Path) else check_names(stated if given is None else given)


def _stated_preparation(network: nn.Module) -> Preparation:
    config = getattr(network, "pretrained_cfg", None)
    if not isinstance(config, Mapping) or "input_size" not in config:
        return Preparation()
    side = int(config["input_size"][-1])
    short = int(side / float(config.get("crop_pct", 0.875))) if side >= 96 else side
    stretched = config.get("crop_mode") == "squash"
    return Preparation(side, max(side, short), tuple(config["mean"]), tuple(config["std"]), stretched)
