"""A folder is replaced wholly or not at all, whenever the process is killed and whatever fails."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from classgraft.errors import InputError
from classgraft.storage import check_beside, recover, replaced

FILES = ("config.json", "model.safetensors", "pages/report.html")


def write(folder: Path, version: str) -> None:
    """A folder whose every file tells its version."""
    for name in FILES:
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(f"{version} {name}", "utf-8")


def version(folder: Path) -> str:
    """Which version the folder wholly is, "absent" or "torn"."""
    if not folder.exists():
        return "absent"
    found = {
        path.relative_to(folder).as_posix(): path.read_text("utf-8") for path in folder.rglob("*") if path.is_file()
    }
    words = {text.split()[0] for text in found.values()}
    whole = len(words) == 1 and found == {name: f"{next(iter(words))} {name}" for name in FILES}
    return words.pop() if whole else "torn"


def put(folder: Path, new: str) -> None:
    with replaced(folder) as fresh:
        write(fresh, new)


def put_in_vain(folder: Path, error: BaseException) -> None:
    with replaced(folder) as fresh:
        write(fresh, "new")
        raise error


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder of the version "old", alone in its own."""
    path = tmp_path / "place" / "bundle"
    path.mkdir(parents=True)
    write(path, "old")
    return path


def test_success_replaces_the_folder_and_leaves_nothing_else(folder: Path) -> None:
    put(folder, "new")
    assert version(folder) == "new"
    assert os.listdir(folder.parent) == ["bundle"]
    assert folder.stat().st_mode & 0o755 == 0o755


def test_what_was_there_keeps_its_permissions_and_what_is_new_has_the_umasks(folder: Path) -> None:
    folder.chmod(0o700)
    (folder / "config.json").chmod(0o600)
    (folder / "model.safetensors").unlink()
    before = os.umask(0o027)
    try:
        with replaced(folder) as fresh:
            write(fresh, "new")
            for path in (fresh / "config.json", fresh / "model.safetensors"):
                path.chmod(0o600)  # as safetensors makes its files
        put(folder.with_name("other"), "new")
    finally:
        os.umask(before)
    found = [path.stat().st_mode & 0o777 for path in (folder, folder / "config.json", folder / "model.safetensors")]
    assert found == [0o700, 0o600, 0o640]
    assert folder.with_name("other").stat().st_mode & 0o777 == 0o750


def test_a_folder_that_was_not_there_is_made_with_its_parents(tmp_path: Path) -> None:
    put(tmp_path / "a" / "b" / "bundle", "new")
    assert version(tmp_path / "a" / "b" / "bundle") == "new"


def test_the_folder_is_the_old_one_until_all_is_written(folder: Path) -> None:
    with replaced(folder) as fresh:
        assert fresh.parent == folder.parent  # so that the last step is a rename
        assert not any(fresh.iterdir())
        write(fresh, "new")
        assert version(folder) == "old"
    assert version(folder) == "new"


def test_a_relative_path_is_taken_from_where_the_process_was(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder.parent)
    with replaced(Path("bundle")) as fresh:
        monkeypatch.chdir(tmp_path)
        write(fresh, "new")
    assert version(folder) == "new"


@pytest.mark.parametrize("names", ["my bundle", "bündel.v2", ".hidden"])
def test_any_name_works_twice(tmp_path: Path, names: str) -> None:
    for new in ("one", "two"):
        put(tmp_path / names, new)
    assert version(tmp_path / names) == "two"
    assert os.listdir(tmp_path) == [names]


def test_a_link_to_a_folder_stays_a_link_and_can_be_saved_to_again(folder: Path, tmp_path: Path) -> None:
    link = tmp_path / "link"
    link.symlink_to(folder)
    for new in ("one", "two"):
        put(link, new)
    assert link.is_symlink()
    assert version(folder) == "two"


