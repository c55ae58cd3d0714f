"""LwF, EWC and MAS: what each claims, on handwritten digits of 8 x 8 pixels, beside its control rows."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from classgraft.data.images import Images, Task
from classgraft.extenders import lwf
from classgraft.extenders.ewc import EWC
from classgraft.extenders.finetune import Finetune
from classgraft.extenders.lwf import LwF
from classgraft.extenders.mas import MAS
from classgraft.models.classifier import Classifier, Head
from classgraft.models.preparation import Preparation
from classgraft.training import loop
from classgraft.training.answers import answers
from classgraft.training.recipe import Recipe
from classgraft.verbs import Extender

AS_IT_IS = Preparation(8, 8, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
RECIPE = Recipe(epochs=15, batch_size=32, optimiser="adamw", lr=3e-3, weight_decay=0.0, milestones=(), augment="none")
DIGITS = tuple("0123456789")
OLD, NEW = DIGITS[:5], DIGITS[5:]


@cache
def digits() -> tuple[Images, Images]:
    """Train and test."""
    from sklearn.datasets import load_digits

    data = load_digits()
    pixels = torch.from_numpy(data.images).float()[:, None] / 16
    return Images(pixels, torch.from_numpy(data.target).long(), DIGITS, AS_IT_IS).split(0.3, 0)


def permuted(images: Images, number: int) -> Images:
    """The pixels in another order; number 0: as they are."""
    order = torch.randperm(64, generator=torch.Generator().manual_seed(number)) if number else torch.arange(64)
    return replace(images, pixels=images.pixels.flatten(1)[:, order].view_as(images.pixels))


def empty() -> Classifier:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        body = nn.Sequential(nn.Flatten(), nn.Linear(64, 100), nn.ReLU(), nn.Linear(100, 100), nn.ReLU())
        body.num_features = 100  # type: ignore[assignment]
        return Classifier(body, Head(), ()).eval()


def right(model: Classifier, test: Images, among: tuple[str, ...] = ()) -> float:
    """Accuracy, of the answers among some classes where they are named."""
    logits = answers(model, test)
    columns = [model.classes.index(name) for name in among or model.classes]
    names = [(among or model.classes)[k] for k in logits[:, columns].argmax(1).tolist()]
    truth = [test.classes[k] for k in test.labels.tolist()]
    return sum(a == b for a, b in zip(names, truth, strict=True)) / len(test)


@cache
def trained() -> Classifier:
    """Digits 0 to 4."""
    train, _ = digits()
    return Finetune(recipe=RECIPE).extend(empty(), None, Task(OLD, train.of(OLD)))


def tasks(method: Extender, count: int = 3) -> tuple[float, float]:
    """Mean accuracy on permutations of all digits learnt one after the other, and that on the last of them."""
    train, test = digits()
    model, memory = empty(), None
    for number in range(count):
        task = Task(DIGITS, permuted(train, number))
        model = method.extend(model, memory, task)
        memory = method.remember(model, task, memory)
    found = [right(model, permuted(test, number)) for number in range(count)]
    return sum(found) / count, found[-1]


# -- LwF ------------------------------------------------------------------------------------------------------------


def test_lwf_keeps_the_old_head_where_finetuning_loses_it() -> None:
    train, test = digits()
    fast = replace(RECIPE, lr=0.02)
    found = {}
    for strength in (0.0, 1.0, 10.0):
        method = LwF(softmax="heads", strength=strength, recipe=fast)
        grown = method.extend(trained(), None, Task(NEW, train.of(NEW)))
        found[strength] = right(grown, test.of(OLD), OLD), right(grown, test.of(NEW), NEW)
    assert found[1.0][0] > found[0.0][0] + 0.1
    assert found[10.0][0] >= found[1.0][0] - 0.02
    assert min(new for _, new in found.values()) > 0.9


def first_terms(method: LwF, monkeypatch: pytest.MonkeyPatch) -> dict[str, float]:
    """The terms of the first batch that both sides learn from, and the gradient of ``old``."""
    seen: list[dict[str, float]] = []

    def spying(module: nn.Module, objective: Any, *given: Any, **options: Any) -> Any:
        def noting(batch: loop.Batch) -> loop.Terms:
            terms: loop.Terms = objective(batch)
            if "old" in terms and not seen:
                gradients = torch.autograd.grad(
                    terms["old"], list(module.parameters()), retain_graph=True, allow_unused=True
                )
                strongest = max(float(g.abs().max()) for g in gradients if g is not None)
                seen.append({name: float(term.detach()) for name, term in terms.items()} | {"gradient": strongest})
            return terms

        return loop.fit(module, noting, *given, **options)

    monkeypatch.setattr(lwf, "fit", spying)
    train, _ = digits()
    method.extend(trained(), None, Task(NEW, train.of(NEW).shots(10, 0)))
    return seen[0]


@pytest.mark.parametrize("softmax", ["all", "sides", "heads"])
def test_where_nothing_has_moved_yet_the_old_answers_have_no_gradient_whatever_the_view(
    softmax: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The teacher is asked about the very view that the student sees, else this would not be zero."""
    recipe = replace(RECIPE, epochs=1, augment="crop-flip")
    found = first_terms(LwF(softmax=softmax, warm_up=0.0, strength=5.0, recipe=recipe), monkeypatch)
    assert found["old"] == pytest.approx(0, abs=1e-6)
    assert found["gradient"] < 1e-6
    assert found["new"] > 0.5


