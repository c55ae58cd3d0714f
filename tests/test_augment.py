from __future__ import annotations

import math
from functools import partial
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F
import torchvision.transforms.functional as tv
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torchvision.transforms import AutoAugment, AutoAugmentPolicy, InterpolationMode

from classgraft.data import augment, policies
from classgraft.data.augment import AUGMENTATIONS, DRAWS, Composed, Effect, Geometry, augmentation, mixup, mixup_share
from classgraft.data.draws import uniform
from classgraft.data.images import Images
from classgraft.data.policies import GREY, OPERATIONS, autoaugment, randaugment, sampled
from classgraft.errors import InputError
from classgraft.models.preparation import Preparation

BILINEAR = InterpolationMode.BILINEAR
NAMES = [*AUGMENTATIONS, "crop-flip+randaugment+cutout", "resized-crop-flip+jitter+autoaugment+random-erasing"]


def photos(count: int = 24, side: int = 32, seed: int = 0) -> Tensor:
    """Smooth with some noise, on 256 levels, so that there is something to get wrong (count, 3, side, side)."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 6, 6, generator=generator)
    noise = 0.03 * torch.randn(count, 3, side, side, generator=generator)
    smooth = F.interpolate(coarse, size=side, mode="bicubic")
    return ((smooth + noise).clamp(0, 1) * 255).round() / 255


def scene() -> Tensor:
    """A picture with light from one corner, one round thing and a little noise (1, 3, 32, 32)."""
    x, y = torch.meshgrid(torch.arange(32) / 31, torch.arange(32) / 31, indexing="xy")
    thing = torch.exp(-((x - 0.4) ** 2 + (y - 0.55) ** 2) / 0.03)
    light = torch.stack([0.15 + 0.6 * x, 0.75 - 0.35 * x - 0.3 * y, 0.2 + 0.6 * y])
    noise = 0.01 * torch.randn(3, 32, 32, generator=torch.Generator().manual_seed(0))
    return ((light + torch.tensor([0.2, -0.1, -0.15]).view(3, 1, 1) * thing + noise) * 255).round()[None] / 255


def draws(count: int = 24, seed: int = 0) -> Tensor:
    return uniform(seed, 0, torch.arange(count), DRAWS)


def by_torchvision(name: str, image: Tensor, strength: float) -> Tensor:
    """One image (3, S, S) through torchvision's function; bytes only where it takes nothing else."""
    level = (image * 255).round().to(torch.uint8)
    factor, side = 1 + 0.9 * strength, image.shape[-1]
    slant, shift = math.degrees(math.atan(0.3 * strength)), int(150 / 331 * side * strength)
    affine = partial(tv.affine, image - GREY, angle=0.0, scale=1.0, interpolation=BILINEAR)
    reference = {
        "identity": lambda: image,
        "invert": lambda: tv.invert(image),
        "autocontrast": lambda: tv.autocontrast(image),
        "equalize": lambda: tv.equalize(level) / 255,
        "posterize": lambda: tv.posterize(level, 8 - round(4 * abs(strength))) / 255,
        "solarize": lambda: tv.solarize(level, 256 * (1 - abs(strength))) / 255 if strength else image,
        "color": lambda: tv.adjust_saturation(image, factor),
        "contrast": lambda: tv.adjust_contrast(image, factor),
        "brightness": lambda: tv.adjust_brightness(image, factor),
        "sharpness": lambda: tv.adjust_sharpness(image, factor),
        "rotate": lambda: tv.rotate(image - GREY, 30 * strength, BILINEAR) + GREY,
        "shear-x": lambda: affine(translate=[0, 0], shear=[slant, 0.0], center=[0, 0]) + GREY,
        "shear-y": lambda: affine(translate=[0, 0], shear=[0.0, slant], center=[0, 0]) + GREY,
        "translate-x": lambda: affine(translate=[shift, 0], shear=[0.0, 0.0]) + GREY,
        "translate-y": lambda: affine(translate=[0, shift], shear=[0.0, 0.0]) + GREY,
    }
    return reference[name]()


