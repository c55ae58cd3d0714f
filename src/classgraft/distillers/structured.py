"""Structured distillation of networks that label every pixel: pixels, pairs of regions, and whole maps by a critic.

Liu, Chen, Liu, Qin, Luo, Wang: Structured Knowledge Distillation for Semantic Segmentation, CVPR 2019, arXiv 1903.04197.

    L = CE(mask, q) + pixel * KL(p || q) + pair * mean_ij (a_ij - a'_ij)^2
        - holistic * D(q | x),  p, q = teacher's and student's maps
    a_ij = cosine of the features of regions i and j
    D goes up  D(p | x) - D(q | x) - penalty * (|grad D| - 1)^2

Differs from the paper:
1. Void pixels count in no term; the published code leaves them in the terms of distillation.
2. The pixel term is a mean over pixels and images, as in the paper; the published code sums over the images of a batch.
3. Regions are means of features on a fixed grid, and the gradient runs through the length of their vectors; the published
   code takes maxima over two by two or three by three regions, and holds the length fixed.
4. The critic has three plain strided convolutions and is held by the gradient penalty alone, where the published code has
   spectral norms and self-attention as well. Its optimiser is AdamW.
5. No auxiliary head is trained. The learning rate falls along a cosine, the paper's by a power of 0.9.
6. Where there are no masks the terms of distillation stand alone.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from classgraft.data.images import Images
from classgraft.data.scenes import VOID, Scenes
from classgraft.errors import InputError
from classgraft.losses.segmentation import (
    gradient_penalty,
    pair_distance,
    pixel_cross_entropy,
    pixel_distance,
    region_means,
)
from classgraft.models.critic import Critic
from classgraft.models.segmenter import Segmenter
from classgraft.training.answers import evaluating
from classgraft.training.batches import Epochs
from classgraft.training.engine import current
from classgraft.training.loop import Batch, Step, Terms, descend, run, train_mode
from classgraft.training.recipe import Recipe
from classgraft.training.teaching import seated
from classgraft.verbs import Distiller


@dataclass(frozen=True)
class StructuredDistillation(Distiller[Segmenter]):
    """Cross-entropy on the masks, where there are any, and three distances from the teacher; a weight of 0 leaves one out."""

    pixel: float = 10.0
    """Lambda_1, of the pixel-wise term."""
    pair: float = 10.0
    """Lambda_1 of the pair-wise term, the same in the paper."""
    holistic: float = 0.1
    """Lambda_2, of the critic's score of the student's map."""
    nodes: int = 8
    """Regions along each side of the grid of the pair-wise term."""
    penalty: float = 10.0
    """Of the critic's gradient, in the critic's own objective."""
    critic_lr: float = 4e-4
    """The critic's learning rate at the start; it falls as the student's does."""
    critic_width: int = 32
    """Channels of the critic's first layer."""
    recipe: Recipe = Recipe(epochs=60, batch_size=8, lr=0.01, milestones=(), augment="resized-crop-flip")

    def distill(self, teacher: Segmenter, student: Segmenter, images: Images) -> Segmenter:
        if not isinstance(teacher, Segmenter) or not isinstance(student, Segmenter):
            raise InputError(
                "structured distills networks that label every pixel (classgraft.models.segmenter.Segmenter), from Python;"
                " for a classifier take kd, fitnets or similarity."
            )
        if images.classes and not isinstance(images, Scenes):
            raise InputError("structured learns from images with masks (classgraft.data.scenes) or without any label.")
        if not images.classes and not (self.pixel or self.pair or self.holistic):
            raise InputError(
                "Without masks and without weights there is nothing to learn; set pixel, pair or holistic."
            )
        teacher, learner, images = seated(teacher, student, images)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(self.recipe.seed)
            critic = Critic(images.pixels.shape[1], len(learner.classes), self.critic_width).to(learner.device)
        train_mode(learner)
        step = self.step(teacher, learner, critic)
        run(step, Epochs(images, self.recipe, learner.device), self.recipe, "distilling")
        return learner.eval()

    def step(self, teacher: Segmenter, learner: Segmenter, critic: Critic) -> Step:
        """A step of the student and then, where there is a holistic term, one of the critic on the same maps."""

        def lesson(given: tuple[Any, ...]) -> Terms:
            batch, own, others, wanted, counted, fake = given
            terms: Terms = {}
            if batch.source.classes:
                whole = F.interpolate(own.logits, batch.targets.shape[1:], mode="bilinear")
                terms["class"] = pixel_cross_entropy(whole, batch.targets, VOID)
            if self.pixel:
                terms["pixel"] = self.pixel * pixel_distance(own.logits, wanted, resized(counted, wanted))
            if self.pair:
                mine, some = region_means(own.features, counted, self.nodes)
                theirs, also = region_means(others.features, counted, self.nodes)
                terms["pair"] = self.pair * pair_distance(mine, theirs, some & also)
            if self.holistic:
                terms["holistic"] = -self.holistic * critic(batch.images, fake).mean()
            return terms

        def judging(given: tuple[Any, ...]) -> Terms:
            batch, real, fake = given
            gap = critic(batch.images, fake).mean() - critic(batch.images, real).mean()
            share = torch.rand(len(real), 1, 1, 1, device=real.device)
            between = (share * real + (1 - share) * fake).requires_grad_()
            (slope,) = torch.autograd.grad(critic(batch.images, between).sum(), between, create_graph=True)
            return {"critic": gap, "penalty": self.penalty * gradient_penalty(slope)}

        asks = bool(self.pixel or self.pair or self.holistic)
        of_student = descend(lesson, [learner], self.recipe)
        own_recipe = replace(self.recipe, optimiser="adamw", lr=self.critic_lr, weight_decay=0.0)
        of_critic = descend(judging, [critic], own_recipe, second_order=True)

        def take(batch: Batch) -> Terms:
            own = learner.seen(batch.images)
            with evaluating(teacher), current().ready(teacher), torch.no_grad():
                others = teacher.seen(batch.images) if asks else own  # a teacher that nobody asks has a stand-in
                wanted = F.interpolate(others.logits, own.logits.shape[2:], mode="bilinear")
            counted = known(batch)
            real, fake = (maps(logits, counted) for logits in (wanted, own.logits))
            terms = of_student.take((batch, own, others, wanted, counted, fake))
            return terms | of_critic.take((batch, real, fake.detach())) if self.holistic else terms

        def set_rate(rate: float) -> None:
            of_student.set_rate(rate)
            of_critic.set_rate(self.critic_lr * rate / self.recipe.lr if self.recipe.lr else 0.0)

        carries = (*of_student.carries, *(of_critic.carries if self.holistic else ()))
        return Step(take, set_rate, carries, second_order=bool(self.holistic))


def known(batch: Batch) -> Tensor:
    """The pixels that count, bool (B, H, W): those that are not void, or all where there are no masks."""
    if batch.source.classes:
        return batch.targets != VOID
    return torch.ones(len(batch.images), *batch.images.shape[2:], dtype=torch.bool, device=batch.images.device)


def resized(counted: Tensor, like: Tensor) -> Tensor:
    """Which places of a map count, bool (B, h, w), by the nearest pixel (B, H, W)."""
    return F.interpolate(counted[:, None].float(), like.shape[2:], mode="nearest")[:, 0] > 0


def maps(logits: Tensor, counted: Tensor) -> Tensor:
    """Probabilities (B, K, h, w), all 0 where a place does not count, so that the critic sees no difference there."""
    return logits.softmax(1) * resized(counted, logits)[:, None]
