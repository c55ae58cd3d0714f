"""Every command as a function, for Python.

The command line does nothing that is not here.
"""

from __future__ import annotations

import contextlib
import dataclasses
import datetime
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, overload

import torch
from torch import Tensor, nn

from classgraft import catalogue, exporting, memories, metrics, novelty, packing, promises
from classgraft.bundle import CODE, Bundle, Kept, check_place, load, place, promised_by, save
from classgraft.data.images import Images, Task
from classgraft.data.names import check_names, match, normal, read_names
from classgraft.data.sources import Loaded, Photo, Source, open_files, open_source, open_sources
from classgraft.data.sources import load as decode
from classgraft.data.streaming import load_within
from classgraft.errors import InputError
from classgraft.models.classifier import Classifier
from classgraft.models.cut import cut, head_name, prove
from classgraft.models.heads import plain
from classgraft.models.merged import merged, renamed
from classgraft.models.preparation import Preparation, usual_resize
from classgraft.models.sources import Architecture, load_weights, read_weights
from classgraft.models.wrapped import Beside, Logits, wrapped
from classgraft.trainers.glico import enriched
from classgraft.training.answers import answers
from classgraft.training.loop import report as tell
from classgraft.verbs import Extender

FEW = 100
"""Classes, below which the head alone says too little of its classes (docs/choosing.md)."""
CHUNK = 1024
"""Images decoded at a time where they are looked at once."""

Sources = str | Path | Source | Sequence[str | Path | Source]
"""Labelled images: a folder, a ``.parquet`` file, ``hf:ID``, ``torchvision:NAME``, or several of these."""
Pictures = Sequence[str | Path] | Tensor
"""Files of one class, or their pixels: uint8 (N, 3, H, W), or floats as the network takes them."""


def versions() -> dict[str, str]:
    """Of what a result depends on."""
    import timm
    import torchvision

    from classgraft import __version__

    return {
        "classgraft": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "timm": timm.__version__,
    }


def import_model(
    source: str | nn.Module,
    weights: str | Path | None = None,
    classes: str | Path | Sequence[str] | None = None,
    *,
    arguments: Mapping[str, Any] | None = None,
    head: str | None = None,
    mean: tuple[float, float, float] | None = None,
    std: tuple[float, float, float] | None = None,
    size: int | None = None,
    resize: int | None = None,
) -> Bundle:
    """Make a bundle of a trained classifier.

    Args:
        source: ``timm:NAME``, ``torchvision:NAME``, ``hf:ID-or-folder``, ``cifar:NAME``, or a network.
        weights: a ``.safetensors`` or torch file; None where the source brings its own (``hf``, a network).
        classes: names in head order, or a file with one a line; None where the source states them (``hf``).
        arguments: for the network's constructor.
        head: the name of the layer that gives the logits, where it cannot be found.
        mean: of the pixels that the network was trained on, in 0..1; else the source's own.
        std: likewise.
        size: side of the square that the network sees; else the source's own.
        resize: short side before the centre crop; else size / 0.875 from 96 pixels up, else size.

    Raises:
        InputError: whatever does not fit, and what to do.
    """
    if isinstance(source, nn.Module):
        names = _names(classes, ())
        architecture, network = Architecture(f"{CODE}:{type(source).__name__}"), source
        stated = _stated_preparation(source)
    else:
        architecture = Architecture.of(source, dict(arguments or {}))
        names = _names(classes, architecture.names())
        network = architecture.plain(len(names)) if weights is not None else architecture.pretrained(source)
        stated = architecture.preparation(source, None if weights is None else Path(weights))
    if weights is not None:
        found = architecture.needed(read_weights(Path(weights)))
        load_weights(network, found, f"{architecture.source} with {len(names)} classes")
    network = wrapped(network, len(names))
    if isinstance(network, Beside):
        architecture = dataclasses.replace(architecture, inside=len(names))
    if head and isinstance(network, Logits):
        head = f"network.{head}"
    side = stated.size if size is None else size
    short = resize if resize is not None else usual_resize(side) if size is not None else stated.resize
    preparation = Preparation(side, short, mean or stated.mean, std or stated.std)
    name = head or head_name(network, len(names))
    model = cut(network, names, name).eval()
    prove(network, model, side)
    event = _event("import", f"imported from {architecture.source}", classes=len(names))
    return Bundle(model, architecture, name, preparation, history=(event,))


