"""The commands ``train`` and ``self-train`` as functions: models that are still to be taught, and their teaching."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from classgraft import catalogue
from classgraft.bundle import Bundle
from classgraft.choosing import gently
from classgraft.data.images import Images
from classgraft.data.names import check_names
from classgraft.errors import InputError
from classgraft.history import event_of, settings_of
from classgraft.looking import Sources, known_images, unlabelled_images
from classgraft.models.classifier import Classifier
from classgraft.models.cut import cut, head_name, joined, prove
from classgraft.models.preparation import Preparation
from classgraft.models.sources import Architecture, load_weights, read_weights
from classgraft.models.wrapped import Beside, wrapped
from classgraft.training.answers import answers
from classgraft.training.journal import hangs_on

LOOKED_AT = 256
"""Images on which it is seen whether training has undone a network."""


def start(
    source: str,
    classes: Sequence[str],
    weights: str | Path | None = None,
    *,
    arguments: Mapping[str, Any] | None = None,
    preparation: Preparation | None = None,
    size: int | None = None,
    resize: int | None = None,
    mean: tuple[float, float, float] | None = None,
    std: tuple[float, float, float] | None = None,
    stretched: bool | None = None,
    seed: int = 0,
    warn: Callable[[str], None] = lambda sentence: None,
) -> Bundle:
    """A classifier of these classes that is still to be trained: fresh, or a trained body under a fresh head.

    Args:
        source: ``timm:NAME``, ``torchvision:NAME``, ``hf:ID-or-folder`` or ``cifar:NAME``; its weights are not fetched.
        classes: names in head order.
        weights: a ``.safetensors`` or torch file of the network as it was trained, with whatever head.
        arguments: for the network's constructor.
        preparation: of its images; else the source's own, with what of it is given here (as of ``import_model``): ``size``,
            ``resize``, ``mean``, ``std`` and ``stretched``.
        seed: of fresh weights.
        warn: hears which weights are taken, where a file holds two sets of them.

    Raises:
        InputError: whatever does not fit, and what to do.
    """
    names = check_names(list(classes))
    architecture = Architecture.of(source, dict(arguments or {}))
    if preparation is None:
        stated = architecture.preparation(source, None if weights is None else Path(weights))
        preparation = stated.changed(size, resize, mean, std, stretched)
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


def train(
    bundle: Bundle,
    images: Sources | Images,
    method: str = "plain",
    settings: Mapping[str, Any] | None = None,
    *,
    shots: int | None = None,
    strict: bool = False,
    warn: Callable[[str], None] = lambda sentence: None,
) -> Bundle:
    """Train a bundle's model on labelled images of its classes.

    With ``shots``, on at most so many of each, drawn by the seed; the history tells the draw and a fingerprint of it. Where
    neither ``lr`` nor ``optimiser`` is among the settings, weights that were trained elsewhere learn by ``choosing.TUNING``.
    """
    trainer = catalogue.trainer(method, gently("train", method, bundle, settings))
    known = known_images(bundle, images, strict, warn)
    drawn: dict[str, Any] = {}
    if shots is not None:
        seed = int((settings or {}).get("seed", 0))
        known = known.shots(shots, seed)
        drawn = {"shots": shots, "seed": seed, "images": {"seen": len(known), "fingerprint": known.fingerprint}}
    trained = trainer.train(bundle.model, known)
    sentence = f"trained by {method} on {len(known)} images"
    event = event_of("train", sentence, method=method, settings=settings_of(trainer), **drawn)
    _say_if_nothing_learnt(trained, known, warn)
    return bundle.taught(trained, event)


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

    The student is ``student`` (``start(source, bundle.classes, preparation=bundle.preparation)``), else the bundle's model,
    which learns by ``choosing.TUNING`` as in ``train`` where its weights are from elsewhere.

    Raises:
        InputError: the student has other classes or takes its images prepared in another way.
    """
    if (targets := catalogue.entry(method, "self-train").targets) != "classes":
        raise InputError(f"'{method}' learns from {targets}, not from classes; call it from Python, or take fixmatch.")
    pupil = student or bundle
    selftrainer = catalogue.selftrainer(method, gently("self-train", method, pupil, settings))
    if pupil.classes != bundle.classes or pupil.preparation != bundle.preparation:
        raise InputError("The student's classes and preparation differ from the model's; start it with those.")
    hangs_on(bundle.model)
    known = known_images(bundle, images, strict, warn)
    free = unlabelled_images(bundle, unlabelled, strict=strict, warn=warn)
    trained = selftrainer.train(bundle.model, pupil.model, known, free)
    _say_if_nothing_learnt(trained, known, warn)
    sentence = f"trained by {method} on {len(known)} labelled and {len(free)} unlabelled images"
    event = event_of(
        "self-train", sentence, method=method, settings=settings_of(selftrainer), source=pupil.architecture.source
    )
    return dataclasses.replace(pupil, history=bundle.history, added=bundle.added).taught(trained, event)


def _say_if_nothing_learnt(model: Classifier, known: Images, warn: Callable[[str], None]) -> None:
    """Warns where a network gives one answer to all, as it does after a rate that was too high for it."""
    few = known.some(LOOKED_AT, 0)
    given = answers(model, few).argmax(1).unique()
    if len(given) == 1 and len(few.labels.unique()) > 1:
        warn(
            f"The model takes all of its own images for '{model.classes[int(given)]}', so that it has learnt nothing; train it"
            " longer, or at another learning rate (lr), a lower one first."
        )


__all__ = ["self_train", "start", "train"]
