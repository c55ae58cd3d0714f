"""Heads made of statistics: exact sums, the rules that the papers state, and slow references for each of them."""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.linear_model import Ridge
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid
from torch import Tensor, nn

import classgraft
from classgraft import catalogue
from classgraft.data.images import Images, Task
from classgraft.errors import InputError
from classgraft.extenders import ranpac
from classgraft.extenders.fecam import FeCAM
from classgraft.extenders.knn import NearestNeighbours
from classgraft.extenders.ncm import NearestClassMean
from classgraft.extenders.ranpac import RIDGES, RanPAC, held_out
from classgraft.extenders.slda import SLDA
from classgraft.models.classifier import Classifier, Head, feature_width, linear
from classgraft.models.heads import build
from classgraft.models.preparation import Preparation
from classgraft.models.sources import Architecture
from classgraft.models.statistics import Mahalanobis, Neighbours, RandomFeatures, Unit, described, discriminants
from classgraft.training.moments import Moments, covered, moments, places, with_new

NAMES = tuple("abcdef")
METHODS: list[Any] = [
    NearestClassMean(),
    NearestClassMean("euclidean"),
    SLDA(),
    FeCAM(),
    FeCAM(shared=True),
    RanPAC(width=40),
    NearestNeighbours(neighbours=5),
]
methods = pytest.mark.parametrize("method", METHODS, ids=repr)


class Flat(nn.Flatten):
    """The images are the features."""

    num_features = 12


def world(seed: int = 0, count: int = 40, spread: float = 1.0, classes: int = 6) -> tuple[Tensor, Tensor]:
    """Features (N, 12), at least 0, of classes under one covariance that is far from round; labels."""
    generator = torch.Generator().manual_seed(seed)
    shape = torch.randn(12, 12, generator=torch.Generator().manual_seed(99))
    means = 6 + 2.5 * torch.randn(classes, 12, generator=torch.Generator().manual_seed(98))
    labels = torch.arange(classes).repeat_interleave(count)
    features = means[labels] + spread * torch.randn(len(labels), 12, generator=generator) @ shape
    return features.clamp(min=0), labels


def task(features: Tensor, labels: Tensor, names: Sequence[str] = NAMES) -> Task:
    """The images of some classes, in that order of classes."""
    as_it_is = Preparation(2, 2, (0.0, 0.0, 0.0), (1.0, 1.0, 1.0))
    return Task(tuple(names), Images(features.view(-1, 3, 2, 2), labels, NAMES, as_it_is).of(names))


def empty() -> Classifier:
    return Classifier(Flat(), Head(), ()).eval()


@torch.no_grad()
def logits(model: Classifier, features: Tensor) -> Tensor:
    return model(features.view(-1, 3, 2, 2))


def stream(method: Any, features: Tensor, labels: Tensor, *steps: str) -> tuple[Classifier, Any]:
    """From no class at all through these steps, each a string of class letters."""
    model, memory = empty(), None
    for names in steps:
        step = task(features, labels, tuple(names))
        model, memory = method.extend(model, memory, step), method.remember(model, step, memory)
    return model, memory


# -- exact sums -----------------------------------------------------------------------------------------------------


def test_moments_of_two_tasks_worked_by_hand() -> None:
    # class a: 1 and 3, then 8: mean 4, scatter 9 + 1 + 16 = 26; class b: 5 and 7: mean 6, scatter 2
    start = Moments("", "each", (), torch.zeros(0, dtype=torch.int64), torch.zeros(0, 1).double(), torch.zeros(0, 1, 1))
    kept = start.including(torch.tensor([[1.0], [3.0]]), torch.tensor([0, 0]), ["a"])
    kept = kept.including(torch.tensor([[5.0], [8.0], [7.0]]), torch.tensor([0, 1, 0]), ["b", "a"])
    assert kept.classes == ("a", "b")
    assert kept.count.tolist() == [3, 2]
    assert kept.mean.tolist() == [[4.0], [6.0]]
    assert kept.scatter.flatten().tolist() == [26.0, 2.0]
    shared = dataclasses.replace(start, spread="shared", scatter=torch.zeros(1, 1, 1).double())
    shared = shared.including(torch.tensor([[1.0], [3.0]]), torch.tensor([0, 0]), ["a"])
    shared = shared.including(torch.tensor([[5.0], [8.0], [7.0]]), torch.tensor([0, 1, 0]), ["b", "a"])
    assert shared.scatter.flatten().tolist() == [28.0]