def _names(given: str | Path | Sequence[str] | None, stated: Sequence[str]) -> tuple[str, ...]:
    if given is None and not stated:
        raise InputError("The class names are missing; give a file with one name a line, in the order of the head.")
    return read_names(Path(given)) if isinstance(given, str | Path) else check_names(stated if given is None else given)


def _stated_preparation(network: nn.Module) -> Preparation:
    config = getattr(network, "pretrained_cfg", None)
    if not isinstance(config, Mapping) or "input_size" not in config:
        return Preparation()
    side = int(config["input_size"][-1])
    short = int(side / float(config.get("crop_pct", 0.875))) if side >= 96 else side
    return Preparation(side, max(side, short), tuple(config["mean"]), tuple(config["std"]))


@overload
def extend(model: Bundle, photos: Sources | Images, /, **options: Any) -> Bundle: ...
@overload
def extend(model: nn.Module, names: Sequence[str], photos: Mapping[str, Pictures], /, **options: Any) -> Classifier: ...
def extend(model: Bundle | nn.Module, /, *given: Any, **options: Any) -> Bundle | Classifier:
    """Add classes from a few photos.

    ``extend(bundle, photos)`` takes a folder with one folder a class, a parquet file, ``hf:ID``,
    ``torchvision:NAME``, or a list of these, and returns a bundle.
    ``extend(network, names, {"foxglove": photos})`` takes any network with a linear head, in memory, and returns a
    classifier that stands where the network stood. Photos are files, uint8 pixels, or floats as the network takes them.

    Options:
        method: a name from ``classgraft methods`` (auto).
        settings: fields of the method, such as {"views": 16}.
        shots: photos to draw of each class (all).
        seed: of that draw and of the method (0).
        update: photos may also be of classes that an earlier extension added; their rows are refined.
        old_images: a source (or a list of them) of images of the old classes: ``remember`` looks at them first, and the
            extension sees only what it kept.
        unlabelled: pictures whose class nobody knows, for methods that can use them.
        enrich: pictures to make of each class first, between its photos (``glico``; 0).
        strict: the first corrupt image is an error (it is skipped and counted).
        mean, std, size, resize, head: as in ``import_model``, for a network.
    """
    if isinstance(model, Bundle):
        return _extend_bundle(model, *given, **options)
    names, photos = given
    keys = ("mean", "std", "size", "resize", "head")
    imported = {key: options.pop(key) for key in keys if key in options}
    prepared = [value for value in photos.values() if isinstance(value, Tensor) and value.is_floating_point()]
    if prepared:
        side = int(prepared[0].shape[-1])
        imported |= {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0), "size": side, "resize": side}
    bundle = import_model(model, classes=names, **imported)
    return _extend_bundle(bundle, _in_memory(photos, bundle.preparation), **options).model.train(model.training)


