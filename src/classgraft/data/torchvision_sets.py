"""Data sets of torchvision by name: ``torchvision:CIFAR10,root=FOLDER,split=test``.

Options are the arguments of its class; ``split`` also stands for ``train`` where a class has that instead. Nothing is
fetched unless ``download=true`` is given.
"""

from __future__ import annotations

import inspect
import io
from collections.abc import Mapping
from functools import partial
from threading import Lock
from typing import Any

from PIL import Image

from classgraft.data.photos import Photo, Source, labelled
from classgraft.errors import InputError, nearest


def opened(name: str, options: Mapping[str, Any]) -> Source:
    """The labelled images of a data set.

    Raises:
        InputError: there is none of that name, its files are not there, or it is not one of labelled images.
    """
    from torchvision import datasets

    where = f"torchvision:{name}"
    known = {kind.__name__: kind for kind in vars(datasets).values() if _is_set(kind, datasets.VisionDataset)}
    if name not in known:
        raise InputError(f"torchvision has no data set '{name}'.{nearest(name, known)}")
    takes = inspect.signature(known[name]).parameters
    given = dict(options)
    if "split" in given and "split" not in takes and "train" in takes and given["split"] in ("train", "test"):
        given["train"] = given.pop("split") == "train"
    for key in set(given) - set(takes):
        raise InputError(f"{where} takes no option '{key}'; it takes: {', '.join(takes)}.")
    if "root" in takes and "root" not in given and takes["root"].default in (None, inspect.Parameter.empty):
        raise InputError(f"{where} needs the folder of its files; write {where},root=FOLDER.")
    try:
        found = known[name](**given)
        count, first = len(found), found[0]
    except Exception as error:  # each class raises its own
        reason = " ".join((str(error) or type(error).__name__).split())[:200].rstrip(".")
        raise InputError(f"{where} cannot be opened ({reason}); check its options and files.") from error
    if not isinstance(first, tuple) or not isinstance(first[0], Image.Image):
        raise InputError(f"{where} does not hold labelled images; choose another data set.")
    photos = [Photo(f"{where}[{index}]", partial(_read, found, index)) for index in range(count)]
    return labelled(photos, _labels(found, where), _names(found), where)


def _is_set(kind: object, base: type) -> bool:
    return isinstance(kind, type) and issubclass(kind, base) and kind is not base


def _labels(found: Any, where: str) -> list[int]:
    """Of every image, without looking at them where the set lists them."""
    try:
        for attribute in ("targets", "labels", "_labels"):
            listed = getattr(found, attribute, None)
            if listed is not None and len(listed) == len(found):
                labels = [int(label) for label in listed]
                break
        else:
            labels = [int(found[index][1]) for index in range(len(found))]
        if int(found[0][1]) == labels[0]:
            return labels
    except (TypeError, ValueError):
        pass  # boxes, captions, several attributes: said below
    raise InputError(f"{where} does not have one class an image; choose another data set.")


def _names(found: Any) -> list[str] | None:
    classes = getattr(found, "classes", None)
    if not isinstance(classes, list | tuple) or not classes:
        return None
    return [name if isinstance(name, str) else ", ".join(map(str, name)) for name in classes]


def _read(found: Any, index: int) -> bytes:
    """The image as a PNG, which loses nothing."""
    with _reading:
        image = found[index][0]
    buffer = io.BytesIO()
    image.save(buffer, "PNG", compress_level=1)
    return buffer.getvalue()


_reading = Lock()
"""Some sets read one open file, and FakeData sets the global generator: one image at a time."""
