"""Sets of images: what the network sees of them, and how they are divided."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import Tensor

from classgraft.data.augment import AUGMENTATIONS, augmentation
from classgraft.data.images import Images, joined
from classgraft.errors import InputError
from classgraft.models.preparation import Preparation, usual_resize

CPU = torch.device("cpu")
CLASSES = ("ant", "bee", "cow")
PREPARATION = Preparation(8, 12, (0.5, 0.4, 0.3), (0.2, 0.25, 0.5))
AS_IT_IS = Preparation(8, 8, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))


def drawn(counts: tuple[int, ...] = (5, 3, 4), preparation: Preparation = PREPARATION) -> Images:
    """Random pixels, classes mixed up, each image named by its class and number."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(len(counts)).repeat_interleave(torch.tensor(counts))
    labels = labels[torch.randperm(len(labels), generator=generator)]
    side = preparation.resize
    pixels = torch.randint(0, 256, (len(labels), 3, side, side), dtype=torch.uint8, generator=generator)
    names = tuple(f"{CLASSES[label]}/{i}.png" for i, label in enumerate(labels.tolist()))
    return Images(pixels, labels, CLASSES[: len(counts)], preparation, names)


def by_name(images: Images) -> dict[str, Tensor]:
    """Pixels by name; checks that names, labels and pixels still go together."""
    for name, label in zip(images.names, images.labels.tolist(), strict=True):
        assert name.split("/")[0] == images.classes[label]
    return dict(zip(images.names, images.pixels, strict=True))


def same(one: Images, other: Images) -> bool:
    return torch.equal(one.pixels, other.pixels) and torch.equal(one.labels, other.labels) and one.names == other.names


def test_each_image_needs_a_label() -> None:
    with pytest.raises(InputError, match="12 images but 11 labels"):
        replace(drawn(), labels=torch.zeros(11, dtype=torch.int64))


@pytest.mark.parametrize("label", [-1, 3])
def test_a_label_without_a_class_name_is_refused(label: int) -> None:
    with pytest.raises(InputError, match=f"{label}.* 3 class names"):
        replace(drawn(), labels=torch.tensor([label] + 11 * [1]))


@pytest.mark.parametrize(
    ("pixels", "says"),
    [
        (torch.zeros(12, 3, 16, 16, dtype=torch.uint8), "uint8 (12, 3, 16, 16); give squares of 12 pixels"),
        (torch.zeros(12, 3, 8, 8, dtype=torch.uint8), "squares of 12 pixels"),
        (torch.zeros(12, 3, 12, 16, dtype=torch.uint8), "squares of 12 pixels"),
        (torch.zeros(12, 1, 12, 12, dtype=torch.uint8), "uint8 (12, 1, 12, 12), but their preparation has means"),
        (torch.zeros(12, 3, 12, 16), "float32 (12, 3, 12, 16); give squares of at least 8 pixels"),
        (torch.zeros(12, 3, 7, 7), "squares of at least 8 pixels"),
        (torch.zeros(12, 8, 8), "squares of at least 8 pixels"),
    ],
)
def test_pixels_of_which_the_network_would_see_a_corner_are_refused(pixels: Tensor, says: str) -> None:
    with pytest.raises(InputError) as error:
        replace(drawn(), pixels=pixels)
    assert says in str(error.value)


@pytest.mark.parametrize(
    ("mean", "std"),
    [((123.675, 116.28, 103.53), (58.395, 57.12, 57.375)), ((0.5,) * 3, (127.5,) * 3), ((-1.0, 0.0, 0.0), (1.0,) * 3)],
)
def test_a_mean_and_deviation_of_pixels_up_to_255_are_refused(mean: tuple[float, ...], std: tuple[float, ...]) -> None:
    with pytest.raises(InputError, match="pixels run from 0 to 1; divide by 255"):
        Preparation(8, 8, mean, std)  # type: ignore[arg-type]


def test_a_network_that_takes_pixels_up_to_255_can_be_told() -> None:
    pixels = torch.rand(2, 3, 8, 8)
    told = Preparation(8, 8, (0.0,) * 3, (1 / 255,) * 3)
    torch.testing.assert_close(told.normalise(pixels), 255 * pixels)


