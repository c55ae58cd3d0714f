"""What a frozen network sees in the photos: features of several views, looked at once."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from classgraft.data.augment import Augment, centre, flip, resized_crop_flip
from classgraft.data.images import Images
from classgraft.models.classifier import Classifier
from classgraft.training.answers import answers, finite


def look(model: Classifier, photos: Images, views: int, seed: int) -> tuple[Tensor, Tensor]:
    """Features (N, V, D) of every photo in ``views`` views, and the labels (N,).

    The first view is the photo as evaluation sees it, the second its mirror image, the others are random crops.

    Raises:
        InputError: a feature is no finite number.
    """
    augments: list[Augment] = [centre, _mirror]
    augments = (augments + [resized_crop_flip] * (views - 2))[:views]
    seen = [
        answers(model, photos, model.features, augment, seed, number, "looking at the photos")
        for number, augment in enumerate(augments)
    ]
    return finite(torch.stack(seen, 1)), photos.labels


def imprinted(
    model: Classifier, photos: Images, names: tuple[str, ...], views: int = 1, seed: int = 0
) -> tuple[Tensor, Tensor]:
    """Rows (N, D) and biases (N,) for new classes: the mean direction of their photos' features.

    At the old rows' mean length and mean bias (1 and 0 where there are none), so that old and new compete at once.
    Qi, Brown, Lowe: Low-Shot Learning with Imprinted Weights, CVPR 2018, arXiv 1712.07136, section 3.2.
    """
    features, labels = look(model, photos.of(names), views, seed)
    directions = F.normalize(features, dim=2).mean(1)
    sums = torch.zeros(len(names), features.shape[2]).index_add_(0, labels, directions)
    length = model.head.weight.norm(dim=1).mean().cpu() if model.classes else torch.tensor(1.0)
    level = float(model.head.bias.mean()) if model.classes else 0.0
    return F.normalize(sums, dim=1) * length, torch.full((len(names),), level)


def _mirror(pixels: Tensor, size: int, draws: Tensor) -> Tensor:
    return flip(pixels, size, torch.zeros_like(draws))


def new_features(
    features: Tensor,
    labels: Tensor,
    world: Tensor,
    prior: float,
    generator: torch.Generator,
    total: int = 4000,
    apart: Tensor | None = None,
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
        apart: (M, D), how features of old classes lie from their class's mean, where that was kept: the noise is drawn from
            these, else from the variance that the photos show.
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
    missing = ((1 + trust) / count)[owner][:, None]
    if apart is not None:
        return made + apart[torch.randint(len(apart), (len(made),), generator=generator)] * missing.sqrt(), owner
    missing = missing * variance
    return made + torch.randn(made.shape, generator=generator) * missing.sqrt(), owner
