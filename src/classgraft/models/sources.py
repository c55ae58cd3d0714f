"""Where networks come from, in words: ``timm:NAME`` and the like; and weights, read from a file of tensors."""

from __future__ import annotations

import inspect
import json
import warnings
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from classgraft.errors import InputError, nearest
from classgraft.models import cifar_resnet, hugging_face, torchvision_nets
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
            return _timm(self.name, classes, dict(self.arguments))
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
        """Those of published weights that the network has a place for."""
        return torchvision_nets.needed(self.name, weights) if self.scheme == "torchvision" else weights

    def preparation(self, source: str = "", weights: Path | None = None) -> Preparation:
        """What the source says of size, mean and standard deviation, of these weights where it knows them."""
        if self.scheme == "cifar":
            return CIFAR
        if self.scheme == "hf":
            return hugging_face.preparation(source.partition(":")[2], self.arguments)
        if self.scheme == "torchvision":
            return torchvision_nets.preparation(self.name, weights.name if weights else "")
        from timm.models import get_pretrained_cfg

        config = get_pretrained_cfg(self.name)
        if config is None:
            return Preparation()
        size = config.input_size[-1]
        resize = int(size / config.crop_pct) if size >= 96 else size  # rounded as timm does
        stretched = config.crop_mode == "squash"
        return Preparation(size, max(size, resize), tuple(config.mean), tuple(config.std), stretched)  # type: ignore[arg-type]


def _short(name: str) -> str:
    """The id of a model on the hub as it is; of a folder its name alone."""
    return Path(name).resolve().name if Path(name).is_dir() else name


def _timm(name: str, classes: int, arguments: dict[str, Any]) -> nn.Module:
    import timm

    if not timm.is_model(name):
        raise InputError(f"timm has no network '{name}'.{_nearest_timm(name)}")
    # timm's own words, such as checkpoint_path, would open files: only the network's may come from outside
    for key in {*inspect.signature(timm.create_model).parameters, "num_classes"} & set(arguments):
        raise InputError(f"'{key}' is no argument of the network {name}, but timm's own; leave it out.")
    try:
        network: nn.Module = timm.create_model(name, pretrained=False, num_classes=classes, **arguments)
    except Exception as error:  # constructors raise nearly anything
        reason = " ".join(str(error).split()) or type(error).__name__
        raise InputError(
            f"timm's {name} does not take these arguments ({_listing(arguments)}): {reason.rstrip('.')}."
        ) from error
    return network


def _listing(arguments: Mapping[str, Any]) -> str:
    return ", ".join(f"{key}={value}" for key, value in arguments.items())


def _nearest_timm(name: str) -> str:
    import difflib

    import timm

    close = difflib.get_close_matches(name, timm.list_models(), n=5, cutoff=0.5)
    return (
        f" The nearest of its {len(timm.list_models())} names are: {', '.join(close)}."
        if close
        else " See timm.list_models()."
    )


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
AVERAGED = ("model_ema", "state_dict_ema", "ema_state_dict", "ema", "params_ema")
"""Keys of averaged weights; used where there are no others."""
PREFIXES = ("module.", "_orig_mod.")
"""What DataParallel and torch.compile put before every key."""


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a ``.safetensors`` file or of a torch file (``.pth``, ``.pt``, ``.th``, ``.bin``, ...).

    Torch files are opened by torch's weights-only reader alone. Dictionaries under one of ``NESTS``, else ``AVERAGED``,
    are unwrapped, however deep, and ``PREFIXES`` taken off where all keys have them.
    """
    if not path.is_file():
        raise InputError(f"There is no weights file {path}; check the path.")
    try:
        if path.suffix == ".safetensors":
            content: Any = load_file(path)
        else:
            with warnings.catch_warnings(action="ignore"):  # about pickles that are refused anyway
                content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # on broken files the readers raise nearly anything
        reason = "it is damaged, or holds objects other than tensors, which are not opened"
        if isinstance(error, SafetensorError | OSError):
            reason = " ".join(str(getattr(error, "strerror", None) or error).split())
        raise InputError(
            f"{path} cannot be read as a file of tensors ({reason}); save the network's state_dict alone, best as .safetensors."
        ) from error
    while isinstance(content, dict) and (inner := _nest(content)):
        content = content[inner]
    if not isinstance(content, dict) or not content or not all(map(_is_entry, content, content.values())):
        raise InputError(f"{path} holds no dictionary of tensors; save the network's state_dict alone.")
    found: dict[str, Tensor] = content
    while prefix := next((p for p in PREFIXES if all(key.startswith(p) for key in found)), ""):
        found = {key.removeprefix(prefix): value for key, value in found.items()}
    return found


def _nest(content: dict[Any, Any]) -> str:
    """The key of the dictionary that holds the weights; empty where this one does."""
    return next((key for key in (*NESTS, *AVERAGED) if isinstance(content.get(key), dict)), "")


def _is_entry(key: object, value: object) -> bool:
    return isinstance(key, str) and isinstance(value, Tensor) and value.layout is torch.strided and not value.is_meta


def load_weights(network: nn.Module, weights: dict[str, Tensor], what: str) -> None:
    """Fill the network; every key and shape must fit, or an InputError says which do not."""
    own = network.state_dict()
    shapes = [
        f"{key} is {tuple(value.shape)} in the file and {tuple(own[key].shape)} in the network"
        for key, value in weights.items()
        if key in own and own[key].shape != value.shape
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
        raise InputError(
            f"The weights do not fit {what}: {'; '.join(complaints)};"
            " check the architecture, its arguments and the class names."
        )
    fitting = OrderedDict(weights)
    fitting._metadata = own._metadata  # type: ignore[attr-defined]  # all fits, so it is of the network's own version
    network.load_state_dict(fitting, strict=False)


def _listed(verdict: str, items: list[str]) -> list[str]:
    if not items:
        return []
    more = f" and {len(items) - 3} more" if len(items) > 3 else ""
    return [f"{len(items)} tensors {verdict} ({', '.join(items[:3])}{more})"]


__all__ = ["FORMS", "Architecture", "argument", "load_weights", "read_weights", "usual_resize"]
