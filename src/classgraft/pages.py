"""The page of an extension: what was measured, in the page's own terms."""

from __future__ import annotations

import dataclasses
import datetime
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor

from classgraft import api
from classgraft.bundle import Bundle
from classgraft.data.decode import open_rgb
from classgraft.data.names import normal
from classgraft.data.sources import Source, open_source
from classgraft.errors import InputError
from classgraft.history import versions
from classgraft.metrics import classification, tradeoff
from classgraft.report.page import ClassResult, Confusion, Cost, Curve, Pair, Picture, Promise, Report, Result, render
from classgraft.training.answers import answers

Role = Literal["before", "chosen", "other", "control", "ceiling"]
PAIRS, PICTURES = 8, 4


def of_extension(
    bundle: Bundle,
    images: Sequence[str | Path],
    *,
    skip_unknown: bool = False,
    command: str = "",
    warn: Callable[[str], None] = lambda sentence: None,
) -> str:
    """The page of a bundle's last extension, measured on labelled images of old and new classes."""
    if not any(event["event"] == "extend" for event in bundle.history):
        raise InputError("There is nothing to report: no class was added to this model yet; extend it first.")
    warnings: list[str] = []

    def note(sentence: str) -> None:
        warnings.append(sentence)
        warn(sentence)

    changes: list[tuple[tuple[str, ...], str]] = []
    # a removal since then is not what the page is about
    while bundle.undone and bundle.history[-1]["event"] != "extend":
        if bundle.history[-1]["event"] in ("rename", "merge"):
            *before, now = bundle.history[-1]["classes"]
            changes.append((tuple(before), now))
        bundle = bundle.before()
    if not bundle.undone:
        raise InputError(
            "The model before the last extension is not kept in this bundle; report the one that was extended."
        )
    sources = [_apart(_renamed(open_source(path), changes), k) for k, path in enumerate(images)]
    earlier = bundle.before().model
    seen: list[tuple[Tensor, Tensor, Tensor]] = []
    names: list[str] = []
    for part in api.chunks(bundle, sources, skip_unknown, warn=note):
        seen.append((answers(bundle.model, part), answers(earlier, part), part.labels))
        names.extend(part.names)
    logits, old, labels = (torch.cat(parts) for parts in zip(*seen, strict=True))
    by_name = {photo.name: (source, i) for source in sources for i, photo in enumerate(source.photos)}

    def picture(place: int) -> Picture:
        source, i = by_name[names[place]]
        image = open_rgb(source.photos[i].read(), Path(names[place]).name)
        image.thumbnail((96, 96))
        return Picture(image, Path(names[place].partition(":")[2]).name)

    rows: list[tuple[str, Role, Tensor]] = [(str(bundle.history[-1].get("method", "this model")), "chosen", logits)]
    return comparing(bundle, rows, old, logits, labels, picture, warnings, command)


def _apart(source: Source, number: int) -> Source:
    """With the source's number before the names of its photos, for those of two sources may be called the same."""
    photos = tuple(dataclasses.replace(photo, name=f"{number}:{photo.name}") for photo in source.photos)
    return dataclasses.replace(source, photos=photos)


def _renamed(source: Source, changes: Sequence[tuple[tuple[str, ...], str]]) -> Source:
    """With the names that its classes had before these changes (names, name), the latest of which comes first.

    Raises:
        InputError: a class was two then, and which of them an image shows is not said.
    """
    names = [normal(name) for name in source.classes]
    for before, now in changes:
        if now in names and now not in before:
            if len(before) > 1:
                raise InputError(
                    f"'{now}' was still two classes in the step that the page is about, '{before[0]}' and '{before[1]}';"
                    " give their images under these names."
                )
            names = [before[0] if name == now else name for name in names]
    return dataclasses.replace(source, classes=tuple(names))


