"""Classes added to a bundle, and what is kept of those that it has."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, overload

import torch
from torch import Tensor, nn

from classgraft import catalogue, detectors, memories, packing, promises
from classgraft.bundle import Bundle, Kept, grafted
from classgraft.choosing import choose, gently
from classgraft.data.boxes import Boxed
from classgraft.data.images import Images, Task
from classgraft.data.names import match, normal
from classgraft.data.probes import COUNT
from classgraft.data.sources import open_sources
from classgraft.errors import InputError
from classgraft.history import event_of, settings_of
from classgraft.importing import import_model
from classgraft.looking import Pictures, Sources, images_of, in_memory, known_images, new_images, unlabelled_images
from classgraft.models.classifier import Classifier
from classgraft.models.detector import Detector
from classgraft.selftrainers.pseudo_labels import named
from classgraft.trainers.glico import enriched, enriching
from classgraft.training.answers import answers
from classgraft.training.importance import Importance
from classgraft.training.journal import hangs_on, open_journal
from classgraft.verbs import Extender


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
        settings: fields of the method, such as {"views": 16}. Methods that teach a whole network by SGD (``wa``, ``icarl`` ...)
            take one that was trained elsewhere by ``choosing.TUNING`` unless these say ``lr`` or ``optimiser``.
        shots: photos to draw of each class (all).
        seed: of that draw and of the method (0).
        update: photos may also be of classes that an earlier extension added; their rows are refined.
        old_images: a source (or a list of them) of images of the old classes: ``remember`` looks at them first, and the
            extension sees only what it kept.
        unlabelled: pictures whose class nobody knows. A method that looks at such pictures itself (``mas``: at ones of
            the old classes) is given them; for any other, those that the grown model surely takes for one of the new
            classes count as photos of it, and the extension is done again.
        enrich: pictures to make of each class first, between its photos (``glico``; 0); none of a class with one photo.
        strict: the first corrupt image is an error (it is skipped and counted).
        mean, std, size, resize, stretched, head: as in ``import_model``, for a network.
    """
    if isinstance(model, Bundle):
        return _extend_bundle(model, *given, **options)
    if isinstance(model, Detector):
        return detectors.extend(model, *given, **options)
    names, photos = given
    keys = ("mean", "std", "size", "resize", "stretched", "head")
    imported = {key: options.pop(key) for key in keys if key in options}
    prepared = [value for value in photos.values() if isinstance(value, Tensor) and value.is_floating_point()]
    if prepared:
        side = int(prepared[0].shape[-1])
        imported |= {"mean": (0.0, 0.0, 0.0), "std": (1.0, 1.0, 1.0), "size": side, "resize": side}
    bundle = import_model(model, classes=names, **imported)
    told = {key: options[key] for key in ("strict", "warn") if key in options}
    taken = in_memory(photos, bundle.preparation, **told)
    return _extend_bundle(bundle, taken, **options).model.train(model.training)


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
    if not 0 <= seed < 1 << 32:
        raise InputError(f"The seed is {seed}; it is a whole number from 0 to 2**32 - 1.")
    chosen, why = choose(method, bundle, old_images is not None)
    extender = _seeded(chosen, gently("extend", chosen, bundle, settings), seed)
    if isinstance(photos, Images):
        photos = new_images(photos, bundle.preparation)
    else:
        source = open_sources(photos)
        _refuse_known(bundle, source.classes, update)
        photos = images_of(source, bundle.preparation, strict=strict, warn=warn)
    again = _refuse_known(bundle, photos.classes, update)
    if again and not extender.refines:
        raise InputError(
            f"{chosen} does not learn more of a class that it has added; remove '{again[0]}' and add it with all its photos, or"
            " choose another method, such as glne."
        )
    added = [name for name in photos.classes if name not in again]
    for name, place in match(added, bundle.classes).found.items():
        warn(f"'{name}' is added beside '{bundle.classes[place]}', which may be the same; remove it again if it is.")
    if shots is not None:
        photos = _drawn(photos, shots, seed, warn)
    old = None if old_images is None else known_images(bundle, old_images, strict, warn)
    if old is not None and extender.memory_type is None:
        warn(f"{chosen} keeps nothing of old images; those given are only what its change is measured on.")
    free = None if unlabelled is None else unlabelled_images(bundle, unlabelled, strict=strict, warn=warn)
    memory = _memory(bundle, chosen, extender, old, free, photos)
    if again:
        _refuse_unkept(memory, chosen, again)
    if open_journal() is not None:  # what is kept of the old classes, and pictures without labels, stay as they are
        with contextlib.suppress(InputError):  # of images that stream the old ones' own digest is enough
            kept = packing.packed(memory)
            hangs_on(kept.plain, dict(kept.tensors))
        hangs_on(*(images.fingerprint for images in (old, free) if images is not None))
    decoded = time.perf_counter()
    task = Task(photos.classes, photos, free)
    if enrich:
        if alone := [name for name, count in photos.counts.items() if count == 1]:
            warn(
                f"Of {_counted(len(alone), 'class', 'es')}, such as '{alone[0]}', there is one photo and nothing between it and"
                " another: no pictures are made; give two or more."
            )
        task = enriched(task, enrich, bundle.model, enriching(seed))
    grown, shown = extender.extend(bundle.model, memory, task), len(task.train)
    if free is not None and not extender.unlabelled:
        task = named(task, grown)
        if len(task.train) > shown:
            grown = extender.extend(bundle.model, memory, task)
    few = photos.some(COUNT, 0)  # on which its promise is looked at, too
    if not bool((answers(grown, few) < torch.inf).all()):  # finite weights may be too large
        raise InputError(f"What {chosen} learnt gives no numbers for its photos; lower its learning rate (lr).")
    own = dataclasses.replace(task, unlabelled=None) if extender.unlabelled else task  # those showed the old classes
    held = _kept(bundle, chosen, grown, extender.remember(grown, own, memory), warn)
    seconds = {"decode": round(decoded - started, 3), "extend": round(time.perf_counter() - decoded, 3)}
    event = event_of(
        "extend",
        _sentence(len(added), len(again), chosen, len(photos), len(task.train) - shown),
        method=chosen,
        why=why,
        settings=settings_of(extender),
        classes=added,
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
    return bundle.then(grown, event, added or bundle.added, held)


def _seeded(method: str, settings: Mapping[str, Any], seed: int) -> Extender:
    """The method; where it draws anything, by this seed unless its settings say another."""
    fields = {f.name for f in dataclasses.fields(catalogue.method_type(catalogue.entry(method, "extend")))}
    return catalogue.extender(method, {**({"seed": seed} if fields & {"seed", "recipe"} else {}), **settings})


def _drawn(photos: Images, shots: int, seed: int, warn: Callable[[str], None]) -> Images:
    for name, count in photos.counts.items():
        if count < shots:
            warn(f"The class '{name}' has {count} photos, fewer than the {shots} asked for; all are used.")
    return photos.shots(shots, seed)


def _memory(
    bundle: Bundle, method: str, extender: Extender, old: Images | None, free: Images | None, photos: Images
) -> object | None:
    """What the method keeps of the old classes, once it has looked at whatever is at hand of them."""
    if old is not None:
        return _look_back(bundle, method, extender, old, free)
    recalled = memories.recall(bundle, method)
    if free is None or not extender.unlabelled:
        return recalled
    none = photos.subset(torch.arange(0))  # of the old classes' images, those without labels alone may do
    return extender.remember(bundle.model, Task(bundle.classes, none, free), recalled)


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

    What it kept of the same classes before is replaced; what it kept of others stays. ``ewc`` and ``mas`` keep a sum, in
    which classes cannot be told apart: images of all the model's classes replace it, and those of some are added to it.
    """
    if method == "auto":
        method, _ = choose(method, bundle, old_images=True)
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
        before = None if set(seen) == set(bundle.classes) else memories.recall(bundle, method)
        if not isinstance(before, Importance):  # a sum, in which classes cannot be told apart
            before = packing.without(before, seen)
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


def _refuse_known(bundle: Bundle, names: Sequence[str], update: bool = False) -> tuple[str, ...]:
    """Classes that the model has already, all of them added by an extension; with ``update`` these are welcome."""
    known = tuple(normal(name) for name in names if normal(name) in bundle.classes)
    added = grafted(bundle)
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
    done = [f"{_counted(added, 'class', 'es')} added"] if added or not updated else []
    done += [f"{_counted(updated, 'class', 'es')} refined"] if updated else []
    more = f" and {named} that it named itself" if named else ""
    return f"{' and '.join(done)} by {method} from {_counted(photos, 'photo', 's')}{more}"


def _counted(count: int, thing: str, ending: str) -> str:
    return f"{count} {thing}{ending if count != 1 else ''}"
