"""New rows of a detector on frozen features: new classes from a few annotated images, nothing of the old ones moved.

Rows alone on a frozen extractor, learnt against negatives and against made-up features of the old classes: what Hayat,
Kliger, Fleishman, Cohen-Or (Generative Low-Shot Network Expansion, arXiv 1810.08363) do for classifiers, here on the
features of regions. Backbone, proposals, old rows and old offsets are left as they are, so that old logits and boxes are
equal bit for bit; new and old classes compete for a region in one softmax.

- A region that overlaps a new box is to be of its class. Any other is to be *none of the new ones*, whatever old class or
  background it shows: the old side counts by its log-sum-exp, so that old objects in the new images need no boxes.
- Old classes that the new images do not show are made up from the old rows (``training/unseen.py``), with the maps that
  go with such features in what the images do show.
- Rows read the pooled maps of a region beside the features that the box head made of them: the head was trained to keep
  what tells the old classes apart, and without what it dropped twenty images taught hardly more of small cells than five.
- Offsets of a new class start from the mean of the old classes' and move as far as the few boxes bear (ridge regression).

- The new classes have proposals of their own beside those of the first stage (``training/proposing.py``), in which no old
  class is found. Without them nothing is found that the first stage takes for background: of small new cells beside large
  old ones it proposed none.

What it cannot do: tell apart what the frozen features do not. ``coverage`` says how much of the new boxes is proposed.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from classgraft.data.boxes import Boxed
from classgraft.errors import InputError
from classgraft.losses.classification import grown_cross_entropy
from classgraft.models.classifier import Classifier, Head, linear
from classgraft.models.detector import Detector, covered, together
from classgraft.models.detector_parts import Proposer
from classgraft.training.answers import evaluating
from classgraft.training.proposing import proposing, ridge, views
from classgraft.training.solve import solve
from classgraft.training.unseen import StandIns, row_scale

LOOKED = 200
"""Proposals of the first stage that are looked at in a view, at most: their maps are kept until the rows are found."""
LIKELY = 0.01
"""Regions that want no map in the regression of maps on features."""


@dataclass(frozen=True)
class Regions:
    """Of the new images, seen as they are and mirrored."""

    features: Tensor
    """(N, D)."""
    logits: Tensor
    """Of background and old classes (N, K + 1)."""
    labels: Tensor
    """int64 (N,): 0 where it is of no new class."""
    wanted: Tensor
    """True offsets (N, 4), where the label is not 0."""


@dataclass(frozen=True)
class DetectorRows:
    """Logits by L-BFGS in the joint softmax, offsets in closed form."""

    maps: float = 0.3
    """Scale of the pooled maps beside the features: how freely new rows read them; 0: not at all."""
    jitter: int = 8
    """Shaken copies of each box that are looked at beside the proposals."""
    negative: float = 3.0
    """Weight of the background beside 1 for regions of new classes, and of regions in which old things are found: the share at
    which Faster R-CNN itself is trained."""
    base: float = 1.0
    """Weight of the made-up features of old classes."""
    confidence: float = 0.8
    """How sure the detector is, on average, of those."""
    samples: int = 100
    """Made up for each old class."""
    weight_decay: float = 0.03
    """Pull on the new rows, in units of the old rows' mean squared length."""
    prior: float = 20.0
    """Regions that the mean of the old classes' offsets counts for."""
    iterations: int = 60
    """Of L-BFGS."""
    regions: int = 100
    """Of an image at most that are proposed for the new classes alone; 0: none but those of the first stage."""
    seed: int = 0
    """Of the shaken boxes, the made-up features and the anchors that are looked at."""

    def extend(self, detector: Detector, images: Boxed) -> Detector:
        """A grown copy; the images' boxes of classes that the detector has are passed over."""
        names = tuple(name for name in images.classes if name not in detector.classes)
        new = images.of(names)
        missing = [name for k, name in enumerate(names) if not bool((new.labels == k).any())]
        if missing or not names:
            what = f"The class '{missing[0]}' has no box" if missing else "The images name no new class"
            raise InputError(f"{what}; give one new box at least.")
        proposer = proposing(detector, new, self.regions, self.seed) if self.regions else None
        seeing = detector.open()
        seen = look(seeing, new, self.jitter, self.seed, proposer)
        weight, bias = self._rows(seeing, seen, len(names))
        rows = linear(weight, bias)
        return detector.grown(names, rows, self._offsets(detector, seen, len(names)), proposer).eval()

    def _rows(self, detector: Detector, seen: Regions, classes: int) -> tuple[Tensor, Tensor]:
        first, generator = detector.first.cls_score, torch.Generator().manual_seed(self.seed)
        width, positive, old = first.in_features, seen.labels > 0, seen.logits.logsumexp(1)
        background = ~positive & (seen.logits.softmax(1)[:, 0] >= 0.5)
        negative = {"background": background, "old": ~positive & ~background}
        made = self._made(detector, seen.features[positive, :width], generator)
        # maps to go with made-up features: what the seen regions' features say of theirs
        likely, shift = ridge(seen.features[:, :width], seen.features[:, width:], LIKELY)
        made = torch.cat([made, made @ likely.T + shift], 1)
        with torch.no_grad():
            sum_made = detector.predictor(made.to(detector.device))[0].float().cpu().logsumexp(1)
        # centred on what is of no new class, so that the decay pulls towards "as likely as anywhere"
        middle = seen.features[~positive].mean(0) if bool((~positive).any()) else seen.features.mean(0)
        units = torch.ones(len(middle))
        units[width:] = self.maps
        features, made, labels = (seen.features - middle) * units, (made - middle) * units, seen.labels[positive] - 1
        scale = row_scale(first.weight.detach().float().cpu(), features)

        def terms(weight: Tensor, bias: Tensor) -> dict[str, Tensor]:
            said = features @ weight.T + bias
            own = said[positive].gather(1, labels[:, None])[:, 0]
            losses = {"new": grown_cross_entropy(said[positive], old[positive], own)}
            for name, group in negative.items():
                if bool(group.any()):
                    losses[name] = self.negative * grown_cross_entropy(said[group], old[group], old[group])
            if len(made):
                losses["base"] = self.base * grown_cross_entropy(made @ weight.T + bias, sum_made, sum_made)
            losses["decay"] = self.weight_decay / 2 * weight.square().sum() / scale
            return losses

        weight, bias = solve(terms, classes, features.shape[1], self.iterations)
        weight = weight * units
        return weight, bias - weight @ middle

    def _made(self, detector: Detector, features: Tensor, generator: torch.Generator) -> Tensor:
        """Features of regions that would show the old classes of the first training; none of a single class."""
        first = detector.first.cls_score
        if first.out_features < 3 or not self.base:
            return features[:0]
        rows = linear(first.weight.detach().float().cpu()[1:], first.bias.detach().float().cpu()[1:])
        old = Classifier(nn.Identity(), Head([rows]), detector.classes[: len(rows.weight)])
        return StandIns.of(old, None, features, self.confidence, self.samples).sample(self.samples, generator)[0]

    def _offsets(self, detector: Detector, seen: Regions, classes: int) -> nn.Linear:
        """Offsets of each new class: the old classes' mean, and what a ridge regression makes of what is left."""
        old = detector.first.bbox_pred
        weight, bias = (
            part.detach().float().cpu().view(-1, 4, *part.shape[1:])[1:].mean(0) for part in (old.weight, old.bias)
        )
        weights, biases = [], []
        for k in range(1, classes + 1):
            own = seen.labels == k
            left = seen.wanted[own] - seen.features[own, : weight.shape[1]] @ weight.T - bias
            change, shift = ridge(seen.features[own], left, self.prior)
            weights.append(F.pad(weight, (0, change.shape[1] - weight.shape[1])) + change)
            biases.append(bias + shift)
        return linear(torch.cat(weights), torch.cat(biases))


