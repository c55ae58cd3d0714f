"""What a method keeps, as JSON and tensors and back; which classes it speaks of, and how many bytes it takes.

A value is a tensor, a number, a string, a truth value, None, a tuple, a string-keyed dictionary, or a frozen dataclass of
these. What is read names no type: the reader says which it expects, so nothing in a file chooses what is made of it.
"""

from __future__ import annotations

import dataclasses
import json
import types
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

from torch import Tensor

from classgraft.errors import InputError

Value = TypeVar("Value")


@dataclass(frozen=True)
class Packed:
    """A value without its types."""

    plain: Any
    """JSON, in which ``{"tensor": name, "shape": [...]}`` stands for a tensor."""
    tensors: Mapping[str, Tensor]

    @property
    def nbytes(self) -> int:
        """Of the tensors and of the JSON as UTF-8."""
        text = json.dumps(self.plain, ensure_ascii=False, separators=(",", ":"))
        return sum(tensor.nbytes for tensor in self.tensors.values()) + len(text.encode())


def packed(value: object) -> Packed:
    """The value as JSON and tensors, these on the CPU, contiguous and none within another.

    Raises:
        InputError: images that stream from the disk are in it; they are too many to be kept.
        TypeError: it is of no type that can be kept.
    """
    tensors: dict[str, Tensor] = {}
    return Packed(_pack(value, "", tensors), tensors)


def _pack(value: object, path: str, tensors: dict[str, Tensor]) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, Tensor):
        name = path if path not in tensors else f"{path}#{len(tensors)}"
        kept = value.detach().cpu().contiguous()
        whole = kept.untyped_storage().nbytes() == kept.nbytes
        held = {tensor.untyped_storage().data_ptr() for tensor in tensors.values()}
        tensors[name] = kept if whole and kept.untyped_storage().data_ptr() not in held else kept.clone()
        return {"tensor": name, "shape": list(value.shape)}
    if isinstance(value, tuple):
        return [_pack(item, _under(path, str(i)), tensors) for i, item in enumerate(value)]
    if isinstance(value, Mapping):
        if not all(isinstance(key, str) for key in value):
            raise TypeError(f"the keys of {path or 'a memory'} are not strings")
        return {key: _pack(item, _under(path, key), tensors) for key, item in value.items()}
    if hasattr(value, "dtype"):  # squares that are read from the disk when they are needed
        raise InputError("These images are too many to be kept in a bundle; give fewer, or choose another method.")
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        return {
            field.name: _pack(getattr(value, field.name), _under(path, field.name), tensors)
            for field in dataclasses.fields(value)
        }
    raise TypeError(f"{path or 'a memory'} is {type(value).__name__}, which cannot be kept")


