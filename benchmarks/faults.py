"""Faults injected while a bundle or a journal is saved: what is there afterwards is the old content or the new, whole.

    python benchmarks/faults.py [--kills 200] [--seconds 30]

The process is killed before each file operation of a save, and from outside at random; each file operation fails once
with each of five errors; writes stop at every length that a file may reach (RLIMIT_FSIZE, a real failure of ``write``);
and two processes save for a while what a third one reads. After each fault the content is loaded and compared with both,
an error must be an InputError that says truly which of them is there, and the next save must succeed.
"""

from __future__ import annotations

import argparse
import errno
import os
import random
import resource
import shutil
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import torch
from record import write

import classgraft
from classgraft.errors import InputError
from classgraft.training import sealed

sys.path.insert(0, str(Path(__file__).parents[1] / "tests"))
from outside import Tiny
from test_bundle import extended, same, tiny

EVENTS = {"open", "os.rename", "os.mkdir", "os.rmdir", "os.remove", "os.chmod", "os.scandir", "os.listdir"}
ERRORS = (errno.ENOSPC, errno.EIO, errno.EDQUOT, errno.EROFS, errno.EACCES)
KILLED, SAID, RAISED, IN_PLACE, UNMET = 9, 10, 11, 12, 13


@dataclass
class Trap:
    """What happens at a file operation, counted from here; an audit hook cannot be taken out again, so it stays."""

    left: int = -1
    error: int | None = None

    def __call__(self, event: str, _: tuple[Any, ...]) -> None:
        if self.left < 0 or event not in EVENTS:
            return
        self.left -= 1
        if self.left < 0:
            if self.error is None:
                os._exit(KILLED)
            raise OSError(self.error, os.strerror(self.error))


TRAP = Trap()


@dataclass(frozen=True)
class Kept:
    """Something that is saved over an earlier one."""

    old: Callable[[], None]
    new: Callable[[], None]
    which: Callable[[], str]
    """"old", "new" or what else there is."""
    place: Path
    kept: Path
    """The place as it is with the old content."""
    refused: frozenset[str] = frozenset({"old"})
    """What may be there after an error; either content of a journal is one to go on from."""

    def reset(self) -> None:
        shutil.rmtree(self.place, ignore_errors=True)
        shutil.copytree(self.kept, self.place)


def bundles(folder: Path) -> Kept:
    place = folder / "place"
    old = extended(tiny(), "a")
    new = classgraft.remove(extended(old, "b", "c"), "c0")

    def which() -> str:
        found = classgraft.load(place / "bundle", Tiny())
        return "old" if same(found, old) else "new" if same(found, new) else "other"

    put_old, put_new = (partial(classgraft.save, content, place / "bundle") for content in (old, new))
    return _kept(put_old, put_new, which, place)


def journals(folder: Path) -> Kept:
    place = folder / "journals"
    contents = {name: {"weights": torch.full((500,), float(k)), "at": k} for k, name in enumerate(("old", "new"))}
    path = place / "run-000.journal"

    def which() -> str:
        found = sealed.read(path)
        if found is None:  # as the journal does: the one before
            found = sealed.read(sealed.previous(path))
        return {0: "old", 1: "new"}[found["at"]] if found else "nothing"

    def put(name: str) -> Callable[[], None]:
        return lambda: sealed.write(path, contents[name])

    return replace(_kept(put("old"), put("new"), which, place), refused=frozenset({"old", "new"}))


def _kept(old: Callable[[], None], new: Callable[[], None], which: Callable[[], str], place: Path) -> Kept:
    place.mkdir(parents=True)
    for _ in range(2):  # the first time modules are imported
        new()
        old()
    assert which() == "old"
    shutil.copytree(place, kept := place.with_name(f"{place.name}-kept"))
    return Kept(old, new, which, place, kept)


