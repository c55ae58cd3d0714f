"""What methods keep in a bundle: recalled for the body that it was made with, kept after a step, rid of a class."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from classgraft import catalogue, packing
from classgraft.bundle import Bundle, Kept
from classgraft.errors import InputError
from classgraft.models.classifier import Classifier
from classgraft.packing import packed, unpacked, without
from classgraft.training.carries import digest
from classgraft.verbs import Extender


def recall(bundle: Bundle, method: str) -> object | None:
    """What the method kept in this bundle, None where it kept nothing.

    Raises:
        InputError: it was made with another body, or is damaged.
    """
    kept = bundle.memories.get(method)
    if kept is None:
        return None
    if kept.body != digest(bundle.model.body):
        raise InputError(
            f"What {method} keeps in this bundle was made with other weights, so its numbers mean nothing now;"
            f" undo what changed them, or run remember --method {method} on the old images."
        )
    return _opened(method, kept)


def _opened(method: str, kept: Kept) -> object:
    kind = _type(method).memory_type
    try:
        if kind is None:
            raise ValueError(f"{method} keeps nothing")
        return unpacked(kind, kept.content)  # type: ignore[no-any-return]
    except ValueError as error:
        raise InputError(
            f"What {method} keeps in this bundle is damaged ({error}); restore the bundle, or run remember again."
        ) from error


def _type(method: str) -> type[Extender]:
    return catalogue.method_type(catalogue.entry(method, "extend"))


def kept(bundle: Bundle, method: str, model: Classifier, memory: object | None) -> dict[str, Kept]:
    """All memories once this method holds ``memory`` for ``model``; those made with another body than the model's go.

    Raises:
        InputError: it holds images that stream from the disk.
    """
    body = digest(model.body)
    memories = {name: held for name, held in bundle.memories.items() if held.body == body and name != method}
    return memories if memory is None else {**memories, method: Kept(body, packed(memory))}


def lost(bundle: Bundle, memories: Mapping[str, Kept]) -> list[str]:
    """Methods whose memory is no longer there."""
    return [name for name in bundle.memories if name not in memories]


def rid(bundle: Bundle, names: Sequence[str]) -> dict[str, Kept]:
    """All memories without what they hold of these classes."""
    return {
        method: replace(held, content=packed(without(_opened(method, held), names)))
        for method, held in bundle.memories.items()
    }


def merged(bundle: Bundle, first: str, second: str) -> dict[str, Kept]:
    """All memories once the second class counts as the first: of images all, of statistics those of the first."""
    return {
        method: replace(held, content=packed(packing.merged(_opened(method, held), first, second)))
        for method, held in bundle.memories.items()
    }


def renamed(memories: Mapping[str, Kept], old: str, new: str) -> dict[str, Kept]:
    """All memories with another name for a class."""
    return {
        method: replace(held, content=packed(packing.renamed(_opened(method, held), old, new)))
        for method, held in memories.items()
    }
