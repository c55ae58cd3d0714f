"""Self-trainers: the oracles of their papers, and what each gains beside a control row on two moons or small digits."""

from __future__ import annotations

import copy
import dataclasses
import itertools
import math
import sys
from dataclasses import replace
from functools import cache
from typing import Any

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from moons import accuracy, labelled, moons, network
from small import classifier, images
from torch import Tensor, nn

from classgraft import catalogue
from classgraft.data.augment import augmentation
from classgraft.data.images import Images
from classgraft.errors import InputError
from classgraft.losses.consistency import squared_difference
from classgraft.models import cifar_resnet
from classgraft.models.classifier import Classifier, Head
from classgraft.models.depth import residual, stochastic_depth
from classgraft.models.preparation import Preparation
from classgraft.selftrainers import ict, meta_pseudo_labels, remixmatch, temporal_ensembling
from classgraft.selftrainers.data_distillation import DataDistillation
from classgraft.selftrainers.fixmatch import FixMatch
from classgraft.selftrainers.ict import ICT
from classgraft.selftrainers.mean_teacher import MeanTeacher
from classgraft.selftrainers.meta_pseudo_labels import MetaPseudoLabels
from classgraft.selftrainers.mixmatch import MixMatch
from classgraft.selftrainers.noisy_student import NoisyStudent
from classgraft.selftrainers.pseudo_labels import PseudoLabels
from classgraft.selftrainers.remixmatch import ReMixMatch, turned
from classgraft.selftrainers.temporal_ensembling import TemporalEnsembling
from classgraft.selftrainers.uda import UDA, annealed
from classgraft.selftrainers.vat import VAT, worst
from classgraft.trainers.cosine import Cosine
from classgraft.trainers.plain import Plain
from classgraft.training import unlabelled as self_training
from classgraft.training.batches import Batch
from classgraft.training.distributed import World
from classgraft.training.loop import Step
from classgraft.training.recipe import Recipe
from classgraft.training.unlabelled import Average, beside, elapsed, gentle, linear, measured, mixed, unmoved
from classgraft.verbs import SelfTrainer

CPU = torch.device("cpu")


def bits(model: nn.Module) -> list[bytes]:
    return [tensor.numpy().tobytes() for tensor in model.state_dict().values()]


# -- what they share ------------------------------------------------------------------------------------------------


def test_the_same_images_with_and_without_labels_are_met_in_other_draws() -> None:
    known = images(12)
    free, labelled_ = next(iter(beside(known, known, Recipe(epochs=1, batch_size=12), 1, CPU)(0)))
    assert sorted(free.index.tolist()) == sorted(labelled_.index.tolist())
    assert not torch.equal(free.index, labelled_.index)


@pytest.mark.parametrize(("unlabelled", "labelled_"), [(6, 40), (70, 20)])
def test_an_epoch_is_a_pass_over_the_longer_source_and_the_shorter_comes_round_again(
    unlabelled: int, labelled_: int
) -> None:
    free, known = images(unlabelled), images(labelled_, seed=1)
    both = beside(free, known, Recipe(epochs=3, batch_size=8), 2, CPU)
    epochs = [list(both(epoch)) for epoch in range(3)]
    longer = 0 if unlabelled > labelled_ else 1
    assert 3 * len(both) == sum(map(len, epochs)) == 15
    for epoch in epochs:
        assert all([len(batch.source) for batch in pair] == [unlabelled, labelled_] for pair in epoch)
        seen = torch.cat([pair[longer].index for pair in epoch])
        assert sorted(seen.tolist()) == list(range(max(unlabelled, labelled_)))
        assert len({pair[1 - longer].epoch for pair in epoch}) > 1
    over = [[elapsed(pair, both.parts[0].recipe) for pair in epoch] for epoch in epochs]
    assert over == [pytest.approx([(number + step / 4) / 3 for step in range(5)]) for number in range(3)]
    for again, pair in zip(both(1, 2), epochs[1][2:], strict=True):
        assert all(torch.equal(one.images, two.images) for one, two in zip(again, pair, strict=True))


