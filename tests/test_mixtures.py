"""Mixtures: moments by hand, draws with the stated moments, bytes, and classes refined by more images."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from classgraft.packing import bytes_of
from classgraft.training.mixtures import MOST_RANK, Form, Mixture, Mixtures, exactly, fitted

COVARIANCES = ("spherical", "diagonal", "low-rank", "shared")


def drawn(count: int = 400, width: int = 6, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Two classes of one correlated scatter."""
    generator = torch.Generator().manual_seed(seed)
    mix = torch.randn(width, width, generator=generator)
    labels = torch.arange(2).repeat_interleave(count)
    return torch.randn(2 * count, width, generator=generator) @ mix + 5 * labels[:, None], labels


def fit(features: Tensor, labels: Tensor, covariance: Any, before: Mixtures | None = None, **form: Any) -> Mixtures:
    names = tuple("ab"[: int(labels.max()) + 1])
    return fitted(features, labels, names, Form(covariance, **form), before)


def test_mean_and_variance_worked_by_hand() -> None:
    # class a: 0, 2 and 4, mean 2, squares 4 + 0 + 4 = 8; class b: 10 and 12, squares 1 + 1 = 2. Usual: 10 / 3 degrees of
    # freedom. The usual variance counts for one image: a (8 + 10/3) / 3 = 34/9, b (2 + 10/3) / 2 = 8/3
    found = fit(torch.tensor([[0.0], [2.0], [4.0], [10.0], [12.0]]), torch.tensor([0, 0, 0, 1, 1]), "diagonal").classes
    assert found["a"].mean.tolist() == [[2.0]]
    assert float(found["a"].deviation) ** 2 == pytest.approx(34 / 9, rel=2e-3)
    assert float(found["b"].deviation) ** 2 == pytest.approx(8 / 3, rel=2e-3)
    assert (found["a"].count, found["b"].count) == (3, 2)


def test_single_images_scatter_by_half_of_what_lies_between_them() -> None:
    # at 0 and 4: variance 4 about their mean, half of it is 2
    found = fit(torch.tensor([[0.0], [4.0]]), torch.tensor([0, 1]), "diagonal").classes
    assert float(found["a"].deviation) ** 2 == pytest.approx(2.0, rel=2e-3)


def test_a_single_image_scatters_as_classes_that_were_kept_before() -> None:
    before = fit(*drawn(), "diagonal")
    found = fitted(torch.zeros(1, 6), torch.tensor([0]), ("c",), Form("diagonal"), before).classes
    usual = torch.stack([before.classes[name].deviation.float().square() for name in "ab"]).mean(0)
    torch.testing.assert_close(found["c"].deviation.float().square(), usual, rtol=4e-3, atol=0)


@pytest.mark.parametrize("covariance", COVARIANCES)
def test_draws_have_the_moments_of_the_features(covariance: str) -> None:
    features, labels = drawn(3000)
    kept = fit(features, labels, covariance)
    made, apart = kept.sample(("a", "b"), 20_000, torch.Generator().manual_seed(1))
    for k, part in enumerate(made.split(20_000)):
        real, scale = features[labels == k], float(features[labels == k].var())
        torch.testing.assert_close(part.mean(0), real.mean(0), atol=0.1, rtol=0)
        wanted, found = torch.cov(real.T), torch.cov(part.T)
        if covariance == "spherical":
            wanted = torch.eye(6) * real.var(0).mean()
        elif covariance == "diagonal":
            wanted = wanted.diag().diag()
        torch.testing.assert_close(found, wanted, atol=0.06 * scale, rtol=0.05)
    torch.testing.assert_close(apart[:20_000], made[:20_000] - kept.classes["a"].centre)


def test_several_components_are_found_where_they_are() -> None:
    generator = torch.Generator().manual_seed(0)
    centres = torch.tensor([[0.0, 0.0], [10.0, 0.0], [0.0, 10.0]])
    features = centres.repeat(100, 1) + 0.5 * torch.randn(300, 2, generator=generator)
    found = fit(features, torch.zeros(300, dtype=torch.int64), "diagonal", components=3).classes["a"]
    order = found.mean.float().sum(1).argsort()
    torch.testing.assert_close(found.weight, torch.full((3,), 1 / 3), atol=0.01, rtol=0)
    assert float((found.mean.float()[order][:1]).norm()) < 0.2
    near = torch.cdist(found.mean.float(), centres).min(1).values
    assert float(near.max()) < 0.2
    assert float(found.deviation.float().max()) < 1.0
    torch.testing.assert_close(found.centre, features.mean(0), atol=2e-2, rtol=0)


def test_no_more_components_than_half_the_images() -> None:
    assert (
        len(fit(torch.randn(5, 3), torch.zeros(5, dtype=torch.int64), "diagonal", components=9).classes["a"].mean) == 2
    )


