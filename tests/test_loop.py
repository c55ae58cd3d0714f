"""The loop: what a step carries, what history holds, and that nothing outside is touched."""

from __future__ import annotations

import copy
import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F
from small import classifier, images
from torch import nn

from classgraft.errors import InputError
from classgraft.training.batches import dealt
from classgraft.training.carries import digest, undeclared
from classgraft.training.engine import engine
from classgraft.training.loop import Abreast, Batch, Epochs, Step, Terms, descend, fit, run, show_progress, silent
from classgraft.training.recipe import Recipe

RECIPE = Recipe(epochs=2, batch_size=8, lr=0.05)
CPU = torch.device("cpu")


def test_the_same_recipe_gives_the_same_bits_and_leaves_the_global_generator_alone() -> None:
    models = [classifier(dropout=0.5) for _ in range(2)]
    before = torch.get_rng_state()
    for model in models:
        fit(model, lambda batch, m=model: {"class": F.cross_entropy(m(batch.images), batch.targets)}, images(), RECIPE)  # type: ignore[misc]
    assert digest(*models[:1]) == digest(*models[1:])
    assert torch.equal(torch.get_rng_state(), before)
    assert all(p.is_contiguous() for p in models[0].parameters())
    assert not models[0].training


def test_fit_is_plain_sgd_written_out() -> None:
    """The same batches, gradients and optimiser without any of our machinery but the batches."""
    ours, theirs = classifier(), classifier()
    with engine(precision="fp32", channels_last=False):
        history = fit(
            ours, lambda batch: {"class": F.cross_entropy(ours(batch.images), batch.targets)}, images(), RECIPE
        )
    optimizer = torch.optim.SGD(theirs.parameters(), 0.05, 0.9, weight_decay=5e-4, nesterov=True)
    theirs.train()
    for epoch in range(2):
        losses = []
        optimizer.param_groups[0]["lr"] = RECIPE.rate(epoch / 2)
        for batch in Epochs(images(), RECIPE, CPU)(epoch):
            loss = F.cross_entropy(theirs(batch.images), batch.targets)
            optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]
            optimizer.step()
            losses.append(loss.detach())
        assert history.epochs[epoch]["class"] == float(sum(losses)) / len(losses)
    assert digest(ours) == digest(theirs)


def test_an_epoch_goes_on_from_any_batch() -> None:
    epochs = Epochs(images(), RECIPE, CPU)
    whole = list(epochs(1))
    for first in (0, 3, len(whole)):
        for batch, same in zip(epochs(1, first), whole[first:], strict=True):
            assert torch.equal(batch.images, same.images)
            assert batch.progress == same.progress


def test_a_step_that_moves_what_it_does_not_declare_is_found() -> None:
    model, average, generator = classifier(), classifier(), torch.Generator()
    batch = next(Epochs(images(), RECIPE, CPU)(0))

    def objective(batch: Batch) -> Terms:
        with torch.no_grad():
            for slow, fast in zip(average.parameters(), model.parameters(), strict=True):
                slow.lerp_(fast, 0.1)
        noise = torch.randn(1, generator=generator)
        return {"class": F.cross_entropy(model(batch.images), batch.targets) + noise.sum()}

    model.train()
    for carries, moved in (((), 7), ((average,), 1), ((average, generator), 0)):
        step = descend(objective, [model], RECIPE, carries=carries)
        step.take(batch)  # so that the average has something to follow
        assert len(undeclared(lambda step=step: step.take(batch), step.take, step.carries)) == moved  # type: ignore[misc]

    optimizer = torch.optim.SGD(model.parameters(), 0.1, 0.9)

    def take(batch: Batch) -> Terms:
        loss = F.cross_entropy(model(batch.images), batch.targets)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        optimizer.step()
        return {"class": loss.detach()}

    step = Step(take, lambda rate: None, [model])
    assert undeclared(lambda: step.take(batch), step.take, step.carries) == ["SGD"]


def test_a_loss_that_is_no_number_stops_the_run_after_its_epoch() -> None:
    model, looked = classifier(), []

    def objective(batch: Batch) -> Terms:
        looked.append(batch.epoch)
        logits = model(batch.images)
        odd = logits.detach().square().sum() * (math.inf if batch.epoch else 1)
        return {"class": F.cross_entropy(logits, batch.targets), "odd": odd}

    with pytest.raises(InputError, match=r"learning: the loss 'odd' is inf in epoch 2; lower the learning rate"):
        fit(model, objective, images(), RECIPE, "learning")
    assert set(looked) == {0, 1}


