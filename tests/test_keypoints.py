"""Images with points, networks that find keypoints, and how far from the truth they are."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from PIL import Image
from pointed import NAMES, PAIRS, faces, finder, picture, seer
from torch import Tensor, nn

from classgraft.data.augment import AUGMENTATIONS, Geometry, augmentation, flip
from classgraft.data.images import joined
from classgraft.data.keypoints import Poses, inverse, mirroring, placed, read, swapped
from classgraft.data.policies import sampled
from classgraft.errors import InputError
from classgraft.metrics.keypoints import point_errors
from classgraft.models.keypoints import Locator, decoded, heatmaps, partners, united, watcher
from classgraft.models.preparation import Preparation
from classgraft.training import loop
from classgraft.training.batches import Epochs
from classgraft.training.locating import agreeing, annotated, ensembled, lesson, measured, taught
from classgraft.training.recipe import Recipe

CPU = torch.device("cpu")
QUICK = Recipe(epochs=15, batch_size=10, optimiser="adamw", lr=0.01, weight_decay=0.0, milestones=(), augment="flip")


# -- points ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name, part in AUGMENTATIONS.items() if isinstance(part, Geometry)])
@pytest.mark.parametrize(("side", "size"), [(24, 24), (30, 24)])
def test_points_move_with_their_images_and_left_stays_left(name: str, side: int, size: int) -> None:
    """A dot in the first channel is on the left, one in the second on the right; in a mirror they change places."""
    generator, count = np.random.default_rng(0), 12
    inside = side - 8
    points = np.stack([generator.uniform((x, 8), (to, inside), (count, 2)) for x, to in ((8, 12), (16, inside))], 1)
    black, colours = np.full((3, side, side), -90.0), np.eye(3)[:2]
    pixels = torch.stack([picture(each, side, black, colours) for each in points])
    given = Poses(
        pixels, torch.zeros(count, dtype=torch.int64), ("l", "r"), Preparation(size, side, (0.0,) * 3, (1.0,) * 3),
        points=torch.tensor(points, dtype=torch.float32), annotated=torch.ones(count, 2, dtype=torch.bool), pairs=(("l", "r"),),
    )  # fmt: skip
    index, along, looked, turned = torch.arange(count).flip(0), torch.arange(size) + 0.5, 0, 0
    for epoch in range(3):
        seen = given.view(index, CPU, augmentation(name), 7, epoch)[:, :2]
        found = given.targets(index, CPU, augmentation(name), 7, epoch)
        weight = seen / seen.sum((2, 3), keepdim=True)
        centres = torch.stack([(weight.sum(2) * along).sum(2), (weight.sum(3) * along).sum(2)], 2)
        mirror = centres[:, 0, 0] > centres[:, 1, 0]
        centres = torch.where(mirror[:, None, None], centres.flip(1), centres)
        whole = ((found[..., :2] > 5) & (found[..., :2] < size - 5)).flatten(1).all(1)  # no dot is cut
        assert bool((found[whole][..., 2] == 1).all())
        assert float((found[whole][..., :2] - centres[whole]).abs().max()) < 0.2
        looked, turned = looked + int(whole.sum()), turned + int(mirror.sum())
    assert looked > 8
    assert (turned > 5) == (name != "none")


def test_a_mirror_twice_is_the_identity() -> None:
    given = faces(5)
    mirror = torch.tensor([[-1.0, 0, 0], [0, 1, 0]]).expand(5, 2, 3)
    points, known, partner = given.points, given.annotated.clone(), partners(NAMES, PAIRS)
    known[2, 0] = False
    once = swapped(placed(points, inverse(mirror), 16, 16), known, mirroring(mirror), partner)
    torch.testing.assert_close(once[0][:, 0, 0], 16 - points[:, 1, 0])
    assert not once[1][2, 1]
    assert once[1][2, 0]
    twice = swapped(placed(once[0], inverse(mirror), 16, 16), once[1], mirroring(mirror), partner)
    torch.testing.assert_close(twice[0], points)
    assert torch.equal(twice[1], known)


def test_maps_are_taken_back() -> None:
    affine = torch.randn(4, 2, 3, generator=torch.Generator().manual_seed(0))
    points = 16 * torch.rand(4, 3, 2, generator=torch.Generator().manual_seed(1))
    there = placed(points, affine, 16, 24)
    torch.testing.assert_close(placed(there, inverse(affine), 24, 16), points, rtol=1e-3, atol=1e-3)
    plain, turned = torch.tensor([[[1.0, 0, 0], [0, 1, 0]]]), torch.tensor([[[0.0, -1, 0], [1, 0, 0]]])
    assert mirroring(torch.cat([plain, turned, -plain, plain * torch.tensor([[-1.0], [1.0]])])).tolist() == [0, 0, 0, 1]


def test_what_is_unknown_or_falls_outside_is_0_whatever_stands_there() -> None:
    given = faces(30)
    known = given.annotated.clone()
    known[:, 3] = False
    given = replace(given, annotated=known, points=given.points.masked_fill(~known[..., None], torch.nan))
    assert not given.targets(torch.arange(30), CPU)[:, 3].any()
    found = given.targets(torch.arange(30), CPU, augmentation("resized-crop-flip"))
    gone = found[..., 2] == 0
    assert bool(found.isfinite().all())
    assert 30 < int(gone.sum()) < 80
    assert not found[gone].any()
    assert float(found[~gone][:, :2].min()) >= 0
    assert float(found[~gone][:, :2].max()) < 16


def test_a_keypoint_without_its_pair_is_unknown_in_a_mirror() -> None:
    given = faces(20).named(("right eye", "nose"))
    found = given.targets(torch.arange(20), CPU, augmentation("flip"))
    affine = augmentation("flip").affine(torch.zeros(1, 32), 16, 16)
    assert bool(mirroring(affine))
    lost = found[:, 0, 2] == 0
    assert 3 < int(lost.sum()) < 17
    assert bool((found[:, 1, 2] == 1).all())


def test_an_augmentation_that_moves_pixels_unseen_is_refused() -> None:
    with pytest.raises(InputError, match="cannot follow RandAugment"):
        faces(2).targets(torch.arange(2), CPU, augmentation("randaugment"))
    with pytest.raises(InputError, match="augmentation that has a name"):
        faces(2).targets(torch.arange(2), CPU, flip)


def test_images_are_divided_renamed_and_told_apart() -> None:
    given = faces(10, clips=3)
    assert [len(part) for part in given.split(0.2, 0)] == [24, 6]
    turned = given.of(("nose", "ear", "left eye"))
    assert torch.equal(turned.points[:, [0, 2]], given.points[:, [2, 0]])
    assert turned.annotated[0].tolist() == [True, False, True]
    some = replace(given, annotated=given.annotated & (torch.arange(30) % 2 == 0)[:, None])
    assert len(some.of(("nose",))) == 15
    assert len(some.named(("nose",))) == 30
    assert not len(given.of(("ear",)))
    bare = given.bare()
    assert bare.points.shape == (30, 0, 2)
    assert bare.named(NAMES).annotated.sum() == 0
    assert replace(given, points=given.points.clone()).fingerprint == given.fingerprint
    for other in (replace(given, points=given.points + 0.1), some, replace(given, pairs=())):
        assert other.fingerprint != given.fingerprint


def test_frames_follow_one_another() -> None:
    given = faces(4, clips=3)
    now, then = given.consecutive()
    assert len(now) == len(then) == 8
    assert now.points[0].tolist() == given.points[1].tolist()
    assert then.points[0].tolist() == given.points[0].tolist()
    for part in ("view", "targets"):  # moved alike: what differs is what the frames differ in
        one, two = (getattr(each, part)(torch.arange(8), CPU, augmentation("crop-flip"), 3, 1) for each in (now, now))
        assert torch.equal(one, two)
    assert given.subset(torch.tensor([5, 4, 1])).before.tolist() == [1, -1, -1]
    with pytest.raises(InputError, match="No image is a frame"):
        faces(3).consecutive()
    with pytest.raises(InputError, match="No image is a frame"):
        given.subset(torch.tensor([0, 3])).consecutive()


def test_parts_share_no_person() -> None:
    given = faces(20)
    first, second = given.apart(0.3, 1)
    assert (len(first), len(second)) == (14, 6)
    assert not set(first.persons) & set(second.persons)
    assert torch.equal(given.apart(0.3, 1)[1].points, second.points)
    assert not torch.equal(given.apart(0.3, 2)[1].points, second.points)
    with pytest.raises(InputError, match="Nobody is named"):
        replace(given, persons=()).apart(0.3, 0)


def test_points_that_do_not_fit_are_refused() -> None:
    given = faces(3)
    for change, words in (
        ({"points": given.points[:, :2]}, r"give floats \(3, 4, 2\)"),
        ({"points": given.points.long()}, "int64"),
        ({"points": given.points + 40}, "nowhere near its square of 16"),
        ({"points": given.points.masked_fill(given.points > 9, torch.nan)}, "nowhere near"),
        ({"annotated": given.annotated.float()}, r"give bool \(3, 4\)"),
        ({"persons": ("a",)}, "1 persons"),
        ({"before": torch.tensor([0, 1, 3])}, "a place among the 3"),
        ({"pairs": (("left eye", "nose"), ("nose", "mouth"))}, "'nose' stands in pairs twice"),
    ):
        with pytest.raises(InputError, match=words):
            replace(given, **change)
    with pytest.raises(InputError, match="The points are"):
        joined(given, given)


# -- reading --------------------------------------------------------------------------------------------------------


def written(path: Path, **columns: Any) -> Path:
    shown = np.zeros((8, 16, 3), np.uint8)
    shown[:, 8:] = 200
    encoded = BytesIO()
    Image.fromarray(shown).save(encoded, "PNG")
    usual = {"image": [{"bytes": encoded.getvalue(), "path": None}] * 3, "keypoints": [[3.5, 1.5, 15.5, 7.5]] * 3}
    pq.write_table(pa.table({name: given for name, given in (usual | columns).items() if given is not None}), path)
    return path


def test_a_table_of_pictures_and_points_is_read(tmp_path: Path) -> None:
    found = read(
        written(tmp_path / "a.parquet", person=["x", "y", "x"], frame=["04", "04", "03"],
                keypoints=[[3.5, 1.5, 15.5, 7.5], [0.0, 0.0, float("nan"), 2.0], None]),
        ("a", "b"), (("a", "b"),), Preparation(8, 8),
    )  # fmt: skip
    assert found.pixels.shape == (3, 3, 8, 8)
    assert int(found.pixels[0, 0, 0, 0]) < 20 < 180 < int(found.pixels[0, 0, 0, 7])
    # 16 pixels wide are 8: x is counted from the centre of the first, half a pixel from the edge
    assert found.points[0].tolist() == [[2.0, 2.0], [8.0, 8.0]]
    assert found.annotated.tolist() == [[True, True], [True, False], [False, False]]
    assert found.persons == ("x", "y", "x")
    assert found.before.tolist() == [2, -1, -1]
    twice = read(
        written(tmp_path / "twice.parquet", person=["x"] * 3, frame=["03", "04", "03"]),
        ("a", "b"),
        (),
        Preparation(8, 8),
    )
    assert twice.before is not None
    assert twice.before.tolist() == [-1, 0, -1]  # of several frames with the number before, the nearest row
    plain = read(written(tmp_path / "b.parquet"), ("a", "b"), (), Preparation(8, 8))
    assert plain.before is None
    assert plain.persons == ()


def test_a_table_that_does_not_fit_is_refused(tmp_path: Path) -> None:
    good = written(tmp_path / "a.parquet")
    with pytest.raises(InputError, match="has 4 numbers, but 3 keypoints"):
        read(good, ("a", "b", "c"), (), Preparation(8, 8))
    with pytest.raises(InputError, match="no column 'keypoints'"):
        read(written(tmp_path / "b.parquet", keypoints=None), ("a", "b"), (), Preparation(8, 8))
    for odd in (["3.5"], 3.5):
        with pytest.raises(InputError, match="store a list of numbers a row"):
            read(written(tmp_path / "g.parquet", keypoints=[odd] * 3), ("a",), (), Preparation(8, 8))
    with pytest.raises(InputError, match="cannot be used"):
        read(written(tmp_path / "c.parquet", image=[{"bytes": b"no"}] * 3), ("a", "b"), (), Preparation(8, 8))
    with pytest.raises(InputError, match="holds no rows"):
        read(written(tmp_path / "d.parquet", image=[], keypoints=[]), ("a",), (), Preparation(8, 8))
    with pytest.raises(InputError, match="'last' is no number of a frame"):
        read(
            written(tmp_path / "f.parquet", person=["x"] * 3, frame=["1", "2", "last"]),
            ("a", "b"),
            (),
            Preparation(8, 8),
        )
    (tmp_path / "e.parquet").write_bytes(b"no table")
    with pytest.raises(InputError, match="not a readable parquet"):
        read(tmp_path / "e.parquet", ("a",), (), Preparation(8, 8))


# -- networks -------------------------------------------------------------------------------------------------------


def bell(points: Tensor, side: int, spread: float = 1.0) -> Tensor:
    """Maps (B, K, side, side) of Gaussians about points (B, K, 2) in cells, adding up to 1."""
    y, x = torch.meshgrid(torch.arange(side) + 0.5, torch.arange(side) + 0.5, indexing="ij")
    at = points[..., None, None]
    maps = (-((x - at[:, :, 0]) ** 2 + (y - at[:, :, 1]) ** 2) / (2 * spread**2)).flatten(2)
    return maps.softmax(2).unflatten(2, (side, side))


def test_a_peak_and_its_neighbours_by_hand() -> None:
    # 3/4 in the cell of column 4, row 2, 1/4 in the one to its right: 4.75 of 8 cells, 2.5; three cells away nothing counts
    maps = torch.zeros(1, 1, 8, 8)
    maps[0, 0, 2, 4], maps[0, 0, 2, 5], maps[0, 0, 7, 4] = 0.6, 0.2, 0.2
    torch.testing.assert_close(decoded(maps, 32), torch.tensor([[[19.0, 10.0, 0.8]]]))


def test_a_gaussian_is_found_between_cells_and_its_mirror_image_in_the_mirror() -> None:
    points = 3 + 6 * torch.rand(50, 2, 2, generator=torch.Generator().manual_seed(0))
    maps = bell(points, 12)
    found = decoded(maps, 24)
    assert float((found[..., :2] / 2 - points).abs().max()) < 0.1
    assert 0.9 < float(found[..., 2].min()) < float(found[..., 2].max()) < 1
    mirrored = decoded(maps.flip(3), 24)
    torch.testing.assert_close(24 - mirrored[..., 0], found[..., 0])
    flat = decoded(torch.full((1, 1, 12, 12), 1 / 144), 24)
    assert float(flat[0, 0, 2]) < 0.2


def test_pairs_are_found_among_the_names() -> None:
    assert partners(NAMES, PAIRS).tolist() == [1, 0, 2, 3]
    assert partners(("nose", "right eye"), PAIRS).tolist() == [0, -1]
    with pytest.raises(InputError, match="stands in pairs twice"):
        partners(NAMES, (("nose", "nose"),))


def test_experts_stand_side_by_side() -> None:
    eyes, rest = finder(NAMES[:2]), finder(NAMES[2:], seed=1)
    both, given = united([eyes, rest]), faces(2).view(torch.arange(2), CPU)
    assert both.classes == NAMES
    assert both.pairs == PAIRS
    assert torch.equal(both(given), torch.cat([eyes(given), rest(given)], 1))
    with pytest.raises(InputError, match="Two experts find the keypoint 'nose'"):
        united([rest, rest])
    coarse = Locator(nn.Conv2d(3, 2, 4, stride=4), NAMES[:2])
    with pytest.raises(InputError, match="maps differ in size"):
        united([coarse, rest])(given)


def test_encoders_of_timm_give_maps_and_motions() -> None:
    given = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    found = heatmaps("mobilenetv2_035", NAMES, PAIRS, width=8, levels=(1, 2))
    with torch.no_grad():
        assert found(given).shape == (2, 4, 8, 8)
        assert found.located(given).shape == (2, 4, 3)
        moving = watcher("mobilenetv3_small_050", NAMES, PAIRS, hidden=8)
        assert moving(given).shape == (2, 4, 2)
        assert not torch.equal(moving(given), moving(given, given.flip(0)))
    again = heatmaps("mobilenetv2_035", NAMES, PAIRS, width=8, levels=(1, 2))
    assert all(torch.equal(a, b) for a, b in zip(found.parameters(), again.parameters(), strict=True))
    with pytest.raises(InputError, match="no network 'nothing'"):
        heatmaps("nothing", NAMES)


def test_networks_that_give_no_maps_of_the_keypoints_are_refused() -> None:
    with pytest.raises(InputError, match="not a map of each of the 4 keypoints"):
        Locator(nn.Conv2d(3, 2, 1), NAMES)(torch.zeros(1, 3, 4, 4))
    with pytest.raises(InputError, match="gives tuple"):
        Locator(nn.MaxPool2d(2, return_indices=True), NAMES)(torch.zeros(1, 3, 4, 4))


# -- the measure ----------------------------------------------------------------------------------------------------


def test_the_error_worked_by_hand() -> None:
    # the box is 8 wide and 2 high, so its size is 4; errors 5, 0 and 3 of it; in the second image one point has no size
    truth = torch.tensor([[[0.0, 0.0], [8.0, 2.0], [4.0, 1.0], [99.0, 99.0]], [[1.0, 1.0]] * 4])
    found = truth + torch.tensor([[[3.0, 4.0], [0.0, 0.0], [0.0, 3.0], [7.0, 7.0]], [[1.0, 0.0]] * 4])
    known = torch.tensor([[True, True, True, False], [True, False, False, False]])
    errors = point_errors(found, truth, known, tuple("abcd"))
    assert errors.each.tolist()[:3] == [1.25, 0.0, 0.75]
    assert errors.each[3].isnan()
    assert errors.mean == pytest.approx(2 / 3)
    assert errors.of(("a", "c")) == 1.0


def test_the_error_is_the_mean_of_images_and_free_of_their_size() -> None:
    generator = torch.Generator().manual_seed(0)
    truth, off = torch.rand(5, 6, 2, generator=generator), 0.1 * torch.rand(5, 6, 2, generator=generator)
    known = torch.rand(5, 6, generator=generator) < 0.8
    slow = []
    for i in range(5):
        points = truth[i][known[i]]
        width, height = (points.amax(0) - points.amin(0)).tolist()
        slow.append(float(off[i][known[i]].norm(dim=1).mean()) / (width * height) ** 0.5)
    assert point_errors(truth + off, truth, known, tuple("abcdef")).mean == pytest.approx(sum(slow) / 5, rel=1e-5)
    scaled = point_errors(9 * (truth + off) + 4, 9 * truth + 4, known, tuple("abcdef")).mean
    assert scaled == pytest.approx(sum(slow) / 5, rel=1e-4)


# -- learning -------------------------------------------------------------------------------------------------------


@cache
def found_faces() -> Locator:
    return taught(finder(width=12), faces(60), QUICK)


def test_points_are_learnt_and_not_those_of_other_images() -> None:
    test, train = faces(30, seed=9), faces(60)
    assert measured(found_faces(), test).mean < 0.12
    other = taught(finder(width=12), replace(train, points=train.points.roll(7, 0)), QUICK)
    assert measured(other, test).mean > measured(found_faces(), test).mean + 0.1


def test_a_part_that_is_not_annotated_teaches_nothing() -> None:
    """The gradient of its map, and of the row that makes the map, is 0, and all others are as if it were not there."""
    given, model = faces(10), finder()
    known = given.annotated.clone()
    known[:, 2:] = False
    batch = next(iter(Epochs(replace(given, annotated=known), replace(QUICK, augment="none"), CPU)(0)))
    loop.train_mode(model)
    lesson(model(batch.images), batch.targets, 16, 1.0).backward()
    row = model.network[-1].weight.grad
    assert not row[2:].any()
    assert bool(row[:2].flatten(1).any(1).all())
    alone = taught(finder(), replace(given, annotated=known), replace(QUICK, epochs=2))
    assert torch.equal(alone.network[-1].weight[2:], finder().network[-1].weight[2:])
    assert not torch.equal(alone.network[-1].weight[:2], finder().network[-1].weight[:2])


def test_images_and_networks_with_other_pairs_are_refused() -> None:
    with pytest.raises(InputError, match="left eye and right eye change places"):
        taught(finder(pairs=()), faces(4), QUICK)
    with pytest.raises(InputError, match="change places"):
        measured(finder(), replace(faces(4), pairs=()))
    assert agreeing(finder(("nose",)), faces(4)) is not None
    with pytest.raises(InputError, match="no point to learn from"):
        taught(finder(("ear",)), faces(4), QUICK)


def test_what_a_network_found_goes_onto_the_canvas() -> None:
    given = replace(faces(6), preparation=Preparation(12, 16, (0.5,) * 3, (0.25,) * 3))
    found = given.targets(torch.arange(6), CPU)
    kept = found[..., 2] > 0
    again = annotated(given, finder(), found, kept)
    torch.testing.assert_close(again.points[kept], given.points[kept])
    torch.testing.assert_close(again.targets(torch.arange(6), CPU), found)


def test_a_network_that_sees_motion_is_measured_on_frames_that_have_one_before() -> None:
    given = faces(4, clips=3)
    found = measured(seer(), given)
    assert found.distances.shape == (8, 4)
    assert found.mean > 0.1


# -- many looks -----------------------------------------------------------------------------------------------------


class Halves(nn.Module):
    """What is red in the left half is the left eye, in the right half the right eye: a mirror's own answer, pairs changed."""

    def forward(self, images: Tensor) -> Tensor:
        red, half = 4 * images[:, :1], images.shape[3] // 2
        left = torch.arange(images.shape[3]) < half
        return torch.cat([red.masked_fill(~left, -9.0), red.masked_fill(left, -9.0)], 1)


