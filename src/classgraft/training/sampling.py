"""What both stages of a detector say of the boxes that it is taught on: anchors and regions, sampled from its own.

Ren and others, arXiv 1506.01497, section 3.1.3, and Girshick: Fast R-CNN, arXiv 1504.08083, section 2.3: a fixed part of
the sample are objects where there are so many. Which boxes is kept, so that another detector can be asked about them.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from classgraft.errors import InputError
from classgraft.models.detector import Anchored, Detector, together, voided


@dataclass(frozen=True)
class Stage:
    """What one stage says of the N boxes that were sampled, P of which show an object, and what is true of them."""

    logits: Tensor
    """(N, K), background first; K is 2 for anchors."""
    offsets: Tensor
    """(P, 4) of the true class, in the units of the stage's box coder."""
    labels: Tensor
    """int64 (N,), 0 for background."""
    truth: Tensor
    """(P, 4), in the same units."""


@dataclass(frozen=True)
class Sample:
    """Which boxes: places among all anchors of the batch (N,), and regions (n, 4) of each image."""

    sizes: list[tuple[int, int]]
    """Height and width of each image as the network sees it."""
    anchors: list[Tensor]
    """Of each image, all of them."""
    places: Tensor
    labels: Tensor
    truth: Tensor
    regions: list[Tensor]
    region_labels: Tensor
    region_truth: Tensor


@dataclass(frozen=True)
class Seen:
    """A batch as a detector sees it while it learns."""

    maps: dict[str, Tensor]
    """Of the backbone, (B, C, H, W)."""
    rpn: Stage
    rcn: Stage
    sample: Sample


def seen(detector: Detector, pictures: Tensor, truth: Sequence[dict[str, Tensor]]) -> Seen:
    """Both stages on boxes sampled from their own."""
    images, moved = detector.prepared(pictures, truth)
    maps = detector.maps(images)
    anchored = detector.anchored(images, maps)
    proposed = together(detector.regions(images, maps, anchored))
    sample = Sample(
        images.image_sizes, anchored.anchors, *_anchors(detector, anchored.anchors, moved),
        *_regions(detector, proposed, moved),
    )  # fmt: skip
    return _said(detector, maps, anchored, sample)


def seen_again(detector: Detector, pictures: Tensor, sample: Sample) -> Seen:
    """Both stages on boxes that were sampled by another detector.

    Raises:
        InputError: it has other anchors, or sees pictures in another size.
    """
    images, _ = detector.prepared(pictures)
    maps = detector.maps(images)
    anchored = detector.anchored(images, maps)
    same = all(map(torch.equal, anchored.anchors, sample.anchors)) and images.image_sizes == sample.sizes
    if not same:
        raise InputError(
            "The two detectors do not look at the same anchors; give both one anchor generator, one stride and one"
            " size of pictures."
        )
    return _said(detector, maps, anchored, sample)


def _said(detector: Detector, maps: dict[str, Tensor], anchored: Anchored, sample: Sample) -> Seen:
    said = anchored.objectness[sample.places]
    logits = torch.cat([torch.zeros_like(said), said], 1)  # the sigmoid of one is the softmax of both
    shown = sample.labels > 0
    rpn = Stage(logits, anchored.offsets[sample.places][shown], sample.labels, sample.truth[shown])
    rows, offsets = detector.predictor(detector.features(maps, sample.regions, sample.sizes))
    shown, labels = sample.region_labels > 0, sample.region_labels
    own = offsets.view(len(labels), -1, 4)[shown, labels[shown]]
    return Seen(maps, rpn, Stage(rows, own, labels, sample.region_truth[shown]), sample)


def _anchors(
    detector: Detector, anchors: list[Tensor], truth: Sequence[dict[str, Tensor]]
) -> tuple[Tensor, Tensor, Tensor]:
    """Places among all anchors, their labels, and the true offsets."""
    rpn: Any = detector.network.rpn
    labels, matched = rpn.assign_targets_to_anchors(anchors, truth)
    labels = [voided(own, boxes, t["void"]) for own, boxes, t in zip(labels, anchors, truth, strict=True)]
    positive, negative = (torch.where(torch.cat(part))[0] for part in rpn.fg_bg_sampler(labels))
    places = torch.cat([positive, negative])
    wanted = torch.cat(rpn.box_coder.encode(matched, anchors))
    return places, torch.cat(labels)[places].long(), wanted[places]


def _regions(
    detector: Detector, proposals: list[Tensor], truth: Sequence[dict[str, Tensor]]
) -> tuple[list[Tensor], Tensor, Tensor]:
    """Regions of each image, the true boxes among those sampled from; the labels of all, and the true offsets."""
    proposals = [torch.cat([own, t["boxes"]]) for own, t in zip(proposals, truth, strict=True)]
    labels, wanted = detector.matched(proposals, truth)
    kept = detector.network.roi_heads.subsample(labels)
    proposals, labels, wanted = (
        [part[k] for part, k in zip(parts, kept, strict=True)] for parts in (proposals, labels, wanted)
    )
    return proposals, torch.cat(labels), torch.cat(wanted)
