"""Cutting a trained network into body and head, and putting the two together again."""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from classgraft.errors import InputError
from classgraft.models.classifier import Classifier, Head, linear


def head_name(network: nn.Module, classes: int | None = None) -> str:
    """The dotted name of the layer that gives the logits.

    timm states it; elsewhere it is the last linear layer, in order of registration, with ``classes`` outputs.
    """
    config = getattr(network, "pretrained_cfg", None) or getattr(network, "default_cfg", None) or {}
    stated: object = config.get("classifier") if hasattr(config, "get") else None
    if isinstance(stated, str) and isinstance(_child(network, stated), nn.Linear):
        return stated
    linear = [(name, module) for name, module in network.named_modules() if isinstance(module, nn.Linear)]
    fitting: list[str] = [name for name, module in linear if classes is None or module.out_features == classes]
    if fitting:
        return fitting[-1]
    widths = ", ".join(f"{name} ({module.out_features})" for name, module in linear[-5:]) or "none at all"
    wanted = "" if classes is None else f" with {classes} outputs, one for each class name"
    raise InputError(
        f"{type(network).__name__} has no linear layer{wanted}; its last linear layers and their outputs are: {widths}."
        " Give the right number of class names, or the layer's name as head."
    )


def cut(network: nn.Module, classes: Sequence[str], head: str | None = None) -> Classifier:
    """A classifier made of a copy of the network; ``head`` names its last layer where it cannot be found.

    The body is the whole network with that layer replaced by the identity, so nothing of its forward pass is rewritten.
    """
    name = head if head is not None else head_name(network, len(classes))
    last = _child(network, name)
    if not isinstance(last, nn.Linear):
        raise InputError(
            f"The head '{name}' is {type(last).__name__}, not a linear layer; name the layer that gives the logits."
        )
    if last.out_features != len(classes):
        raise InputError(
            f"The head '{name}' has {last.out_features} outputs but there are {len(classes)} class names; give one each."
        )
    return Classifier(headless(network, name), Head([copy.deepcopy(last)]), classes).train(network.training)


def headless(network: nn.Module, head: str) -> nn.Module:
    """A copy of the network with the identity in place of its head."""
    body = copy.deepcopy(network)
    _replace(body, head, nn.Identity())
    for part in body.modules():
        if hasattr(part, "aux_logits"):  # in training, torchvision's networks would give the auxiliary heads' as well
            part.aux_logits = False  # type: ignore[assignment]
    return body


def joined(model: Classifier, head: str) -> nn.Module:
    """The plain network again: the body with one wider linear layer in its place ``head``.

    One joint product moves logits by about 1e-7; the classifier itself keeps its blocks apart.
    """
    network = copy.deepcopy(model.body)
    _replace(network, head, linear(model.head.weight, model.head.bias))
    if hasattr(network, "num_classes"):
        network.num_classes = len(model.classes)  # type: ignore[assignment]
    return network.train(model.training)


@torch.no_grad()
def prove(network: nn.Module, model: Classifier, size: int) -> None:
    """Run both on random images and refuse a cut that does not give the network's own logits, bit for bit."""
    modes = [(part, part.training) for part in network.modules()]
    device = next(network.parameters()).device
    images = torch.rand(2, 3, size, size, generator=torch.Generator().manual_seed(0)).to(device)
    try:
        features = model.eval().features(images)
        theirs = network.eval()(images)
    except Exception as error:  # a network raises whatever its author chose, or did not think of
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise InputError(
            f"{type(network).__name__} without the layer taken for its head fails on RGB images of {size} pixels ({reason});"
            " check the size, and name another layer as head."
        ) from error
    finally:
        for part, mode in modes:
            part.training = mode
    width = model.head.linear[0].in_features
    if features.shape[1:] != (width,):
        raise InputError(
            f"The layer before the head gives a tensor of shape {tuple(features.shape)}, not one row of features an image"
            f" of the {width} that the head takes;"
            " name another layer as head."
        )
    ours = model.head(features)
    if not ours.isfinite().all():
        raise InputError(f"{type(network).__name__} gives logits that are not finite; its weights are damaged.")
    if not isinstance(theirs, Tensor) or ours.shape != theirs.shape or not torch.equal(ours, theirs):
        raise InputError(
            f"{type(network).__name__} does something after its last linear layer, so the logits cannot be told from it;"
            " wrap the network so that it ends in the layer that gives the logits."
        )


def _child(network: nn.Module, name: str) -> nn.Module | None:
    return dict(network.named_modules()).get(name)


def _replace(network: nn.Module, name: str, by: nn.Module) -> None:
    parent, _, last = name.rpartition(".")
    setattr(network.get_submodule(parent), last, by)
