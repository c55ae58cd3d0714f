"""The commands ``train`` (its start) and ``self-train`` as functions: models that are still to be taught."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from classgraft import catalogue
from classgraft.bundle import Bundle
from classgraft.data.images import Images
from classgraft.data.names import check_names
from classgraft.errors import InputError
from classgraft.history import event_of, settings_of
from classgraft.looking import Sources, known_images, unlabelled_images
from classgraft.models.classifier import folded
from classgraft.models.cut import cut, head_name, joined, prove
from classgraft.models.preparation import Preparation, usual_resize
from classgraft.models.sources import Architecture, load_weights, read_weights
from classgraft.models.wrapped import Beside, wrapped
from classgraft.training.journal import hangs_on


def start(
    source: str,
    classes: Sequence[str],
    weights: str | Path | None = None,
    *,
    arguments: Mapping[str, Any] | None = None,
    preparation: Preparation | None = None,
    size: int | None = None,
    seed: int = 0,
    warn: Callable[[str], None] = lambda sentence: None,
) -> Bundle:
    """A classifier of these classes that is still to be trained: fresh, or a trained body under a fresh head.

    Args:
        source: ``timm:NAME``, ``torchvision:NAME``, ``hf:ID-or-folder`` or ``cifar:NAME``; its weights are not fetched.
        classes: names in head order.
        weights: a ``.safetensors`` or torch file of the network as it was trained, with whatever head.
        arguments: for the network's constructor.
        preparation: of its images; else the source's own.
        size: side of the square that the network sees, where no preparation is given.
        seed: of fresh weights.
        warn: hears which weights are taken, where a file holds two sets of them.

    Raises:
        InputError: whatever does not fit, and what to do.
    """
    names = check_names(list(classes))
    architecture = Architecture.of(source, dict(arguments or {}))
    if preparation is None:
        preparation = architecture.preparation(source, None if weights is None else Path(weights))
        if size is not None:
            preparation = Preparation(
                size, usual_resize(size), preparation.mean, preparation.std, preparation.stretched
            )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = wrapped(architecture.plain(len(names)), len(names))
        outputs, head = len(names), head_name(network, len(names))
        model = cut(network, names, head).eval()
        if weights is not None:
            found = architecture.needed(read_weights(Path(weights), warn))
            last = network.layer if isinstance(network, Beside) else head.removeprefix("network.")
            outputs = len(found[f"{last}.weight"]) if f"{last}.weight" in found else len(names)
            trained = architecture.plain(outputs)
            load_weights(trained, found, f"{architecture.source} with {outputs} outputs")
            before = cut(wrapped(trained, outputs), [str(k) for k in range(outputs)], head).eval()
            rows = model.head.parts  # as the network draws them, unless they see its own logits
            if isinstance(network, Beside):
                rows = [nn.Linear(before.head.parts[0].in_features, len(names))]
            model = before.headed(rows, names)
    if isinstance(network, Beside):
        architecture = dataclasses.replace(architecture, inside=outputs)
    if weights is not None:
        network = joined(model, head)
    prove(network, model, preparation.size)
    event = event_of("start", f"started from {source}{' and its weights' if weights else ''}", classes=len(names))
    return Bundle(model, architecture, head, preparation, history=(event,))


def self_train(
    bundle: Bundle,
    images: Sources | Images,
    unlabelled: str | Path | Images,
    method: str = "pseudo-labels",
    settings: Mapping[str, Any] | None = None,
    *,
    student: Bundle | None = None,
    strict: bool = False,
    warn: Callable[[str], None] = lambda sentence: None,
) -> Bundle:
    """Train a student on labelled and on unlabelled images, with the bundle's model as its teacher.

    The student is ``student`` (``start(source, bundle.classes, preparation=bundle.preparation)``), else the bundle's model.

    Raises:
        InputError: the student has other classes or takes its images prepared in another way.
    """
    if (targets := catalogue.entry(method, "self-train").targets) != "classes":
        raise InputError(f"'{method}' learns from {targets}, not from classes; call it from Python, or take fixmatch.")
    selftrainer, pupil = catalogue.selftrainer(method, settings), student or bundle
    if pupil.classes != bundle.classes or pupil.preparation != bundle.preparation:
        raise InputError("The student's classes and preparation differ from the model's; start it with those.")
    if folded(pupil.model):
        raise InputError(
            "The student's batch norm is folded into its weights, so that it cannot be trained further; start from another"
            " network with --student."
        )
    hangs_on(bundle.model)
    known = known_images(bundle, images, strict, warn)
    free = unlabelled_images(bundle, unlabelled, strict=strict, warn=warn)
    trained = selftrainer.train(bundle.model, pupil.model, known, free)
    sentence = f"trained by {method} on {len(known)} labelled and {len(free)} unlabelled images"
    event = event_of(
        "self-train", sentence, method=method, settings=settings_of(selftrainer), source=pupil.architecture.source
    )
    return dataclasses.replace(pupil, history=bundle.history, added=bundle.added).taught(trained, event)


__all__ = ["self_train", "start"]
