"""What an extension promises of the classes that were there before: measured when it is made, and again on request.

The strongest that is true: the old logits keep their bits; else the most likely old class is the same on so many
generated images. Where old images are given, the measured change of accuracy on them stands beside it.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from classgraft.bundle import Bundle, tensors_of
from classgraft.data.images import Images
from classgraft.data.probes import COUNT, probes
from classgraft.errors import InputError
from classgraft.metrics.intervals import paired_change, wilson_interval
from classgraft.models.classifier import Classifier
from classgraft.training.answers import answers
from classgraft.training.carries import digest

MOST = 2048
"""Old images that are looked at, drawn at random from more."""
SLACK = 1
"""Generated images that may be answered otherwise on another machine before a promise counts as broken."""


def promise(bundle: Bundle, after: Classifier, photos: Images, old: Images | None = None) -> dict[str, Any]:
    """What can be promised of the step from a bundle's model to another, as JSON with a ``sentence``.

    Args:
        bundle: before the step; its K classes come first in ``after``.
        after: the model with more classes.
        photos: the images at hand, whatever their classes.
        old: images labelled with classes of ``after`` by name, or None.
    """
    before = bundle.model
    generated = probes(photos.preparation, before.classes, channels=photos.pixels.shape[1])
    known = None if old is None else old.of(before.classes).some(MOST, 0)
    seen = [generated, photos.some(COUNT, 0), *([known] if known else [])]
    bits = all(_same_bits(before, after, images) for images in seen)
    count = sum(map(len, seen))
    found: dict[str, Any] = {"bits": bits, "classes": len(before.classes), "images": count, "before": _weights(bundle)}
    if bits:
        words = (
            f"The logits of the {len(before.classes)} old classes are bit for bit those of the model before"
            f" (compared on {count} images; true for the same batch, device and precision)."
        )
    else:
        same, of = _agreement(before, after, generated)
        found["agreement"] = [same, of]
        low, high = wilson_interval(same, of)
        words = (
            f"Among the {len(before.classes)} old classes the most likely one is that of the model before on {same} of"
            f" {of} generated images ({same / of:.0%}; 95 % interval {low:.0%} to {high:.0%})."
        )
    if known:
        found["change"] = change = _change(before, after, known)
        words += (
            f" On {len(known)} old images that were given, accuracy went from {change['before']:.1%} to"
            f" {change['after']:.1%} with the new classes in the running: {_points(change)}."
        )
    return {"sentence": words, **found}


def recheck(bundle: Bundle, seen: Images | None = None, old: Images | None = None) -> list[str]:
    """Measure again what the bundle promises of each step that can be undone, newest first.

    Args:
        bundle: holds what the models before are made from.
        seen: further images to compare bits on, or None.
        old: images labelled with classes of the bundle, to measure the change of accuracy on; or None.

    Returns:
        a sentence for each promise.

    Raises:
        InputError: a promise does not hold.
    """
    found: list[str] = []
    while bundle.undone:
        event, before = bundle.history[-1], bundle.before()
        if event.get("promise") is not None:
            try:
                found.append(_recheck(before, bundle, event, seen, old))
            except (AttributeError, IndexError, KeyError, TypeError) as error:  # it is not of the form that we write
                said = str(event.get("sentence"))[:200]
                raise InputError(f"What '{said}' promises cannot be read; restore the bundle.") from error
        bundle = before
    return found


def _recheck(before: Bundle, after: Bundle, event: dict[str, Any], seen: Images | None, old: Images | None) -> str:
    stated, step = event["promise"], f"The step of {event.get('date')} ({str(event.get('sentence'))[:200]})"
    generated = probes(before.preparation, before.classes)
    if _weights(before) != stated.get("before"):
        raise InputError(f"{step}: undone, the model is not bit for bit the one before the step; restore the bundle.")
    if stated.get("bits"):
        sets = [generated, *([seen] if seen else [])]
        if not all(_same_bits(before.model, after.model, images) for images in sets):
            raise InputError(f"{step} promised to keep the old logits bit for bit and did not; restore the bundle.")
        said = f"the old logits are those of the model before, bit for bit, on {sum(map(len, sets))} images"
    else:
        same, of = _agreement(before.model, after.model, generated)
        if same < stated["agreement"][0] - SLACK:
            raise InputError(
                f"{step} promised the old answer on {stated['agreement'][0]} of {of} generated images and gives it on"
                f" {same}; restore the bundle."
            )
        said = f"the old answer on {same} of {of} generated images"
        if seen:
            same, of = _agreement(before.model, after.model, seen)
            said += f" and on {same} of {of} of those given"
    known = None if old is None else old.of(before.classes)
    if not known:
        missing = "; the change on old images was not measured again, for want of them" if "change" in stated else ""
        return f"{step}: {said}{missing}."
    change = _change(before.model, after.model, known)
    if "change" not in stated:
        return f"{step}: {said}; on {len(known)} old images {_points(change)}, of which it promised nothing."
    low = stated["change"]["interval"][0]
    if change["interval"][1] < low:
        raise InputError(
            f"{step} promised that accuracy on old images changed by {100 * low:+.1f} points or better; on these"
            f" {len(known)} it is {_points(change)}: they are others, or the bundle is; restore it."
        )
    return f"{step}: {said}; on {len(known)} old images {_points(change)}."


def _weights(bundle: Bundle) -> str:
    """Fingerprint of all numbers of the model."""
    return digest(sorted(tensors_of(bundle).items()))


def _old(model: Classifier, images: Images, count: int) -> Tensor:
    return answers(model, images)[:, :count]


def _same_bits(before: Classifier, after: Classifier, images: Images) -> bool:
    count = len(before.classes)
    return torch.equal(_old(before, images, count), _old(after, images, count))


def _agreement(before: Classifier, after: Classifier, images: Images) -> tuple[int, int]:
    count = len(before.classes)
    same = _old(before, images, count).argmax(1) == _old(after, images, count).argmax(1)
    return int(same.sum()), len(same)


def _change(before: Classifier, after: Classifier, old: Images) -> dict[str, Any]:
    was, now = (answers(model, old).argmax(1) == old.labels for model in (before, after))
    _, low, high = paired_change(was, now)
    return {"images": len(old), "before": float(was.double().mean()), "after": float(now.double().mean()),
            "interval": [low, high]}  # fmt: skip


def _points(change: dict[str, Any]) -> str:
    low, high = change["interval"]
    moved = 100 * (change["after"] - change["before"])
    return f"a change of {moved:+.1f} points (95 % interval {100 * low:+.1f} to {100 * high:+.1f})"
