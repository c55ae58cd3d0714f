"""The closed list of structural modules, and networks made again from the trees that name them."""

from __future__ import annotations

import copy
from collections.abc import Callable

from torch import nn

from classgraft.errors import InputError
from classgraft.models.adapter import Adapter
from classgraft.models.gated import Gated
from classgraft.models.masked import Masked
from classgraft.models.normalised import Normalised
from classgraft.models.proxies import Proxies
from classgraft.models.pruned import Pruned
from classgraft.models.side_by_side import SideBySide
from classgraft.models.structure import Spec, Structure, with_part

KINDS: dict[str, Callable[..., Structure]] = {
    kind.kind: kind for kind in (Adapter, Gated, Masked, Normalised, Proxies, Pruned, SideBySide)
}


def build(tree: Spec, plain: nn.Module) -> nn.Module:
    """The network that a tree describes, on copies of the plain one; the weights that it adds have no values yet.

    Raises:
        InputError: for a kind that is not known here.
    """
    if tree["kind"] == "plain":
        module = copy.deepcopy(plain)
        for name, part in tree.get("parts", {}).items():
            module = with_part(module, name, build(part, module.get_submodule(name)))
        return module
    if tree["kind"] not in KINDS:
        raise InputError(
            f"it has a part of the kind '{tree['kind']}', which this classgraft does not know; upgrade it."
        )
    settings = {key: _size(value) for key, value in tree.items() if key not in ("kind", "inner")}
    return KINDS[tree["kind"]]([build(part, plain) for part in tree["inner"]], **settings)


def _size(value: object) -> int:
    """A number from a file, which must not be able to ask for all memory."""
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= 1 << 16:
        raise InputError(f"it states {value!r} where a size stands.")
    return value