def look(detector: Detector, images: Boxed, jitter: int, seed: int, proposer: Proposer | None = None) -> Regions:
    """Proposals, true boxes and shaken ones of every image and its mirror image, in evaluation mode."""
    parts: list[tuple[Tensor, ...]] = []
    generator = torch.Generator().manual_seed(seed)
    with evaluating(detector), torch.inference_mode():
        for place in range(len(images)):
            for picture, own in views(images, place, detector.device):
                prepared, truth = detector.prepared(picture, [own])
                maps = detector.maps(prepared)
                proposed = detector.regions(prepared, maps, detector.anchored(prepared, maps))
                if proposer is not None:
                    proposed[len(detector.rows)] = detector.proposed(prepared, maps, proposer)
                some = torch.randperm(len(proposed[0][0]), generator=generator)[:LOOKED]
                proposed[0] = [proposed[0][0][some.to(detector.device)]]
                shaken = _shaken(truth[0]["boxes"], jitter, prepared.image_sizes[0], generator)
                regions = [torch.cat([together(proposed)[0], truth[0]["boxes"], shaken])]
                labels, wanted = detector.matched(regions, truth)
                features = detector.features(maps, regions, prepared.image_sizes)
                rows, kept = detector.predictor(features)[0], labels[0] >= 0
                found = (features, rows, labels[0], wanted[0])
                parts.append(tuple(part[kept].float().cpu() for part in found))
    whole = [torch.cat(part) for part in zip(*parts, strict=True)]
    return Regions(whole[0], whole[1], whole[2].long(), whole[3])


def coverage(detector: Detector, images: Boxed) -> float:
    """Share of the images' boxes that a proposal overlaps by half; 0..1."""
    hits, count = 0, 0
    with evaluating(detector), torch.inference_mode():
        for index in torch.arange(len(images)).split(16):
            prepared, truth = detector.prepared(
                images.images.view(index, detector.device), images.truth(index, detector.device)
            )
            maps = detector.maps(prepared)
            regions = detector.regions(prepared, maps, detector.anchored(prepared, maps))
            more = covered(together(regions), truth)
            hits, count = hits + more[0], count + more[1]
    return hits / max(1, count)


def _shaken(boxes: Tensor, copies: int, size: tuple[int, int], generator: torch.Generator) -> Tensor:
    """Boxes (n * copies, 4) moved by up to a sixth of their sides and made up to a fifth larger or smaller."""
    many = boxes.repeat_interleave(copies, 0)
    way = (2 * torch.rand(len(many), 4, generator=generator) - 1).to(many)
    centre, sides = (many[:, :2] + many[:, 2:]) / 2, many[:, 2:] - many[:, :2]
    centre, sides = centre + way[:, :2] * sides / 6, sides * 1.2 ** way[:, 2:]
    edges = torch.tensor([size[1], size[0]] * 2).to(many)
    return torch.minimum(torch.cat([centre - sides / 2, centre + sides / 2], 1).clamp(min=0), edges)
