"""Where networks come from: ``timm:NAME`` and ``cifar:NAME``, with weights read from a file of tensors."""

from __future__ import annotations

import inspect
import json
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from classgraft.errors import InputError, nearest
from classgraft.models import cifar_resnet
from classgraft.models.preparation import Preparation, usual_resize

SCHEMES = ("timm", "cifar")
CIFAR = Preparation(32, 32)  # the mean and standard deviation of the public CIFAR ResNets are ImageNet's


@dataclass(frozen=True)
class Architecture:
    """A network that can be built again from words alone."""

    source: str
    """``timm:NAME`` or ``cifar:NAME``."""
    arguments: Mapping[str, Any] = field(default_factory=dict)
    """Passed to the constructor; JSON values."""

    @property
    def scheme(self) -> str:
        return self.source.partition(":")[0]

    @property
    def name(self) -> str:
        return self.source.partition(":")[2]

    def build(self, classes: int) -> nn.Module:
        """A network with fresh weights and ``classes`` outputs.

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
        raise InputError(f"'{self.source}' does not say where the network comes from; write timm:NAME or cifar:NAME.")

    def preparation(self) -> Preparation:
        """What the source itself says of size, mean and standard deviation."""
        if self.scheme == "cifar":
            return CIFAR
        from timm.models import get_pretrained_cfg

        config = get_pretrained_cfg(self.name)
        if config is None:
            return Preparation()
        size = config.input_size[-1]
        resize = int(size / config.crop_pct) if size >= 96 else size  # rounded as timm does
        return Preparation(size, max(size, resize), tuple(config.mean), tuple(config.std))  # type: ignore[arg-type]


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
    except json.JSONDecodeError:
        return key, value


def read_weights(path: Path) -> dict[str, Tensor]:
    """The tensors of a ``.safetensors`` file or of a torch file, which only torch's weights-only reader opens.

    A dictionary under ``state_dict`` or ``model`` is unwrapped and a ``module.`` prefix taken off.
    """
    if not path.is_file():
        raise InputError(f"There is no weights file {path}; check the path.")
    try:
        if path.suffix == ".safetensors":
            return load_file(path)
        with warnings.catch_warnings(action="ignore"):  # about pickles that are refused anyway
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # on broken files the readers raise nearly anything
        reason = "it is damaged, or holds objects other than tensors, which are not opened"
        if isinstance(error, SafetensorError | OSError):
            reason = " ".join(str(getattr(error, "strerror", None) or error).split())
        raise InputError(
            f"{path} cannot be read as a file of tensors ({reason}); save the network's state_dict alone, best as .safetensors."
        ) from error
    for key in ("state_dict", "model_state_dict", "model"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not content or not all(map(_is_entry, content, content.values())):
        raise InputError(f"{path} holds no dictionary of tensors; save the network's state_dict alone.")
    prefix = "module." if all(key.startswith("module.") for key in content) else ""
    return {key.removeprefix(prefix): value for key, value in content.items()}


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
    network.load_state_dict(weights, strict=False)


def _listed(verdict: str, items: list[str]) -> list[str]:
    if not items:
        return []
    more = f" and {len(items) - 3} more" if len(items) > 3 else ""
    return [f"{len(items)} tensors {verdict} ({', '.join(items[:3])}{more})"]


__all__ = ["SCHEMES", "Architecture", "argument", "load_weights", "read_weights", "usual_resize"]
