"""Networks of timm by name: ``timm:resnet18``; and weights under the keys that others published them under."""

from __future__ import annotations

import inspect
import sys
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from classgraft.errors import InputError
from classgraft.models.preparation import Preparation

_POSITIONS = ("pos", "patch_embed", "attention_biases")
"""Parts of the keys of what timm resizes where the network sees images of another size."""


def build(name: str, classes: int, arguments: dict[str, Any]) -> nn.Module:
    """A network with fresh weights and ``classes`` outputs.

    Raises:
        InputError: for an unknown name or argument.
    """
    import timm

    if not timm.is_model(name):
        raise InputError(f"timm has no network '{name}'.{_nearest(name)}")
    # timm's own words, such as checkpoint_path, would open files: only the network's may come from outside
    for key in {*inspect.signature(timm.create_model).parameters, "num_classes"} & set(arguments):
        raise InputError(f"'{key}' is no argument of the network {name}, but timm's own; leave it out.")
    try:
        network: nn.Module = timm.create_model(name, pretrained=False, num_classes=classes, **arguments)
    except Exception as error:  # constructors raise nearly anything
        reason = " ".join(str(error).split()) or type(error).__name__
        given = ", ".join(f"{key}={value}" for key, value in arguments.items())
        raise InputError(f"timm's {name} does not take these arguments ({given}): {reason.rstrip('.')}.") from error
    return network


def _nearest(name: str) -> str:
    import difflib

    import timm

    close = difflib.get_close_matches(name, timm.list_models(), n=5, cutoff=0.5)
    return (
        f" The nearest of its {len(timm.list_models())} names are: {', '.join(close)}."
        if close
        else " See timm.list_models()."
    )


def preparation(name: str) -> Preparation:
    """What timm says of the weights that it has under this name."""
    from timm.models import get_pretrained_cfg

    config = get_pretrained_cfg(name)
    if config is None:
        return Preparation()
    size = config.input_size[-1]
    resize = int(size / config.crop_pct) if size >= 96 else size  # rounded as timm does
    stretched = config.crop_mode == "squash"
    return Preparation(size, max(size, resize), tuple(config.mean), tuple(config.std), stretched)  # type: ignore[arg-type]


def needed(name: str, arguments: dict[str, Any], weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights under timm's keys: as they are, or as timm's own filter of published files makes them of these.

    What fits neither way comes back as it was.

    Raises:
        InputError: where timm would resize what depends on the size of the image, as that is another function.
    """
    try:
        with torch.device("meta"):  # names and shapes alone; the number of classes is not asked
            network = build(name, 2, arguments)
    except InputError:  # of a constructor that reads what it made
        network = build(name, 2, arguments)
    own = network.state_dict()
    if _fits(own, weights):
        return weights
    sizes = {value.numel() for value in weights.values()}
    for convert in _filters(name, network):
        try:
            with warnings.catch_warnings(action="ignore"):
                found = convert(dict(weights))
        except Exception:  # of keys that they do not expect filters make nearly anything
            continue
        if not _fits(own, found):
            continue
        for key, value in found.items():
            if value.numel() not in sizes and any(part in key for part in _POSITIONS):
                raise InputError(
                    f"The weights are of {name} at another size of image ({key} would have to be resized);"
                    " name the network, or its img_size, that they were trained with."
                )
        return found
    return weights


def _fits(own: dict[str, Tensor], weights: dict[str, Tensor]) -> bool:
    """Whether the keys are the network's, and all but the first side of each shape, which may count classes."""
    missing = {key for key in own.keys() - weights.keys() if not key.endswith("num_batches_tracked")}
    return not missing and all(key in own and own[key].shape[1:] == value.shape[1:] for key, value in weights.items())


def _filters(name: str, network: nn.Module) -> Iterator[Callable[[dict[str, Tensor]], dict[str, Tensor]]]:
    """Those in the module of the network's entry; timm hands them to its builder, which does not give them out."""
    from timm.models import model_entrypoint

    offered = {"model": network, "adapt_layer_scale": True}  # the latter for the names of DeiT III
    for called, function in vars(sys.modules[model_entrypoint(name).__module__]).items():
        takes = inspect.signature(function).parameters if inspect.isfunction(function) else {}
        if "filter" in called and "state_dict" in takes:
            yield partial(function, **{key: value for key, value in offered.items() if key in takes})