def test_the_network_sees_the_normalised_centre() -> None:
    images = drawn()
    seen = images.view(torch.tensor([4, 1]), CPU)
    for row, place in enumerate((4, 1)):
        for channel, (mean, std) in enumerate(zip(PREPARATION.mean, PREPARATION.std, strict=True)):
            middle = images.pixels[place, channel, 2:10, 2:10].double()
            torch.testing.assert_close(seen[row, channel].double(), (middle / 255 - mean) / std, atol=1e-6, rtol=1e-6)


def test_looking_changes_no_pixel() -> None:
    for images in (drawn(), replace(drawn(preparation=AS_IT_IS), pixels=torch.rand(12, 3, 8, 8))):
        before = images.pixels.clone()
        for name in AUGMENTATIONS:
            images.view(torch.arange(12), CPU, augmentation(name)).add_(1)
        assert torch.equal(images.pixels, before)


def test_prepared_floats_pass_as_they_are() -> None:
    pixels = 9 * torch.randn(12, 3, 8, 8)
    images = replace(drawn(preparation=AS_IT_IS), pixels=pixels)
    assert torch.equal(images.view(torch.arange(12), CPU), pixels)


@pytest.mark.parametrize(
    "channels",
    [
        1,
        5,
    ],
)
def test_prepared_floats_may_have_any_number_of_channels(channels: int) -> None:
    pixels = torch.rand(12, channels, 8, 8)
    assert torch.equal(replace(drawn(preparation=AS_IT_IS), pixels=pixels).view(torch.arange(12), CPU), pixels)


@pytest.mark.parametrize("name", sorted(set(AUGMENTATIONS) - {"none"}))
def test_an_augmentation_depends_on_seed_epoch_and_place_and_not_on_the_batch(name: str) -> None:
    images = drawn((40,))
    places, augment = torch.arange(40), augmentation(name)
    whole = images.view(places, CPU, augment, seed=1, epoch=2)
    order = torch.randperm(40, generator=torch.Generator().manual_seed(0))
    parts = [images.view(part, CPU, augment, seed=1, epoch=2) for part in order.split(7)]
    torch.testing.assert_close(torch.cat(parts), whole[order], atol=1e-5, rtol=0)
    for seed, epoch in ((2, 2), (1, 3)):
        other = images.view(places, CPU, augment, seed=seed, epoch=epoch)
        changed = (other - whole).abs().flatten(1).amax(1) > 1e-3
        assert changed.float().mean() > 0.25


@pytest.mark.parametrize(("canvas", "size"), [(12, 8), (8, 8), (32, 32)])
def test_every_crop_flip_is_a_square_of_the_canvas_padded_by_an_eighth_or_its_mirror_image(
    canvas: int, size: int
) -> None:
    generator = torch.Generator().manual_seed(0)
    pixels = torch.rand(1, 3, canvas, canvas, generator=generator).expand(60, -1, -1, -1)
    pad = size // 8 if canvas == size else 0
    padded = torch.nn.functional.pad(pixels[0], [pad] * 4)
    room = range(canvas + 2 * pad - size + 1)
    squares = {(y, x): padded[:, y : y + size, x : x + size] for y in room for x in room}
    known = {square.numpy().tobytes(): (*at, False) for at, square in squares.items()}
    known |= {square.flip(-1).numpy().tobytes(): (*at, True) for at, square in squares.items()}
    seen = augmentation("crop-flip")(pixels, size, torch.rand(60, 8, generator=generator))
    found = [known[square.numpy().tobytes()] for square in seen.contiguous()]
    for coordinate, values in zip(zip(*found, strict=True), (room, room, (False, True)), strict=True):
        assert {min(coordinate), max(coordinate)} == {values[0], values[-1]}


def test_an_unknown_augmentation_suggests_the_nearest() -> None:
    with pytest.raises(InputError, match=r"'cropflip'.*Did you mean 'crop-flip'.*Known: "):
        augmentation("cropflip")


def test_a_subset_takes_pixels_labels_and_names_along() -> None:
    images = drawn()
    part = images.subset(torch.tensor([7, 2, 2]))
    assert part.names == (images.names[7], images.names[2], images.names[2])
    assert torch.equal(part.pixels, images.pixels[[7, 2, 2]])
    assert torch.equal(part.labels, images.labels[[7, 2, 2]])


