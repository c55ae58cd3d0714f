"""Two classes made one, and a class renamed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from small import CLASSES, classifier, images
from torch import Tensor, nn

import classgraft
from classgraft.data.images import Images, Task
from classgraft.errors import InputError
from classgraft.extenders import icarl, soft_distillation
from classgraft.extenders.podnet import PODNet
from classgraft.extenders.soft_distillation import SoftDistillation
from classgraft.extenders.wa import WeightAligning
from classgraft.models import heads, kinds
from classgraft.models.classifier import Classifier, Head, linear
from classgraft.models.merged import merged
from classgraft.models.normalised import nearest_mean, trainable
from classgraft.models.preparation import Preparation
from classgraft.models.proxies import by_proxies, proxies_of, with_proxies
from classgraft.models.rows import all_rows, layers, moved, narrow, widened
from classgraft.models.structure import spec
from classgraft.training import solve as solving
from classgraft.training import views
from classgraft.training.exemplars import Exemplars
from classgraft.training.recipe import Recipe

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


def test_a_head_without_biases_is_merged_saved_and_undone(tmp_path: Path) -> None:
    network = nn.Sequential(nn.Sequential(*classifier().body), nn.Linear(8, 3, bias=False))
    steps = [classgraft.import_model(network, classes=CLASSES, size=12, resize=12)]
    steps.append(classgraft.merge(steps[-1], "bee", "cow"))
    steps.append(classgraft.rename(steps[-1], "ant", "elk"))
    classgraft.save(steps[-1], tmp_path)
    now = classgraft.load(tmp_path, network)
    for expected in reversed(steps):
        assert now.classes == expected.classes
        torch.testing.assert_close(now.model(SEEN), expected.model(SEEN))
        now = classgraft.undo(now) if now.undone else now


def test_a_merged_head_is_described_as_it_always_was() -> None:
    """Folders of earlier versions name their tensors so."""
    model, features = merged(bundle().model, "bee", "cow"), torch.randn(4, 8)
    assert heads.descriptions(model.head)[0] == {"kind": "merged", "rows": 2, "width": 8, "place": [1]}
    tensors = heads.tensors_of(model.head)
    own = ["weight", "bias", "more.weight", "more.bias"]
    assert [name for name in tensors if "blocks.0" in name] == [f"blocks.0.{name}" for name in own]
    assert torch.equal(heads.assembled(heads.descriptions(model.head), tensors)(features), model.head(features))


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


def test_features_are_made_up_of_every_row_of_a_merged_class() -> None:
    """Those of the classes before, in another order, under the name that they have now."""
    from classgraft.training.unseen import StandIns

    photos = torch.randn(4, 8, generator=torch.Generator().manual_seed(3))
    together = StandIns.of(several(), None, photos)
    order = [0, 1, 3, 4, 2]  # ant, bee, dog, and then elk and cow
    whole = bundle().model
    apart = StandIns.of(whole.headed([linear(whole.head.weight[order], whole.head.bias[order])], "abdec"), None, photos)
    (made, labels), (before, _) = (each.sample(40, torch.Generator().manual_seed(1)) for each in (together, apart))
    assert labels.tolist() == 40 * [0, 1, 2, 0, 0]
    torch.testing.assert_close(made, before)


# -- what methods make of all the rows of a merged class ------------------------------------------------------------


def several() -> Classifier:
    """Classes ant (of ant, cow and elk), bee and, in a block of its own, dog; features of 8 numbers."""
    model = merged(merged(bundle().model, "ant", "elk"), "ant", "cow")
    return Classifier(nn.Flatten(), model.head, model.classes).eval()


def replaying(width: int, classes: tuple[str, ...]) -> tuple[Exemplars, Task]:
    """Nine features kept of these classes, and four of a new one."""
    kept = Images(drawn(9, width), torch.arange(9) % len(classes), classes, Preparation(1, 1, (0.0,) * 3, (1.0,) * 3))
    new = Images(drawn(4, width, 1), torch.zeros(4, dtype=torch.int64), ("fox",), kept.preparation)
    return Exemplars(kept, kept.counts), Task(("fox",), new)


def drawn(count: int, width: int, seed: int = 0) -> Tensor:
    return torch.rand(count, width, 1, 1, generator=torch.Generator().manual_seed(seed))


def test_all_rows_are_listed_and_move_with_their_class() -> None:
    model, features = several(), drawn(6, 8)
    weight, bias, owners = all_rows(model.head)
    assert owners.tolist() == [0, 1, 2, 0, 0]
    whole = bundle().model.head
    order = [0, 1, 3, 4, 2]  # ant, bee, dog, and then elk and cow
    assert torch.equal(weight, whole.weight[order])
    assert torch.equal(bias, whole.bias[order])
    change, lift = torch.randn(3, 8), torch.randn(3)
    expected = model(features) + features.flatten(1) @ change.T + lift
    torch.testing.assert_close(moved(model, change, lift)(features), expected)
    assert torch.equal(all_rows(model.head)[0], weight)


def test_wider_and_narrower_rows_give_the_same_logit() -> None:
    head, features = several().head, drawn(6, 8).flatten(1)
    wide = widened(head, 3, torch.Generator().manual_seed(0))
    torch.testing.assert_close(wide(nn.functional.pad(features, (0, 3))), head(features))
    same = [torch.cat([features, drawn(6, 3, 1).flatten(1)], 1), wide]
    columns = torch.tensor([0, 1, 2, 3, 4, 5, 6, 7, 9])
    before = same[1](torch.where(torch.isin(torch.arange(11), columns), same[0], 0))
    narrow(wide, 8, torch.tensor([1]))
    torch.testing.assert_close(wide(same[0][:, columns]), before)


def test_icarl_goes_on_from_all_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    model, features = several(), drawn(6, 8)
    answering = nearest_mean(model, torch.rand(3, 8))
    torch.testing.assert_close(trainable(answering)(features), model(features))
    body = kinds.build(spec(answering.body), nn.Flatten())
    body.load_state_dict(answering.body.state_dict())
    saved = Classifier(body, answering.head, answering.classes)
    assert torch.equal(trainable(saved)(features), trainable(answering)(features))
    asked = []
    monkeypatch.setattr(icarl, "asked", lambda old, images: asked.append(old(images)) or asked[-1])
    memory, task = replaying(8, model.classes)
    icarl.ICaRL(recipe=Recipe(epochs=1, batch_size=99, augment="none")).extend(answering, memory, task)
    shown = torch.cat([memory.images.pixels, task.train.pixels])
    torch.testing.assert_close(asked[0].sort(0).values, model(shown).sort(0).values)


def test_weight_aligning_holds_all_rows() -> None:
    model = several()
    with torch.no_grad():
        for layer, _ in layers(model.head):
            layer.weight.abs_()
    memory, task = replaying(8, model.classes)
    method = WeightAligning(recipe=Recipe(epochs=3, batch_size=8, lr=1000.0, weight_decay=0.0, augment="none"))
    grown = method.extend(model, memory, task)
    (before, old, _), (after, new, _) = all_rows(model.head), all_rows(grown.head)
    assert torch.equal(new[[0, 1, 2, 4, 5]], old)
    assert not torch.equal(after[4:], before[3:])
    assert (after >= 0).all()
    torch.testing.assert_close(after[3].norm(), after[[0, 1, 2, 4, 5]].norm(dim=1).mean())


def test_podnet_goes_on_from_proxies_of_every_class() -> None:
    proxies = torch.arange(24.0).view(4, 3, 2) + 1
    model = by_proxies(with_proxies(nn.Flatten(), proxies, 2.0), ("ant", "bee", "cow", "dog"))
    one = merged(model, "bee", "dog")
    found = proxies_of(one)
    assert found is not None
    assert torch.equal(found.proxies[[0, 2]], proxies[[0, 2]])
    assert torch.equal(found.proxies[1], torch.stack([proxies[1, 0], proxies[3, 0], proxies[1, 1]]))
    assert float(found.scale.detach()) == 2
    with torch.no_grad():
        one.head.blocks[0].more.bias.fill_(1)  # that is more than passing on
    assert proxies_of(one) is None


def test_podnet_learns_on_after_a_merge() -> None:
    model = by_proxies(with_proxies(classifier().body, torch.randn(3, 4, 8), 1.0), CLASSES)
    shown = images(9)
    memory, task = Exemplars(shown, shown.counts), images(4)
    one, task = (
        merged(model, "ant", "cow"),
        Task(("fox",), Images(task.pixels, task.labels * 0, ("fox",), task.preparation)),
    )
    grown = PODNet(recipe=Recipe(epochs=1)).extend(one, memory.merged("ant", "cow"), task)
    assert grown.classes == ("ant", "bee", "fox")
    assert grown.body.proxies.shape == (3, 4, 8)  # on the body, not on the logits


def test_soft_distillation_learns_beside_all_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    model, caught = several(), {}

    def new_features(*given: Any, **options: Any) -> tuple[Tensor, Tensor]:
        caught["new"] = views.new_features(*given, **options)
        return caught["new"]

    def distillation(logits: Tensor, teacher: Tensor, *given: Any) -> Tensor:
        caught.update(logits=logits.detach(), teacher=teacher)
        return original(logits, teacher, *given)

    def solve(terms: Any, *given: Any) -> list[Tensor]:
        found = solving.solve(terms, *given)
        terms(*found)
        return found

    original = soft_distillation.distillation
    for replaced in (new_features, distillation, solve):
        monkeypatch.setattr(soft_distillation, replaced.__name__, replaced)
    grown = SoftDistillation(views=1, iterations=5).extend(model, None, replaying(8, model.classes)[1])
    features, _ = caught["new"]
    torch.testing.assert_close(caught["teacher"][: len(features)], model.head(features).detach())
    answers = grown.head(features)[:, :3].detach()
    torch.testing.assert_close(caught["logits"][: len(features)], answers, atol=1e-3, rtol=1e-4)
    assert float((answers - caught["teacher"][: len(features), :3]).abs().max()) > 1


def test_glne_refuses_to_refine_a_class_of_which_it_keeps_a_part() -> None:
    photos = images(6)
    given = Images(photos.pixels, photos.labels, ("fox", "gnu", "hen"), photos.preparation)
    one = classgraft.merge(classgraft.extend(bundle(), given, method="glne"), "fox", "hen")
    with pytest.raises(InputError, match=r"'fox' was made of several classes.*remove it"):
        classgraft.extend(one, given.of(["fox"]), method="glne", update=True)
    again = classgraft.extend(one, given.of(["gnu"]), method="glne", update=True)
    (before, _, owners), (after, _, _) = all_rows(one.model.head), all_rows(again.model.head)
    assert torch.equal(after[owners != 6], before[owners != 6])
    assert not torch.equal(after[owners == 6], before[owners == 6])


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