@pytest.mark.parametrize("spread", ["none", "shared", "each"])
def test_moments_are_those_of_numpy_far_from_the_origin(spread: Any) -> None:
    """Sums of squares would lose all digits here: a spread of 1 about 10,000."""
    features, labels = world()
    features = features + 10_000
    kept = None
    for some in torch.arange(len(labels)).tensor_split(7):
        kept = moments(
            empty(), task(features[some], labels[some], [NAMES[k] for k in labels[some].unique()]), kept, spread
        )
    assert isinstance(kept, Moments)
    own = [features[labels == k].double().numpy() for k in range(6)]
    np.testing.assert_allclose(kept.mean, [x.mean(0) for x in own], rtol=1e-13)
    scatters = np.array([(len(x) - 1) * np.cov(x.T) for x in own])
    expected = {"none": scatters[:0], "shared": scatters.sum(0, keepdims=True), "each": scatters}[spread]
    np.testing.assert_allclose(kept.scatter, expected, rtol=1e-5 if spread == "each" else 1e-9, atol=1e-3)


def test_many_classes_are_found_at_once() -> None:
    """A search of the whole list for each of so many names takes ten seconds and more."""
    first, second = (tuple(f"{word} {k}" for k in range(20_000)) for word in ("old", "new"))
    model, began = Classifier(nn.Flatten(), Head([linear(torch.zeros(20_000, 1), None)]), first), time.process_time()
    known = with_new(first, second[::-1])
    assert places(second, known).tolist() == list(range(40_000 - 1, 20_000 - 1, -1))
    assert covered(model, known, (), "ncm") == first
    assert time.process_time() - began < 2


@methods
def test_tasks_one_after_the_other_give_what_one_pass_gives(method: Any) -> None:
    """Whatever the order of the classes and where the tasks are cut, even through a class."""
    features, labels = world()
    test, _ = world(seed=1)
    once, _ = stream(method, features, labels, "abcdef")
    if isinstance(method, RanPAC):  # the ridge is chosen on the last task: the same sums, and one ridge for all
        method = Fixed(width=method.width)
        once, _ = stream(method, features, labels, "abcdef")
    cut, _ = stream(method, features, labels, "fa", "c", "ebd")
    assert cut.classes == tuple("facebd")
    expected = logits(once, test)[:, ["abcdef".index(name) for name in cut.classes]]
    torch.testing.assert_close(logits(cut, test).softmax(1), expected.softmax(1), atol=2e-4, rtol=1e-3)

    half = torch.arange(len(labels)) % 2 == 0
    first, second = task(features[half], labels[half]), task(features[~half], labels[~half])
    kept = method.remember(empty(), second, method.remember(empty(), first, None))
    parts = method.extend(method.extend(empty(), None, first), method.remember(empty(), first, None), second)
    whole = method.remember(empty(), task(features, labels), None)
    if not isinstance(method, NearestNeighbours):  # which keeps its features in the order in which they came
        for name in ("mean", "scatter", "gram", "sums"):
            if hasattr(kept, name):
                torch.testing.assert_close(getattr(kept, name), getattr(whole, name), rtol=1e-5, atol=1e-4)
    torch.testing.assert_close(logits(parts, test).softmax(1), logits(once, test).softmax(1), atol=2e-4, rtol=1e-3)


class Fixed(RanPAC):
    """With a ridge that is given."""

    def ridge(self, *given: Any) -> float:
        return 10.0


@methods
def test_what_is_kept_does_not_grow_with_the_images_but_for_neighbours(method: Any) -> None:
    sizes = [
        sum(
            value.nbytes
            for value in vars(stream(method, *world(count=count), "abcdef")[1]).values()
            if isinstance(value, Tensor)
        )
        for count in (5, 20)
    ]
    assert (sizes[0] == sizes[1]) == (not isinstance(method, NearestNeighbours))


# -- slow references ------------------------------------------------------------------------------------------------


def test_ncm_is_the_nearest_centroid() -> None:
    features, labels = world(spread=2.0)
    test, _ = world(seed=1, spread=2.0)
    model, _ = stream(NearestClassMean("euclidean"), features, labels, "abc", "def")
    reference = NearestCentroid().fit(features.numpy(), labels.numpy())
    assert logits(model, test).argmax(1).tolist() == reference.predict(test.numpy()).tolist()
    assert type(model.head.blocks[0]) is nn.Linear, "an ordinary layer, that other tools load"

    model, _ = stream(NearestClassMean(), features, labels, "abc", "def")
    means = torch.stack([F.normalize(features[labels == k], dim=1).mean(0) for k in range(6)])
    torch.testing.assert_close(logits(model, test), F.cosine_similarity(test[:, None], means[None], dim=2))


