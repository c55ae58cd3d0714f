"""Commands as functions, for Python; those that teach a network are in ``teaching`` and ``shrinking``."""

from __future__ import annotations

import contextlib
import dataclasses
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path

import torch
from torch import Tensor, nn

from classgraft import exporting, novelty, promises
from classgraft.bundle import Bundle
from classgraft.card import promised_by
from classgraft.data.images import Images
from classgraft.data.sources import Source
from classgraft.editing import merge, remove, rename, undo
from classgraft.errors import InputError
from classgraft.extending import extend, remember
from classgraft.folder import check_place, load, save
from classgraft.importing import import_model
from classgraft.looking import Sources, chunks, images_of, known_images, labelled, looked, pictures, unlabelled_images
from classgraft.metrics import classification
from classgraft.training.answers import answers


def logits_of(
    bundle: Bundle,
    sources: Sequence[str | Path | Source | Images],
    *,
    skip_unknown: bool = False,
    strict: bool = False,
    warn: Callable[[str], None] = lambda sentence: None,
) -> tuple[Tensor, Tensor, list[str]]:
    """Logits (N, K), labels (N,) and names of labelled images; those in files are decoded and looked at a chunk at a time."""
    logits: list[Tensor] = []
    labels: list[Tensor] = []
    names: list[str] = []
    held = [known_images(bundle, one, strict, warn, skip_unknown) for one in sources if isinstance(one, Images)]
    files = [one for one in sources if not isinstance(one, Images)]
    read = chunks(bundle, files, skip_unknown, strict, warn) if files or not held else ()
    for images in itertools.chain(held, read):
        logits.append(answers(bundle.model, images))
        labels.append(images.labels)
        names.extend(images.names or ("",) * len(images))
    return torch.cat(logits), torch.cat(labels), names


def evaluate(
    bundle: Bundle,
    *sources: str | Path | Source | Images,
    skip_unknown: bool = False,
    strict: bool = False,
    warn: Callable[[str], None] = lambda sentence: None,
) -> classification.Evaluation:
    """Accuracy on labelled images, old and new classes apart, in the joint label space."""
    logits, labels, _ = logits_of(bundle, sources, skip_unknown=skip_unknown, strict=strict, warn=warn)
    return classification.evaluation(
        logits, labels, bundle.classes, [bundle.classes.index(name) for name in bundle.added]
    )


@dataclasses.dataclass(frozen=True)
class Prediction:
    """The most likely classes of a picture, best first."""

    name: str
    classes: tuple[str, ...]
    probabilities: tuple[float, ...]
    unknown: float
    """0..1, higher where the picture is less likely of a class that the model knows (``novelty.unknown``)."""


def predict(
    bundle: Bundle,
    files: Sources | Images,
    top: int = 5,
    *,
    strict: bool = False,
    warn: Callable[[str], None] = lambda sentence: None,
) -> list[Prediction]:
    """Classes of pictures in files, folders, tables and data sets, or of images that are decoded already."""
    found: list[Prediction] = []
    for images in looked(bundle, files, strict, warn):
        logits = answers(bundle.model, images)
        best, scores = logits.softmax(1).topk(min(top, len(bundle.classes))), novelty.unknown(logits)
        columns = (images.names or ("",) * len(images), best.values.tolist(), best.indices.tolist(), scores.tolist())
        for name, values, places, unknown in zip(*columns, strict=True):
            found.append(Prediction(name, tuple(bundle.classes[k] for k in places), tuple(values), unknown))
    return found


def export(
    bundle: Bundle,
    format: str,
    out: str | Path,
    images: str | Path | Images | None = None,
    *,
    warn: Callable[[str], None] = lambda sentence: None,
) -> exporting.Parity:
    """Write the model for timm, hf, onnx or torch-export, and check there that it gives the bundle's answers.

    ``images`` is a folder of pictures, with or without classes, or a parquet file; None: generated ones.
    """
    exporting.check_needs(format)
    seen = None if images is None else pictures(bundle, images, warn)
    return exporting.export(bundle, format, out, seen)


def verify(
    folder: str | Path,
    images: str | Path | None = None,
    *,
    network: nn.Module | None = None,
    warn: Callable[[str], None] = lambda sentence: None,
) -> list[str]:
    """Check that a bundle is whole and that what its model card promises still holds; what was found, in sentences.

    Args:
        folder: the bundle.
        images: pictures to compare on beside the generated ones; in one folder a class, to measure a promised change.
        network: as in ``load``.
        warn: hears of images that are skipped.

    Raises:
        InputError: a file is not the one that was saved, the card says something else, or a promise does not hold.
    """
    bundle = load(folder, network)  # and it stays on the CPU, where the same model gives the same bits
    words, card = promised_by(bundle), Path(folder) / "README.md"
    text = card.read_text("utf-8", "replace") if card.is_file() else ""
    for sentence in words if text else ():
        if sentence not in text:
            raise InputError(
                f"'{card}' does not say what was measured ({sentence[:80]}...); save the bundle again, or restore it."
            )
    seen = old = None
    if images is not None:
        seen = pictures(bundle, images, warn)
        with contextlib.suppress(InputError):  # pictures of no known class are good enough for the rest
            old = labelled(bundle, [images], skip_unknown=True)
    found = ["Every file is the one that was saved."]
    found += promises.recheck(bundle, seen, old)
    return found if words else [*found, "No step of its history promises anything of the classes before."]


__all__ = [
    "Prediction",
    "check_place",
    "chunks",
    "evaluate",
    "export",
    "extend",
    "images_of",
    "import_model",
    "labelled",
    "load",
    "logits_of",
    "merge",
    "pictures",
    "predict",
    "remember",
    "remove",
    "rename",
    "save",
    "undo",
    "unlabelled_images",
    "verify",
]
