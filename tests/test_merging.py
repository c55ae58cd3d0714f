"""Two classes made one, and a class renamed."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from small import CLASSES, classifier, images
from torch import Tensor, nn

import classgraft
from classgraft.data.images import Images
from classgraft.errors import InputError
from classgraft.models.classifier import Classifier, Head
from classgraft.models.merged import merged

SEEN = torch.rand(40, 3, 12, 12, generator=torch.Generator().manual_seed(1)) * 4


@torch.no_grad()
def bundle() -> classgraft.Bundle:
    """Classes ant, bee, cow and, in a block of their own, dog and elk; each is the answer to some of the images."""
    body, generator = classifier().body, torch.Generator().manual_seed(2)
    features = body.eval()(SEEN)
    weight = torch.randn(5, 8, generator=generator) * 30
    bias = -weight @ features.mean(0)
    network = nn.Sequential(body, nn.Linear(8, 3))
    network[1].weight.copy_(weight[:3])
    network[1].bias.copy_(bias[:3])
    base = classgraft.import_model(network, classes=CLASSES, size=12, resize=12)
    model = base.model.grown(["dog", "elk"], weight[3:], bias[3:])
    return base.then(model.eval(), {"event": "extend", "sentence": "two classes added"}, ("dog", "elk"), base.memories)


@torch.no_grad()
def logits(of: classgraft.Bundle) -> dict[str, Tensor]:
    return dict(zip(of.classes, of.model(SEEN).unbind(1), strict=True))


def test_the_logit_worked_by_hand() -> None:
    rows = nn.Linear(1, 3)
    with torch.no_grad():
        rows.weight.copy_(torch.tensor([[1.0], [0.0], [2.0]]))
        rows.bias.copy_(torch.tensor([0.0, 0.0, -1.0]))
    model = merged(Classifier(nn.Identity(), Head([rows]), ("a", "b", "c")), "a", "c")
    found = model(torch.tensor([[1.0], [0.0]]))
    expected = torch.tensor([[2**0.0 + 0.6931472, 0.0], [0.3132617, 0.0]])  # ln(e + e), ln(1 + 1/e)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize(("first", "second"), [("ant", "cow"), ("cow", "ant"), ("bee", "elk"), ("elk", "ant")])
def test_its_probability_is_the_sum_and_no_other_changes(first: str, second: str) -> None:
    base = bundle()
    before, after_ = logits(base), classgraft.merge(base, first, second)
    assert after_.classes == tuple(name for name in base.classes if name != second)
    after = logits(after_)
    was = torch.stack(list(before.values()), 1).softmax(1)
    now = torch.stack(list(after.values()), 1).softmax(1)
    for k, name in enumerate(after_.classes):
        expected = was[:, base.classes.index(name)]
        if name == first:
            expected = expected + was[:, base.classes.index(second)]
        torch.testing.assert_close(now[:, k], expected)


def test_what_was_taken_for_either_is_taken_for_it_and_accuracy_counts_so() -> None:
    base = bundle()
    labels = torch.arange(40) % 5
    one = classgraft.merge(base, "ant", "dog", "beast")
    was = torch.stack(list(logits(base).values()), 1)
    now = torch.stack(list(logits(one).values()), 1).argmax(1)
    either = (was.argmax(1) == 0) | (was.argmax(1) == 3)
    assert 0 < int(either.sum()) < 40
    assert (now[either] == 0).all()
    # the slow way: probabilities added up, image by image
    right = 0
    for row, label in zip(was.softmax(1), labels.tolist(), strict=True):
        summed = {"beast": float(row[0] + row[3]), "bee": float(row[1]), "cow": float(row[2]), "elk": float(row[4])}
        right += max(summed, key=lambda name: summed[name]) == ("beast", "bee", "cow", "beast", "elk")[label]
    truth = torch.tensor([0, 1, 2, 0, 3])[labels]
    assert int((now == truth).sum()) == right


@torch.no_grad()
def test_merged_again_removed_saved_and_undone_step_by_step(tmp_path: Path) -> None:
    steps = [bundle()]
    steps.append(classgraft.merge(steps[-1], "elk", "bee"))
    steps.append(classgraft.merge(steps[-1], "cow", "dog"))
    steps.append(classgraft.merge(steps[-1], "cow", "elk", "rest"))
    assert [step.added for step in steps] == [("dog", "elk"), ("dog", "elk"), ("elk",), ()]
    whole = logits(steps[0])
    rest = torch.stack([whole[name] for name in ("cow", "dog", "elk", "bee")], 1).logsumexp(1)
    torch.testing.assert_close(logits(steps[-1])["rest"], rest)
    steps.append(classgraft.rename(steps[-1], "rest", "others"))
    steps.append(classgraft.remove(steps[-1], "ant"))
    torch.testing.assert_close(logits(steps[-1])["others"], rest)
    now = steps[-1]
    for expected in reversed(steps):
        assert now.classes == expected.classes
        assert now.added == expected.added
        assert torch.equal(now.model(SEEN), expected.model(SEEN))
        classgraft.save(now, tmp_path)
        network = nn.Sequential(nn.Sequential(*classifier().body), nn.Linear(8, 3))
        now = classgraft.load(tmp_path, network)
        assert torch.equal(now.model(SEEN), expected.model(SEEN))
        now = classgraft.undo(now)
    assert now.classes == CLASSES


@pytest.mark.parametrize("method", ["glne", "rows", "imprint", "finetune"])
def test_classes_are_added_beside_merged_ones(method: str) -> None:
    base = classgraft.merge(bundle(), "ant", "elk")
    photos = images(6)
    photos = Images(photos.pixels, photos.labels % 2, ("fox", "gnu"), photos.preparation)
    settings = {"epochs": 1} if method == "finetune" else {}
    grown = classgraft.extend(base, photos, method=method, settings=settings)
    assert grown.classes == ("ant", "bee", "cow", "dog", "fox", "gnu")
    if method != "finetune":
        assert torch.equal(grown.model(SEEN)[:, :4], base.model(SEEN))
    assert torch.equal(classgraft.undo(grown).model(SEEN), base.model(SEEN))


def test_generated_features_count_all_rows_of_a_merged_class() -> None:
    from classgraft.extenders.glne import old_side

    base, generator = bundle(), torch.Generator().manual_seed(3)
    features = torch.randn(20, 8, generator=generator)
    whole, _ = old_side(base.model, features)
    together, _ = old_side(classgraft.merge(base, "ant", "elk").model, features)
    torch.testing.assert_close(together, whole)


def test_merging_draws_nothing_and_leaves_the_model_as_it_was() -> None:
    base = bundle()
    before, state = {k: v.clone() for k, v in base.model.state_dict().items()}, torch.get_rng_state()
    one = classgraft.merge(base, "ant", "elk")
    assert torch.equal(torch.get_rng_state(), state)
    for value in one.model.state_dict().values():
        value.zero_()
    assert all(torch.equal(value, before[key]) for key, value in base.model.state_dict().items())
    assert base.classes == ("ant", "bee", "cow", "dog", "elk")


def test_a_renamed_class_keeps_everything_else() -> None:
    base = bundle()
    renamed = classgraft.rename(base, "dog", " cafe\u0301 ")
    assert renamed.classes == ("ant", "bee", "cow", "caf\u00e9", "elk")
    assert renamed.added == ("caf\u00e9", "elk")
    assert torch.equal(renamed.model(SEEN), base.model(SEEN))
    assert renamed.history[-1]["event"] == "rename"
    assert classgraft.undo(renamed).classes == base.classes


@pytest.mark.parametrize(
    ("call", "says"),
    [
        (lambda b: classgraft.rename(b, "dgo", "x"), "no class 'dgo'. Did you mean 'dog'?"),
        (lambda b: classgraft.rename(b, "dog", "elk"), "already has the class 'elk'"),
        (lambda b: classgraft.rename(b, "dog", ""), "is empty"),
        (lambda b: classgraft.merge(b, "dog", "dog"), "'dog' is one class already"),
        (lambda b: classgraft.merge(b, "dog", "egg"), "no class 'egg'"),
        (lambda b: classgraft.merge(b, "dog", "elk", "ant"), "already has the class 'ant'"),
        (lambda b: classgraft.merge(b, "dog", "elk", "a\nb"), "unprintable"),
    ],
)
def test_names_that_do_not_do(call: object, says: str) -> None:
    with pytest.raises(InputError, match=says.replace("?", r"\?")):
        call(bundle())  # type: ignore[operator]