def test_cosine_means_do_not_see_the_length_of_a_feature() -> None:
    features, labels = world()
    model, _ = stream(NearestClassMean(), features, labels, "abcdef")
    stretched, _ = stream(NearestClassMean(), features * torch.rand(len(labels), 1).add(0.1), labels, "abcdef")
    torch.testing.assert_close(logits(model, features), logits(stretched, 7 * features))


def test_slda_tends_to_linear_discriminant_analysis() -> None:
    """As its shrinkage goes to zero; scikit-learn divides by N as well and is given equal priors."""
    features, labels = world(spread=2.0)
    test, _ = world(seed=1, spread=2.0)
    model, _ = stream(SLDA(shrinkage=1e-9), features, labels, "ab", "cde", "f")
    reference = LinearDiscriminantAnalysis(solver="lsqr", priors=[1 / 6] * 6).fit(features.double().numpy(), labels)
    np.testing.assert_allclose(logits(model, test).softmax(1), reference.predict_proba(test.double()), atol=2e-4)
    assert type(model.head.blocks[0]) is nn.Linear


def test_slda_of_one_dimension_worked_by_hand() -> None:
    # means 1 and 5, scatters 2 and 2, variance 4 / 4 = 1; shrunk by a half: 0.5 + 0.5 = 1. Rows 1 and 5 less their mean
    # 3, biases -1/2 and -25/2 less their mean -13/2
    x, labels = torch.tensor([0.0, 2.0, 4.0, 6.0])[:, None], torch.tensor([0, 0, 1, 1])
    start = Moments(
        "", "shared", (), torch.zeros(0, dtype=torch.int64), torch.zeros(0, 1).double(), torch.zeros(1, 1, 1)
    )
    mean = start.including(x, labels, ["a", "b"]).mean
    head = discriminants(mean, mean)
    assert head.weight.tolist() == [[-2.0], [2.0]]
    assert head.bias.tolist() == [6.0, -6.0]


def test_more_shrinkage_of_slda_tends_to_the_nearest_mean() -> None:
    features, labels = world(spread=2.0)
    test, _ = world(seed=1, spread=2.0)
    nearest, _ = stream(NearestClassMean("euclidean"), features, labels, "abcdef")
    shrunk, _ = stream(SLDA(shrinkage=1.0), features, labels, "abcdef")
    usual, _ = stream(SLDA(), features, labels, "abcdef")
    torch.testing.assert_close(logits(shrunk, test), logits(nearest, test))
    assert not torch.equal(logits(usual, test).argmax(1), logits(nearest, test).argmax(1))


def test_slda_without_inverse_says_what_to_change() -> None:
    features, labels = world(count=3)
    with pytest.raises(InputError, match=r"shrinkage 0\.0 the covariance has no inverse; raise shrinkage"):
        stream(SLDA(shrinkage=0.0), features, labels, "abc")


@methods
def test_features_that_are_no_numbers_are_refused(method: Any) -> None:
    features, labels = world(count=3)
    features[4, 2] = torch.nan
    with pytest.raises(InputError, match="no finite numbers"):
        stream(method, features, labels, "abc")


def slow_fecam(features: Tensor, labels: Tensor, test: Tensor, method: FeCAM) -> np.ndarray:
    """Distances (N, K) as the equations state them, one element after the other."""
    x, t = features.double().numpy() ** method.power, test.double().numpy() ** method.power
    found = []
    for k in range(6):
        own = x[labels.numpy() == k]
        if method.shared:
            centred = np.concatenate([x[labels.numpy() == j] - x[labels.numpy() == j].mean(0) for j in range(6)])
            sigma = centred.T @ centred / len(centred)
        else:
            sigma = np.cov(own.T)
        off = ~np.eye(12, dtype=bool)
        v1, v2 = np.diag(sigma).mean(), sigma[off].mean()
        sigma = sigma + method.gamma1 * v1 * np.eye(12) + method.gamma2 * v2 * (1 - np.eye(12))
        deviation = np.sqrt(np.diag(sigma))
        inverse = np.linalg.pinv(sigma / np.outer(deviation, deviation))
        mean = own.mean(0)
        difference = t / np.linalg.norm(t, axis=1, keepdims=True) - mean / np.linalg.norm(mean)
        found.append([d @ inverse @ d for d in difference])
    return np.array(found).T


