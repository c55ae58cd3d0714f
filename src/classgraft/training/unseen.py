"""Features that stand in for the images of old classes: of what was kept of them, or read off the classifier's head."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from classgraft.data.images import Images, Task
from classgraft.models.classifier import Classifier, frozen
from classgraft.models.rows import all_rows
from classgraft.training.answers import answers
from classgraft.training.generative import Generative, pictures
from classgraft.training.mixtures import Form, Mixtures, exactly, fitted
from classgraft.training.views import imprinted, look

ENOUGH = 4000
"""Features drawn in all from what was kept of every old class."""
MOST = 10_000
"""Features at most that stand in for old images: each is asked for the logits of every old class, so without a limit time is
quadratic in the classes."""

USUAL = 500.0
"""Mean squared length of a trained head's rows times that of the features it reads, both centred: 400 to 1,100 on CIFAR ResNets
and the ImageNet MobileNetV2."""


def kept_of(model: Classifier, task: Task, memory: object | None, form: Form | None, seed: int) -> Mixtures:
    """What was kept before and mixtures of this form for the classes of the task's images (None: their features themselves)."""
    there = {task.train.classes[k] for k in task.train.labels.unique().tolist()}
    names = tuple(name for name in task.classes if name in there)
    features, labels = look(model, task.train.of(names), 1, seed)
    before = memory if isinstance(memory, Mixtures) else None
    if form is None:
        return exactly(features[:, 0], labels, names, before)
    return fitted(features[:, 0], labels, names, form, before, seed)


