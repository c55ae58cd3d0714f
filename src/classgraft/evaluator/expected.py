"""What a paper's own setting is known to give, and whether it did."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Any


@dataclass(frozen=True)
class Expected:
    """A published result of a method on a setting; accuracies as fractions, means over the setting's orders."""

    method: str
    """By its name in the catalogue, with the fields that the setting gives it."""
    average: float
    """Mean over the steps, the first included, of the accuracy on all classes seen so far."""
    last: float
    within: float
    """How far a result may lie from either and still count as the same."""
    source: str
    """Where the numbers were published."""

    def check(self, lines: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        """Beside what was found: ``average``, ``last`` and whether they are ``met``.

        Args:
            lines: the method's results, one or more.
        """
        average, last = (fmean(line[key] for line in lines) for key in ("average", "last"))
        met = abs(average - self.average) <= self.within and abs(last - self.last) <= self.within
        expected = {"average": self.average, "last": self.last, "within": self.within, "source": self.source}
        return {"method": self.method, "average": average, "last": last, "met": met, "expected": expected}


def told(check: Mapping[str, Any]) -> str:
    """In a sentence."""
    expected = check["expected"]
    found, wanted = (
        f"average {100 * numbers['average']:.1f} %, last {100 * numbers['last']:.1f} %" for numbers in (check, expected)
    )
    verdict = "as expected" if check["met"] else "not what was expected"
    return (
        f"{check['method']}: {found}; {verdict} ({wanted}, to {100 * expected['within']:.1f} points;"
        f" {expected['source']})."
    )
