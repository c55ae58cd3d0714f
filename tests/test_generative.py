"""Generators: their losses, what they draw of earlier tasks, generative replay beside exact replay, GLNE on drawn images."""

from __future__ import annotations

import copy
import math
from dataclasses import replace
from functools import cache

import pytest
import torch
import torch.nn.functional as F
from test_bundle import squares, tiny
from test_contract import LATER, NEW, OLD, PREPARATION, bits, empty, photos, task, trained
from torch import Tensor, nn

import classgraft
from classgraft.data.images import Images, Task
from classgraft.errors import InputError
from classgraft.extenders import generative_replay
from classgraft.extenders.generative_replay import GenerativeReplay
from classgraft.extenders.glne import GLNE
from classgraft.losses.generation import divergence, gaussian_surprise
from classgraft.models.classifier import Classifier, frozen
from classgraft.models.vae import VAE
from classgraft.packing import bytes_of, without
from classgraft.training.answers import answers
from classgraft.training.generative import Autoencoding, Generative, drawn, learnt, pictures, vectors_of
from classgraft.training.loop import Batch, Terms, fit
from classgraft.training.mixtures import Mixtures
from classgraft.training.recipe import Recipe
from classgraft.training.unseen import as_features

CPU = torch.device("cpu")
FORM = Autoencoding(dimension=4, width=8, steps=120, lr=1e-2, batch_size=16)
SHORT = Recipe(epochs=4, batch_size=8, optimiser="adamw", lr=0.01, weight_decay=0.0, milestones=(), augment="none")


# -- losses ---------------------------------------------------------------------------------------------------------


def test_divergence_by_hand() -> None:
    """(1 + 1 - 1 - 0) / 2 for N(1, 1) and (4 - 1 - log 4) / 2 for N(0, 4), in one point; 0 for the other."""
    mean, log_variance = torch.tensor([[1.0, 0.0], [0.0, 0.0]]), torch.tensor([[0.0, 1.3862944], [0.0, 0.0]])
    assert float(divergence(mean, log_variance)) == pytest.approx((0.5 + (3 - 1.3862944) / 2) / 2)


def test_gaussian_surprise_by_hand() -> None:
    """3 under N(1, 4): 1/2 + log 2 + log(2 pi) / 2."""
    found = gaussian_surprise(torch.tensor([[3.0]]), torch.tensor([[1.0]]), torch.tensor([2.0]).log())
    assert float(found) == pytest.approx(0.5 + 0.6931472 + 0.9189385)


