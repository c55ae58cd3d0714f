"""Networks that find keypoints: taught from annotated points, asked about views, and measured."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor

from classgraft.data.augment import centre_affine
from classgraft.data.images import Images
from classgraft.data.keypoints import Poses, inverse, placed
from classgraft.data.policies import sampled
from classgraft.errors import InputError
from classgraft.losses.keypoints import heatmap_divergence
from classgraft.metrics.keypoints import PointErrors, point_errors
from classgraft.models.keypoints import Locator, Watcher, partners
from classgraft.training.answers import BATCH, answers, evaluating
from classgraft.training.loop import Batch, Terms, fit
from classgraft.training.recipe import Recipe

RECIPE = Recipe(
    epochs=40, batch_size=32, optimiser="adamw", lr=2e-3, weight_decay=1e-4, milestones=(), augment="crop-flip"
)
"""For small networks from scratch on some thousand squares of 64 pixels."""
SPREAD = 1.0
"""Sigma of the Gaussian that a map should be, in its cells."""


def taught(model: Locator, poses: Poses, recipe: Recipe = RECIPE, spread: float = SPREAD) -> Locator:
    """A copy that learnt the annotated points of its keypoints; what is not annotated teaches nothing.

    Raises:
        InputError: no point is of its keypoints, or a mirror changes other ones in the images than in the network.
    """
    learner = copy.deepcopy(model).requires_grad_(True)
    known = agreeing(model, poses).of(model.classes)
    if not len(known):
        raise InputError("There is no point to learn from: none is of the network's keypoints; give some of those.")

    def objective(batch: Batch) -> Terms:
        return {"points": lesson(learner(batch.images), batch.targets, batch.images.shape[-1], spread)}

    fit(learner, objective, known, recipe, "learning keypoints")
    return learner


def lesson(maps: Tensor, targets: Tensor, size: int, spread: float) -> Tensor:
    """How far maps (B, K, h, w) are from the annotated points.

    Args:
        maps: logits.
        targets: (B, K, 3), x and y in pixels of the view, and 1 or 0 where a point counts for nothing.
        size: of the view, in pixels.
        spread: sigma of the map that stands for a point, in cells.
    """
    cells = targets[..., :2] * targets.new_tensor([maps.shape[3], maps.shape[2]]) / size
    return heatmap_divergence(maps, cells, targets[..., 2], spread)


def agreeing(model: Locator | Watcher, poses: Poses) -> Poses:
    """The images, in which the same keypoints change places in a mirror as in the network.

    Raises:
        InputError: that is not so.
    """
    both = set(model.classes) & set(poses.classes)
    own, theirs = ({frozenset(pair) for pair in of if both >= set(pair)} for of in (model.pairs, poses.pairs))
    if own != theirs:
        odd = " and ".join(sorted(next(iter(own ^ theirs))))
        raise InputError(
            f"The keypoints {odd} change places in a mirror for the images or for the network alone; give both the same pairs."
        )
    return poses


def annotated(images: Images, model: Locator, found: Tensor, kept: Tensor) -> Poses:
    """The images with points that a network found.

    Args:
        images: of any kind; what is annotated in them is left aside.
        model: its keypoints, and which of them change places in a mirror.
        found: x and y (N, K, 2 or more) in pixels of the view that evaluation sees.
        kept: bool (N, K), which of them to take.
    """
    side, size = images.pixels.shape[-1], images.preparation.size
    points = placed(found[..., :2], centre_affine(torch.zeros(len(images), 1), side, size), size, side)
    return Poses(
        images.pixels,
        torch.zeros(len(images), dtype=torch.int64),
        model.classes,
        images.preparation,
        images.names,
        points=points,
        annotated=kept,
        pairs=model.pairs,
        persons=images.persons if isinstance(images, Poses) else (),
        before=images.before if isinstance(images, Poses) else None,
    )


def ensembled(model: Locator, images: Tensor, looks: Sequence[tuple[float, bool]]) -> Tensor:
    """Probabilities of every place (B, K, h, h), each map adding up to 1: the mean over several looks at the same images.

    A look is a scale, above 1 larger, and whether in a mirror. Maps are brought back to the image before they are averaged,
    in which places keep their probability for each area; in a mirror, left and right change back. A place beyond the edge of a
    look counts for nothing in it.

    Args:
        model: gives square maps.
        images: prepared (B, C, S, S); beyond their edges the outermost pixels go on.
        looks: (1.0, False) is the image itself.
    """
    partner = partners(model.classes, model.pairs).to(images.device)
    total, cover = torch.zeros((), device=images.device), torch.zeros((), device=images.device)
    for scale, mirrored in looks:
        forth = images.new_tensor([[(-1 if mirrored else 1) / scale, 0, 0], [0, 1 / scale, 0]]).expand(
            len(images), 2, 3
        )
        same = scale == 1 and not mirrored
        # any one colour beyond the edges, grey above all, would be a frame that no training image had all around
        view = images if same else sampled(images, forth, images.shape[-1], padding="border")
        maps = model.probabilities(view).float()
        seen = torch.ones_like(maps)
        if mirrored:
            seen = seen * (partner >= 0)[:, None, None]
            maps = maps[:, partner] * seen
        if not same:
            maps, seen = (sampled(part, inverse(forth), maps.shape[-1]) for part in (maps, seen))
        total, cover = total + scale**2 * maps, cover + seen
    mean = total / cover.clamp(min=1e-6)
    return mean / mean.sum((2, 3), keepdim=True).clamp(min=torch.finfo(mean.dtype).tiny)


def measured(model: Locator | Watcher, poses: Poses) -> PointErrors:
    """How far from the truth the network finds its keypoints, at the resolution that it sees.

    What sees motion is measured on the frames that have one before them.
    """
    if isinstance(model, Watcher):
        known, before = agreeing(model, poses).consecutive()
        found = watched(model, known, before)
    else:
        known = agreeing(model, poses)
        found = answers(model, known, model.located, what="finding keypoints")[..., :2]
    truth = known.named(model.classes).targets(torch.arange(len(known)), torch.device("cpu"))
    return point_errors(found, truth[..., :2], truth[..., 2] > 0, model.classes)


def watched(model: Watcher, frames: Images, before: Images) -> Tensor:
    """Places (N, K, 2) in frames, with the frames before them in the same order, in pixels of the view."""
    found = []
    with evaluating(model), torch.inference_mode():
        for index in torch.arange(len(frames)).split(BATCH):
            now, then = (each.view(index, model.device) for each in (frames, before))
            found.append(model(now, then).float().cpu())
    return torch.cat(found)
