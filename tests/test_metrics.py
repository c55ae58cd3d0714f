"""Accuracies, calibration error, the curve of old against new, and intervals."""

from __future__ import annotations

import json
import math

import pytest
import torch
from torch import Tensor

from classgraft.metrics.classification import Evaluation, calibration_error, evaluation, harmonic
from classgraft.metrics.incremental import Incremental
from classgraft.metrics.intervals import paired, student_interval, wilson_interval
from classgraft.metrics.tradeoff import Curve, curve, frontier, unreached

CLASSES = ("ant", "bee", "cow")
# true ant: 3 right, 1 taken for a bee; true bee: 1 right, 1 taken for a cow; true cow: 1 right, 3 taken for an ant
CONFUSION = torch.tensor([[3, 1, 0], [0, 1, 1], [3, 0, 1]])


def counted(new: tuple[int, ...] = (2,)) -> Evaluation:
    return Evaluation(CLASSES, frozenset(new), CONFUSION.to_sparse(), 0.25)


def one_hot_logits(predicted: list[int], size: int) -> Tensor:
    return 4.0 * torch.nn.functional.one_hot(torch.tensor(predicted), size)


def drawn(old: int, new: int, images: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Logits in double that are right more often than not, and their labels."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(old + new, (images,), generator=generator)
    logits = torch.randn(images, old + new, generator=generator, dtype=torch.float64)
    logits[torch.arange(images), labels] += 1.5
    return logits, labels


def swept(logits: Tensor, labels: Tensor, first: int, offset: float) -> tuple[float, float]:
    """Old and new accuracy after adding the offset to the new logits, by argmax."""
    moved = logits.clone()
    moved[:, first:] += offset
    right = moved.argmax(1) == labels
    return float(right[labels < first].double().mean()), float(right[labels >= first].double().mean())


def curve_of(logits: Tensor, labels: Tensor, first: int) -> Curve:
    old = labels < first
    return curve(logits[old], labels[old], logits[~old], labels[~old], first)


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [(0.5, 1.0, 2 / 3), (0.8, 0.8, 0.8), (0.0, 0.9, 0.0), (0.0, 0.0, 0.0), (None, 0.5, None), (0.5, None, None)],
)
def test_harmonic_mean_by_hand(old: float | None, new: float | None, expected: float | None) -> None:
    assert harmonic(old, new) == (expected if expected is None else pytest.approx(expected))


def test_evaluation_counts_true_by_predicted() -> None:
    labels = [0, 0, 0, 0, 1, 1, 2, 2, 2, 2]
    predicted = [0, 0, 0, 1, 1, 2, 0, 0, 0, 2]
    found = evaluation(one_hot_logits(predicted, 3), torch.tensor(labels), CLASSES, [2])
    assert torch.equal(found.confusion, CONFUSION)
    assert (found.classes, found.new) == (CLASSES, {2})


def test_many_classes_take_no_matrix(monkeypatch: pytest.MonkeyPatch) -> None:
    names, labels = tuple(map(str, range(21_841))), torch.tensor([3, 3, 21_840, 5])
    logits = torch.zeros(4, len(names))
    logits[torch.arange(4), torch.tensor([3, 9, 3, 9])] = 1.0
    monkeypatch.setattr(torch.Tensor, "to_dense", None)  # 3.8 GB
    found = evaluation(logits, labels, names, [21_840])
    assert found.summary()["per_class"] == {
        "3": {"n": 2, "accuracy": 0.5},
        "5": {"n": 1, "accuracy": 0.0},
        "21840": {"n": 1, "accuracy": 0.0},
    }
    assert (found.old, found.added, found.accuracy()) == (1 / 3, 0.0, 0.25)
    assert found.mistakes == [(3, 9, 1), (5, 9, 1), (21_840, 3, 1)]
    assert max(part.numel() for part in (found.totals, found.right, found.answered.indices())) <= len(names)


def test_the_most_frequent_mistakes_come_first_and_right_answers_are_none() -> None:
    assert counted().mistakes == [(2, 0, 3), (0, 1, 1), (1, 2, 1)]


