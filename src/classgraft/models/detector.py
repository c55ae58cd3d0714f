"""The detector: a Faster R-CNN of torchvision's, its class names, and its two stages one at a time.

Ren, He, Girshick, Sun: Faster R-CNN, NIPS 2015, arXiv 1506.01497. The network stays what it was and is reached as
``network``; what is here asks its parts the questions that its own ``forward`` keeps to itself, so that one network can be
asked about the very boxes that another one chose, and so that boxes can be void.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.rpn import concat_box_prediction_layers
from torchvision.ops import box_iou

from classgraft.errors import InputError
from classgraft.models.detector_parts import Grafted, Proposer, Seeing, rows_of

VOID = 0.5
"""Share of a box that must lie in a void one for it to be void itself."""


@dataclass(frozen=True)
class Anchored:
    """What the first stage says of every anchor of a batch."""

    anchors: list[Tensor]
    objectness: Tensor
    """(B * A, 1)."""
    offsets: Tensor
    """(B * A, 4)."""
    levels: list[int]
    """Anchors of an image on each map."""


class Detector(nn.Module):
    """Pictures (B, 3, H, W) in 0..1 to a list of ``boxes``, ``labels`` and ``scores``; label k is ``classes[k - 1]``.

    Classes that came later may have proposals of their own beside those of the first stage. In such a region no older
    class is found, so that old boxes stay what they were.
    """

    def __init__(self, network: nn.Module, classes: Sequence[str]) -> None:
        super().__init__()
        heads: Any = getattr(network, "roi_heads", None)
        if not isinstance(network, FasterRCNN) or heads.has_mask() or heads.has_keypoint():
            raise InputError(
                f"{type(network).__name__} is no plain Faster R-CNN; give a torchvision.models.detection.FasterRCNN"
                " without masks and keypoints."
            )
        self.network: Any = network
        if sum(self.rows) != len(classes) + 1:
            raise InputError(
                f"The detector has {sum(self.rows)} rows but {len(classes)} class names were given; give one a row, without"
                " the background, which is row 0."
            )
        self.classes = tuple(classes)
        self.proposers = nn.ModuleDict()
        """By the place of the block of rows that they propose for; a block may have none."""

    def forward(self, images: Tensor) -> list[dict[str, Tensor]]:
        if not self.proposers:
            return self.network(list(images))  # type: ignore[no-any-return]
        prepared, _ = self.prepared(images)
        maps = self.maps(prepared)
        regions = self.regions(prepared, maps, self.anchored(prepared, maps))
        said = [self._of_block(maps, own, block, prepared.image_sizes) for block, own in regions.items()]
        logits, offsets, boxes = (
            [torch.cat(parts) for parts in zip(*kind, strict=True)] for kind in zip(*said, strict=True)
        )
        heads: Any = self.network.roi_heads
        found = heads.postprocess_detections(torch.cat(logits), torch.cat(offsets), boxes, prepared.image_sizes)
        results = [dict(zip(("boxes", "scores", "labels"), own, strict=True)) for own in zip(*found, strict=True)]
        original = [(images.shape[-2], images.shape[-1])] * len(images)
        return self.network.transform.postprocess(results, prepared.image_sizes, original)  # type: ignore[no-any-return]

    def _of_block(
        self, maps: dict[str, Tensor], regions: list[Tensor], block: int, sizes: list[tuple[int, int]]
    ) -> tuple[Sequence[Tensor], Sequence[Tensor], list[Tensor]]:
        """Logits and offsets of each image's regions; of classes before the block that proposes them one is as good as none.

        Each block's regions go through the last layers alone, so that those of the first stage keep their bits.
        """
        rows, offsets = self.predictor(self.features(maps, regions, sizes))
        if earlier := sum(self.rows[:block]):
            none = rows[:, :earlier].logsumexp(1, keepdim=True)
            rows = torch.cat([none, torch.full_like(rows[:, 1:earlier], -torch.inf), rows[:, earlier:]], 1)
        counts = [len(own) for own in regions]
        return rows.split(counts), offsets.split(counts), regions

    @property
    def predictor(self) -> Any:
        """The last layers of the second stage: torchvision's, or with blocks beside them."""
        return self.network.roi_heads.box_predictor

    @property
    def rows(self) -> tuple[int, ...]:
        """Rows of each block; the first counts the background."""
        return rows_of(self.predictor)

    @property
    def first(self) -> Any:
        """Torchvision's last layers, without what came beside them."""
        return self.predictor.first if isinstance(self.predictor, Grafted) else self.predictor

    @property
    def device(self) -> torch.device:
        return next(self.parameters()).device

    def grown(
        self, names: Sequence[str], rows: nn.Linear, offsets: nn.Linear, proposer: Proposer | None = None
    ) -> Self:
        """A copy with classes after the old ones: rows (D to n) and, for each, four offsets (D to 4 n); and what proposes.

        D is the width of ``features``, here or in the copy that is ``open``.
        """
        copy_ = self.open(rows.in_features > self.first.cls_score.in_features)
        if proposer is not None:
            copy_.proposers[str(len(self.rows))] = proposer.to(self.first.cls_score.weight).train(self.training)
        copy_.predictor.add(rows, offsets)
        copy_.classes = (*self.classes, *names)
        return copy_

    def open(self, wide: bool = True) -> Self:
        """A copy whose last layers can have others beside them and, where it is ``wide``, have pooled maps to read."""
        copy_ = copy.deepcopy(self)
        heads: Any = copy_.network.roi_heads
        if not isinstance(heads.box_predictor, Grafted):
            heads.box_predictor = Grafted(heads.box_predictor).train(self.training)
        if wide and not isinstance(heads.box_head, Seeing):
            heads.box_head = Seeing(heads.box_head).train(self.training)
        return copy_

    def shrunk(self) -> Self:
        """A copy without the classes that were added last; every other weight has the bits that it has here."""
        if len(self.rows) < 2:
            raise InputError("Nothing was added to this detector that could be undone.")
        copy_ = copy.deepcopy(self)
        copy_.predictor.drop()
        if (block := str(len(self.rows) - 1)) in copy_.proposers:
            copy_.proposers.pop(block)
        copy_.classes = self.classes[: -self.rows[-1]]
        heads: Any = copy_.network.roi_heads
        if isinstance(heads.box_head, Seeing) and not copy_.predictor.reads_more:
            heads.box_head = heads.box_head.head
        if len(copy_.rows) == 1:
            heads.box_predictor = copy_.first
        return copy_

    # -- one stage at a time --------------------------------------------------------------------------------------

    def prepared(self, pictures: Tensor, truth: Sequence[dict[str, Tensor]] | None = None) -> tuple[Any, Any]:
        """Normalised and sized as the network does, with what is true moved along."""
        images, moved = self.network.transform(list(pictures), truth)
        for own, (height, width) in zip(moved or (), images.image_sizes, strict=False):
            before = pictures.shape[-2:]
            scale = torch.tensor([width / before[1], height / before[0]] * 2, device=pictures.device)
            own["void"] = own["void"] * scale
        return images, moved

    def maps(self, images: Any) -> dict[str, Tensor]:
        """Of the backbone, by name."""
        found = self.network.backbone(images.tensors)
        return {"0": found} if isinstance(found, Tensor) else dict(found)

    def anchored(self, images: Any, maps: dict[str, Tensor], proposer: Proposer | None = None) -> Anchored:
        """What the first stage, or one that came beside it, says of all anchors."""
        rpn: Any = self.network.rpn
        objectness, offsets = (proposer or rpn.head)(list(maps.values()))
        levels = [level[0].numel() for level in objectness]
        anchors = rpn.anchor_generator(images, list(maps.values()))
        flat = concat_box_prediction_layers(objectness, offsets)
        return Anchored(anchors, flat[0], flat[1], levels)

    def proposals(self, images: Any, anchored: Anchored) -> list[Tensor]:
        """Regions (n, 4) of each image that the first stage takes for objects."""
        rpn: Any = self.network.rpn
        boxes = rpn.box_coder.decode(anchored.offsets.detach(), anchored.anchors)
        boxes = boxes.view(len(anchored.anchors), -1, 4)
        return rpn.filter_proposals(boxes, anchored.objectness, images.image_sizes, anchored.levels)[0]  # type: ignore[no-any-return]

    def proposed(self, images: Any, maps: dict[str, Tensor], proposer: Proposer) -> list[Tensor]:
        """Regions (n, 4) of each image that are proposed for classes that came later."""
        most = int(proposer.most)
        return [own[:most] for own in self.proposals(images, self.anchored(images, maps, proposer))]

    def regions(self, images: Any, maps: dict[str, Tensor], anchored: Anchored) -> dict[int, list[Tensor]]:
        """Regions of each image by the block of rows that proposes them; 0 is the first stage."""
        proposers: Any = self.proposers
        own = {int(block): self.proposed(images, maps, part) for block, part in proposers.items()}
        return {0: self.proposals(images, anchored), **own}

    def features(self, maps: dict[str, Tensor], regions: list[Tensor], sizes: list[tuple[int, int]]) -> Tensor:
        """Of all regions together (N, D), what the last layers take."""
        heads: Any = self.network.roi_heads
        return heads.box_head(heads.box_roi_pool(maps, regions, sizes)).flatten(1)  # type: ignore[no-any-return]

    def matched(self, regions: list[Tensor], truth: Sequence[dict[str, Tensor]]) -> tuple[list[Tensor], list[Tensor]]:
        """Of each image's regions (n, 4): labels (n,), 0 for background and -1 for neither, and true offsets (n, 4)."""
        heads: Any = self.network.roi_heads
        boxes = [t["boxes"] for t in truth]
        places, labels = heads.assign_targets_to_proposals(regions, boxes, [t["labels"] for t in truth])
        labels = [voided(own, r, t["void"]) for own, r, t in zip(labels, regions, truth, strict=True)]
        targets = [(b if len(b) else r.new_zeros(1, 4))[p] for b, r, p in zip(boxes, regions, places, strict=True)]
        return labels, list(heads.box_coder.encode(targets, regions))


