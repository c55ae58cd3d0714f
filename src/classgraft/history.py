"""What is written down of each step of a model's life."""

from __future__ import annotations

import dataclasses
import datetime
import platform
from typing import Any

import torch


def versions() -> dict[str, str]:
    """Of what a result depends on."""
    import timm
    import torchvision

    from classgraft import __version__

    return {
        "classgraft": __version__,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "timm": timm.__version__,
    }


def event_of(kind: str, sentence: str, **facts: Any) -> dict[str, Any]:
    """A step: its kind, a sentence that people read, and facts as JSON."""
    now = datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M")
    return {"event": kind, "date": now, "sentence": sentence, **facts, "versions": versions()}


def settings_of(method: object) -> dict[str, Any]:
    """Every field of a method, as JSON."""
    return {f.name: _plain(getattr(method, f.name)) for f in dataclasses.fields(method)}  # type: ignore[arg-type]


def _plain(value: Any) -> Any:
    return dataclasses.asdict(value) if dataclasses.is_dataclass(value) and not isinstance(value, type) else value
