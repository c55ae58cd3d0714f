"""An extension before anybody has accepted it: the grown model, and what can honestly be said of it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor

from classgraft import api
from classgraft.bundle import Bundle
from classgraft.data.images import Images
from classgraft.data.names import match
from classgraft.errors import InputError
from classgraft.metrics import classification, intervals
from classgraft.training.answers import answers

PAIRS, NEAREST = 6, 3


@dataclass(frozen=True)
class Score:
    """A share of images that are answered right among all classes, old and new."""

    value: float
    n: int
    low: float
    """Lower end of its 95 % interval."""
    high: float
    """Upper end."""


@dataclass(frozen=True)
class Change:
    """How old images fare with the new classes in the running, less how they did before."""

    before: float
    """Accuracy among the old classes alone."""
    value: float
    low: float
    """Lower end of the 95 % interval of ``value``."""
    high: float
    """Upper end."""


@dataclass(frozen=True)
class Pair:
    """Images of one class that were taken for another, one of the two being new."""

    true: str
    answered: str
    count: int
    of: int
    """Images of the true class."""


@dataclass(frozen=True)
class Judged:
    """A photo, judged by a model that has not learnt from it."""

    place: int
    """Among the photos."""
    answered: str
    right: bool


@dataclass(frozen=True)
class Proposal:
    """A grown bundle and what was measured on it. None: not measured."""

    bundle: Bundle
    classes: tuple[str, ...]
    """The new ones; or those that were refined."""
    old: Score | None
    change: Change | None
    new: Score | None
    harmonic: float | None
    new_from: Literal["given", "photos", ""]
    """Where the images of ``new`` came from: those given to measure on, or the photos themselves, half and half."""
    pairs: tuple[Pair, ...]
    """The most frequent mistakes between the new classes and others."""
    nearest: tuple[tuple[str, float], ...]
    """Other classes with the most probability on images of the new ones, and its mean."""
    judged: tuple[Judged, ...]
    """Photos, where ``new_from`` is "photos"."""
    warnings: tuple[str, ...]

    @property
    def promise(self) -> str:
        """What the model card will say of the old classes."""
        return str(self.bundle.history[-1].get("promise", {}).get("sentence", ""))


def propose(
    bundle: Bundle,
    photos: Images,
    *,
    method: str = "auto",
    settings: Mapping[str, Any] | None = None,
    update: bool = False,
    seed: int = 0,
    known: Images | None = None,
    warn: Callable[[str], None] = lambda sentence: None,
) -> Proposal:
    """Extend a bundle, and measure what that gives and costs; nothing is learnt or chosen from what it is measured on.

    Old classes are measured on ``known`` alone. New ones are too where it has images of them; else each half of their
    photos is judged by a trial model that has learnt from the other half, and the proposed model from both.

    Args:
        bundle: to extend.
        photos: of the new classes.
        method, settings, update, seed: as in ``extend``.
        known: labelled images, by any class names; those of classes that the grown model lacks are left out.
        warn: hears what should be known.
    """
    said: list[str] = []

    def note(sentence: str) -> None:
        said.append(sentence)
        warn(sentence)

    def extended(part: Images, warn: Callable[[str], None]) -> Bundle:
        return api.extend(bundle, part, method=method, settings=settings, update=update, seed=seed, warn=warn)

    grown = extended(photos, note)
    new = [grown.classes.index(name) for name in photos.classes]
    seen = _meant(known, grown.classes) if known else photos.subset(torch.arange(0))
    is_new = torch.isin(seen.labels, torch.tensor(new))
    old_images, new_images = seen.subset(~is_new), seen.subset(is_new)
    old_logits, logits, labels = _logits(grown, old_images), _logits(grown, new_images), new_images.labels
    new_from: Literal["given", "photos", ""] = "given" if len(labels) else ""
    judged: tuple[Judged, ...] = ()
    if not len(labels):
        try:
            places, logits = _tried(photos, grown, lambda part: extended(part, lambda sentence: None), seed)
        except InputError as error:
            note(f"The photos could not be judged by halves: {error}")
            places = torch.arange(0)
        if len(places):
            new_from = "photos"
            labels = torch.tensor(new)[photos.labels[places]]
            found = sorted(zip(places.tolist(), logits.argmax(1).tolist(), labels.tolist(), strict=True))
            judged = tuple(Judged(i, grown.classes[k], k == true) for i, k, true in found)
    before = _logits(bundle, old_images)
    every = torch.cat([old_logits, logits]), torch.cat([old_images.labels, labels])
    evaluation = classification.evaluation(*every, grown.classes, new)
    return Proposal(
        grown,
        photos.classes,
        _score(old_logits, old_images.labels),
        _change(before, old_logits, old_images.labels),
        _score(logits, labels),
        classification.harmonic(evaluation.old, evaluation.added),
        new_from,
        _pairs(evaluation, new),
        _nearest(logits, grown.classes, new),
        judged,
        tuple(said),
    )


def look_ahead(bundle: Bundle, known: Images) -> None:
    """Look at the images to measure on, so that the first proposal need not: their features are remembered for a while."""
    _logits(bundle, _meant(known, bundle.classes))


def _meant(known: Images, classes: tuple[str, ...]) -> Images:
    """The images of these classes, found by name as ``evaluate`` finds them, labelled with their places."""
    found = match(known.classes, classes).found
    place = torch.tensor([found.get(name, -1) for name in known.classes])
    kept = torch.nonzero(place[known.labels] >= 0)[:, 0]
    return dataclasses.replace(known.subset(kept), labels=place[known.labels[kept]], classes=classes)


def _logits(bundle: Bundle, images: Images) -> Tensor:
    """(N, K); features of the same body are looked up, not computed again."""
    model = bundle.model
    if not len(images):
        return torch.zeros(0, len(bundle.classes))
    with torch.inference_mode():
        found: Tensor = model.head(answers(model, images, model.features).to(model.device)).float().cpu()
    return found.clone()


def _tried(photos: Images, grown: Bundle, extended: Callable[[Images], Bundle], seed: int) -> tuple[Tensor, Tensor]:
    """Places of photos and their logits (N, K) by models that learnt from the other half; none where one is alone."""
    halves: tuple[list[Tensor], list[Tensor]] = ([], [])
    generator = torch.Generator().manual_seed(seed)
    for k in range(len(photos.classes)):
        rows = torch.nonzero(photos.labels == k)[:, 0]
        rows = rows[torch.randperm(len(rows), generator=generator)]
        if len(rows) < 2:
            return torch.arange(0), torch.zeros(0, len(grown.classes))
        for half, part in zip(halves, rows.tensor_split(2), strict=True):
            half.append(part)
    first, second = (torch.cat(half).sort().values for half in halves)
    logits = [
        _logits(extended(photos.subset(learnt)), photos.subset(judged))
        for learnt, judged in ((second, first), (first, second))
    ]
    return torch.cat([first, second]), torch.cat(logits)


def _score(logits: Tensor, labels: Tensor) -> Score | None:
    if not len(labels):
        return None
    right = int((logits.argmax(1) == labels).sum())
    return Score(right / len(labels), len(labels), *intervals.wilson_interval(right, len(labels)))


def _change(before: Tensor, after: Tensor, labels: Tensor) -> Change | None:
    if not len(labels):
        return None
    was, now = before.argmax(1) == labels, after.argmax(1) == labels
    return Change(float(was.double().mean()), *intervals.paired_change(was, now))


def _pairs(found: classification.Evaluation, new: list[int]) -> tuple[Pair, ...]:
    names, added = found.classes, set(new)
    theirs = [(true, answered, count) for true, answered, count in found.mistakes if added & {true, answered}]
    return tuple(Pair(names[true], names[said], count, found.count([true])) for true, said, count in theirs[:PAIRS])


def _nearest(logits: Tensor, classes: tuple[str, ...], new: list[int]) -> tuple[tuple[str, float], ...]:
    if not len(logits):
        return ()
    mean = logits.double().softmax(1).mean(0)
    mean[new] = -1
    best = mean.topk(min(NEAREST, len(classes) - len(new)))
    return tuple((classes[k], value) for value, k in zip(best.values.tolist(), best.indices.tolist(), strict=True))