def _in_memory(photos: Mapping[str, Pictures], preparation: Preparation) -> Images:
    classes = check_names(list(photos))
    stacks = []
    for name, pictures in zip(classes, photos.values(), strict=True):
        if isinstance(pictures, Tensor):
            stack = pictures if pictures.ndim == 4 else pictures[None]
            if not stack.is_floating_point() and stack.shape[-1] != preparation.resize:
                stack = torch.nn.functional.interpolate(
                    stack.float(), (preparation.resize, preparation.resize), mode="bicubic", antialias=True
                )
                stack = stack.round().clamp(0, 255).to(torch.uint8)
        else:
            stack = decode(open_files(list(pictures)), preparation.resize).pixels
        if not len(stack):
            raise InputError(f"The class '{name}' has no photo; give one at least.")
        stacks.append(stack)
    if len({(stack.dtype, *stack.shape[1:]) for stack in stacks}) > 1:
        raise InputError("The classes' tensors differ in type or size; give all photos in one form.")
    labels = torch.arange(len(stacks)).repeat_interleave(torch.tensor([len(stack) for stack in stacks]))
    return Images(torch.cat(stacks), labels, classes, preparation)


def _extend_bundle(
    bundle: Bundle,
    photos: Sources | Images,
    *,
    method: str = "auto",
    settings: Mapping[str, Any] | None = None,
    shots: int | None = None,
    seed: int = 0,
    old_images: Sources | Images | None = None,
    unlabelled: str | Path | Images | None = None,
    enrich: int = 0,
    update: bool = False,
    strict: bool = False,
    warn: Callable[[str], None] = lambda sentence: None,
) -> Bundle:
    started = time.perf_counter()
    if shots is not None and shots < 1:
        raise InputError(f"--shots is {shots}; one photo a class is the least.")
    if not 0 <= seed < 1 << 63:
        raise InputError(f"The seed is {seed}; it is a whole number from 0 to 2**63 - 1.")
    chosen, why = choose(method, bundle, old_images is not None)
    fields = {f.name for f in dataclasses.fields(catalogue.method_type(catalogue.entry(chosen, "extend")))}
    given = {**({"seed": seed} if fields & {"seed", "recipe"} else {}), **(settings or {})}
    extender = catalogue.extender(chosen, given)
    if unlabelled is not None and not extender.unlabelled:
        able = [e.name for e in catalogue.ENTRIES if getattr(catalogue.method_type(e), "unlabelled", False)]
        raise InputError(
            f"{chosen} cannot use unlabelled images; leave --unlabelled out, or choose a method that can: {', '.join(able)}."
        )
    if not isinstance(photos, Images):
        source = open_sources(photos)
        _refuse_known(bundle, source.classes, update)
        photos = images_of(source, bundle.preparation, strict=strict, warn=warn)
    again = _refuse_known(bundle, photos.classes, update)
    if shots is not None:
        for k, name in enumerate(photos.classes):
            count = int((photos.labels == k).sum())
            if count < shots:
                warn(f"The class '{name}' has {count} photos, fewer than the {shots} asked for; all are used.")
        photos = photos.shots(shots, seed)
    old = None if old_images is None else _known(bundle, old_images, strict, warn)
    free = None if unlabelled is None else unlabelled_images(bundle, unlabelled, strict=strict, warn=warn)
    if old is not None:
        memory = _look_back(bundle, chosen, extender, old, free)
    elif free is not None:  # of the old classes' images these alone may do
        memory = extender.remember(
            bundle.model, Task(bundle.classes, photos.subset(torch.arange(0)), free), memories.recall(bundle, chosen)
        )
    else:
        memory = memories.recall(bundle, chosen)
    if again:
        _refuse_unkept(memory, chosen, again)
    decoded = time.perf_counter()
    task = Task(photos.classes, photos, free)
    if enrich:
        task = enriched(task, enrich, bundle.model, catalogue.trainer("glico", {"seed": seed}))  # type: ignore[arg-type]
    grown = extender.extend(bundle.model, memory, task)
    held = _kept(bundle, chosen, grown, extender.remember(grown, task, memory), warn)
    seconds = {"decode": round(decoded - started, 3), "extend": round(time.perf_counter() - decoded, 3)}
    event = _event(
        "extend",
        _sentence(len(photos.classes) - len(again), len(again), chosen, len(photos)),
        method=chosen,
        why=why,
        settings=_settings_of(extender),
        classes=[name for name in photos.classes if name not in again],
        updated=list(again),
        photos=len(photos),
        shots=shots,
        enriched=enrich,
        seed=seed,
        bytes=held[chosen].content.nbytes if chosen in held else 0,
        seconds=seconds,
        **({"promise": promises.promise(bundle, grown, photos, old)} if bundle.classes else {}),
    )
    added = [name for name in photos.classes if name not in again]
    return bundle.then(grown, event, added or bundle.added, held)