def test_summary_of_a_confusion_worked_by_hand() -> None:
    assert counted().summary() == {
        "old": pytest.approx(4 / 6),  # micro over images: the mean of the classes would be 5/8
        "new": pytest.approx(1 / 4),
        "harmonic": pytest.approx(2 * (4 / 6) * (1 / 4) / (4 / 6 + 1 / 4)),
        "all": pytest.approx(5 / 10),
        "ece": 0.25,
        "n": {"old": 6, "new": 4, "all": 10},
        "per_class": {
            "ant": {"n": 4, "accuracy": pytest.approx(3 / 4)},
            "bee": {"n": 2, "accuracy": pytest.approx(1 / 2)},
            "cow": {"n": 4, "accuracy": pytest.approx(1 / 4)},
        },
    }


def test_summary_is_json_with_exactly_the_promised_keys() -> None:
    found = json.loads(json.dumps(counted().summary(), allow_nan=False))
    assert list(found) == ["old", "new", "harmonic", "all", "ece", "n", "per_class"]
    assert list(found["n"]) == ["old", "new", "all"]
    assert {frozenset(row) for row in found["per_class"].values()} == {frozenset({"n", "accuracy"})}


def test_what_is_not_measured_is_null() -> None:
    found = evaluation(torch.zeros(0, 3), torch.zeros(0, dtype=torch.int64), CLASSES, [2]).summary()
    assert [found[key] for key in ("old", "new", "harmonic", "all", "ece")] == [None] * 5
    assert found["n"] == {"old": 0, "new": 0, "all": 0}


def test_a_model_without_new_classes_has_no_new_accuracy_and_no_harmonic_mean() -> None:
    found = counted(new=()).summary()
    assert (found["old"], found["new"], found["harmonic"]) == (0.5, None, None)


def test_classes_without_an_image_do_not_count() -> None:
    found = evaluation(one_hot_logits([0, 1], 3), torch.tensor([0, 0]), CLASSES, [2])
    assert found.summary()["per_class"] == {"ant": {"n": 2, "accuracy": 0.5}}
    assert found.added is None


def test_calibration_error_by_hand() -> None:
    # two bins: (0, 0.5] holds 0.5 right, gap |0.5 - 1|; (0.5, 1] holds 0.8 right and 0.6 wrong, gap |0.7 - 0.5|
    probabilities = torch.tensor([[0.5, 0.3, 0.2], [0.8, 0.2, 0.0], [0.6, 0.4, 0.0]], dtype=torch.float64)
    labels = torch.tensor([0, 0, 1])
    assert calibration_error(probabilities, labels, bins=2) == pytest.approx((1 * 0.5 + 2 * 0.2) / 3)


def test_a_confidence_on_the_border_belongs_to_the_bin_below() -> None:
    # apart, the two gaps add up: 0.5 / 2 + 0.25 / 2; in one bin they would cancel to |1.25 - 1| / 2
    probabilities = torch.tensor([[0.5, 0.5, 0.0], [0.75, 0.25, 0.0]], dtype=torch.float64)
    assert calibration_error(probabilities, torch.tensor([2, 0]), bins=2) == pytest.approx(0.375)


def test_calibration_error_equals_a_slow_reference_over_fifteen_bins() -> None:
    logits, labels = drawn(4, 2, 300)
    probabilities = logits.softmax(1)
    slow = 0.0
    for b in range(15):
        inside = [
            (max(p), p.index(max(p)) == label)
            for p, label in zip(probabilities.tolist(), labels.tolist(), strict=True)
            if b / 15 < max(p) <= (b + 1) / 15
        ]
        if inside:
            confidence, right = (sum(column) / len(inside) for column in zip(*inside, strict=True))
            slow += len(inside) / len(labels) * abs(right - confidence)
    assert calibration_error(probabilities, labels) == pytest.approx(slow)
    assert evaluation(logits, labels, "abcdef").ece == pytest.approx(slow)


