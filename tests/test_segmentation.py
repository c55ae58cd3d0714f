"""Scenes and their masks, networks that label every pixel, and structured distillation with its controls."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from sklearn.metrics import jaccard_score
from small import classifier
from small import images as plain_images
from torch import Tensor, nn

from classgraft.data.augment import AUGMENTATIONS, Geometry, augmentation, resized_crop_flip
from classgraft.data.images import Images, joined
from classgraft.data.scenes import VOID, Scenes, read
from classgraft.distillers.structured import StructuredDistillation, known, maps
from classgraft.errors import InputError
from classgraft.metrics.segmentation import overlap
from classgraft.models.critic import Critic
from classgraft.models.preparation import Preparation
from classgraft.models.segmenter import Segmenter, pyramid
from classgraft.report.gallery import Gallery, coloured, render
from classgraft.training import loop
from classgraft.training.batches import Epochs
from classgraft.training.carries import undeclared
from classgraft.training.recipe import Recipe
from classgraft.training.segmenting import measured, taught

CPU = torch.device("cpu")
CLASSES = ("field", "disc", "bar")
SMALL = Preparation(16, 16, (0.5,) * 3, (0.25,) * 3)


def scenes(count: int = 12, seed: int = 0, noise: float = 25.0, preparation: Preparation = SMALL) -> Scenes:
    """A disc and a bar of colours of their own on a field, under noise, with an edge of void around the disc."""
    generator, side = np.random.default_rng(seed), preparation.resize
    y, x = np.mgrid[:side, :side]
    pixels, masks = [], []
    for _ in range(count):
        mask = np.zeros((side, side), np.uint8)
        left = generator.integers(0, side - 4)
        mask[:, left : left + 3] = 2
        far = np.hypot(*(at - generator.uniform(4, side - 4) for at in (y, x)))
        mask[far < 4.6] = VOID
        mask[far < 3.6] = 1
        colours = np.array([[90, 120, 90], [170, 110, 90], [110, 110, 170]])
        shown = colours[np.where(mask == VOID, 0, mask)] + generator.normal(0, noise, (side, side, 3))
        pixels.append(torch.from_numpy(shown.clip(0, 255).astype(np.uint8)).permute(2, 0, 1))
        masks.append(torch.from_numpy(mask))
    return Scenes(
        torch.stack(pixels), torch.zeros(count, dtype=torch.int64), CLASSES, preparation, masks=torch.stack(masks)
    )


def network(width: int, seed: int = 0, classes: tuple[str, ...] = CLASSES) -> Segmenter:
    """Three convolutions, the second halving the resolution, so that logits are coarser than the image."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers = nn.Sequential(
            nn.Conv2d(3, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(),
            nn.Conv2d(width, width, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(width, len(classes), 1),
        )  # fmt: skip
        return Segmenter(layers, classes).eval()


# -- scenes ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name, part in AUGMENTATIONS.items() if isinstance(part, Geometry)])
@pytest.mark.parametrize(("side", "size"), [(16, 16), (20, 16)])
def test_masks_move_with_their_images(name: str, side: int, size: int) -> None:
    """Pictures of one grey per class: at every pixel whose whole neighbourhood is of one class, mask and grey agree."""
    given = scenes(6, preparation=Preparation(size, side, (0.0,) * 3, (1.0,) * 3))
    grey = torch.where(given.masks == VOID, 3, given.masks) * 60 + 60
    given = replace(given, pixels=grey[:, None].repeat(1, 3, 1, 1).to(torch.uint8))
    index, augment = torch.tensor([4, 1, 0]), augmentation(name)
    for epoch in range(3):
        seen = (given.view(index, CPU, augment, 7, epoch)[:, 0] * 255 / 60 - 1).round().long()
        masks = given.targets(index, CPU, augment, 7, epoch)
        masks = torch.where(masks == VOID, 3, masks)
        around = F.unfold(masks[:, None].float(), 3, padding=1).view(3, 9, size, size)
        inner = (around == around[:, 4:5]).all(1) & (seen >= 0)  # -1: an edge that was padded
        assert inner.sum() > 100
        right = (seen == masks)[inner].double().mean()
        assert right == 1 if name != "resized-crop-flip" else right > 0.98  # bicubic pixels look further than one
        assert masks.dtype == torch.int64


def test_what_no_image_falls_on_is_void() -> None:
    given = replace(scenes(8), masks=torch.ones(8, 16, 16, dtype=torch.uint8))
    seen = given.view(torch.arange(8), CPU, augmentation("crop-flip"), 0, 0)
    masks = given.targets(torch.arange(8), CPU, augmentation("crop-flip"), 0, 0)
    black = (seen == seen.new_tensor((0 - 0.5) / 0.25)).all(1)
    assert 20 < black.sum() < 1000
    assert torch.equal(masks == VOID, black)


@pytest.mark.parametrize("name", ["randaugment", "crop-flip+autoaugment", "autoaugment-imagenet"])
def test_an_augmentation_that_moves_pixels_unseen_is_refused(name: str) -> None:
    with pytest.raises(InputError, match="cannot follow RandAugment"):
        scenes(2).targets(torch.arange(2), CPU, augmentation(name))
    with pytest.raises(InputError, match="augmentation that has a name"):
        scenes(2).targets(torch.arange(2), CPU, resized_crop_flip)


def test_effects_after_a_geometry_leave_masks_where_that_put_them() -> None:
    plain, coloured = (scenes(4).targets(torch.arange(4), CPU, augmentation(n), 3, 1) for n in ("flip", "flip+jitter"))
    assert torch.equal(plain, coloured)


def test_scenes_are_divided_relabelled_and_told_apart() -> None:
    given = scenes(10)
    first, second = given.split(0.3, 0)
    assert (len(first), len(second)) == (7, 3)
    turned = given.of(("bar", "yak", "disc"))
    assert torch.equal(turned.masks == 0, given.masks == 2)
    assert torch.equal(turned.masks == 2, given.masks == 1)
    assert torch.equal(turned.masks == VOID, (given.masks == VOID) | (given.masks == 0))
    assert not len(given.of(("yak",)))
    assert replace(given, masks=given.masks.clone()).fingerprint == given.fingerprint
    other = given.masks.clone()
    other[3, 5, 5] = (other[3, 5, 5] + 1) % 3
    assert replace(given, masks=other).fingerprint != given.fingerprint
    picked = given.subset(torch.tensor([7, 2]))
    assert torch.equal(picked.masks, given.masks[[7, 2]])
    assert torch.equal(picked.pixels, given.pixels[[7, 2]])


def test_masks_that_do_not_fit_are_refused() -> None:
    given = scenes(3)
    with pytest.raises(InputError, match=r"give uint8 \(3, 16, 16\)"):
        replace(given, masks=given.masks[:2])
    with pytest.raises(InputError, match=r"torch.int64"):
        replace(given, masks=given.masks.long())
    with pytest.raises(InputError, match="holds 3 but there are 3 class names"):
        replace(given, masks=torch.full_like(given.masks, 3))
    with pytest.raises(InputError, match="The masks are"):
        joined(given, given)


def written(folder: Path, mask: np.ndarray, mode: str = "L") -> tuple[Path, Path]:
    pictures, masks = folder / "images", folder / "masks"
    pictures.mkdir(parents=True)
    masks.mkdir()
    shown = np.repeat(mask[:, :, None] * 20, 3, 2).astype(np.uint8)
    Image.fromarray(shown).save(pictures / "one.png")
    Image.fromarray(mask).convert(mode).save(masks / "one.png")
    return pictures, masks


def test_folders_of_pictures_and_masks_are_read_whole(tmp_path: Path) -> None:
    mask = np.zeros((12, 24), np.uint8)
    mask[:, 16:], mask[:2, :4] = 1, 11
    found = read(*written(tmp_path, mask), ("left", "right"), Preparation(6, 6), void=11)
    expected = torch.zeros(6, 6, dtype=torch.uint8)
    expected[:, 4:], expected[0, 0] = 1, VOID  # the last third is a third still
    assert torch.equal(found.masks[0], expected)
    assert found.names == ("one.png",)
    assert found.pixels.shape == (1, 3, 6, 6)
    assert found.pixels[0, 0, 3].tolist()[0] == 0


def test_folders_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    mask = np.full((6, 6), 4, np.uint8)
    pictures, masks = written(tmp_path / "a", mask)
    with pytest.raises(InputError, match="holds 4 but there are 2"):
        read(pictures, masks, ("a", "b"), Preparation(6, 6))
    with pytest.raises(InputError, match="no mask in"):
        read(pictures, tmp_path, ("a",), Preparation(6, 6))
    with pytest.raises(InputError, match="no picture in"):
        read(tmp_path / "none", masks, ("a",), Preparation(6, 6))
    with pytest.raises(InputError, match="one channel"):
        read(*written(tmp_path / "b", mask, "RGB"), ("a",), Preparation(6, 6))
    Image.fromarray(mask[:3]).save(masks / "one.png")
    with pytest.raises(InputError, match="should be alike"):
        read(pictures, masks, ("a",), Preparation(6, 6))
    (masks / "one.png").write_bytes(b"no image")
    with pytest.raises(InputError, match="cannot be read"):
        read(pictures, masks, ("a",), Preparation(6, 6))


# -- networks -------------------------------------------------------------------------------------------------------


def test_features_are_what_the_last_convolution_into_classes_was_given() -> None:
    model, given = network(4), torch.randn(2, 3, 16, 16)
    logits, features = model.seen(given)
    assert features.shape == (2, 4, 8, 8)
    torch.testing.assert_close(model.network[5](features), logits)
    named = Segmenter(model.network, CLASSES, layer="2")
    assert named.seen(given).features.shape == (2, 4, 16, 16)
    assert model(given).shape == (2, 3, 16, 16)
    torch.testing.assert_close(model(given), F.interpolate(logits, (16, 16), mode="bilinear"))
    assert not model.network[5]._forward_hooks


def test_networks_of_torchvision_and_encoders_of_timm_label_every_pixel() -> None:
    from torchvision.models.segmentation import lraspp_mobilenet_v3_large

    given = torch.randn(1, 3, 64, 64)
    model = Segmenter(
        lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=5), tuple("abcde")
    ).eval()
    with torch.no_grad():
        assert model(given).shape == (1, 5, 64, 64)
        assert model.seen(given).features.ndim == 4
        own = pyramid("mobilenetv2_035", tuple("abcde"), width=8)
        logits, features = own.seen(given)
    assert logits.shape == (1, 5, 16, 16)
    assert features.shape == (1, 8, 16, 16)
    again = pyramid("mobilenetv2_035", tuple("abcde"), width=8)
    assert all(torch.equal(a, b) for a, b in zip(own.parameters(), again.parameters(), strict=True))