def test_one_look_is_what_the_network_says() -> None:
    model, given = found_faces(), faces(5, seed=2).view(torch.arange(5), CPU)
    torch.testing.assert_close(ensembled(model, given, [(1.0, False)]), model.probabilities(given))


def test_a_map_from_a_mirror_comes_back_to_the_half_pixel_and_left_is_left_again() -> None:
    given = faces(5, seed=2).view(torch.arange(5), CPU)
    model = Locator(Halves(), NAMES[:2], PAIRS)
    torch.testing.assert_close(ensembled(model, given, [(1.0, True)]), model.probabilities(given), rtol=1e-4, atol=1e-6)
    control = ensembled(Locator(Halves(), NAMES[:2]), given, [(1.0, True)])
    assert float((control - model.probabilities(given)).abs().max()) > 0.1
    both = ensembled(model, given, [(1.0, True), (1.0, False)])
    torch.testing.assert_close(both, model.probabilities(given), rtol=1e-4, atol=1e-6)


def middle(maps: Tensor) -> Tensor:
    """The mean place (B, K, 2) in maps that add up to 1, in cells."""
    along = torch.arange(maps.shape[3]) + 0.5
    return torch.stack([(maps.sum(2) * along).sum(2), (maps.sum(3) * along).sum(2)], 2)


