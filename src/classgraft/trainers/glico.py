"""GLICO: a generator learnt from a few images, and nothing else, makes more of them between those that there are.

Azuri, Weinshall: Generative Latent Implicit Conditional Optimization when Learning from Small Sample, ICPR 2020, arXiv
2003.14297.

    L(G, C, z) = |G(z_i, noise) - x_i|_1 + perceptual * maps' difference
        - strength * log softmax(C(G(z_i, noise)))_y,  |z_i| = 1
    picture = G(slerp(z_i, z_j; t), noise),  slerp = (sin((1 - t) w) z_i + sin(t w) z_j) / sin w,
    cos w = z_i z_j,  t in 0..reach

Differs from the paper, and from its code where the two disagree:
1. The great circle runs between the two points of each image (the code takes the angle over the batch), and from a point
   to itself where a class has one image. How far to go is drawn from 0..reach, and whether a picture stands in for an image
   is drawn for each image by itself; the code draws both a batch at a time.
2. Generator, points and the classes' network share one optimiser and one rate for its whole life (the code: Adam at 0.0007
   and 0.001 with beta_1 of 0.5, and SGD); no softmax is taken twice. The classes' network is smaller (``generator.judge``).
3. Pictures are compared by their pixels and, where the model's body is trained, by the body's own maps; the paper's VGG-16
   brings ImageNet into what is called learning from the labelled images alone. Images of more than ``side`` pixels are drawn
   and compared at that size (the paper: at 256), unless the body takes no other than its own.
4. The unlabelled images to be told apart are seen by the generator in a mode of its own alone (``TransductiveGLICO``), in which
   an epoch shows those with labels as often as all others together.
"""

from __future__ import annotations

import copy
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F

from classgraft.data.augment import centre
from classgraft.data.draws import uniform
from classgraft.data.images import Images, Task, joined
from classgraft.models.classifier import Classifier, frozen, untrained
from classgraft.training.latent import Latent, dealt_in, learn
from classgraft.training.loop import Batch, Terms, fit
from classgraft.training.recipe import Recipe
from classgraft.verbs import SelfTrainer, Trainer


@dataclass(frozen=True)
class Enrichment:
    """A generator from the images, then a classifier on images and on pictures between them."""

    dimension: int = 512
    """d, of the sphere that the points lie on."""
    width: int = 128
    """Channels of the generator's smallest map."""
    noise: float = 0.15
    """Sigma, of the noise beside a point."""
    strength: float = 1.0
    """Weight of the classes beside the reconstruction; 0 is GLO, whose points know no classes."""
    perceptual: float | None = None
    """Weight of the body's maps beside 1 of the pixels; None: 1 where the body is trained, else 0. A fresh VGG is known by its
    biases, all 0; a fresh AlexNet counts as trained, for there is nothing to tell it by: give 0."""
    side: int = 128
    """Pixels of a side, at most, of what the generator draws; pictures of larger images are enlarged."""
    drawing: int = 2000
    """Steps of the generator, in whole epochs (the authors' code: 202 epochs, 1,600 steps at ten images of 100 classes)."""
    drawing_lr: float = 1e-3
    """Its learning rate, falling to 0 along a cosine."""
    reach: float = 0.4
    """How far pictures lie along the great circle at most."""
    share: float = 0.5
    """P: of pictures in what the classifier learns from."""
    recipe: Recipe = Recipe()

    def learnt(self, model: Classifier, images: Images, labelled: int) -> Latent:
        """The generator and the points; images of classes from ``labelled`` on have no label."""
        weight = self.perceptual if self.perceptual is not None else float(not untrained(model.body))
        recipe = Recipe(1, self.recipe.batch_size, "adamw", self.drawing_lr, weight_decay=0.0, milestones=(),
                        augment="none", seed=self.recipe.seed)  # fmt: skip
        batches = -(-len(dealt_in(images, labelled)) // recipe.batch_size)
        recipe = replace(recipe, epochs=max(1, self.drawing // max(1, batches)))
        return learn(
            images, labelled, frozen(model).body, recipe, dimension=self.dimension, width=self.width, noise=self.noise,
            strength=self.strength, perceptual=weight, most=self.side, device=model.device,
        )  # fmt: skip

    def taught(self, model: Classifier, images: Images, latent: Latent) -> Classifier:
        """The classifier, from images that are the first of those that ``latent`` was learnt from."""
        learner, preparation = copy.deepcopy(model).requires_grad_(True), images.preparation

        def objective(batch: Batch) -> Terms:
            draws = uniform(self.recipe.seed + 104_729, batch.epoch, batch.index, 3)
            chosen = torch.nonzero(draws[:, 0] < self.share)[:, 0]
            pictures = centre(latent.between(batch.index[chosen], draws[chosen, 1:], self.reach), preparation.size)
            seen = batch.images.index_copy(0, chosen, preparation.normalise(pictures))
            return {"learning": F.cross_entropy(learner(seen), batch.targets)}

        fit(learner, objective, images, self.recipe)
        return learner


@dataclass(frozen=True)
class GLICO(Enrichment, Trainer):
    """From the labelled images alone."""

    def train(self, model: Classifier, images: Images) -> Classifier:
        known = images.of(model.classes)
        return self.taught(model, known, self.learnt(model, known, len(model.classes)))


@dataclass(frozen=True)
class TransductiveGLICO(Enrichment, SelfTrainer):
    """The generator also learns to draw images without labels."""

    def train(self, model: Classifier, student: Classifier, labelled: Images, unlabelled: Images) -> Classifier:
        known = labelled.of(student.classes)
        free = replace(unlabelled, labels=torch.zeros_like(unlabelled.labels), classes=("",))
        return self.taught(student, known, self.learnt(model, joined(known, free), len(student.classes)))


def enriching(seed: int) -> GLICO:
    """How ``extend`` enriches a task: with a generator that takes minutes at a pretrained network's size."""
    return GLICO(drawing=600, recipe=Recipe(batch_size=32, seed=seed))


def enriched(task: Task, count: int, model: Classifier, method: GLICO, least: int = 2) -> Task:
    """The task with ``count`` more pictures of each of its classes, made between those that it has.

    The model's body compares pictures, where it is trained; its classes play no part. Of a class with fewer than ``least``
    (1 at least) images none are made: those of an only image are that image drawn again, and worse.
    """
    images = task.train.of(task.classes)
    own = [torch.nonzero(images.labels == k)[:, 0] for k in range(len(task.classes))]
    several = [place.repeat(-(-count // len(place)))[:count] for place in own if len(place) >= least]
    if not several:
        return replace(task, train=images)
    latent, index = method.learnt(model, images, len(task.classes)), torch.cat(several)
    random = torch.Generator().manual_seed(method.recipe.seed)
    draws = torch.rand(len(index), 2, generator=random)
    made = [
        latent.between(some.to(model.device), draw.to(model.device), method.reach, random).cpu()
        for some, draw in zip(index.split(64), draws.split(64), strict=True)
    ]
    pixels = torch.cat(made)
    if not images.pixels.is_floating_point():
        pixels = (pixels * 255).round().clamp(0, 255).to(torch.uint8)
    more = replace(images, pixels=pixels, labels=images.labels[index], names=())
    return replace(task, train=joined(images, more))
