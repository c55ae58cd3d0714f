"""Images of any source as a bundle's model takes them, their labels as places in its head."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from classgraft.bundle import Bundle, became
from classgraft.data.decode import square
from classgraft.data.folders import EXTENSIONS
from classgraft.data.images import Images
from classgraft.data.names import check_names, match
from classgraft.data.sources import Loaded, Photo, Source, open_files, open_source, open_sources
from classgraft.data.streaming import load_within
from classgraft.errors import InputError
from classgraft.models.preparation import Canvas, Preparation
from classgraft.training.loop import report as tell

CHUNK = 1024
"""Images decoded at a time where they are looked at once."""

_NONE_LEFT = "No image is left to look at: the model has none of their classes; check the names."

Sources = str | Path | Source | Sequence[str | Path | Source]
"""Labelled images: a folder, a ``.parquet`` file, ``hf:ID``, ``torchvision:NAME``, or several of these."""
Pictures = str | Path | Sequence[str | Path] | Tensor
"""Files or folders of images of one class, or their pixels: uint8 (N, 3, H, W), or floats as the network takes them."""


def images_of(
    source: Source,
    preparation: Preparation,
    *,
    strict: bool = False,
    warn: Callable[[str], None] = lambda sentence: None,
) -> Images:
    """All photos of a source, decoded; skipped ones are warned about."""
    total = len(source.photos)
    loaded = load_within(
        source, preparation.canvas, strict=strict, progress=lambda done: tell("reading images", done, total)
    )
    _say_skipped(loaded.skipped, warn)
    _say_unread(source, warn)
    labels = loaded.labels if source.classes else torch.zeros(len(loaded.pixels), dtype=torch.int64)
    return Images(loaded.pixels, labels, source.classes, preparation, loaded.names)


def in_memory(
    photos: Mapping[str, Pictures],
    preparation: Preparation,
    strict: bool = False,
    warn: Callable[[str], None] = lambda sentence: None,
) -> Images:
    """Photos by the names of their classes, as files or tensors."""
    if not photos:
        raise InputError("There are no photos; give some under the name of each class to add.")
    classes = check_names(list(photos))
    stacks = []
    for name, own in zip(classes, photos.values(), strict=True):
        if isinstance(own, Tensor):
            stack = own if own.ndim == 4 else own[None]
            fits = stack.ndim == 4 and stack.shape[1] == 3 and (stack.dtype == torch.uint8 or stack.is_floating_point())
            if len(stack) and not fits:
                raise InputError(
                    f"The photos of '{name}' are {str(stack.dtype).removeprefix('torch.')} {tuple(own.shape)}; give RGB as"
                    " uint8 or floats, (N, 3, H, W) or (3, H, W)."
                )
            if len(stack) and not stack.is_floating_point():  # as files are read
                read = (Image.fromarray(pixels.permute(1, 2, 0).cpu().numpy()) for pixels in stack)
                stack = torch.stack([square(picture, preparation.canvas) for picture in read])
        else:
            stack = images_of(open_files(own), preparation, strict=strict, warn=warn).pixels
        if not len(stack):
            raise InputError(f"The class '{name}' has no photo; give one at least.")
        stacks.append(stack)
    if len({(stack.dtype, *stack.shape[1:]) for stack in stacks}) > 1:
        raise InputError("The classes' tensors differ in type or size; give all photos in one form.")
    labels = torch.arange(len(stacks)).repeat_interleave(torch.tensor([len(stack) for stack in stacks]))
    return Images(torch.cat(stacks), labels, classes, preparation)


def _say_skipped(skipped: Sequence[str], warn: Callable[[str], None]) -> None:
    if skipped:
        more = f" ({len(skipped) - 1} more likewise)" if len(skipped) > 1 else ""
        warn(f"{len(skipped)} corrupt image{'s' * (len(skipped) > 1)} skipped: {skipped[0]}{more}")


def _say_unread(source: Source, warn: Callable[[str], None]) -> None:
    beside = [name for name in source.unread if Path(name).suffix.lower() in {"", *EXTENSIONS}]
    others = [name for name in source.unread if name not in beside]
    if beside:
        what = "images lie" if len(beside) > 1 else "image lies"
        warn(
            f"{len(beside)} {what} beside the folders of the classes, such as '{beside[0]}', and in none; put them into theirs."
        )
    if others:
        what = "files are no images that" if len(others) > 1 else "file is no image that"
        warn(f"{len(others)} {what} can be read, such as '{others[0]}'; save what is wanted of them as JPEG or PNG.")


def labelled(
    bundle: Bundle,
    sources: Sequence[str | Path | Source],
    *,
    skip_unknown: bool = False,
    strict: bool = False,
    warn: Callable[[str], None] = lambda sentence: None,
) -> Images:
    """Images of classes that the model has, labelled by their places in its head."""
    (images,) = chunks(bundle, sources, skip_unknown, strict, warn, chunk=1 << 62)
    return images


def chunks(
    bundle: Bundle,
    sources: Sequence[str | Path | Source],
    skip_unknown: bool = False,
    strict: bool = False,
    warn: Callable[[str], None] = lambda sentence: None,
    chunk: int = CHUNK,
) -> Iterator[Images]:
    """The images of several sources, a bounded number at a time, labelled by their places in the head."""
    opened = [source if isinstance(source, Source) else open_source(source) for source in sources]
    photos: list[Photo] = []
    labels: list[int] = []
    for source in opened:
        _say_unread(source, warn)
        places = _places(bundle, source.classes, source.labels, skip_unknown, warn)
        photos += [photo for photo, place in zip(source.photos, places, strict=True) if place >= 0]
        labels += [place for place in places if place >= 0]
    if not photos:
        raise InputError(_NONE_LEFT)
    left = set(labels)
    for first, loaded in decoded(photos, bundle.preparation.canvas, strict, warn, chunk):
        kept = [labels[first + i] for i in loaded.kept]
        left -= set(kept)
        index = torch.tensor(kept, dtype=torch.int64)
        yield Images(loaded.pixels, index, bundle.classes, bundle.preparation, loaded.names)
    if left:
        name = bundle.classes[min(left)]
        raise InputError(f"The class '{name}' has no image left: none can be used; add some or leave its folder out.")


def _places(
    bundle: Bundle, classes: Sequence[str], labels: Sequence[int], skip_unknown: bool, warn: Callable[[str], None]
) -> list[int]:
    """Of each image the place of its class in the head; -1 where the model does not have it."""
    found = match(classes, bundle.classes)
    for sentence in found.warnings:
        warn(sentence)
    places = [found.found.get(classes[label], -1) for label in labels]
    if count := len(found.unknown):
        if not skip_unknown:
            shown = ", ".join(f"'{name}'" for name in found.unknown[:5]) + (" ..." if count > 5 else "")
            now = [f" '{name}' is '{other}' by now: put its images under that name." for name in found.unknown
                   if (other := became(bundle, name))][:1]  # fmt: skip
            raise InputError(
                f"The model does not have {count} of the classes of these images: {shown}; extend it by them first, or leave"
                f" those images out (with --skip-unknown, where the command has it).{''.join(now)}"
            )
        of = "1 class" if count == 1 else f"{count} classes"
        warn(f"{places.count(-1)} images of {of} that the model does not have are left out.")
    return places


def decoded(
    photos: Sequence[Photo], canvas: Canvas, strict: bool, warn: Callable[[str], None], chunk: int = CHUNK
) -> Iterator[tuple[int, Loaded]]:
    """Photos without their labels, a bounded number at a time, each part with the place of its first."""
    skipped: list[str] = []
    for first in range(0, len(photos), chunk):
        part = Source((), tuple(photos[first : first + chunk]), ())
        try:
            loaded = load_within(part, canvas, strict=strict)
        except InputError:
            if strict or len(photos) <= chunk:
                raise
            skipped += [f"image {photo.name!r} cannot be used." for photo in part.photos]
            continue
        skipped += loaded.skipped
        yield first, loaded
        tell("reading images", min(first + chunk, len(photos)), len(photos))
    if len(skipped) == len(photos):
        raise InputError(f"None of the {len(photos)} images can be used: {skipped[0]}")
    _say_skipped(skipped, warn)


def known_images(
    bundle: Bundle,
    images: Sources | Images,
    strict: bool = False,
    warn: Callable[[str], None] = lambda sentence: None,
    skip_unknown: bool = False,
) -> Images:
    """Images of classes that the model has, labelled by their places in its head."""
    if not isinstance(images, Images):
        return labelled(bundle, [open_sources(images)], skip_unknown=skip_unknown, strict=strict, warn=warn)
    images = _named(as_taken(images, bundle.preparation))
    found = _places(bundle, images.classes, images.labels.tolist(), skip_unknown, warn)
    places = torch.tensor(found, dtype=torch.int64)
    if (places < 0).any():
        kept = torch.nonzero(places >= 0)[:, 0]
        if not len(kept):
            raise InputError(_NONE_LEFT)
        images, places = images.subset(kept), places[kept]
    return dataclasses.replace(images, labels=places, classes=bundle.classes)


def new_images(images: Images, preparation: Preparation) -> Images:
    """A caller's images of classes to add.

    Raises:
        InputError: they are not prepared as the model takes them, or a name does not do, or of a class there is none.
    """
    images = _named(as_taken(images, preparation))
    for name, count in images.counts.items():
        if not count:
            raise InputError(f"The class '{name}' has no photo; give one at least.")
    return images


def as_taken(images: Images, preparation: Preparation) -> Images:
    """A caller's images, if the model sees them as it sees files: prepared by the same, or as they are."""
    own = images.preparation
    floats = images.pixels.dtype.is_floating_point
    if own == preparation or (floats and not own.normalises and images.pixels.shape[-1] == own.size):
        return images
    theirs, ours = dataclasses.asdict(own), dataclasses.asdict(preparation)
    differs = ", ".join(f"{key} {theirs[key]} instead of {ours[key]}" for key in ours if theirs[key] != ours[key])
    raise InputError(
        f"These images are not prepared as the model takes them ({differs}); make them with the bundle's preparation."
    )


