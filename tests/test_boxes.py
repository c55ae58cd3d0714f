"""Boxes as targets: they move with their pictures, are read from Pascal VOC's layout, and are counted rightly."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from coloured import COLOURS, OLD, squares
from PIL import Image
from torch import Tensor

from classgraft.data.boxes import Boxed, joined, read_voc
from classgraft.data.images import Images
from classgraft.errors import InputError
from classgraft.metrics.detection import average_precision, mean
from classgraft.models.preparation import Preparation

CPU = torch.device("cpu")


def bright(count: int, canvas: int, size: int) -> Boxed:
    """A white rectangle on black in each."""
    pixels = torch.zeros(count, 3, canvas, canvas, dtype=torch.uint8)
    boxes = torch.tensor([[12.0, 14.0, 22.0, 30.0]]).repeat(count, 1)
    pixels[:, :, 14:30, 12:22] = 255
    images = Images(
        pixels, torch.zeros(count, dtype=torch.int64), (), Preparation(size, canvas, (0.0,) * 3, (1.0,) * 3)
    )
    return Boxed(images, boxes, torch.zeros(count, dtype=torch.int64), torch.arange(count), ("white",))


@pytest.mark.parametrize("augment", ["none", "flip", "crop-flip", "resized-crop-flip", "flip+jitter"])
@pytest.mark.parametrize(("canvas", "size"), [(40, 40), (40, 32)])
def test_boxes_move_as_the_pixels_do(augment: str, canvas: int, size: int) -> None:
    images = bright(12, canvas, size)
    views, truth = images.view(torch.arange(12), CPU, augment, seed=3, epoch=1)
    seen = 0
    for view, own in zip(views.mean(1) > 0.3, truth, strict=True):
        for box in (*own["boxes"], *own["void"]):
            rows, columns = view.any(1).nonzero()[:, 0], view.any(0).nonzero()[:, 0]
            if len(rows) < 2 or (augment == "resized-crop-flip" and not len(own["boxes"])):
                continue  # what is left may be a mirrored edge
            painted = torch.stack([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]).float()
            tolerance = 1.5 if augment == "resized-crop-flip" else 1e-3
            torch.testing.assert_close(box, painted, atol=tolerance, rtol=0)
            seen += 1
    assert seen >= 6
    if augment != "none":
        assert len({tuple(own["boxes"].flatten().round().tolist()) for own in truth}) > 1


def test_a_box_that_a_crop_leaves_little_of_is_void_and_one_outside_is_gone() -> None:
    base = bright(1, 40, 20)  # the middle square is 10..30
    boxes = torch.tensor(
        [[0.0, 12.0, 12.0, 20.0], [0.0, 0.0, 8.0, 8.0], [12.0, 12.0, 34.0, 28.0], [11.0, 11.0, 15.0, 15.0]]
    )
    images = replace(base, boxes=boxes, labels=torch.tensor([0, 0, 0, -1]), owner=torch.zeros(4, dtype=torch.int64))
    (own,) = images.truth(torch.tensor([0]), CPU)
    torch.testing.assert_close(own["boxes"], torch.tensor([[2.0, 2.0, 20.0, 18.0]]))
    assert own["labels"].tolist() == [1]
    torch.testing.assert_close(own["void"], torch.tensor([[0.0, 2.0, 2.0, 10.0], [1.0, 1.0, 5.0, 5.0]]))


def test_what_cannot_say_where_it_moves_pixels_is_refused() -> None:
    with pytest.raises(InputError, match="'randaugment' may rotate or slant a picture"):
        squares(2).truth(torch.arange(2), CPU, "flip+randaugment")


def test_parts_keep_each_image_with_its_own_boxes() -> None:
    images = squares(9, COLOURS)
    whole = images.truth(torch.arange(9), CPU)
    order = torch.tensor([7, 2, 5])
    for own, place in zip(images.subset(order).truth(torch.arange(3), CPU), order.tolist(), strict=True):
        assert all(torch.equal(own[key], whole[place][key]) for key in own)
    first, second = images.split(1 / 3, 0)
    both = joined([first, second])
    assert (len(first), len(second), len(both), len(both.boxes)) == (6, 3, 9, len(images.boxes))
    yellow = images.showing(("yellow",))
    assert 0 < len(yellow) < 9
    assert set(yellow.owner.tolist()) == set(range(len(yellow)))
    turned = images.of(("green", "red"))
    assert torch.equal(turned.labels, 1 - images.labels[images.labels < 2])
    assert torch.equal(turned.of(COLOURS).labels, images.labels[images.labels < 2])
    void = replace(images, labels=torch.full_like(images.labels, -1)).of(("red",))
    assert (void.labels == -1).all()
    assert len(void.boxes) == len(images.boxes)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"boxes": torch.tensor([[4.0, 4.0, 4.0, 9.0]])}, "none inside a square of 32"),
        ({"boxes": torch.tensor([[4.0, 4.0, 40.0, 9.0]])}, "none inside a square of 32"),
        ({"boxes": torch.tensor([[4.0, float("nan"), 8.0, 9.0]])}, "none inside a square of 32"),
        ({"labels": torch.tensor([5])}, "from 5 to 5 but there are 2 class names"),
        ({"owner": torch.tensor([2])}, "belongs to no image: there are 2"),
        ({"owner": torch.tensor([0, 1])}, "with 1 labels and 2 owners"),
    ],
)
def test_boxes_that_cannot_be_are_refused(change: dict[str, Tensor], words: str) -> None:
    one = {"boxes": torch.tensor([[4.0, 4.0, 8.0, 9.0]]), "labels": torch.tensor([0]), "owner": torch.tensor([1])}
    assert len(replace(squares(2), **one)) == 2
    with pytest.raises(InputError, match=words):
        replace(squares(2), **(one | change))


# -- Pascal VOC -----------------------------------------------------------------------------------------------------

THING = (
    "<object><name>{}</name><difficult>{}</difficult>"
    "<bndbox><xmin>{}</xmin><ymin>{}</ymin><xmax>{}</xmax><ymax>{}</ymax></bndbox></object>"
)


def voc(root: Path, things: str, names: str = "one\n") -> Path:
    for folder in ("Annotations", "JPEGImages", "ImageSets/Main"):
        (root / folder).mkdir(parents=True)
    (root / "ImageSets/Main/train.txt").write_text(names)
    Image.new("RGB", (40, 20), (255, 0, 0)).save(root / "JPEGImages/one.jpg")
    (root / "Annotations/one.xml").write_text(f"<annotation>{things}</annotation>")
    return root


def test_boxes_are_stretched_with_their_picture(tmp_path: Path) -> None:
    things = (
        THING.format("cat", 0, 11, 6, 20, 10)
        + THING.format("dog", 1, 1, 1, 40, 20)
        + THING.format("cow", 0, 1, 1, 9, 9)
    )
    found = read_voc(voc(tmp_path, things), "train", ("cat", "dog"), 80)
    assert found.images.pixels.shape == (1, 3, 80, 80)
    torch.testing.assert_close(found.boxes, torch.tensor([[20.0, 20.0, 40.0, 40.0], [0.0, 0.0, 80.0, 80.0]]))
    assert found.labels.tolist() == [0, -1]  # the difficult one is void, the cow is background


@pytest.mark.parametrize(
    ("things", "names", "words"),
    [
        (THING.format("cat", 0, 11, 6, 5, 10), "one\n", "is empty in a picture of 40 x 20"),
        (THING.format("cat", 0, "x", 6, 5, 10), "one\n", "could not convert"),
        ("<object>", "one\n", "cannot be read"),
        ("", "../one\n", "no name of a file"),
        ("", "two\n", "image 'two' cannot be used"),
        ("", "\n", "names no image"),
    ],
)
def test_damaged_annotations_are_refused_in_a_sentence(tmp_path: Path, things: str, names: str, words: str) -> None:
    with pytest.raises(InputError, match=words):
        read_voc(voc(tmp_path, things, names), "train", ("cat",), 32)


def test_a_part_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="give a folder in Pascal VOC's layout"):
        read_voc(voc(tmp_path, ""), "test", ("cat",), 32)


def test_the_blood_cells_are_read(data: Path) -> None:
    found = read_voc(data / "bccd", "test", ("RBC", "WBC", "Platelets"), 32)
    assert len(found) == 72
    assert min((found.labels == k).sum() for k in range(3)) > 30


# -- average precision ----------------------------------------------------------------------------------------------

pycocotools = pytest.importorskip("pycocotools")


def boxes(*rows: tuple[float, ...]) -> Tensor:
    return torch.tensor(rows).reshape(len(rows), 4)


def said(places: Tensor, labels: list[int], scores: list[float]) -> dict[str, Tensor]:
    return {"boxes": places, "labels": torch.tensor(labels, dtype=torch.int64), "scores": torch.tensor(scores)}


def true(places: Tensor, labels: list[int], void: Tensor | None = None) -> dict[str, Tensor]:
    return {
        "boxes": places,
        "labels": torch.tensor(labels, dtype=torch.int64),
        "void": boxes() if void is None else void,
    }


A, B, FAR = (0.0, 0.0, 10.0, 10.0), (20.0, 20.0, 30.0, 30.0), (40.0, 0.0, 50.0, 10.0)


def test_average_precision_by_hand() -> None:
    """Hit, miss, hit of two boxes: precision is 1 up to recall 1/2 and 2/3 beyond, over recalls 0, 0.01, ..., 1."""
    found = [said(boxes(A, FAR, B), [1, 1, 1], [0.9, 0.8, 0.7])]
    truth = [true(boxes(A, B), [1, 1])]
    each = average_precision(found, truth, ("x", "y"))
    assert each["x"] == pytest.approx((51 + 50 * 2 / 3) / 101)
    assert each["y"] is None
    assert mean(each) == each["x"]
    assert mean(each, ["y"]) is None


def test_a_second_detection_of_a_box_and_one_of_another_class_are_wrong() -> None:
    truth = [true(boxes(A), [1])]
    twice = average_precision([said(boxes(A, A), [1, 1], [0.9, 0.95])], truth, ("x", "y"))
    assert twice["x"] == pytest.approx(1.0)
    other = average_precision([said(boxes(A), [2], [0.9])], truth, ("x", "y"))
    assert other == {"x": 0.0, "y": None}
    assert average_precision([said(boxes(), [], [])], truth, ("x",)) == {"x": 0.0}


def test_what_lies_in_a_void_box_is_neither_right_nor_wrong() -> None:
    found = [said(boxes(FAR, A), [1, 1], [0.9, 0.8])]
    plain, void = (
        average_precision(found, [true(boxes(A), [1], own)], ("x",))["x"]
        for own in (None, boxes((38.0, 0.0, 60.0, 12.0)))
    )
    assert plain == pytest.approx(0.5)
    assert void == pytest.approx(1.0)


def test_average_precision_is_that_of_a_slow_reference() -> None:
    generator = torch.Generator().manual_seed(0)
    truth, found = [], []
    for _ in range(6):
        corners = 60 * torch.rand(4, 2, generator=generator)
        places = torch.cat([corners, corners + 12], 1)
        truth.append(true(places, [1] * 4))
        moved = places + 2 * torch.randn(4, 4, generator=generator)
        found.append(said(moved, [1] * 4, torch.rand(4, generator=generator).tolist()))
    assert average_precision(found, truth, ("x",), 0.6)["x"] == pytest.approx(slow(found, truth, 0.6), abs=1e-6)
    assert 0.1 < slow(found, truth, 0.6) < 0.9


def slow(found: list[dict[str, Tensor]], truth: list[dict[str, Tensor]], overlap: float) -> float:
    order = sorted(
        ((float(s), i, n) for i, own in enumerate(found) for n, s in enumerate(own["scores"])), key=lambda t: -t[0]
    )
    taken: set[tuple[int, int]] = set()
    hits = []
    for _, i, n in order:
        best, at = overlap, -1
        for k, box in enumerate(truth[i]["boxes"]):
            if (i, k) not in taken and (value := iou(found[i]["boxes"][n], box)) >= best:
                best, at = value, k
        hits.append(at >= 0)
        taken |= {(i, at)} if at >= 0 else set()
    total = sum(len(own["boxes"]) for own in truth)
    points = [(sum(hits[: n + 1]) / total, sum(hits[: n + 1]) / (n + 1)) for n in range(len(hits))]
    return sum(max((p for r, p in points if r >= recall / 100 - 1e-9), default=0.0) for recall in range(101)) / 101


def iou(a: Tensor, b: Tensor) -> float:
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    both = max(0.0, float(width)) * max(0.0, float(height))
    return both / (float((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1])) - both)


def test_found_and_true_of_other_images_are_refused() -> None:
    with pytest.raises(InputError, match="detections of 0 images but boxes of 1"):
        average_precision([], [true(boxes(A), [1])], ("x",))


def test_overlap_is_the_same_in_any_stretch() -> None:
    """Why pictures may be stretched to squares."""
    images = squares(1, OLD)
    a, b = images.boxes[0], images.boxes[0] + torch.tensor([2.0, 1.0, 3.0, 2.0])
    stretch = torch.tensor([0.4, 1.7, 0.4, 1.7])
    assert iou(a * stretch, b * stretch) == pytest.approx(iou(a, b), rel=1e-5)
