"""Images whose targets are boxes with labels, and the reader of Pascal VOC's layout.

Pictures are stretched to a square, as single-shot detectors do: the overlap of two boxes is the same in any stretch
along the axes, so average precision is too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from classgraft.data import draws
from classgraft.data.augment import DRAWS, Augment, Geometry, augmentation, centre
from classgraft.data.decode import open_rgb
from classgraft.data.images import Images
from classgraft.data.policies import MOVES
from classgraft.errors import InputError
from classgraft.models.preparation import Preparation

LARGEST = 1 << 20
"""Bytes that an annotation may have."""
SEEN = 0.4
"""Share of a box's area that a crop must leave, or the box is void."""
BLIND = ("randaugment", "autoaugment", "autoaugment-imagenet")
"""Augmentations that may move pixels (by ``policies.MOVES``) without saying where to."""
Truth = dict[str, Tensor]
"""Of one image: ``boxes`` (n, 4), ``labels`` (n,) from 1 on as torchvision counts them, and ``void`` (m, 4)."""


@dataclass(frozen=True)
class Boxed:
    """Squares of pixels with any number of labelled boxes each."""

    images: Images
    """Without labels. Detectors normalise by themselves, so that ``preparation`` has mean 0 and deviation 1."""
    boxes: Tensor
    """Floats (M, 4): left, top, right, bottom in pixels of the decoded square."""
    labels: Tensor
    """int64 (M,), places in ``classes``; -1 is void: neither an object to find nor background."""
    owner: Tensor
    """int64 (M,), the place of each box's image."""
    classes: tuple[str, ...]

    def __post_init__(self) -> None:
        count, side = len(self.boxes), self.images.pixels.shape[-1]
        if self.boxes.shape != (count, 4) or not len(self.labels) == len(self.owner) == count:
            raise InputError(
                f"Boxes are {tuple(self.boxes.shape)} with {len(self.labels)} labels and {len(self.owner)} owners;"
                " give (M, 4), M and M."
            )
        if not count:
            return
        if not -1 <= int(self.labels.min()) <= int(self.labels.max()) < len(self.classes):
            raise InputError(
                f"Labels of boxes run from {int(self.labels.min())} to {int(self.labels.max())} but there are"
                f" {len(self.classes)} class names; labels are places in the list of names, or -1 for void."
            )
        if not 0 <= int(self.owner.min()) <= int(self.owner.max()) < len(self.images):
            raise InputError(f"A box belongs to no image: there are {len(self.images)}; owners are places among them.")
        wrong = (self.boxes[:, 2:] <= self.boxes[:, :2]).any(1) | (self.boxes < 0).any(1) | (self.boxes > side).any(1)
        if bool((wrong | ~self.boxes.isfinite().all(1)).any()):
            raise InputError(
                f"The box {self.boxes[wrong | ~self.boxes.isfinite().all(1)][0].tolist()} is none inside a square of"
                f" {side} pixels; give left < right and top < bottom."
            )

    def __len__(self) -> int:
        return len(self.images)

    def subset(self, index: Tensor) -> Boxed:
        """These images, in this order, with their boxes."""
        place = torch.full((len(self),), -1)
        place[index] = torch.arange(len(index))
        kept = torch.nonzero(place[self.owner] >= 0)[:, 0]
        kept = kept[place[self.owner[kept]].argsort(stable=True)]
        return replace(
            self,
            images=self.images.subset(index),
            boxes=self.boxes[kept],
            labels=self.labels[kept],
            owner=place[self.owner[kept]],
        )

    def of(self, classes: Sequence[str]) -> Boxed:
        """All images, with the boxes of these classes and the void ones; what other boxes show is background."""
        place = torch.tensor([classes.index(n) if n in classes else -2 for n in self.classes] + [-1])
        labels = place[self.labels]  # -1 finds the last, which is void
        kept = torch.nonzero(labels > -2)[:, 0]
        return replace(
            self, boxes=self.boxes[kept], labels=labels[kept], owner=self.owner[kept], classes=tuple(classes)
        )

    def showing(self, classes: Sequence[str]) -> Boxed:
        """The images that have a box of one of these classes, with all their boxes."""
        wanted = torch.tensor([self.classes.index(name) for name in classes if name in self.classes])
        return self.subset(self.owner[torch.isin(self.labels, wanted)].unique())

    def some(self, count: int, seed: int) -> Boxed:
        """At most ``count`` images drawn by the seed, in their order."""
        order = np.random.default_rng(seed).permutation(len(self))[:count]
        return self.subset(torch.from_numpy(np.sort(order)))

    def split(self, fraction: float, seed: int) -> tuple[Boxed, Boxed]:
        """Two parts by whole images, the second with ``fraction`` of them, at least one where there are two."""
        order = np.random.default_rng(seed).permutation(len(self))
        cut = max(1, round(fraction * len(self))) if len(self) > 1 else 0
        first, second = (torch.from_numpy(np.sort(part)) for part in (order[cut:], order[:cut]))
        return self.subset(first), self.subset(second)

    def truth(
        self, index: Tensor, device: torch.device, augment: str = "none", seed: int = 0, epoch: int = 0
    ) -> list[Truth]:
        """What there is to find in the views that ``Images.view`` gives with the same words, in their pixels.

        Of a box that a crop cuts, what is left stays, where it is at least the share ``SEEN`` of the area; else it is void.
        """
        of, side = geometry(augment), self.images.preparation.size
        random = draws.uniform(seed, epoch, index.cpu(), DRAWS)[:, : of.draws]
        affine = of.affine(random, self.images.pixels.shape[-1], side)
        found = []
        for place, moved in zip(index.tolist(), affine, strict=True):
            own = self.owner == place
            boxes, share = _moved(self.boxes[own], moved, self.images.pixels.shape[-1], side)
            labels = torch.where(share >= SEEN, self.labels[own] + 1, 0)
            kept, void = labels > 0, (labels == 0) & (share > 0)
            parts = {"boxes": boxes[kept], "labels": labels[kept], "void": boxes[void]}
            found.append({name: part.to(device) for name, part in parts.items()})
        return found

    def view(
        self, index: Tensor, device: torch.device, augment: str = "none", seed: int = 0, epoch: int = 0
    ) -> tuple[Tensor, list[Truth]]:
        """Network input (B, 3, size, size) and its truth."""
        how: Augment = centre if augment == "none" else augmentation(augment)
        return self.images.view(index, device, how, seed, epoch), self.truth(index, device, augment, seed, epoch)


