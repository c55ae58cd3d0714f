"""What nobody asked for by name: the method that ``auto`` stands for, and how fast trained weights learn."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from classgraft import catalogue, packing
from classgraft.bundle import Bundle
from classgraft.errors import InputError
from classgraft.models.classifier import folded, untrained
from classgraft.models.heads import plain

FEW = 100
"""Classes, below which the head alone says too little of its classes (docs/choosing.md)."""

TUNING: Mapping[str, Any] = {"optimiser": "adamw", "lr": 5e-4, "weight_decay": 0.01}
"""How weights learn on that were trained elsewhere, unless a rate is asked for. Rates for fresh weights undo them: of ten
flowers (development, ten photos each, 128 pixels) an ImageNet MobileNetV2 knows 24 % with SGD at 0.1, 56 at 0.01 and 62 at
0.003, and 77 with AdamW at 2e-4 and 81 at 5e-4. Small networks that SGD taught from fresh weights learn on better by SGD:
beside 100 labelled digits a ResNet-8 of 71 % comes to 92 % by fixmatch, and to 81 with AdamW."""
UNEVENED = 2e-4
"""The rate where no batch norm evens out what a step does, as in transformers or where it was folded: there that MobileNetV2
knows 83 (85 at 5e-4; with three photos 69 and 58), and SGD leaves chance even at 0.001. From five photos and 65 %, five epochs
of fixmatch (ratio 2, batches of 32) come to 67, ten to 74; at 5e-4, five to 47."""


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


def gently(verb: str, method: str, bundle: Bundle, asked: Mapping[str, Any] | None) -> Mapping[str, Any]:
    """A method's settings: what was asked for, over ``TUNING`` where weights that were trained elsewhere are to learn at once
    by the rate for fresh ones, of SGD, and nothing says how fast."""
    asked = asked or {}
    usual = getattr(catalogue.method_type(catalogue.entry(method, verb)), "recipe", None)
    if usual is None or usual.optimiser != "sgd" or {"lr", "optimiser"} & asked.keys() or untrained(bundle.model.body):
        return asked
    steps = [event for event in bundle.history if event["event"] in ("train", "self-train", "distill")]
    here = bool(steps) and steps[-1].get("settings", {}).get("recipe", {}).get("optimiser") == "sgd"
    if here or asked.get("linear_probe") == 1:  # the head alone, whose weights are fresh
        return asked
    norms = [part for part in bundle.model.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]
    evened = any(not folded(norm) for norm in norms)
    return {**TUNING, **({} if evened else {"lr": UNEVENED}), **asked}
