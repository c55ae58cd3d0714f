"""Counts, means and scatters of a frozen body's features, class by class: kept in place of images, exact in any order.

Chan, Golub, LeVeque: Updating Formulae and a Pairwise Algorithm for Computing Sample Variances, 1979. Two tasks one after
the other give what one pass over both gives.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from classgraft.data.images import Task
from classgraft.errors import InputError
from classgraft.models.classifier import Classifier
from classgraft.training.answers import answers, finite


@dataclass(frozen=True)
class Moments:
    """What K classes' features were like."""

    of: str
    """What was done to the features first, in words; moments of other features are others."""
    spread: Literal["none", "shared", "each"]
    """Whether scatters are kept: none, their sum over the classes, or each class's own."""
    classes: tuple[str, ...]
    count: Tensor
    """int64 (K,)."""
    mean: Tensor
    """float64 (K, D)."""
    scatter: Tensor
    """Sums of (x - mean)(x - mean)': (0, D, D); (1, D, D) in 64 bits; or (K, D, D) in 32 bits, as K is many."""

    def including(self, features: Tensor, labels: Tensor, names: Sequence[str]) -> Moments:
        """With these features (N, D) as well, whose ``labels`` (N,) are places in ``names``."""
        classes = with_new(self.classes, names)
        owners, x = places(names, classes)[labels], features.double()
        new, width = len(classes) - len(self.classes), x.shape[1]
        count, mean = (
            torch.cat([self.count, self.count.new_zeros(new)]),
            torch.cat([self.mean, x.new_zeros(new, width)]),
        )

        added = torch.bincount(owners, minlength=len(classes))
        total = (count + added).clamp(min=1).double()
        own = torch.zeros_like(mean).index_add_(0, owners, x) / added.clamp(min=1)[:, None]
        shift = torch.where(added[:, None] > 0, own - mean, 0.0)
        between = (count * added / total)[:, None]  # what two means of one class are apart adds to its scatter
        within = x - own[owners]

        scatter = self.scatter
        if self.spread == "shared":
            scatter = scatter + within.T @ within + (between * shift).T @ shift
        elif self.spread == "each":
            scatter = torch.cat([scatter, scatter.new_zeros(new, width, width)])
            for k in owners.unique().tolist():
                some = within[owners == k]
                scatter[k] = scatter[k].double() + some.T @ some + between[k] * torch.outer(shift[k], shift[k])
        return Moments(self.of, self.spread, classes, count + added, mean + shift * (added / total)[:, None], scatter)

    def without(self, names: Sequence[str]) -> Moments:
        """Without these classes; a shared scatter loses their share of the images, as whose it was nobody knows any more."""
        kept = [k for k, name in enumerate(self.classes) if name not in names]
        scatter = self.scatter[kept] if self.spread == "each" else self.scatter * share(self.count, kept)
        classes = tuple(self.classes[k] for k in kept)
        return Moments(self.of, self.spread, classes, self.count[kept], self.mean[kept], scatter)

    def mean_of(self, names: Sequence[str]) -> Tensor:
        """Means of these classes (K, D)."""
        return self.mean[places(names, self.classes)]


def moments(
    model: Classifier,
    task: Task,
    memory: object | None,
    spread: Literal["none", "shared", "each"] = "none",
    of: str = "features",
    transform: Callable[[Tensor], Tensor] = lambda features: features,
) -> Moments:
    """What ``memory`` holds, with the task's images."""
    features, labels, names = seen(model, task)
    features = transform(features)
    width = features.shape[1]
    if not isinstance(memory, Moments):
        start = torch.zeros(int(spread == "shared"), width, width, dtype=torch.float64)
        start = start.float() if spread == "each" else start
        none = torch.zeros(0, dtype=torch.int64)
        memory = Moments(of, spread, (), none, torch.zeros(0, width, dtype=torch.float64), start)
    fitting("statistics", (of, spread, width), (memory.of, memory.spread, memory.mean.shape[1]))
    return memory.including(features, labels, names)


def seen(model: Classifier, task: Task) -> tuple[Tensor, Tensor, tuple[str, ...]]:
    """The body's features of the task's images (N, D), their labels (N,), and the classes that these are places in.

    Raises:
        InputError: a class of the task has no image, or a feature is no finite number.
    """
    names = tuple(dict.fromkeys(task.classes))
    images = task.train.of(names)
    empty = [name for name, count in images.counts.items() if not count]
    if empty:
        raise InputError(f"The class '{empty[0]}' has no photo; give one at least.")
    # the body, not the classifier, is asked: its answers are remembered whatever head comes next
    return finite(answers(model.body, images, what="looking at the photos")), images.labels, names


def fitting(what: str, now: object, then: object) -> None:
    """Refuse what was kept by the same method with other settings, or with a body of another width."""
    if now != then:
        raise InputError(f"The {what} were kept for {then} and are asked for as {now}; remember the images again.")


def covered(model: Classifier, known: Sequence[str], names: Sequence[str], method: str) -> tuple[str, ...]:
    """All classes in the order of the head that is to be, once all of them are known.

    Raises:
        InputError: nothing is kept of some classes of the model.
    """
    kept = set(known)
    missing = [name for name in model.classes if name not in kept]
    if missing:
        raise InputError(
            f"{method} makes the whole head from statistics and has none of '{missing[0]}'"
            f"{f' and {len(missing) - 1} other classes' if len(missing) > 1 else ''} of the model;"
            " remember their images first (--old-images), or choose another method."
        )
    return (*model.classes, *model.unknown(names))


def with_new(classes: tuple[str, ...], names: Sequence[str]) -> tuple[str, ...]:
    """The classes, then those names that are none of them."""
    return tuple(dict.fromkeys((*classes, *names)))


def share(count: Tensor, kept: list[int]) -> float:
    """Of all images counted, those of the classes kept."""
    return float(count[kept].sum() / count.sum().clamp(min=1))


def places(names: Sequence[str], classes: Sequence[str]) -> Tensor:
    """Where each name stands among the classes, int64."""
    place = {name: k for k, name in enumerate(classes)}
    return torch.tensor([place[name] for name in names], dtype=torch.int64)
