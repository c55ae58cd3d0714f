"""Images in which named points are marked: keypoints beside the pictures, moved along by whatever moves those.

Places are measured from the left and the top edge, so that the centre of the first pixel is at 0.5, 0.5 and a mirror sends x to
the side less x.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from classgraft.data import draws
from classgraft.data.augment import DRAWS, Augment, Composed, centre, centre_affine
from classgraft.data.decode import open_rgb
from classgraft.data.images import Images
from classgraft.data.parquet import check_size
from classgraft.data.squares import rows_of
from classgraft.errors import InputError
from classgraft.models.keypoints import Pairs, partners
from classgraft.models.preparation import Preparation


@dataclass(frozen=True)
class Poses(Images):
    """Images with points. ``classes`` names the keypoints, ``labels`` are all 0; without ``classes`` nothing is annotated."""

    points: Tensor = field(kw_only=True)
    """Floats (N, K, 2): x and y in pixels of the decoded square. They may lie outside of it."""
    annotated: Tensor = field(kw_only=True)
    """bool (N, K). What is not annotated is unknown, not absent; its point may be anything."""
    pairs: Pairs = field(default=(), kw_only=True)
    """Names of keypoints that change places in a mirror."""
    persons: tuple[str, ...] = field(default=(), kw_only=True)
    """Who is in each image; empty or one an image."""
    before: Tensor | None = field(default=None, kw_only=True)
    """int64 (N,): the place of the frame before, -1 where there is none; None: the images are no frames."""

    def __post_init__(self) -> None:
        super().__post_init__()
        count, kinds, side = len(self.pixels), len(self.classes), self.pixels.shape[-1]
        if self.points.shape != (count, kinds, 2) or not self.points.is_floating_point():
            raise InputError(
                f"The points are {self.points.dtype} {tuple(self.points.shape)}; give floats {(count, kinds, 2)}, x and y of"
                " each of the named keypoints in each image."
            )
        if self.annotated.shape != (count, kinds) or self.annotated.dtype != torch.bool:
            raise InputError(
                f"What is annotated is {self.annotated.dtype} {tuple(self.annotated.shape)}; give bool {(count, kinds)}."
            )
        far = self.annotated & ~((self.points > -side) & (self.points < 2 * side)).all(2)
        if bool(far.any()):
            raise InputError(
                f"The point {self.points[far][0].tolist()} is nowhere near its square of {side} pixels; give pixels of the"
                " square, and False in annotated where a point is not known."
            )
        if len(self.persons) not in (0, count):
            raise InputError(f"There are {count} images but {len(self.persons)} persons; name one an image, or none.")
        if self.before is not None and (
            self.before.shape != (count,) or not bool(((self.before >= -1) & (self.before < count)).all())
        ):
            raise InputError(
                f"The frames before are {tuple(self.before.shape)}; give a place among the {count} images, or -1, each."
            )
        partners(self.classes, self.pairs)

    @cached_property
    def partner(self) -> Tensor:
        """The place of each keypoint's mirror image, int64 (K,), -1 where that is none of ``classes``."""
        return partners(self.classes, self.pairs)

    def targets(
        self, index: Tensor, device: torch.device, augment: Augment = centre, seed: int = 0, epoch: int = 0
    ) -> Tensor:
        """Points of ``view`` with the same arguments, (B, K, 3): x and y in pixels of the square, and 1.

        All three are 0 where a point is not annotated or falls outside. In a mirrored view left is right: the point of each
        keypoint is the mirrored one of its pair.
        """
        if not isinstance(augment, Composed) and augment is not centre:
            raise InputError("Points follow an augmentation that has a name; give one of classgraft.data.augment.")
        random = draws.uniform(seed, epoch, index.to(device), DRAWS)
        side, size = self.pixels.shape[-1], self.preparation.size
        affine = (augment.affine if isinstance(augment, Composed) else centre_affine)(random, side, size)
        rows = index.to(self.points.device)
        known = self.annotated[rows].to(device)
        points = placed(self.points[rows].to(device), inverse(affine), side, size)
        points, known = swapped(points, known, mirroring(affine), self.partner.to(device))
        known = known & ((points >= 0) & (points < size)).all(2)
        return torch.cat([torch.where(known[..., None], points, 0), known[..., None].to(points.dtype)], 2)

    def subset(self, index: Tensor) -> Poses:
        """These images, in this order; a frame whose frame before is not among them has none."""
        before = None
        if self.before is not None:
            place = torch.full((len(self) + 1,), -1)
            place[index] = torch.arange(len(index))
            before = place[self.before[index]]  # -1 finds the last, which is -1
        chosen = index.tolist()
        return replace(
            self,
            pixels=rows_of(self.pixels, index),
            labels=self.labels[index],
            names=tuple(self.names[i] for i in chosen) if self.names else (),
            points=self.points[index],
            annotated=self.annotated[index],
            persons=tuple(self.persons[i] for i in chosen) if self.persons else (),
            before=before,
        )

    def named(self, classes: Sequence[str]) -> Poses:
        """All images with these keypoints; those that the images do not have are unknown."""
        place = torch.tensor([self.classes.index(n) if n in self.classes else -1 for n in classes], dtype=torch.int64)
        points, known = (F.pad(part, [0, 0] * (part.ndim - 2) + [0, 1]) for part in (self.points, self.annotated))
        return replace(self, points=points[:, place], annotated=known[:, place], classes=tuple(classes))

    def of(self, classes: Sequence[str]) -> Poses:
        """``named``, without the images in which none of these keypoints is annotated."""
        found = self.named(classes)
        return found.subset(torch.nonzero(found.annotated.any(1))[:, 0])

    def bare(self) -> Poses:
        """All images, with nothing annotated."""
        none = torch.zeros(len(self), 0, dtype=torch.bool)
        return replace(self, classes=(), points=torch.zeros(len(self), 0, 2), annotated=none)

    def consecutive(self) -> tuple[Poses, Poses]:
        """Every frame that has one before it, and those before, in the same order: what draws by the same seed, epoch and
        places move, they move alike in both.

        Raises:
            InputError: no frame has one before it.
        """
        now = torch.zeros(0, dtype=torch.int64) if self.before is None else torch.nonzero(self.before >= 0)[:, 0]
        if self.before is None or not len(now):
            raise InputError("No image is a frame that follows another; say in before which come before which.")
        return self.subset(now), self.subset(self.before[now])

    def apart(self, fraction: float, seed: int) -> tuple[Poses, Poses]:
        """Two parts that share no person, the second with ``fraction`` of the persons, at least one where there are two."""
        if not self.persons:
            raise InputError("Nobody is named in persons, so that images cannot be kept apart by person; name them.")
        everyone = sorted(set(self.persons))
        cut = max(1, round(fraction * len(everyone))) if len(everyone) > 1 else 0
        second = {everyone[i] for i in np.random.default_rng(seed).permutation(len(everyone))[:cut]}
        inside = torch.tensor([person in second for person in self.persons])
        return self.subset(torch.nonzero(~inside)[:, 0]), self.subset(torch.nonzero(inside)[:, 0])

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 of pixels, points and what is annotated, in hexadecimal."""
        hashed = hashlib.sha256(super().fingerprint.encode())
        known = torch.where(self.annotated[..., None], self.points, 0).cpu()
        hashed.update(repr((self.classes, self.pairs)).encode())
        hashed.update(known.contiguous().numpy().data)
        hashed.update(self.annotated.cpu().contiguous().numpy().data)
        return hashed.hexdigest()


def inverse(affine: Tensor) -> Tensor:
    """The maps (B, 2, 3) that take back those of ``affine`` (B, 2, 3)."""
    (a, b), (c, d) = (row.unbind(1) for row in affine[:, :, :2].unbind(1))
    back = torch.stack([d, -b, -c, a], 1).view(-1, 2, 2) / (a * d - b * c)[:, None, None]
    return torch.cat([back, -(back * affine[:, None, :, 2]).sum(2, keepdim=True)], 2)


def mirroring(affine: Tensor) -> Tensor:
    """Whether maps (B, 2, 3) turn left into right, bool (B,)."""
    return affine[:, 0, 0] * affine[:, 1, 1] < affine[:, 0, 1] * affine[:, 1, 0]


def placed(points: Tensor, affine: Tensor, side: int, size: int) -> Tensor:
    """Where maps (B, 2, 3) of places from -1 to 1 send points (B, K, 2), in pixels of ``side`` before and ``size`` after."""
    places = 2 * points / side - 1
    # no matrix product: its precision may be reduced, and its rounding may depend on the batch
    sent = (affine[:, None, :, :2] * places[:, :, None]).sum(3) + affine[:, None, :, 2]
    return (sent + 1) * size / 2


def swapped(points: Tensor, known: Tensor, mirrored: Tensor, partner: Tensor) -> tuple[Tensor, Tensor]:
    """Points (B, K, 2), and which are known (B, K), of images of which some are ``mirrored`` (B,): there each keypoint has
    what its ``partner`` (K,) had, and is unknown where that is -1."""
    others = known[:, partner] & (partner >= 0)
    return (
        torch.where(mirrored[:, None, None], points[:, partner], points),
        torch.where(mirrored[:, None], others, known),
    )


def read(path: str | Path, classes: Sequence[str], pairs: Pairs, preparation: Preparation) -> Poses:
    """A parquet table: ``image`` (encoded), ``keypoints`` (x and y of each in turn, in pixels of the picture counted from the
    centre of its first), and where they are there ``person`` and ``frame``.

    Pictures are squeezed whole into the square. A point that is not finite is not annotated, nor is any of a row without
    points. A frame follows the one of the same person with the number before, of several such rows the nearest in the table;
    between the numbers of a person's clips there must be a gap.

    Args:
        path: of the table.
        classes: names of the keypoints, in their order.
        pairs: those that change places in a mirror.
        preparation: its ``resize`` is the side of the square.

    Raises:
        InputError: the table or a picture cannot be read, or it has another number of points.
    """
    table = _table(Path(path))
    side, pixels, points = preparation.resize, [], np.full((len(table["image"]), len(classes), 2), np.nan, np.float32)
    for row, (encoded, given) in enumerate(zip(table["image"], table["keypoints"], strict=True)):
        name = f"{Path(path).name}[{row}]"
        picture = open_rgb((encoded.get("bytes") if isinstance(encoded, dict) else encoded) or b"", name)
        squeezed = picture.resize((side, side), Image.Resampling.BICUBIC)
        pixels.append(torch.from_numpy(np.array(squeezed)).permute(2, 0, 1))
        if given is None:
            continue
        if len(given) != 2 * len(classes):
            raise InputError(
                f"'{name}' has {len(given)} numbers, but {len(classes)} keypoints are named; give x and y of each."
            )
        found = np.array(given, np.float32).reshape(-1, 2)
        points[row] = (found + 0.5) * side / np.array(picture.size, np.float32)
    known = torch.from_numpy(np.isfinite(points).all(2))
    return Poses(
        torch.stack(pixels),
        torch.zeros(len(pixels), dtype=torch.int64),
        tuple(classes),
        preparation,
        points=torch.from_numpy(points),
        annotated=known,
        pairs=tuple(pairs),
        persons=tuple(map(str, table.get("person", ()))),
        before=_before(table["person"], table["frame"]) if {"person", "frame"} <= table.keys() else None,
    )


def _before(persons: Sequence[Any], frames: Sequence[Any]) -> Tensor:
    """Of each row the nearest row of the same person with the number before, or -1."""
    if odd := [frame for frame in frames if not str(frame).isdecimal()]:
        raise InputError(f"'{odd[0]}' is no number of a frame; number the frames of a clip one after another.")
    keys = [(person, int(frame)) for person, frame in zip(persons, frames, strict=True)]
    rows: dict[tuple[Any, int], list[int]] = {}
    for row, key in enumerate(keys):
        rows.setdefault(key, []).append(row)
    before = [rows.get((person, frame - 1), [-1]) for person, frame in keys]
    return torch.tensor([min(found, key=lambda other: abs(other - row)) for row, found in enumerate(before)])


def _table(path: Path) -> dict[str, list[Any]]:
    """The columns that are needed, and of the others those that are there."""
    try:
        with pq.ParquetFile(path, memory_map=True) as file:
            check_size(file.metadata, path)
            names = file.schema_arrow.names
            if missing := [name for name in ("image", "keypoints") if name not in names]:
                raise InputError(f"'{path}' has no column '{missing[0]}' (it has: {', '.join(names)}); add it.")
            if not file.metadata.num_rows:
                raise InputError(f"'{path}' holds no rows; give one with images.")
            kind = file.schema_arrow.field("keypoints").type
            lists = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
            if not lists or not (pa.types.is_floating(kind.value_type) or pa.types.is_integer(kind.value_type)):
                raise InputError(f"'{path}': its column 'keypoints' holds {kind}; store a list of numbers a row.")
            columns = [name for name in ("image", "keypoints", "person", "frame") if name in names]
            found: dict[str, list[Any]] = file.read(columns=columns).to_pydict()
    except (OSError, pa.ArrowException) as error:
        raise InputError(f"'{path}' is not a readable parquet file; get it again.") from error
    return found
