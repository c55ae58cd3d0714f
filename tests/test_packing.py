"""What is packed comes back bit for bit, of the type that is expected, or is refused."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from safetensors.torch import load_file, save_file
from small import CLASSES, images
from torch import Tensor

from classgraft.data.images import Images
from classgraft.errors import InputError
from classgraft.packing import Packed, bytes_of, packed, unpacked, without


@dataclass(frozen=True)
class Part:
    mean: Tensor
    count: int


@dataclass(frozen=True)
class Everything:
    parts: dict[str, Part]
    pair: tuple[int, str]
    many: tuple[Part, ...]
    pictures: Images | None
    nothing: Part | None
    sure: bool
    share: float
    kind: Literal["full", "diagonal"]
    bits: Tensor


def everything() -> Everything:
    whole = torch.arange(12.0).view(3, 4)
    return Everything(
        {"ant": Part(whole[0], 3), "b.mean": Part(whole[:, 1], 4), "b": Part(torch.tensor(2.5).half(), 0)},
        (7, "seven"),
        (Part(torch.zeros(0, 2), 1), Part(whole.T, 2)),
        images(6),
        None,
        True,
        0.1 + 0.2,
        "diagonal",
        torch.tensor([True, False]),
    )


def through_the_disk(given: Packed, folder: Path) -> Packed:
    save_file(dict(given.tensors), folder / "x.safetensors")
    return Packed(json.loads(json.dumps(given.plain)), load_file(folder / "x.safetensors"))


def leaves(given: Packed) -> list[tuple[str, torch.dtype, bytes]]:
    return [(name, tensor.dtype, tensor.numpy().tobytes()) for name, tensor in sorted(given.tensors.items())]


def test_everything_that_can_be_kept_comes_back_bit_for_bit(tmp_path: Path) -> None:
    value = everything()
    found = unpacked(Everything, through_the_disk(packed(value), tmp_path))
    assert isinstance(found.pictures, Images)
    assert (found.pair, found.sure, found.share, found.kind, found.nothing) == (
        (7, "seven"),
        True,
        0.1 + 0.2,
        "diagonal",
        None,
    )
    assert list(found.parts) == ["ant", "b.mean", "b"]
    assert (found.pictures.classes, found.pictures.preparation) == (CLASSES, value.pictures.preparation)  # type: ignore[union-attr]
    assert leaves(packed(found)) == leaves(packed(value))
    assert found.parts["b"].mean.dtype == torch.float16


def test_the_bytes_are_those_of_the_numbers_and_of_the_words() -> None:
    # 4 float32 take 16 bytes; the rest is the JSON: {"mean":{"tensor":"mean","shape":[4]},"count":3}
    assert bytes_of(Part(torch.zeros(4), 3)) == 16 + len('{"mean":{"tensor":"mean","shape":[4]},"count":3}')
    assert bytes_of(None) == 0
    whole = torch.zeros(1000, 4)
    assert bytes_of(Part(whole[0], 3)) == bytes_of(Part(torch.zeros(4), 3))  # not what it is a part of


@pytest.mark.parametrize(
    "value", [[1], {1: "a"}, {"a": object()}, {"a": {1}}], ids=["list", "number as key", "object", "set"]
)
def test_what_cannot_be_kept_is_a_mistake_of_the_method(value: Any) -> None:
    with pytest.raises(TypeError):
        packed(value)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"count": "many"}, "Part.count is 'many'"),
        ({"count": True}, "Part.count is True"),
        ({"mean": 3}, "Part.mean is no tensor"),
        ({"mean": {"tensor": "other", "shape": [4]}}, "Part.mean is no tensor"),
        ({"mean": {"tensor": "mean", "shape": [5]}}, "not of shape"),
        ({"surplus": 3}, "does not have the fields mean, count"),
    ],
    ids=str,
)
def test_what_does_not_fit_the_type_is_refused_by_its_place(change: dict[str, Any], words: str) -> None:
    given = packed(Part(torch.zeros(4), 3))
    with pytest.raises(ValueError, match=words):
        unpacked(Part, replace(given, plain={**given.plain, **change}))


def test_a_pair_is_a_pair_and_one_of_several_types_is_found() -> None:
    given = packed(everything())
    with pytest.raises(ValueError, match="pair has 1 parts, not 2"):
        unpacked(Everything, replace(given, plain={**given.plain, "pair": [7]}))
    with pytest.raises(ValueError, match="nothing does not have the fields"):
        unpacked(Everything, replace(given, plain={**given.plain, "nothing": {}}))
    with pytest.raises(ValueError, match="kind is 'half'"):
        unpacked(Everything, replace(given, plain={**given.plain, "kind": "half"}))


def test_no_name_of_a_type_is_read() -> None:
    assert "Part" not in json.dumps(packed(everything()).plain)


def test_a_class_goes_from_dictionaries_and_images() -> None:
    value = without(everything(), ["ant"])
    assert list(value.parts) == ["b.mean", "b"]
    assert value.pictures is not None
    assert value.pictures.classes == ("bee", "cow")
    assert len(value.pictures) == 4
    assert torch.equal(value.pictures.pixels, images(6).pixels[[1, 2, 4, 5]])
    assert without(everything(), ["none"]).parts.keys() == everything().parts.keys()


def test_images_that_stream_are_refused() -> None:
    class Streaming:
        dtype = torch.uint8

    with pytest.raises(InputError, match="too many to be kept"):
        packed({"pixels": Streaming()})