@pytest.mark.parametrize("scale", [0.8, 1.25])
def test_a_map_from_a_larger_or_smaller_look_comes_back_to_its_place_and_mass(scale: float) -> None:
    points = 6 + 4 * torch.rand(8, 1, 2, generator=torch.Generator().manual_seed(0))

    class Given(nn.Module):
        """The probabilities that are drawn in the picture."""

        def forward(self, images: Tensor) -> Tensor:
            return images[:, :1].clamp(min=1e-9).log()

    model, maps = Locator(Given(), ("a",)), bell(points, 16, 1.5)
    back = ensembled(model, maps.repeat(1, 3, 1, 1), [(scale, False)])
    torch.testing.assert_close(back.sum((2, 3)), torch.ones(8, 1))
    torch.testing.assert_close(middle(back), middle(maps), rtol=0, atol=0.05)
    seen = sampled(maps, torch.tensor([[[1 / scale, 0, 0], [0, 1 / scale, 0]]]).expand(8, 2, 3), 16)
    assert float((middle(seen / seen.sum((2, 3), keepdim=True)) - middle(maps)).abs().max()) > 0.3  # as the look has it


def test_beyond_the_edges_of_a_smaller_look_the_outermost_pixels_go_on() -> None:
    seen = []

    class Watched(Halves):
        def forward(self, images: Tensor) -> Tensor:
            seen.append(images)
            return super().forward(images)

    across = torch.arange(16.0).expand(2, 3, 16, 16) - 20
    ensembled(Locator(Watched(), NAMES[:2], PAIRS), across, [(0.5, False)])
    wanted = torch.cat([torch.zeros(4), torch.arange(8) * 2 + 0.5, torch.full((4,), 15.0)]) - 20
    torch.testing.assert_close(seen[0], wanted.expand(2, 3, 16, 16))


