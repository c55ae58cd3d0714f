"""Where networks come from, in words: ``timm:NAME`` and the like; and weights, read from a file of tensors."""

from __future__ import annotations

import argparse
import json
import warnings
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from classgraft.errors import InputError, nearest
from classgraft.models import cifar_resnet, hugging_face, timm_nets, torchvision_nets
from classgraft.models.preparation import Preparation, usual_resize
from classgraft.models.wrapped import wrapped

FORMS = "timm:NAME, torchvision:NAME, hf:ID-or-folder or cifar:NAME"
CIFAR = Preparation(32, 32)  # the mean and standard deviation of the public CIFAR ResNets are ImageNet's


@dataclass(frozen=True)
class Architecture:
    """A network that can be built again from words alone."""

    source: str
    """``timm:NAME``, ``torchvision:NAME``, ``hf:NAME`` or ``cifar:NAME``."""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    """Passed to the constructor; JSON values. For ``hf`` the model's configuration."""
    inside: int = 0
    """Outputs of the network itself where its logits are features (``Beside``); 0 where they are not."""

    @staticmethod
    def of(source: str, arguments: Mapping[str, Any]) -> Architecture:
        """From the words of a user; the configuration of a model of Hugging Face is fetched."""
        scheme, _, name = source.partition(":")
        if scheme != "hf":
            return Architecture(source, dict(arguments))
        if not name:
            raise InputError("'hf:' does not say which model; write hf:ID or hf:FOLDER.")
        return Architecture(f"hf:{_short(name)}", hugging_face.configuration(name, arguments))

    @property
    def scheme(self) -> str:
        return self.source.partition(":")[0]

    @property
    def name(self) -> str:
        return self.source.partition(":")[2]

    def build(self, classes: int) -> nn.Module:
        """A network with fresh weights and ``classes`` outputs: tensors in, tensors out, a linear layer last."""
        return wrapped(self.plain(self.inside or classes), self.inside or classes, classes)

    def plain(self, classes: int) -> nn.Module:
        """The network as its library gives it, with fresh weights.

        Raises:
            InputError: for an unknown scheme, name or argument.
        """
        if self.scheme == "cifar":
            if self.name not in cifar_resnet.NAMES:
                raise InputError(f"There is no network 'cifar:{self.name}'.{nearest(self.name, cifar_resnet.NAMES)}")
            if self.arguments:
                raise InputError(f"cifar:{self.name} takes no arguments, but was given {_listing(self.arguments)}.")
            return cifar_resnet.build(self.name, classes)
        if self.scheme == "timm":
            return timm_nets.build(self.name, classes, dict(self.arguments))
        if self.scheme == "torchvision":
            return torchvision_nets.build(self.name, classes, dict(self.arguments))
        if self.scheme == "hf":
            return hugging_face.build(self.arguments, classes)
        raise InputError(f"'{self.source}' does not say where the network comes from; write {FORMS}.")

    def pretrained(self, source: str) -> nn.Module:
        """The network with the weights that its source (the words it was made ``of``) brings."""
        if self.scheme != "hf":
            raise InputError(f"The weights of {source} are missing; give a .safetensors or torch file with --weights.")
        return hugging_face.pretrained(source.partition(":")[2], self.arguments)

    def names(self) -> tuple[str, ...]:
        """The class names that the source states, in head order; mostly none."""
        return hugging_face.names(self.arguments) if self.scheme == "hf" else ()

    def needed(self, weights: dict[str, Tensor]) -> dict[str, Tensor]:
        """Those of published weights that the network has a place for, under its own keys.

        What every key begins with is taken off (Lightning's ``model.``, ``AveragedModel``'s ``module.``, ...), and
        keys that timm or torchvision rename as they load are renamed as they do.

        Raises:
            InputError: where timm would have to resize the weights.
        """
        if self.scheme not in ("timm", "torchvision", "hf", "cifar"):  # a network from Python, with any keys
            return weights
        weights = _bare(weights)
        if self.scheme == "torchvision":
            return torchvision_nets.needed(self.name, weights)
        return timm_nets.needed(self.name, dict(self.arguments), weights) if self.scheme == "timm" else weights

    def preparation(self, source: str = "", weights: Path | None = None) -> Preparation:
        """What the source says of size, mean and standard deviation, of these weights where it knows them."""
        if self.scheme == "cifar":
            return CIFAR
        if self.scheme == "hf":
            return hugging_face.preparation(source.partition(":")[2], self.arguments)
        if self.scheme == "torchvision":
            return torchvision_nets.preparation(self.name, weights.name if weights else "")
        return timm_nets.preparation(self.name)


def _short(name: str) -> str:
    """The id of a model on the hub as it is; of a folder its name alone."""
    return Path(name).resolve().name if Path(name).is_dir() else name


