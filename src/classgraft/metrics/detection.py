"""Average precision of detections, by the COCO authors' own evaluator (the extra ``boxes``: pycocotools on numpy alone)."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Mapping, Sequence

from torch import Tensor

from classgraft.errors import InputError

MOST = 100
"""Detections of an image that count, the surest first."""


def average_precision(
    found: Sequence[Mapping[str, Tensor]],
    truth: Sequence[Mapping[str, Tensor]],
    classes: Sequence[str],
    overlap: float = 0.5,
) -> dict[str, float | None]:
    """Of each class, 0..1; None where there is no box of it to find.

    The area under precision over recall at 101 recalls, a detection being right when its intersection over union with a box
    of its class that no surer one took is ``overlap`` or more. A detection that lies in a void box is neither right nor wrong.

    Args:
        found: of each image ``boxes`` (n, 4) as left, top, right, bottom, ``labels`` (n,) from 1, ``scores`` (n,).
        truth: of each image ``boxes``, ``labels`` and, if there are any, ``void`` (m, 4).
        classes: label k is ``classes[k - 1]``.
        overlap: 0..1.

    Raises:
        InputError: pycocotools is not there, or found and truth differ in number.
    """
    if len(found) != len(truth):
        raise InputError(f"There are detections of {len(found)} images but boxes of {len(truth)}; give one each.")
    try:
        from pycocotools.coco import COCO
        from pycocotools.cocoeval import COCOeval
    except ImportError as error:
        raise InputError("Average precision needs pycocotools; install classgraft[boxes].") from error
    boxes = [
        {"image_id": i, "category_id": k, "bbox": _box(box), "area": _area(box), "iscrowd": int(void)}
        for i, own in enumerate(truth)
        for box, k, void in _truth(own, len(classes))
    ]
    said = [
        {"image_id": i, "category_id": int(k), "bbox": _box(box), "score": float(score)}
        for i, own in enumerate(found)
        for box, k, score in zip(own["boxes"].tolist(), own["labels"], own["scores"], strict=True)
    ]
    there = {int(k) for own in truth for k in own["labels"]}
    if not said:
        return {name: 0.0 if k in there else None for k, name in enumerate(classes, 1)}
    with contextlib.redirect_stdout(io.StringIO()):  # the evaluator prints how far it is
        known = COCO()
        known.dataset = {
            "info": {},
            "images": [{"id": i} for i in range(len(truth))],
            "categories": [{"id": k, "name": name} for k, name in enumerate(classes, 1)],
            "annotations": [{**box, "id": n} for n, box in enumerate(boxes, 1)],  # an id of 0 would count as no match
        }
        known.createIndex()
        judged = COCOeval(known, known.loadRes(said), "bbox")
        judged.params.iouThrs = [overlap]
        judged.params.areaRng, judged.params.areaRngLbl = [[0, 1e10]], ["all"]
        judged.params.maxDets = [MOST]
        judged.evaluate()
        judged.accumulate()
    precision = judged.eval["precision"][0, :, :, 0, 0]  # recalls, classes
    return {name: float(precision[:, k - 1].mean()) if k in there else None for k, name in enumerate(classes, 1)}


def mean(precisions: Mapping[str, float | None], classes: Sequence[str] | None = None) -> float | None:
    """Over these classes (None: all), leaving out those without a box to find; None where that leaves none."""
    kept = [precisions[name] for name in (precisions if classes is None else classes)]
    values = [value for value in kept if value is not None]
    return sum(values) / len(values) if values else None


def _truth(own: Mapping[str, Tensor], classes: int) -> list[tuple[list[float], int, bool]]:
    """Box, label and whether it is void; a void box is void for every class."""
    found = [(box, int(k), False) for box, k in zip(own["boxes"].tolist(), own["labels"], strict=True)]
    void: list[list[float]] = own["void"].tolist() if "void" in own else []
    return found + [(box, k, True) for box in void for k in range(1, classes + 1)]


def _box(box: Sequence[float]) -> list[float]:
    return [box[0], box[1], box[2] - box[0], box[3] - box[1]]


def _area(box: Sequence[float]) -> float:
    return (box[2] - box[0]) * (box[3] - box[1])
