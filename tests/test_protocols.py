"""Orders of classes, protocols, and the streams that they make."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from classgraft.data.images import Images, Task
from classgraft.errors import InputError
from classgraft.evaluator.orders import WRITTEN, ordered
from classgraft.evaluator.protocols import Domains, Equal, Protocol, Split, Stream
from classgraft.evaluator.settings import NAMED, named
from classgraft.models.preparation import Preparation

NAMES = tuple("abcdefg")


def numbered(each: int, names: tuple[str, ...] = NAMES, first: int = 0, side: int = 4) -> Images:
    """Every pixel of an image is its number, so that it can be told where an image went."""
    count = each * len(names)
    pixels = (torch.arange(count) + first).to(torch.uint8)[:, None, None, None].repeat(1, 3, side, side)
    return Images(pixels, torch.arange(count) % len(names), names, Preparation(side, side))


def steps(protocol: Protocol, each: int = 6, order: int | str = "given", seed: int = 0) -> list[tuple[Task, Images]]:
    return list(Stream(protocol, numbered(each), numbered(2, first=100), order, seed))


def which(images: Images) -> list[int]:
    return sorted(images.pixels[:, 0, 0, 0].tolist())


def test_the_order_of_a_seed_is_the_one_of_the_literature() -> None:
    names = tuple(map(str, range(100)))
    assert ordered(names, 1993)[:10] == ("68", "56", "78", "8", "23", "84", "90", "65", "74", "76")
    state = np.random.RandomState(7)
    assert ordered(NAMES, 7) == tuple(NAMES[k] for k in state.permutation(7))
    assert ordered(NAMES, "given") == NAMES


@pytest.mark.parametrize("name", list(WRITTEN))
def test_each_written_order_holds_every_class_once(name: str) -> None:
    names = tuple(map(str, range(100)))
    assert sorted(ordered(names, name)) == sorted(names)
    with pytest.raises(InputError, match="of 100 classes, but there are 7"):
        ordered(NAMES, name)


def test_an_order_that_is_not_there_is_a_sentence() -> None:
    with pytest.raises(InputError, match="no order 'podnet-9'"):
        ordered(NAMES, "podnet-9")
    with pytest.raises(InputError, match="from 0 to"):
        ordered(NAMES, -1)


def test_every_class_comes_once_with_all_of_its_images() -> None:
    found = steps(Split((3, 1, 3)), order=1993)
    assert [len(task.classes) for task, _ in found] == [3, 1, 3]
    assert tuple(name for task, _ in found for name in task.classes) == ordered(NAMES, 1993)
    for task, test in found:
        assert task.classes == task.train.classes == test.classes
    assert sorted(k for task, _ in found for k in which(task.train)) == list(range(42))
    assert sorted(k for _, test in found for k in which(test)) == list(range(100, 114))


@pytest.mark.parametrize(
    ("protocol", "sizes"),
    [
        (Equal(3, 2), [3, 2, 2]),
        (Equal(2, 3), [2, 3, 2]),
        (Equal(2, 2, 5), [2, 2, 1]),
        (Equal(7, 1), [7]),
        (Split((1, 5)), [1, 5]),
    ],
)
def test_steps_have_their_sizes(protocol: Protocol, sizes: list[int]) -> None:
    assert [len(task.classes) for task, _ in steps(protocol)] == sizes


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: steps(Split((4, 4))), "take 8 classes, but there are 7"),
        (lambda: steps(Equal(8, 1)), "8 first"),
        (lambda: steps(Equal(1, 0)), "0 at a time"),
        (lambda: Split(()), "one step at least"),
        (lambda: Split((2, 0)), "one class at least"),
        (lambda: Split((2,), shots=0), "one image a class"),
        (lambda: Split((2, 2), blur=1.0), "below 1"),
        (lambda: Split((2,), blur=0.5), "two steps"),
        (lambda: Domains("permuted", 0), "one at least"),
        (lambda: steps(Domains("permuted", 2)), "says nothing of pixels"),
    ],
)
def test_what_cannot_be_is_a_sentence(make: object, words: str) -> None:
    with pytest.raises(InputError, match=words):
        make()  # type: ignore[operator]


def test_few_shots_are_drawn_by_the_seed_after_the_first_step() -> None:
    first, second, _ = steps(Equal(3, 2, shots=2))
    assert len(first[0].train) == 18
    assert torch.bincount(second[0].train.labels).tolist() == [2, 2]
    assert len(second[1]) == 4, "all test images stay"
    again, other = steps(Equal(3, 2, shots=2))[1], steps(Equal(3, 2, shots=2), seed=1)[1]
    assert which(again[0].train) == which(second[0].train) != which(other[0].train)


@pytest.mark.parametrize("protocol", [Equal(2, 2), Split((3, 1), blur=0.5), Domains("rotated", 3)], ids=str)
def test_a_stream_tells_its_length_without_making_its_tasks(protocol: Protocol) -> None:
    stream = Stream(protocol, numbered(6), numbered(2), 1993, 0)
    assert stream.length == sum(len(task.train) for task, _ in stream)


def test_blurred_boundaries_deal_the_share_to_other_steps_and_lose_no_image() -> None:
    found = steps(Equal(3, 2, blur=0.5))
    assert sorted(k for task, _ in found for k in which(task.train)) == list(range(42))
    owners = [("a", "b", "c"), ("d", "e"), ("f", "g")]
    for (task, test), own in zip(found, owners, strict=True):
        assert task.classes[: len(own)] == test.classes == own
        counts = dict(zip(task.train.classes, torch.bincount(task.train.labels).tolist(), strict=True))
        assert all(counts[name] == 3 for name in own), "half of six stay"
        assert all(1 <= counts[name] <= 2 for name in counts if name not in own)
    assert all(len(task.classes) == 7 for task, _ in found)


def test_domains_change_pixels_and_nothing_else() -> None:
    train = Images(torch.arange(64, dtype=torch.uint8).view(1, 1, 8, 8).repeat(2, 3, 1, 1),
                   torch.tensor([0, 1]), ("a", "b"), Preparation(8, 8))  # fmt: skip
    first, second, third = list(Stream(Domains("permuted", 3), train, train, 5, 0))
    assert torch.equal(first[0].train.pixels, train.pixels)
    for task, test in (second, third):
        assert task.classes == ("a", "b")
        assert torch.equal(task.train.pixels, test.pixels), "the same places in training and in test"
        assert not torch.equal(task.train.pixels, train.pixels)
        assert torch.equal(task.train.pixels.flatten(2).sort(2).values, train.pixels.flatten(2))
        assert torch.equal(task.train.pixels[:, 0], task.train.pixels[:, 2]), "a pixel's channels stay together"
    assert not torch.equal(second[0].train.pixels, third[0].train.pixels)
    half = list(Stream(Domains("rotated", 2), train, train, 0, 0))[1][0]
    assert torch.equal(half.train.pixels, train.pixels.rot90(1, (2, 3))), "90 degrees of 180 in two steps"


def test_named_settings_have_the_steps_that_their_names_say() -> None:
    names = tuple(map(str, range(1000)))
    sizes = {name: [len(g) for g in setting.protocol.groups(names[:100] if "cifar" in name else names)]
             for name, setting in NAMED.items() if "mnist" not in name}  # fmt: skip
    for n in (5, 10, 20, 50):
        assert sizes[f"cifar100-b0-{n}"] == [100 // n] * n
    for n in (2, 5, 10):
        assert sizes[f"cifar100-b50-{n}"] == [50, *[50 // n] * n]
    assert sizes["cifar100-few-shot"] == [60, *[5] * 8]
    assert sizes["imagenet100-b0-10"] == [10] * 10
    assert sizes["imagenet1000-b0-10"] == [100] * 10
    assert sizes["imagenet1000-b500-5"] == [500, *[100] * 5]
    with pytest.raises(InputError, match="Did you mean 'cifar100-b0-10'"):
        named("cifar100-b0-1O")