def test_sure_and_right_is_perfectly_calibrated_and_sure_and_wrong_wholly_not() -> None:
    certain = torch.eye(3)
    assert calibration_error(certain, torch.tensor([0, 1, 2])) == 0
    assert calibration_error(certain, torch.tensor([1, 2, 0])) == 1


@pytest.mark.parametrize(("old", "new", "seed"), [(3, 2, 0), (1, 1, 1), (6, 1, 2)])
def test_every_point_of_the_curve_is_what_argmax_gives(old: int, new: int, seed: int) -> None:
    logits, labels = drawn(old, new, 80, seed)
    found = curve_of(logits, labels, old)
    for offset, of_old, of_new in zip(found.offset.tolist(), found.old.tolist(), found.new.tolist(), strict=True):
        assert (of_old, of_new) == pytest.approx(swept(logits, labels, old, offset))


def test_a_brute_force_sweep_finds_no_point_that_the_curve_lacks() -> None:
    logits, labels = drawn(3, 2, 40)
    found = curve_of(logits, labels, 3)
    known = {(round(o * 1000), round(n * 1000)) for o, n in zip(found.old.tolist(), found.new.tolist(), strict=True)}
    dense = {
        (round(o * 1000), round(n * 1000))
        for o, n in (swept(logits, labels, 3, float(offset)) for offset in torch.linspace(-12, 12, 4001).double())
    }
    assert len(dense) > 20
    assert dense <= known


def test_the_curve_runs_from_no_new_answer_to_no_old_answer() -> None:
    logits, labels = drawn(3, 2, 60)
    found = curve_of(logits, labels, 3)
    assert (float(found.new[0]), float(found.old[-1])) == (0.0, 0.0)
    assert bool((found.offset.diff() > 0).all())
    assert bool((found.old.diff() <= 0).all() and (found.new.diff() >= 0).all())


@pytest.mark.parametrize("rounded", [False, True])
def test_the_achieved_point_is_the_evaluation_at_no_offset(rounded: bool) -> None:
    logits, labels = drawn(3, 2, 200, seed=4)
    if rounded:  # many exact ties between old and new, which argmax gives to the old
        logits = logits.round()
        logits += torch.tensor([0.0, 0.25, 0.5, 0.0, 0.25])  # none among the old or among the new
    found = evaluation(logits, labels, "abcde", [3, 4])
    assert found.old is not None
    expected = harmonic(found.old, found.added)
    assert curve_of(logits, labels, 3).achieved == pytest.approx(expected)


def test_area_and_regret_of_a_curve_worked_by_hand() -> None:
    # (old, new) = (0.8, 0), (0.8, 0.4), (0.4, 0.8), (0, 0.8): area 0.4 * 0.8 + 0.4 * 0.6
    found = Curve(
        torch.tensor([-2.0, 0.0, 1.0, 3.0]), torch.tensor([0.8, 0.8, 0.4, 0.0]), torch.tensor([0.0, 0.4, 0.8, 0.8])
    )
    assert found.area == pytest.approx(0.56)
    assert found.harmonic.tolist() == pytest.approx([0, 8 / 15, 8 / 15, 0])
    assert (found.best, found.achieved, found.regret) == pytest.approx((8 / 15, 8 / 15, 0))


def test_left_of_its_first_point_a_curve_counts_as_level() -> None:
    found = Curve(torch.tensor([0.0, 1.0]), torch.tensor([0.8, 0.5]), torch.tensor([0.2, 0.9]))
    assert found.area == pytest.approx(0.5 * 0.9 + 0.3 * 0.55)


def test_regret_is_the_best_harmonic_mean_minus_the_achieved() -> None:
    # at offset 0 (0.9, 0.1): 0.18; the best is (0.6, 0.6)
    found = Curve(torch.tensor([-1.0, 0.0, 2.0]), torch.tensor([0.9, 0.9, 0.6]), torch.tensor([0.0, 0.1, 0.6]))
    assert (found.achieved, found.best, found.regret) == pytest.approx((0.18, 0.6, 0.42))