def test_a_keypoint_whose_pair_the_network_lacks_has_the_looks_without_a_mirror() -> None:
    class Left(Halves):
        def forward(self, images: Tensor) -> Tensor:
            return super().forward(images)[:, :1]

    given = faces(3, seed=2).view(torch.arange(3), CPU)
    model = Locator(Left(), NAMES[:1], PAIRS)
    both = ensembled(model, given, [(1.0, False), (1.0, True)])
    torch.testing.assert_close(both, model.probabilities(given), rtol=1e-4, atol=1e-6)


def test_many_looks_together_are_no_worse_than_one() -> None:
    """On pictures with more noise than the network learnt from."""
    test, model = faces(40, seed=9, noise=40.0), found_faces()
    given = test.view(torch.arange(40), CPU)
    looks = [(scale, mirror) for scale in (0.9, 1.0, 1.1) for mirror in (False, True)]
    with torch.no_grad():
        one, many = (decoded(ensembled(model, given, part), 16)[..., :2] for part in ([(1.0, False)], looks))
    single, whole = (point_errors(part, test.points, test.annotated, NAMES).mean for part in (one, many))
    assert whole < single


def test_real_faces_are_read_with_their_persons_and_frames(data: Path) -> None:
    names = tuple(map(str, range(68)))
    found = read(data / "face_keypoints" / "test.parquet", names, (("36", "45"),), Preparation(64, 64))
    assert len(found) == 843
    assert bool(found.annotated.all())
    assert float((found.points[:, 36, 0] < found.points[:, 45, 0]).float().mean()) > 0.99
    assert len(set(found.persons)) > 10
    assert found.before is not None
    now, then = found.consecutive()
    assert now.persons == then.persons
    # frames of one face lie nearer to one another than to those of others
    near, far = (
        (now.points - of.points).norm(dim=2).mean(1) for of in (then, then.subset(torch.arange(len(then)).roll(40)))
    )
    assert float(near.median()) < 0.7 * float(far.median())