class Main(nn.Module):
    """A dictionary of outputs, the auxiliary one last, as torchvision's networks give it."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.classifier = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 3, 1)
        self.aux_classifier = nn.Conv2d(3, 3, 1)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        found = self.first(images)
        return {"out": self.classifier(found), "aux": self.aux_classifier(images)}


def test_an_auxiliary_output_is_left_aside() -> None:
    model = Segmenter(Main(), CLASSES)
    logits, features = model.seen(torch.randn(1, 3, 8, 8))
    assert features.shape == (1, 4, 8, 8)
    torch.testing.assert_close(model.network.classifier(features), logits)


def test_networks_that_do_not_fit_are_refused() -> None:
    given = torch.randn(1, 3, 8, 8)
    with pytest.raises(InputError, match="not a logit of each of the 3 classes"):
        Segmenter(nn.Conv2d(3, 2, 1), CLASSES).seen(given)
    with pytest.raises(InputError, match="no convolution into its 3 classes"):
        Segmenter(nn.Identity(), CLASSES).seen(given)
    with pytest.raises(InputError, match="no layer 'x'"):
        Segmenter(nn.Conv2d(3, 3, 1), CLASSES, layer="x")
    with pytest.raises(InputError, match="timm has no encoder 'nothing'"):
        pyramid("nothing", CLASSES)


# -- measures -------------------------------------------------------------------------------------------------------


def test_overlap_worked_by_hand() -> None:
    # class 0: 1 right, 1 taken for 1: 1/2; class 1: 1 right, 1 wrongly so: 1/2; class 2: nobody saw it; one void
    found = overlap(torch.tensor([0, 1, 1, 0]), torch.tensor([0, 0, 1, VOID]), ("a", "b", "c"), VOID)
    assert found.each.tolist()[:2] == [0.5, 0.5]
    assert found.each[2].isnan()
    assert found.mean == 0.5
    assert found.accuracy == pytest.approx(2 / 3)


def test_overlap_equals_scikit_learn_s_jaccard_score() -> None:
    generator = torch.Generator().manual_seed(0)
    masks, predicted = (torch.randint(0, 5, (3, 9, 9), generator=generator) for _ in range(2))
    masks[:, 0] = VOID
    counted = masks != VOID
    wanted = jaccard_score(masks[counted].numpy(), predicted[counted].numpy(), average=None)
    found = overlap(predicted, masks, tuple("abcde"), VOID)
    assert found.each.tolist() == pytest.approx(wanted.tolist())


# -- structured distillation ----------------------------------------------------------------------------------------

QUICK = Recipe(epochs=25, batch_size=6, optimiser="adamw", lr=0.01, weight_decay=0.0, milestones=(), augment="flip")


@cache
def teacher() -> Segmenter:
    return taught(network(24), scenes(40), replace(QUICK, epochs=30))


def student() -> Segmenter:
    return network(3, seed=1)


def test_masks_alone_are_learnt_and_not_from_another_image_s() -> None:
    test = scenes(20, seed=9)
    assert measured(teacher(), test).mean > 0.75
    assert measured(network(24), test).mean < 0.4
    train = scenes(40)
    other = taught(network(24), replace(train, masks=train.masks.roll(7, 0)), replace(QUICK, epochs=10))
    assert measured(other, test).mean < measured(teacher(), test).mean - 0.2


@pytest.mark.parametrize("term", ["pixel", "pair", "holistic"])
def test_each_term_brings_the_student_to_the_teacher(term: str) -> None:
    """From pictures without masks, where nothing else teaches."""
    bare = scenes(30, seed=3)
    free = Images(bare.pixels, bare.labels, (), bare.preparation)
    weights = {"pixel": 0.0, "pair": 0.0, "holistic": 0.0} | {term: 1.0}
    method = StructuredDistillation(**weights, nodes=4, critic_width=8, critic_lr=2e-3, recipe=QUICK)
    before, after = (distance(term, model) for model in (student(), method.distill(teacher(), student(), free)))
    assert after < 0.75 * before


def distance(term: str, model: Segmenter) -> float:
    """How far the student's answers to new pictures lie from the teacher's, in what the term speaks of."""
    test = scenes(20, seed=8).view(torch.arange(20), CPU)
    with torch.no_grad():
        (own, mine), (wanted, theirs) = model.seen(test), teacher().seen(test)
    if term == "pixel":
        return float(F.kl_div(own.log_softmax(1), wanted.softmax(1), reduction="sum"))
    if term == "holistic":  # how the classes' shares of a picture are spread, which is what a critic can tell
        return float((own.softmax(1).mean((0, 2, 3)) - wanted.softmax(1).mean((0, 2, 3))).abs().sum())
    rows = [F.normalize(F.adaptive_avg_pool2d(part, 4).flatten(2), dim=1) for part in (mine, theirs)]
    own_pairs, wanted_pairs = (part.transpose(1, 2) @ part for part in rows)
    return float((own_pairs - wanted_pairs).square().mean())


def test_pixels_are_learnt_without_masks_from_a_teacher_and_not_from_an_untrained_one() -> None:
    bare, test = scenes(30, seed=3), scenes(20, seed=9)
    free = Images(bare.pixels, bare.labels, (), bare.preparation)
    method = StructuredDistillation(pixel=3.0, pair=1.0, holistic=0.0, nodes=4, recipe=QUICK)
    helped, control = (
        measured(method.distill(of, network(8, seed=1), free), test).mean for of in (teacher(), network(24, seed=4))
    )
    assert helped > 0.5
    assert helped > control + 0.15


def test_void_pixels_count_in_no_term(monkeypatch: pytest.MonkeyPatch) -> None:
    """With half of every picture void, the gradient in the student's logits and features is 0 there."""
    given = scenes(4)
    masks = given.masks.clone()
    masks[:, :, 8:] = VOID
    given = replace(given, masks=masks)
    method = StructuredDistillation(nodes=4, recipe=replace(QUICK, augment="none", batch_size=4))
    model = network(4, seed=2)
    critic, held = Critic(3, 3, 4), []
    seen = model.seen

    def watched(images: Tensor) -> object:
        found = seen(images)
        held.extend(part.retain_grad() or part for part in found)
        return found

    monkeypatch.setattr(model, "seen", watched)
    loop.train_mode(model)
    batch = next(iter(Epochs(given, method.recipe, CPU)(0)))
    assert not known(batch)[:, :, 8:].any()
    terms = method.step(teacher(), model, critic).take(batch)
    assert set(terms) == {"class", "pixel", "pair", "holistic", "critic", "penalty"}
    for part in held:
        assert not part.grad[:, :, :, 5:].any()  # of 8; the fourth is shared by interpolation
        assert part.grad[:, :, :, :4].any()


