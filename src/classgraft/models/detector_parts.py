"""Parts of detectors: last layers and first stages that can grow, and a small backbone under torchvision's own stages."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Self

import torch
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.ops import MultiScaleRoIAlign

from classgraft.errors import InputError


class Seeing(nn.Module):
    """A box head, and beside its features the maps of the region that it made them of.

    The head has learnt to keep what tells the old classes apart; what tells new ones may be in the maps alone.
    """

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(self, pooled: Tensor) -> Tensor:
        """Maps (N, C, H, W) of regions to (N, D + C H W), the head's features first."""
        return torch.cat([self.head(pooled).flatten(1), pooled.flatten(1)], 1)


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
        """Features (N, D and more) to logits (N, K + 1), background first, and offsets (N, 4 (K + 1)).

        The first layers take the first D features, each block as many as it was made for.
        """
        flat = features.flatten(1)
        rows, offsets = self.first(flat[:, : self.first.cls_score.in_features].contiguous())
        scores, moves = (
            [block(flat[:, : block.in_features]) for block in blocks] for blocks in (self.scores, self.offsets)
        )
        return torch.cat([rows, *scores], 1), torch.cat([offsets, *moves], 1)

    def add(self, rows: nn.Linear, offsets: nn.Linear) -> None:
        """One more block, on the device and in the type of the first."""
        like = self.first.cls_score.weight
        self.scores.append(rows.to(like).train(self.training))
        self.offsets.append(offsets.to(like).train(self.training))

    def drop(self) -> None:
        """The last block goes."""
        self.scores, self.offsets = self.scores[:-1], self.offsets[:-1]

    @property
    def reads_more(self) -> bool:
        """Whether a block reads more than the first layers do."""
        width = self.first.cls_score.in_features
        return any(block.in_features > width for block in self.scores)


class Proposer(nn.Module):
    """What a first stage says of every anchor, for classes that came later: one product on the backbone's maps.

    It is asked as torchvision's ``RPNHead`` is, beside that one, whose own proposals stay what they were.
    """

    def __init__(self, channels: int, anchors: int, most: int) -> None:
        """Of ``channels`` of a map, ``anchors`` at each place of it, and the number of regions of an image that it may add."""
        super().__init__()
        self.scores, self.offsets = (nn.utils.skip_init(nn.Conv2d, channels, count * anchors, 1) for count in (1, 4))
        self.register_buffer("most", torch.tensor(most))
        self.most: Tensor

    @classmethod
    def of(cls, scores: Tensor, biases: Tensor, offsets: Tensor, constants: Tensor, most: int) -> Self:
        """From rows (A, C) and (4 A, C) and what is added to each."""
        proposer = cls(scores.shape[1], len(scores), most)
        for layer, weight, bias in ((proposer.scores, scores, biases), (proposer.offsets, offsets, constants)):
            layer.load_state_dict({"weight": weight[:, :, None, None], "bias": bias})
        return proposer

    def forward(self, maps: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Maps (B, C, H, W) to logits (B, A, H, W) and offsets (B, 4 A, H, W) of each."""
        return [self.scores(part) for part in maps], [self.offsets(part) for part in maps]


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