@pytest.mark.parametrize("method", [FeCAM(), FeCAM(gamma1=3.0, gamma2=0.5, power=0.8), FeCAM(shared=True)], ids=repr)
def test_fecam_is_its_equations(method: FeCAM) -> None:
    features, labels = world(spread=2.0)
    test, _ = world(seed=1, count=5, spread=2.0)
    model, _ = stream(method, features, labels, "abc", "def")
    expected = -slow_fecam(features, labels, test, method) / 2
    given = logits(model, test).double().numpy()
    np.testing.assert_allclose(
        given - given.mean(1, keepdims=True), expected - expected.mean(1, keepdims=True), atol=2e-5
    )


def test_fecam_without_inverse_says_what_to_change() -> None:
    features, labels = world(count=3)
    with pytest.raises(InputError, match="raise gamma1"):
        stream(FeCAM(gamma1=0.0, gamma2=0.0), features, labels, "abc")


def test_ranpac_is_ridge_regression_on_the_projected_features() -> None:
    features, labels = world(spread=2.0)
    test, _ = world(seed=1, spread=2.0)
    model, _ = stream(Fixed(width=40), features, labels, "abc", "def")
    projection = RandomFeatures(12, 40, 0)
    h, targets = projection(features).double().numpy(), F.one_hot(labels).double().numpy()
    reference = Ridge(alpha=10.0, fit_intercept=False).fit(h, targets)
    np.testing.assert_allclose(logits(model, test), reference.predict(projection(test).double().numpy()), atol=2e-3)


def test_the_ridge_is_the_best_on_images_held_out() -> None:
    features, labels = world(spread=2.0, count=10)
    method = RanPAC(width=60)
    held = held_out(labels, 0)
    assert torch.bincount(labels[held]).tolist() == [2] * 6
    projection = RandomFeatures(12, 60, 0)
    h, targets = projection(features).double().numpy(), F.one_hot(labels).double().numpy()
    errors = [
        np.square(
            Ridge(alpha=a, fit_intercept=False, solver="svd").fit(h[~held], targets[~held]).predict(h[held])
            - targets[held]
        ).mean()
        for a in RIDGES
    ]
    found = method.ridge(method.before(None), projection, features, labels, NAMES)
    assert found == RIDGES[int(np.argmin(errors))]
    assert RIDGES[0] < found < RIDGES[-1]
    assert held_out(torch.tensor([0, 1, 1, 2]), 0).sum() == 1
    one_each = held_out(torch.arange(3), 0)
    assert not one_each.any()


def test_projected_features_are_added_up_a_piece_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """All of them at once would be by far the most that is in memory, the sums do not hang on the pieces."""
    features, labels = world()
    whole, kept = stream(RanPAC(width=40), features, labels, "abc", "def")
    sizes: list[int] = []
    honest = RandomFeatures.forward

    def noting(self: RandomFeatures, given: Tensor) -> Tensor:
        sizes.append(len(given))
        return honest(self, given)

    monkeypatch.setattr(ranpac, "PIECE", 7)
    monkeypatch.setattr(RandomFeatures, "forward", noting)
    pieces, again = stream(RanPAC(width=40), features, labels, "abc", "def")
    assert max(sizes) == 7
    torch.testing.assert_close(again.sums, kept.sums, rtol=1e-6, atol=0)  # a projection has 32 bits
    torch.testing.assert_close(again.gram, kept.gram, rtol=1e-6, atol=0)
    monkeypatch.undo()
    torch.testing.assert_close(logits(pieces, features), logits(whole, features), rtol=1e-4, atol=1e-5)