def test_the_critic_sees_no_difference_where_nothing_counts() -> None:
    counted = torch.zeros(2, 16, 16, dtype=torch.bool)
    assert not maps(torch.randn(2, 3, 8, 8), counted).any()
    torch.testing.assert_close(maps(torch.randn(2, 3, 8, 8), ~counted).sum(1), torch.ones(2, 8, 8))


def test_a_step_names_all_that_it_changes() -> None:
    method = StructuredDistillation(nodes=4, critic_width=4, recipe=replace(QUICK, batch_size=4))
    model, critic = network(4, seed=2), Critic(3, 3, 4)
    loop.train_mode(model)
    step = method.step(teacher(), model, critic)
    batch = next(iter(Epochs(scenes(4), method.recipe, CPU)(0)))
    assert step.second_order
    assert undeclared(lambda: step.take(batch), step, step.carries) == []


def test_the_critic_learns_to_tell_the_teacher_s_maps() -> None:
    """Its gap falls below 0 against a student that stands still, and its gradient's length goes towards 1."""
    method = StructuredDistillation(holistic=1.0, critic_width=8, critic_lr=2e-3, recipe=replace(QUICK, lr=0.0))
    model = student()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        critic = Critic(3, 3, 8)
    loop.train_mode(model)
    step = method.step(teacher(), model, critic)
    step.set_rate(0.0)
    batches = [b for epoch in range(20) for b in Epochs(scenes(12), replace(QUICK, lr=0.0), CPU)(epoch)]
    first = step.take(batches[0])
    for batch in batches[1:]:
        last = step.take(batch)
    assert float(first["critic"]) == pytest.approx(
        float(last["critic"]), abs=1e-1
    )  # at rate 0 the critic stands still too
    step = method.step(teacher(), model, critic)  # the optimisers' own rates: the student's is 0, the critic's is not
    gaps = [float(step.take(batch)["critic"]) for batch in batches]
    tenth = len(gaps) // 10
    assert sum(gaps[-tenth:]) / tenth < sum(gaps[:tenth]) / tenth - 0.05