def _named(images: Images) -> Images:
    """With the names of classes as folders would have them."""
    classes = check_names(images.classes, "the classes of the images")
    if not classes:
        raise InputError("These images have no class names; give one a class.")
    return images if classes == images.classes else dataclasses.replace(images, classes=classes)


def looked(
    bundle: Bundle,
    where: Sources | Images,
    strict: bool = False,
    warn: Callable[[str], None] = lambda sentence: None,
    chunk: int = CHUNK,
) -> Iterator[Images]:
    """Pictures whatever their classes, a bounded number at a time; what labels they carry (files: 0) means nothing.

    Decoded ones come as they are.
    """
    if isinstance(where, Images):
        yield as_taken(where, bundle.preparation)
        return
    source = open_files(where)
    _say_unread(source, warn)
    for _, loaded in decoded(source.photos, bundle.preparation.canvas, strict, warn, chunk):
        labels = torch.zeros(len(loaded.names), dtype=torch.int64)
        yield Images(loaded.pixels, labels, bundle.classes, bundle.preparation, loaded.names)


def pictures(
    bundle: Bundle, where: Sources | Images, warn: Callable[[str], None] = lambda sentence: None, strict: bool = False
) -> Images:
    """Pictures whatever their classes, as the bundle's model takes them, all at once."""
    (images,) = looked(bundle, where, strict, warn, chunk=1 << 62)
    return images


def unlabelled_images(
    bundle: Bundle,
    source: Sources | Images,
    *,
    strict: bool = False,
    warn: Callable[[str], None] = lambda sentence: None,
) -> Images:
    """Images whose labels nobody knows: files, folders of any form, or a table or data set whose labels are not looked at."""
    images = pictures(bundle, source, warn, strict)
    return dataclasses.replace(images, labels=torch.zeros_like(images.labels), classes=("",))