def test_losses_of_a_generator_equal_integrals_and_densities_taken_one_by_one() -> None:
    a, b, c = torch.randn(3, 4, 2, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    away, surprise = 0.0, 0.0
    for i in range(4):
        for j in range(2):
            mean, deviation = float(a[i, j]), math.exp(float(b[i, j]) / 2)
            at = torch.linspace(mean - 10 * deviation, mean + 10 * deviation, 20001, dtype=torch.float64)
            log_p = -((at - mean) / deviation).square() / 2 - math.log(deviation)
            log_q = -at.square() / 2
            away += float((log_p.exp() * (log_p - log_q)).sum() * (at[1] - at[0])) / math.sqrt(2 * math.pi) / 4
            narrow = math.exp(float(c[0, j]))
            density = (
                math.exp(-(((float(a[i, j]) - float(b[i, j])) / narrow) ** 2) / 2) / narrow / math.sqrt(2 * math.pi)
            )
            surprise -= math.log(density) / 4
    assert float(divergence(a, b)) == pytest.approx(away, rel=1e-6)
    assert float(gaussian_surprise(a, b, c[0])) == pytest.approx(surprise)


def test_divergence_is_least_at_the_standard_normal_and_surprise_at_the_deviation_that_there_is() -> None:
    mean, log_variance = torch.zeros(3, 2, requires_grad=True), torch.zeros(3, 2, requires_grad=True)
    assert [
        float(g.abs().max()) for g in torch.autograd.grad(divergence(mean, log_variance), (mean, log_variance))
    ] == [
        0,
        0,
    ]
    given = 3 * torch.randn(50, 1, generator=torch.Generator().manual_seed(1))
    log_deviation = given.square().mean().sqrt().log()[None].requires_grad_(True)
    (slope,) = torch.autograd.grad(gaussian_surprise(given, 0 * given, log_deviation), log_deviation)
    assert abs(float(slope)) < 1e-5


def test_gradients_of_a_generators_losses_are_right() -> None:
    parts = torch.randn(3, 3, 2, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    a, b, c = (part.clone().requires_grad_(True) for part in parts)
    assert torch.autograd.gradcheck(divergence, (a, b))
    assert torch.autograd.gradcheck(lambda mean, spread: gaussian_surprise(a.detach(), mean, spread[0]), (b, c))


# -- the generator --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(1, 28, 28), (3, 14, 14), (3, 17, 17), (2, 8, 8), (1, 5, 5), (7, 1, 1)], ids=str)
def test_any_size_goes_down_and_comes_up_again(shape: tuple[int, ...]) -> None:
    network = VAE(shape, 3, 8, 2).eval()
    given = torch.rand(2, *shape)
    mean, log_variance = network.encoded(network.seen(given))
    assert mean.shape == log_variance.shape == (2, 3)
    assert network.decoded(mean, torch.tensor([0, 1])).shape == given.shape
    assert drawn(network, 5).shape == (5, *shape)


def test_pictures_stay_in_the_range_of_what_was_learnt_from() -> None:
    images = replace(photos(OLD, 2), pixels=photos(OLD, 2).pixels.float() / 50 - 2)
    memory = learnt(images, replace(FORM, steps=2), None, 1.0, CPU)
    assert memory is not None
    shown = drawn(memory.network(CPU), 20, generator=torch.Generator().manual_seed(0))
    assert float(images.pixels.min()) <= float(shown.min())
    assert float(shown.max()) <= float(images.pixels.max())
    network = memory.network(CPU)
    assert (float(network.seen(images.pixels).min()), float(network.seen(images.pixels).max())) == (0, 1)


def vectors(count: int = 400) -> Images:
    """Two features that go together, far from 0 and of different size, and one that never varies."""
    points = torch.randn(count, 2, generator=torch.Generator().manual_seed(0))
    features = torch.stack([10 + 3 * points[:, 0], 0.1 * (points[:, 0] + points[:, 1]), torch.zeros(count)], 1)
    return vectors_of(features, torch.zeros(count, dtype=torch.int64), ("a",))


def test_drawn_features_have_the_mean_and_the_covariance_of_the_real_ones() -> None:
    memory = learnt(vectors(), replace(FORM, steps=400), None, 1.0, CPU)
    assert memory is not None
    found = drawn(memory.network(CPU), 2000, generator=torch.Generator().manual_seed(1)).flatten(1)
    real = vectors().pixels.flatten(1)
    far = ((found.mean(0) - real.mean(0))[:2] / real.std(0)[:2]).abs()
    assert float(far.max()) < 0.25
    assert torch.allclose(found.std(0)[:2] / real.std(0)[:2], torch.ones(2), atol=0.25)
    assert 0.35 < float(torch.corrcoef(found[:, :2].T)[0, 1]) < 0.9  # of the real ones 0.7


@cache
def taught(conditional: bool, share: float) -> Generative:
    """Two tasks one after the other."""
    form = replace(FORM, conditional=conditional)
    first = learnt(photos(("ant", "bee"), 30), form, None, 1.0, CPU)
    found = learnt(photos(("cow",), 30), form, first, share, CPU)
    assert found is not None
    return found


def nearest(shown: Tensor, names: tuple[str, ...]) -> Tensor:
    """Which class's mean picture each is nearest to."""
    means = torch.stack([photos((name,), 30).pixels.float().mean(0) for name in names]) / 255
    return (shown[:, None] - means).flatten(2).norm(dim=2).argmin(1)


THREE = ("ant", "bee", "cow")


def test_a_generator_goes_on_drawing_classes_whose_images_are_gone_and_without_replay_it_does_not() -> None:
    draws = {share: drawn(taught(False, share).network(CPU), 200, generator=torch.Generator().manual_seed(0))
             for share in (1.0, 0.5)}  # fmt: skip
    counts = {share: torch.bincount(nearest(shown, THREE), minlength=3) / 200 for share, shown in draws.items()}
    assert float(counts[1.0][2]) > 0.9  # the control: r = 1 replays nothing
    assert float(counts[0.5].min()) > 0.1
    assert taught(False, 0.5).tasks == 2


def test_a_conditional_generator_draws_the_class_that_is_asked_for() -> None:
    memory = taught(True, 0.5)
    asked_for = torch.arange(3).repeat(60)
    shown = drawn(memory.network(CPU), 180, asked_for, torch.Generator().manual_seed(0))
    assert float((nearest(shown, THREE) == asked_for).float().mean()) > 0.9
    shuffled = drawn(memory.network(CPU), 180, asked_for.roll(1), torch.Generator().manual_seed(0))
    assert float((nearest(shuffled, THREE) == asked_for).float().mean()) < 0.2


def test_a_class_taken_out_cannot_be_asked_for_and_others_are_drawn_as_before() -> None:
    memory = taught(True, 0.5)
    fewer = memory.without(["ant"])
    assert fewer.classes == ("bee", "cow")
    assert len(fewer.weights["conditions"]) == 2
    before, after = (
        drawn(m.network(CPU), 4, torch.full((4,), m.classes.index("cow")), torch.Generator().manual_seed(0))
        for m in (memory, fewer)
    )
    assert torch.equal(before, after)
    assert taught(False, 0.5).without(["ant"]).classes == ("bee", "cow")


def test_a_generator_takes_less_than_the_images_and_says_how_much() -> None:
    memory = taught(False, 0.5)
    count = sum(part.numel() for part in memory.weights.values())
    assert 2 * count <= bytes_of(memory) < 2 * count + 4000  # fp16, and a few names


def test_what_does_not_fit_a_generator_is_refused_in_a_sentence() -> None:
    memory = taught(False, 0.5)
    with pytest.raises(InputError, match=r"draws \(3, 14, 14\) and the images are \(3, 1, 1\)"):
        learnt(vectors(), FORM, memory, 0.5, CPU)
    with pytest.raises(InputError, match="cannot be asked for a class"):
        learnt(photos(NEW), replace(FORM, conditional=True), memory, 0.5, CPU)
    assert learnt(photos(NEW).subset(torch.arange(0)), FORM, memory, 0.5, CPU) is memory


# -- generative replay ----------------------------------------------------------------------------------------------


QUICK = GenerativeReplay(dimension=4, width=8, drawing=150, drawing_lr=1e-2, recipe=SHORT)


def same(one: nn.Module, other: nn.Module) -> bool:
    return bits(dict(one.state_dict())) == bits(dict(other.state_dict()))


def test_r_is_one_over_the_number_of_tasks_unless_stated() -> None:
    memory = taught(False, 0.5)
    assert [QUICK.mixed(None), QUICK.mixed(replace(memory, tasks=1)), QUICK.mixed(memory)] == [1, 1 / 2, 1 / 3]
    assert replace(QUICK, share=0.9).mixed(memory) == 0.9
    assert replace(QUICK, share=0.9).mixed(None) == 1


def test_with_r_of_one_it_is_fine_tuning_bit_for_bit() -> None:
    method = replace(QUICK, share=1.0, drawing=1)
    found = method.extend(trained(), method.remember(trained(), task(OLD), None), task(NEW))
    plain = trained().grown(NEW).requires_grad_(True)

    def objective(batch: Batch) -> Terms:
        return {"new": F.cross_entropy(plain(batch.images), batch.targets)}

    fit(plain, objective, photos(NEW).of(plain.classes), SHORT)
    assert same(found, plain)


def test_classes_that_another_method_added_are_not_forgotten_in_silence() -> None:
    memory = QUICK.remember(trained(), task(OLD), None)
    with pytest.raises(InputError, match="Of the old class 'extra' generative-replay has learnt no image"):
        QUICK.extend(trained().grown(("extra",)), memory, task(NEW))


def dropping() -> Classifier:
    """With dropout, so that an answer in training mode would be another one; body and dropout in one."""
    model = trained()
    model.body = nn.Sequential(model.body, nn.Dropout(0.5))
    return model.eval()


@pytest.mark.parametrize("training", [False, True], ids=["eval", "train"])
def test_with_an_exact_sampler_it_is_experience_replay_bit_for_bit(
    training: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The labels are those of the old network, in evaluation mode whatever mode it was given in."""
    old_images = photos(OLD, 5, seed=4)
    labels = answers(dropping(), old_images).argmax(1)

    def sampler(network: VAE, count: int, labels: Tensor | None = None) -> Tensor:
        return old_images.raw(torch.arange(count), CPU)

    memory = replace(QUICK, drawing=1).remember(dropping(), task(OLD), None)
    monkeypatch.setattr(generative_replay, "drawn", sampler)
    found = QUICK.extend(dropping().train(training), memory, task(NEW))
    grown = dropping().grown(NEW).requires_grad_(True)

    def objective(batch: Batch) -> Terms:
        exact = old_images.view(torch.arange(len(batch.index)), CPU)
        logits, again = grown(torch.cat([batch.images, exact])).split(len(batch.index))
        wanted = F.one_hot(labels[: len(again)], len(grown.classes)).float()
        return {
            "new": 0.5 * F.cross_entropy(logits, batch.targets),
            "old": 0.5 * -(wanted * again.log_softmax(1)).sum(1).mean(),
        }

    fit(grown, objective, photos(NEW).of(grown.classes), SHORT)
    assert same(found, grown)


def accuracies(model: Classifier) -> tuple[float, float]:
    """Of old and new classes on other images, in one label space."""
    found = []
    for names in (OLD, NEW):
        images = photos(names, 8, seed=5).of(model.classes)
        found.append(float((answers(model, images).argmax(1) == images.labels).float().mean()))
    return found[0], found[1]


@cache
def ended(space: str, conditional: bool, share: float | None) -> tuple[float, float]:
    method = replace(QUICK, space=space, conditional=conditional, share=share, recipe=replace(SHORT, epochs=25))
    memory = method.remember(trained(), task(OLD, 30), None)
    return accuracies(method.extend(trained(), memory, task(NEW, 10)))


@pytest.mark.parametrize(("space", "conditional"), [("images", False), ("images", True), ("features", False)])
def test_replay_keeps_old_classes_that_training_without_it_loses(space: str, conditional: bool) -> None:
    old, new = ended(space, conditional, None)
    without, _ = ended(space, conditional, 1.0)  # the control: r = 1
    assert old > without + 0.2
    assert new > 0.8


def test_in_feature_space_the_body_keeps_its_bits_and_in_image_space_it_learns() -> None:
    for space in ("images", "features"):
        method = replace(QUICK, space=space, drawing=5)
        found = method.extend(trained(), method.remember(trained(), task(OLD), None), task(NEW))
        assert same(found.body, trained().body) == (space == "features")
        assert not torch.equal(found.head.linear[0].weight, trained().head.linear[0].weight)
        first = method.extend(empty(), None, task(NEW))
        assert not same(first.body, empty().body)


def test_old_classes_without_a_generator_or_with_one_of_another_space_are_refused() -> None:
    with pytest.raises(InputError, match="--old-images"):
        QUICK.extend(trained(), None, task(NEW))
    memory = replace(QUICK, drawing=1).remember(trained(), task(OLD), None)
    with pytest.raises(InputError, match="does not draw features; leave the space as it was"):
        replace(QUICK, space="features").extend(trained(), memory, task(NEW))
    assert memory is not None
    with pytest.raises(InputError, match="--old-images"):
        QUICK.extend(trained(), memory.without(OLD), task(NEW))


# -- GLNE on drawn images -------------------------------------------------------------------------------------------


DRAWN = GLNE(views=2, memory="cvae", drawing=10, iterations=30)


@cache
def remembered() -> Generative:
    found = learnt(photos(OLD, 30), replace(FORM, steps=250, conditional=True), None, 1.0, CPU)
    assert found is not None
    return found


def test_pictures_are_seen_by_the_frozen_network_as_the_classes_that_they_are_of() -> None:
    """Beside the control: pictures of the next class."""
    shown = pictures(remembered(), photos(NEW), 25, 0, CPU)
    assert (shown.pixels.dtype, shown.classes, shown.preparation) == (torch.uint8, OLD, PREPARATION)
    said = answers(trained(), shown).argmax(1)
    assert float((said == shown.labels).float().mean()) > 0.8
    assert float((said == (shown.labels + 1) % 4).float().mean()) < 0.1
    kept = as_features(trained(), task(NEW), remembered(), 0)
    assert kept is not None
    assert {name: len(part.mean) for name, part in kept.classes.items()} == dict.fromkeys(OLD, 1000)


def test_glne_on_drawn_images_keeps_old_logits_and_both_kinds_of_classes() -> None:
    grown = DRAWN.extend(trained(), remembered(), task(NEW, 5))
    images = photos(OLD, 8, seed=5)
    assert torch.equal(answers(grown, images)[:, :4], answers(trained(), images))
    old, new = accuracies(grown)
    assert min(old, new) > 0.7
    swapped = replace(remembered(), classes=tuple(reversed(OLD)))  # the control: labels of other classes
    assert not torch.equal(
        DRAWN.extend(trained(), swapped, task(NEW, 5)).head.weight[4:], grown.head.weight[4:]
    )  # it is the drawn classes that the new rows learn against


def test_the_generator_goes_on_through_extensions_and_removals() -> None:
    method = replace(DRAWN, drawing=20)
    grown = method.extend(trained(), remembered(), task(NEW, 1))
    memory = method.remember(grown, task(NEW, 1), remembered())
    assert isinstance(memory, Generative)
    assert memory.classes == OLD + NEW
    fewer = memory.without(["bee", "elk"])
    again = method.extend(grown.without(["bee", "elk"]), fewer, task((*LATER, "fox"), 1))
    assert again.classes == ("ant", "cow", "dog", "fox", "gnu")
    started = method.extend(empty(), None, task(NEW, 1))
    assert isinstance(method.remember(started, task(NEW, 1), None), Generative)


def test_a_generator_becomes_mixtures_but_mixtures_draw_no_images() -> None:
    mixtures = replace(DRAWN, memory="mixture").remember(trained(), task(NEW), remembered())
    assert isinstance(mixtures, Mixtures)
    assert set(mixtures.classes) == {*OLD, *NEW}
    assert bytes_of(mixtures) < 6 * 6000
    with pytest.raises(InputError, match="mixtures, which draw no images; go on with memory=mixture"):
        DRAWN.remember(trained(), task(NEW), mixtures)
    assert isinstance(
        replace(DRAWN, drawing=1).remember(trained(), task(OLD), without(mixtures, OLD + NEW)), Generative
    )


def test_a_bundle_keeps_either_memory_of_glne() -> None:
    settings = {"memory": "cvae", "drawing": 2, "views": 1, "iterations": 2}
    base = tiny()
    kept = classgraft.remember(base, squares(base, base.classes), "glne", settings)
    grown = classgraft.extend(kept, squares(base, ("new",)), method="glne", settings=settings)
    again = classgraft.extend(grown, squares(base, ("more",)), method="glne", settings=settings)
    fewer = classgraft.remove(again, "c1")
    plain = fewer.memories["glne"].content.plain
    assert plain["classes"] == ["c0", "c2", "new", "more"]
    assert fewer.memories["glne"].content.nbytes > 1000
    mixed = classgraft.remember(base, squares(base, base.classes), "glne")
    assert "freedom" in mixed.memories["glne"].content.plain


def test_the_network_that_looks_at_pictures_is_left_as_it_was() -> None:
    model = trained().train()
    before = bits(copy.deepcopy(model))
    replace(DRAWN, iterations=1).extend(model, remembered(), Task(NEW, photos(NEW, 2)))
    assert bits(model) == before
    assert frozen(model).training is False
