"""The methods that replay exemplars: what each does to the head, and that it does what its paper says on real images."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from outside import Tiny
from small import CLASSES, classifier, images
from test_bundle import extended as extended_bundle
from test_bundle import logits, same, squares, tiny
from torch import Tensor, nn

import classgraft
from classgraft import catalogue
from classgraft.data.images import Images, Task
from classgraft.data.sources import load, open_source
from classgraft.errors import InputError
from classgraft.extenders import bic, icarl, wa
from classgraft.extenders.bic import BiasCorrection, divided
from classgraft.extenders.exemplars import Replay
from classgraft.extenders.finetune import Finetune
from classgraft.extenders.icarl import ICaRL
from classgraft.extenders.joint import Joint
from classgraft.extenders.podnet import PODNet, seen
from classgraft.extenders.wa import WeightAligning
from classgraft.models import cifar_resnet
from classgraft.models.classifier import Classifier, Head, folded, linear
from classgraft.models.cut import cut
from classgraft.models.normalised import nearest_mean, trainable
from classgraft.models.preparation import Preparation
from classgraft.models.proxies import Proxies, by_proxies, proxies_of, with_proxies
from classgraft.models.stages import Staged, stages
from classgraft.training import loop
from classgraft.training.answers import answers
from classgraft.training.batches import Epochs
from classgraft.training.engine import engine
from classgraft.training.exemplars import Exemplars
from classgraft.training.recipe import Recipe

SHORT = Recipe(epochs=2, batch_size=16, lr=0.05)
METHODS = ["exemplars", "icarl", "wa", "bic", "podnet"]
LATER = ("dog", "elk")


def later(count: int = 20, classes: tuple[str, ...] = LATER) -> Task:
    shown = images(count, seed=1)
    return Task(classes, replace(shown, labels=torch.arange(count) % len(classes), classes=classes))


def inputs(count: int = 6) -> Tensor:
    return images(count, seed=3).view(torch.arange(count), torch.device("cpu"))


# -- all of them ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", METHODS)
def test_old_classes_without_exemplars_are_refused_in_one_sentence(name: str) -> None:
    with pytest.raises(InputError, match="--old-images"):
        catalogue.extender(name).extend(classifier(), None, later())


@pytest.mark.parametrize("name", [*METHODS, "joint"])
def test_statistics_of_folded_batch_norm_are_not_moved(name: str) -> None:
    """Mean 0 and variance 1 throughout, yet trained: in training mode such a network would be normalised twice."""
    model = offset(classifier())
    norm = next(part for part in model.modules() if isinstance(part, nn.BatchNorm2d))
    assert folded(norm)
    method = catalogue.extender(name, {"epochs": 1, "batch_size": 16})
    method = replace(method, exemplars=30) if name != "joint" else method
    memory = method.remember(model, Task(CLASSES, images(12)), None)
    for trained, moves in ((model, False), (moved(model), True)):
        grown = method.extend(trained, memory, later())
        found = next(part for part in grown.modules() if isinstance(part, nn.BatchNorm2d))
        before = next(part for part in trained.modules() if isinstance(part, nn.BatchNorm2d))
        assert torch.equal(found.running_mean, before.running_mean) != moves
    assert not norm.running_mean.any()


def moved(model: Classifier) -> Classifier:
    other = copy.deepcopy(model)
    next(part for part in other.modules() if isinstance(part, nn.BatchNorm2d)).running_mean.fill_(0.1)
    return other


def offset(model: Classifier) -> Classifier:
    """With offsets in its batch norm, as only training leaves them."""
    with torch.no_grad():
        next(part for part in model.modules() if isinstance(part, nn.BatchNorm2d)).bias.fill_(0.1)
    return model


def test_what_counts_as_folded() -> None:
    def norm(model: Classifier) -> nn.BatchNorm2d:
        return next(part for part in model.modules() if isinstance(part, nn.BatchNorm2d))

    assert not folded(norm(classifier()))  # fresh, nothing learnt
    model = offset(classifier())
    assert not folded(norm(moved(model)))
    norm(model).running_var.fill_(1 - 1e-5)
    assert folded(norm(model))  # as a network is written whose batch norm was folded
    norm(model).running_var.fill_(0.9)
    assert not folded(norm(model))
    assert not folded(nn.Linear(2, 3))
    assert not folded(nn.BatchNorm2d(3, track_running_stats=False))


@pytest.mark.parametrize("name", METHODS)
def test_the_next_step_sees_exemplars_of_every_earlier_one(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    method = replace(catalogue.extender(name, {"epochs": 1, "batch_size": 16}), exemplars=12)  # type: ignore[type-var]
    model, memory = Classifier(classifier().body, Head(), ()), None
    model.body.num_features = 8  # type: ignore[assignment]
    for step, classes in enumerate((CLASSES[:2], CLASSES[2:], LATER)):
        task = later(12, classes)
        model = method.extend(model, memory, task)
        memory = method.remember(model, task, memory)
        count = (6, 4, 2)[step]
        assert isinstance(memory, Exemplars)
        assert memory.images.classes == model.classes
        assert memory.images.labels.bincount().tolist() == [count] * len(model.classes)


def test_joint_keeps_all_images_through_many_steps() -> None:
    method = Joint(recipe=replace(SHORT, epochs=1))
    model, memory = Classifier(classifier().body, Head(), ()), None
    model.body.num_features = 8  # type: ignore[assignment]
    for step, name in enumerate("abcde"):
        task = later(4 + step, (name,))
        model = method.extend(model, memory, task)
        memory = method.remember(model, task, memory)
        assert memory.images.classes == model.classes == tuple("abcde"[: step + 1])
        assert memory.images.labels.bincount().tolist() == [4 + s for s in range(step + 1)]


# -- iCaRL ----------------------------------------------------------------------------------------------------------


def extended(method: Any, count: int = 30) -> tuple[Classifier, Exemplars, Classifier]:
    """A classifier, its memory and its extension."""
    model = moved(classifier())
    memory = method.remember(model, Task(CLASSES, images(count)), None)
    return model, memory, method.extend(model, memory, later())


def test_icarl_answers_with_the_nearest_mean_of_exemplars() -> None:
    """A slow reference: the distances themselves, to means over the exemplars that ``remember`` keeps."""
    method = ICaRL(exemplars=20, recipe=SHORT)
    _, memory, grown = extended(method)
    kept = method.remember(grown, later(), memory).images
    body = trainable(grown).body
    features = F.normalize(body(kept.view(torch.arange(20), torch.device("cpu"))), dim=1)
    means = F.normalize(torch.stack([features[kept.labels == k].mean(0) for k in range(5)]), dim=1)
    seen = F.normalize(body(inputs()), dim=1)
    distances = (seen[:, None] - means).square().sum(2)
    torch.testing.assert_close(grown(inputs()), 1 - distances, atol=1e-5, rtol=0)  # a shift by |f|^2 = 1
    assert torch.equal(grown(inputs()).argmax(1), distances.argmin(1))


def test_icarl_goes_on_from_the_head_that_it_trained(monkeypatch: pytest.MonkeyPatch) -> None:
    method = ICaRL(exemplars=20, recipe=SHORT)
    _, memory, grown = extended(method)
    memory, before = method.remember(grown, later(), memory), trainable(grown)
    starts = []

    def catching(module: nn.Module, *given: Any, **options: Any) -> Any:
        starts.append(copy.deepcopy(module))
        return loop.fit(module, *given, **options)

    monkeypatch.setattr(icarl, "fit", catching)
    method.extend(grown, memory, later(4, ("fox",)))
    (start,) = starts
    assert torch.equal(start.head.weight[:5], before.head.weight)
    assert not start.head.weight[5:].any()
    assert torch.equal(start(inputs())[:, :5], before(inputs()))


def test_icarl_s_term_on_old_answers_has_no_gradient_at_the_old_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    caught: list[dict[str, float]] = []

    def catching(module: nn.Module, objective: Any, shown: Images, *given: Any, **options: Any) -> Any:
        module.eval()
        index = torch.arange(len(shown))
        view = shown.view(index, torch.device("cpu"))
        terms = objective(loop.Batch(view, shown.labels, index, 0.0, shown, 0, 0))
        parameters = [p for p in module.parameters() if p.requires_grad]
        for term in ("new", "old"):
            gradients = torch.autograd.grad(terms[term], parameters, retain_graph=True, allow_unused=True)
            caught.append({term: max(float(g.abs().max()) for g in gradients if g is not None)})

    monkeypatch.setattr(icarl, "fit", catching)
    extended(ICaRL(exemplars=20, recipe=SHORT))
    assert caught[0]["new"] > 0.1
    assert caught[1]["old"] < 1e-6


def test_a_nearest_mean_classifier_holds_its_trained_rows_while_they_fit() -> None:
    model = classifier()
    answering = nearest_mean(model, torch.eye(3, 8))
    assert torch.equal(trainable(answering).head.weight, model.head.weight)
    removed = answering.without(("bee",))
    assert torch.equal(trainable(removed).head.weight, 2 * torch.eye(3, 8)[[0, 2]])
    assert trainable(removed).classes == ("ant", "cow")
    regrown = removed.grown(("dog",))  # as many rows as before, but not of the same classes
    assert torch.equal(trainable(regrown).head.weight, regrown.head.weight)
    assert trainable(model) is model


# -- weight aligning ------------------------------------------------------------------------------------------------


def test_rows_are_aligned_worked_by_hand() -> None:
    # old rows are 5 and 1 long, 3 on average; new ones 10 and 2, 6 on average: the new ones are halved
    old, new = nn.Linear(2, 2), nn.Linear(2, 2)
    with torch.no_grad():
        old.weight.copy_(torch.tensor([[3.0, 4.0], [0.0, 1.0]]))
        new.weight.copy_(torch.tensor([[6.0, -8.0], [2.0, 0.0]]))
    bias = new.bias.clone()
    wa.align([old], new)
    torch.testing.assert_close(new.weight, torch.tensor([[3.0, -4.0], [1.0, 0.0]]))
    assert torch.equal(new.bias, bias)


def test_after_aligning_old_and_new_rows_are_equally_long_on_average() -> None:
    _, _, grown = extended(WeightAligning(exemplars=30, recipe=SHORT))
    lengths = grown.head.weight.norm(dim=1)
    torch.testing.assert_close(lengths[3:].mean(), lengths[:3].mean())


def test_rows_that_start_non_negative_stay_so_and_others_are_let_be() -> None:
    method = WeightAligning(exemplars=30, recipe=SHORT)
    model, _, grown = extended(method)
    assert (model.head.weight < 0).any()
    assert (grown.head.weight[:3] < 0).any()
    assert (grown.head.weight[3:] >= 0).all()
    _, _, free = extended(replace(method, clip=False))
    assert (free.head.weight[3:] < 0).any()


# -- bias correction ------------------------------------------------------------------------------------------------


def test_what_is_held_out_is_as_much_of_every_class() -> None:
    labels = torch.tensor([0] * 10 + [1] * 10 + [2] * 300 + [3] * 300)
    shown = Images(torch.zeros(620, 3, 4, 4, dtype=torch.uint8), labels, tuple("abcd"), Preparation(4, 4))
    train, held = divided(replace(shown, names=tuple(map(str, range(620)))), 2, 0.2, 0)
    assert held.labels.bincount().tolist() == [2, 2, 2, 2]
    assert sorted(map(int, train.names + held.names)) == list(range(620))
    few = shown.subset(torch.tensor([0, 10, 11, 20]))
    train, held = divided(few, 2, 0.5, 0)
    assert train.labels.tolist() == [0, 1, 2]
    assert held.labels.tolist() == [1]


def test_images_that_are_told_apart_without_error_do_not_stretch_the_new_rows_without_end() -> None:
    """One image of each class held out, on features far apart: the cross-entropy alone falls for ever."""
    labels = torch.arange(3).repeat_interleave(4)
    shown = Images(
        torch.eye(3)[labels][:, :, None, None], labels, tuple("abc"), Preparation(1, 1, (0.0,) * 3, (1.0,) * 3)
    )
    model = Classifier(nn.Flatten(), Head([linear(5 * torch.eye(3)[:2], torch.zeros(2))]), ("a", "b"))
    method = BiasCorrection(exemplars=8, recipe=Recipe(epochs=20, batch_size=12, lr=0.1, augment="none"))
    memory = method.remember(model, Task(("a", "b"), shown.of(("a", "b"))), None)
    grown = method.extend(model, memory, Task(("c",), shown.of(("c",))))
    assert (grown(shown.view(torch.arange(12), torch.device("cpu"))).argmax(1) == labels).all()
    assert float(grown.head.weight.norm(dim=1).max()) < 20


def test_the_correction_is_at_its_minimum_and_folded_into_the_new_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    caught: dict[str, Any] = {}

    def catching(terms: Any, *given: Any) -> Any:
        caught["solution"] = solved = solve(terms, *given)
        caught["terms"] = terms
        return solved

    solve = bic.solve
    monkeypatch.setattr(bic, "solve", catching)
    method = BiasCorrection(exemplars=30, held_out=0.3, recipe=SHORT)
    _, _, grown = extended(method)
    monkeypatch.setattr(bic, "solve", lambda *given: (torch.zeros(1, 1), torch.zeros(1)))
    _, _, plain = extended(method)
    stretch, beta = (number.clone().requires_grad_() for number in caught["solution"])
    loss = sum(caught["terms"](stretch, beta).values())
    assert loss < sum(caught["terms"](torch.zeros(1, 1), torch.zeros(1)).values())
    for gradient in torch.autograd.grad(loss, (stretch, beta)):
        assert float(gradient.abs().max()) < 1e-3
    before, after = plain(inputs()), grown(inputs())
    assert torch.equal(after[:, :3], before[:, :3])
    expected = stretch.detach().exp() * before[:, 3:] + beta.detach()
    torch.testing.assert_close(after[:, 3:], expected)
    assert float(beta.detach().abs()) > 1e-3


# -- PODNet ---------------------------------------------------------------------------------------------------------


def test_local_similarities_equal_a_slow_loop() -> None:
    generator = torch.Generator().manual_seed(0)
    proxies = with_proxies(nn.Identity(), torch.randn(3, 4, 5, generator=generator), 2.5)
    features = torch.randn(6, 5, generator=generator)
    found = proxies.logits(features)
    for b in range(6):
        for k in range(3):
            cosines = [float(F.cosine_similarity(features[b], proxy, dim=0)) for proxy in proxies.proxies[k].detach()]
            parts = torch.tensor(cosines).exp()
            expected: float = 2.5 * sum(float(p / parts.sum()) * c for p, c in zip(parts, cosines, strict=True))
            assert float(found[b, k].detach()) == pytest.approx(expected, abs=1e-5)


def test_one_proxy_a_class_is_a_cosine_classifier_and_its_length_does_not_matter() -> None:
    proxies, features = torch.randn(3, 1, 5), torch.randn(6, 5)
    found = with_proxies(nn.Identity(), proxies, 2.0).logits(features)
    torch.testing.assert_close(found, 2 * F.normalize(features, dim=1) @ F.normalize(proxies[:, 0], dim=1).T)
    torch.testing.assert_close(with_proxies(nn.Identity(), 3 * proxies, 2.0).logits(2 * features), found)


def test_a_classifier_by_proxies_passes_their_logits_on_until_its_head_is_changed() -> None:
    body = with_proxies(classifier().body, torch.randn(3, 2, 8), 3.0).eval()
    model = by_proxies(body, CLASSES)
    assert torch.equal(model(inputs()), body(inputs()))
    assert proxies_of(model) is body
    assert proxies_of(model.grown(("dog",))) is None
    fewer = proxies_of(model.without(("ant",)))
    assert fewer is not None
    assert torch.equal(fewer.proxies, body.proxies[1:])
    assert torch.equal(fewer(inputs()), body(inputs())[:, 1:])
    assert proxies_of(classifier()) is None


@pytest.mark.parametrize(("name", "expected"), [("resnet20", 3), ("resnet32", 3), ("resnet18", 4)])
def test_the_stages_of_a_residual_network(name: str, expected: int) -> None:
    network = cifar_resnet.build(name, 10).eval()
    names = stages(network, torch.zeros(1, 3, 32, 32))
    assert names == tuple(f"layer{k}" for k in range(1, expected + 1))
    features, *maps = Staged(network, names)(torch.ones(2, 3, 32, 32))
    assert torch.equal(features, network(torch.ones(2, 3, 32, 32)))
    assert [found.shape[2] for found in maps] == [32, 16, 8, 4][:expected]
    torch.testing.assert_close(network.linear(maps[-1].mean((2, 3))), features)
    assert all(found.requires_grad for found in maps)
    assert not [part for part in network.modules() if part._forward_hooks]


def test_a_network_without_maps_is_refused() -> None:
    model = Classifier(nn.Sequential(nn.Flatten(), nn.Linear(432, 8)), Head([nn.Linear(8, 3)]), CLASSES)
    memory = PODNet().remember(model, Task(CLASSES, images()), None)
    with pytest.raises(InputError, match="no intermediate maps"):
        PODNet().extend(model, memory, later())


def test_podnet_s_distances_are_nothing_at_the_old_weights(monkeypatch: pytest.MonkeyPatch) -> None:
    """And the proxies of old classes, once there are any, are where they were."""
    from classgraft.extenders import podnet

    method = PODNet(exemplars=20, proxies=3, recipe=SHORT)
    _, memory, grown = extended(method)
    memory, caught = method.remember(grown, later(), memory), {}

    def catching(module: Proxies, objective: Any, shown: Images, *given: Any, **options: Any) -> Any:
        index = torch.arange(len(shown))
        view = shown.view(index, torch.device("cpu"))
        if "terms" not in caught:
            caught["terms"] = objective(loop.Batch(view, shown.labels, index, 0.0, shown, 0, 0))
            caught["proxies"], caught["scale"] = module.proxies.detach().clone(), float(module.scale.detach())
            caught["logits"] = module.logits(seen(module.body.eval(), inputs())[0]).detach()

    monkeypatch.setattr(podnet, "fit", catching)
    method.extend(grown, memory, later(4, ("fox",)))
    assert float(caught["terms"]["spatial"].detach()) < 1e-4
    assert float(caught["terms"]["flat"].detach()) < 1e-6
    assert float(caught["terms"]["class"].detach()) > 0
    assert torch.equal(caught["proxies"][:5], grown.body.proxies)
    assert caught["scale"] == float(grown.body.scale.detach())
    torch.testing.assert_close(caught["logits"][:, :5], grown(inputs()))
    lengths = caught["proxies"].norm(dim=2)
    assert 0.8 < float(lengths[5:].mean() / lengths[:5].mean()) < 1.3


@pytest.mark.parametrize("warm", [False, True], ids=["alone", "after a run without stages"])
def test_podnet_learns_the_same_when_its_body_is_compiled(warm: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    """Maps are caught by hooks, which a compiled forward pass of the same network must not leave out."""
    from classgraft.training import engine as engines

    monkeypatch.setattr(engines, "BACKEND", "eager")
    method = PODNet(exemplars=20, proxies=2, recipe=Recipe(epochs=1, batch_size=15, lr=0.01))
    model = cut(cifar_resnet.build("resnet20", 3), CLASSES).eval()
    shown = images(9, side=16)
    task = Task(LATER, replace(images(6, side=16, seed=1), labels=torch.arange(6) % 2, classes=LATER))
    memory = method.remember(model, Task(CLASSES, shown), None)
    found = []
    for compiled in (False, True):
        with engine(compile=compiled, precision="fp32", channels_last=False):
            if warm and compiled:
                Replay(exemplars=20, recipe=method.recipe).extend(model, memory, task)
            found.append(method.extend(model, memory, task))
    assert torch.equal(found[0].body.proxies, found[1].body.proxies)


# -- their claims, on real images -----------------------------------------------------------------------------------

FIRST, SECOND = range(5), range(5, 10)
LEARN = Recipe(epochs=12, batch_size=32, lr=0.05, augment="none")


@pytest.fixture(scope="module")
def garments(data: Path) -> tuple[Images, Images]:
    """Fashion-MNIST: 60 training and 60 test images a class."""
    found = []
    for part in ("train", "test"):
        source = open_source(data / "fashion_mnist" / f"{part}.parquet")
        loaded = load(source, 28)
        whole = Images(loaded.pixels, loaded.labels, source.classes, Preparation(28, 28, (0.3,) * 3, (0.35,) * 3))
        found.append(whole.shots(60, 0))
    return found[0], found[1]


class Small(nn.Sequential):
    num_features = 32

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(3, 16, 3, 2, 1), nn.BatchNorm2d(16), nn.ReLU(), nn.Conv2d(16, 32, 3, 2, 1), nn.BatchNorm2d(32)
        )

    def forward(self, given: Tensor) -> Tensor:
        return F.relu(super().forward(given)).mean((2, 3))


def part(shown: Images, classes: range) -> Task:
    names = tuple(shown.classes[k] for k in classes)
    return Task(names, shown.of(names))


@pytest.fixture(scope="module")
def base(garments: tuple[Images, Images]) -> Classifier:
    """Taught the first five classes."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return Replay(recipe=LEARN).extend(Classifier(Small(), Head(), ()), None, part(garments[0], FIRST))