def together(regions: dict[int, list[Tensor]]) -> list[Tensor]:
    """All regions (n, 4) of each image."""
    return [torch.cat(own) for own in zip(*regions.values(), strict=True)]


def voided(labels: Tensor, boxes: Tensor, void: Tensor) -> Tensor:
    """Labels in which background that lies in a void box is neither (-1)."""
    if not len(void):
        return labels
    low, high = torch.maximum(boxes[:, None, :2], void[:, :2]), torch.minimum(boxes[:, None, 2:], void[:, 2:])
    inside = (high - low).clamp(min=0).prod(2).amax(1) / (boxes[:, 2:] - boxes[:, :2]).prod(1).clamp(min=1e-6)
    return torch.where((labels == 0) & (inside >= VOID), -torch.ones_like(labels), labels)


def covered(regions: list[Tensor], truth: Sequence[dict[str, Tensor]], overlap: float = 0.5) -> tuple[int, int]:
    """How many true boxes some region overlaps by this much (intersection over union), and how many there are."""
    best = [
        box_iou(t["boxes"], own).amax(1) for own, t in zip(regions, truth, strict=True) if len(t["boxes"]) and len(own)
    ]
    count = sum(len(t["boxes"]) for t in truth)
    return int(sum((part >= overlap).sum() for part in best)), count