def geometry(augment: str) -> Geometry:
    """The part of an augmentation that moves boxes.

    Raises:
        InputError: it moves pixels and does not say where to.
    """
    if blind := next((part for part in augment.split("+") if part in BLIND), ""):
        raise InputError(
            f"'{blind}' may {MOVES[0]} or slant a picture, which boxes cannot follow; take crop-flip, resized-crop-flip"
            " or flip, with jitter if need be."
        )
    return augmentation(augment).geometry


def _moved(boxes: Tensor, affine: Tensor, side: int, size: int) -> tuple[Tensor, Tensor]:
    """Boxes (n, 4) of the canvas in the view, cut at its edges, and the share (n,) of each area that is left.

    ``affine`` (2, 3) says where in the canvas the view's places come from, along the axes, both from -1 to 1.
    """
    scale, at = affine.diagonal(), affine[:, 2]
    corners = ((2 * boxes.view(-1, 2, 2) / side - 1 - at) / scale + 1) * size / 2
    whole = torch.cat([corners.amin(1), corners.amax(1)], 1)
    cut = whole.clamp(0, size)
    areas = [(part[:, 2:] - part[:, :2]).clamp(min=0).prod(1) for part in (cut, whole)]
    return cut, areas[0] / areas[1].clamp(min=1e-6)


def joined(parts: Sequence[Boxed]) -> Boxed:
    """The images of all parts, which have the same classes and preparation."""
    first = parts[0]
    if any(part.classes != first.classes or part.images.preparation != first.images.preparation for part in parts):
        raise InputError("Sets of boxes differ in their classes or their size; bring them to one with .of(classes).")
    images = replace(
        first.images,
        pixels=torch.cat([part.images.pixels for part in parts]),
        labels=torch.cat([part.images.labels for part in parts]),
        names=tuple(name for part in parts for name in part.images.names or ("",) * len(part)),
    )
    starts = np.cumsum([0, *(len(part) for part in parts)]).tolist()
    owner = torch.cat([part.owner + start for part, start in zip(parts, starts, strict=False)])
    boxes, labels = torch.cat([part.boxes for part in parts]), torch.cat([part.labels for part in parts])
    return replace(first, images=images, boxes=boxes, labels=labels, owner=owner)


