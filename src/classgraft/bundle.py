"""The bundle: a model with its class names, preprocessing, memory and history, and the steps that can be undone.

Its configuration carries timm's keys where the network is a plain timm one. Nothing in it is code and no import string is
read from it; ``folder`` writes and reads it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from classgraft.data.names import check_names, normal
from classgraft.errors import InputError, nearest
from classgraft.models import heads, kinds, structure
from classgraft.models.classifier import Classifier, Head, linear
from classgraft.models.cut import headless
from classgraft.models.preparation import Preparation
from classgraft.models.sources import Architecture, load_weights
from classgraft.packing import Packed

FORMAT = 1
MEMORY = "memory:"
"""In front of a memory's tensors where they stand beside the network's."""
CODE = "python"
"""The source of a network that was given as an object: such a bundle needs that object's code to be loaded."""


@dataclass(frozen=True)
class Kept:
    """What a method keeps of the classes, beside the model."""

    body: str
    """Fingerprint of the body that it was made with; features of another are not comparable."""
    content: Packed


@dataclass(frozen=True)
class Bundle:
    """A model and all that is needed to use it and to grow it again."""

    model: Classifier
    architecture: Architecture
    head: str
    """Where the head sits in the plain network."""
    preparation: Preparation
    added: tuple[str, ...] = ()
    """Classes that the last extension added."""
    history: tuple[dict[str, Any], ...] = ()
    """What was done, oldest first."""
    memories: Mapping[str, Kept] = field(default_factory=dict, repr=False)
    """What ``remember`` kept, by method."""
    undone: tuple[tuple[dict[str, Any], dict[str, Tensor]], ...] = field(default=(), repr=False)
    """For each step that can be undone, oldest first: the configuration before it and the tensors that it changed."""

    @property
    def classes(self) -> tuple[str, ...]:
        return self.model.classes

    def then(
        self, model: Classifier, event: dict[str, Any], added: Sequence[str], memories: Mapping[str, Kept]
    ) -> Bundle:
        """The bundle after a step that can be undone."""
        after = replace(self, model=model, added=tuple(added), memories=memories, history=(*self.history, event))
        before = (
            {**configuration(self), "memory": memory_plain(self)},
            _changed(_all(self), _all(after), f"{self.head}.blocks."),
        )
        return replace(after, undone=(*self.undone, before))

    def taught(self, model: Classifier, event: dict[str, Any]) -> Bundle:
        """After a step that taught the model anew: what was kept to undo steps, and by methods, was beside other weights."""
        return replace(self, model=model, history=(*self.history, event), undone=(), memories={})

    def before(self) -> Bundle:
        """The bundle before its last step.

        Raises:
            InputError: when there is nothing to undo.
        """
        if not self.undone:
            raise InputError(
                "There is nothing to undo: this model has not been changed since it was imported or trained."
            )
        config, changed = self.undone[-1]
        with damaged("The record of the step before"):
            tensors = {**_all(self), **changed}
            memories = memories_of(config.get("memory", {}), tensors)
            tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith(MEMORY)}
            plain = structure.plain(self.model.body)
            body = kinds.build(config["graft"].get("body", structure.PLAIN), plain)
            for name in self.model.body.state_dict().keys() - body.state_dict().keys():
                del tensors[name]  # of a structure that the step added
            tensors = _head_of(config["graft"], tensors)
            earlier = assembled(config, tensors, plain, "the step before")
        return replace(earlier, memories=memories, history=self.history[:-1], undone=self.undone[:-1])


def grafted(bundle: Bundle) -> tuple[str, ...]:
    """The classes that extensions added, by their present names and in the order of the head."""
    names: set[str] = set()
    for event in bundle.history:
        given = event.get("classes", ())
        match event["event"], given:
            case "extend", _:
                names |= set(given)
            case "rename", [old, new] if old in names:
                names = names - {old} | {new}
            case "merge", [first, second, new]:
                both = {first, second} <= names  # with one that was always there it is not the extension's alone
                names = names - {first, second} | ({new} if both else set())
            case "remove", [gone]:
                names -= {gone}
    return tuple(name for name in bundle.classes if name in names)


def became(bundle: Bundle, name: str) -> str | None:
    """What a class is called since it was renamed or made one with another; None where neither happened."""
    before = now = normal(name)
    for event in bundle.history:
        if event["event"] in ("rename", "merge") and now in event["classes"][:-1]:
            now = event["classes"][-1]
    return now if now != before and now in bundle.classes else None


