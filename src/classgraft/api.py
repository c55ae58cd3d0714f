"""Every command as a function, for Python.

The command line does nothing that is not here.
"""

from __future__ import annotations

import dataclasses
import datetime
import platform
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, overload

import torch
from torch import Tensor, nn

from classgraft import catalogue, metrics
from classgraft.bundle import CODE, Bundle, check_place, load, place, save
from classgraft.data.images import Images, Task
from classgraft.data.names import check_names, match, normal, read_names
from classgraft.data.sources import Loaded, Photo, Source, open_files, open_source
from classgraft.data.sources import load as decode
from classgraft.data.streaming import load_within
from classgraft.errors import InputError
from classgraft.models.classifier import Classifier
from classgraft.models.cut import cut, head_name, joined, prove
from classgraft.models.preparation import Preparation, usual_resize
from classgraft.models.sources import Architecture, load_weights, read_weights
from classgraft.trainers.glico import enriched
from classgraft.training.answers import answers
from classgraft.training.loop import report as tell

CHUNK = 1024
"""Images decoded at a time where they are looked at once."""

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
        source: ``timm:NAME``, ``cifar:NAME``, or a network.
        weights: a ``.safetensors`` or torch file; None for a network that has its weights.
        classes: names in head order, or a file with one a line.
        arguments: for the network's constructor.
        head: the name of the layer that gives the logits, where it cannot be found.
        mean: of the pixels that the network was trained on, in 0..1; else the source's own.
        std: likewise.
        size: side of the square that the network sees; else the source's own.
        resize: short side before the centre crop; else size / 0.875 from 96 pixels up, else size.

    Raises:
        InputError: whatever does not fit, and what to do.
    """
    if classes is None:
        raise InputError("The class names are missing; give a file with one name a line, in the order of the head.")
    names = read_names(Path(classes)) if isinstance(classes, str | Path) else check_names(classes)
    if isinstance(source, nn.Module):
        architecture, network = Architecture(f"{CODE}:{type(source).__name__}"), source
        stated = _stated_preparation(source)
    else:
        architecture = Architecture(source, dict(arguments or {}))
        network = architecture.build(len(names))
        stated = architecture.preparation()
        if weights is None:
            raise InputError(f"The weights of {source} are missing; give a .safetensors or torch file with --weights.")
    if weights is not None:
        load_weights(network, read_weights(Path(weights)), f"{architecture.source} with {len(names)} classes")
    side = stated.size if size is None else size
    short = resize if resize is not None else usual_resize(side) if size is not None else stated.resize
    preparation = Preparation(side, short, mean or stated.mean, std or stated.std)
    name = head or head_name(network, len(names))
    model = cut(network, names, name).eval()
    prove(network, model, side)
    event = _event("import", f"imported from {architecture.source}", classes=len(names))
    return Bundle(model, architecture, name, preparation, history=(event,))


def start(
    source: str,
    classes: Sequence[str],
    weights: str | Path | None = None,
    *,
    arguments: Mapping[str, Any] | None = None,
    preparation: Preparation | None = None,
    size: int | None = None,
    seed: int = 0,
) -> Bundle:
    """A classifier of these classes that is still to be trained: fresh, or a trained body under a fresh head.

    Args:
        source: ``timm:NAME`` or ``cifar:NAME``.
        classes: names in head order.
        weights: a ``.safetensors`` or torch file of the network as it was trained, with whatever head.
        arguments: for the network's constructor.
        preparation: of its images; else the source's own.
        size: side of the square that the network sees, where no preparation is given.
        seed: of fresh weights.

    Raises:
        InputError: whatever does not fit, and what to do.
    """
    names = check_names(list(classes))
    architecture = Architecture(source, dict(arguments or {}))
    stated = architecture.preparation()
    if size is not None:
        stated = Preparation(size, usual_resize(size), stated.mean, stated.std)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = architecture.build(len(names))
        head = head_name(network, len(names))
        model = cut(network, names, head).eval()
        if weights is not None:
            tensors = read_weights(Path(weights))
            rows = len(tensors[f"{head}.weight"]) if f"{head}.weight" in tensors else len(names)
            trained = architecture.build(rows)
            load_weights(trained, tensors, f"{source} with {rows} outputs")
            model = cut(trained, [str(k) for k in range(rows)], head).eval().headed(model.head.parts, names)
            network = joined(model, head)
    preparation = preparation or stated
    prove(network, model, preparation.size)
    event = _event("start", f"started from {source}{' and its weights' if weights else ''}", classes=len(names))
    return Bundle(model, architecture, head, preparation, history=(event,))


def _stated_preparation(network: nn.Module) -> Preparation:
    config = getattr(network, "pretrained_cfg", None)
    if not isinstance(config, Mapping) or "input_size" not in config:
        return Preparation()
    side = int(config["input_size"][-1])
    short = int(side / float(config.get("crop_pct", 0.875))) if side >= 96 else side
    return Preparation(side, max(side, short), tuple(config["mean"]), tuple(config["std"]))


@overload
def extend(model: Bundle, photos: str | Path | Source | Images, /, **options: Any) -> Bundle: ...
@overload
def extend(model: nn.Module, names: Sequence[str], photos: Mapping[str, Pictures], /, **options: Any) -> Classifier: ...
def extend(model: Bundle | nn.Module, /, *given: Any, **options: Any) -> Bundle | Classifier:
    """Add classes from a few photos.

    ``extend(bundle, photos)`` takes a folder with one folder a class (or a parquet file) and returns a bundle.
    ``extend(network, names, {"foxglove": photos})`` takes any network with a linear head, in memory, and returns a
    classifier that stands where the network stood. Photos are files, uint8 pixels, or floats as the network takes them.

    Options:
        method: a name from ``classgraft methods`` (auto).
        settings: fields of the method, such as {"views": 16}.
        shots: photos to draw of each class (all).
        seed: of that draw and of the method (0).
        old_images: a source of images of the old classes, for methods that can use them.
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
    photos: str | Path | Source | Images,
    *,
    method: str = "auto",
    settings: Mapping[str, Any] | None = None,
    shots: int | None = None,
    seed: int = 0,
    old_images: str | Path | Source | Images | None = None,
    unlabelled: str | Path | Images | None = None,
    enrich: int = 0,
    strict: bool = False,
    warn: Callable[[str], None] = lambda sentence: None,
) -> Bundle:
    started = time.perf_counter()
    if shots is not None and shots < 1:
        raise InputError(f"--shots is {shots}; one photo a class is the least.")
    if not 0 <= seed < 1 << 63:
        raise InputError(f"The seed is {seed}; it is a whole number from 0 to 2**63 - 1.")
    chosen, why = choose(method, old_images is not None)
    fields = {f.name for f in dataclasses.fields(catalogue.method_type(catalogue.entry(chosen, "extend")))}
    given = {**({"seed": seed} if fields & {"seed", "recipe"} else {}), **(settings or {})}
    extender = catalogue.extender(chosen, given)
    if unlabelled is not None and not extender.unlabelled:
        able = [e.name for e in catalogue.ENTRIES if getattr(catalogue.method_type(e), "unlabelled", False)]
        raise InputError(
            f"{chosen} cannot use unlabelled images; leave --unlabelled out, or choose a method that can: {', '.join(able)}."
        )
    if not isinstance(photos, Images):
        source = photos if isinstance(photos, Source) else open_source(photos)
        _refuse_known(bundle, source.classes)
        photos = images_of(source, bundle.preparation, strict=strict, warn=warn)
    _refuse_known(bundle, photos.classes)
    if shots is not None:
        for k, name in enumerate(photos.classes):
            count = int((photos.labels == k).sum())
            if count < shots:
                warn(f"The class '{name}' has {count} photos, fewer than the {shots} asked for; all are used.")
        photos = photos.shots(shots, seed)
    free = None if unlabelled is None else unlabelled_images(bundle, unlabelled, strict=strict, warn=warn)
    memory = None
    if old_images is not None or free is not None:
        old = photos.subset(torch.arange(0))  # unlabelled images alone may do
        if old_images is not None:
            given_old = isinstance(old_images, Images)
            old = old_images if given_old else labelled(bundle, [old_images], strict=strict, warn=warn)  # type: ignore[assignment, list-item]
        memory = extender.remember(bundle.model, Task(bundle.classes, old, free), None)
    decoded = time.perf_counter()
    task = Task(photos.classes, photos, free)
    if enrich:
        glico = catalogue.trainer("glico", {"seed": seed})
        task = enriched(task, enrich, bundle.model, glico)  # type: ignore[arg-type]
    grown = extender.extend(bundle.model, memory, task)
    event = _event(
        "extend",
        f"{len(photos.classes)} classes added by {chosen} from {len(photos)} photos",
        method=chosen,
        why=why,
        settings=_fields(extender),
        classes=list(photos.classes),
        photos=len(photos),
        shots=shots,
        enriched=enrich,
        seed=seed,
        seconds={"decode": round(decoded - started, 3), "extend": round(time.perf_counter() - decoded, 3)},
    )
    return bundle.then(grown, event, photos.classes)