def read_voc(folder: str | Path, part: str, classes: Sequence[str], side: int) -> Boxed:
    """A part of a data set in Pascal VOC's layout: ``ImageSets/Main/<part>.txt``, ``Annotations``, ``JPEGImages``.

    Args:
        folder: holds those three.
        part: as "train" or "test".
        classes: to look for; objects of other names are background, and objects marked difficult are void.
        side: of the square that each picture is stretched to, in pixels.

    Raises:
        InputError: a file is missing or damaged, or a box is none.
    """
    root, names = Path(folder), _lines(Path(folder) / "ImageSets" / "Main" / f"{part}.txt")
    if not names:
        raise InputError(f"'{part}' of {root} names no image; choose another part.")
    pixels, boxes, labels, owner = [], [], [], []
    for place, name in enumerate(names):
        picture = open_rgb(_inside(root / "JPEGImages", f"{name}.jpg"), name)
        stretched = picture.resize((side, side), Image.Resampling.BICUBIC)
        pixels.append(torch.from_numpy(np.array(stretched)).permute(2, 0, 1))
        for label, box in _objects(_inside(root / "Annotations", f"{name}.xml"), picture.size, side, classes):
            boxes.append(box)
            labels.append(label)
            owner.append(place)
    preparation = Preparation(side, side, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    images = Images(torch.stack(pixels), torch.zeros(len(names), dtype=torch.int64), (), preparation, tuple(names))
    places = [torch.tensor(numbers, dtype=torch.int64) for numbers in (labels, owner)]
    return Boxed(images, torch.tensor(boxes).reshape(len(boxes), 4), places[0], places[1], tuple(classes))


def _objects(
    path: Path, size: tuple[int, int], side: int, classes: Sequence[str]
) -> list[tuple[int, tuple[float, float, float, float]]]:
    """Label and box of every object, in pixels of the square; VOC counts pixels from 1, both ends included."""
    try:
        if path.stat().st_size > LARGEST:
            raise ValueError(f"it is larger than {LARGEST:,} bytes")
        tree = ElementTree.fromstring(path.read_bytes())
        found = []
        for thing in tree.iter("object"):
            if (name := thing.findtext("name", "").strip()) not in classes:
                continue
            edges = [float(thing.findtext(f"bndbox/{key}", "")) for key in ("xmin", "ymin", "xmax", "ymax")]
            lengths: Mapping[int, int] = {0: size[0], 1: size[1]}
            low = [max(0.0, (edges[i] - 1) / lengths[i]) for i in (0, 1)]
            high = [min(1.0, edges[i + 2] / lengths[i]) for i in (0, 1)]
            if low[0] >= high[0] or low[1] >= high[1]:
                raise ValueError(f"the box {edges} is empty in a picture of {size[0]} x {size[1]} pixels")
            label = -1 if thing.findtext("difficult", "0").strip() == "1" else classes.index(name)
            found.append((label, (side * low[0], side * low[1], side * high[0], side * high[1])))
        return found
    except (OSError, ValueError, ElementTree.ParseError) as error:
        raise InputError(f"The annotation '{path}' cannot be read ({error}); repair it or leave it out.") from error


def _lines(path: Path) -> list[str]:
    try:
        return [line.split()[0] for line in path.read_text("utf-8").splitlines() if line.strip()]
    except (OSError, ValueError) as error:
        raise InputError(
            f"'{path}' cannot be read; give a folder in Pascal VOC's layout and one of its parts."
        ) from error


def _inside(folder: Path, name: str) -> Path:
    """A list of names must not lead out of the folder."""
    if Path(name).name != name:
        raise InputError(f"'{name}' is no name of a file in {folder}; a list of images holds names without folders.")
    return folder / name
