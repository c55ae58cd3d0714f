"""The bundle: a folder that holds a model with its class names, preprocessing, memory and history.

``config.json`` and ``model.safetensors`` carry timm's keys where the network is a plain timm one, so that the folder
also loads with ``timm.create_model("local-dir:...")``. Nothing in a bundle is code and no import string is read from it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from classgraft.data.names import check_names, normal
from classgraft.errors import InputError, nearest
from classgraft.models import heads, kinds, structure
from classgraft.models.classifier import Classifier, Head
from classgraft.models.cut import headless
from classgraft.models.preparation import Preparation
from classgraft.models.sources import Architecture, load_weights
from classgraft.models.wrapped import wrapped
from classgraft.packing import Packed
from classgraft.storage import held, recover, replaced

FORMAT = 1
OWN = re.compile(
    r"(config|memory|undo-\d+)\.json|(model|memory|undo-\d+)\.safetensors|history\.jsonl|README\.md|report\.html"
)
"""The files of a bundle; any other in its folder belongs to somebody else."""
LARGEST_JSON = 1 << 28
"""Bytes of a JSON file."""
MEMORY = "memory:"
"""In front of a memory's tensors where they stand beside the network's."""
CODE = "python"
"""The source of a network that was given as an object: such a bundle needs that object's code to be loaded."""


class Changed(InputError):
    """The folder no longer holds what a change was made from."""


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
            {**_configuration(self), "memory": _memory_plain(self)},
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
        with _damaged("The record of the step before"):
            tensors = {**_all(self), **changed}
            memories = _memories(config.get("memory", {}), tensors)
            tensors = {name: tensor for name, tensor in tensors.items() if not name.startswith(MEMORY)}
            plain = structure.plain(self.model.body)
            body = kinds.build(config["graft"].get("body", structure.PLAIN), plain)
            for name in self.model.body.state_dict().keys() - body.state_dict().keys():
                del tensors[name]  # of a structure that the step added
            tensors = _head_of(config["graft"], tensors)
            earlier = _assembled(config, tensors, plain, "the step before")
        return replace(earlier, memories=memories, history=self.history[:-1], undone=self.undone[:-1])


def check_place(folder: str | Path) -> None:
    """Refuse a folder that ``save`` would refuse, before the work is done.

    Raises:
        InputError: it holds something else, or cannot be read.
    """
    folder = Path(folder)
    if os.path.lexists(folder) and not folder.is_dir():
        raise InputError(f"'{folder}' is a file; name a folder to write the bundle to.")
    try:
        recover(folder)
        with held(folder, shared=True):  # or a bundle that is being replaced at this moment may look like none
            taken = folder.is_dir() and any(folder.iterdir()) and not _is_bundle(folder)
    except OSError as error:
        raise InputError(f"'{folder}' cannot be read ({error.strerror}); name another folder.") from error
    if taken:
        raise InputError(f"'{folder}' is not empty and no bundle; name another folder.")


def _is_bundle(folder: Path) -> bool:
    """Whether this folder was written by ``save``, rather than by another tool that calls its file config.json."""
    try:
        return isinstance(_read_json(folder / "config.json").get("graft"), dict)
    except InputError:
        return (folder / "history.jsonl").is_file() and (folder / "model.safetensors").is_file()


def save(
    bundle: Bundle, folder: str | Path, pages: dict[str, str] | None = None, *, expecting: str | None = None
) -> None:
    """Write the bundle; a kill or a full disk at any moment leaves what was there before whole.

    Args:
        bundle: what to save.
        folder: created, or replaced if it is a bundle, where files that are not the bundle's stay; any other non-empty
            folder is refused.
        pages: further text files by name, such as ``report.html``.
        expecting: the state (``opened``) of the bundle there that this one was made from; None: whatever is there.

    Raises:
        Changed: somebody has changed the bundle there since.
        InputError: when the folder holds something else or cannot be written.
    """
    folder = Path(folder)
    check_place(folder)

    def check() -> None:
        if expecting is not None and state(folder) != expecting:
            raise Changed(f"'{folder}' was changed after this was made from it; load it again and repeat the step.")

    check()
    with replaced(folder, check) as fresh:
        with held(folder, shared=True):
            for path in folder.iterdir() if folder.is_dir() else ():
                if not OWN.fullmatch(path.name):
                    _copy(path, fresh / path.name)
        save_file(tensors_of(bundle), fresh / "model.safetensors", metadata={"format": "pt"})
        for number, (earlier, changed) in enumerate(bundle.undone):
            (fresh / f"undo-{number}.json").write_text(json.dumps(earlier, ensure_ascii=False), "utf-8")
            save_file(changed, fresh / f"undo-{number}.safetensors", metadata={"format": "pt"})
        if bundle.memories:
            (fresh / "memory.json").write_text(json.dumps(_memory_plain(bundle), ensure_ascii=False), "utf-8")
            save_file(_memory_tensors(bundle), fresh / "memory.safetensors", metadata={"format": "pt"})
        lines = [json.dumps(event, ensure_ascii=False) + "\n" for event in bundle.history]
        (fresh / "history.jsonl").write_text("".join(lines), "utf-8")
        config = _configuration(bundle)
        config["graft"]["sha256"] = {path.name: _sha256(path) for path in sorted(fresh.iterdir()) if _is_checked(path)}
        (fresh / "README.md").write_text(card(bundle), "utf-8")
        for name, text in (pages or {}).items():
            (fresh / name).write_text(text, "utf-8")
        (fresh / "config.json").write_text(json.dumps(config, ensure_ascii=False, indent=1), "utf-8")