# What every augmentation keeps


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(("side", "size"), [(32, 32), (36, 32), (21, 16)])
def test_shape_range_and_purity(name: str, side: int, size: int) -> None:
    pixels, numbers = photos(side=side), draws()
    before, state = (pixels.clone(), numbers.clone()), torch.get_rng_state()
    act = augmentation(name)
    out = act(pixels, size, numbers)
    assert out.shape == (24, 3, size, size)
    assert out.dtype == torch.float32
    assert 0 <= out.min() <= out.max() <= 1
    assert torch.equal(out, act(pixels, size, numbers))
    assert torch.equal(pixels, before[0])
    assert torch.equal(numbers, before[1])
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("name", NAMES)
def test_an_image_does_not_see_its_batch(name: str) -> None:
    act, pixels, numbers = augmentation(name), photos(37), draws(37)
    whole = act(pixels, 32, numbers)
    order = torch.randperm(37, generator=torch.Generator().manual_seed(1))
    assert torch.equal(act(pixels[order], 32, numbers[order]), whole[order])
    for some in (slice(0, 1), slice(5, 6), slice(7, 20)):
        assert torch.equal(act(pixels[some], 32, numbers[some]), whole[some])


@pytest.mark.parametrize("name", NAMES)
def test_the_draws_that_it_states_suffice_and_each_counts(name: str) -> None:
    act, pixels, numbers, other = augmentation(name), photos(200), draws(200), draws(200, seed=1)
    assert act.draws <= DRAWS
    out = act(pixels, 32, numbers)
    assert torch.equal(act(pixels, 32, numbers[:, : act.draws]), out)
    for i in range(act.draws):
        moved = numbers.clone()
        moved[:, i] = other[:, i]
        assert not torch.equal(act(pixels, 32, moved), out)


@given(
    st.lists(st.sampled_from([name for name, part in AUGMENTATIONS.items() if isinstance(part, Effect)]), max_size=3),
    st.integers(0, 2**31),
    st.sampled_from([0.0, 1.0, 0.5, None]),
)
@settings(max_examples=30, deadline=None)
def test_any_composition_of_any_image_stays_in_range(effects: list[str], seed: int, level: float | None) -> None:
    pixels = photos(3, side=9, seed=seed) if level is None else torch.full((3, 3, 9, 9), level)
    out = augmentation("+".join(["crop-flip", *effects]))(pixels, 8, draws(3, seed))
    assert out.isfinite().all()
    assert 0 <= out.min() <= out.max() <= 1


def test_a_composition_is_its_parts_in_turn_with_draws_of_their_own() -> None:
    pixels, numbers = photos(side=36), draws()
    square = augment.crop_flip(pixels, 32, numbers)
    expected = randaugment(augment.cutout(square, numbers[:, 3:5]), numbers[:, 5:9])
    assert torch.equal(augmentation("crop-flip+cutout+randaugment")(pixels, 32, numbers), expected)
    assert torch.equal(augmentation("cutout")(pixels, 32, numbers), augment.cutout(augment.centre(pixels, 32), numbers))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("crop-flop", "Did you mean 'crop-flip'"),
        ("crop-flip+randaugmet", "Did you mean 'randaugment'"),
        ("crop-flip+", "There is no augmentation ''"),
        ("cutout+crop-flip", "'crop-flip' chooses the square"),
        ("crop-flip+flip", "'flip' chooses the square"),
        ("+".join(["crop-flip", *["autoaugment"] * 6]), "join fewer"),
    ],
)
def test_a_wrong_name_is_a_sentence(name: str, message: str) -> None:
    with pytest.raises(InputError, match=message):
        augmentation(name)


# Geometry


@pytest.mark.parametrize(("side", "size"), [(32, 32), (36, 32), (21, 16)])
def test_crop_flip_is_what_slicing_gives(side: int, size: int) -> None:
    pixels, numbers = photos(side=side), draws()
    margin = size // 8 if side == size else 0
    for image, own, out in zip(pixels, numbers, augment.crop_flip(pixels, size, numbers), strict=True):
        left, top = (int(own[i] * (side + 2 * margin - size + 1)) for i in (1, 2))
        square = F.pad(image, [margin] * 4)[:, top : top + size, left : left + size]
        assert torch.equal(out, square.flip(-1) if own[0] < 0.5 else square)