def test_area_of_perfect_and_of_hopeless_separation() -> None:
    right = torch.tensor([[2.0, 0.0], [0.0, 2.0]])
    labels = torch.tensor([0, 1])
    assert curve_of(right, labels, 1).area == pytest.approx(1.0)
    assert curve_of(right.flip(0), labels, 1).area == pytest.approx(0.0)


def test_a_constant_on_the_new_logits_moves_the_achieved_point_and_neither_area_nor_best() -> None:
    logits, labels = drawn(3, 2, 150)
    before = curve_of(logits, labels, 3)
    shifted = logits.clone()
    shifted[:, 3:] += 4
    after = curve_of(shifted, labels, 3)
    assert (after.area, after.best) == pytest.approx((before.area, before.best))
    assert after.regret > before.regret + 0.1


def test_student_interval_by_hand() -> None:
    mean, half = student_interval([1.0, 2.0, 3.0])
    assert (mean, half) == pytest.approx((2.0, 4.302653 / math.sqrt(3)), rel=1e-6)


def test_a_single_value_has_no_student_interval() -> None:
    mean, half = student_interval([0.7])
    assert mean == 0.7
    assert math.isnan(half)


@pytest.mark.parametrize(
    ("right", "total", "expected"),
    [
        (5, 10, (0.2366, 0.7634)),
        (10, 10, (0.7225, 1.0)),
        (0, 10, (0.0, 0.2775)),
        (81, 263, (0.2553, 0.3662)),  # Newcombe: Two-sided confidence intervals for the single proportion, 1998
        (15, 148, (0.0624, 0.1605)),  # likewise
    ],
)
def test_wilson_interval_by_known_values(right: int, total: int, expected: tuple[float, float]) -> None:
    assert wilson_interval(right, total) == pytest.approx(expected, abs=6e-5)


def test_both_ends_of_the_wilson_interval_solve_its_equation() -> None:
    share = 30 / 80
    for end in wilson_interval(30, 80, confidence=0.9):
        assert (share - end) ** 2 == pytest.approx(1.6448536**2 * end * (1 - end) / 80)


# -- streams -------------------------------------------------------------------------------------------------------

# steps of 4, 2 and 2 test images: what PyCIL's grouping by tens cannot count
RIGHT = torch.tensor([[4, -1, -1], [2, 2, -1], [1, 1, 2]])
IMAGES = torch.tensor([4, 2, 2])


def streamed() -> Incremental:
    return Incremental(RIGHT, IMAGES)


def test_a_stream_is_grouped_by_its_own_steps() -> None:
    found = streamed()
    assert found.accuracy[2].tolist() == [0.25, 0.5, 1.0]
    assert found.accuracy[0].isnan().tolist() == [False, True, True]
    assert found.seen.tolist() == pytest.approx([1.0, 4 / 6, 4 / 8])
    assert found.average == pytest.approx((1 + 2 / 3 + 1 / 2) / 3)
    assert found.last == 0.5
    assert found.old == pytest.approx(2 / 6)
    assert found.new == 1.0


def test_forgetting_is_the_best_before_less_the_end() -> None:
    assert streamed().forgetting == pytest.approx(((1 - 0.25) + (1 - 0.5)) / 2)
    # the first step was at its best after the second, not when it was learnt
    later = Incremental(torch.tensor([[1, -1, -1], [3, 2, -1], [2, 2, 1]]), IMAGES)
    assert later.forgetting == pytest.approx(((3 - 2) / 4 + 0) / 2)
    assert later.backward_transfer == pytest.approx(((2 - 1) / 4 + 0) / 2)
    # what it had after the last step does not count as before
    gained = Incremental(torch.tensor([[1, -1], [3, 2]]), IMAGES[:2])
    assert gained.forgetting == pytest.approx(-0.5)


