"""Generative low-shot network expansion (GLNE), with a memory of the old classes and without.

Hayat, Kliger, Fleishman, Cohen-Or: Generative Low-Shot Network Expansion, arXiv 1810.08363. The base network is left
as it is ("hard distillation": the old logits are equal by construction); rows for the new classes are placed beside the
old ones and learn, in one joint softmax, from the new photos and from features that a generative model of the old
classes makes up: one Gaussian mixture a class, fitted while the old images are at hand.

    L(W, b) = mean over new photos of -log s_y
        + base * mean over made-up features of -log s_y + decay / 2 |W|^2
    s = softmax([old logits, W f + b]),  f the frozen features

Differs from the paper:
1. Where the old images are gone and nothing was kept of them, the model is read off the classifier's own head and the few
   new photos (``training/unseen.py``).
2. One photo says little of the spread of its class. What is missing is filled in: class means are drawn towards the mean
   of what is known of the world, and noise of the size of the missing variance is added (``new_features``).
3. The problem is small (and convex without hidden units), so L-BFGS solves it on all samples, rather than stochastic steps.
4. A class that something was kept of learns further from new photos of it and what stands in for the earlier ones (unless
   it was several: what is kept is the first's alone).
5. Classes that earlier extensions added are few beside those that the network was trained on and are made up apart from
   them, in a term that weighs by the class as that of the new photos does: in one term they would hardly count. Once they
   and the new ones are the more, every class weighs the same.
6. New hidden units are as many for each class as asked for, beside its row, and feed that class's logit alone, so that
   each class can be removed or learn further by itself.
7. Every new class counts alike, however many photos it has. In a mean over photos one of a single photo hardly counts.
8. ``memory="cvae"`` is not the paper's: a summary of it draws a conditional variational autoencoder of the base classes'
   *images* in place of the mixtures. Its pictures are looked at by the frozen network, and their features stand in.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from types import UnionType
from typing import ClassVar, Literal

import torch
from torch import Tensor

from classgraft.data.images import Task
from classgraft.errors import InputError
from classgraft.losses.classification import by_class, grown_cross_entropy
from classgraft.models.classifier import Classifier
from classgraft.models.hidden import first_units, units_logits, with_units
from classgraft.models.rows import layers
from classgraft.training.generative import Autoencoding, Generative, kept_before, learnt
from classgraft.training.mixtures import Covariance, Form, Mixtures
from classgraft.training.solve import solve
from classgraft.training.unseen import ENOUGH, StandIns, as_features, kept_of, old_side, row_scale
from classgraft.training.views import look, new_features
from classgraft.verbs import Extender


@dataclass(frozen=True)
class GLNE(Extender):
    """Frozen network, new rows beside the old, one joint softmax, generated features in place of the old images."""

    keeps: ClassVar[str] = "statistics"
    memory_type: ClassVar[type | UnionType] = Mixtures | Generative
    needs_trained_body: ClassVar[bool] = True
    views: int = 8
    """Views of each photo that are looked at: the photo, its mirror image, then random crops."""
    base: float = 1.0
    """Weight of the term on generated features of old classes, beside 1 for the new photos."""
    confidence: float = 0.8
    """How sure the classifier is, on average, of the features made up of classes that nothing was kept of."""
    prior: float = 1.0
    """Photos that the prior mean of a class counts for; 0 takes the mean of the photos as it is."""
    samples: int = 2
    """Features generated for each old class, at least."""
    weight_decay: float = 0.03
    """Pull on the new rows, in units of the old rows' mean squared length; on hidden units, of their root mean square."""
    hidden: int = 0
    """New hidden units (ReLU) of each new class beside its row."""
    iterations: int = 60
    """Of L-BFGS."""
    memory: Literal["mixture", "features", "cvae", "none"] = "mixture"
    """What is kept of a class: a Gaussian mixture (the paper's), every feature (the ceiling), a share of a conditional
    generator of images, or nothing."""
    covariance: Covariance = "chosen"
    """Of each Gaussian: spherical, diagonal, low-rank and diagonal, one shared by all classes, or what the bytes allow."""
    components: int = 1
    """Gaussians a class."""
    memory_bytes: int = 6000
    """A class may take, where the covariance is to be chosen."""
    drawing: int = 2000
    """Steps of the conditional generator at each task, in whole epochs."""
    seed: int = 0
    """Of the crops, the generated features, the generator and the first weights of hidden units."""

    def remember(self, model: Classifier, task: Task, memory: object | None) -> Mixtures | Generative | None:
        if self.memory == "none":
            return None
        if self.memory == "cvae":
            return self.drawn(model, task, memory)
        form = Form(self.covariance, self.components, self.memory_bytes) if self.memory == "mixture" else None
        return kept_of(model, task, as_features(model, task, memory, self.seed, form), form, self.seed)

    def drawn(self, model: Classifier, task: Task, memory: object | None) -> Generative | None:
        """A generator of the images of these classes and of those before, each with the weight of its classes."""
        if isinstance(memory, Mixtures) and memory.classes:
            raise InputError(
                "glne keeps mixtures, which draw no images; go on with memory=mixture, or give the old images."
            )
        before, images = kept_before(memory), task.train.of(model.classes)
        new = len(images.labels.unique())
        form = Autoencoding(steps=self.drawing, conditional=True, seed=self.seed)
        share = new / (new + len(before.classes)) if before else 1.0
        return learnt(images, form, before, share, model.device)

    def extend(self, model: Classifier, memory: object | None, task: Task) -> Classifier:
        kept = memory = as_features(model, task, memory, self.seed)
        again = tuple(name for name in task.classes if name in model.classes and kept and name in kept.classes)
        names = again + model.unknown(task.classes)
        if not names:
            return model.grown(()).eval()
        if again:
            rows = Counter(k for _, classes in layers(model.head.linear_part) for k in classes)
            if several := [name for name in again if rows[model.classes.index(name)] > 1]:
                raise InputError(
                    f"'{several[0]}' was made of several classes, of which glne keeps the first's statistics alone, so that it"
                    " cannot be refined; remove it and add it again with all its photos."
                )
        features, labels = look(model, task.train.of(names), self.views, self.seed)
        for k, name in enumerate(again):  # photos seen before stand beside the new ones
            earlier = kept.photos(name, torch.Generator().manual_seed(self.seed)) if kept else features[:0, 0]
            features = torch.cat([features, earlier[:, None].expand(-1, self.views, -1)])
            labels = torch.cat([labels, labels.new_full((len(earlier),), k)])
        base = model.without(again) if again else model

        trained = base.head.parts[0].out_features if base.classes else 0
        added = tuple(name for name in base.classes[trained:] if kept and name in kept.classes)
        old = StandIns.of(base, memory, features[:, 0], self.confidence, self.samples, self.seed, besides=added)
        mean, generator = old.mean, torch.Generator().manual_seed(self.seed)
        new, new_labels = new_features(features, labels, mean, self.prior, generator, apart=old.apart)
        made, made_labels = old.sample(self.samples, generator)
        count, alike = len(added) + len(names), by_class(new_labels)
        level = min(1.0, (len(base.classes) - len(added)) / count)  # no class counts for more than a new one
        more, more_labels, share = made[:0], made_labels[:0], len(names) / count
        if kept and added:
            more, _ = kept.sample(added, max(1, ENOUGH // count), generator)
            places = torch.tensor([base.classes.index(name) for name in added])
            more_labels = places.repeat_interleave(len(more) // len(added))

        # features are centred on the old mean, so that the decay of the rows pulls towards "as likely as anywhere"
        sum_old, own_old = old_side(base, made, made_labels)
        sum_more, own_more = old_side(base, more, more_labels)
        sum_new, _ = old_side(base, new)
        made, more, new = made - mean, more - mean, new - mean
        scale = row_scale(base.head.linear_part.weight.float().cpu(), new)

        def logits(x: Tensor, weight: Tensor, bias: Tensor, *units: Tensor) -> Tensor:
            rows = x @ weight.T + bias
            return rows + units_logits(x, *units) if units else rows

        def terms(weight: Tensor, bias: Tensor, *units: Tensor) -> dict[str, Tensor]:
            rows = logits(new, weight, bias, *units)
            own = rows.gather(1, new_labels[:, None])[:, 0]
            losses = {"new": share * grown_cross_entropy(rows, sum_new, own, alike)}
            if len(more):
                others = grown_cross_entropy(logits(more, weight, bias, *units), sum_more, own_more)
                losses["added"] = (1 - share) * others
            losses["decay"] = self.weight_decay / 2 * weight.square().sum() / scale
            for part in units[::2]:  # a unit's weights in and out multiply to the size of a row
                losses["decay"] = losses["decay"] + self.weight_decay / 2 * part.square().sum() / scale**0.5
            if len(made):
                losses["base"] = (
                    self.base * level * grown_cross_entropy(logits(made, weight, bias, *units), sum_old, own_old)
                )
            return losses

        start = first_units(new, len(names), self.hidden, generator) if self.hidden else ()
        weight, bias, *units = solve(terms, len(names), features.shape[2], self.iterations, more=start)
        bias = bias - weight @ mean
        if units:
            units[1] = units[1] - units[0] @ mean
        refined = model.with_rows(again, weight[: len(again)], bias[: len(again)])
        grown = refined.grown(names, weight[len(again) :], bias[len(again) :])
        return (with_units(grown, names, units) if units or again else grown).eval()
