"""GLNE with a memory, and the controls beside it: claims on features whose distribution is known."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from test_glne import NEW, OLD, World, measured, pictured, world

from classgraft.data.images import Task
from classgraft.extenders.glne import GLNE
from classgraft.extenders.glne_literal import GLNELiteral
from classgraft.extenders.soft_distillation import SoftDistillation
from classgraft.metrics.classification import Evaluation, evaluation
from classgraft.packing import bytes_of
from classgraft.training.mixtures import Mixtures
from classgraft.verbs import Extender

SHOTS = 5


def old_task(here: World, count: int = 40) -> Task:
    names = here.model.classes
    features, labels = here.draw(range(OLD), count, 1)
    return Task(names, pictured(features, labels, names))


@cache
def ended(seed: int, method: Extender, kept: bool = True, shots: int = SHOTS) -> tuple[Evaluation, int]:
    """What the method makes of the world with what it kept of 40 images a class, and how many bytes those were."""
    here = world(seed)
    memory = method.remember(here.model, old_task(here), None) if kept else None
    grown = method.extend(here.model, memory, here.task(shots))
    logits = grown(pictured(here.test, here.labels, grown.classes).pixels).detach()
    return evaluation(logits, here.labels, grown.classes, range(OLD, OLD + NEW)), bytes_of(memory)


def harmonic(method: Extender, kept: bool = True, shots: int = SHOTS) -> float:
    return sum(ended(seed, method, kept, shots)[0].summary()["harmonic"] for seed in range(3)) / 3


REAL = GLNE(views=1, memory="features")
MIXTURES = {
    "chosen": GLNE(views=1),
    "diagonal": GLNE(views=1, covariance="diagonal"),
    "shared": GLNE(views=1, covariance="shared"),
    "spherical": GLNE(views=1, covariance="spherical"),
}


@pytest.mark.parametrize("name", MIXTURES)
def test_mixtures_are_worth_the_real_features(name: str) -> None:
    assert harmonic(MIXTURES[name]) > harmonic(REAL) - 0.01
    assert ended(0, MIXTURES[name])[1] < 0.6 * ended(0, REAL)[1]  # of 40 images only


def test_a_memory_is_no_worse_than_none() -> None:
    assert harmonic(GLNE(views=1)) > harmonic(GLNE(views=1), kept=False) - 0.005


def test_old_features_matter_a_memory_of_shuffled_classes_is_worse() -> None:
    """The control: the same numbers under other classes' names."""
    here, method = world(0), GLNE(views=1)
    memory = method.remember(here.model, old_task(here), None)
    assert memory is not None
    moved = {name: replace(m, mean=m.mean + 3) for name, m in memory.classes.items()}
    grown = method.extend(here.model, replace(memory, classes=moved), here.task(SHOTS))
    logits = grown(pictured(here.test, here.labels, grown.classes).pixels).detach()
    worse = evaluation(logits, here.labels, grown.classes, range(OLD, OLD + NEW)).summary()["harmonic"]
    assert worse < ended(0, method)[0].summary()["harmonic"] - 0.1


@pytest.mark.parametrize("kept", [True, False])
def test_the_literal_objective_learns_no_new_class(kept: bool) -> None:
    found, _ = ended(0, GLNELiteral(views=1), kept)
    assert found.added == 0.0
    logits = world(0).model(pictured(world(0).test, world(0).labels, world(0).model.classes + ("",) * NEW).pixels)
    old = world(0).labels < OLD
    before = (logits[old].argmax(1) == world(0).labels[old]).double().mean()
    assert found.old == pytest.approx(float(before), abs=0.01)


def test_the_literal_distillation_term_is_the_divergence_of_the_joint_softmax() -> None:
    """KL(base || expanded) on the joint softmax, in which the base has nothing on the new classes."""
    here = world(0)
    grown = GLNELiteral(views=1, weight_decay=3.0).extend(here.model, None, here.task(1))
    pixels = here.task(1).train.pixels
    base, joint = here.model(pixels).detach(), grown(pixels).detach()
    slow = torch.stack([
        sum(p * (p.log() - q) for p, q in zip(b.softmax(0), j.log_softmax(0)[:OLD], strict=True))  # type: ignore[misc]
        for b, j in zip(base, joint, strict=True)
    ])  # fmt: skip
    torch.testing.assert_close(joint.logsumexp(1) - base.logsumexp(1), slow, atol=1e-4, rtol=1e-3)


def test_soft_distillation_moves_old_logits_less_the_stronger_it_is() -> None:
    here = world(0)
    memory = SoftDistillation(views=1).remember(here.model, old_task(here), None)
    pixels = pictured(here.test, here.labels, here.model.classes + ("",) * NEW).pixels
    before = here.model(pixels).detach()[:, :OLD].log_softmax(1)
    moved = []
    for strength in (0.0, 1.0, 100.0):
        grown = SoftDistillation(views=1, strength=strength).extend(here.model, memory, here.task(SHOTS))
        after = grown(pixels).detach()[:, :OLD].log_softmax(1)
        moved.append(float(F.kl_div(after, before, reduction="batchmean", log_target=True)))
    assert moved[0] > moved[1] > moved[2] > 0
    assert moved[2] < 0.2 * moved[0]