def test_ramps_worked_by_hand() -> None:
    assert [linear(at, 0.2, 0.6) for at in (0.1, 0.2, 0.4, 0.6, 0.9)] == pytest.approx([0, 0, 0.5, 1, 1])
    assert (linear(0.4, 0.5, 0.5), linear(0.5, 0.5, 0.5)) == (0, 1)
    assert gentle(0, 0.5) == pytest.approx(0.0067379, rel=1e-4)
    assert gentle(0.25, 0.5) == pytest.approx(0.2865048, rel=1e-4)
    assert gentle(0.7, 0.5) == 1


def test_batch_norm_looks_at_the_batch_and_remembers_nothing() -> None:
    model = classifier(dropout=0.5).train()
    seen = images(20).view(torch.arange(20), CPU)
    before = bits(model)
    with unmoved(model):
        model(seen)
    assert bits(model) == before
    with measured(model):
        first, second = model(seen), model(seen)
    assert bits(model) == before
    assert torch.equal(first, second)
    assert all(part.training for part in model.modules())
    with torch.no_grad():
        model.body[1].running_mean += 5
    with measured(model):
        torch.testing.assert_close(model(seen), first)  # running statistics play no part
    model.eval()
    with unmoved(model):
        assert not torch.allclose(model(seen), first)  # a norm in evaluation mode is left in it


def test_an_average_of_weights_is_a_running_mean() -> None:
    first, second = classifier(seed=0), classifier(seed=1)
    average = Average(first, 0.5)
    for _ in range(2):
        average.follow(second)
    weights = [next(model.parameters()).detach() for model in (first, second, average.model)]
    # the first weights are 1 - 2/11 and 1 - 3/12 of the way, for steps 1 and 2 are young
    left = 2 / 11 * 3 / 12
    torch.testing.assert_close(weights[2], left * weights[0] + (1 - left) * weights[1])
    for _ in range(50):
        average.follow(second)
    torch.testing.assert_close(next(average.model.parameters()), weights[1])


def test_mixtures_are_convex_and_mostly_their_own() -> None:
    torch.manual_seed(0)
    given, targets = torch.eye(64).view(64, 1, 8, 8), torch.eye(64)
    found, mixture = mixed(given, targets, 0.75)
    torch.testing.assert_close(found.flatten(1), mixture)
    torch.testing.assert_close(mixture.sum(1), torch.ones(64))
    assert mixture.diagonal().min() >= 0.5
    assert mixture.diagonal().max() < 1.0001


def test_pictures_are_turned_by_quarters() -> None:
    one = torch.arange(4.0).view(1, 1, 2, 2)
    found = turned(one.repeat(4, 1, 1, 1), torch.arange(4)).flatten(1).tolist()
    assert found == [[0, 1, 2, 3], [1, 3, 0, 2], [3, 2, 1, 0], [2, 0, 3, 1]]


# -- pseudo-labels --------------------------------------------------------------------------------------------------


def test_without_weight_pseudo_labels_are_supervised_training_bit_for_bit() -> None:
    model, known, free = classifier(dropout=0.5), images(12), images(12, seed=1)
    recipe = Recipe(4, 4, lr=0.05)
    plain = Plain(recipe=recipe).train(model, known)
    assert bits(PseudoLabels(strength=0.0, recipe=recipe).train(model, model, known, free)) == bits(plain)
    assert bits(PseudoLabels(strength=1.0, recipe=recipe).train(model, model, known, free)) != bits(plain)


# -- noisy student --------------------------------------------------------------------------------------------------


def test_unsure_images_are_left_out_and_classes_balanced() -> None:
    said = torch.tensor([[0.9, 0.1], [0.6, 0.4], [0.8, 0.2], [0.3, 0.7], [0.55, 0.45], [0.95, 0.05]])
    # from 0.6 up: 0, 1, 2, 5 of class 0 and 3 of class 1; five of two classes is two each: the surest, and 3 twice
    assert NoisyStudent(threshold=0.6).chosen(said).tolist() == [5, 0, 3, 3]
    assert NoisyStudent(threshold=0.6, balanced=False).chosen(said).tolist() == [0, 1, 2, 3, 5]