def _under(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name


def unpacked(kind: type[Value] | types.UnionType, given: Packed) -> Value:
    """The value again, of the type that is expected, or of the first of several that it fits.

    Raises:
        ValueError: it does not fit that type.
    """
    return _unpack(kind, given.plain, given.tensors, getattr(kind, "__name__", "it"))  # type: ignore[no-any-return]


def _unpack(kind: Any, plain: Any, tensors: Mapping[str, Tensor], path: str) -> Any:
    made, arguments = get_origin(kind), get_args(kind)
    if made is Union or made is types.UnionType:
        return _first_fitting(arguments, plain, tensors, path)
    if kind is Tensor:
        if not isinstance(plain, dict) or plain.keys() != {"tensor", "shape"} or plain["tensor"] not in tensors:
            raise ValueError(f"{path} is no tensor")
        if list(tensors[plain["tensor"]].shape) != plain["shape"]:
            raise ValueError(f"{path} is not of shape {plain['shape']}")
        return tensors[plain["tensor"]]
    if made is tuple:
        if not isinstance(plain, list):
            raise ValueError(f"{path} is no list")
        kinds = [arguments[0]] * len(plain) if arguments[1:] == (...,) else list(arguments)
        if len(kinds) != len(plain):
            raise ValueError(f"{path} has {len(plain)} parts, not {len(kinds)}")
        parts = zip(kinds, plain, strict=True)
        return tuple(_unpack(each, item, tensors, f"{path}.{i}") for i, (each, item) in enumerate(parts))
    if isinstance(made, type) and issubclass(made, Mapping):
        if not isinstance(plain, dict):
            raise ValueError(f"{path} is no object")
        return {key: _unpack(arguments[1], item, tensors, f"{path}.{key}") for key, item in plain.items()}
    if dataclasses.is_dataclass(kind):
        hints, names = get_type_hints(kind), [field.name for field in dataclasses.fields(kind)]
        if not isinstance(plain, dict) or plain.keys() != set(names):
            raise ValueError(f"{path} does not have the fields {', '.join(names)}")
        return kind(**{name: _unpack(hints[name], plain[name], tensors, f"{path}.{name}") for name in names})  # type: ignore[operator]
    if kind is float and type(plain) is int:
        plain = float(plain)
    fits = plain in arguments if made is Literal else plain is None if kind is type(None) else type(plain) is kind
    if not fits:
        raise ValueError(f"{path} is {plain!r:.60}")
    return plain


def _first_fitting(kinds: Sequence[Any], plain: Any, tensors: Mapping[str, Tensor], path: str) -> Any:
    reasons = []
    for kind in kinds:
        try:
            return _unpack(kind, plain, tensors, path)
        except ValueError as error:
            reasons.append(str(error))
    raise ValueError("; ".join(reasons))


def without(value: Value, names: Sequence[str]) -> Value:
    """The value without what it holds of these classes.

    Entries of dictionaries go by their keys; a dataclass that holds its classes in another way, such as rows of a tensor,
    has a method ``without(names)`` of its own.
    """
    own: Callable[[Sequence[str]], Value] | None = getattr(value, "without", None)
    if own is not None:
        return own(names)
    if isinstance(value, Mapping):
        return {key: without(item, names) for key, item in value.items() if key not in names}  # type: ignore[return-value]
    if isinstance(value, tuple):
        return tuple(without(item, names) for item in value)  # type: ignore[return-value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        parts = {field.name: without(getattr(value, field.name), names) for field in dataclasses.fields(value)}
        return dataclasses.replace(value, **parts)  # type: ignore[return-value]
    return value


def merged(value: Value, first: str, second: str) -> Value:
    """The value for a classifier in which two classes are one, under the first's name.

    What has a method ``merged(first, second)`` of its own, as images have, says how; else what it holds of the second goes.
    """
    own: Callable[[str, str], Value] | None = getattr(value, "merged", None)
    if own is not None:
        return own(first, second)
    if getattr(value, "without", None) is not None:
        return without(value, [second])
    if isinstance(value, Mapping):
        return {key: merged(item, first, second) for key, item in value.items() if key != second}  # type: ignore[return-value]
    if isinstance(value, tuple):
        return tuple(merged(item, first, second) for item in value)  # type: ignore[return-value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        parts = {field.name: merged(getattr(value, field.name), first, second) for field in dataclasses.fields(value)}
        return dataclasses.replace(value, **parts)  # type: ignore[return-value]
    return value


def renamed(value: Value, old: str, new: str) -> Value:
    """The value with another name for a class: as a key of dictionaries, and in tuples of names called ``classes``."""
    if isinstance(value, Mapping):
        return {new if key == old else key: renamed(item, old, new) for key, item in value.items()}  # type: ignore[return-value]
    if isinstance(value, tuple):
        return tuple(renamed(item, old, new) for item in value)  # type: ignore[return-value]
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        parts = {field.name: renamed(getattr(value, field.name), old, new) for field in dataclasses.fields(value)}
        if isinstance(parts.get("classes"), tuple):
            parts["classes"] = tuple(new if name == old else name for name in parts["classes"])
        return dataclasses.replace(value, **parts)  # type: ignore[return-value]
    return value


def bytes_of(value: object) -> int:
    """How many bytes are needed to keep the value; None needs none."""
    return 0 if value is None else packed(value).nbytes


def words(value: object) -> Iterator[str]:
    """Every string in the value, keys of dictionaries included: the names of the classes that it speaks of are among them."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, Mapping):
        yield from value
        value = tuple(value.values())
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        value = tuple(getattr(value, field.name) for field in dataclasses.fields(value))
    if isinstance(value, tuple):
        for item in value:
            yield from words(item)
