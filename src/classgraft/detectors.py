"""Detectors from Python: extended from a few annotated images, undone, saved, and measured.

detector = detectors.Detector(network, ("RBC", "WBC"))                # a torchvision FasterRCNN
photos = detectors.read_voc("bccd", "train", ("Platelets",), side=256)
grown = detectors.extend(detector, photos)
detectors.save(grown, "grown")
detectors.undo(grown)                                                 # the bits of before
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, cast

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import nn

from classgraft.data.boxes import Boxed, joined, read_voc
from classgraft.errors import InputError
from classgraft.extenders.detector_rows import DetectorRows, coverage
from classgraft.metrics.detection import average_precision, mean
from classgraft.models.detector import Detector
from classgraft.models.detector_parts import Proposer, small
from classgraft.storage import held, recover, replaced, sha256
from classgraft.training.detecting import found, labelled, train, tuned

FORMAT = 1
PROPOSED = 0.8
"""Share of the new boxes that must be proposed for nothing to be said about it."""

__all__ = [
    "Boxed",
    "Detector",
    "DetectorRows",
    "evaluate",
    "extend",
    "found",
    "joined",
    "labelled",
    "load",
    "read_voc",
    "save",
    "small",
    "train",
    "undo",
]


def extend(
    detector: Detector,
    images: Boxed,
    *,
    method: DetectorRows | None = None,
    tune: int = 0,
    warn: Callable[[str], None] = lambda sentence: None,
) -> Detector:
    """A copy that also finds the classes of these images, whose boxes of known classes are passed over.

    Old logits and boxes keep their bits for the same pictures; an old score falls only where a new class competes for the
    same region, in the softmax of both. In regions that are proposed for new classes alone nothing old is found. With
    ``tune`` everything moves, old boxes too; ``undo`` then takes away the new classes and leaves what moved.

    Args:
        detector: left as it is.
        images: few, with a box of each new class at least.
        method: its settings.
        tune: steps of training everything further, on the new boxes and on what the detector itself finds in the images
            (``labelled``), so that nobody has to draw the old things; 0: none.
        warn: hears a sentence where the detector proposes too few of the new boxes to find such things.

    Raises:
        InputError: there is no new class, or one has no box; ``tune`` is negative.
    """
    if tune < 0:
        raise InputError(f"tune is {tune}; it is a number of steps, 0 for none.")
    way = method or DetectorRows()
    grown = way.extend(detector, images)
    if tune:
        grown = tuned(grown, labelled(detector, images), tune, way.seed)
    new = images.of(grown.classes[len(detector.classes) :])
    if (share := coverage(grown, new)) < PROPOSED:
        warn(
            f"The detector proposes {share:.0%} of the new boxes, and finds none of the others; give more images of the new"
            " classes, or train it on them."
        )
    return grown


def undo(detector: Detector) -> Detector:
    """The detector before its last extension, with every bit that it had; what was trained since stays as it is now.

    Raises:
        InputError: it was not extended.
    """
    return detector.shrunk()


def evaluate(detector: Detector, images: Boxed, overlap: float = 0.5) -> dict[str, Any]:
    """Mean average precision, 0..1, over ``old``, ``new`` (added last) and ``all`` classes, and of each in ``per_class``.

    A class without a box among the images counts nowhere and is None. The boxes are those of ``Boxed.of`` the detector's
    classes.

    Raises:
        InputError: pycocotools is missing.
    """
    known = images.of(detector.classes)
    truth = known.truth(torch.arange(len(known)), torch.device("cpu"))
    each = average_precision(found(detector, known), truth, detector.classes, overlap)
    added = detector.rows[-1] if len(detector.rows) > 1 else 0
    old, new = (detector.classes[: len(detector.classes) - added], detector.classes[len(detector.classes) - added :])
    parts = {"old": mean(each, old), "new": mean(each, new), "all": mean(each)}
    return {**parts, "per_class": each, "n": len(known), "overlap": overlap}


def save(detector: Detector, folder: str | Path) -> None:
    """Weights, class names and the blocks of rows, in a folder that is there wholly or not at all.

    What the network is made of is not saved: ``load`` is given such a network.

    Raises:
        InputError: the folder holds anything else, which would be lost; or it cannot be written.
    """
    where = Path(folder)
    there = {path.name for path in where.iterdir()} if where.is_dir() else {where.name} if where.exists() else set()
    if others := there - {"config.json", "model.safetensors"}:
        raise InputError(f"'{where}' holds '{min(others)}', which is no detector's; name another folder.")
    with replaced(where) as fresh:
        tensors = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in detector.state_dict().items()}
        save_file(tensors, fresh / "model.safetensors")
        config = {
            "format": FORMAT,
            "kind": "detector",
            "classes": list(detector.classes),
            "rows": list(detector.rows),
            "sha256": {"model.safetensors": sha256(fresh / "model.safetensors")},
        }
        (fresh / "config.json").write_text(json.dumps(config, ensure_ascii=False, indent=1), "utf-8")


def load(folder: str | Path, network: nn.Module) -> Detector:
    """The saved detector, on a copy of a network of the form that it had before it was ever extended.

    Raises:
        InputError: the folder is damaged or holds something else, or the network has another form.
    """
    where = Path(folder)
    recover(where)
    try:
        with held(where, shared=True):
            config = json.loads((where / "config.json").read_text("utf-8"))
            if config["kind"] != "detector" or config["format"] != FORMAT:
                raise ValueError("it holds no detector of this format")
            classes, rows = [str(name) for name in config["classes"]], [int(count) for count in config["rows"]]
            if min(rows) < 1 or sum(rows) != len(classes) + 1:
                raise ValueError("its rows are not as many as its classes")
            if config["sha256"]["model.safetensors"] != sha256(where / "model.safetensors"):
                raise ValueError("model.safetensors is not the file that was saved")
            tensors = load_file(where / "model.safetensors")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, SafetensorError) as error:
        raise InputError(f"'{where}' cannot be read as a detector ({error}); save it again.") from error
    detector = Detector(copy.deepcopy(network), classes[: rows[0] - 1])
    width, first = detector.first.cls_score.in_features, rows[0] - 1
    for place, count in enumerate(rows[1:], 1):
        saved = tensors.get(f"network.roi_heads.box_predictor.scores.{place - 1}.weight")
        reads = width if saved is None else saved.shape[1]
        block, moves = (cast(nn.Linear, nn.utils.skip_init(nn.Linear, reads, count * times)) for times in (1, 4))
        scores = tensors.get(f"proposers.{place}.scores.weight")
        proposer = None if scores is None else Proposer(scores.shape[1], scores.shape[0], 0)
        detector = detector.grown(classes[first : first + count], block, moves, proposer)
        first += count
    try:
        detector.load_state_dict(tensors)
    except RuntimeError as error:
        why = " ".join(str(error).split())[:200]
        raise InputError(
            f"The network is not of the form that was saved in '{where}' ({why}); make it alike."
        ) from error
    return detector.eval()