def remember(
    bundle: Bundle,
    images: Sources | Images,
    method: str,
    settings: Mapping[str, Any] | None = None,
    *,
    strict: bool = False,
    warn: Callable[[str], None] = lambda sentence: None,
) -> Bundle:
    """Keep what the method needs of these images, of classes that the model has, for extensions when they are gone.

    What it kept of the same classes before is replaced; what it kept of others stays.
    """
    extender = catalogue.extender(method, settings)
    if extender.memory_type is None:
        raise InputError(f"The method {method} keeps nothing of old images; there is nothing to remember.")
    memory = _look_back(bundle, method, extender, _known(bundle, images, strict, warn))
    held = memories.kept(bundle, method, bundle.model, memory)
    size = held[method].content.nbytes if method in held else 0
    event = _event(
        "remember",
        f"{size:,} bytes kept by {method} ({extender.keeps})",
        method=method,
        settings=_settings_of(extender),
        bytes=size,
    )
    return bundle.then(bundle.model, event, bundle.added, held)


def _look_back(
    bundle: Bundle, method: str, extender: Extender, old: Images, free: Images | None = None
) -> object | None:
    """What the method keeps once it has seen these images of classes that the model has."""
    seen = tuple(name for k, name in enumerate(old.classes) if bool((old.labels == k).any()))
    try:
        before = packing.without(memories.recall(bundle, method), seen)
    except InputError:  # what was kept is of another body, and these images are to replace it
        before = None
    return extender.remember(bundle.model, Task(seen, old.of(seen), free), before)


def _known(bundle: Bundle, images: Sources | Images, strict: bool, warn: Callable[[str], None]) -> Images:
    """Images of classes that the model has."""
    return images if isinstance(images, Images) else labelled(bundle, [open_sources(images)], strict=strict, warn=warn)


def _kept(
    bundle: Bundle, method: str, grown: Classifier, memory: object | None, warn: Callable[[str], None]
) -> dict[str, Kept]:
    """All memories after an extension; says which are lost."""
    try:
        held = memories.kept(bundle, method, grown, memory)
    except InputError as error:
        warn(str(error))
        held = memories.kept(bundle, method, grown, None)
    for name in memories.lost(bundle, held):
        warn(f"What {name} kept belongs to the weights before this step and is dropped; undo brings it back.")
    return held


def choose(method: str, bundle: Bundle, old_images: bool) -> tuple[str, str]:
    """The method meant by a name, and why; ``auto`` picks on what is at hand (docs/choosing.md)."""
    if method != "auto":
        return method, "asked for"
    if old_images or "glne" in bundle.memories:
        return (
            "glne",
            "what is kept of the old classes is used, a few kilobytes a class, as good as their real features",
        )
    if bundle.memories:
        kept = list(bundle.memories)[-1]
        return kept, "it is what this model's memory was made for"
    if not plain(bundle.model.head):
        raise InputError(
            "The model's head is not made of plain rows and nothing is kept of its classes; name the method that made it,"
            " or give --old-images."
        )
    why = "no old image is at hand, and of the ways that need none it had the best harmonic mean from 1 to 20 photos a class"
    if len(bundle.classes) < FEW:
        why += f"; of so few classes ({len(bundle.classes)}) its picture is coarse: --old-images would keep them better"
    return "glne", why


