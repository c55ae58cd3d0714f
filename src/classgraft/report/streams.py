"""One self-contained HTML page about a benchmark: how accuracy went as classes came, what was forgotten, what it cost."""

from __future__ import annotations

from dataclasses import dataclass

from classgraft.report import stream_plots
from classgraft.report.page import ENVIRONMENT, without_controls
from classgraft.report.stream_plots import Line

__all__ = ["Compared", "Learner", "Line", "Measure", "Streams", "render"]


@dataclass(frozen=True)
class Measure:
    """A mean over runs and the half width of its interval; fractions, seconds or bytes. nan: a single run."""

    mean: float
    half_width: float


@dataclass(frozen=True)
class Learner:
    """A method."""

    line: Line
    accuracies: dict[str, Measure | None]
    """By the page's words: average, last, forgetting and so on; None where there is no such thing."""
    matrix: tuple[tuple[float | None, ...], ...]
    """Mean over runs: after step t on the images of step j."""
    kept_bytes: float
    """Of its memory after the last step."""
    model_bytes: float
    parameters: float
    seconds: Measure
    settings: str
    """The method with its fields."""

    @property
    def name(self) -> str:
        return self.line.name


@dataclass(frozen=True)
class Compared:
    """A method less the one that is named first, run by run."""

    name: str
    average: Measure
    last: Measure
    probability: float
    """Of a last accuracy as different as this by chance."""


@dataclass(frozen=True)
class Streams:
    """All that the page shows."""

    title: str
    what: str
    """Protocol and network, a sentence."""
    date: str
    versions: tuple[str, ...]
    at: tuple[float, ...]
    """Where the steps lie on the axis."""
    axis: str
    learners: tuple[Learner, ...]
    compared: tuple[Compared, ...]
    first: str
    """The method that the others are compared with."""
    runs: str
    """How many seeds and orders, a sentence."""
    facts: tuple[tuple[str, str], ...]
    command: str = ""


def render(streams: Streams) -> str:
    """The page as text, to be written as UTF-8."""
    template = ENVIRONMENT.get_template("streams.html.jinja")
    columns = list(streams.learners[0].accuracies)
    least = max(learner.kept_bytes + learner.model_bytes for learner in streams.learners) or 1.0
    slowest = max(learner.seconds.mean for learner in streams.learners) or 1.0
    return without_controls(
        template.render(page=streams, columns=columns, most=least, slowest=slowest, stream_plots=stream_plots)
    )