def choose(method: str, old_images: bool) -> tuple[str, str]:
    """The method meant by a name, and why; ``auto`` picks on what is at hand."""
    if method != "auto":
        return method, "asked for"
    seen = "; the old images are not needed for it" if old_images else ""
    return "glne", f"it needs no old image and had the best harmonic mean from 1 to 20 photos a class{seen}"


def _refuse_known(bundle: Bundle, names: Sequence[str]) -> None:
    known = [name for name in names if normal(name) in bundle.classes]
    if known:
        raise InputError(
            f"The model already has the class '{known[0]}'{f' and {len(known) - 1} more of these' if len(known) > 1 else ''};"
            " rename the folder, or remove the class from the model first."
        )


def images_of(
    source: Source,
    preparation: Preparation,
    *,
    strict: bool = False,
    warn: Callable[[str], None] = lambda sentence: None,
) -> Images:
    """All photos of a labelled source, decoded; skipped ones are warned about."""
    total = len(source.photos)
    loaded = load_within(
        source, preparation.resize, strict=strict, progress=lambda done: tell("reading images", done, total)
    )
    _say_skipped(loaded.skipped, warn)
    return Images(loaded.pixels, loaded.labels, source.classes, preparation, loaded.names)


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


def unlabelled_images(
    bundle: Bundle,
    source: str | Path | Images,
    *,
    strict: bool = False,
    warn: Callable[[str], None] = lambda sentence: None,
) -> Images:
    """Images whose labels nobody knows: files, folders of any form, or a table whose labels are not looked at."""
    if isinstance(source, Images):
        return dataclasses.replace(source, labels=torch.zeros_like(source.labels), classes=("",))
    table = Path(source).suffix.lower() == ".parquet"
    opened = dataclasses.replace(open_source(source), classes=(), labels=()) if table else open_files([source])
    loaded = load_within(opened, bundle.preparation.resize, strict=strict)
    _say_skipped(loaded.skipped, warn)
    labels = torch.zeros(len(loaded.names), dtype=torch.int64)
    return Images(loaded.pixels, labels, ("",), bundle.preparation, loaded.names)


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