def place(bundle: Bundle, name: str) -> int:
    """The place of a class by its exact name; else an InputError that says what it is by now, or suggests the nearest."""
    name = normal(name)
    if name not in bundle.classes:
        if now := became(bundle, name):
            raise InputError(f"The model has no class '{name}' any more; it is '{now}' by now.")
        hint = (
            nearest(name, bundle.classes)
            if len(bundle.classes) <= 30
            else nearest(name, bundle.classes).split(" Known")[0]
        )
        raise InputError(f"The model has no class '{name}'.{hint}")
    return bundle.classes.index(name)


def timm_configuration(bundle: Bundle) -> dict[str, Any]:
    """timm's keys for the plain network."""
    preparation, classes = bundle.preparation, bundle.classes
    return {
        **({"architecture": bundle.architecture.name} if is_plain(bundle) else {}),
        "num_classes": len(classes),
        "num_features": bundle.model.head.parts[0].in_features if classes else None,
        "model_args": dict(bundle.architecture.arguments),
        "label_names": list(classes),
        "pretrained_cfg": {
            "input_size": [3, preparation.size, preparation.size],
            "interpolation": "bicubic",
            "crop_pct": preparation.share,
            "crop_mode": "squash" if preparation.stretched else "center",
            "mean": list(preparation.mean),
            "std": list(preparation.std),
            "num_classes": len(classes),
            "classifier": bundle.head,
            "label_names": list(classes),
        },
    }


def configuration(bundle: Bundle) -> dict[str, Any]:
    """timm's keys, and under ``graft`` what timm does not know."""
    tree = _tree(bundle)
    return {
        "format": FORMAT,
        **timm_configuration(bundle),
        "graft": {
            "source": bundle.architecture.source,
            "head": bundle.head,
            "inside": bundle.architecture.inside,
            "resize": bundle.preparation.resize,
            "rows": list(bundle.model.head.rows),
            **({} if heads.plain(bundle.model.head) else {"blocks": heads.descriptions(bundle.model.head)}),
            "added": list(bundle.added),
            "undo": len(bundle.undone),
            **({} if tree == structure.PLAIN else {"body": tree}),
        },
    }


def _tree(bundle: Bundle) -> structure.Spec:
    """Which parts of the network are not those of the plain one."""
    return structure.spec(bundle.model.body)


def is_plain(bundle: Bundle) -> bool:
    """Whether the source's own network holds all there is."""
    return _tree(bundle) == structure.PLAIN and heads.plain(bundle.model.head)


def assembled(config: dict[str, Any], tensors: dict[str, Tensor], network: nn.Module | None, what: str) -> Bundle:
    """A bundle without history from its configuration, its tensors and, where the source is code, a network."""
    graft, names = config["graft"], config["label_names"]
    classes = check_names(names if isinstance(names, list) else [], f"{what}, its class names")
    architecture = Architecture(graft["source"], dict(config["model_args"]), int(graft.get("inside", 0)))
    rows = [int(count) for count in graft["rows"]]
    if sum(rows) != len(classes) or min(rows, default=0) < 1:
        raise InputError(f"{what} is damaged: {len(classes)} class names, {sum(rows)} rows stated; restore it.")
    head = _head(graft, rows, tensors)
    if head.rows != tuple(rows):
        raise InputError(f"{what} is damaged: {sum(rows)} rows stated, {sum(head.rows)} found; restore it.")
    if network is None and architecture.scheme == CODE:
        raise InputError(
            f"{what} holds a network given from Python ({architecture.name}); load it there with network=."
        )
    body = headless(architecture.build(len(classes)) if network is None else network, graft["head"])
    body = kinds.build(graft.get("body", structure.PLAIN), body)
    inside = {key: value for key, value in tensors.items() if not key.startswith(f"{graft['head']}.")}
    load_weights(body, inside, what)
    side, values = config["pretrained_cfg"]["input_size"][-1], config["pretrained_cfg"]
    stretched = values.get("crop_mode") == "squash"
    preparation = Preparation(int(side), int(graft["resize"]), tuple(values["mean"]), tuple(values["std"]), stretched)
    model = Classifier(body, head, classes).eval()
    added = graft["added"]
    if not isinstance(added, list) or not set(added) <= set(classes):
        raise InputError(f"{what} is damaged: it lists classes as added last that it does not have; restore it.")
    return Bundle(model, architecture, graft["head"], preparation, tuple(added))


