"""The report page of a benchmark: its lines, put into the page's own terms."""

from __future__ import annotations

import datetime
import itertools
from collections.abc import Mapping, Sequence
from typing import Any

from classgraft.evaluator.expected import told
from classgraft.metrics.intervals import paired, student_interval
from classgraft.report.streams import Compared, Learner, Line, Measure, Streams, render

Row = Mapping[str, Any]
"""One run of one method, as ``results.json`` has it."""

COLUMNS = {
    "average": "average",
    "last": "last",
    "old": "old",
    "new": "new",
    "harmonic mean": "harmonic",
    "forgetting": "forgetting",
    "own task": "task_last",
    "miscalibrated": "ece",
}


def page(results: Mapping[str, Any], command: str) -> str:
    """HTML of what ``results.json`` holds."""
    learners = {name: rows for name, rows in results["methods"].items() if rows}
    first, *others = learners
    row = learners[first][0]
    classes = row["classes"]
    coming = row["forward"] is None or len(classes) == 1
    at = list(itertools.accumulate(classes)) if coming else list(range(1, len(classes) + 1))
    runs = {(found["seed"], found["order"]) for rows in learners.values() for found in rows}
    many = len(runs) > 1
    begun = ", ".join(results.get("begun", ()))
    spread = " ± and bands: 95 % interval of the mean by Student's t." if many else ""
    return render(
        Streams(
            title=f"{len(learners)} {'method' if len(learners) == 1 else 'methods'} on a stream of {len(classes)} steps",
            what=f"{results['network']}, {results['size']} pixels; {_steps(classes, coming)}",
            date=datetime.date.today().isoformat(),
            versions=tuple(f"{name} {version}" for name, version in results["versions"].items()),
            at=tuple(map(float, at)),
            axis="classes seen" if coming else "steps seen",
            learners=tuple(_learner(name, rows, results["settings"][name]) for name, rows in learners.items()),
            compared=tuple(found for name in others if (found := _compared(name, learners[name], learners[first]))),
            first=first,
            runs=f"{len(runs)} {'runs' if many else 'run'} (seeds and class orders).{spread}",
            facts=(
                ("protocol", results["protocol"]),
                ("recipe", ", ".join(f"{key} {value}" for key, value in results["recipe"].items())),
                ("exemplars", _exemplars(results)),
                *([("trained body", f"by fine-tuning on the first step: {begun}")] if begun else []),
                ("seeds", ", ".join(sorted({str(seed) for seed, _ in runs}))),
                ("class orders", ", ".join(sorted({str(order) for _, order in runs}))),
                *(("published", told(check)) for check in results.get("expected", ())),
            ),
            command=command,
        )
    )


def _exemplars(results: Mapping[str, Any]) -> str:
    count = results["exemplars"]
    return "as each method has it" if count is None else f"{count:,} {results.get('unit', 'images')}"


def _steps(classes: Sequence[int], coming: bool) -> str:
    if not coming:
        return f"the same {classes[0]} classes in {len(classes)} domains."
    rest = sorted(set(classes[1:]))
    later = f", then {' or '.join(map(str, rest))} at a time" if rest else ""
    return f"{sum(classes)} classes: {classes[0]} first{later}."


def _learner(name: str, rows: Sequence[Row], settings: str) -> Learner:
    seen = [_measure(values) for values in zip(*(row["seen"] for row in rows), strict=True)]
    halves = tuple(found.half_width for found in seen) if len(rows) > 1 else ()
    return Learner(
        line=Line(name, tuple(found.mean for found in seen), halves),
        accuracies={
            words: None if any(row[key] is None for row in rows) else _measure([row[key] for row in rows])
            for words, key in COLUMNS.items()
        },
        matrix=tuple(
            tuple(None if None in values else _measure(values).mean for values in zip(*lines, strict=True))
            for lines in zip(*(row["matrix"] for row in rows), strict=True)
        ),
        kept_bytes=_measure([row["bytes"] for row in rows]).mean,
        model_bytes=_measure([row["model_bytes"] for row in rows]).mean,
        parameters=_measure([row["parameters"] for row in rows]).mean,
        seconds=_measure([row["seconds"] for row in rows]),
        settings=settings,
    )


def _measure(values: Sequence[float]) -> Measure:
    return Measure(*student_interval(values))


def _compared(name: str, rows: Sequence[Row], others: Sequence[Row]) -> Compared | None:
    """On the seeds and orders that both have; None where there is none."""
    theirs = {(row["seed"], row["order"]): row for row in others}
    both = [(row, theirs[key]) for row in rows if (key := (row["seed"], row["order"])) in theirs]
    if not both:
        return None
    average, last = (paired([a[key] for a, _ in both], [b[key] for _, b in both]) for key in ("average", "last"))
    return Compared(
        name,
        Measure(average.difference, average.half_width),
        Measure(last.difference, last.half_width),
        last.probability,
    )
