"""Deep generative replay: a generator draws what earlier tasks looked like, the old network says what it is.

Shin, Lee, Kim, Kim: Continual Learning with Deep Generative Replay, NIPS 2017, arXiv 1705.08690. A scholar is a generator and
a solver. The next solver learns from the new images, weight r, and from pictures that the old generator draws and the old
solver labels, weight 1 - r; the next generator learns from the same mixture. Nothing else is kept.

    L = -r log softmax(z(x))_y - (1 - r) log softmax(z(x'))_y',  x' drawn,
    y' = argmax of the old network's z(x'),  r = 1 / t

Differs from the paper:
1. The generator is a variational autoencoder, not a WGAN with gradient penalty, and goes on from the weights of its earlier
   self. It can be told which class to draw (``conditional``).
2. r is 1 / t at the t-th task, as if all tasks were as large; each step has as many drawn pictures as new ones.
3. ``space="features"``: body and generator change places. The body of the first classes stays as it is, the generator draws
   its features, and the head learns: for photos, which so small a generator cannot draw.
4. New rows start at zero.
A generator cannot be rid of one class. Once a class is taken out, a conditional one is never asked for it again; any other may
still draw the like, and the solver, which no longer knows it, calls it something else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
import torch.nn.functional as F

from classgraft.data.augment import augmentation
from classgraft.data.images import Task
from classgraft.errors import InputError
from classgraft.losses.consistency import soft_cross_entropy
from classgraft.models.classifier import Classifier, frozen
from classgraft.training.answers import answers, asked
from classgraft.training.generative import Autoencoding, Generative, any_class, drawn, kept_before, learnt, vectors_of
from classgraft.training.loop import Batch, Terms, fit
from classgraft.training.recipe import Recipe
from classgraft.verbs import Extender


@dataclass(frozen=True)
class GenerativeReplay(Extender):
    """Cross-entropy on new images and on drawn ones with the old network's answers; every weight is free."""

    keeps: ClassVar[str] = "statistics"
    memory_type: ClassVar[type] = Generative
    space: Literal["images", "features"] = "images"
    """What is drawn: the images, or features of the body, which then stays as it is once it knows classes."""
    share: float | None = None
    """r, weight of the new images; None: 1 / t at the t-th task."""
    soft: bool = False
    """Whether the old network's probabilities are the labels, not the class that it favours."""
    conditional: bool = False
    """Whether the generator is told which class to draw, all equally often; the label is the old network's still."""
    dimension: int = 32
    """Z, coordinates of a point that a picture is drawn from."""
    width: int = 32
    """Channels of the generator's smallest map; its full layers have four times as many units."""
    drawing: int = 2000
    """Steps of the generator at each task, in whole epochs."""
    drawing_lr: float = 1e-3
    """Its learning rate, falling to 0 along a cosine."""
    recipe: Recipe = Recipe(epochs=20, batch_size=64, optimiser="adamw", lr=1e-3, weight_decay=5e-4)

    def remember(self, model: Classifier, task: Task, memory: object | None) -> Generative | None:
        images, before = task.train.of(model.classes), kept_before(memory)
        if self.space == "features" and len(images):
            images = vectors_of(answers(model, images, model.features), images.labels, images.classes)
        form = Autoencoding(self.dimension, self.width, self.drawing, self.drawing_lr, self.conditional,
                            self.recipe.batch_size, self.recipe.seed)  # fmt: skip
        return learnt(images, form, before, self.mixed(before), model.device)

    def extend(self, model: Classifier, memory: object | None, task: Task) -> Classifier:
        kept, old, grown = kept_before(memory), frozen(model), model.grown(task.classes)
        if model.classes and kept is None:
            raise InputError(
                "generative-replay must have looked at the old images; give them with --old-images, or choose another method."
            )
        if kept and (lacking := [name for name in model.classes if name not in (*kept.classes, *task.classes)]):
            raise InputError(
                f"Of the old class '{lacking[0]}' generative-replay has learnt no image, so that it would be forgotten; give"
                " images of it with --old-images, or choose the method that added it."
            )
        if kept and kept.vectors != (self.space == "features"):
            raise InputError(f"What generative-replay keeps does not draw {self.space}; leave the space as it was.")
        images, r, augment = task.train.of(grown.classes), self.mixed(kept), augmentation(self.recipe.augment)
        generator = kept.network(model.device) if kept and r < 1 else None
        still = self.space == "features" and len(model.classes) > 0
        grown.requires_grad_(not still).head.requires_grad_(True)
        solver, earlier = (grown.head, old.head) if still else (grown, old)

        def objective(batch: Batch) -> Terms:
            new = asked(old, batch.images, old.features) if still else batch.images
            if kept is None or generator is None:
                return {"new": F.cross_entropy(solver(new), batch.targets)}
            replayed = drawn(generator, len(new), any_class(kept, len(new), new.device))
            if still:
                replayed = replayed.flatten(1)
            else:  # prepared and augmented as the new ones are
                replayed = batch.source.seen(replayed, batch.index, augment, self.recipe.seed + 15_485_863, batch.epoch)
            said = asked(earlier, replayed)
            logits, again = solver(torch.cat([new, replayed])).split(len(new))
            wanted = said.softmax(1) if self.soft else F.one_hot(said.argmax(1), said.shape[1]).to(said.dtype)
            wanted = F.pad(wanted, (0, again.shape[1] - wanted.shape[1]))
            return {
                "new": r * F.cross_entropy(logits, batch.targets),
                "old": (1 - r) * soft_cross_entropy(again, wanted),
            }

        fit(grown, objective, images, self.recipe, "learning with replay")
        return grown.requires_grad_(True)

    def mixed(self, kept: Generative | None) -> float:
        """r at the task after those that the generator learnt."""
        if kept is None:
            return 1.0
        return 1 / (kept.tasks + 1) if self.share is None else self.share