def test_a_projection_tells_classes_apart_that_no_plane_does() -> None:
    """The claim of RanPAC, beside its control without the projection: a class on both sides of another."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1200, 12, generator=generator)
    labels = (x[:, 0] * x[:, 1] > 0).long()
    accuracy = []
    for method in (RanPAC(width=600), SLDA()):
        model, _ = stream(method, x[:900], labels[:900], "ab")
        accuracy.append(float((logits(model, x[900:]).argmax(1) == labels[900:]).float().mean()))
    assert accuracy[0] > 0.75
    assert accuracy[1] < 0.6


def test_classes_of_unequal_shape_want_their_own_covariance() -> None:
    """The claim of FeCAM: of heterogeneous classes each has a distance of its own; one for all, or none, is worse."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.arange(2).repeat(600)
    mixing = torch.stack([torch.linalg.qr(torch.randn(12, 12, generator=generator)).Q for _ in range(2)])
    spread = torch.logspace(-1.5, 0, 12)
    drawn = torch.randn(1200, 12, generator=generator) * spread
    x = 5 + torch.einsum("nd,nde->ne", drawn, mixing[labels])
    accuracy = []
    gentle = {"gamma1": 0.05, "gamma2": 0.05}
    for method in (FeCAM(**gentle), FeCAM(**gentle, shared=True), NearestClassMean()):
        model, _ = stream(method, x[:600], labels[:600], "ab")
        accuracy.append(float((logits(model, x[600:]).argmax(1) == labels[600:]).float().mean()))
    own, shared, nearest = accuracy
    assert own > 0.9, accuracy
    assert max(shared, nearest) < own - 0.2, accuracy


def test_knn_is_that_of_scikit_learn() -> None:
    features, labels = world(spread=3.0)
    test, _ = world(seed=1, spread=3.0)
    model, _ = stream(NearestNeighbours(neighbours=7, temperature=0.2), features, labels, "abc", "def")
    reference = KNeighborsClassifier(7, metric="cosine", weights=lambda d: np.exp((1 - d) / 0.2))
    reference.fit(features.double().numpy(), labels.numpy())
    expected = reference.predict_proba(test.double().numpy())
    np.testing.assert_allclose(logits(model, test).exp(), expected.clip(1e-6), atol=1e-5)
    assert logits(model, test).isfinite().all()


# -- refusals, and the parts ----------------------------------------------------------------------------------------


@methods
def test_a_model_whose_classes_are_not_remembered_is_refused(method: Any) -> None:
    features, labels = world()
    model = Classifier(Flat(), Head([nn.Linear(12, 2)]), ("x", "a")).eval()
    with pytest.raises(InputError, match=r"'x' of the model; remember their images first \(--old-images\)"):
        method.extend(model, method.remember(model, task(features, labels, "ab"), None), task(features, labels, "cd"))
    with pytest.raises(InputError, match="'x' and 1 other class"):
        method.extend(model, None, task(features, labels, "cd"))


@methods
def test_a_class_without_a_photo_is_named(method: Any) -> None:
    features, labels = world()
    with pytest.raises(InputError, match="'b' has no photo"):
        method.extend(empty(), None, task(features[labels != 1], labels[labels != 1], "ab"))


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (NearestClassMean(), NearestClassMean("euclidean")),
        (SLDA(), FeCAM()),
        (FeCAM(), FeCAM(power=1.0)),
        (RanPAC(width=40), RanPAC(width=40, seed=1)),
    ],
    ids=repr,
)
def test_what_was_kept_under_other_settings_is_refused(one: Any, other: Any) -> None:
    features, labels = world()
    kept = one.remember(empty(), task(features, labels, "ab"), None)
    with pytest.raises(InputError, match="remember the images again"):
        other.remember(empty(), task(features, labels, "cd"), kept)


@methods
def test_a_head_is_built_again_from_its_description_and_its_tensors(method: Any) -> None:
    features, labels = world()
    model, _ = stream(method, features, labels, "abc", "def")
    (block,) = model.head.blocks
    description = json.loads(json.dumps(described(block)))
    again = build(description)
    again.load_state_dict({key: value.clone() for key, value in block.state_dict().items()})
    assert described(again) == description
    assert torch.equal(again(features), block(features))


@methods
def test_classes_may_be_taken_out_again(method: Any) -> None:
    features, labels = world()
    model, memory = stream(method, features, labels, "abc", "def")
    fewer = model.without(["b", "e"])
    assert (fewer.classes, fewer.head.rows) == (tuple("acdf"), (4,))
    if not isinstance(method, NearestNeighbours):
        torch.testing.assert_close(logits(fewer, features), logits(model, features)[:, [0, 2, 3, 5]])
    later = method.extend(fewer, memory, task(features, labels, "b"))
    assert later.classes == tuple("acdfb")


