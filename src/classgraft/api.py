"""Every command as a function, for Python.

The command line does nothing that is not here.
"""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, overload

import torch
from torch import Tensor, nn

from classgraft import catalogue, detectors, exporting, memories, metrics, novelty, packing, promises
from classgraft.bundle import CODE, Bundle, Kept
from classgraft.card import promised_by
from classgraft.data.boxes import Boxed
from classgraft.data.images import Images, Task
from classgraft.data.names import check_names, normal, read_names
from classgraft.data.sources import Source, open_files, open_sources
from classgraft.data.sources import load as decode
from classgraft.editing import merge, remove, rename, undo
from classgraft.errors import InputError
from classgraft.folder import check_place, load, save
from classgraft.history import event_of, settings_of
from classgraft.looking import Sources, chunks, decoded, images_of, known_images, labelled, pictures, unlabelled_images
from classgraft.models.classifier import Classifier
from classgraft.models.cut import cut, head_name, prove
from classgraft.models.detector import Detector
from classgraft.models.heads import plain
from classgraft.models.preparation import Preparation, usual_resize
from classgraft.models.sources import Architecture, load_weights, read_weights
from classgraft.models.wrapped import Beside, Logits, wrapped
from classgraft.selftrainers.pseudo_labels import named
from classgraft.trainers.glico import enriched
from classgraft.training.answers import answers
from classgraft.verbs import Extender

FEW = 100
"""Classes, below which the head alone says too little of its classes (docs/choosing.md)."""
Pictures = Sequence[str | Path] | Tensor
"""Files of one class, or their pixels: uint8 (N, 3, H, W), or floats as the network takes them."""


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
    event = event_of("import", f"imported from {architecture.source}", classes=len(names))
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
def extend(model: Detector, photos: Boxed, /, **options: Any) -> Detector: ...
@overload
def extend(model: nn.Module, names: Sequence[str], photos: Mapping[str, Pictures], /, **options: Any) -> Classifier: ...
def extend(model: Bundle | nn.Module, /, *given: Any, **options: Any) -> Bundle | Classifier | Detector:
    """Add classes from a few photos.

    ``extend(bundle, photos)`` takes a folder with one folder a class, a parquet file, ``hf:ID``,
    ``torchvision:NAME``, or a list of these, and returns a bundle.
    ``extend(network, names, {"foxglove": photos})`` takes any network with a linear head, in memory, and returns a
    classifier that stands where the network stood. Photos are files, uint8 pixels, or floats as the network takes them.
    ``extend(detector, images)`` takes a detector and images with boxes; ``classgraft.detectors`` says with what options.

    Options:
        method: a name from ``classgraft methods`` (auto).
        settings: fields of the method, such as {"views": 16}.
        shots: photos to draw of each class (all).
        seed: of that draw and of the method (0).
        update: photos may also be of classes that an earlier extension added; their rows are refined.
        old_images: a source (or a list of them) of images of the old classes: ``remember`` looks at them first, and the
            extension sees only what it kept.
        unlabelled: pictures whose class nobody knows. A method that looks at such pictures itself (``mas``: at ones of
            the old classes) is given them; for any other, those that the grown model surely takes for one of the new
            classes count as photos of it, and the extension is done again.
        enrich: pictures to make of each class first, between its photos (``glico``; 0).
        strict: the first corrupt image is an error (it is skipped and counted).
        mean, std, size, resize, head: as in ``import_model``, for a network.
    """
    if isinstance(model, Bundle):
        return _extend_bundle(model, *given, **options)
    if isinstance(model, Detector):
        return detectors.extend(model, *given, **options)
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
    for name, own in zip(classes, photos.values(), strict=True):
        if isinstance(own, Tensor):
            stack = own if own.ndim == 4 else own[None]
            if not stack.is_floating_point() and stack.shape[-1] != preparation.resize:
                stack = torch.nn.functional.interpolate(
                    stack.float(), (preparation.resize, preparation.resize), mode="bicubic", antialias=True
                )
                stack = stack.round().clamp(0, 255).to(torch.uint8)
        else:
            stack = decode(open_files(list(own)), preparation.resize).pixels
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
    old = None if old_images is None else known_images(bundle, old_images, strict, warn)
    free = None if unlabelled is None else unlabelled_images(bundle, unlabelled, strict=strict, warn=warn)
    if old is not None:
        memory = _look_back(bundle, chosen, extender, old, free)
    elif free is not None and extender.unlabelled:  # of the old classes' images these alone may do
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
    grown, shown = extender.extend(bundle.model, memory, task), len(task.train)
    if free is not None and not extender.unlabelled:
        task = named(task, grown)
        if len(task.train) > shown:
            grown = extender.extend(bundle.model, memory, task)
    held = _kept(bundle, chosen, grown, extender.remember(grown, task, memory), warn)
    seconds = {"decode": round(decoded - started, 3), "extend": round(time.perf_counter() - decoded, 3)}
    event = event_of(
        "extend",
        _sentence(len(photos.classes) - len(again), len(again), chosen, len(photos), len(task.train) - shown),
        method=chosen,
        why=why,
        settings=settings_of(extender),
        classes=[name for name in photos.classes if name not in again],
        updated=list(again),
        photos=len(photos),
        shots=shots,
        enriched=enrich,
        named=len(task.train) - shown,
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
    memory = _look_back(bundle, method, extender, known_images(bundle, images, strict, warn))
    held = memories.kept(bundle, method, bundle.model, memory)
    size = held[method].content.nbytes if method in held else 0
    event = event_of(
        "remember",
        f"{size:,} bytes kept by {method} ({extender.keeps})",
        method=method,
        settings=settings_of(extender),
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


def _sentence(added: int, updated: int, method: str, photos: int, named: int) -> str:
    parts = [f"{added} classes added"] * (added > 0 or not updated) + [f"{updated} classes refined"] * (updated > 0)
    more = f" and {named} that it named itself" if named else ""
    return f"{' and '.join(parts)} by {method} from {photos} photos{more}"


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
    for _, loaded in decoded(source.photos, bundle.preparation.resize, strict, warn):
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
    trainer, known = catalogue.trainer(method, settings), known_images(bundle, images, strict, warn)
    trained = trainer.train(bundle.model, known)
    sentence = f"trained by {method} on {len(known)} images"
    event = event_of("train", sentence, method=method, settings=settings_of(trainer))
    return bundle.taught(trained, event)


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
    "train",
    "undo",
    "unlabelled_images",
    "verify",
]
