"""Networks whose parts have been changed: structural modules, and the JSON tree that says where they stand.

A changed network is a plain one (timm's, say) in which some named parts have given way to structural modules, each of
which holds what stood there before, once or several times, and adds to it. The tree names kinds of a closed list and
numbers; no code and no import string is read from it (``classgraft.models.kinds``).

    {"kind": "plain", "parts": {"layer4": {"kind": "adapter", "inside": 256, ..., "inner": [{"kind": "plain"}]}}}
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

from torch import nn

Spec = Mapping[str, Any]
"""A tree of JSON values."""
PLAIN: Spec = {"kind": "plain"}


class Structure(nn.Module, ABC):
    """A module in the place of a plain network's part; made by ``type(self)(inner, **settings)``."""

    kind: ClassVar[str]

    @property
    @abstractmethod
    def inner(self) -> Sequence[nn.Module]:
        """What stood in its place, at least once, possibly changed itself."""

    @property
    @abstractmethod
    def settings(self) -> dict[str, int]:
        """All that its shape depends on beside ``inner``."""

    def before(self) -> nn.Module:
        """What stood in its place, in the shape that it had there."""
        return self.inner[0]


def spec(module: nn.Module) -> Spec:
    """The tree of a network, or of a part."""
    if isinstance(module, Structure):
        return {"kind": module.kind, **module.settings, "inner": [spec(part) for part in module.inner]}
    parts = {name: spec(part) for name, part in _outermost(module)}
    return {**PLAIN, "parts": parts} if parts else PLAIN


def plain(module: nn.Module) -> nn.Module:
    """A copy of the network as it was before anything was changed (with the weights that it has now)."""
    if isinstance(module, Structure):
        return plain(module.before())
    copy_ = copy.deepcopy(module)
    for name, part in _outermost(copy_):
        copy_ = with_part(copy_, name, plain(part))
    return copy_


def with_part(module: nn.Module, name: str, part: nn.Module) -> nn.Module:
    """The module with another part of this dotted name; the part itself for the empty name."""
    if not name:
        return part
    parent, _, last = name.rpartition(".")
    setattr(module.get_submodule(parent), last, part)
    return module


def _outermost(module: nn.Module) -> list[tuple[str, Structure]]:
    """The structural parts that lie in no other."""
    found: list[tuple[str, Structure]] = []
    for name, part in module.named_modules():
        if isinstance(part, Structure) and not any(name.startswith(f"{outer}.") for outer, _ in found):
            found.append((name, part))
    return found