@pytest.mark.parametrize(("side", "size"), [(32, 32), (36, 32), (21, 16)])
@pytest.mark.parametrize("name", ["none", "flip", "crop-flip"])
def test_the_affine_map_says_where_the_square_comes_from(name: str, side: int, size: int) -> None:
    geometry, pixels, numbers = AUGMENTATIONS[name], photos(side=side), draws()
    assert isinstance(geometry, Geometry)
    moved = sampled(pixels, geometry.affine(numbers, side, size), size, "nearest")
    assert torch.equal(moved, geometry.act(pixels, size, numbers))


def test_prepared_floats_keep_their_bits_whatever_else_is_in_the_batch() -> None:
    """The cubic shoots over at edges, and is cut at the extremes of the image itself."""
    images, numbers = (photos(4, 16) > 0.5).float() * 4 - 2, draws(4)
    images[3] *= 10
    whole = augment.resized_crop_flip(images, 12, numbers)
    for k in range(4):
        assert torch.equal(whole[k : k + 1], augment.resized_crop_flip(images[k : k + 1], 12, numbers[k : k + 1]))
    assert whole[:3].max() == 2
    assert whole[:3].min() == -2


def test_resized_crop_flip_lies_in_the_canvas() -> None:
    affine = augment.resized_crop_flip_affine(draws(2000), 36, 32)
    extent = affine[:, :, :2].abs().sum(2)
    area = extent.prod(1)
    assert (extent + affine[:, :, 2].abs()).max() <= 1 + 1e-6
    assert 0.3 < area.min() < 0.4
    assert area.max() > 0.95
    assert 900 < (affine[:, 0, 0] < 0).sum() < 1100


# Operations


@pytest.mark.parametrize("name", [*OPERATIONS, "invert"])
@pytest.mark.parametrize("strength", [1.0, 0.5, 0.1, -0.3, -0.9])
def test_an_operation_is_torchvisions(name: str, strength: float) -> None:
    act = (OPERATIONS | {"invert": policies.invert})[name]
    flat = torch.cat([torch.full((1, 3, 32, 32), 100 / 255), torch.zeros(1, 3, 32, 32)])
    pixels = torch.cat([photos(4), flat])
    out = act(pixels, torch.full((6,), strength))
    for image, own in zip(pixels, out, strict=True):
        torch.testing.assert_close(own, by_torchvision(name, image, strength).clamp(0, 1), rtol=0, atol=2e-5)


@pytest.mark.parametrize("turn", [-0.5, -0.1, 0.0, 0.03, 0.4])
def test_hue_is_torchvisions(turn: float) -> None:
    pixels = torch.cat([photos(4), torch.eye(3).view(3, 3, 1, 1).expand(3, 3, 32, 32), torch.ones(1, 3, 32, 32)])
    out = policies.hue(pixels, torch.full((8,), turn))
    torch.testing.assert_close(out, tv.adjust_hue(pixels, turn), rtol=0, atol=1e-5)


def test_jitter_is_torchvisions_four_in_turn() -> None:
    pixels, numbers = photos(8), draws(8)
    for image, own, out in zip(pixels, numbers, augment.jitter(pixels, numbers), strict=True):
        bright, contrast, colour, hue = (0.4 * (2 * own[:4] - 1)).tolist()
        image = tv.adjust_contrast(tv.adjust_brightness(image, 1 + bright), 1 + contrast)
        image = tv.adjust_hue(tv.adjust_saturation(image, 1 + colour), hue / 4)
        torch.testing.assert_close(out, image, rtol=0, atol=5e-5)


# Policies


def test_there_are_the_fourteen_operations_of_the_paper() -> None:
    listed = """identity autocontrast equalize rotate solarize color posterize contrast brightness sharpness
    shear-x shear-y translate-x translate-y"""
    assert sorted(OPERATIONS) == sorted(listed.split())


