"""What a step changes: read, written back and fingerprinted, bit for bit."""

from __future__ import annotations

import gc
import hashlib
import types
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

Carried = nn.Module | Optimizer | Tensor | torch.Generator
"""A module (its parameters and every buffer), an optimiser, points that learn, or a generator that is drawn from."""


def state(carried: Carried) -> Any:
    """Tensors and plain values that are all there is to it; not copied."""
    match carried:
        case nn.Module():  # not state_dict: that leaves out buffers that are not persistent
            return dict(_tensors(carried))
        case Optimizer():
            return carried.state_dict()
        case torch.Generator():
            return carried.get_state()
        case Tensor():
            return carried.detach()


@torch.no_grad()
def restore(carried: Carried, saved: Any) -> None:
    """Write back what ``state`` read, in place."""
    match carried:
        case nn.Module():
            for name, tensor in _tensors(carried):
                tensor.copy_(saved[name])
        case Optimizer():
            carried.load_state_dict(saved)
        case torch.Generator():
            carried.set_state(saved)
        case Tensor():
            carried.copy_(saved)


def digest(*values: Any) -> str:
    """SHA-256 over tensors, carried things and plain values, in hexadecimal."""
    hashed = hashlib.sha256()
    for value in values:
        _feed(hashed, value)
    return hashed.hexdigest()


def undeclared(take: Callable[[], object], step: object, carries: Sequence[Carried]) -> list[str]:
    """Call ``take`` once and tell what ``step`` can reach that moved although ``carries`` does not name it.

    Looked at is every module, tensor and generator that a function's closure, a container or an object's fields lead to.
    """
    declared = {id(tensor) for carried in carries for tensor in tensors(carried)} | {id(carried) for carried in carries}
    watched = {id(found): found for found in _reachable(step) if id(found) not in declared}
    before = {key: digest(found) for key, found in watched.items()}
    take()
    return [_describe(found) for key, found in watched.items() if digest(found) != before[key]]


def _tensors(module: nn.Module) -> Iterator[tuple[str, Tensor]]:
    yield from module.named_parameters()
    yield from module.named_buffers()


def tensors(carried: Carried) -> Iterator[Tensor]:
    """Every tensor in it."""
    match carried:
        case nn.Module():
            yield from (tensor for _, tensor in _tensors(carried))
        case Optimizer():
            for held in carried.state.values():
                yield from (value for value in held.values() if isinstance(value, Tensor))
        case Tensor():
            yield carried


def _feed(hashed: Any, value: Any) -> None:
    match value:
        case nn.Module() | Optimizer() | torch.Generator():
            _feed(hashed, state(value))
        case Tensor():
            flat = value.detach().cpu().contiguous().reshape(-1)
            hashed.update(f"{value.dtype}{tuple(value.shape)}".encode())
            hashed.update(flat.view(torch.uint8).numpy())
        case dict():
            for key, held in value.items():
                hashed.update(repr(key).encode())
                _feed(hashed, held)
        case list() | tuple():
            hashed.update(str(len(value)).encode())
            for held in value:
                _feed(hashed, held)
        case _:
            hashed.update(repr(value).encode())


_OPAQUE = (type, types.ModuleType, types.FrameType, types.CodeType, types.BuiltinFunctionType, str, bytes, int, float)


def _reachable(root: object) -> Iterator[Tensor | torch.Generator | Optimizer]:
    seen: set[int] = set()
    todo = [root]
    while todo:
        found = todo.pop()
        if id(found) in seen or isinstance(found, _OPAQUE):
            continue
        seen.add(id(found))
        if isinstance(found, Tensor | torch.Generator | Optimizer):
            yield found
        if isinstance(found, Optimizer):
            todo.extend(parameter for group in found.param_groups for parameter in group["params"])
        elif isinstance(found, types.FunctionType):  # its globals would lead everywhere
            todo.extend(held for cell in found.__closure__ or () for held in gc.get_referents(cell))
            todo.extend((found.__defaults__ or ()) + tuple((found.__kwdefaults__ or {}).values()))
        elif not isinstance(found, Tensor):
            todo.extend(gc.get_referents(found))


def _describe(found: object) -> str:
    return f"{type(found).__name__} {tuple(found.shape) if isinstance(found, Tensor) else ''}".strip()
