"""Parts of detectors: last layers that can grow, and a small backbone under torchvision's own stages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.ops import MultiScaleRoIAlign

from classgraft.errors import InputError


class Grafted(nn.Module):
    """A predictor of the second stage, and rows of classes that came later beside it.

    Each block is a matrix product of its own and the results are concatenated, so the old logits and offsets keep their
    bits when another block comes beside them.
    """

    def __init__(self, first: nn.Module) -> None:
        super().__init__()
        self.first: Any = first
        self.scores, self.offsets = nn.ModuleList(), nn.ModuleList()

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        """Features (N, D) to logits (N, K + 1), background first, and offsets (N, 4 (K + 1))."""
        rows, offsets = self.first(features)
        flat = features.flatten(1)
        return (
            torch.cat([rows, *(block(flat) for block in self.scores)], 1),
            torch.cat([offsets, *(block(flat) for block in self.offsets)], 1),
        )

    def add(self, rows: nn.Linear, offsets: nn.Linear) -> None:
        """One more block, on the device and in the type of the first."""
        like = self.first.cls_score.weight
        self.scores.append(rows.to(like).train(self.training))
        self.offsets.append(offsets.to(like).train(self.training))

    def drop(self) -> None:
        """The last block goes."""
        self.scores, self.offsets = self.scores[:-1], self.offsets[:-1]


def rows_of(predictor: nn.Module) -> tuple[int, ...]:
    """Rows of each block; the first counts the background.

    Raises:
        InputError: it is neither torchvision's nor one of those with blocks beside it.
    """
    first = predictor.first if isinstance(predictor, Grafted) else predictor
    if not isinstance(first, FastRCNNPredictor):
        raise InputError(
            f"The detector ends in {type(first).__name__}; only one that ends in torchvision's FastRCNNPredictor can be"
            " taken."
        )
    more = predictor.scores if isinstance(predictor, Grafted) else ()
    return (first.cls_score.out_features, *(block.out_features for block in more))


class Backbone(nn.Module):
    """Six convolutions with batch norm: pictures (B, 3, H, W) to one map (B, 4 w, H / 8, W / 8)."""

    def __init__(self, width: int) -> None:
        super().__init__()
        plan = [(3, 1, 2), (1, 2, 2), (2, 2, 1), (2, 4, 2), (4, 4, 1), (4, 4, 1)]
        layers: list[nn.Module] = []
        for inside, outside, stride in plan:
            first = inside if inside == 3 else inside * width
            layers += [nn.Conv2d(first, outside * width, 3, stride, 1, bias=False), nn.BatchNorm2d(outside * width)]
            layers.append(nn.ReLU())
        self.body = nn.Sequential(*layers)
        self.out_channels = 4 * width

    def forward(self, images: Tensor) -> Tensor:
        return self.body(images)  # type: ignore[no-any-return]


def small(
    classes: int, width: int, side: int = 256, anchors: Sequence[int] = (20, 44, 88), hidden: int = 0, seed: int = 0
) -> FasterRCNN:
    """An untrained Faster R-CNN of torchvision's parts on ``Backbone``, in evaluation mode, for pictures of one size.

    Whatever its width it looks at the same anchors, one a place and size, so that narrow ones can learn from wide ones.

    Args:
        classes: without the background.
        width: w of the backbone.
        side: of the pictures, in pixels.
        anchors: their sides, in pixels.
        hidden: features of a region; 0: eight times the width.
        seed: of the weights; the global generator is left alone.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        backbone, hidden = Backbone(width), hidden or 8 * width
        network = FasterRCNN(
            backbone,
            min_size=side,
            max_size=side,
            image_mean=[0.5] * 3,
            image_std=[0.25] * 3,
            rpn_anchor_generator=AnchorGenerator((tuple(anchors),), ((1.0,),)),
            rpn_pre_nms_top_n_train=600,
            rpn_pre_nms_top_n_test=2000,  # a new class is found among these alone
            rpn_post_nms_top_n_train=200,
            rpn_post_nms_top_n_test=400,
            rpn_batch_size_per_image=128,
            box_roi_pool=MultiScaleRoIAlign(["0"], 5, 2),
            box_head=TwoMLPHead(25 * backbone.out_channels, hidden),
            box_predictor=FastRCNNPredictor(hidden, classes + 1),
            box_batch_size_per_image=64,
            box_score_thresh=0.02,
        )
    return network.eval()
