"""Generative latent optimisation: one learnable point on the sphere for each image, and a generator that draws the image
from its point; pictures between the points of a class.

Bojanowski, Joulin, Lopez-Paz, Szlam: Optimizing the Latent Space of Generative Networks, ICML 2018, arXiv 1707.05776.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from classgraft.data.augment import centre
from classgraft.data.images import Images
from classgraft.errors import InputError
from classgraft.losses.reconstruction import relative_difference
from classgraft.models.generator import NOISE, Generator, judge
from classgraft.models.stages import Staged, stages
from classgraft.training.batches import Batch, Epochs
from classgraft.training.loop import Step, Terms, descend, run
from classgraft.training.recipe import Recipe


@dataclass(frozen=True)
class Latent:
    """What was learnt of some images."""

    generator: Generator
    points: Tensor
    """(N, D) of length 1, one for each image."""
    labels: Tensor
    """(N,)."""
    noise: float
    """Standard deviation of the noise beside a point."""
    side: int
    """S, of the pictures; they are enlarged to it where the generator draws smaller ones."""

    def drawn(self, points: Tensor, noise: Tensor) -> Tensor:
        """Pictures (B, C, S, S) of points (B, D) and noise (B, NOISE)."""
        return resized(self.generator(points, noise), self.side)

    @torch.no_grad()
    def between(self, index: Tensor, draws: Tensor, reach: float, generator: torch.Generator | None = None) -> Tensor:
        """Pictures (B, C, S, S) on the way from the points at ``index`` (B,) to others of their classes.

        Uniform ``draws`` (B, 2) choose the other image and how far to go, from 0 to ``reach`` of the way.
        """
        other = self.partner(index, draws[:, 0])
        points = slerp(self.points[index], self.points[other], draws[:, 1] * reach)
        noise = torch.randn(len(index), NOISE, generator=generator).to(points.device)
        return self.drawn(points, self.noise * noise)

    @torch.no_grad()
    def along(self, first: Tensor, second: Tensor, ways: Sequence[float]) -> Tensor:
        """Pictures (B, W, C, S, S), without noise, at W shares of the way from the points at ``first`` to ``second`` (B,)."""
        calm = torch.zeros(len(first), NOISE, device=self.points.device)
        starts, ends = self.points[first], self.points[second]
        points = (slerp(starts, ends, torch.full_like(starts[:, 0], way)) for way in ways)
        return torch.stack([self.drawn(each, calm) for each in points], 1)

    def plane(self) -> Tensor:
        """The points (N, 2) on the two axes along which they differ most."""
        centred = self.points - self.points.mean(0)
        axes: Tensor = torch.linalg.svd(centred, full_matrices=False).Vh[:2]
        return centred @ axes.T

    def likeness(self) -> tuple[float, float]:
        """Mean cosines of the points of two images of one class, and of two classes; nan where there are no such two."""
        cosines, same = self.points @ self.points.T, self.labels[:, None] == self.labels
        other = ~torch.eye(len(same), dtype=torch.bool, device=same.device)
        return float(cosines[same & other].mean()), float(cosines[~same].mean())

    def partner(self, index: Tensor, draws: Tensor) -> Tensor:
        """Another image of the same class for each (B,); the image itself where it is alone."""
        order = self.labels.argsort(stable=True)
        count = torch.bincount(self.labels)
        place = torch.empty_like(order)
        place[order] = torch.arange(len(order), device=order.device)
        first, own = (count.cumsum(0) - count)[self.labels[index]], count[self.labels[index]]
        step = 1 + (draws * (own - 1)).long().clamp(max=(own - 2).clamp(min=0))
        return order[first + (place[index] - first + step) % own]


def learn(
    images: Images,
    labelled: int,
    body: nn.Module | None,
    recipe: Recipe,
    *,
    dimension: int,
    width: int,
    noise: float,
    strength: float,
    perceptual: float,
    most: int,
    device: torch.device,
) -> Latent:
    """Points and a generator that give the images back, and keep apart classes that a small network learns beside them.

    Args:
        images: to be drawn; those of classes from ``labelled`` on have no label.
        labelled: classes.
        body: whose maps compare pictures, frozen and in evaluation mode; None: pixels alone.
        recipe: of all that learns here.
        dimension: of the sphere.
        width: channels of the generator's smallest map.
        noise: standard deviation of the noise.
        strength: weight of the classes.
        perceptual: weight of the maps beside 1 of the pixels.
        most: side of what is drawn and compared; larger images are shrunk to it, unless the body takes no other size.
        device: where to learn.
    """
    preparation, (channels, whole) = images.preparation, images.pixels.shape[1:3]
    watched = body if perceptual else None
    side, crop = min(most, whole), preparation.size
    if side < whole:
        crop = max(1, round(crop * side / whole))
        if watched is not None and not takes(watched, torch.zeros(1, channels, crop, crop, device=device)):
            side, crop = whole, preparation.size
    low, high = (0.0, 1.0)
    if images.pixels.is_floating_point():
        low, high = float(images.pixels.min()), float(images.pixels.max())
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        generator = Generator(dimension, channels, side, width, low, high).to(device)
        guess = judge(channels, labelled).to(device)
        points = F.normalize(torch.randn(len(images), dimension), dim=1).to(device).requires_grad_(True)

    def prepared(pictures: Tensor) -> Tensor:
        return preparation.normalise(centre(pictures, crop))

    seeing = None
    if watched is not None:
        seeing = _staged(watched, prepared(resized(images.raw(torch.arange(1), device), side)))

    places = dealt_in(images, labelled).to(device)

    def objective(batch: Batch) -> Terms:
        drawn = generator(points[places[batch.index]], noise * torch.randn(len(batch.index), NOISE, device=device))
        real = resized(batch.source.raw(batch.index, device), side)
        terms = {"pixels": F.l1_loss(drawn, real)}
        seen = prepared(drawn)
        if seeing is not None:
            with torch.no_grad():
                meant = seeing(prepared(real))
            terms["maps"] = perceptual * relative_difference(seeing(seen), meant)
        known = batch.targets < labelled
        if strength:
            each = F.cross_entropy(guess(seen), batch.targets.clamp(max=labelled - 1), reduction="none")
            terms["class"] = strength * (each * known).sum() / known.sum().clamp(min=1)
        return terms

    step = on_sphere(descend(objective, [generator, guess, points], recipe), points)
    shown = images if len(places) == len(images) else images.subset(places.cpu())
    run(step, Epochs(shown, recipe, device), recipe, "learning to draw")
    generator.requires_grad_(False)
    return Latent(generator, points.detach(), images.labels.to(device), noise, whole)


def resized(pictures: Tensor, side: int) -> Tensor:
    """Pictures (B, C, H, W) with sides of so many pixels."""
    if pictures.shape[-1] == side:
        return pictures
    return F.interpolate(pictures, size=(side, side), mode="bilinear", antialias=True)


def takes(body: nn.Module, images: Tensor) -> bool:
    """Whether a body can look at images of this size; one whose positions or last layer are counted out cannot."""
    try:
        with torch.no_grad():
            body(images)
    except (RuntimeError, AssertionError, ValueError):  # of torch, timm and torchvision, transformers
        return False
    return True


def dealt_in(images: Images, labelled: int) -> Tensor:
    """The places of the images that an epoch shows: all of them, those with labels as often as there are others for each.

    Beside many images without labels, the points of a few would hardly be learnt.
    """
    known = images.labels < labelled
    own, others = torch.nonzero(known)[:, 0], torch.nonzero(~known)[:, 0]
    if not len(own) or len(others) < 2 * len(own):
        return torch.arange(len(images))
    return torch.cat([own.repeat(len(others) // len(own)), others])


def on_sphere(step: Step, points: Tensor) -> Step:
    """The step, after which every point (N, D) is brought back to length 1."""

    def take(batch: Batch) -> Terms:
        terms = step.take(batch)
        with torch.no_grad():
            points.copy_(F.normalize(points, dim=1))
        return terms

    return replace(step, take=take)


def slerp(first: Tensor, second: Tensor, way: Tensor) -> Tensor:
    """Points (B, D) on the great circle from ``first`` to ``second`` (B, D), each of length 1, at ``way`` (B,) in 0..1.

    sin((1 - r) w) / sin(w) a + sin(r w) / sin(w) b, with w the angle between the two of each row. Where they are nearly the
    same point (or opposite, where no great circle is the shortest) the straight line is taken and brought to length 1.
    """
    cosine = (first * second).sum(1, keepdim=True).clamp(-1, 1)
    angle, way = cosine.acos(), way[:, None]
    sine = angle.sin()
    flat = sine < 1e-4
    safe = torch.where(flat, torch.ones_like(sine), sine)
    one = torch.where(flat, 1 - way, ((1 - way) * angle).sin() / safe)
    two = torch.where(flat, way, (way * angle).sin() / safe)
    return F.normalize(one * first + two * second, dim=1)


def _staged(body: nn.Module, images: Tensor) -> Staged:
    try:
        return Staged(body, stages(body, images))
    except InputError:  # it has no maps: features alone are compared
        return Staged(body, ())