def _listing(arguments: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={value}" for key, value in arguments.items())


def argument(text: str) -> tuple[str, Any]:
    """``key=value`` from the command line; the value is read as JSON where it is JSON, else as a word."""
    key, equals, value = text.partition("=")
    if not equals or not key:
        raise InputError(f"'{text}' is not of the form key=value.")
    try:
        return key, json.loads(value)
    except ValueError:  # no JSON, or a number of more digits than Python reads
        return key, value


NESTS = ("state_dict", "model_state_dict", "model_state", "model", "net", "network", "state", "params", "weights")
"""Keys under which training scripts keep the weights, in the order in which they are looked for."""
AVERAGED = ("state_dict_ema", "model_ema", "ema_state_dict", "ema", "params_ema")
"""Keys of averaged weights, which come before the others, as with timm, where they are as complete."""
PREFIXES = ("module.", "_orig_mod.")
"""What DataParallel and torch.compile put before every key."""


def read_weights(path: Path, warn: Callable[[str], None] = lambda sentence: None) -> dict[str, Tensor]:
    """The tensors of a ``.safetensors`` file or of a torch file (``.pth``, ``.pt``, ``.th``, ``.bin``, ...).

    Torch files are opened by torch's weights-only reader alone. Dictionaries under one of ``AVERAGED`` or ``NESTS`` are
    unwrapped, however deep, and ``PREFIXES`` taken off where all keys have them. Where a file holds averaged weights
    and others, ``warn`` is told which are taken.
    """
    if not path.is_file():
        raise InputError(f"There is no weights file {path}; check the path.")
    try:
        if path.suffix == ".safetensors":
            content: Any = load_file(path)
        else:
            # timm's training script keeps its options beside the weights: a Namespace is a bag of attributes, no more
            options = torch.serialization.safe_globals([argparse.Namespace])
            with options, warnings.catch_warnings(action="ignore"):  # about pickles that are refused anyway
                content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # on broken files the readers raise nearly anything
        reason = "it is damaged, or holds objects other than tensors, which are not opened"
        if isinstance(error, SafetensorError | OSError):
            reason = " ".join(str(getattr(error, "strerror", None) or error).split())
        raise InputError(
            f"{path} cannot be read as a file of tensors ({reason}); save the network's state_dict alone, best as .safetensors."
        ) from error
    plain, averaged = _unwrapped(content, (*NESTS, *AVERAGED)), _unwrapped(content, (*AVERAGED, *NESTS))
    (found, taken), (other, left) = (averaged, plain) if len(averaged[0]) >= len(plain[0]) else (plain, averaged)
    if other and taken != left:
        warn(f"{path} holds two sets of weights; those under '{taken}' are taken, those under '{left}' are not.")
    if not found:
        raise InputError(f"{path} holds no dictionary of tensors; save the network's state_dict alone.")
    while prefix := next((p for p in PREFIXES if all(key.startswith(p) for key in found)), ""):
        found = {key.removeprefix(prefix): value for key, value in found.items()}
    return found


def _unwrapped(content: Any, nests: Sequence[str]) -> tuple[dict[str, Tensor], str]:
    """The dictionary of tensors inside, empty where there is none, and the keys that lead to it."""
    path: list[str] = []
    for _ in range(16):  # and no further, as a dictionary in a torch file may hold itself
        if not isinstance(content, dict):
            break
        if not (inner := next((key for key in nests if isinstance(content.get(key), dict)), "")):
            break
        content = content[inner]
        path.append(inner)
    whole = isinstance(content, dict) and all(map(_is_entry, content, content.values()))
    return content if whole else {}, ".".join(path)


def _bare(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """Without what every key begins with, however often, and without ``AveragedModel``'s count."""
    while True:
        counted = {key: value for key, value in weights.items() if key != "n_averaged"}
        roots = {key[: key.find(".") + 1] for key in counted}
        if len(roots) != 1 or roots & {"", "timm_model."}:  # the latter is a network of transformers itself
            return weights
        weights = {key.removeprefix(*roots): value for key, value in counted.items()}


def _is_entry(key: object, value: object) -> bool:
    return isinstance(key, str) and isinstance(value, Tensor) and value.layout is torch.strided and not value.is_meta


def load_weights(network: nn.Module, weights: dict[str, Tensor], what: str) -> None:
    """Fill the network; every key and shape must fit, or an InputError says which do not."""
    own = network.state_dict()
    wrong = {key: value for key, value in weights.items() if key in own and own[key].shape != value.shape}
    shapes = [
        f"{key} is {tuple(value.shape)} in the file and {tuple(own[key].shape)} in the network"
        for key, value in wrong.items()
    ]
    types = [
        f"{key} is {value.dtype} in the file and {own[key].dtype} in the network"
        for key, value in weights.items()
        if key in own and own[key].is_floating_point() > value.is_floating_point()
    ]
    missing = [key for key in own if key not in weights and not key.endswith("num_batches_tracked")]
    surplus = [key for key in weights if key not in own]
    complaints = [
        *_listed("do not fit in shape", shapes),
        *_listed("do not fit in type", types),
        *_listed("are missing in the file", missing),
        *_listed("are not in the network", surplus),
    ]
    if complaints:
        rows = {
            len(value) if value.dim() and own[key].shape[1:] == value.shape[1:] else 0 for key, value in wrong.items()
        }
        remedy = "check the architecture, its arguments and the class names"
        if not own.keys() & weights.keys():
            remedy = "no name is in both, so write the source that they come from (timm:, torchvision:, hf: or cifar:)"
        elif len(complaints) == len(rows) == 1 and all(rows):  # the last layer alone
            remedy = f"give as many class names as the file has rows for, {rows.pop()}"
        raise InputError(f"The weights do not fit {what}: {'; '.join(complaints)}; {remedy}.")
    fitting = OrderedDict(weights)
    fitting._metadata = own._metadata  # type: ignore[attr-defined]  # all fits, so it is of the network's own version
    network.load_state_dict(fitting, strict=False)


def _listed(verdict: str, items: list[str]) -> list[str]:
    if not items:
        return []
    more = f" and {len(items) - 3} more" if len(items) > 3 else ""
    return [f"{len(items)} tensors {verdict} ({', '.join(items[:3])}{more})"]


__all__ = ["FORMS", "Architecture", "argument", "load_weights", "read_weights", "usual_resize"]