@pytest.mark.parametrize("name", list(OPERATIONS))
@pytest.mark.parametrize("sign", [-1, 1])
def test_every_operation_gets_stronger_with_its_magnitude(name: str, sign: int) -> None:
    image = scene()
    far = [(OPERATIONS[name](image, torch.tensor([sign * m / 10])) - image).abs().mean().item() for m in range(11)]
    assert all(b >= a - 1e-7 for a, b in pairwise(far))
    if name not in ("autocontrast", "equalize", "identity"):
        assert far[0] < 1e-6 < 0.003 < far[10]


def test_no_operations_are_the_identity_and_one_is_the_one_drawn() -> None:
    pixels, numbers = photos(100), draws(100)
    assert torch.equal(randaugment(pixels, numbers, number=0), pixels)
    out = randaugment(pixels, numbers, number=1, magnitude=7)
    for image, own, moved in zip(pixels, numbers, out, strict=True):
        name = [*OPERATIONS][int(own[0] * 14)]
        strength = torch.tensor([-0.7 if own[1] < 0.5 else 0.7])
        assert torch.equal(moved, OPERATIONS[name](image[None], strength)[0])


@pytest.mark.parametrize("magnitude", [-1, 10.5])
def test_a_magnitude_off_the_scale_is_refused(magnitude: float) -> None:
    with pytest.raises(InputError, match="0 to 10"):
        randaugment(photos(2), draws(2), magnitude=magnitude)