@pytest.mark.parametrize(
    "error",
    [ValueError("x"), KeyboardInterrupt(), SystemExit(1), FileNotFoundError(2, "x")],
    ids=lambda e: type(e).__name__,
)
def test_an_error_inside_leaves_the_old_folder_and_nothing_else(folder: Path, error: BaseException) -> None:
    with pytest.raises(type(error)):
        put_in_vain(folder, error)
    assert version(folder) == "old"
    assert os.listdir(folder.parent) == ["bundle"]


def test_a_disk_that_fills_up_while_writing_leaves_the_old_folder_and_says_so(folder: Path) -> None:
    with pytest.raises(InputError, match="No space left on device") as error:
        put_in_vain(folder, OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)))
    assert str(folder) in str(error.value)
    assert version(folder) == "old"
    assert os.listdir(folder.parent) == ["bundle"]


def failing(call: Callable[..., Any], at: int) -> Callable[..., Any]:
    """The function, out of space at its call number ``at``."""
    count = 0

    def replacement(*args: Any, **options: Any) -> Any:
        nonlocal count
        count += 1
        if count == at + 1:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        return call(*args, **options)

    return replacement


FAILURES = [("mkdir", 1), ("chmod", 0), *(("fsync", k) for k in range(4)), ("rename", 0), ("rename", 1)]


@pytest.mark.parametrize(("operation", "at"), FAILURES)
def test_a_full_disk_at_any_operation_leaves_the_old_folder_and_says_so(
    folder: Path, operation: str, at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, operation, failing(getattr(os, operation), at))
    with pytest.raises(InputError, match="No space left on device"):
        put(folder, "new")
    monkeypatch.undo()
    assert version(folder) == "old"
    assert os.listdir(folder.parent) == ["bundle"]


