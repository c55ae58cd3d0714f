"""Exemplars: some images of every class seen, kept for replay within a budget, the most telling first.

Herding is algorithm 4 of Rebuffi, Kolesnikov, Sperl, Lampert: iCaRL, CVPR 2017, arXiv 1611.07725. Whether herded or
drawn at random, a class's exemplars are kept in the order in which they were chosen, so that a smaller share is a prefix of a
larger one and shrinking needs no second look.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from classgraft.data.images import Images, Task, joined
from classgraft.errors import InputError
from classgraft.models.classifier import Classifier
from classgraft.training.answers import answers

Unit = Literal["images", "bytes", "images a class", "bytes a class"]
"""What a budget counts: altogether, shared equally by the classes seen so far, or for each class."""


@dataclass(frozen=True)
class Exemplars:
    """Decoded squares as they are trained on, class after class, in each class the first chosen first."""

    images: Images
    """Under the classes of the classifier that they were chosen for; without file names."""
    seen: dict[str, int]
    """Images of each class that they were chosen from so far."""

    @property
    def bytes(self) -> int:
        """What a file of them holds: every pixel (uint8: one byte) and eight bytes for each label."""
        return len(self.images) * bytes_of_one(self.images)

    def merged(self, first: str, second: str) -> Exemplars:
        """Two classes made one: theirs in turns, so that every prefix has about the same share of both."""
        turn, seen = torch.zeros(len(self.images), dtype=torch.float64), dict[str, int]()
        for k in range(len(self.images.classes)):
            own = torch.nonzero(self.images.labels == k)[:, 0]
            turn[own] = turns(len(own)).double()
        images = self.images.merged(first, second)
        for name, count in self.seen.items():
            name = first if name == second else name
            seen[name] = seen.get(name, 0) + count
        return Exemplars(images.subset((images.labels + turn).argsort(stable=True)), seen)


def bytes_of_one(images: Images) -> int:
    """Bytes that one of these images and its label take when saved: 3 S S + 8 for decoded squares of side S."""
    return math.prod(images.pixels.shape[1:]) * images.pixels.dtype.itemsize + 8


def share(amount: int, unit: Unit, classes: int, one: int) -> int:
    """How many images each of so many classes may keep, where one takes ``one`` bytes.

    Raises:
        InputError: not even one.
    """
    found = amount // one if unit.startswith("bytes") else amount
    found = found if unit.endswith("a class") else found // classes
    if found < 1:
        least = (one if unit.startswith("bytes") else 1) * (1 if unit.endswith("a class") else classes)
        raise InputError(
            f"A budget of {amount} {unit} keeps not one exemplar of each of {classes} classes; give at least {least}."
        )
    return found


def herd(features: Tensor, count: int) -> Tensor:
    """Places (at most ``count``) of features (N, D), so chosen that the mean of the first k is always near that of all.

    Each next one is that of the rest that brings the mean of those chosen nearest to the mean of the class.
    """
    features = features.double()
    mean, total = features.mean(0), torch.zeros_like(features[0])
    free, chosen = torch.ones(len(features), dtype=torch.bool), []
    for k in range(1, min(count, len(features)) + 1):
        distance = (mean - (total + features) / k).square().sum(1)
        best = int(distance.masked_fill(~free, torch.inf).argmin())
        free[best] = False
        total = total + features[best]
        chosen.append(best)
    return torch.tensor(chosen, dtype=torch.int64)


@dataclass(frozen=True)
class Budget:
    """How much may be kept and how it is chosen."""

    amount: int
    """Counted in ``unit``."""
    unit: Unit
    herded: bool
    """By herding, else at random."""
    seed: int
    """Of the random choice."""


def keep(memory: object | None, body: nn.Module, classes: tuple[str, ...], train: Images, budget: Budget) -> Exemplars:
    """The exemplars after a task: those of its classes chosen from its images, the earlier ones cut to their share.

    Args:
        memory: ``Exemplars`` of before, or None. Of a class that has exemplars and new images, as many places go to either as
            images were seen of it before and are now, or what was before would be gone after a few tasks.
        body: images to features (B, D), which herding looks at in evaluation mode, at unit length.
        classes: of the classifier.
        train: the task's images.
        budget: how much, and how.
    """
    new = train.of(classes)
    old = memory.images.of(classes) if isinstance(memory, Exemplars) else new.subset(torch.arange(0))
    count = share(budget.amount, budget.unit, len(classes), bytes_of_one(train))
    features = None
    if budget.herded and len(new):
        features = F.normalize(answers(body, new, what="choosing exemplars"), dim=1)
    chosen, seen = [], dict(memory.seen) if isinstance(memory, Exemplars) else {}
    for k, name in enumerate(classes):
        kept, places = (torch.nonzero(source.labels == k)[:, 0] for source in (old, new))
        before = seen.get(name, len(kept)) if len(kept) else 0
        room = share_of(count, before, len(kept), len(places))
        drawn = torch.from_numpy(np.random.default_rng([budget.seed, k]).permutation(len(places)))
        if features is not None and len(places):
            drawn = herd(features[places], count - room)
        chosen.append(together(old, kept[:room], new, places[drawn[: count - room]]))
        seen[name] = before + len(places)
    pixels = torch.cat([pixels for pixels, _ in chosen])
    labels = torch.cat([labels for _, labels in chosen])
    return Exemplars(replace(new, pixels=pixels, labels=labels, names=()), {name: seen[name] for name in classes})


def share_of(count: int, before: int, kept: int, now: int) -> int:
    """How many of ``count`` places go to the ``kept`` images, chosen from ``before``, of a class with ``now`` new ones."""
    fair = round(count * before / max(1, before + now))
    return min(kept, max(fair, count - now))


def together(old: Images, first: Tensor, new: Images, second: Tensor) -> tuple[Tensor, Tensor]:
    """Pixels and labels at these places of two sets, in such an order that every prefix has about the same share of both."""
    pixels = torch.cat([old.pixels[first].cpu(), new.pixels[second].cpu()])
    labels = torch.cat([old.labels[first], new.labels[second]])
    order = torch.cat([turns(len(part)) for part in (first, second)]).argsort(stable=True)
    return pixels[order], labels[order]


def turns(count: int) -> Tensor:
    """Places (N,) between 0 and 1 at which so many images are spread evenly."""
    return (torch.arange(count) + 0.5) / max(1, count)


def replayed(memory: object | None, model: Classifier, task: Task, classes: tuple[str, ...]) -> Images:
    """The exemplars and then the task's images, labelled by their places in ``classes``.

    Raises:
        InputError: the classifier knows classes of which there is no image, neither kept nor in the task.
    """
    if model.classes and not isinstance(memory, Exemplars):
        raise InputError(
            "this method replays kept images of the old classes and there are none; give the old images with"
            " --old-images, or choose a method that needs none."
        )
    new = task.train.of(classes)
    shown = set(new.labels.tolist())
    if isinstance(memory, Exemplars):
        shown |= set(memory.images.of(classes).labels.tolist())
    if lacking := [name for name in model.classes if classes.index(name) not in shown]:
        raise InputError(
            f"Of the old class '{lacking[0]}' no image is kept, so that it would be forgotten; give images of it with"
            " --old-images, or choose the method that added it."
        )
    return joined(memory.images.of(classes), new) if isinstance(memory, Exemplars) else new