@methods
def test_what_is_kept_of_a_class_can_be_forgotten(method: Any) -> None:
    """And, but for sums that are shared, the rest is what it would be had the class never been seen."""
    features, labels = world()
    _, memory = stream(method, features, labels, "abc", "def")
    _, never = stream(method, features, labels, "ac", "df")
    rest = memory.without(["b", "e"])
    assert type(rest) is method.memory_type
    assert rest.classes == tuple("acdf")
    for name, value in vars(rest).items():
        if isinstance(value, Tensor) and name != "gram" and getattr(rest, "spread", "") != "shared":
            torch.testing.assert_close(value, getattr(never, name))
    nothing = memory.without(NAMES)
    again = method.remember(empty(), task(features, labels), nothing)
    fresh = method.remember(empty(), task(features, labels), None)
    for name, value in vars(again).items():
        if isinstance(value, Tensor):
            torch.testing.assert_close(value, getattr(fresh, name))


def test_a_neighbour_of_a_class_that_is_gone_does_not_vote() -> None:
    block = Neighbours(torch.eye(3), torch.tensor([0, 1, 1]), 2, 1, 0.07).only([1])
    assert block.owners.tolist() == [0, 0]
    assert block(torch.eye(3)).tolist() == [[0.0]] * 3


@pytest.mark.parametrize(
    "description",
    [
        {},
        {"kind": "os.system"},
        {"kind": "linear", "rows": 0, "width": 3, "bias": True},
        {"kind": "mahalanobis", "rows": "many", "width": 3},
        {"kind": "through", "transforms": [{"kind": "power"}], "block": {"kind": "unit"}},
        {"kind": "through", "transforms": 3, "block": 4},
        {"kind": "random", "inputs": 60_000, "width": 60_000, "seed": 0},
    ],
    ids=str,
)
def test_a_description_of_nothing_known_is_refused(description: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="no part of a head like"):
        build(description)


def test_a_projection_is_the_same_everywhere() -> None:
    """RandomState's numbers never change; these were written down once."""
    written = [-0.36259031295776367, -0.4159747362136841, 0.9548649191856384]
    assert RandomFeatures(1, 3, 0).matrix.flatten().tolist() == written
    assert not torch.equal(RandomFeatures(1, 3, 0).matrix, RandomFeatures(1, 3, 1 << 32).matrix)
    assert "matrix" not in RandomFeatures(1, 3, 0).state_dict()


def test_mahalanobis_worked_by_hand() -> None:
    # (3, 4) less (1, 1) is (2, 3); by diag(1, 2) it is (2, 6): -40 / 2; from (3, 4) itself: 0
    roots = torch.stack([torch.diag(torch.tensor([1.0, 2.0])), torch.eye(2)])
    block = Mahalanobis(torch.tensor([[1.0, 1.0], [3.0, 4.0]]), roots)
    assert block(torch.tensor([[3.0, 4.0]])).tolist() == [[-20.0, 0.0]]
    assert Unit()(torch.tensor([[3.0, 4.0]])).tolist() == [[pytest.approx(0.6), pytest.approx(0.8)]]


def test_other_methods_refuse_a_head_without_rows_and_widths_are_found() -> None:
    features, labels = world()
    model, memory = stream(FeCAM(), features, labels, "abc")
    assert feature_width(model) == 12
    assert feature_width(stream(RanPAC(width=40), features, labels, "abc")[0]) == 12
    for name in ("glne", "imprint"):
        with pytest.raises(InputError, match="not made of linear rows"):
            catalogue.extender(name).extend(model, memory, task(features, labels, "d"))


@methods
def test_a_bundle_keeps_such_a_head_and_undoes_it(method: Any, tmp_path: Path) -> None:
    features, labels = world()
    model, _ = stream(method, features, labels, "abc", "def")
    rows = Classifier(model.body, Head([discriminants(torch.eye(6, 12), torch.eye(6, 12))]), model.classes)
    base = classgraft.Bundle(rows.eval(), Architecture("python:Sequential"), "1", Preparation(2, 2))
    bundle = base.then(model, {"event": "extend", "sentence": "a new head"}, ("d", "e", "f"), {})
    classgraft.save(bundle, tmp_path)
    again = classgraft.load(tmp_path, nn.Sequential(model.body, nn.Linear(12, 6)))
    assert torch.equal(logits(again.model, features), logits(model, features))
    assert torch.equal(logits(classgraft.undo(again).model, features), logits(rows, features))
