"""Generative low-shot network expansion (GLNE), without the old images.

Hayat, Kliger, Fleishman, Cohen-Or: Generative Low-Shot Network Expansion, arXiv 1810.08363. The base network is left
as it is ("hard distillation": the old logits are equal by construction); rows for the new classes are placed beside the
old ones and learn, in one joint softmax, from the new photos and from features that a generative model of the old
classes makes up.

Differs from the paper:
1. The paper fits its generative model to the old images. Here they are gone, and the model is read off the classifier's
   own head and the few new photos (``OldClasses``).
2. One photo says little of the spread of its class. What is missing is filled in: class means are drawn towards the mean
   of what is known of the world, and noise of the size of the missing variance is added (``new_features``).
3. The problem is convex and small, so it is solved by L-BFGS on all samples rather than by stochastic steps.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from classgraft.data.images import Task
from classgraft.losses.classification import grown_cross_entropy
from classgraft.models.classifier import Classifier, frozen
from classgraft.training.solve import solve
from classgraft.training.views import look
from classgraft.verbs import Extender


@dataclass(frozen=True)
class GLNE(Extender):
    """Frozen network, new rows beside the old, one joint softmax, generated features in place of the old images."""

    views: int = 8
    """Views of each photo that are looked at: the photo, its mirror image, then random crops."""
    base: float = 1.0
    """Weight of the term on generated features of old classes, beside 1 for the new photos."""
    confidence: float = 0.8
    """How sure the classifier is, on average, of the features generated for its own classes."""
    prior: float = 1.0
    """Photos that the prior mean of a class counts for; 0 takes the mean of the photos as it is."""
    samples: int = 2
    """Features generated for each old class."""
    weight_decay: float = 0.03
    """Pull on the new rows, in units of the old rows' mean squared length."""
    iterations: int = 60
    """Of L-BFGS."""
    seed: int = 0
    """Of the crops and the generated features."""

    def extend(self, model: Classifier, memory: object | None, task: Task) -> Classifier:
        names = model.unknown(task.classes)
        if not names:
            return model.grown(()).eval()
        photos = task.train.of(names)
        features, labels = look(model, photos, self.views, self.seed)
        generator = torch.Generator().manual_seed(self.seed)

        old = OldClasses.of(model, features[:, 0], self.confidence) if len(model.classes) > 1 else None
        mean = old.mean if old else features[:, 0].mean(0)
        new, new_labels = new_features(features, labels, mean, self.prior, generator)
        made = old.sample(self.samples, generator) if old else features.new_zeros(0, features.shape[2])
        made_labels = torch.arange(len(model.classes)).repeat(self.samples if old else 0)

        # features are centred on the old mean, so that the decay of the rows pulls towards "as likely as anywhere"
        sum_old, own_old = old_side(model, made, made_labels)
        sum_new, _ = old_side(model, new)
        made, new = made - mean, new - mean

        scale = float(old.weight.square().sum(1).mean()) if old else 1.0

        def terms(weight: Tensor, bias: Tensor) -> dict[str, Tensor]:
            rows = new @ weight.T + bias
            own = rows.gather(1, new_labels[:, None])[:, 0]
            losses = {"new": grown_cross_entropy(rows, sum_new, own)}
            losses["decay"] = self.weight_decay / 2 * weight.square().sum() / scale
            if len(made):
                losses["base"] = self.base * grown_cross_entropy(made @ weight.T + bias, sum_old, own_old)
            return losses

        weight, bias = solve(terms, len(names), features.shape[2], self.iterations)
        return model.grown(names, weight, bias - weight @ mean).eval()


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


@dataclass(frozen=True)
class OldClasses:
    """A Gaussian for each old class in feature space, read off the head and a few photos of *other* classes.

    Features of class k are drawn from N(mean + push * w_k, aI + cG), where w_k are the head's rows, centred over the
    classes, and G = W'W/K is their second moment. Five facts fix the numbers:

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
    """(K, D) rows, centred over the classes."""
    bias: Tensor
    """(K,) centred."""
    push: float
    """How far a class's mean lies along its row."""
    axes: Tensor
    """(D, D) eigenvectors of G in columns."""
    variance: Tensor
    """(D,) of a class's features along each of them."""

    @staticmethod
    def of(model: Classifier, photos: Tensor, confidence: float) -> OldClasses:
        """From the head and the features (N, D) of the new photos."""
        weight, bias = model.head.weight.float().cpu(), model.head.bias.float().cpu()
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
        return OldClasses(mean, weight, bias, push, axes, spread_within(push))

    def sample(self, count: int, generator: torch.Generator) -> Tensor:
        """``count`` features of each class (count * K, D), class after class, again and again."""
        means = (self.mean + self.push * self.weight).repeat(count, 1)
        return means + noise(len(means), self.variance, self.axes, generator)


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


def new_features(
    features: Tensor, labels: Tensor, world: Tensor, prior: float, generator: torch.Generator, total: int = 4000
) -> tuple[Tensor, Tensor]:
    """About ``total`` features of the new classes as they would scatter if there were many photos.

    With n photos of a class, its mean is uncertain by 1/n of the variance within classes. Given a prior worth ``prior``
    photos, the likely mean is n/(n + prior) of the way from the mean of all new photos to the class's own, and that of
    all new photos lies likewise between the old mean and their own. Added noise makes up for what n photos do not show.

    Args:
        features: (N, V, D), V views of each photo.
        labels: (N,).
        world: the mean of the old features (D,).
        prior: see above.
        generator: of the noise.
        total: features to make, at least one for each view.
    """
    first, classes = features[:, 0], int(labels.max()) + 1
    count = torch.bincount(labels, minlength=classes).float()
    means = torch.zeros(classes, first.shape[1]).index_add_(0, labels, first) / count[:, None]
    everything = world + len(first) / (len(first) + prior) * (first.mean(0) - world)
    trust = count / (count + prior)
    likely = everything + trust[:, None] * (means - everything)

    within = first - means[labels]
    freedom = (count - 1).sum()
    if freedom > 0:
        variance = within.square().sum(0) / freedom
    else:  # one photo a class: half of the scatter between them is scatter within
        variance = (first - everything).square().mean(0) * prior / (1 + prior)
    views = features.shape[1]
    rounds = max(1, total // (len(first) * views))
    made = (features + (likely - means)[labels][:, None]).flatten(0, 1).repeat(rounds, 1)
    owner = labels.repeat_interleave(views).repeat(rounds)
    missing = ((1 + trust) / count)[owner][:, None] * variance
    return made + torch.randn(made.shape, generator=generator) * missing.sqrt(), owner