def child(work: Callable[[], None], arm: Callable[[], None]) -> int:
    """The exit code of a process that arms itself and works."""
    pid = os.fork()
    if pid == 0:
        code = RAISED
        try:
            arm()
            work()
            code = 0 if TRAP.left < 0 else UNMET
        except InputError as error:
            code = IN_PLACE if "the new content is in its place" in str(error) else SAID
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def verdict(kept: Kept, code: int) -> str:
    """ "" where all is as it should be after a fault."""
    try:
        there = kept.which()
    except Exception as error:
        return f"cannot be read: {error}"
    allowed = {
        0: {"new"},
        KILLED: {"old", "new"},
        -signal.SIGKILL: {"old", "new"},
        SAID: kept.refused,
        IN_PLACE: {"new"},
    }
    if there not in allowed.get(code, set()):
        return f"{there} after code {code}"
    kept.new()
    return "" if kept.which() == "new" else "the next save failed"


def at_each_operation(kept: Kept, error: int | None) -> list[str]:
    """A fault at the first file operation of a save, at the second, and so on until one meets none."""
    found: list[str] = []
    step, met = 0, True
    while met:
        kept.reset()

        def arm(step: int = step) -> None:
            TRAP.error, TRAP.left = error, step

        code = child(kept.new, arm)
        met = code != UNMET
        if met:
            found.append(verdict(kept, code))
        step += 1
    return found


def at_each_length(kept: Kept) -> list[str]:
    """Writes that stop at some length of the file."""
    largest = max(path.stat().st_size for path in kept.kept.rglob("*") if path.is_file())
    found = []
    for limit in sorted({int(largest * part / 60) for part in range(60)}):
        kept.reset()

        def arm(limit: int = limit) -> None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

        found.append(verdict(kept, child(kept.new, arm)))
    return found


def at_random(kept: Kept, count: int) -> list[str]:
    """SIGKILL from outside."""
    draw, found = random.Random(0), []
    for _ in range(count):
        kept.reset()
        pid = os.fork()
        if pid == 0:
            while True:
                kept.old()
                kept.new()
        time.sleep(draw.uniform(0.001, 0.1))
        os.kill(pid, signal.SIGKILL)
        found.append(verdict(kept, os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])))
    return found


def together(kept: Kept, seconds: float) -> list[str]:
    """What a reader finds while two processes save."""
    kept.reset()
    writers = []
    for _ in range(2):
        pid = os.fork()
        if pid == 0:
            end = time.monotonic() + seconds
            while time.monotonic() < end:
                kept.old()
                kept.new()
            os._exit(0)
        writers.append(pid)
    found, end = [], time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            there = kept.which()
        except Exception as error:
            there = str(error)
        found.append("" if there in ("old", "new") else there)
    found += [f"a writer ended with {code}" for pid in writers if (code := os.waitpid(pid, 0)[1])]
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seconds", type=float, default=30)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    sys.addaudithook(TRAP)
    rows: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for what, kept in {"bundle": bundles(Path(folder)), "journal": journals(Path(folder))}.items():
            kinds: dict[str, Callable[..., list[str]]] = {
                "killed before a file operation": lambda kept=kept: at_each_operation(kept, None),
                "killed from outside at random": lambda kept=kept: at_random(kept, chosen.kills),
                **{
                    f"a file operation fails: {os.strerror(code)}": lambda kept=kept, code=code: at_each_operation(
                        kept, code
                    )
                    for code in ERRORS
                },
                "a file cannot grow further": lambda kept=kept: at_each_length(kept),
            }
            if what == "bundle":
                kinds["read while two processes save"] = lambda kept=kept: together(kept, chosen.seconds)
            for kind, inject in kinds.items():
                found = inject()
                failures = Counter(filter(None, found))
                print(f"{what}, {kind}: {len(found)}, failures {dict(failures)}", flush=True)
                rows.append({"what": what, "fault": kind, "injected": len(found), "failures": failures.total()})
    write("faults", "faults injected while a bundle or a journal is saved", rows=rows)


if __name__ == "__main__":
    main()