def _refuse_known(bundle: Bundle, names: Sequence[str], update: bool = False) -> tuple[str, ...]:
    """Classes that the model has already, all of them added by an extension; with ``update`` these are welcome."""
    known = tuple(normal(name) for name in names if normal(name) in bundle.classes)
    added = {name for event in bundle.history if event["event"] == "extend" for name in event.get("classes", ())}
    refused = [name for name in known if not update or name not in added]
    if refused:
        more = f" and {len(refused) - 1} more of these" if len(refused) > 1 else ""
        remedy = "rename the folder, or remove the class from the model first"
        if update:
            remedy = "only classes that an extension added can be updated; rename the folder"
        elif refused[0] in added:
            remedy += ", or give --update to refine it"
        raise InputError(f"The model already has the class '{refused[0]}'{more}; {remedy}.")
    return known


def _refuse_unkept(memory: object | None, method: str, names: Sequence[str]) -> None:
    known = set(packing.words(memory))
    missing = [name for name in names if name not in known]
    if missing:
        raise InputError(
            f"{method} has kept nothing of the class '{missing[0]}' in this bundle, so it cannot be refined;"
            " use the method that added it, or remove the class and add it with all its photos."
        )


def _sentence(added: int, updated: int, method: str, photos: int) -> str:
    parts = [f"{added} classes added"] * (added > 0 or not updated) + [f"{updated} classes refined"] * (updated > 0)
    return f"{' and '.join(parts)} by {method} from {photos} photos"


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
        source, preparation.resize, strict=strict, progress=lambda done: tell("reading images", done, total)
    )
    _say_skipped(loaded.skipped, warn)
    labels = loaded.labels if source.classes else torch.zeros(len(loaded.pixels), dtype=torch.int64)
    return Images(loaded.pixels, labels, source.classes, preparation, loaded.names)


def _say_skipped(skipped: Sequence[str], warn: Callable[[str], None]) -> None:
    if skipped:
        more = f" ({len(skipped) - 1} more likewise)" if len(skipped) > 1 else ""
        warn(f"{len(skipped)} corrupt image{'s' * (len(skipped) > 1)} skipped: {skipped[0]}{more}")


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
        found = match(source.classes, bundle.classes)
        for sentence in found.warnings:
            warn(sentence)
        unknown = set(found.unknown)
        left_out = sum(source.classes[label] in unknown for label in source.labels)
        if unknown and not skip_unknown:
            shown = ", ".join(f"'{name}'" for name in found.unknown[:5]) + (" ..." if len(unknown) > 5 else "")
            raise InputError(
                f"The model does not have {len(unknown)} of the classes of these images: {shown};"
                " extend it first, or leave those images out with --skip-unknown."
            )
        if unknown:
            warn(f"{left_out} images of {len(unknown)} classes that the model does not have are left out.")
        for photo, label in zip(source.photos, source.labels, strict=True):
            name = source.classes[label]
            if name not in unknown:
                photos.append(photo)
                labels.append(found.found[name])
    if not photos:
        raise InputError("No image is left to look at: the model has none of their classes; check the names.")
    left = set(labels)
    for first, loaded in _decoded(photos, bundle.preparation.resize, strict, warn, chunk):
        kept = [labels[first + i] for i in loaded.kept]
        left -= set(kept)
        index = torch.tensor(kept, dtype=torch.int64)
        yield Images(loaded.pixels, index, bundle.classes, bundle.preparation, loaded.names)
    if left:
        name = bundle.classes[min(left)]
        raise InputError(f"The class '{name}' has no image left: none can be used; add some or leave its folder out.")


def _decoded(
    photos: Sequence[Photo], side: int, strict: bool, warn: Callable[[str], None], chunk: int = CHUNK
) -> Iterator[tuple[int, Loaded]]:
    """Photos without their labels, a bounded number at a time, each part with the place of its first."""
    skipped: list[str] = []
    for first in range(0, len(photos), chunk):
        part = Source((), tuple(photos[first : first + chunk]), ())
        try:
            loaded = load_within(part, side, strict=strict)
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


