"""Published numbers beside what a benchmark finds, where the setting is the one that they were published for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from test_contract import Body, photos

import classgraft
from classgraft.evaluator import words
from classgraft.evaluator.expected import Expected, told
from classgraft.evaluator.methods import cells_of
from classgraft.evaluator.protocols import Split
from classgraft.evaluator.settings import NAMED, Setting
from classgraft.evaluator.start import Start
from classgraft.training.recipe import Recipe

NAMES = tuple("abcd")
PUBLISHED = Expected("finetune", 0.754, 0.652, 0.007, "somebody")


def bench(out: Path, methods: Any = ("finetune",), **options: Any) -> tuple[dict[str, Any], list[str]]:
    setting = Setting(
        Split((2, 2)), start=Start(Body), recipe=Recipe(epochs=1, batch_size=8), orders=(0, 1), expected=(PUBLISHED,)
    )
    heard: list[str] = []
    given = {"protocol": setting, "tell": heard.append, **options}
    return classgraft.bench(methods, photos(NAMES, 4), photos(NAMES, 4, 1), out=out, **given), heard


@pytest.mark.parametrize(
    ("average", "last", "met"),
    [(0.754, 0.652, True), (0.7605, 0.646, True), (0.762, 0.652, False), (0.754, 0.644, False), (0.746, 0.652, False)],
)
def test_both_numbers_must_lie_near_what_was_published(average: float, last: float, met: bool) -> None:
    check = PUBLISHED.check([{"average": average + d, "last": last - d} for d in (-0.02, 0.0, 0.02)])
    assert (check["average"], check["last"], check["met"]) == (pytest.approx(average), pytest.approx(last), met)
    assert told(check) == (
        f"finetune: average {100 * average:.1f} %, last {100 * last:.1f} %; "
        + ("as expected" if met else "not what was expected")
        + " (average 75.4 %, last 65.2 %, to 0.7 points; somebody)."
    )


def test_a_benchmark_tells_whether_the_published_numbers_came(tmp_path: Path) -> None:
    found, heard = bench(tmp_path / "o")
    (check,) = found["expected"]
    lines = found["methods"]["finetune"]
    assert check["average"] == pytest.approx(sum(line["average"] for line in lines) / 2)
    assert check["expected"] == {"average": 0.754, "last": 0.652, "within": 0.007, "source": "somebody"}
    assert heard[-1] == told(check)
    assert "not what was expected" in (tmp_path / "o" / "report.html").read_text("utf-8")


@pytest.mark.parametrize(
    "changed",
    [
        {"recipe": {"epochs": 2}},
        {"orders": (0,)},
        {"settings": {"finetune": {"statistics": False}}},
        {"methods": {"finetune": "exemplars"}},
        {"methods": ["exemplars"]},
    ],
    ids=str,
)
def test_of_another_setting_nothing_is_expected(changed: dict[str, Any], tmp_path: Path) -> None:
    assert bench(tmp_path / "o", **changed)[0]["expected"] == []


def test_another_network_is_another_setting() -> None:
    assert words.setting("cifar100-der-b0-10", {}, None, (), None, None, None).expected
    assert not words.setting("cifar100-der-b0-10", {}, "cifar:resnet32", (), None, None, None).expected


@pytest.mark.parametrize(
    ("name", "amount", "unit", "average", "last"),
    [
        ("cifar100-der-b0-10", 2000, "images", 75.36, 65.22),
        ("cifar100-der-b50-10", 20, "images a class", 72.81, 65.64),
        ("imagenet100-der-b0-10", 2000, "images", 77.18, 66.70),
    ],
)
def test_the_settings_of_der_are_those_of_its_authors(
    name: str, amount: int, unit: str, average: float, last: float
) -> None:
    setting = NAMED[name]
    cells = cells_of(["der", "wa"], setting, (0,), {}, {})
    method: Any = cells[0].method
    assert (method.exemplars, method.unit, method.masks, method.finish) == (amount, unit, False, "balanced")
    assert round(method.balancing * method.recipe.epochs) == 30
    assert method.temperature == (5.0 if name.startswith("cifar") else 1.0)
    other: Any = cells[-1].method
    assert (other.exemplars, other.unit, other.temperature) == (amount, unit, 2.0)
    (known,) = setting.expected
    assert (100 * known.average, 100 * known.last) == (pytest.approx(average), pytest.approx(last))
    if name.startswith("cifar"):
        assert setting.start.source == "cifar:resnet18"
        assert setting.orders == ("podnet-1", "podnet-2", "podnet-3")
        assert [round(170 * at) for at in method.recipe.milestones] == [110, 130]