def test_those_are_all_operations_but_the_last(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[str] = []

    def counting(name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        return lambda *args, **options: (calls.append(name), call(*args, **options))[1]

    for name in ("fsync", "rename"):
        monkeypatch.setattr(os, name, counting(name, getattr(os, name)))
    put(folder, "new")
    assert calls == ["fsync"] * 4 + ["rename"] * 2 + ["fsync"]  # three files, their folder; then the parent


def test_a_failure_after_the_new_folder_is_in_place_says_that_it_is(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", failing(os.fsync, 4))
    with pytest.raises(InputError, match="the new content is in its place, but may not outlast a power cut"):
        put(folder, "new")
    assert version(folder) == "new"


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match=r"Nothing can be written beside .*bundle"):
        put(tmp_path / "file" / "bundle", "new")


def test_a_place_that_cannot_be_written_is_found_without_writing_there(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    for path in (tmp_path / "file" / "bundle", tmp_path / "file" / "a" / "page.html", Path("/proc/bundle")):
        with pytest.raises(InputError, match=rf"'{path}' cannot be written"):
            check_beside(path)
    check_beside(tmp_path / "a" / "b" / "bundle")
    assert os.listdir(tmp_path) == ["file"]


DRIVER = """
import json, os, shutil, sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from test_storage import put, recover, version, write

EVENTS = {"open", "os.rename", "os.mkdir", "os.rmdir", "os.remove", "os.chmod", "os.scandir"}
state = {"left": -1}

def hook(event, args):
    if state["left"] >= 0 and event in EVENTS:
        if state["left"] == 0:
            os._exit(9)
        state["left"] -= 1

sys.addaudithook(hook)

def killed_at(step, work):
    '''Run it in a child that is killed before its operation number step; whether it was.'''
    child = os.fork()
    if child == 0:
        state["left"] = step
        try:
            work()
            os._exit(0)
        except BaseException as error:
            print(error, file=sys.stderr)
            os._exit(1)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, 9), code
    return code == 9

place = Path(sys.argv[2])
folder = place / "bundle"
found = []
for first in (False, True):
    step, killed = 0, True
    while killed:
        shutil.rmtree(place, ignore_errors=True)
        folder.mkdir(parents=True)
        write(folder, "old")
        if first:
            shutil.rmtree(folder)
        killed = killed_at(step, lambda: put(folder, "new"))
        recoveries, again = 0, True
        while again:  # the recovery is killed as well, at its first operation, then at its second ...
            again = killed_at(recoveries, lambda: recover(folder))
            recoveries += 1
        after = version(folder)
        put(folder, "newer")
        left = sorted(name for name in os.listdir(place) if name != "bundle" and ".new-" not in name)
        found.append([first, killed, recoveries, after, version(folder), left])
        step += 1
print(json.dumps(found))
"""


@pytest.fixture(scope="module")
def kills(tmp_path_factory: pytest.TempPathFactory) -> list[list[Any]]:
    """For a kill before each file operation: first save, killed, recoveries, what there is, and after another save."""
    arguments = [str(Path(__file__).parent), str(tmp_path_factory.mktemp("kills") / "place")]
    done = subprocess.run([sys.executable, "-c", DRIVER, *arguments], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_kill_at_any_operation_leaves_the_old_or_the_new_folder_whole(kills: list[list[Any]]) -> None:
    outcomes = [after for first, *_, after, _, _ in kills if not first]
    assert len(outcomes) > 20
    assert set(outcomes) == {"old", "new"}
    assert outcomes == sorted(outcomes, reverse=True)  # old up to some operation, new from there on


def test_a_kill_at_any_operation_of_a_first_save_leaves_all_or_nothing(kills: list[list[Any]]) -> None:
    outcomes = [after for first, *_, after, _, _ in kills if first]
    assert len(outcomes) > 15
    assert set(outcomes) == {"absent", "new"}


def test_some_kill_fell_between_the_two_renames(kills: list[list[Any]]) -> None:
    assert any(recoveries > 1 and after == "old" for _, _, recoveries, after, *_ in kills)


def test_after_a_kill_the_next_save_succeeds_and_clears_the_earlier_folder(kills: list[list[Any]]) -> None:
    assert {later for *_, later, _ in kills} == {"newer"}
    assert all(not left for *_, left in kills)


def test_the_next_save_clears_what_a_killed_one_had_begun(folder: Path) -> None:
    code = (
        "import os, sys; from test_storage import *\nwith replaced(Path(sys.argv[1])) as f: write(f, 'x'); os._exit(9)"
    )
    subprocess.run([sys.executable, "-c", code, str(folder)], cwd=Path(__file__).parent, check=False, timeout=60)
    assert len(os.listdir(folder.parent)) == 2
    put(folder, "new")
    assert os.listdir(folder.parent) == ["bundle"]


def test_a_save_leaves_what_another_one_is_writing(folder: Path) -> None:
    with replaced(folder) as fresh:
        put(folder, "newer")  # two at once: the first to end is replaced by the other
        assert fresh.exists()
        write(fresh, "newest")
    assert version(folder) == "newest"
    assert os.listdir(folder.parent) == ["bundle"]


def test_recover_leaves_a_whole_folder_and_removes_what_was_moved_aside(folder: Path) -> None:
    recover(folder)
    assert version(folder) == "old"
    shutil.copytree(folder, folder.with_name(".bundle.old"))
    put(folder, "new")
    recover(folder)
    assert version(folder) == "new"
    assert os.listdir(folder.parent) == ["bundle"]


def test_a_folder_that_is_swept_away_before_it_is_locked_is_made_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Path] = []
    make = tempfile.mkdtemp

    def swept(*words: Any, **options: Any) -> str:
        made.append(Path(make(*words, **options)))
        if len(made) == 1:
            made[0].rmdir()  # as another process that sweeps here does
        return str(made[-1])

    monkeypatch.setattr("classgraft.storage.tempfile.mkdtemp", swept)
    with replaced(tmp_path / "x") as fresh:
        (fresh / "a").write_text("whole", "utf-8")
    assert (tmp_path / "x" / "a").read_text("utf-8") == "whole"
    assert len(made) == 2