def test_soft_distillation_learns_the_new_classes() -> None:
    assert harmonic(SoftDistillation(views=1)) > 0.7


@pytest.mark.parametrize("method", [GLNE(views=1), GLNELiteral(views=1)])
def test_old_logits_keep_their_bits_whatever_was_kept(method: Extender) -> None:
    here = world(0)
    memory = method.remember(here.model, old_task(here), None)
    grown = method.extend(here.model, memory, here.task(SHOTS))
    for batch in (1, 3, 64):
        images = pictured(here.test[:batch], here.labels[:batch], grown.classes).pixels
        assert torch.equal(grown(images)[:, :OLD], here.model(images))


# -- classes that something was kept of, beside others -------------------------------------------------------------


def test_only_what_was_kept_replaces_what_is_read_off_the_head() -> None:
    here, method = world(0), GLNE(views=1)
    part = old_task(here)
    some = part.classes[:20]
    memory = method.remember(here.model, Task(some, part.train.of(some)), None)
    assert set(memory.classes) == set(some)  # type: ignore[union-attr]
    grown = method.extend(here.model, memory, here.task(SHOTS))
    logits = grown(pictured(here.test, here.labels, grown.classes).pixels).detach()
    found = evaluation(logits, here.labels, grown.classes, range(OLD, OLD + NEW)).summary()["harmonic"]
    assert found > measured(0, here.task(SHOTS), method).summary()["harmonic"] - 0.02


def test_what_is_remembered_after_an_extension_is_there_for_the_next() -> None:
    here, method = world(0), GLNE(views=1)
    task = here.task(SHOTS)
    halves = task.classes[:5], task.classes[5:]
    model, memory = here.model, method.remember(here.model, old_task(here), None)
    for names in halves:
        part = Task(names, task.train.of(names))
        model = method.extend(model, memory, part)
        memory = method.remember(model, part, memory)
    assert isinstance(memory, Mixtures)
    assert set(memory.classes) == set(model.classes)
    logits = model(pictured(here.test, here.labels, model.classes).pixels).detach()
    found = evaluation(logits, here.labels, model.classes, range(OLD, OLD + NEW)).summary()["harmonic"]
    assert found > ended(0, method)[0].summary()["harmonic"] - 0.03


# -- more photos of a class ----------------------------------------------------------------------------------------


def accuracies(model: Any, here: World) -> tuple[float, float]:
    logits = model(pictured(here.test, here.labels, model.classes).pixels).detach()
    found = evaluation(logits, here.labels, model.classes, range(OLD, OLD + NEW)).summary()
    return found["old"], found["new"]


@pytest.mark.parametrize("seed", range(2))
def test_five_batches_of_photos_end_near_all_of_them_at_once(seed: int) -> None:
    here, method = world(seed), GLNE(views=1)
    task = here.task(20)
    kept = method.remember(here.model, old_task(here), None)
    at_once = accuracies(method.extend(here.model, kept, task), here)
    images, place = task.train, torch.arange(len(task.train)) % 20 // 4
    model, memory = here.model, kept
    steps = []
    for number in range(5):
        part = Task(task.classes, images.subset(torch.nonzero(place == number)[:, 0]))
        model = method.extend(model, memory, part)
        memory = method.remember(model, part, memory)
        steps.append(accuracies(model, here))
    assert steps[-1] == pytest.approx(at_once, abs=0.03)
    assert sum(steps[-1]) > sum(steps[0])
    assert model.classes == (*here.model.classes, *task.classes)


def test_a_refined_row_stands_where_it_stood_and_all_others_keep_their_bits() -> None:
    here, method = world(0), GLNE(views=1)
    task = here.task(SHOTS)
    memory = method.remember(here.model, old_task(here), None)
    model = method.extend(here.model, memory, task)
    memory = method.remember(model, task, memory)
    name = task.classes[3]
    more = method.extend(
        model,
        memory,
        Task((name, "brand new"), replace(task.train.of((name, "brand new")), labels=torch.tensor([0, 0, 1, 1, 1]))),
    )
    moved = (more.head.weight[: OLD + NEW] != model.head.weight).any(1)
    assert torch.nonzero(moved).tolist() == [[OLD + 3]]
    assert more.classes == (*model.classes, "brand new")
    images = pictured(here.test[:3], here.labels[:3], more.classes).pixels
    assert torch.equal(more(images)[:, :OLD], here.model(images))


def test_extensions_in_a_row_without_old_images_keep_the_old_classes_when_the_added_are_remembered() -> None:
    """Control: with nothing kept at all, rows of earlier extensions are taken for a trained head's."""
    here, method = world(0), GLNE(views=1)
    task = here.task(20)
    old = {}
    for keeps in (True, False):
        model, memory = here.model, None
        for k in range(0, NEW, 2):
            part = Task(task.classes[k : k + 2], task.train.of(task.classes[k : k + 2]))
            model = method.extend(model, memory, part)
            memory = method.remember(model, part, memory) if keeps else None
        old[keeps] = accuracies(model, here)
    assert sum(old[True]) >= sum(old[False]) - 0.01
    assert min(old[True]) > 0.75
