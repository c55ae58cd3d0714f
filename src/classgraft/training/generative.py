"""A generator learnt from images, or from features, of class after class, that keeps drawing those of before.

What it learns from is the new images and what its earlier self draws: the generator's half of Shin, Lee, Kim, Kim:
Continual Learning with Deep Generative Replay, NIPS 2017, arXiv 1705.08690.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from classgraft.data.images import Images
from classgraft.errors import InputError
from classgraft.losses.distillation import sigmoid_cross_entropy
from classgraft.losses.generation import divergence, gaussian_surprise
from classgraft.models.preparation import Preparation
from classgraft.models.vae import VAE
from classgraft.training.batches import Epochs
from classgraft.training.loop import Batch, Terms, fit
from classgraft.training.recipe import Recipe


@dataclass(frozen=True)
class Generative:
    """A variational autoencoder as numbers: what stands in for what it learnt from."""

    weights: dict[str, Tensor]
    """By name, matrices in fp16."""
    shape: tuple[int, ...]
    """(C, S, S) of a picture, (D, 1, 1) of a vector of features."""
    dimension: int
    width: int
    classes: tuple[str, ...]
    """Of what it learnt from; where it is conditional, in the order of its conditions."""
    conditional: bool
    """Whether it can be asked for a class."""
    tasks: int
    """How often it has learnt."""

    @property
    def vectors(self) -> bool:
        return self.shape[1] == 1

    def network(self, device: torch.device) -> VAE:
        """Ready to draw, in evaluation mode; it does not learn."""
        found = _fresh(self.shape, self.dimension, self.width, len(self.classes) * self.conditional, 0)
        found.load_state_dict({name: part.float() for name, part in self.weights.items()})
        return found.to(device).eval().requires_grad_(False)

    def without(self, names: Sequence[str]) -> Generative:
        """Without these classes: a conditional one cannot be asked for them any more, any other only loses their names."""
        kept = [k for k, name in enumerate(self.classes) if name not in names]
        weights = dict(self.weights)
        if self.conditional:
            weights["conditions"] = weights["conditions"][kept]
        return replace(self, weights=weights, classes=tuple(self.classes[k] for k in kept))


@dataclass(frozen=True)
class Autoencoding:
    """Which variational autoencoder, and how it learns."""

    dimension: int = 32
    width: int = 32
    steps: int = 2000
    """In whole epochs."""
    lr: float = 1e-3
    conditional: bool = False
    batch_size: int = 64
    seed: int = 0

    def recipe(self, images: Images, device: torch.device) -> Recipe:
        """Adam, its rate falling to 0 along a cosine; images as they are."""
        found = Recipe(1, self.batch_size, "adamw", self.lr, weight_decay=0.0, milestones=(), augment="none",
                       seed=self.seed)  # fmt: skip
        return replace(found, epochs=max(1, self.steps // len(Epochs(images, found, device))))


def kept_before(memory: object | None) -> Generative | None:
    """A memory that still speaks of some class."""
    return memory if isinstance(memory, Generative) and memory.classes else None


def drawn(network: VAE, count: int, labels: Tensor | None = None, generator: torch.Generator | None = None) -> Tensor:
    """Pictures (B, C, S, S), or vectors (B, D, 1, 1), of points from N(0, 1), without a graph; ``labels`` (B,) are asked for.

    From torch's global generator where none is given, the same on every device.
    """
    device = network.centre.device
    points = torch.randn(count, network.dimension, generator=generator).to(device)
    noise = torch.zeros(1, device=device)
    if network.vectors:
        noise = torch.randn(count, len(network.log_deviation), 1, 1, generator=generator).to(device)
    with torch.no_grad():
        return network.made(points, noise, labels)


def any_class(memory: Generative, count: int, device: torch.device) -> Tensor | None:
    """A class (B,) for each to be drawn, all as likely, from torch's global generator; None where none can be asked for."""
    return torch.randint(len(memory.classes), (count,)).to(device) if memory.conditional else None


