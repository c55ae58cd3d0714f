"""Where every finished measurement goes: a small JSON with what it was obtained on."""

from __future__ import annotations

import datetime
import fcntl
import hashlib
import json
import os
import platform
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from torch import nn

RESULTS, RUNS = (Path(__file__).parent / part for part in ("results", "runs"))
Module = TypeVar("Module", bound="nn.Module")


def data() -> Path:
    """The folder of real data: CLASSGRAFT_DATA, else shared/data beside the checkout."""
    return Path(os.environ.get("CLASSGRAFT_DATA", Path(__file__).parents[2] / "shared" / "data"))


def machine() -> dict[str, Any]:
    """Processor, cores and threads."""
    import torch

    model = next(
        (
            re.sub(r"\((R|TM)\)| Processor$", "", line.split(":", 1)[1]).strip()
            for line in _lines("/proc/cpuinfo")
            if line.startswith("model name")
        ),
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


@contextmanager
def alone(name: str, wait: bool) -> Iterator[bool]:
    """Whether no other process is at this; the lock goes with its process."""
    path = RUNS / f"{name}.lock"
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            yield False
        else:
            yield True


def kept(name: str, blank: Module, learn: Callable[[], Module], *keys: object) -> Module:
    """A network that was learnt once: read into ``blank`` where it lies under ``runs``, else learnt and put there.

    ``keys`` are what it hangs on, such as its recipe; with others it is learnt anew.
    """
    from safetensors.torch import load_file, save_file

    place = f"{name}-{hashlib.sha256(repr(keys).encode()).hexdigest()[:12]}"
    path = RUNS / f"{place}.safetensors"
    with alone(place, wait=True):  # another process may be learning it
        if path.exists():
            blank.load_state_dict(load_file(path))
            return blank.eval()
        learnt = learn()
        whole = path.with_suffix(f".{os.getpid()}")
        save_file({key: value.cpu().contiguous() for key, value in learnt.state_dict().items()}, whole)
        whole.replace(path)
    return learnt


def there(name: str) -> dict[str, Any]:
    """What a file of results has by now, for another process may fill it too."""
    path = RESULTS / f"{name}.json"
    return json.loads(path.read_text("utf-8")) if path.exists() else {"rows": []}


def undone(table: str, same: Sequence[str], keys: Iterable[tuple[Any, ...]]) -> Iterator[tuple[Any, ...]]:
    """Cells that neither the table has nor another process is at, looked up anew before each."""
    for key in keys:
        with alone(f"{table}/{'-'.join(map(str, key))}", wait=False) as free:
            if free and key not in {tuple(row[k] for k in same) for row in there(table)["rows"]}:
                yield key


def write(name: str, what: str, **facts: Any) -> Path:
    """Write ``results/<name>.json``; numbers are rounded to what they can bear.

    ``rows`` may hold what the file has already, of another day and machine: each row says on which processor it was run.
    """
    from classgraft.history import versions

    path = RESULTS / f"{name}.json"
    if isinstance(facts.get("rows"), list):
        facts["rows"] = _with_processors(_rounded(facts["rows"]), path)
    content = {
        "what": what,
        "date": datetime.date.today().isoformat(),
        "machine": machine(),
        "versions": versions(),
        **facts,
    }
    path.parent.mkdir(exist_ok=True)
    text = json.dumps(_rounded(content), indent=1, ensure_ascii=False)
    whole = path.with_name(f".{path.name}.{os.getpid()}")  # a run that is killed here leaves the earlier file
    whole.write_text(re.sub(r"\[[-\d.,\se\[\]]+\]", _on_one_line, text) + "\n", "utf-8")
    whole.replace(path)
    return path


def add(
    name: str,
    what: str,
    rows: list[dict[str, Any]],
    order: Callable[[dict[str, Any]], Any] | None = None,
    same: Sequence[str] = (),
    **facts: Any,
) -> list[dict[str, Any]]:
    """Write the last of these rows beside those that the file has, where another process may have put more meanwhile.

    An earlier row with the same values under the keys ``same`` makes way. All rows are returned, sorted by ``order`` where
    it is given. Of the other facts, functions are asked with all rows; mappings and lists are added to those of the file.
    """
    RESULTS.mkdir(exist_ok=True)
    with (RESULTS / f".{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        before = there(name)
        every = [row for row in before["rows"] if not same or any(row[k] != rows[-1][k] for k in same)] + rows[-1:]
        if order is not None:
            every.sort(key=order)
        told = {key: fact(every) if callable(fact) else _joined(before.get(key), fact) for key, fact in facts.items()}
        write(name, what, **told, rows=every)
    return every


def _joined(before: Any, fact: Any) -> Any:
    if isinstance(fact, dict) and isinstance(before, dict):
        return {**before, **fact}
    if isinstance(fact, list) and isinstance(before, list):
        return [*before, *(line for line in _rounded(fact) if line not in before)]
    return fact


def _with_processors(rows: list[Any], path: Path) -> list[Any]:
    earlier = json.loads(path.read_text("utf-8")) if path.exists() else {"rows": []}
    here = machine()["cpu"]

    def one(row: dict[str, Any]) -> dict[str, Any]:
        return {"cpu": earlier["machine"]["cpu"] if row in earlier["rows"] else here, **row}

    return [one(row) if isinstance(row, dict) else row for row in rows]


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
