"""The command ``distill`` as a function: another network, mostly a smaller one, with a model's classes."""

from __future__ import annotations

import copy
import dataclasses
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from classgraft import catalogue
from classgraft.bundle import Bundle
from classgraft.choosing import gently
from classgraft.data import folders, parquet
from classgraft.data.images import Images
from classgraft.data.sources import Source
from classgraft.errors import InputError
from classgraft.folder import load
from classgraft.history import event_of, settings_of
from classgraft.looking import Sources, known_images, unlabelled_images
from classgraft.models.classifier import Classifier
from classgraft.teaching import start
from classgraft.training.answers import answers
from classgraft.training.carries import digest
from classgraft.training.journal import hangs_on

HELD_OUT = 0.1
"""Share of the images on which the loss of accuracy is measured; no method sees them."""


def distill(
    teacher: Bundle,
    images: Sources | Images,
    student: str | Bundle,
    *,
    method: str = "kd",
    settings: Mapping[str, Any] | None = None,
    arguments: Mapping[str, Any] | None = None,
    seed: int = 0,
    unlabelled: bool = False,
    skip_unknown: bool = False,
    strict: bool = False,
    warn: Callable[[str], None] = lambda sentence: None,
) -> Bundle:
    """A bundle of the student, which has learnt the teacher's classes.

    It takes the teacher's preparation, so that one square serves both, and its class names; those that were added last
    are so here too. A tenth of the images is held out (of each class one at
    least), and what was lost is measured on it.

    Args:
        teacher: any bundle.
        images: as for ``extend``, of some or all of the teacher's classes; or a folder of images alone, unlabelled.
        student: where a fresh network comes from, as for ``import_model``; or a bundle, or its folder, which starts from
            its weights: with new rows, unless it has the same classes; such as were trained elsewhere learn by
            ``choosing.TUNING`` unless the settings say ``lr`` or ``optimiser``.
        method: a name from ``classgraft methods``.
        settings: fields of the method.
        arguments: for the constructor of a fresh network.
        seed: of fresh weights, of what is held out and of the method.
        unlabelled: do not look at labels; images of any classes are fine.
        skip_unknown: leave images out whose class the teacher does not have.
        strict: the first corrupt image is an error (it is skipped and counted).
        warn: hears sentences.

    Raises:
        InputError: whatever does not fit, and what to do.
    """
    started = time.perf_counter()
    if (targets := catalogue.entry(method, "distill").targets) != "classes":
        raise InputError(f"'{method}' learns from {targets}, not from classes; call it from Python, or take kd.")
    if isinstance(student, str) and os.path.isdir(student):
        student = load(student)
    settings = gently("distill", method, student, settings) if isinstance(student, Bundle) else settings or {}
    fields = {f.name for f in dataclasses.fields(catalogue.method_type(catalogue.entry(method, "distill")))}
    distiller = catalogue.distiller(method, {**({"seed": seed} if fields & {"seed", "recipe"} else {}), **settings})
    hangs_on(teacher.model)
    if isinstance(student, Bundle):
        pupil = _starting(student, teacher)
    else:
        pupil = start(student, teacher.classes, arguments=arguments, preparation=teacher.preparation, seed=seed)
    name = Path(images).name if isinstance(images, str | Path) else ""
    if unlabelled or _alone(images):
        found = unlabelled_images(teacher, images, strict=strict, warn=warn)
        found = dataclasses.replace(found, classes=())
    else:
        found = known_images(teacher, images, strict, warn, skip_unknown)
    seen, held = found.split(HELD_OUT, seed)
    learnt = distiller.distill(teacher.model, pupil.model.to(teacher.model.device), seen)
    lost = lost_on(held, teacher.model, learnt)
    event = event_of(
        "distill",
        f"distilled by {method} from {teacher.architecture.source} ({_size(teacher.model):,} parameters) into"
        f" {_size(learnt):,} on {len(seen)} {_called(seen, name)}; {_said(lost)}",
        method=method,
        settings=settings_of(distiller),
        teacher={
            "source": teacher.architecture.source,
            "parameters": _size(teacher.model),
            "fingerprint": digest(teacher.model),
        },
        images={"name": name, "seen": len(seen), "fingerprint": seen.fingerprint},
        held_out=lost,
        seed=seed,
        seconds={"distill": round(time.perf_counter() - started, 3)},
    )
    history = (*teacher.history, event)
    return Bundle(learnt, pupil.architecture, pupil.head, pupil.preparation, teacher.added, history)


def _alone(images: Sources | Images) -> bool:
    """Whether they bear no labels: a folder of images without folders, or what is unlabelled in memory."""
    if isinstance(images, Source | Images):
        return images.classes in ((), ("",))
    if not isinstance(images, str | Path) or not (path := Path(images)).is_dir() or parquet.shards(path):
        return False
    inside = folders.entries(path, folders.real(path))
    return bool(inside) and not any(entry.is_dir() for entry in inside)


def _starting(student: Bundle, like: Bundle) -> Bundle:
    model = copy.deepcopy(student.model)  # it may have to go to another device, and the one given stays where it is
    if student.classes != like.classes:
        model = model.headed([nn.Linear(model.head.parts[0].in_features, len(like.classes))], like.classes)
        with torch.no_grad():
            for parameter in model.head.parameters():
                parameter.zero_()
    return dataclasses.replace(student, model=model, preparation=like.preparation)


def lost_on(held: Images, teacher: Classifier, student: Classifier) -> dict[str, float]:
    """Shares of held-out images: named alike by both, and, where they are labelled, named right by each."""
    if not len(held):
        return {"n": 0}
    theirs, own = answers(teacher, held).argmax(1), answers(student, held).argmax(1)
    found = {"n": len(held), "agreement": float((own == theirs).double().mean())}
    if held.classes:
        right = held.of(teacher.classes).labels
        found["teacher"] = float((theirs == right).double().mean())
        found["student"] = float((own == right).double().mean())
    return found


def _called(images: Images, name: str) -> str:
    return f"{'labelled' if images.classes else 'unlabelled'} images" + (f" of '{name}'" if name else "")


def _said(lost: dict[str, float]) -> str:
    if not lost["n"]:
        return "what was lost is not measured: there are too few images to hold some out"
    if "student" not in lost:
        return f"of {lost['n']} held-out images {lost['agreement']:.1%} are named as the teacher names them"
    return (
        f"of {lost['n']} held-out images {lost['student']:.1%} are named right, by the teacher {lost['teacher']:.1%}"
        f" ({100 * (lost['student'] - lost['teacher']):+.1f} points)"
    )


def _size(model: Classifier) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


__all__ = ["distill"]