def second(method: Any, base: Classifier, garments: tuple[Images, Images]) -> Classifier:
    memory = method.remember(base, part(garments[0], FIRST), None)
    return method.extend(base, memory, part(garments[0], SECOND))  # type: ignore[no-any-return]


def accuracy(model: Classifier, garments: tuple[Images, Images]) -> tuple[float, float]:
    """On the test images of the old and of the new classes, among all."""
    shown = garments[1].of(model.classes)
    right = (answers(model, shown).argmax(1) == shown.labels).float()
    return float(right[shown.labels < 5].mean()), float(right[shown.labels >= 5].mean())


def taken_for_new(model: Classifier, garments: tuple[Images, Images]) -> float:
    """Share of all test images, half of them of old classes, that are given a new class."""
    return float((answers(model, garments[1].of(model.classes)).argmax(1) >= 5).float().mean())


def taught(method: Any, garments: tuple[Images, Images]) -> Classifier:
    """The first five classes, by the method itself."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return method.extend(Classifier(Small(), Head(), ()), None, part(garments[0], FIRST))  # type: ignore[no-any-return]


def test_exemplars_hold_on_to_old_classes_and_fine_tuning_does_not(
    base: Classifier, garments: tuple[Images, Images]
) -> None:
    old, new = accuracy(second(Replay(exemplars=100, recipe=LEARN), base, garments), garments)
    few, _ = accuracy(second(Replay(exemplars=5, recipe=LEARN), base, garments), garments)
    forgets, _ = accuracy(second(Finetune(statistics=True, recipe=LEARN), base, garments), garments)
    assert max(forgets, few) < 0.1
    assert old > 0.25
    assert new > 0.6


def test_icarl_s_nearest_means_answer_better_than_the_head_that_trained_it(garments: tuple[Images, Images]) -> None:
    method = ICaRL(exemplars=50, recipe=LEARN)
    grown = second(method, taught(method, garments), garments)
    old, new = accuracy(grown, garments)
    assert min(old, new) > 0.5
    assert old + new > sum(accuracy(trainable(grown), garments)) + 0.05


def test_aligned_rows_take_away_a_bias_towards_new_classes(
    garments: tuple[Images, Images], monkeypatch: pytest.MonkeyPatch
) -> None:
    """And holding rows non-negative is what ties their length to the logits (the paper's table on clipping)."""
    method = WeightAligning(exemplars=50, recipe=LEARN)
    free = replace(method, clip=False)
    start, free_start = taught(method, garments), taught(free, garments)
    aligned, unclipped = second(method, start, garments), second(free, free_start, garments)
    monkeypatch.setattr(wa, "align", lambda old, new: None)
    control = second(method, start, garments)
    lengths = control.head.weight.norm(dim=1)
    assert lengths[5:].mean() > 1.1 * lengths[:5].mean()
    assert not aligned.head.bias.any()
    assert taken_for_new(aligned, garments) < taken_for_new(control, garments) - 0.05
    assert accuracy(aligned, garments)[0] > accuracy(control, garments)[0] + 0.1
    assert accuracy(aligned, garments)[0] > accuracy(unclipped, garments)[0]


def test_two_numbers_take_away_a_bias_towards_new_classes(
    base: Classifier, garments: tuple[Images, Images], monkeypatch: pytest.MonkeyPatch
) -> None:
    method = BiasCorrection(exemplars=50, recipe=LEARN)
    corrected = second(method, base, garments)
    monkeypatch.setattr(bic, "solve", lambda *given: (torch.zeros(1, 1), torch.zeros(1)))
    control = second(method, base, garments)
    assert 0.4 < taken_for_new(corrected, garments) < taken_for_new(control, garments) - 0.1
    assert accuracy(corrected, garments)[0] > accuracy(control, garments)[0] + 0.1


def test_maps_drift_far_less_where_podnet_holds_them(garments: tuple[Images, Images]) -> None:
    """On so small a network that costs new classes, and old ones are as right without it (within noise, over five seeds)."""
    method = PODNet(exemplars=100, proxies=3, recipe=LEARN)
    start = taught(method, garments)
    held, free = (second(m, start, garments) for m in (method, replace(method, spatial=0.0, flat=0.0)))
    shown = garments[1].of(start.classes)

    def drift(model: Classifier) -> float:
        before, after = (answers(each.body.body, shown) for each in (start, model))
        return float((1 - F.cosine_similarity(after, before)).mean())

    assert drift(held) < 0.25 * drift(free)
    assert held.body.scale > 1


# -- bundles --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["icarl", "podnet"])
def test_a_classifier_on_another_kind_of_body_is_saved_loaded_extended_and_undone(name: str, tmp_path: Path) -> None:
    bundle = tiny()
    steps = [bundle]
    for number, method in enumerate((name, name, "imprint", name)):
        old = {} if method == "imprint" else {"old_images": squares(steps[-1], steps[-1].classes)}
        settings = {} if method == "imprint" else {"epochs": 1, "batch_size": 8, "augment": "none"}
        grown = extended_bundle(steps[-1], f"new {number}", method=method, settings=settings, **old)
        classgraft.save(grown, tmp_path / "b")
        loaded = classgraft.load(tmp_path / "b", Tiny())
        assert same(loaded, grown)
        steps.append(loaded)
    for earlier in reversed(steps[:-1]):
        before = classgraft.undo(classgraft.load(tmp_path / "b", Tiny()))
        assert before.classes == earlier.classes
        assert torch.equal(logits(before), logits(earlier))
        classgraft.save(before, tmp_path / "b")


@pytest.mark.parametrize("name", ["wa", "bic", "podnet"])
def test_there_is_something_to_learn_of_classes_that_come_again(name: str) -> None:
    method = replace(catalogue.extender(name, {"epochs": 2, "batch_size": 16, "lr": 0.1}), exemplars=30)
    model = classifier()
    memory = method.remember(model, Task(CLASSES, images(48)), None)
    before = answers(model, images(48, seed=7))
    again = method.extend(model, memory, Task(CLASSES, images(48, seed=1)))
    assert again.classes == CLASSES
    assert float((answers(again, images(48, seed=7)) - before).abs().max()) > 1e-3


def test_a_class_of_which_nothing_is_kept_is_named_not_forgotten() -> None:
    method = replace(catalogue.extender("exemplars", {"epochs": 1, "batch_size": 16}), exemplars=30)
    some = images(48).of(CLASSES[:2])
    memory = method.remember(classifier(), Task(CLASSES[:2], some), None)
    with pytest.raises(InputError, match=f"Of the old class '{CLASSES[2]}' no image is kept"):
        method.extend(classifier(), memory, later())


def test_icarl_distils_nothing_from_rows_that_do_not_fit(monkeypatch: pytest.MonkeyPatch) -> None:
    method = replace(catalogue.extender("icarl", {"epochs": 1, "batch_size": 16}), exemplars=30)
    memory = method.remember(classifier(), Task(CLASSES, images(48)), None)
    model = method.extend(classifier(), memory, Task(CLASSES, images(48)))
    smaller = model.without((CLASSES[0],))
    terms: list[set[str]] = []

    def noted(module: nn.Module, objective: Any, shown: Images, *rest: Any, **more: Any) -> None:
        terms.append(set(objective(next(iter(Epochs(shown, method.recipe, torch.device("cpu"))(0))))))

    monkeypatch.setattr("classgraft.extenders.icarl.fit", noted)
    method.extend(model, memory, later())
    method.extend(smaller, memory, later())
    assert terms == [{"new", "old"}, {"new"}]


def test_podnet_goes_on_from_its_proxies_after_a_class_was_removed() -> None:
    method = replace(catalogue.extender("podnet", {"epochs": 1, "batch_size": 16}), exemplars=30)
    memory = method.remember(classifier(), Task(CLASSES, images(48)), None)
    model = method.extend(classifier(), memory, Task(CLASSES, images(48)))
    grown = method.extend(model.without((CLASSES[0],)), memory, later())
    assert sum(isinstance(part, Proxies) for part in grown.body.modules()) == 1