def test_transfers_by_hand() -> None:
    assert streamed().backward_transfer == pytest.approx((-0.75 - 0.5) / 2)
    assert streamed().forward_transfer(0.1) is None
    known = Incremental(torch.tensor([[4, 1, -1], [2, 2, 1], [1, 1, 2]]), IMAGES)
    assert known.forward_transfer(0.25) == pytest.approx((0.25 + 0.25) / 2)
    assert known.average == streamed().average, "what is not learnt yet does not count as seen"
    assert known.forgetting == streamed().forgetting


def test_a_single_step_forgets_nothing_that_can_be_measured() -> None:
    only = Incremental(torch.tensor([[3]]), torch.tensor([4]))
    assert (only.average, only.last, only.new) == (0.75, 0.75, 0.75)
    assert only.forgetting is only.backward_transfer is only.old is only.forward_transfer(0.1) is None


@pytest.mark.parametrize("sizes", [(5, 5), (50, 10, 10), (1, 2, 3, 4), (20,) * 5])
def test_stream_metrics_equal_their_slow_reference(sizes: tuple[int, ...]) -> None:
    generator = torch.Generator().manual_seed(len(sizes))
    count = len(sizes)
    right = torch.tensor([[int(torch.randint(n + 1, (), generator=generator)) for n in sizes] for _ in sizes])
    found = Incremental(torch.where(torch.ones(count, count).tril().bool(), right, -1), torch.tensor(sizes))
    a = [[int(right[t, j]) / sizes[j] for j in range(count)] for t in range(count)]
    seen = [sum(int(right[t, j]) for j in range(t + 1)) / sum(sizes[: t + 1]) for t in range(count)]
    lost = [max(a[t][j] for t in range(j, count - 1)) - a[-1][j] for j in range(count - 1)]
    assert found.average == pytest.approx(sum(seen) / count)
    assert found.forgetting == pytest.approx(sum(lost) / len(lost))
    assert found.backward_transfer == pytest.approx(sum(a[-1][j] - a[j][j] for j in range(count - 1)) / (count - 1))


def test_methods_are_compared_pair_by_pair() -> None:
    found = paired([0.5, 0.6, 0.7], [0.4, 0.45, 0.5])  # differences 0.1, 0.15, 0.2: deviation 0.05
    assert found.difference == pytest.approx(0.15)
    assert found.half_width == pytest.approx(4.302653 * 0.05 / math.sqrt(3), rel=1e-6)
    from scipy.stats import ttest_rel

    assert found.probability == pytest.approx(float(ttest_rel([0.5, 0.6, 0.7], [0.4, 0.45, 0.5]).pvalue))
    assert paired([0.5, 0.6], [0.5, 0.6]).probability == 1.0
    assert math.isnan(paired([0.5], [0.4]).probability)
    with pytest.raises(ValueError, match="zip"):
        paired([0.5], [0.4, 0.3])


def test_the_frontier_by_hand() -> None:
    """(0.5, 0.6) is beaten by (0.2, 0.5), (0.6, 0.5) too, by a coordinate alone; of two equal ones the first stays."""
    points = torch.tensor([[0.6, 0.1], [0.5, 0.6], [0.2, 0.5], [0.6, 0.5], [0.2, 0.5], [0.9, 0.1]])
    assert frontier(points).tolist() == [2, 0]
    assert unreached(points) == pytest.approx(0.44)  # 0.2 * 1 + 0.4 * 0.5 + 0.4 * 0.1
    assert unreached(points[:0]) == 1
    assert unreached(torch.zeros(1, 2)) == 0


def test_the_area_that_no_point_reaches_equals_counting_a_grid() -> None:
    points = torch.rand(6, 2, generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    middles = (torch.arange(200, dtype=torch.float64) + 0.5) / 200
    grid = torch.cartesian_prod(middles, middles)
    reached = (points[:, None] <= grid[None]).all(2).any(0)
    assert unreached(points) == pytest.approx(1 - float(reached.double().mean()), abs=0.01)
    best = points[frontier(points)]
    assert unreached(best) == pytest.approx(unreached(points))  # those beaten do not count