def predict(
    bundle: Bundle,
    files: Sequence[str | Path],
    top: int = 5,
    *,
    strict: bool = False,
    warn: Callable[[str], None] = lambda sentence: None,
) -> list[Prediction]:
    """Classes of pictures in files and flat folders."""
    source = open_files(list(files))
    found: list[Prediction] = []
    for _, loaded in _decoded(source.photos, bundle.preparation.resize, strict, warn):
        labels = torch.zeros(len(loaded.names), dtype=torch.int64)
        images = Images(loaded.pixels, labels, bundle.classes, bundle.preparation, loaded.names)
        best = answers(bundle.model, images).softmax(1).topk(min(top, len(bundle.classes)))
        for name, values, places in zip(loaded.names, best.values.tolist(), best.indices.tolist(), strict=True):
            found.append(Prediction(name, tuple(bundle.classes[k] for k in places), tuple(values)))
    return found


def train(
    bundle: Bundle,
    images: str | Path | Source | Images,
    method: str = "plain",
    settings: Mapping[str, Any] | None = None,
    *,
    strict: bool = False,
    warn: Callable[[str], None] = lambda sentence: None,
) -> Bundle:
    """Train a bundle's model on labelled images of its classes."""
    trainer = catalogue.trainer(method, settings)
    known = images if isinstance(images, Images) else labelled(bundle, [images], strict=strict, warn=warn)
    trained = trainer.train(bundle.model, known)
    event = _event("train", f"trained by {method} on {len(known)} images", method=method, settings=_fields(trainer))
    return _taught(bundle, trained, event)


