"""Networks of torchvision by name: ``torchvision:resnet18``.

Auxiliary heads (GoogLeNet's, Inception's) serve the training from scratch alone and are left out, here and from the
weights. Both networks then also renormalise their input as torchvision's own weights want it (``transform_input``).
"""

from __future__ import annotations

import re
from typing import Any

from torch import Tensor, nn

from classgraft.errors import InputError, nearest
from classgraft.models.preparation import Preparation

_AUXILIARY = {"googlenet": ("aux1.", "aux2."), "inception_v3": ("AuxLogits.",)}
_RENAMED = (
    (re.compile(r"(\.denselayer\d+\.(?:norm|conv))\.([12]\.)"), r"\1\2"),
    (re.compile(r"(\.encoder_layer_\d+\.mlp\.)linear_1\."), r"\g<1>0."),
    (re.compile(r"(\.encoder_layer_\d+\.mlp\.)linear_2\."), r"\g<1>3."),
)
"""Keys that torchvision itself renames as it loads: of DenseNets, published so to this day, and of older ViTs."""
_OWN = {"weights", "progress", "num_classes", "aux_logits"}
"""Arguments of torchvision's constructors that would fetch files or are said otherwise."""


def build(name: str, classes: int, arguments: dict[str, Any]) -> nn.Module:
    """A network with fresh weights and ``classes`` outputs.

    Raises:
        InputError: for an unknown name or argument.
    """
    from torchvision import models

    known = models.list_models(module=models)
    if name not in known:
        raise InputError(f"torchvision has no classifier '{name}'.{nearest(name, known)}")
    for key in sorted(_OWN & set(arguments)):
        raise InputError(f"'{key}' is no argument of the network {name} that can be given; leave it out.")
    if name in _AUXILIARY:
        arguments = {"transform_input": True, **arguments, "aux_logits": False, "init_weights": False}
    try:
        network: nn.Module = models.get_model(name, weights=None, num_classes=classes, **arguments)
    except Exception as error:  # constructors raise nearly anything
        reason = " ".join(str(error).split()) or type(error).__name__
        given = ", ".join(f"{key}={value}" for key, value in arguments.items())
        raise InputError(
            f"torchvision's {name} does not take these arguments ({given}): {reason.rstrip('.')}."
        ) from error
    return network


def needed(name: str, weights: dict[str, Tensor]) -> dict[str, Tensor]:
    """The weights without those of auxiliary heads, old keys renamed as torchvision does."""
    return {_renamed(key): value for key, value in weights.items() if not key.startswith(_AUXILIARY.get(name, ()))}


def _renamed(key: str) -> str:
    for old, new in _RENAMED:
        key = old.sub(new, key)
    return key


def preparation(name: str, file: str = "") -> Preparation:
    """What torchvision says of the weights published under this file name, else of its best ones.

    Its networks were mostly trained on bilinear resizing; here it is bicubic for all.
    """
    from torchvision.models import get_model_weights

    try:
        published = list(get_model_weights(name))
    except ValueError:
        return Preparation()
    best = get_model_weights(name).DEFAULT if published else None  # type: ignore[attr-defined]
    found = next((weights for weights in published if file and weights.url.endswith(f"/{file}")), best)
    if found is None:
        return Preparation()
    stated = found.transforms()
    (size,), (resize,) = stated.crop_size, stated.resize_size
    return Preparation(size, max(size, resize), tuple(stated.mean), tuple(stated.std))