def comparing(
    bundle: Bundle,
    rows: Sequence[tuple[str, Role, Tensor]],
    old_logits: Tensor,
    logits: Tensor,
    labels: Tensor,
    picture: Callable[[int], Picture],
    warnings: Sequence[str],
    command: str,
) -> str:
    """The page of a bundle's last step beside other ways.

    Args:
        bundle: with the classes that the step added.
        rows: of every way its name, its role and its logits (N, K) of the images.
        old_logits: of the model before the step (N, K - classes added).
        logits: of this bundle (N, K).
        labels: (N,) of the bundle's classes.
        picture: of the image at a place.
        warnings: sentences that the page begins with.
        command: shown on the page.
    """
    event, before = bundle.history[-1], bundle.before()
    first = len(bundle.classes) - len(bundle.added)
    added = list(range(first, len(bundle.classes)))
    is_old = labels < first
    after = classification.evaluation(logits, labels, bundle.classes, added)
    old_logits = old_logits[:, :first]  # a step that only refined classes had them all before
    earlier = classification.evaluation(old_logits[is_old], labels[is_old], before.classes[:first])
    results = [Result("before", earlier.old, None, None, earlier.accuracy(), (int(is_old.sum()), 0), role="before")]
    curves = []
    for name, role, values in rows:
        found = classification.evaluation(values, labels, bundle.classes, added)
        numbers = (found.old, found.added, classification.harmonic(found.old, found.added), found.accuracy())
        results.append(Result(name, *numbers, (int(is_old.sum()), int((~is_old).sum())), role=role))
        if is_old.any() and (~is_old).any():
            curve = tradeoff.curve(values[is_old], labels[is_old], values[~is_old], labels[~is_old], first)
            here = int(curve.offset.abs().argmin())
            points = _thinned(curve)
            achieved = (float(curve.old[here]), float(curve.new[here]))
            curves.append(Curve(name, points, achieved, curve.area, curve.regret))
    moved = float((old_logits - logits[:, :first]).abs().max())
    measured = "equal bit for bit" if moved == 0 else f"they moved by {moved:.3g} at most"
    promise = Promise("Old logits before and after.", measured, len(logits), "these", held=True if moved == 0 else None)
    return render(
        Report(
            title=f"{len(bundle.added)} classes grafted onto {first}",
            model=bundle.architecture.source,
            method=str(event.get("method", "")),
            why=str(event.get("why", "")),
            date=datetime.date.today().isoformat(),
            versions=tuple(f"{name} {version}" for name, version in versions().items()),
            machine=f"{os.cpu_count()} cores, {torch.get_num_threads()} threads",
            warnings=tuple(warnings),
            results=tuple(results),
            curves=tuple(curves),
            old_classes=tuple(_class(after, earlier, k) for k in range(first)),
            new_classes=tuple(_class(after, None, k) for k in added),
            confusion=Confusion(after.answered, bundle.classes, len(added)),
            pairs=_pairs(after, logits, labels, picture),
            cost=Cost(
                phases=tuple((name, float(seconds)) for name, seconds in event.get("seconds", {}).items()),
                bytes=(_bytes(before), _bytes(bundle)),
                parameters=(_parameters(before), _parameters(bundle)),
            ),
            promises=(promise,),
            command=command,
            seed=event.get("seed"),
            provenance=(("done", str(event.get("sentence", ""))), ("settings", str(event.get("settings", {})))),
        )
    )


def _bytes(bundle: Bundle) -> int:
    return sum(value.numel() * value.element_size() for value in bundle.model.state_dict().values())


def _parameters(bundle: Bundle) -> int:
    return sum(value.numel() for value in bundle.model.parameters())


def _class(after: classification.Evaluation, before: classification.Evaluation | None, k: int) -> ClassResult:
    return ClassResult(
        after.classes[k], after.count([k]), after.accuracy([k]), before.accuracy([k]) if before else None
    )


def _thinned(curve: tradeoff.Curve, most: int = 400) -> tuple[tuple[float, float], ...]:
    step = max(1, len(curve.offset) // most)
    kept = sorted({*range(0, len(curve.offset), step), int(curve.harmonic.argmax()), len(curve.offset) - 1})
    return tuple((float(curve.old[i]), float(curve.new[i])) for i in kept)


def _pairs(
    found: classification.Evaluation, logits: Tensor, labels: Tensor, picture: Callable[[int], Picture]
) -> tuple[Pair, ...]:
    """The most frequent mistakes, with some of their pictures."""
    pairs = []
    for true, predicted, count in found.mistakes[:PAIRS]:
        places = torch.nonzero((labels == true) & (logits.argmax(1) == predicted))[:PICTURES, 0].tolist()
        share = count / found.count([true])
        pairs.append(
            Pair(found.classes[true], found.classes[predicted], count, share, tuple(picture(i) for i in places))
        )
    return tuple(pairs)