def _copy(path: Path, to: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.copytree(path, to, symlinks=True)
    else:
        shutil.copy2(path, to, follow_symlinks=False)


def _is_checked(path: Path) -> bool:
    """Whether a change of this file between saving and loading is damage: nobody writes it by hand."""
    return path.name in ("history.jsonl", "model.safetensors") or path.name.startswith(("undo-", "memory."))


def load(folder: str | Path, network: nn.Module | None = None) -> Bundle:
    """Read a bundle.

    Args:
        folder: where it is.
        network: for a bundle whose network was given as a Python object: that network with any weights and any number
            of outputs.

    Raises:
        InputError: it is missing, damaged, of a newer version, or needs code.
    """
    return opened(folder, network)[0]


def opened(folder: str | Path, network: nn.Module | None = None) -> tuple[Bundle, str]:
    """As ``load``, with the state that the folder was in at that moment."""
    folder = Path(folder)
    recover(folder)
    with held(folder, shared=True):
        return _loaded(folder, network), state(folder)


def state(folder: str | Path) -> str:
    """Fingerprint of the bundle in a folder: another one after every step, the same again when it is undone."""
    path = Path(folder) / "config.json"  # which has the checksums of all that counts
    try:
        _regular(path)
        return _sha256(path)
    except OSError:
        return ""


def _loaded(folder: Path, network: nn.Module | None) -> Bundle:
    if not os.path.isfile(folder / "config.json"):
        there = "no bundle: it has no config.json" if os.path.isdir(folder) else "not there"
        raise InputError(f"'{folder}' is {there}; name a folder written by classgraft, or import a model first.")
    config = _read_json(folder / "config.json")
    form = config.get("format")
    if not isinstance(form, int) or isinstance(form, bool) or form < 1:
        raise InputError(
            f"'{folder / 'config.json'}' is not a classgraft bundle's (no format number); import the model instead."
        )
    if form > FORMAT:
        raise InputError(f"'{folder}' has format {form} and this classgraft reads up to {FORMAT}; upgrade classgraft.")
    with _damaged(f"'{folder}'"):
        stated = config["graft"]["sha256"]
        undone = [
            (_read_json(folder / f"undo-{i}.json"), _read_tensors(folder / f"undo-{i}.safetensors"))
            for i in range(int(config["graft"]["undo"]))
        ]
        tensors = _read_tensors(folder / "model.safetensors")
        plain, held = (
            ({}, {})
            if "memory.json" not in stated
            else (_read_json(folder / "memory.json"), _read_tensors(folder / "memory.safetensors"))
        )
        _regular(folder / "history.jsonl")
        history = [_parsed(line) for line in (folder / "history.jsonl").read_text("utf-8").split("\n") if line]
        for name, checksum in stated.items():
            if not OWN.fullmatch(name) or not os.path.isfile(folder / name):
                raise InputError(f"'{folder}' has no file of a bundle called {name!r:.100}; restore the bundle.")
            if checksum != _sha256(folder / name):
                raise InputError(
                    f"'{folder / name}' is not the file that was saved with this bundle (its checksum differs);"
                    " restore the bundle."
                )
        if not len(undone) <= len(history) or not all({"event", "sentence"} <= event.keys() for event in history):
            raise ValueError("its history lacks a step")
        if network is not None:
            network = wrapped(network, config["graft"].get("inside") or -1, len(config["label_names"]))
        memories = _memories(plain, held)
        bundle = _assembled(config, tensors, network, f"'{folder}'")
    return replace(bundle, memories=memories, history=tuple(history), undone=tuple(undone))


@contextlib.contextmanager
def _damaged(what: str) -> Iterator[None]:
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


def place(bundle: Bundle, name: str) -> int:
    """The place of a class by its exact name; else an InputError that suggests the nearest."""
    name = normal(name)
    if name not in bundle.classes:
        hint = (
            nearest(name, bundle.classes)
            if len(bundle.classes) <= 30
            else nearest(name, bundle.classes).split(" Known")[0]
        )
        raise InputError(f"The model has no class '{name}'.{hint}")
    return bundle.classes.index(name)


def card(bundle: Bundle) -> str:
    """The model card: what it is, what was done to it, how to load it."""
    model = bundle.model
    parameters = sum(p.numel() for p in model.parameters())
    done = [f"- {event.get('date', '')}: {event.get('sentence', event.get('event', ''))}" for event in bundle.history]
    plain = (
        '\n    import timm\n    model = timm.create_model("local-dir:THIS-FOLDER")\n'
        if bundle.architecture.scheme == "timm" and is_plain(bundle)
        else ""
    )
    shown = ", ".join(bundle.classes[:20]) + (
        f" and {len(bundle.classes) - 20} more" if len(bundle.classes) > 20 else ""
    )
    held = "".join(
        f"\nMemory of {name}: {kept.content.nbytes:,} bytes, kept of the images that it learnt from.\n"
        for name, kept in bundle.memories.items()
    )
    words = promised_by(bundle)
    promised = "\n## What is promised\n\n" + "".join(f"- {sentence}\n" for sentence in words) if words else ""
    last = f"\nAdded last: {', '.join(bundle.added)}.\n" if bundle.added else ""
    return f"""# {bundle.architecture.source} with {len(bundle.classes)} classes

{parameters:,} parameters. Input: RGB {bundle.preparation.size} x {bundle.preparation.size}, short side resized to
{bundle.preparation.resize} (bicubic, antialiased), centre crop, mean {bundle.preparation.mean}, standard deviation
{bundle.preparation.std}.

Classes: {shown}.
{last}{held}{promised}
## What was done

{chr(10).join(done)}

## Use

    classgraft predict THIS-FOLDER picture.jpg
{plain}"""


def promised_by(bundle: Bundle) -> list[str]:
    """What the steps so far promise, oldest first."""
    kept = [(event.get("date", ""), event.get("promise")) for event in bundle.history]
    return [f"{date}: {found.get('sentence', '')}" for date, found in kept if isinstance(found, dict)]


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
            "crop_mode": "center",
            "mean": list(preparation.mean),
            "std": list(preparation.std),
            "num_classes": len(classes),
            "classifier": bundle.head,
            "label_names": list(classes),
        },
    }


