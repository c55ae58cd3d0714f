"""Networks whose parts have been changed: structural modules, and the JSON tree that says where they stand.

A changed network is a plain one (timm's, say) in which some named parts have given way to structural modules, each of
which holds what stood there before, once or several times, and adds to it. The tree names kinds of a closed list and
numbers; no code and no import string is read from it.

    {"kind": "plain", "parts": {"layer4": {"kind": "adapter", "inside": 256, ..., "inner": [{"kind": "plain"}]}}}
"""

from __future__ import annotations

import copy
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

from torch import nn

from classgraft.errors import InputError

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


def build(tree: Spec, plain: nn.Module) -> nn.Module:
    """The network that a tree describes, on copies of the plain one; the weights that it adds have no values yet.

    Raises:
        InputError: for a kind that is not known here.
    """
    kinds = _kinds()
    if tree["kind"] == "plain":
        module = copy.deepcopy(plain)
        for name, part in tree.get("parts", {}).items():
            module = with_part(module, name, build(part, module.get_submodule(name)))
        return module
    if tree["kind"] not in kinds:
        raise InputError(
            f"it has a part of the kind '{tree['kind']}', which this classgraft does not know; upgrade it."
        )
    settings = {key: _size(value) for key, value in tree.items() if key not in ("kind", "inner")}
    return kinds[tree["kind"]]([build(part, plain) for part in tree["inner"]], **settings)


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


def _kinds() -> dict[str, Callable[..., Structure]]:
    """The closed list."""
    from classgraft.models.adapter import Adapter  # these are built on this file
    from classgraft.models.gated import Gated
    from classgraft.models.masked import Masked
    from classgraft.models.normalised import Normalised
    from classgraft.models.proxies import Proxies
    from classgraft.models.pruned import Pruned
    from classgraft.models.side_by_side import SideBySide

    kinds = (Adapter, Gated, Masked, Normalised, Proxies, Pruned, SideBySide)
    return {kind.kind: kind for kind in kinds}


def _size(value: object) -> int:
    """A number from a file, which must not be able to ask for all memory."""
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= 1 << 16:
        raise InputError(f"it states {value!r} where a size stands.")
    return value
