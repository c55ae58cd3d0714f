"""GLICO: the great circle and its guards, points that stay on the sphere, and what is gained beside control rows."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from small import CLASSES, classifier, images
from torch import Tensor, nn

from classgraft.bundle import Bundle
from classgraft.data.images import Images, Task
from classgraft.errors import InputError
from classgraft.latent_page import WAYS, of_latent
from classgraft.models.classifier import Classifier, Head, untrained
from classgraft.models.preparation import Preparation
from classgraft.models.sources import Architecture
from classgraft.trainers.glico import GLICO, TransductiveGLICO, enriched
from classgraft.training.latent import Latent, dealt_in, learn, slerp
from classgraft.training.loop import fit
from classgraft.training.recipe import Recipe

CPU = torch.device("cpu")
RECIPE = Recipe(200, 16, "adamw", 1e-2, weight_decay=0.0, milestones=(), augment="none")
SETTINGS: dict[str, Any] = {
    "dimension": 16,
    "width": 8,
    "noise": 0.1,
    "strength": 1.0,
    "perceptual": 0.0,
    "most": 128,
    "device": CPU,
}


def on_sphere(*shape: int, seed: int = 0) -> Tensor:
    return F.normalize(torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64), dim=1)


# -- the great circle -----------------------------------------------------------------------------------------------


def test_slerp_worked_by_hand() -> None:
    # a third of the way through a right angle is 30 degrees
    found = slerp(torch.tensor([[1.0, 0.0]]), torch.tensor([[0.0, 1.0]]), torch.tensor([1 / 3]))
    torch.testing.assert_close(found, torch.tensor([[math.cos(math.pi / 6), 0.5]]))


def test_slerp_equals_a_turn_by_a_share_of_the_angle() -> None:
    first, second = on_sphere(6, 5), on_sphere(6, 5, seed=1)
    way = torch.linspace(0, 1, 6, dtype=torch.float64)
    for a, b, r, found in zip(first, second, way, slerp(first, second, way), strict=True):
        angle = math.acos(float(a @ b)) * float(r)
        across = b - (a @ b) * a
        torch.testing.assert_close(found, math.cos(angle) * a + math.sin(angle) * across / across.norm())


def test_slerp_takes_each_row_by_itself() -> None:
    """The published code takes norms and products over the batch: one angle for each dimension."""
    first, second, way = on_sphere(4, 3), on_sphere(4, 3, seed=1), torch.full((4,), 0.3, dtype=torch.float64)
    alone = torch.cat([slerp(first[i : i + 1], second[i : i + 1], way[:1]) for i in range(4)])
    torch.testing.assert_close(slerp(first, second, way), alone)


@pytest.mark.parametrize("second", [[1.0, 0.0], [1.0, 1e-6], [-1.0, 1e-9]], ids=["same", "near", "opposite"])
def test_slerp_is_finite_where_the_circle_is_not_defined(second: list[float]) -> None:
    way = torch.tensor([0.0, 0.2, 0.4, 1.0])
    other = F.normalize(torch.tensor([second] * 4), dim=1)
    found = slerp(torch.tensor([[1.0, 0.0]] * 4), other, way)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(4))
    torch.testing.assert_close(found[0], torch.tensor([1.0, 0.0]))


def test_the_partner_is_another_image_of_the_same_class_each_equally_often_and_itself_where_it_is_alone() -> None:
    labels = torch.tensor([2, 0, 0, 1, 0, 2])
    latent = Latent(None, torch.zeros(6, 2), labels, 0.0, 0)  # type: ignore[arg-type]
    index = torch.arange(6).repeat_interleave(1000)
    found = latent.partner(index, torch.rand(6000, generator=torch.Generator().manual_seed(0)))
    assert torch.equal(labels[found], labels[index])
    assert torch.equal(found == index, index == 3)
    assert torch.bincount(found[index == 1], minlength=6)[[2, 4]].min() > 400
    assert torch.equal(latent.partner(torch.tensor([1, 1]), torch.tensor([0.0, 1 - 2**-24])), torch.tensor([2, 4]))


# -- the generator --------------------------------------------------------------------------------------------------


def blobs(count: int = 4, seed: int = 0) -> Images:
    """A bright square in one of three corners, its shade another in each picture."""
    generator = torch.Generator().manual_seed(seed)
    seen = images(3 * count)
    pixels = torch.randint(20, 60, seen.pixels.shape, dtype=torch.uint8, generator=generator)
    shade = torch.randint(120, 255, (3 * count,), dtype=torch.uint8, generator=generator)
    for i, label in enumerate(seen.labels.tolist()):
        top, left = [(0, 0), (0, 6), (6, 0)][label]
        pixels[i, :, top : top + 6, left : left + 6] = shade[i]
    return dataclasses.replace(seen, pixels=pixels)


def separation(latent: Latent) -> float:
    """How much nearer the points of one class lie to each other than those of two, in cosines."""
    cosines = latent.points @ latent.points.T
    same = latent.labels[:, None] == latent.labels
    other = ~torch.eye(len(same), dtype=torch.bool)
    return float(cosines[same & other].mean() - cosines[~same].mean())


def test_points_stay_on_the_sphere_and_the_generator_learns_to_draw() -> None:
    known = blobs()
    latent = learn(known, 3, None, RECIPE, **SETTINGS)
    torch.testing.assert_close(latent.points.norm(dim=1), torch.ones(12))
    drawn = latent.generator(latent.points, torch.zeros(12, 100)).detach()
    raw = known.raw(torch.arange(12), CPU)
    assert F.l1_loss(drawn, raw) < 0.5 * F.l1_loss(raw.mean(0, keepdim=True).expand_as(raw), raw)


def test_points_gather_by_class_with_the_class_loss_and_less_without() -> None:
    """The claim of figure 1, on pictures whose class is a small patch; GLO (no class loss) is the control."""
    known = blobs()
    pixels = known.pixels[
        torch.randperm(12, generator=torch.Generator().manual_seed(1))
    ]  # places say nothing of the class
    for k in range(3):
        pixels[known.labels == k, :, 9:, 9:] = 0
        pixels[known.labels == k, k, 9:, 9:] = 255
    hidden = dataclasses.replace(known, pixels=pixels)
    glico = learn(hidden, 3, None, RECIPE, **SETTINGS)
    glo = learn(hidden, 3, None, RECIPE, **{**SETTINGS, "strength": 0.0})
    assert separation(glico) > separation(glo) + 0.02


def test_pictures_between_have_both_ends_shades_and_the_class_s_place() -> None:
    known = blobs()
    latent = learn(known, 3, None, RECIPE, **SETTINGS)
    made = latent.between(torch.arange(12), torch.full((12, 2), 0.9), 0.4)
    assert made.shape == (12, 3, 12, 12)
    corners = torch.stack([made[:, :, t : t + 6, s : s + 6].mean((1, 2, 3)) for t, s in [(0, 0), (0, 6), (6, 0)]], 1)
    assert torch.equal(corners.argmax(1), known.labels)


def test_a_trained_body_without_norms_compares_pictures_and_a_fresh_one_does_not() -> None:
    quick = GLICO(dimension=8, width=4, drawing=2, recipe=Recipe(1, 8, lr=0.01))
    for bias in (0.0, 0.1):
        body = nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
        nn.init.constant_(body[0].bias, bias)
        model = Classifier(body, Head([nn.Linear(8, 3)]), CLASSES)
        points = [dataclasses.replace(quick, perceptual=p).learnt(model, blobs(), 3).points for p in (None, 0.0)]
        assert torch.equal(*points) == (not bias)


def test_a_body_compares_pictures_only_where_it_is_trained() -> None:
    fresh = classifier()
    assert untrained(fresh.body)
    trained = classifier()
    fit(trained, lambda batch: {"class": F.cross_entropy(trained(batch.images), batch.targets)}, images(), Recipe(1))
    assert not untrained(trained.body)
    quick = GLICO(dimension=8, width=4, drawing=2, recipe=Recipe(1, 8, lr=0.01))
    pixels_alone = dataclasses.replace(quick, perceptual=0.0)
    for model, same in ((fresh, True), (trained, False)):
        points = [each.learnt(model, blobs(), 3).points for each in (quick, pixels_alone)]
        assert torch.equal(*points) == same


@pytest.mark.parametrize("side", [12, 6])
def test_larger_images_are_drawn_small_and_enlarged_and_seen_small_too(side: int) -> None:
    seen: list[int] = []
    body = classifier().body
    body.register_forward_pre_hook(lambda module, given: seen.append(given[0].shape[-1]))
    known = blobs()
    cropped = dataclasses.replace(known, preparation=Preparation(10, 12))
    latent = learn(cropped, 3, body, RECIPE, **{**SETTINGS, "perceptual": 1e-3, "most": side})
    assert latent.generator.side == side
    assert set(seen) == {10 * side // 12}
    made = latent.along(torch.arange(12), torch.arange(12), (0.0,))[:, 0]
    assert made.shape == (12, 3, 12, 12)
    shade = known.raw(torch.arange(12), CPU)
    assert F.l1_loss(made, shade) < 0.7 * F.l1_loss(shade.mean(0, keepdim=True).expand_as(shade), shade)


def test_a_body_that_takes_its_own_size_alone_sees_pictures_of_that_size() -> None:
    model = classifier()
    model.body = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Flatten(), nn.Linear(4 * 12 * 12, 4))
    settings = {**SETTINGS, "perceptual": 1.0, "most": 6}
    latent = learn(blobs(), 3, model.body, dataclasses.replace(RECIPE, epochs=1), **settings)
    assert latent.generator.side == 12
    settings["perceptual"] = 0.0  # nobody looks
    assert learn(blobs(), 3, model.body, dataclasses.replace(RECIPE, epochs=1), **settings).generator.side == 6


def test_only_the_transductive_mode_looks_at_unlabelled_images() -> None:
    method = TransductiveGLICO(dimension=8, width=4, drawing=2, recipe=Recipe(1, 8, lr=0.01))
    found = [method.train(classifier(), classifier(), blobs(), images(9, seed=s)).head.weight for s in (1, 2)]
    assert not torch.equal(*found)


# -- a task with more pictures --------------------------------------------------------------------------------------


def test_a_task_is_enriched_with_as_many_pictures_of_each_class() -> None:
    known = blobs(2)
    task = Task(known.classes, known)
    method = GLICO(dimension=16, width=8, drawing=200, drawing_lr=2e-3, recipe=Recipe(batch_size=8))
    state = torch.get_rng_state()
    found = enriched(task, 5, classifier(), method)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.equal(found.train.pixels[:6], known.pixels)
    assert torch.equal(torch.bincount(found.train.labels), torch.tensor([7, 7, 7]))
    assert (found.train.pixels.dtype, found.classes) == (torch.uint8, task.classes)
    corners = torch.stack(
        [found.train.pixels[6:, :, t : t + 6, s : s + 6].float().mean((1, 2, 3)) for t, s in [(0, 0), (0, 6), (6, 0)]],
        1,
    )
    assert torch.equal(corners.argmax(1), found.train.labels[6:])
    assert torch.equal(enriched(task, 5, classifier(), method).train.pixels, found.train.pixels)


def test_of_a_class_with_one_photo_no_pictures_are_made_unless_asked_for() -> None:
    method = GLICO(dimension=8, width=4, drawing=3, recipe=Recipe(batch_size=4))
    one = Task(("bee",), blobs(1).of(("bee",)))
    assert len(enriched(one, 3, classifier(), method).train) == 1
    assert len(enriched(one, 3, classifier(), method, least=1).train) == 4
    known = blobs(2).subset(torch.arange(5))  # two, two, one
    found = enriched(Task(known.classes, known), 3, classifier(), method)
    assert torch.equal(torch.bincount(found.train.labels), torch.tensor([5, 5, 1]))


# -- the page -------------------------------------------------------------------------------------------------------


def test_the_way_begins_and_ends_at_the_two_points() -> None:
    latent = learn(blobs(), 3, None, dataclasses.replace(RECIPE, epochs=2), **SETTINGS)
    first, second = torch.tensor([0, 1]), torch.tensor([3, 4])
    found = latent.along(first, second, (0.0, 0.5, 1.0))
    assert found.shape == (2, 3, 3, 12, 12)
    with torch.no_grad():
        ends = [latent.generator(latent.points[index], torch.zeros(2, 100)) for index in (first, second)]
    torch.testing.assert_close(found[:, [0, 2]], torch.stack(ends, 1))
    assert not torch.equal(found[:, 1], found[:, 0])


def test_points_of_a_plane_keep_their_distances_on_its_axes() -> None:
    angles = torch.tensor([0.1, 0.9, 2.0, 4.0])
    turn = torch.linalg.qr(torch.randn(5, 5, generator=torch.Generator().manual_seed(0))).Q[:2]
    points = torch.stack([angles.cos(), angles.sin()], 1) @ turn
    latent = Latent(None, points, torch.tensor([0, 0, 1, 1]), 0.0, 0)  # type: ignore[arg-type]
    torch.testing.assert_close(torch.cdist(latent.plane(), latent.plane()), torch.cdist(points, points))
    within, between = latent.likeness()
    assert within == pytest.approx((math.cos(0.8) + math.cos(2.0)) / 2, abs=1e-5)
    assert between == pytest.approx(sum(map(math.cos, (1.9, 1.1, 3.9, 3.1))) / 4, abs=1e-5)


def test_the_page_shows_the_way_between_two_images_of_each_class_and_the_point_of_every_image() -> None:
    known = dataclasses.replace(blobs(), classes=("<b>ant", "bee", "cow"))
    model = classifier()
    model.classes = known.classes
    bundle = Bundle(model, Architecture("cifar:resnet20"), "linear", known.preparation)
    settings = {"dimension": 8, "width": 4, "drawing": 2, "batch_size": 8}
    page = of_latent(bundle, known, settings, command="classgraft latent")
    assert page == of_latent(bundle, known, settings, command="classgraft latent")
    assert page.count("data:image/jpeg") == 3 * (len(WAYS) + 2)
    assert page.count('class="dot ') == 2 * (len(known) + 3)  # of glico and of glo, with a key each
    assert all(
        word in page for word in ("glo (no class loss)", "another of its class", "classgraft latent", "&lt;b&gt;ant")
    )
    assert "<b>ant" not in page
    with pytest.raises(InputError, match="give two at least"):
        of_latent(bundle, known.subset(torch.tensor([0])), settings)


def test_labelled_images_are_shown_as_often_as_all_without_labels_together() -> None:
    labels = torch.tensor([0, 1, 0, *[2] * 13])
    images = Images(torch.zeros(16, 3, 4, 4), labels, ("a", "b", ""), Preparation(4, 4))
    places = dealt_in(images, 2)
    counts = torch.bincount(places, minlength=16)
    assert counts.tolist() == [4, 4, 4, *[1] * 13]
    assert torch.equal(dealt_in(images.subset(torch.arange(8)), 2), torch.arange(8))  # 3 beside 5