def self_train(
    bundle: Bundle,
    images: str | Path | Source | Images,
    unlabelled: str | Path | Images,
    method: str = "pseudo-labels",
    settings: Mapping[str, Any] | None = None,
    *,
    student: Bundle | None = None,
    strict: bool = False,
    warn: Callable[[str], None] = lambda sentence: None,
) -> Bundle:
    """Train a student on labelled and on unlabelled images, with the bundle's model as its teacher.

    The student is ``student`` (``start(source, bundle.classes, preparation=bundle.preparation)``), else the bundle's model.

    Raises:
        InputError: the student has other classes or takes its images prepared in another way.
    """
    selftrainer, pupil = catalogue.selftrainer(method, settings), student or bundle
    if pupil.classes != bundle.classes or pupil.preparation != bundle.preparation:
        raise InputError("The student's classes and preparation differ from the model's; start it with those.")
    known = images if isinstance(images, Images) else labelled(bundle, [images], strict=strict, warn=warn)
    free = unlabelled_images(bundle, unlabelled, strict=strict, warn=warn)
    trained = selftrainer.train(bundle.model, pupil.model, known, free)
    sentence = f"trained by {method} on {len(known)} labelled and {len(free)} unlabelled images"
    event = _event(
        "self-train", sentence, method=method, settings=_fields(selftrainer), source=pupil.architecture.source
    )
    return _taught(dataclasses.replace(pupil, history=bundle.history), trained, event)


def _taught(bundle: Bundle, model: Classifier, event: dict[str, Any]) -> Bundle:
    # what the steps before kept to be undone was beside other weights
    return dataclasses.replace(bundle, model=model, history=(*bundle.history, event), undone=())


def _fields(method: object) -> dict[str, Any]:
    return {f.name: _plain(getattr(method, f.name)) for f in dataclasses.fields(method)}  # type: ignore[arg-type]


def undo(bundle: Bundle) -> Bundle:
    """The bundle before its last step."""
    return bundle.before()


def remove(bundle: Bundle, name: str) -> Bundle:
    """Without a class; the others keep their order and their numbers."""
    gone = bundle.classes[place(bundle, name)]
    if len(bundle.classes) == 1:
        raise InputError(f"'{gone}' is the model's only class; a classifier needs one at least.")
    event = _event("remove", f"the class '{gone}' was removed", classes=[gone])
    return bundle.then(bundle.model.without([gone]), event, [kept for kept in bundle.added if kept != gone])


def _event(kind: str, sentence: str, **facts: Any) -> dict[str, Any]:
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M")
    return {"event": kind, "date": now, "sentence": sentence, **facts, "versions": versions()}


def _plain(value: Any) -> Any:
    return dataclasses.asdict(value) if dataclasses.is_dataclass(value) and not isinstance(value, type) else value


__all__ = [
    "Prediction",
    "check_place",
    "evaluate",
    "extend",
    "import_model",
    "load",
    "logits_of",
    "predict",
    "remove",
    "save",
    "self_train",
    "start",
    "train",
    "undo",
]