def as_features(
    model: Classifier, task: Task, memory: object | None, seed: int, form: Form | None = None
) -> Mixtures | None:
    """What was kept, as features: of a generator of images, those of pictures that it draws of each class (or mixtures of
    this form of them).

    About ``ENOUGH`` are drawn in all, in the form of the task's images, which the network looks at as at any other.
    """
    if not isinstance(memory, Generative) or not memory.classes:
        return memory if isinstance(memory, Mixtures) else None
    count = max(2, ENOUGH // len(memory.classes))
    shown = pictures(memory, task.train, count, seed, model.device)
    features = answers(model, shown, model.features)
    if form is None:
        return exactly(features, shown.labels, memory.classes)
    return fitted(features, shown.labels, memory.classes, form, seed=seed)


@dataclass(frozen=True)
class StandIns:
    """What stands in for the old images."""

    mean: Tensor
    """(D,) of all old classes."""
    kept: Tensor
    """(N, D) features of classes that something was kept of."""
    kept_labels: Tensor
    """(N,) their places in the head."""
    apart: Tensor | None
    """(N, D): how each of them lies from its class's mean; None where nothing was kept of some class."""
    unseen: OldClasses | None
    """A picture of the others, read off their own rows alone: rows that an extension added do not make the classes come
    out equally often, as those of a trained head do."""
    places: Tensor
    """Theirs in the head."""

    @staticmethod
    def of(
        model: Classifier,
        memory: object | None,
        photos: Tensor,
        confidence: float = 0.8,
        samples: int = 2,
        seed: int = 0,
        besides: tuple[str, ...] = (),
    ) -> StandIns:
        """From what was kept; for classes that nothing was kept of, from the head and the features (N, D) of new photos.

        Once something was kept, about ``ENOUGH`` features are drawn in all; without, ``samples`` of each class. There are
        none of the classes ``besides``, of which something is kept.
        """
        classes = memory.classes if isinstance(memory, Mixtures) else {}
        names = tuple(name for name in model.classes if name in classes and name not in besides)
        others = [k for k, name in enumerate(model.classes) if name not in classes]
        whole = not others
        trained = model.without((*names, *besides)) if names or besides else model
        unseen = OldClasses.of(trained, photos, confidence) if len(others) > 1 else None
        if not names or not isinstance(memory, Mixtures):
            nothing = torch.zeros(0, dtype=torch.int64)
            mean = unseen.mean if unseen else photos.mean(0)
            return StandIns(mean, photos[:0], nothing, None, unseen, torch.tensor(others))
        most = max(len(classes[name].mean) for name in names) if whole else 0
        count = max(samples, ENOUGH // (len(model.classes) - len(besides)), most)
        kept, apart = memory.sample(names, count, torch.Generator().manual_seed(seed))
        labels = torch.tensor([model.classes.index(name) for name in names]).repeat_interleave(count)
        mean = unseen.mean if unseen else torch.stack([classes[name].centre for name in names]).mean(0)
        return StandIns(mean, kept, labels, apart if whole else None, unseen, torch.tensor(others))

    def sample(self, count: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
        """Features (N, D) and labels (N,): those kept, and ``count`` made up of each class that is not among them.

        Where these are more than ``MOST``, so many of them at random.
        """
        features, labels = self.kept, self.kept_labels
        if self.unseen is not None:
            if len(labels):
                count = int((labels == labels[0]).sum())  # as many of each class
            made = self.unseen.sample(count, generator)
            own = self.places[self.unseen.owner].repeat(count)
            features, labels = torch.cat([made, features]), torch.cat([own, labels])
        if len(labels) > MOST:
            some = torch.randperm(len(labels), generator=generator)[:MOST]
            return features[some], labels[some]
        return features, labels


@dataclass(frozen=True)
class OldClasses:
    """A Gaussian for each old class in feature space, read off the head and a few photos of *other* classes.

    Features of class k are drawn from N(mean + push * w_k, aI + cG), where w_k are the head's rows, centred over the
    classes, and G = W'W/K is their second moment; a class that several were made into is each of them still. Five facts fix
    the numbers:

    - A head is trained until its classes come out about equally often, so the mean of its training features is where
      its logits are about equal: W mean + b is constant. That pins the mean along the rows, where it matters most.
    - Across the rows, where the head is blind, the mean of the new photos is as good as any other.
    - Features vary along the rows more than across, in a straight line: variance a + c g along an eigenvector of G with
      eigenvalue g. (On the ImageNet MobileNetV2 real images follow that line closely.)
    - New photos are draws from the same world: their squared distances from the mean, one for each eigenvector, fix a
      and c by least squares, even those of a single photo.
    - The classifier is sure of its own classes: push is such that softmax gives class k the stated mean probability.
    """

    mean: Tensor
    """(D,) of all old classes."""
    weight: Tensor
    """(R, D) rows, centred over them."""
    bias: Tensor
    """(R,) centred."""
    push: float
    """How far a class's mean lies along its row."""
    axes: Tensor
    """(D, D) eigenvectors of G in columns."""
    variance: Tensor
    """(D,) of a class's features along each of them."""
    owner: Tensor
    """(R,) the class of each row."""

    @staticmethod
    def of(model: Classifier, photos: Tensor, confidence: float) -> OldClasses:
        """From the head and the features (N, D) of the new photos."""
        weight, bias, owner = all_rows(model.head.linear_part)
        weight, bias = weight.float().cpu(), bias.float().cpu()
        weight, bias = weight - weight.mean(0), bias - bias.mean()
        values, axes = torch.linalg.eigh((weight.T @ weight / len(weight)).double())
        values, axes = values.clamp(min=0).float(), axes.float()

        mean, spread = photos.mean(0), torch.ones_like(values)
        for _ in range(3):  # mean and spread depend on each other and settle at once
            mean = _where_logits_are_equal(photos.mean(0), weight, bias, values, axes, spread)
            intercept, slope = fitted_line(((photos - mean) @ axes).square().mean(0), values)
            spread = intercept + slope * values

        def spread_within(push: float) -> Tensor:
            within: Tensor = (
                intercept + max(slope - push**2, 0.0) * values
            )  # the means account for push^2 G of the whole
            return within

        push = _bisect(lambda p: _sureness(weight, bias, mean, p, axes, spread_within(p)), confidence)
        return OldClasses(mean, weight, bias, push, axes, spread_within(push), owner)

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        """``count`` features of each row (count * R, D), row after row, again and again."""
        means = (self.mean + self.push * self.weight).repeat(count, 1)
        return means + noise(len(means), self.variance, self.axes, generator)


def level_rows(model: Classifier, photos: Images, names: tuple[str, ...]) -> tuple[Tensor, Tensor]:
    """Rows (N, D) and biases (N,) to start new classes from, level with the old ones.

    In the middle of the old world, where a trained head's logits are all about equal, a new logit equals them too; from there
    it rises in the mean direction of its photos, as steeply as old ones rise. Imprinted rows, which point from the origin,
    rise towards whatever all images have in common as well, and in a small network take nearly every old image.
    """
    if len(model.classes) < 2:
        return imprinted(model, photos, names)
    features, labels = look(model, photos.of(names), 1, 0)
    first, rows = features[:, 0], model.head.linear_part
    weight, bias = rows.weight.float().cpu(), rows.bias.float().cpu()
    middle = OldClasses.of(model, first, 0.8).mean
    sums = torch.zeros(len(names), first.shape[1]).index_add_(0, labels, F.normalize(first - middle, dim=1))
    common = weight.mean(0)
    raised = common + F.normalize(sums, dim=1) * (weight - common).norm(dim=1).mean()
    return raised, (weight @ middle + bias).mean() - raised @ middle


def begun(model: Classifier, task: Task) -> Classifier:
    """The grown copy from which a network that moves as a whole learns a task: its new rows start level with the old.

    From rows of zero the quickest way to lower the old logits on new photos is to put out the features.
    """
    names = model.unknown(task.classes)
    return model.grown(names, *(level_rows(model, task.train, names) if model.classes and names else ()))


def _where_logits_are_equal(
    photos: Tensor, weight: Tensor, bias: Tensor, values: Tensor, axes: Tensor, spread: Tensor, tolerance: float = 0.1
) -> Tensor:
    """The most likely mean: near the photos' by the spread, with logits equal up to ``tolerance`` (Gaussian posterior)."""
    unequal = weight @ photos + bias
    step = spread / (len(weight) * values * spread + tolerance**2)
    return photos - axes @ (step * (axes.T @ (weight.T @ unequal)))


def fitted_line(squares: Tensor, values: Tensor) -> tuple[float, float]:
    """Intercept and slope, both at least a little, of squared coordinates over eigenvalues.

    Squares of a Gaussian scatter in proportion to their mean, so each is weighted by the line itself (five rounds).
    """
    design = torch.stack([torch.ones_like(values), values / values.max().clamp(min=1e-12)], 1).double()
    weight = torch.ones_like(design[:, :1])
    line = torch.zeros(2, 1, dtype=torch.float64)
    floor = 1e-3 * float(squares.mean()) + 1e-12
    for _ in range(5):
        line = torch.linalg.lstsq(design * weight, squares[:, None].double() * weight).solution.clamp(min=0)
        line[0] = line[0].clamp(min=floor)
        weight = 1 / (design @ line)
    return float(line[0]), float(line[1]) / max(float(values.max()), 1e-12)


def _sureness(weight: Tensor, bias: Tensor, mean: Tensor, push: float, axes: Tensor, variance: Tensor) -> float:
    """Mean probability of its own class for features made up of each class (at most 500 of them)."""
    chosen = torch.arange(0, len(weight), max(1, len(weight) // 500))
    generator = torch.Generator().manual_seed(0)
    features = mean + push * weight[chosen] + noise(len(chosen), variance, axes, generator)
    return float((features @ weight.T + bias).softmax(1).gather(1, chosen[:, None]).mean())


def _bisect(rising: Callable[[float], float], target: float) -> float:
    """Where the function reaches the target; where it never does, about where it comes nearest."""
    tried = [(2.0**i, rising(2.0**i)) for i in range(-2, 11)]
    target = min(target, 0.98 * max(value for _, value in tried))
    high = next(x for x, value in tried if value >= target)
    low = high / 2
    for _ in range(12):
        middle = (low + high) / 2
        low, high = (middle, high) if rising(middle) < target else (low, middle)
    return (low + high) / 2


def noise(count: int, variance: Tensor, axes: Tensor, generator: torch.Generator) -> Tensor:
    """Gaussian draws (count, D) with this variance (D,) along these axes (D, D)."""
    return (torch.randn(count, len(variance), generator=generator) * variance.sqrt()) @ axes.T


def old_side(model: Classifier, features: Tensor, labels: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """Log-sum-exp of the old logits (N,) and the label's own (N,) for features (N, D), a few thousand at a time."""
    if not model.classes or not len(features):
        nothing = features.new_full((len(features),), -torch.inf)
        return nothing, nothing
    head = frozen(model.head).float().cpu()
    labels = torch.zeros(len(features), dtype=torch.int64) if labels is None else labels
    sums, own = [], []
    for some, label in zip(features.split(4096), labels.split(4096), strict=True):
        logits = head(some)
        sums.append(logits.logsumexp(1))
        own.append(logits.gather(1, label[:, None])[:, 0])
    return torch.cat(sums), torch.cat(own)


def row_scale(rows: Tensor, features: Tensor) -> float:
    """Mean squared length of old rows (K, D), centred over the classes; the unit of the new ones' decay.

    Where there are not two of them that differ, what it usually is for features (N, D) that lie so far apart.
    """
    usual = USUAL / (_spread(features) or 1.0)
    return (_spread(rows) or usual) if len(rows) > 1 else usual


def _spread(points: Tensor) -> float:
    return float((points - points.mean(0)).square().sum(1).mean())