@pytest.mark.parametrize(
    ("width", "most", "expected"),
    [
        (64, 6000, ("low-rank", MOST_RANK)),
        (64, 400, ("low-rank", 1)),
        (64, 300, ("diagonal", 0)),
        (64, 200, ("spherical", 0)),
        (1280, 6000, ("diagonal", 0)),
        (512, 6000, ("low-rank", 3)),
    ],
)
def test_the_covariance_is_what_the_bytes_allow(width: int, most: int, expected: tuple[str, int]) -> None:
    # fp16: a mean and a deviation take 4 bytes an axis, each further direction 2
    form = Form(most_bytes=most)
    assert (form.chosen(width), form.rank(width)) == expected


@pytest.mark.parametrize("most", [200, 300, 1000, 6000])
def test_a_class_takes_no_more_bytes_than_allowed_but_for_words(most: int) -> None:
    features = torch.randn(100, 64, generator=torch.Generator().manual_seed(0))
    kept = fitted(features, torch.zeros(100, dtype=torch.int64), ("a",), Form(most_bytes=most))
    assert bytes_of(kept) <= most + 400


def test_features_too_large_for_half_precision_are_kept_in_full() -> None:
    found = fit(torch.tensor([[1e6], [1e6 + 8]]), torch.tensor([0, 0]), "diagonal").classes["a"]
    assert found.mean.tolist() == [[1e6 + 4]]


def test_features_themselves_come_back_each_as_often() -> None:
    features, labels = drawn(5)
    kept = exactly(features, labels, ("a", "b"))
    made, _ = kept.sample(("a", "b"), 10, torch.Generator())
    assert torch.equal(made, torch.cat([features[:5].repeat(2, 1), features[5:].repeat(2, 1)]))
    more = exactly(features[:2], labels[:2], ("a",), kept)
    assert torch.equal(more.classes["a"].mean, features[[0, 1, 2, 3, 4, 0, 1]])
    assert more.classes["b"] is kept.classes["b"]


def test_features_themselves_are_all_kept_however_many() -> None:
    features, labels = drawn(600)
    kept = exactly(features[:597], labels[:597], ("a",))
    more = exactly(features[597:600], labels[597:600], ("a",), kept).classes["a"]
    assert torch.equal(more.mean, features[:600])
    assert more.count == 600
    mixed = fitted(features[597:600], labels[597:600], ("a",), Form("diagonal"), kept).classes["a"]
    torch.testing.assert_close(mixed.centre, features[:600].mean(0), atol=1e-2, rtol=0)
    assert len(Mixtures({"a": mixed}, None).photos("a", torch.Generator())) == 500


@pytest.mark.parametrize("covariance", ["spherical", "diagonal", "low-rank"])
def test_a_class_in_parts_ends_as_in_one(covariance: str) -> None:
    features, _ = drawn(100)
    features = features[:100]
    whole = fit(features, torch.zeros(100, dtype=torch.int64), covariance).classes["a"]
    kept: Mixtures | None = None
    for part in features.split(20):
        kept = fit(part, torch.zeros(20, dtype=torch.int64), covariance, kept)
    assert kept is not None
    found = kept.classes["a"]
    assert found.count == 100
    torch.testing.assert_close(found.centre, whole.centre, atol=0.01, rtol=0.01)
    total = [m.deviation.float().square() + m.factor.float().square().sum(2) for m in (found, whole)]
    torch.testing.assert_close(total[0], total[1], rtol=0.2, atol=0)


def test_what_stands_for_earlier_images_has_their_mean_and_variances() -> None:
    kept = fit(*drawn(50), "low-rank")
    made = kept.photos("b", torch.Generator().manual_seed(3))
    mixture: Mixture = kept.classes["b"]
    assert len(made) == 50
    torch.testing.assert_close(made.mean(0), mixture.centre, atol=1e-4, rtol=0)
    own = (mixture.deviation.float().square() + mixture.factor.float().square().sum(2))[0]
    torch.testing.assert_close(made.var(0), own, rtol=1e-3, atol=0)


def test_the_common_scatter_pools_what_came_before() -> None:
    features, labels = drawn(2000)
    whole = fit(features, labels, "shared")
    first = fitted(features[:2000], labels[:2000], ("a",), Form("shared"))
    both = fitted(features[2000:], labels[2000:] - 1, ("b",), Form("shared"), first)
    for kept in (whole, both):
        assert kept.freedom == 3998
        assert kept.shared is not None
    one, two = (m.shared.float() @ m.shared.float().T for m in (whole, both))  # type: ignore[union-attr]
    torch.testing.assert_close(one, two, atol=0.05, rtol=0.01)