def logits_of(
    bundle: Bundle,
    sources: Sequence[str | Path | Source],
    *,
    skip_unknown: bool = False,
    strict: bool = False,
    warn: Callable[[str], None] = lambda sentence: None,
) -> tuple[Tensor, Tensor, list[str]]:
    """Logits (N, K), labels (N,) and names of labelled images, decoded and looked at a chunk at a time."""
    logits: list[Tensor] = []
    labels: list[Tensor] = []
    names: list[str] = []
    for images in chunks(bundle, sources, skip_unknown, strict, warn):
        logits.append(answers(bundle.model, images))
        labels.append(images.labels)
        names.extend(images.names)
    return torch.cat(logits), torch.cat(labels), names


def evaluate(
    bundle: Bundle,
    *sources: str | Path | Source,
    skip_unknown: bool = False,
    strict: bool = False,
    warn: Callable[[str], None] = lambda sentence: None,
) -> metrics.Evaluation:
    """Accuracy on labelled images, old and new classes apart, in the joint label space."""
    logits, labels, _ = logits_of(bundle, sources, skip_unknown=skip_unknown, strict=strict, warn=warn)
    return metrics.evaluation(logits, labels, bundle.classes, [bundle.classes.index(name) for name in bundle.added])


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
    files: Sequence[str | Path] | Images,
    top: int = 5,
    *,
    strict: bool = False,
    warn: Callable[[str], None] = lambda sentence: None,
) -> list[Prediction]:
    """Classes of pictures in files and flat folders, or of images that are decoded already."""
    found: list[Prediction] = []
    for images in [files] if isinstance(files, Images) else _unlabelled(bundle, open_files(files), strict, warn):
        logits = answers(bundle.model, images)
        best, scores = logits.softmax(1).topk(min(top, len(bundle.classes))), novelty.unknown(logits)
        columns = (images.names or ("",) * len(images), best.values.tolist(), best.indices.tolist(), scores.tolist())
        for name, values, places, unknown in zip(*columns, strict=True):
            found.append(Prediction(name, tuple(bundle.classes[k] for k in places), tuple(values), unknown))
    return found


def _unlabelled(bundle: Bundle, source: Source, strict: bool, warn: Callable[[str], None]) -> Iterator[Images]:
    for _, loaded in _decoded(source.photos, bundle.preparation.resize, strict, warn):
        labels = torch.zeros(len(loaded.names), dtype=torch.int64)
        yield Images(loaded.pixels, labels, bundle.classes, bundle.preparation, loaded.names)


def train(
    bundle: Bundle,
    images: Sources | Images,
    method: str = "plain",
    settings: Mapping[str, Any] | None = None,
    *,
    strict: bool = False,
    warn: Callable[[str], None] = lambda sentence: None,
) -> Bundle:
    """Train a bundle's model on labelled images of its classes."""
    trainer, known = catalogue.trainer(method, settings), _known(bundle, images, strict, warn)
    trained = trainer.train(bundle.model, known)
    sentence = f"trained by {method} on {len(known)} images"
    event = _event("train", sentence, method=method, settings=_settings_of(trainer))
    return _taught(bundle, trained, event)


def _taught(bundle: Bundle, model: Classifier, event: dict[str, Any]) -> Bundle:
    # what the steps before kept to be undone, and what methods keep, was beside other weights
    return dataclasses.replace(bundle, model=model, history=(*bundle.history, event), undone=(), memories={})


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
    if images is not None and not isinstance(images, Images):
        images = pictures(bundle, images, warn)
    return exporting.export(bundle, format, out, images)


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