def test_a_smaller_student_is_refused() -> None:
    small = Classifier(nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten()), Head([nn.Linear(3, 3)]), ("a", "b", "c"))
    with pytest.raises(InputError, match="as large at least"):
        NoisyStudent().train(classifier(), small, images(), images())


def test_the_residual_blocks_of_a_network_are_found_and_left_out_by_chance() -> None:
    torch.manual_seed(0)
    network = cifar_resnet.build("resnet20", 3).eval()
    seen = torch.randn(3, 3, 32, 32)
    blocks = residual(network, seen[:1])
    assert len(blocks) == 7  # of nine; two halve the resolution
    plain = network(seen)
    with stochastic_depth(blocks, 0.5):
        assert torch.equal(network(seen), plain)  # evaluation mode
    block = blocks[-1].train()
    given = torch.randn(500, 64, 2, 2).relu()
    with stochastic_depth([block], 0.6):
        found = block(given)
    same = (found == given).flatten(1).all(1)
    assert float(same.float().mean()) == pytest.approx(0.4, abs=0.07)
    assert torch.equal(network(seen), network(seen))
    with stochastic_depth(blocks, 1.0):
        assert torch.equal(network(seen), network(seen))


# -- data distillation ----------------------------------------------------------------------------------------------


def test_views_are_put_together_into_the_mean_of_their_probabilities() -> None:
    """The first view is the image as evaluation sees it, and alone the single-view control."""
    model, free = classifier().eval(), images(6)
    recipe = Recipe(seed=3)
    single = DataDistillation(views=1, recipe=recipe).ensembled(model, free)
    torch.testing.assert_close(single, model(free.view(torch.arange(6), CPU)).detach().softmax(1))
    found = DataDistillation(views=3, transforms="crop-flip", recipe=recipe).ensembled(model, free)
    others = [model(free.view(torch.arange(6), CPU, augmentation("crop-flip"), 3, n)).softmax(1) for n in (1, 2)]
    torch.testing.assert_close(found, (single + sum(others)).detach() / 3)
    assert float((found - single).abs().max()) > 1e-5


def test_images_of_which_the_views_are_unsure_are_left_out_or_all_refused() -> None:
    model, known, free = classifier(), images(6), images(9, seed=1)
    sure = DataDistillation(views=4).ensembled(model, free).amax(1)
    method = DataDistillation(views=4, threshold=float(sure.median()), recipe=Recipe(2, 4, lr=0.05))
    kept = free.subset(torch.nonzero(sure >= sure.median())[:, 0])
    assert 0 < len(kept) < len(free)
    assert bits(method.train(model, model, known, free)) != bits(
        replace(method, threshold=0.0).train(model, model, known, free)
    )
    with pytest.raises(InputError, match=r"mean probability of 1\.0 or more; set a lower"):
        replace(method, threshold=1.0).train(model, model, known, free)


# -- meta pseudo labels ---------------------------------------------------------------------------------------------


def line(seed: int, count: int) -> tuple[Classifier, Images]:
    """A linear classifier of two classes in double precision, and points for it."""
    generator = torch.Generator().manual_seed(seed)
    head = nn.Linear(2, 2, dtype=torch.float64)
    with torch.no_grad():
        head.weight.copy_(torch.randn(2, 2, generator=generator, dtype=torch.float64))
        head.bias.zero_()
    points = torch.randn(count, 2, 1, 1, generator=generator, dtype=torch.float64)
    known = Images(points, torch.arange(count) % 2, ("a", "b"), Preparation(1, 1, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0)))
    return Classifier(nn.Flatten(), Head([head]), ("a", "b")), known


def flat(gradients: tuple[Tensor, ...]) -> Tensor:
    return torch.cat([gradient.flatten() for gradient in gradients])