def test_a_last_step_that_ends_in_no_number_is_told() -> None:
    """Each loss comes before its step; with one step in all there is none after it."""

    def objective(batch: Batch) -> Terms:
        return {"class": 1e30 * F.cross_entropy(model(batch.images), batch.targets)}

    model, huge = classifier(), Recipe(epochs=1, batch_size=50, lr=1e30, milestones=(), augment="none")
    with pytest.raises(InputError, match=r"learning: a weight is no finite number any more; lower the learning rate"):
        fit(model, objective, images(50), huge, "learning")


def test_what_learnt_carries_no_gradients_away() -> None:
    model = classifier()
    fit(model, lambda batch: {"class": F.cross_entropy(model(batch.images), batch.targets)}, images(), RECIPE)
    assert all(p.grad is None for p in model.parameters())


def test_points_learn_beside_modules() -> None:
    """Like GLICO's: one point for each image, which only its own batch moves."""
    points = torch.zeros(50, 4, requires_grad=True)
    decoder = nn.Linear(4, 3)

    def objective(batch: Batch) -> Terms:
        return {"class": F.cross_entropy(decoder(points[batch.index]), batch.targets)}

    recipe = Recipe(epochs=1, batch_size=8, weight_decay=0.0)
    run(descend(objective, [decoder, points], recipe), Epochs(images(), recipe, CPU), recipe)
    assert int((points.detach() != 0).any(1).sum()) > 40


def test_gradients_of_gradients_are_exact_whatever_the_engine() -> None:
    def trained(second_order: bool) -> tuple[str, list[torch.dtype]]:
        model = classifier()
        seen: list[torch.dtype] = []

        def objective(batch: Batch) -> Terms:
            inputs = batch.images.clone().requires_grad_(True)
            features = model.features(inputs)
            (slope,) = torch.autograd.grad(features.square().sum(), inputs, create_graph=True)
            seen.append(model.body[0](inputs).dtype)
            return {"class": F.cross_entropy(model.head(features), batch.targets), "slope": slope.square().mean()}

        with engine(precision="bf16", compile=second_order):
            fit(model, objective, images(16), RECIPE, second_order=second_order)
        return digest(model), seen

    with engine(precision="fp32"):
        plain = copy.deepcopy(trained(True))
    assert trained(True)[0] == plain[0]
    assert trained(False)[0] != plain[0]


def test_sources_go_abreast_each_at_its_own_pace_from_any_batch() -> None:
    few, many = images(20), images(50, seed=1)
    both = Abreast((Epochs(few, RECIPE, CPU), Epochs(many, replace(RECIPE, batch_size=16), CPU)))
    whole = [pair for epoch in range(4) for pair in both(epoch)]
    assert len(whole) == 4 * len(both)
    assert [len(pair[0].index) for pair in whole] == ([7, 7, 6] * 6)[: len(whole)]
    assert [len(pair[1].index) for pair in whole] == [13, 13, 12, 12] * 4
    once = torch.cat([pair[1].index for pair in whole[4:8]])
    assert torch.equal(once.sort().values, torch.arange(50))
    for (one, two), pair in zip(both(2, 1), whole[9:12], strict=True):
        assert torch.equal(one.images, pair[0].images)
        assert torch.equal(two.images, pair[1].images)

    model = classifier()

    def objective(pair: tuple[Batch, ...]) -> Terms:
        labelled, unlabelled = pair
        flat = -model(unlabelled.images).log_softmax(1).mean()
        return {"labelled": F.cross_entropy(model(labelled.images), labelled.targets), "unlabelled": 0.1 * flat}

    history = run(descend(objective, [model], RECIPE), both, RECIPE)
    assert set(history.last) == {"labelled", "unlabelled"}


def test_progress_tells_each_term_and_images_a_second_but_the_history_no_times() -> None:
    told: list[dict[str, float]] = []
    model = classifier()
    show_progress(lambda what, done, total, terms: told.append(terms))
    try:
        history = fit(
            model, lambda batch: {"class": F.cross_entropy(model(batch.images), batch.targets)}, images(), RECIPE
        )
    finally:
        show_progress(silent)
    assert [terms["class"] for terms in told] == [epoch["class"] for epoch in history.epochs]
    assert all(terms["images/s"] > 0 for terms in told)
    assert all(set(epoch) == {"class"} for epoch in history.epochs)


@pytest.mark.parametrize(
    ("count", "size", "sizes"),
    [(66, 64, [33, 33]), (64, 64, [64]), (130, 64, [44, 43, 43]), (5, 2, [3, 2]), (3, 2, [3]), (3, 1, [1, 1, 1]),
     (1, 1, [1]), (1, 8, [2]), (0, 8, []), (0, 1, [])],
)  # fmt: skip
def test_no_batch_is_much_smaller_than_another(count: int, size: int, sizes: list[int]) -> None:
    order = torch.randperm(count)
    found = dealt(order, size)
    assert [len(batch) for batch in found] == sizes
    if count > 1:
        assert torch.equal(torch.cat(found), order)