def test_what_cannot_be_distilled_is_refused() -> None:
    method, model = StructuredDistillation(recipe=QUICK), student()
    with pytest.raises(InputError, match="label every pixel"):
        method.distill(classifier(), classifier(), plain_images())  # type: ignore[arg-type]
    with pytest.raises(InputError, match="with masks"):
        method.distill(model, model, replace(plain_images(), classes=CLASSES))
    free = replace(plain_images(), labels=torch.zeros(50, dtype=torch.int64), classes=())
    with pytest.raises(InputError, match="nothing to learn"):
        replace(method, pixel=0.0, pair=0.0, holistic=0.0).distill(model, model, free)


# -- pictures -------------------------------------------------------------------------------------------------------


def test_a_picture_takes_the_colours_of_its_mask_and_keeps_its_own_where_that_is_void() -> None:
    image = torch.full((3, 1, 3), 100, dtype=torch.uint8)
    colours = torch.tensor([[200, 0, 100], [0, 50, 100]], dtype=torch.uint8)
    found = coloured(image, torch.tensor([[0, 1, VOID]], dtype=torch.uint8), colours, 0.5)
    assert found[:, 0].T.tolist() == [[150, 50, 100], [50, 75, 100], [100, 100, 100]]


def test_a_page_shows_every_picture_and_takes_names_for_text() -> None:
    picture = torch.zeros(3, 6, 8, dtype=torch.uint8)
    key = (("<b>sky</b>", "#102030"),)
    page = render(
        Gallery("Streets", "What", ("", "mIoU"), (("a & b", "12.5"),), key, ("one", "two"), ((picture, picture),))
    )
    assert page.count("data:image/jpeg") == 2
    assert "<b>sky" not in page
    assert "a &amp; b" in page
    assert "background:#102030" in page
