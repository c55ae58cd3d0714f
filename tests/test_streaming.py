"""Images that do not fit: the same bits as in memory, from any place in an epoch, in bounded memory."""

from __future__ import annotations

import io
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from small import classifier

from classgraft.data.images import Images, joined
from classgraft.data.sources import Photo, Source, load
from classgraft.data.squares import Squares, streams
from classgraft.data.streaming import load_within
from classgraft.errors import InputError
from classgraft.models.preparation import Preparation
from classgraft.training.answers import answers
from classgraft.training.carries import digest
from classgraft.training.loop import Epochs, fit
from classgraft.training.recipe import Recipe

SIDE = 14
PREPARATION = Preparation(12, SIDE)
RECIPE = Recipe(epochs=2, batch_size=8, lr=0.05)
CPU = torch.device("cpu")


def png(seed: int) -> bytes:
    pixels = np.random.default_rng(seed).integers(0, 256, (20, 17, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "png")
    return file.getvalue()


def source(count: int = 60, broken: tuple[int, ...] = ()) -> Source:
    photos = [Photo(f"{i}.png", lambda i=i: b"broken" if i in broken else png(i)) for i in range(count)]  # type: ignore[misc]
    return Source(("a", "b", "c"), tuple(photos), tuple(i % 3 for i in range(count)))


def both(count: int = 60, broken: tuple[int, ...] = ()) -> tuple[Images, Images]:
    found = []
    for loaded in (load(source(count, broken), SIDE), load_within(source(count, broken), SIDE, 3000)):
        found.append(Images(loaded.pixels, loaded.labels, ("a", "b", "c"), PREPARATION, loaded.names))
    assert not streams(found[0].pixels)
    assert streams(found[1].pixels)
    return found[0], found[1]


def equal(one: Images, two: Images) -> bool:
    return (
        torch.equal(one.pixels[torch.arange(len(one))], two.pixels[torch.arange(len(two))])
        and torch.equal(one.labels, two.labels)
        and (one.names, one.classes) == (two.names, two.classes)
    )


@pytest.mark.parametrize("broken", [(), (0, 5), tuple(range(4, 9)), (59,)])
def test_what_streams_is_what_would_lie_in_memory(broken: tuple[int, ...]) -> None:
    here, there = both(broken=broken)
    assert equal(here, there)
    assert there.pixels.shape == here.pixels.shape
    assert torch.equal(there.pixels[3], here.pixels[3])
    assert torch.equal(there.pixels[2:5], here.pixels[2:5])
    told = [load(source(broken=broken), SIDE), load_within(source(broken=broken), SIDE, 3000)]
    assert told[0].skipped == told[1].skipped
    assert told[0].kept == told[1].kept
    assert here.fingerprint == there.fingerprint


def test_parts_stream_too() -> None:
    here, there = both()
    for pick in (
        lambda images: images.subset(torch.tensor([5, 3, 3])),
        lambda images: images.of(("c", "a")),
        lambda images: images.shots(4, 0),
        lambda images: images.split(0.3, 0)[0],
        lambda images: joined(images, images.of(("b",))),
        lambda images: joined(images.of(("b",)), here.of(("a",))),
        lambda images: joined(here.of(("b",)), images.shots(2, 1)),
    ):
        assert equal(pick(here), pick(there))
        assert streams(pick(there).pixels)


def test_training_and_answers_are_bit_equal() -> None:
    found = []
    for images in both():
        model = classifier()
        images = replace(images, classes=model.classes)
        history = fit(
            model, lambda batch, m=model: {"class": F.cross_entropy(m(batch.images), batch.targets)}, images, RECIPE
        )  # type: ignore[misc]
        found.append((digest(model), history.epochs, digest(answers(model, images))))
    assert found[0] == found[1]


def test_an_epoch_goes_on_from_any_batch_and_reads_no_earlier_one(monkeypatch: pytest.MonkeyPatch) -> None:
    here, there = both()
    read: list[int] = []
    original = Squares._read
    monkeypatch.setattr(Squares, "_read", lambda self, rows: (read.append(len(rows)), original(self, rows))[1])
    whole = list(Epochs(here, RECIPE, CPU)(1))
    for batch, same in zip(Epochs(there, RECIPE, CPU)(1, 5), whole[5:], strict=True):
        assert torch.equal(batch.images, same.images)
        assert torch.equal(batch.targets, same.targets)
    assert sum(read) == sum(len(batch.index) for batch in whole[5:])


def test_an_epoch_that_is_left_leaves_no_thread_at_work() -> None:
    _, there = both()
    epoch = Epochs(there, RECIPE, CPU)(0)
    next(epoch)
    epoch.close()  # type: ignore[attr-defined]


def test_a_class_left_empty_and_strict_are_refused_as_in_memory() -> None:
    for broken, strict in ((tuple(range(0, 60, 3)), False), ((7,), True)):
        said = []
        for budget in (1 << 30, 3000):
            with pytest.raises(InputError) as error:
                load_within(source(60, broken), SIDE, budget, strict=strict)
            said.append(str(error.value))
        assert said[0] == said[1]


HUNGRY = """
import resource, torch
from classgraft.data.sources import Photo, Source
from classgraft.data.streaming import load_within
from classgraft.data.images import Images
from classgraft.models.preparation import Preparation
from classgraft.training.loop import Epochs
from classgraft.training.recipe import Recipe
side, count = 128, 5200
header = f"P6 {side} {side} 255\\n".encode()
photos = tuple(Photo(str(i), lambda i=i: header + bytes([i % 251]) * (side * side * 3)) for i in range(count))
budget = count * 3 * side * side // 4
def read(count, budget):
    loaded = load_within(Source(("a",), photos[:count], (0,) * count), side, budget)
    images = Images(loaded.pixels, loaded.labels, ("a",), Preparation(side, side))
    for batch in Epochs(images, Recipe(batch_size=32, augment="none"), torch.device("cpu"))(0):
        pass
read(300, 1 << 20)  # what the libraries need
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
read(count, budget)
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 / budget)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="ru_maxrss counts differently")
def test_four_times_the_budget_stays_within_it() -> None:
    """Peak memory grows by less than the budget while 256 MB of pixels stream under one of 64 MB (in memory: four times)."""
    found = subprocess.run([sys.executable, "-c", HUNGRY], capture_output=True, text=True, check=True)
    assert float(found.stdout) < 1.0


def test_a_file_cut_short_is_an_error(tmp_path: Path) -> None:
    _, there = both()
    store = there.pixels.stores[0]  # type: ignore[attr-defined]
    store.file.truncate(100)
    with pytest.raises(InputError, match="cut short"):
        there.pixels[torch.tensor([59])]