@pytest.mark.parametrize("count", [1, 2])
@pytest.mark.parametrize("feedback", [1.0, -1.0])
def test_the_feedback_is_the_gradient_of_the_expected_loss_after_the_student_s_step(
    count: int, feedback: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All labels that can be drawn, weighted by their probability, against autograd through the expectation.

    The mean over a batch of B is 1/B of it; with the wrong sign (published code) it points the other way.
    """
    rate = 0.7
    (teacher, free), (learner, known) = line(1, 2), line(2, 2)
    free = free.subset(torch.arange(count))
    method = MetaPseudoLabels(
        feedback=feedback, scaled=False, consistency=0.0, ratio=1, strong="none",
        recipe=Recipe(1, 2, lr=rate, momentum=0.0, weight_decay=0.0, augment="none"),
    )  # fmt: skip
    pair = next(iter(beside(free, known, method.recipe, 1, CPU)(0)))
    seen, points, targets = pair[0].images, pair[1].images, pair[1].targets
    rows = len(seen)  # an only image stands twice
    answers = teacher(seen).softmax(1)

    expected = torch.zeros((), dtype=torch.float64)
    for labels in itertools.product(range(2), repeat=rows):
        chance = torch.stack([answers[i, k] for i, k in enumerate(labels)]).prod()
        student = copy.deepcopy(learner)
        parameters = list(student.parameters())
        step = torch.autograd.grad(F.cross_entropy(student(seen), torch.tensor(labels)), parameters)
        with torch.no_grad():
            for parameter, gradient in zip(parameters, step, strict=True):
                parameter -= rate * gradient
        expected = expected + chance * F.cross_entropy(student(points), targets).detach()
    wanted = flat(torch.autograd.grad(expected, list(teacher.parameters()), retain_graph=True))
    label_gradient = flat(torch.autograd.grad(F.cross_entropy(teacher(points), targets), list(teacher.parameters())))

    found = torch.zeros_like(wanted)
    for labels in itertools.product(range(2), repeat=rows):
        monkeypatch.setattr(meta_pseudo_labels, "drawn", lambda logits, labels=labels: torch.tensor(labels))
        moved = copy.deepcopy(teacher)
        method.step(moved, copy.deepcopy(learner)).take(pair)
        pairs = zip(teacher.parameters(), moved.parameters(), strict=True)
        gradient = flat(tuple((before - after).detach() / rate for before, after in pairs)) - label_gradient
        chance = torch.stack([answers[i, k] for i, k in enumerate(labels)]).prod().detach()
        found += chance * gradient
    assert float(F.cosine_similarity(found, wanted, dim=0)) == pytest.approx(feedback, abs=1e-9)
    torch.testing.assert_close(found, feedback * wanted / rows)


def test_labels_are_drawn_with_the_teacher_s_probabilities() -> None:
    torch.manual_seed(0)
    found = meta_pseudo_labels.drawn(torch.tensor([[0.2, 0.8]]).log().repeat(5000, 1))
    assert float(found.float().mean()) == pytest.approx(0.8, abs=0.02)


# -- UDA and VAT ----------------------------------------------------------------------------------------------------


def test_labels_that_are_known_already_count_no_more() -> None:
    # own probabilities 0.9 and 0.6: below 0.8 the second alone counts, below 0.5 none
    ours, targets = torch.tensor([[0.9, 0.1], [0.4, 0.6]]).log(), torch.tensor([0, 1])
    assert float(annealed(ours, targets, 0.8)) == pytest.approx(0.5108256, rel=1e-5)
    assert float(annealed(ours, targets, 0.5)) == 0
    assert float(annealed(ours, targets, 1.0)) == pytest.approx(float(F.cross_entropy(ours, targets)))
    assert UDA(annealing="linear").ceiling(0.5, 4) == pytest.approx(0.625)
    rising = [UDA(annealing=kind).ceiling(0.5, 4) for kind in ("exp", "linear", "log", "none")]  # type: ignore[arg-type]
    assert rising == sorted(rising)


def test_the_worst_change_of_a_linear_classifier_is_along_its_weights() -> None:
    model, points = line(3, 5)
    seen = points.view(torch.arange(5), CPU)
    torch.manual_seed(0)
    found = worst(model, seen, model(seen).detach(), 0.3, 1).flatten(1)
    across = model.head.weight[0] - model.head.weight[1]
    cosines = F.cosine_similarity(found, across[None])
    torch.testing.assert_close(cosines.abs(), torch.ones(5, dtype=torch.float64), atol=1e-3, rtol=0)
    torch.testing.assert_close(found.square().mean(1).sqrt(), torch.full((5,), 0.3, dtype=torch.float64))


def test_images_that_are_not_changed_differ_in_nothing_whatever_batch_norm_saw(monkeypatch: pytest.MonkeyPatch) -> None:
    terms: list[dict[str, Tensor]] = []
    monkeypatch.setattr(
        self_training, "run", lambda step, epochs, recipe: terms.append(step.take(next(iter(epochs(0)))))
    )
    model = classifier()
    known, free = images(6), images(12, seed=1)
    VAT(radius=0.0, ratio=1, recipe=Recipe(1, 6, augment="none")).train(model, model, known, free)
    assert float(terms[0]["unlabelled"]) == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("method", [MeanTeacher, ICT])
def test_an_average_of_the_same_weights_says_the_same_whatever_batch_norm_remembers(
    method: type[MeanTeacher | ICT], monkeypatch: pytest.MonkeyPatch
) -> None:
    terms: list[dict[str, Tensor]] = []
    monkeypatch.setattr(ict, "mixed", lambda images, targets, alpha: (images, targets))
    monkeypatch.setattr(
        self_training, "run", lambda step, epochs, recipe: terms.append(step.take(next(iter(epochs(0)))))
    )
    model = classifier()
    known, free = images(6), images(12, seed=1)
    method(ratio=1, full=0.0, recipe=Recipe(1, 6, augment="none")).train(model, model, known, free)
    assert float(terms[0]["unlabelled"]) == pytest.approx(0, abs=1e-9)


@pytest.mark.parametrize("method", [MixMatch, ReMixMatch])
def test_unlabelled_images_are_learnt_from_at_an_only_step(
    method: type[MixMatch | ReMixMatch], monkeypatch: pytest.MonkeyPatch
) -> None:
    terms: list[dict[str, Tensor]] = []
    place = sys.modules[method.__module__]
    monkeypatch.setattr(place, "mixed", lambda images, targets, alpha: (images, targets))  # else by chance
    monkeypatch.setattr(place, "run", lambda step, epochs, recipe: terms.append(step.take(next(iter(epochs(0))))))
    for full in (1 / 64, 0.0):
        method(full=full, recipe=Recipe(1, 6)).train(classifier(), classifier(), images(6), images(6, seed=1))
    rising, whole = (float(found["unlabelled"] / found["labelled"]) for found in terms)
    assert rising == pytest.approx(whole / (1 + 1 / 64))
    assert whole > 0


def test_labelled_images_are_mixed_in_their_strong_view(monkeypatch: pytest.MonkeyPatch) -> None:
    given: list[Tensor] = []
    pairs: list[tuple[Batch, ...]] = []

    def noted(images: Tensor, targets: Tensor, alpha: float) -> tuple[Tensor, Tensor]:
        given.append(images)
        return mixed(images, targets, alpha)

    def once(step: Step, epochs: Any, recipe: Recipe) -> None:
        pairs.extend(epochs(0))
        step.take(pairs[0])

    monkeypatch.setattr(remixmatch, "mixed", noted)
    monkeypatch.setattr(remixmatch, "run", once)
    method = ReMixMatch(strong="cutout", recipe=Recipe(1, 6, augment="none"))
    method.train(classifier(), classifier(), images(6), images(6, seed=1))
    assert torch.equal(given[0][:6], pairs[0][1].view(augmentation("cutout")))
    assert not torch.equal(given[0][:6], pairs[0][1].images)
    assert torch.equal(given[0][6:12], pairs[0][0].images)  # unlabelled ones in both views


def test_feedback_is_how_far_an_improvement_is_above_those_before_it() -> None:
    method, sums = MetaPseudoLabels(), torch.zeros(3)
    found = [float(method.weighed(torch.tensor(h), sums)) for h in (0.5, 0.5, 2.0)]
    assert found[:2] == pytest.approx([1.0, 0.0])
    left = [0.5, 0.0, 1.5]  # less the mean so far: 0, 0.5, 0.5
    size = math.sqrt(sum(w * x * x for w, x in zip((0.9801, 0.99, 1.0), left, strict=True)) / (0.9801 + 0.99 + 1))
    assert found[2] == pytest.approx(1.5 / size)
    assert float(MetaPseudoLabels(scaled=False).weighed(torch.tensor(0.25), sums)) == 0.25


def test_the_teacher_s_agreement_counts_for_nothing_at_first_and_for_all_at_its_share_of_the_training(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """At its full weight from the start it undid in twenty steps what labels had taught a teacher of digits."""
    monkeypatch.setattr(meta_pseudo_labels, "soft_cross_entropy", lambda logits, *_: logits.sum() * 0 + 2.0)
    recipe = Recipe(4, 4, lr=0.0)
    method = MetaPseudoLabels(consistency=3.0, full=0.5, ratio=1, strong="none", recipe=recipe)
    step, batches = method.step(classifier(), classifier()), beside(images(4), images(4, seed=1), recipe, 1, CPU)
    found = [float(step.take(pair)["consistency"]) for epoch in range(4) for pair in batches(epoch)]
    assert found == pytest.approx([0.0, 3.0, 6.0, 6.0])


@pytest.mark.parametrize(("finishing", "epochs"), [(0.0, 0), (0.1, 1), (1.5, 3)])
def test_what_is_to_finish_on_labels_does_so_for_an_epoch_at_least(
    finishing: float, epochs: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[int] = []
    monkeypatch.setattr(meta_pseudo_labels, "run", lambda step, epochs, recipe: None)
    monkeypatch.setattr(
        meta_pseudo_labels, "fit", lambda learner, objective, images, recipe, what: found.append(recipe.epochs)
    )
    method = MetaPseudoLabels(finishing=finishing, recipe=Recipe(2, 4))
    method.train(classifier(), classifier(), images(20), images(6, seed=1))
    assert found == [epochs]


@pytest.mark.parametrize(
    "name", [entry.name for entry in catalogue.ENTRIES if entry.verb == "self-train" and entry.targets == "classes"]
)
@pytest.mark.parametrize("is_folded", [True, False])
def test_folded_batch_norm_is_not_normalised_a_second_time(name: str, is_folded: bool) -> None:
    """Of mean 0 and variance 1, yet trained: neither the student nor a teacher that learns works with a batch's statistics."""
    model, modes = classifier(), set()

    class Noted(nn.BatchNorm2d):
        def forward(self, given: Tensor) -> Tensor:
            modes.add(self.training)
            return super().forward(given)

    model.body[1] = Noted(8)
    with torch.no_grad():
        model.body[1].bias.fill_(0.1)
        model.body[1].running_mean.fill_(0.0 if is_folded else 0.1)
    own = {"drawing": 2} if name == "glico-transductive" else {"ratio": 1}
    method = catalogue.selftrainer(name, {"epochs": 2, "batch_size": 6, **own})
    trained = method.train(model, model, images(6), images(12, seed=1))
    assert (True in modes) == (not is_folded)
    before, after = (each.body[1].state_dict() for each in (model, trained))
    assert not torch.equal(before["weight"], after["weight"])
    assert torch.equal(before["running_mean"], after["running_mean"]) == is_folded


@pytest.mark.parametrize(("known", "free", "times"), [(16, 32, 3 * 4), (32, 16, 4 * 4 - 2)])
def test_answers_that_are_agreed_with_are_probabilities_from_the_second_pass_on(
    known: int, free: int, times: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    sums: list[Tensor] = []

    def noted(logits: Tensor, targets: Tensor) -> Tensor:
        sums.append(targets.sum(1))
        return squared_difference(logits, targets)

    monkeypatch.setattr(temporal_ensembling, "squared_difference", noted)
    monkeypatch.setattr(World, "share", lambda self, index: (index[: len(index) // 2], 1.0))
    method = TemporalEnsembling(ratio=1, recipe=Recipe(4, 8, augment="none"))
    # half of the images are met in a pass
    method.train(classifier(), classifier(), images(known), images(free, seed=1))
    assert len(sums) == times
    for found in sums:
        torch.testing.assert_close(found, torch.ones_like(found))


@pytest.mark.parametrize(
    ("name", "kind", "count"),
    [("mobilenetv2_035", "InvertedResidual", 10), ("regnetx_002", "Bottleneck", 9), ("convnext_atto", "ConvNeXtBlock", 12),
     ("densenet121", "", 0)],
)  # fmt: skip
def test_only_what_has_a_shortcut_is_a_residual_block(name: str, kind: str, count: int) -> None:
    found = residual(timm.create_model(name).eval(), torch.rand(1, 3, 64, 64))
    assert [type(block).__name__ for block in found] == [kind] * count


def test_nothing_to_learn_from_is_a_sentence() -> None:
    model, none = classifier(), images(0)
    for train in (
        lambda: Plain().train(model, none),
        lambda: FixMatch().train(model, model, none, images(4)),
        lambda: FixMatch().train(model, model, images(4), none),
    ):
        with pytest.raises(InputError, match="There is no image to learn from"):
            train()


def test_rows_of_nothing_do_not_explode_by_the_cosine() -> None:
    model = classifier()
    with torch.no_grad():
        for parameter in model.head.parameters():
            parameter.zero_()
    found = Cosine(recipe=Recipe(2, 8, lr=0.1, seed=2**32 - 1)).train(model, images(24))
    assert 0.01 < float(found.head.weight.norm()) < 100
    assert not model.head.weight.any()


# -- claims ---------------------------------------------------------------------------------------------------------

MOONS = Recipe(120, 100, lr=0.1, milestones=(), augment="none", weight_decay=1e-3)


@pytest.mark.parametrize(
    "method",
    [VAT(ratio=1, radius=0.2, entropy=0.0, recipe=MOONS), ICT(strength=10.0, decay=0.99, recipe=MOONS)],
    ids=["vat", "ict"],
)
def test_unlabelled_points_bend_the_boundary_of_two_moons(method: SelfTrainer) -> None:
    """The control is the same method with weight 0."""
    known, free, test = labelled(0.1, 0.4, 0.7), moons(400, seed=1), moons(1000, seed=2)
    start = network()
    found = accuracy(method.train(start, start, known, free), test)
    control = accuracy(replace(method, strength=0.0).train(start, start, known, free), test)  # type: ignore[type-var]
    assert found > control + 0.05


@cache
def digits() -> tuple[Images, Images, Images]:
    """Five labelled digits of each kind, 800 unlabelled, the others to test on; 8 x 8 pixels in 0..1."""
    from sklearn.datasets import load_digits

    data = load_digits()
    pixels = torch.from_numpy(data.images).float()[:, None] / 16
    names = tuple(map(str, range(10)))
    all_ = Images(pixels, torch.from_numpy(data.target).long(), names, Preparation(8, 8, (0.0,) * 3, (1.0,) * 3))
    train, test = all_.split(0.4, 0)
    known = train.shots(5, 0)
    return known, train, test


def reader(seed: int = 0) -> Classifier:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        body = nn.Sequential(nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Dropout(0.5))
        return Classifier(body, Head([nn.Linear(128, 10)]), tuple(map(str, range(10)))).eval()


DIGITS = Recipe(25, 64, lr=0.05, milestones=(), augment="none", weight_decay=1e-3)


@pytest.mark.parametrize(
    "method",
    [
        PseudoLabels(recipe=DIGITS),
        FixMatch(ratio=2, threshold=0.8, strong="cutout", decay=0.99, recipe=DIGITS),
        UDA(ratio=2, threshold=0.6, strong="cutout", recipe=DIGITS),
        MixMatch(strength=20.0, decay=0.99, recipe=DIGITS),
        MeanTeacher(ratio=2, strength=50.0, recipe=DIGITS),
        TemporalEnsembling(ratio=1, strength=30.0, recipe=DIGITS),
    ],
    ids=lambda method: type(method).__name__,
)
def test_unlabelled_digits_help_beside_the_control_of_no_weight(method: SelfTrainer) -> None:
    known, free, test = digits()
    gained = []
    for seed in (0, 1):
        start = reader(seed)
        rows = [method, replace(method, strength=0.0)]  # type: ignore[type-var]
        found, control = (accuracy(row.train(start, start, known, free), test) for row in rows)
        gained.append(found - control)
    assert sum(gained) / 2 > 0.005


STRIPES = Recipe(20, 32, lr=0.05, milestones=(), augment="crop-flip", weight_decay=1e-3)


def stripes(count: int, seed: int) -> Images:
    """A stripe across, a stripe down or a disc, anywhere, under noise: the same in every crop and in the mirror."""
    generator = np.random.default_rng(seed)
    y, x = np.mgrid[:20, :20]
    kinds, pixels = np.arange(count) % 3, np.empty((count, 1, 20, 20))
    for image, kind in zip(pixels, kinds, strict=True):
        a, b = generator.uniform(5, 15, 2)
        image[0] = (abs(x - a) < 1, abs(y - a) < 1, np.hypot(x - a, y - b) < 3)[kind]
    pixels += generator.normal(0, 1, pixels.shape)
    given = Preparation(14, 20, (0.0,) * 3, (1.0,) * 3)
    return Images(torch.from_numpy(pixels).float(), torch.from_numpy(kinds), ("across", "down", "disc"), given)


def flat_reader(seed: int) -> Classifier:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        body = nn.Sequential(nn.Flatten(), nn.Linear(196, 64), nn.ReLU())
        return Classifier(body, Head([nn.Linear(64, 3)]), ("across", "down", "disc")).eval()


def test_labels_of_many_views_are_righter_than_those_of_one_and_teach_more() -> None:
    """The controls are the single view and no weight of the unlabelled images."""
    gained = {"one": 0.0, "none": 0.0}
    for seed in (0, 1):
        known, free, test = stripes(60, seed), stripes(400, 10 + seed), stripes(900, 20 + seed)
        teacher = Plain(recipe=replace(STRIPES, epochs=120)).train(flat_reader(seed), known)
        many = DataDistillation(transforms="crop-flip", recipe=STRIPES)
        one, none = replace(many, views=1), replace(many, strength=0.0)
        said, single = (row.ensembled(teacher, free).argmax(1) == free.labels for row in (many, one))
        assert said.double().mean() > single.double().mean() + 0.05
        found = accuracy(many.train(teacher, flat_reader(5), known, free), test)
        for name, row in {"one": one, "none": none}.items():
            gained[name] += (found - accuracy(row.train(teacher, flat_reader(5), known, free), test)) / 2
    assert gained["one"] > 0.005
    assert gained["none"] > 0.02


def test_the_cosine_loss_learns_from_few_digits_and_not_from_shuffled_labels() -> None:
    known, _, test = digits()
    recipe = replace(DIGITS, epochs=200, batch_size=50)
    learnt = accuracy(Cosine(recipe).train(reader(), known), test)
    assert learnt > 0.7
    shuffled = dataclasses.replace(known, labels=known.labels.roll(7))
    assert accuracy(Cosine(recipe).train(reader(), shuffled), test) < 0.4