def learnt(
    images: Images, form: Autoencoding, before: Generative | None, share: float, device: torch.device
) -> Generative | None:
    """The generator of ``before``, or a fresh one, once it has learnt from these images; ``before`` where there are none.

    Args:
        images: labelled squares, or vectors (``vectors_of``).
        form: see there; of its network only where there is none before.
        before: what draws the images of earlier tasks.
        share: r, weight of these images beside 1 - r of what ``before`` draws.
        device: where to learn.

    Raises:
        InputError: ``before`` draws pictures of another size, or is conditional where the form is not, or not where it is.
    """
    if not len(images):
        return before
    there = [images.classes[k] for k in images.labels.unique().tolist()]
    classes = tuple(dict.fromkeys((*(before.classes if before else ()), *there)))
    images, shape = images.of(classes), tuple(images.pixels.shape[1:])
    network = _continued(before, images, form, device) if before else _begun(images, form, device)
    earlier = before.network(device) if before and share < 1 else None

    def objective(batch: Batch) -> Terms:
        new, r = batch.source.raw(batch.index, device), share if earlier else 1.0
        parts: list[tuple[float, Tensor, Tensor | None]] = [(r, new, batch.targets)]
        if before and earlier:
            labels = any_class(before, len(batch.index), device)
            parts.append((1 - share, drawn(earlier, len(batch.index), labels), labels))
        surprise, away = [], []
        for weight, given, labels in parts:
            seen = network.seen(given)
            mean, log_variance = network.encoded(seen)
            points = mean + (log_variance / 2).exp() * torch.randn(mean.shape).to(device)
            shown, flat = network.decoded(points, labels if form.conditional else None).flatten(1), seen.flatten(1)
            found = (
                gaussian_surprise(flat, shown, network.spread)
                if network.vectors
                else sigmoid_cross_entropy(shown, flat)
            )
            surprise.append(weight * found)
            away.append(weight * divergence(mean, log_variance))
        return {"reconstruction": torch.stack(surprise).sum(), "divergence": torch.stack(away).sum()}

    fit(network, objective, images, form.recipe(images, device), "learning to draw")
    weights = {name: _small(name, part.detach().cpu()) for name, part in network.state_dict().items()}
    width, tasks = before.width if before else form.width, before.tasks + 1 if before else 1
    return Generative(weights, shape, network.dimension, width, classes, form.conditional, tasks)


def vectors_of(features: Tensor, labels: Tensor, classes: tuple[str, ...]) -> Images:
    """Features (N, D) as images (N, D, 1, 1) that need no preparation."""
    return Images(features[:, :, None, None], labels, classes, Preparation(1, 1, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)))


def pictures(memory: Generative, like: Images, count: int, seed: int, device: torch.device) -> Images:
    """``count`` pictures of each class of a conditional memory, in the form of other images."""
    labels = torch.arange(len(memory.classes)).repeat_interleave(count)
    network, generator = memory.network(device), torch.Generator().manual_seed(seed)
    pixels = torch.cat([drawn(network, len(some), some.to(device), generator).cpu() for some in labels.split(256)])
    if not like.pixels.dtype.is_floating_point:
        pixels = (pixels * 255).round().clamp(0, 255).to(torch.uint8)
    return replace(like, pixels=pixels, labels=labels, classes=memory.classes, names=())


def _begun(images: Images, form: Autoencoding, device: torch.device) -> VAE:
    """Fresh, in the scale of the images."""
    found = _fresh(tuple(images.pixels.shape[1:]), form.dimension, form.width, len(images.classes) * form.conditional,
                   form.seed)  # fmt: skip
    if images.pixels.dtype.is_floating_point:
        pixels, axes = images.pixels.float(), 0 if found.vectors else (0, 1, 2, 3)
        low = pixels.mean(axes) if found.vectors else pixels.amin(axes)
        wide = pixels.std(axes, correction=0) if found.vectors else pixels.amax(axes) - low
        found.centre.copy_(low.view_as(found.centre))
        found.scale.copy_(torch.where(wide > 1e-6, wide, 1.0).view_as(found.scale))
    return found.to(device)


def _continued(before: Generative, images: Images, form: Autoencoding, device: torch.device) -> VAE:
    """As it was, with a condition at zero for each class that it does not know."""
    if before.shape != tuple(images.pixels.shape[1:]):
        raise InputError(
            f"What is kept draws {before.shape} and the images are {tuple(images.pixels.shape[1:])}; give images of the same"
            " size, or remember the old images again."
        )
    if before.conditional != form.conditional:
        was = "can" if before.conditional else "cannot"
        raise InputError(
            f"What is kept {was} be asked for a class; leave that as it was, or remember the old images again."
        )
    found = before.network(device).requires_grad_(True)
    more = (len(images.classes) - len(before.classes)) * form.conditional
    conditions = found.conditions.detach()
    found.conditions = torch.nn.Parameter(torch.cat([conditions, conditions.new_zeros(more, conditions.shape[1])]))
    return found


def _fresh(shape: tuple[int, ...], dimension: int, width: int, conditions: int, seed: int) -> VAE:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return VAE(shape, dimension, width, conditions)


def _small(name: str, part: Tensor) -> Tensor:
    """Weights in fp16; what the scale of everything hangs on, and numbers too large for that, as they are."""
    exact = name in ("centre", "scale", "log_deviation") or not part.numel() or float(part.abs().max()) > 6e4
    return part.clone() if exact else part.half()
