"""How far from the truth keypoints are found: the normalised mean error."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class PointErrors:
    """Distances of one network's keypoints from the truth, on one set of images.

    Each is normalised by the size of what is annotated in its image: the root of width times height of the box around all
    points that are annotated there. Profiles and figures of any shape have such a size; the distance between the eyes, which
    other tables of faces divide by, gives larger numbers and nearly nothing to divide by in a profile.
    """

    classes: tuple[str, ...]
    """Names of the keypoints."""
    distances: Tensor
    """(N, K), nan where the truth is not known."""

    @property
    def each(self) -> Tensor:
        """Mean of each keypoint over images (K,); nan where it is known in none."""
        return self.distances.nanmean(0)

    @property
    def mean(self) -> float:
        """NME: the mean over images of the mean over the points that are known in it."""
        return float(self.distances.nanmean(1).nanmean())

    def of(self, classes: Sequence[str]) -> float:
        """NME of these keypoints alone, still by the size of all that is annotated."""
        places = torch.tensor([self.classes.index(name) for name in classes])
        return float(self.distances[:, places].nanmean(1).nanmean())


def point_errors(found: Tensor, truth: Tensor, annotated: Tensor, classes: Sequence[str]) -> PointErrors:
    """Errors of places against the truth.

    Args:
        found: x and y (N, K, 2), in any unit.
        truth: likewise.
        annotated: bool (N, K), where the truth is known. An image with fewer than two known points has no size, nor one whose
            points lie on a line along an axis: it is left out.
        classes: names of the keypoints.
    """
    low = truth.masked_fill(~annotated[..., None], torch.inf).amin(1)
    high = truth.masked_fill(~annotated[..., None], -torch.inf).amax(1)
    size = (high - low).clamp(min=0).prod(1).sqrt()
    size = size.masked_fill(~(size > 0), torch.nan)
    distances = (found - truth).norm(dim=2) / size[:, None]
    return PointErrors(tuple(classes), distances.masked_fill(~annotated, torch.nan))
