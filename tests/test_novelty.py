"""Scores for images of no known class."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from outside import done, furnish
from torch import Tensor

import classgraft
from classgraft.novelty import auroc, unknown


def test_generalised_entropy_by_hand() -> None:
    logits = torch.tensor([[0.75, 0.25], [0.5, 0.5], [1.0, 0.0]]).double().log()
    found = unknown(logits)
    # (3/16)^0.1 twice, over (1/4)^0.1 twice
    assert found.tolist() == pytest.approx([0.75**0.1, 1.0, 0.0])


def test_only_the_most_likely_classes_count() -> None:
    def slow(row: Tensor) -> float:
        p = sorted(row.double().softmax(0).tolist(), reverse=True)[:100]
        return sum((q * (1 - q)) ** 0.1 for q in p) / (100 * (0.01 * 0.99) ** 0.1)

    logits = torch.randn(5, 300, generator=torch.Generator().manual_seed(0)) * 4
    assert unknown(logits).tolist() == pytest.approx([slow(row) for row in logits])


@pytest.mark.parametrize("classes", [1, 2, 3, 100, 1000])
def test_it_is_between_0_and_1_and_the_same_for_shifted_logits(classes: int) -> None:
    generator = torch.Generator().manual_seed(classes)
    logits = torch.cat([torch.randn(20, classes, generator=generator) * 10**power for power in range(-3, 4)])
    found = unknown(logits)
    assert found.isfinite().all()
    assert (found >= 0).all()
    assert (found <= 1).all()
    assert torch.allclose(unknown(logits.double() + 7), found, atol=1e-3)
    if classes > 1:
        even, sure = unknown(torch.zeros(1, classes)), unknown(torch.eye(classes)[:1] * 1000)
        assert float(sure) < 1e-6 < float(even)


def test_the_area_is_the_share_of_pairs_in_order() -> None:
    generator = torch.Generator().manual_seed(0)
    low, high = (torch.randint(0, 9, (count,), generator=generator).double() for count in (31, 17))
    pairs = [(0.5 if a == b else float(b > a)) for a in low.tolist() for b in high.tolist()]
    assert auroc(low, high) == pytest.approx(sum(pairs) / len(pairs))
    assert auroc(torch.zeros(3), torch.ones(4)) == 1.0
    assert auroc(torch.ones(3), torch.zeros(4)) == 0.0
    assert auroc(low, high) + auroc(high, low) == pytest.approx(1)


def test_predict_tells_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(furnish(tmp_path))
    (found,) = json.loads(done("predict", "grown", "new/cyan/0.png", "--json", "--top", 9).out)
    assert list(found) == ["file", "classes", "unknown"]
    logits = torch.tensor(list(found["classes"].values())).double().log()
    assert found["unknown"] == pytest.approx(float(unknown(logits[None])), abs=1e-4)
    assert f"(unknown {found['unknown']:.2f})" in done("predict", "grown", "new/cyan/0.png").out
    assert classgraft.predict(classgraft.load("grown"), ["new/cyan/0.png"])[0].unknown == found["unknown"]
