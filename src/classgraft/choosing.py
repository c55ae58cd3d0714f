"""The method that ``auto`` stands for, by what is at hand."""

from __future__ import annotations

from classgraft import packing
from classgraft.bundle import Bundle
from classgraft.errors import InputError
from classgraft.models.heads import plain

FEW = 100
"""Classes, below which the head alone says too little of its classes (docs/choosing.md)."""


def choose(method: str, bundle: Bundle, old_images: bool) -> tuple[str, str]:
    """The method meant by a name, and why; ``auto`` picks on what is at hand (docs/choosing.md)."""
    if method != "auto":
        return method, "chosen by name"
    held = bundle.memories.get("glne")
    known = len(set(bundle.classes) & set(packing.words(held.content.plain))) if held else 0
    if held and not old_images and known < len(bundle.classes):
        return "glne", f"something is kept of {known} of {len(bundle.classes)} classes; of the others the head tells"
    if old_images or held:
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
    why = (
        "no old image is at hand, and of the ways that need none it had the best harmonic mean on ten flowers, from 1 to 20"
        " photos a class"
    )
    if len(bundle.classes) < FEW:
        why += f"; of so few classes ({len(bundle.classes)}) its picture is coarse: --old-images would keep them better"
    return "glne", why