def test_the_warm_up_moves_the_new_rows_alone() -> None:
    train, _ = digits()
    start = trained()
    grown = LwF(warm_up=1.0, statistics=True, recipe=RECIPE).extend(start, None, Task(NEW, train.of(NEW)))
    before, after = start.state_dict(), grown.state_dict()
    assert all(torch.equal(after[name], before[name]) for name in before)
    assert grown.head.linear[1].weight.abs().max().item() > 0


def test_softmax_sides_and_heads_part_only_when_there_are_two_old_heads() -> None:
    train, _ = digits()
    settings: dict[str, Any] = {"recipe": replace(RECIPE, epochs=2)}

    def two(softmax: Any, start: Classifier, names: tuple[str, ...]) -> Classifier:
        return LwF(softmax=softmax, **settings).extend(start, None, Task(names, train.of(names)))

    first = two("heads", trained(), NEW[:2])
    assert same(first, two("sides", trained(), NEW[:2]))
    assert not same(two("heads", first, NEW[2:]), two("sides", first, NEW[2:]))


def same(one: nn.Module, other: nn.Module) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one.parameters(), other.parameters(), strict=True))


# -- controls -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [LwF(strength=0.0, warm_up=0.0), EWC(strength=0.0), MAS(strength=0.0)])
def test_at_strength_zero_each_is_finetuning_bit_for_bit(method: Any) -> None:
    train, _ = digits()
    task = Task(NEW, train.of(NEW).shots(20, 0))
    recipe = replace(RECIPE, epochs=2)
    method = replace(method, recipe=recipe)
    memory = method.remember(trained(), Task(OLD, train.of(OLD).shots(5, 0)), None)
    assert same(method.extend(trained(), memory, task), Finetune(recipe=recipe).extend(trained(), None, task))


# -- EWC and MAS ----------------------------------------------------------------------------------------------------


@cache
def controls() -> float:
    """The better of fine-tuning and plain L2."""
    plain = EWC(strength=0.003, fisher="identity", recipe=RECIPE)
    return max(tasks(Finetune(recipe=RECIPE))[0], tasks(plain)[0])


@pytest.mark.parametrize(
    "method",
    [
        EWC(strength=100.0, images=200, recipe=RECIPE),
        EWC(strength=100.0, images=0, fisher="sampled", recipe=RECIPE),
        EWC(strength=100.0, images=200, online=True, recipe=RECIPE),
        MAS(strength=0.01, recipe=RECIPE),
    ],
    ids=["exact", "sampled", "online", "mas"],
)
def test_permuted_digits_are_kept_better_than_by_finetuning_and_by_plain_l2(method: Any) -> None:
    kept, last = tasks(method)
    assert kept > controls() + 0.05
    assert last > 0.8


def test_importance_that_belongs_to_other_weights_keeps_less() -> None:
    """The control: the same numbers, dealt out to the weights at random."""

    class Shuffled(EWC):
        def remember(self, model: Classifier, task: Task, memory: object | None) -> Any:
            kept = super().remember(model, task, memory)
            generator = torch.Generator().manual_seed(len(kept.anchor))

            def dealt(part: Tensor) -> Tensor:
                return part.flatten()[torch.randperm(part.numel(), generator=generator)].view_as(part)

            return replace(kept, importance={name: dealt(part) for name, part in kept.importance.items()})

    settings: dict[str, Any] = {"strength": 100.0, "images": 200, "online": True, "recipe": RECIPE}
    assert tasks(EWC(**settings))[0] > tasks(Shuffled(**settings))[0] + 0.02