def pictures(
    bundle: Bundle, where: str | Path, warn: Callable[[str], None] = lambda sentence: None, strict: bool = False
) -> Images:
    """Pictures whatever their classes, as the bundle's model takes them; their labels are all 0."""
    table = Path(where).suffix.lower() == ".parquet"
    source = dataclasses.replace(open_source(where), classes=(), labels=()) if table else open_files([where])
    loaded = load_within(source, bundle.preparation.resize, strict=strict)
    _say_skipped(loaded.skipped, warn)
    labels = torch.zeros(len(loaded.names), dtype=torch.int64)
    return Images(loaded.pixels, labels, bundle.classes, bundle.preparation, loaded.names)


def unlabelled_images(
    bundle: Bundle,
    source: str | Path | Images,
    *,
    strict: bool = False,
    warn: Callable[[str], None] = lambda sentence: None,
) -> Images:
    """Images whose labels nobody knows: files, folders of any form, or a table whose labels are not looked at."""
    images = source if isinstance(source, Images) else pictures(bundle, source, warn, strict)
    return dataclasses.replace(images, labels=torch.zeros_like(images.labels), classes=("",))


def undo(bundle: Bundle) -> Bundle:
    """The bundle before its last step."""
    return bundle.before()


def remove(bundle: Bundle, name: str) -> Bundle:
    """Without a class; the others keep their order and their numbers."""
    gone = bundle.classes[place(bundle, name)]
    if len(bundle.classes) == 1:
        raise InputError(f"'{gone}' is the model's only class; a classifier needs one at least.")
    event = _event("remove", f"the class '{gone}' was removed", classes=[gone])
    added = [kept for kept in bundle.added if kept != gone]
    return bundle.then(bundle.model.without([gone]), event, added, memories.rid(bundle, [gone]))


def rename(bundle: Bundle, old: str, new: str) -> Bundle:
    """With another name for a class; nothing else changes."""
    old = bundle.classes[place(bundle, old)]
    (new,) = check_names([new], "the new name")
    if new in bundle.classes:
        raise InputError(f"The model already has the class '{new}'; choose another name, or merge the two.")
    event = _event("rename", f"the class '{old}' was renamed '{new}'", classes=[old, new])
    added = [new if name == old else name for name in bundle.added]
    return bundle.then(renamed(bundle.model, old, new), event, added, memories.renamed(bundle.memories, old, new))


def merge(bundle: Bundle, first: str, second: str, name: str | None = None) -> Bundle:
    """With two classes made one, under the first's name (or ``name``) and in its place.

    Its softmax probability is the sum of theirs, and that of every other class stays what it was: what was taken for
    either is taken for it.
    """
    first, second = (bundle.classes[place(bundle, one)] for one in (first, second))
    if first == second:
        raise InputError(f"'{first}' is one class already; name two.")
    (name,) = check_names([first if name is None else name], "the new name")
    if name in bundle.classes and name not in (first, second):
        raise InputError(f"The model already has the class '{name}'; choose another name.")
    model = renamed(merged(bundle.model, first, second), first, name)
    event = _event("merge", f"the classes '{first}' and '{second}' were made one, '{name}'",
                   classes=[first, second, name])  # fmt: skip
    added = [name if one == first else one for one in bundle.added if one != second]
    return bundle.then(model, event, added, memories.renamed(memories.rid(bundle, [second]), first, name))


def _event(kind: str, sentence: str, **facts: Any) -> dict[str, Any]:
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M")
    return {"event": kind, "date": now, "sentence": sentence, **facts, "versions": versions()}


def _settings_of(method: object) -> dict[str, Any]:
    return {f.name: _plain(getattr(method, f.name)) for f in dataclasses.fields(method)}  # type: ignore[arg-type]


def _plain(value: Any) -> Any:
    return dataclasses.asdict(value) if dataclasses.is_dataclass(value) and not isinstance(value, type) else value


__all__ = [
    "Prediction",
    "check_place",
    "evaluate",
    "export",
    "extend",
    "import_model",
    "load",
    "logits_of",
    "merge",
    "predict",
    "remember",
    "remove",
    "rename",
    "save",
    "train",
    "undo",
    "verify",
]