@pytest.mark.parametrize("classes", [("cow", "ant"), ("bee",), ("cow", "bee", "ant"), ()])
def test_of_keeps_these_classes_and_numbers_them_anew(classes: tuple[str, ...]) -> None:
    images = drawn()
    part = images.of(classes)
    wanted = {name: pixels for name, pixels in by_name(images).items() if name.split("/")[0] in classes}
    assert part.classes == classes
    assert by_name(part).keys() == wanted.keys()
    assert all(torch.equal(pixels, wanted[name]) for name, pixels in by_name(part).items())


def test_of_takes_names_of_which_there_is_no_image() -> None:
    part = drawn().of(("bee", "yak", "ant"))
    assert part.classes == ("bee", "yak", "ant")
    assert part.counts == {"bee": 3, "yak": 0, "ant": 5}


def test_images_without_labels_are_counted_in_no_class() -> None:
    assert replace(drawn(), labels=torch.zeros(12, dtype=torch.int64), classes=()).counts == {}


@pytest.mark.parametrize("count", [1, 3, 4, 9])
def test_shots_are_that_many_different_images_of_each_class_or_all(count: int) -> None:
    images = drawn()
    part = images.shots(count, seed=0)
    assert torch.bincount(part.labels).tolist() == [min(count, n) for n in (5, 3, 4)]
    assert len(by_name(part)) == len(part)
    assert by_name(part).keys() <= by_name(images).keys()


def test_shots_are_drawn_by_the_seed() -> None:
    images = drawn((200, 200))
    assert same(images.shots(5, seed=3), images.shots(5, seed=3))
    assert not same(images.shots(5, seed=3), images.shots(5, seed=4))


@pytest.mark.parametrize(
    ("counts", "fraction", "expected"),
    [((10, 20, 30), 0.3, [3, 6, 9]), ((10, 2, 1), 0.1, [1, 1, 0]), ((4, 4, 4), 0.5, [2, 2, 2])],
)
def test_a_split_is_stratified_and_complete(counts: tuple[int, ...], fraction: float, expected: list[int]) -> None:
    images = drawn(counts)
    first, second = images.split(fraction, seed=0)
    assert torch.bincount(second.labels, minlength=3).tolist() == expected
    assert by_name(first).keys() | by_name(second).keys() == by_name(images).keys()
    assert not by_name(first).keys() & by_name(second).keys()


def test_a_split_is_drawn_by_the_seed() -> None:
    images = drawn((50, 50))
    assert all(same(*pair) for pair in zip(images.split(0.2, 1), images.split(0.2, 1), strict=True))
    assert not same(images.split(0.2, 1)[1], images.split(0.2, 2)[1])


def test_drawing_leaves_the_global_generators_alone() -> None:
    import numpy as np

    torch_before, numpy_before = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
    drawn().shots(2, 0)
    drawn().split(0.5, 0)
    assert torch.equal(torch.get_rng_state(), torch_before)
    assert (np.random.get_state()[1] == numpy_before).all()  # noqa: NPY002


def test_joined_sets_have_the_classes_of_the_first_then_those_it_lacks() -> None:
    first, second = drawn().of(("cow", "ant")), drawn().of(("bee", "cow"))
    both = joined(first, second)
    assert both.classes == ("cow", "ant", "bee")
    assert torch.bincount(both.labels).tolist() == [8, 5, 3]
    by_name(both)
    assert torch.equal(both.pixels, torch.cat([first.pixels, second.pixels]))


@pytest.mark.parametrize(
    "nameless",
    [
        0,
        1,
    ],
)
def test_joined_sets_have_a_name_for_each_image_or_none(nameless: int) -> None:
    parts = [drawn(), drawn()]
    parts[nameless] = replace(parts[nameless], names=())
    both = joined(*parts)
    assert len(both.names) in (0, len(both))


@pytest.mark.parametrize(("size", "resize"), [(224, 256), (96, 110), (95, 95), (64, 64), (32, 32)])
def test_the_usual_short_side_is_larger_by_an_eighth_from_96_pixels_up(size: int, resize: int) -> None:
    assert usual_resize(size) == resize