def _head(graft: dict[str, Any], rows: list[int], tensors: dict[str, Tensor]) -> Head:
    """Of linear rows, cut into the blocks in which they came; or of the blocks that are described."""
    name = graft["head"]
    if "blocks" in graft:
        own = {key.removeprefix(f"{name}."): value for key, value in tensors.items() if key.startswith(f"{name}.")}
        return heads.assembled(graft["blocks"], own)
    weight, bias = tensors[f"{name}.weight"], tensors[f"{name}.bias"]
    return Head(linear(*block) for block in zip(weight.split(rows), bias.split(rows), strict=True))


def _head_of(graft: dict[str, Any], tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """Without what later steps have added to the head."""
    if "blocks" in graft:  # these say themselves which tensors they need
        return tensors
    name, rows = graft["head"], sum(graft["rows"])
    own = {key: value for key, value in tensors.items() if not key.startswith(f"{name}.")}
    return own | {f"{name}.{part}": tensors[f"{name}.{part}"][:rows] for part in ("weight", "bias")}


def tensors_of(bundle: Bundle) -> dict[str, Tensor]:
    """The plain network's tensors: the body's and one weight and bias for all rows; or those of the head's blocks."""
    tensors = {name: value.detach().cpu().contiguous() for name, value in bundle.model.body.state_dict().items()}
    if heads.plain(bundle.model.head):
        tensors[f"{bundle.head}.weight"] = bundle.model.head.weight.cpu().contiguous()
        tensors[f"{bundle.head}.bias"] = bundle.model.head.bias.cpu().contiguous()
        return tensors
    return tensors | {f"{bundle.head}.{name}": value for name, value in heads.tensors_of(bundle.model.head).items()}


def memory_plain(bundle: Bundle) -> dict[str, Any]:
    """All memories as JSON, their tensors by name and shape."""
    return {name: {"body": kept.body, "content": kept.content.plain} for name, kept in bundle.memories.items()}


def memory_tensors(bundle: Bundle) -> dict[str, Tensor]:
    """The tensors that ``memory_plain`` names."""
    return {
        f"{MEMORY}{method}:{name}": tensor
        for method, kept in bundle.memories.items()
        for name, tensor in kept.content.tensors.items()
    }


def _all(bundle: Bundle) -> dict[str, Tensor]:
    return {**tensors_of(bundle), **memory_tensors(bundle)}


def memories_of(plain: dict[str, Any], tensors: dict[str, Tensor]) -> dict[str, Kept]:
    """By method; a tensor that has grown since is cut to the rows that it had."""
    found = {}
    for method, kept in plain.items():
        if not isinstance(kept["body"], str):
            raise ValueError(f"the memory of {method} does not say which body it belongs to")
        own = {}
        for name, shape in _shapes(kept["content"]):
            tensor = tensors[f"{MEMORY}{method}:{name}"]
            own[name] = tensor[: shape[0]].contiguous() if shape and shape[0] < len(tensor) else tensor
            if list(own[name].shape) != shape:
                raise ValueError(f"the memory of {method} has a tensor of another shape than stated")
        found[method] = Kept(kept["body"], Packed(kept["content"], own))
    return found


def _shapes(plain: Any) -> Iterator[tuple[str, list[int]]]:
    """Name and shape of every tensor that the JSON speaks of."""
    if isinstance(plain, dict) and plain.keys() == {"tensor", "shape"}:
        yield plain["tensor"], plain["shape"]
    elif isinstance(plain, dict | list):
        for item in plain.values() if isinstance(plain, dict) else plain:
            yield from _shapes(item)


def _changed(before: dict[str, Tensor], after: dict[str, Tensor], blocks: str) -> dict[str, Tensor]:
    """The earlier tensors that cannot be had again by cutting rows off the later ones (those of blocks are not cut)."""
    return {
        name: value
        for name, value in before.items()
        if name not in after
        or after[name].ndim != value.ndim
        or after[name].shape[1:] != value.shape[1:]
        or (name.startswith(blocks) and after[name].shape != value.shape)
        or after[name].dtype != value.dtype
        or (value.ndim == 0 and not torch.equal(after[name], value))
        or (value.ndim > 0 and not torch.equal(after[name][: len(value)], value))
    }


@contextlib.contextmanager
def damaged(what: str) -> Iterator[None]:
    """Whatever goes wrong inside is the fault of what was read, and says so."""
    try:
        yield
    except InputError as error:
        if what.strip("'") in str(error):
            raise
        raise InputError(f"{what} cannot be used: {error}") from error
    except Exception as error:
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise InputError(f"{what} is damaged ({reason}); restore it or import the model again.") from error
