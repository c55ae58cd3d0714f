"""Where new classes may be: rows on the backbone's maps that propose regions for them, learnt from a few annotated images.

The first stage of a Faster R-CNN (Ren and others, arXiv 1506.01497, section 3.1) says of every anchor whether it shows an
object and where that lies. It proposes what it was trained to find, and new things often are background to it. So the new
classes have another such stage beside it: a single product on the frozen maps, which the old one does not notice.

- Every image is seen as it is and mirrored, and each of these also a few pixels further right, down, and both, so that a
  box falls on several anchors.
- An anchor that overlaps a new box by half shows an object, as does the best of each box; one below 0.3 shows none, even
  where an old thing stands: that is for the old stage to propose.
- Anchors of one size and shape share a row. Offsets are a ridge regression on the anchors that show an object.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision.models.detection._utils import Matcher
from torchvision.ops import box_iou

from classgraft.data.boxes import Boxed, Truth
from classgraft.errors import InputError
from classgraft.models.detector import Detector, voided
from classgraft.models.detector_parts import Proposer
from classgraft.training.answers import evaluating
from classgraft.training.solve import solve
from classgraft.training.unseen import row_scale

SHOWS, SHOWS_NONE = 0.5, 0.3
"""Overlaps. Faster R-CNN takes 0.7 for the first; of one small box no anchor may reach that."""
ELSEWHERE = 400
"""Anchors of an image and its mirror image that show none, at most."""
SHIFT = 4
"""Pixels; half a stride of 8."""
DECAY = 0.001
"""Pull on the rows, in units of what is usual for features that lie so far apart (``row_scale``)."""
PRIOR = 5.0
"""Anchors that an offset of 0 counts for."""
ITERATIONS = 100
"""Of L-BFGS."""


@dataclass(frozen=True)
class Anchors:
    """Of the new images, in all their views."""

    features: Tensor
    """(N, C), of the place on the map."""
    kinds: Tensor
    """int64 (N,): which size and shape."""
    shown: Tensor
    """bool (N,): whether a new object."""
    wanted: Tensor
    """True offsets (N, 4), where one is shown."""


def proposing(detector: Detector, images: Boxed, most: int, seed: int) -> Proposer:
    """Rows that propose up to ``most`` regions of an image for things like those in these boxes.

    Raises:
        InputError: no box is in view.
    """
    seen = look(detector, images, seed)
    count = detector.network.rpn.anchor_generator.num_anchors_per_location()[0]
    middle = seen.features[~seen.shown].mean(0)  # the decay pulls towards "as likely as anywhere"
    features = seen.features - middle
    scale = row_scale(features[:0], features)

    def terms(weight: Tensor, bias: Tensor) -> dict[str, Tensor]:
        said = (features @ weight.T + bias).gather(1, seen.kinds[:, None])[:, 0]
        return {
            "objects": F.softplus(-said[seen.shown]).mean(),
            "elsewhere": F.softplus(said[~seen.shown]).mean(),
            "decay": DECAY / 2 * weight.square().sum() / scale,
        }

    weight, bias = solve(terms, count, features.shape[1], ITERATIONS)
    of_kind = [seen.shown & (seen.kinds == kind) for kind in range(count)]
    moves, constants = zip(*(ridge(seen.features[own], seen.wanted[own], PRIOR) for own in of_kind), strict=True)
    return Proposer.of(weight, bias - weight @ middle, torch.cat(moves), torch.cat(constants), most)


def look(detector: Detector, images: Boxed, seed: int) -> Anchors:
    """The anchors of every view that show a new object, and some that do not."""
    parts: list[tuple[Tensor, ...]] = []
    generator = torch.Generator().manual_seed(seed)
    matcher, coder = Matcher(SHOWS, SHOWS_NONE, allow_low_quality_matches=True), detector.network.rpn.box_coder
    with evaluating(detector), torch.inference_mode():
        for place in range(len(images)):
            seen = [part for view in views(images, place, detector.device) for part in shifted(*view)]
            for picture, own in seen:
                prepared, truth = detector.prepared(picture, [own])
                if not len(boxes := truth[0]["boxes"]):
                    continue
                maps = detector.maps(prepared)
                anchors = detector.anchored(prepared, maps).anchors[0]
                matched = matcher(box_iou(boxes, anchors))
                labels = voided(torch.where(matched >= 0, 1, matched + 1), anchors, truth[0]["void"])
                shown, none = (torch.where(labels == value)[0].cpu() for value in (1, 0))
                none = none[torch.randperm(len(none), generator=generator)[: ELSEWHERE // len(seen)]]
                which = torch.cat([shown, none])
                features = torch.cat([part[0].flatten(1).T for part in maps.values()])
                kinds = len(anchors) // len(features)
                wanted = coder.encode([boxes[matched.clamp(min=0)]], [anchors])[0]
                found = (
                    features[(which // kinds).to(features.device)],
                    which % kinds,
                    labels[which] == 1,
                    wanted[which],
                )
                parts.append(tuple(part.cpu() for part in found))
    if not parts:
        raise InputError(
            "No new box lies in the part of its picture that the detector sees; give one that does, or a preparation that"
            " resizes to its size, so that nothing is cut off."
        )
    whole = [torch.cat(part) for part in zip(*parts, strict=True)]
    return Anchors(whole[0].float(), whole[1], whole[2], whole[3].float())


def views(images: Boxed, place: int, device: torch.device) -> Iterator[tuple[Tensor, Truth]]:
    """An image (1, 3, H, W) and what is true of it, as they are and mirrored."""
    index = torch.tensor([place])
    picture, truth = images.images.view(index, device), images.truth(index, device)[0]
    side = picture.shape[-1]

    def turned(boxes: Tensor) -> Tensor:
        return torch.stack([side - boxes[:, 2], boxes[:, 1], side - boxes[:, 0], boxes[:, 3]], 1)

    yield picture, truth
    yield picture.flip(-1), {**truth, "boxes": turned(truth["boxes"]), "void": turned(truth["void"])}


def shifted(picture: Tensor, truth: Truth) -> Iterator[tuple[Tensor, Truth]]:
    """A view where it is, and further right, down, and both; what a border leaves nothing of is gone."""
    height, width = picture.shape[-2:]
    edges = torch.tensor([width, height] * 2, device=picture.device)
    for right, down in ((0, 0), (SHIFT, 0), (0, SHIFT), (SHIFT, SHIFT)):
        way = torch.tensor([right, down] * 2, device=picture.device)
        moved = {name: torch.minimum(truth[name] + way, edges) for name in ("boxes", "void")}
        there = (moved["boxes"][:, 2:] > moved["boxes"][:, :2]).all(1)
        own = {**truth, **moved, "boxes": moved["boxes"][there], "labels": truth["labels"][there]}
        yield F.pad(picture, (right, 0, down, 0), "replicate")[..., :height, :width], own


def ridge(features: Tensor, wanted: Tensor, prior: float) -> tuple[Tensor, Tensor]:
    """Weight (4, D) and bias (4,) of offsets (N, 4) from features (N, D), where ``prior`` of them want 0; none: all zero."""
    x = torch.cat([features, torch.ones(len(features), 1)], 1).double()
    pull, wanted = prior * (float(x.square().mean()) if len(x) else 1.0), wanted.double()
    if len(x) < x.shape[1]:  # the same, in as many unknowns as there are samples
        found = x.T @ torch.linalg.solve(x @ x.T + pull * torch.eye(len(x), dtype=x.dtype), wanted)
    else:
        found = torch.linalg.solve(x.T @ x + pull * torch.eye(x.shape[1], dtype=x.dtype), x.T @ wanted)
    return found.float().T[:, :-1], found.float().T[:, -1]
