"""Where every finished measurement goes: a small JSON with what it was obtained on."""

from __future__ import annotations

import datetime
import json
import os
import platform
import re
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"


def data() -> Path:
    """The folder of real data: CLASSGRAFT_DATA, else shared/data beside the checkout."""
    return Path(os.environ.get("CLASSGRAFT_DATA", Path(__file__).parents[2] / "shared" / "data"))


def machine() -> dict[str, Any]:
    """Processor, cores and threads."""
    import torch

    model = next(
        (line.split(":", 1)[1].strip() for line in _lines("/proc/cpuinfo") if line.startswith("model name")),
        platform.processor(),
    )
    found: dict[str, Any] = {"cpu": model, "cores": os.cpu_count(), "threads": torch.get_num_threads()}
    if torch.cuda.is_available():
        found["gpu"] = torch.cuda.get_device_name()
    return found


def _lines(path: str) -> list[str]:
    try:
        return Path(path).read_text().splitlines()
    except OSError:
        return []


def write(name: str, what: str, **facts: Any) -> Path:
    """Write ``results/<name>.json``; numbers are rounded to what they can bear."""
    from classgraft.history import versions

    content = {
        "what": what,
        "date": datetime.date.today().isoformat(),
        "machine": machine(),
        "versions": versions(),
        **facts,
    }
    path = RESULTS / f"{name}.json"
    path.parent.mkdir(exist_ok=True)
    text = json.dumps(_rounded(content), indent=1, ensure_ascii=False)
    path.write_text(re.sub(r"\[[-\d.,\se\[\]]+\]", _on_one_line, text) + "\n", "utf-8")
    return path


def _on_one_line(numbers: re.Match[str]) -> str:
    return re.sub(r"\s+", "", numbers[0])


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.5g}")
    if isinstance(value, dict):
        return {key: _rounded(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [_rounded(v) for v in value]
    return value