def test_operations_and_signs_are_equally_common(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[tuple[Tensor, Tensor]] = []
    monkeypatch.setattr(policies, "applied", lambda pixels, chosen, strength: seen.append((chosen, strength)) or pixels)
    randaugment(torch.zeros(14_000, 3, 1, 1), draws(14_000), number=2)
    chosen, strength = seen[0]
    for k in range(2):
        counts = torch.bincount(chosen[:, k], minlength=14)
        assert counts.shape == (14,)
        assert ((counts - 1000).float() ** 2 / 1000).sum() < 40  # chi-square of 13 degrees: 34.5 at 0.001
        assert abs((strength[:, k] > 0).float().mean() - 0.5) < 0.02
    pair = torch.bincount(chosen[:, 0] * 14 + chosen[:, 1], minlength=196)
    assert ((pair - 14_000 / 196).float() ** 2 / (14_000 / 196)).sum() < 280  # 195 degrees: 262 at 0.001


@pytest.mark.parametrize("found_on", ["cifar10", "imagenet"])
def test_autoaugment_does_the_pair_drawn_with_its_probabilities(found_on: str) -> None:
    pairs = AutoAugment(AutoAugmentPolicy(found_on)).policies
    pixels, numbers = photos(250), draws(250)
    spelled = {name.replace("-", ""): name for name in [*OPERATIONS, "invert"]}
    out = autoaugment(pixels, numbers, found_on)
    drawn = set()
    for image, own, moved in zip(pixels, numbers, out, strict=True):
        row = int(own[0] * 25)
        drawn.add(row)
        for i, (name, chance, level) in enumerate(pairs[row]):
            if own[1 + i] < chance:
                strength = (-1 if own[3 + i] < 0.5 else 1) * (level or 0) / 9
                image = by_torchvision(spelled[name.lower()], image, strength).clamp(0, 1)
        # A rounding may move a pixel over a threshold of the second operation, but few.
        assert ((moved - image).abs() > 1 / 255 + 1e-5).float().mean() < 0.02
    assert len(drawn) == 25


# Erasing


def test_cutout_is_a_grey_square_about_its_centre() -> None:
    pixels, numbers = photos(200), draws(200)
    for image, own, out in zip(pixels, numbers, augment.cutout(pixels, numbers), strict=True):
        x, y = int(own[0] * 32), int(own[1] * 32)
        expected = image.clone()
        expected[:, max(0, y - 8) : y + 8, max(0, x - 8) : x + 8] = 0.5
        assert torch.equal(out, expected)


def test_random_erasing_has_the_papers_areas_shapes_and_noise() -> None:
    side, count = 64, 2000
    out = augment.random_erasing(torch.full((count, 3, side, side), -1.0), draws(count))
    erased = out[:, 0] >= 0
    assert torch.equal(erased, out[:, 2] >= 0)
    some = erased.flatten(1).any(1)
    assert abs(some.float().mean() - 0.5) < 0.05
    height, width = erased[some].any(2).sum(1), erased[some].any(1).sum(1)
    assert torch.equal(height * width, erased[some].flatten(1).sum(1))
    area, shape = height * width / side**2, height / width
    assert 0.015 < area.min() < 0.03 < 0.38 < area.max() < 0.41
    assert abs(area.mean() - 0.21) < 0.015
    assert 0.25 < shape.min() < 0.35 < 2.9 < shape.max() < 3.8
    assert abs((shape > 1).float().mean() - (shape < 1).float().mean()) < 0.1
    noise = out[out >= 0]
    counts = torch.histc(noise, 10, 0, 1) / len(noise)
    assert (counts - 0.1).abs().max() < 0.005
    one, two = (image[:, mask].flatten()[:200] for image, mask in zip(out[some][:2], erased[some][:2], strict=True))
    assert abs(torch.corrcoef(torch.stack([one, two]))[0, 1]) < 0.25


# Mixup


def test_mixup_by_hand() -> None:
    images = torch.tensor([0.0, 1.0, 0.5]).view(3, 1, 1, 1).expand(3, 3, 2, 2)
    mixed = mixup(images, torch.tensor([7, 8, 9]), torch.tensor([0.25, 0.5, 1.0]))
    assert mixed.images[:, 0, 0, 0].tolist() == [0.375, 0.5, 0.5]  # 0.75 of 0.5; half of 1; all of 0.5
    assert mixed.targets.tolist() == [7, 8, 9]
    assert mixed.others.tolist() == [9, 7, 8]
    assert mixed.share.tolist() == [0.25, 0.5, 1.0]


@pytest.mark.parametrize(
    ("alpha", "cumulative"),
    [
        (0.5, lambda x: 2 / math.pi * x.sqrt().asin()),
        (1.0, lambda x: x),
        (2.0, lambda x: 3 * x**2 - 2 * x**3),
    ],
)
def test_the_share_is_a_beta_variable(alpha: float, cumulative: object) -> None:
    share = mixup_share(draws(20_000), alpha).sort().values
    assert callable(cumulative)
    assert (cumulative(share) - torch.arange(20_000) / 20_000).abs().max() < 0.0125  # Kolmogorov: 0.0115 at 0.01


@pytest.mark.parametrize("alpha", [0.05, 0.2, 0.75, 8.0])
def test_the_share_has_the_variance_of_beta_and_is_a_number_at_the_edges(alpha: float) -> None:
    assert mixup_share(draws(20_000), alpha).var().item() == pytest.approx(1 / (4 * (2 * alpha + 1)), rel=0.04)
    last = 1 - 2.0**-24
    corners = torch.cartesian_prod(*[torch.tensor([0.0, 0.25, 0.5, last])] * 4)
    share = mixup_share(corners, alpha)
    assert 0 <= share.min() <= share.max() <= 1


def test_names_give_values_that_compare() -> None:
    assert augmentation("crop-flip+cutout") == augmentation("crop-flip+cutout")
    assert isinstance(augmentation("none"), Composed)


def test_prepared_floats_keep_their_range_and_are_refused_as_colours() -> None:
    pixels = 3 * torch.randn(4, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    images = Images(pixels, torch.zeros(4, dtype=torch.int64), ("a",), Preparation(16, 16, (0.0,) * 3, (1.0,) * 3))
    seen = images.view(torch.arange(4), torch.device("cpu"), augmentation("resized-crop-flip+cutout"))
    assert seen.min() < -2
    assert seen.max() > 2
    for name in ("jitter", "crop-flip+randaugment", "autoaugment"):
        with pytest.raises(InputError, match="floats that are no colours from 0 to 1"):
            images.view(torch.arange(4), torch.device("cpu"), augmentation(name))