def _configuration(bundle: Bundle) -> dict[str, Any]:
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


def _assembled(config: dict[str, Any], tensors: dict[str, Tensor], network: nn.Module | None, what: str) -> Bundle:
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
    preparation = Preparation(int(side), int(graft["resize"]), tuple(values["mean"]), tuple(values["std"]))
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
    blocks = []
    for rows_of, biases in zip(weight.split(rows), bias.split(rows), strict=True):
        block = nn.Linear(weight.shape[1], len(rows_of), dtype=weight.dtype)
        with torch.no_grad():
            block.weight.copy_(rows_of)
            block.bias.copy_(biases)
        blocks.append(block)
    return Head(blocks)


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


def _memory_plain(bundle: Bundle) -> dict[str, Any]:
    return {name: {"body": kept.body, "content": kept.content.plain} for name, kept in bundle.memories.items()}


def _memory_tensors(bundle: Bundle) -> dict[str, Tensor]:
    return {
        f"{MEMORY}{method}:{name}": tensor
        for method, kept in bundle.memories.items()
        for name, tensor in kept.content.tensors.items()
    }


def _all(bundle: Bundle) -> dict[str, Tensor]:
    return {**tensors_of(bundle), **_memory_tensors(bundle)}


def _memories(plain: dict[str, Any], tensors: dict[str, Tensor]) -> dict[str, Kept]:
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


def _parsed(text: str) -> Any:
    """JSON that can be written again: JSON can escape halves of characters, which no file takes."""
    content = json.loads(text)
    json.dumps(content, ensure_ascii=False).encode()
    return content


def _regular(path: Path) -> None:
    """Refuse what a reader would wait for without end, such as a pipe or a device."""
    if os.path.lexists(path) and not os.path.isfile(path):
        raise InputError(f"'{path}' cannot be read (it is no file); restore the bundle or import the model again.")


def _read_json(path: Path) -> dict[str, Any]:
    _regular(path)
    try:
        if path.stat().st_size > LARGEST_JSON:
            raise ValueError(f"it is larger than {LARGEST_JSON:,} bytes")
        content = _parsed(path.read_text("utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"'{path}' cannot be read ({error}); restore the bundle or import the model again.") from error
    if not isinstance(content, dict):
        raise InputError(f"'{path}' is no JSON object; restore the bundle or import the model again.")
    return content


def _read_tensors(path: Path) -> dict[str, Tensor]:
    _regular(path)
    try:
        return load_file(path)
    except (OSError, SafetensorError, ValueError) as error:
        raise InputError(f"'{path}' cannot be read ({error}); restore the bundle or import the model again.") from error


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
