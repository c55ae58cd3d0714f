"""Files that are either wholly there or not there at all: atomic writes, and values as safetensors."""

from __future__ import annotations

import contextlib
import fcntl
import glob
import hashlib
import os
import shutil
import stat
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from safetensors import SafetensorError

from classgraft.errors import InputError

PATIENCE = 20.0
"""Seconds to wait for another process that reads or replaces a folder."""


@contextlib.contextmanager
def replaced(folder: Path, check: Callable[[], None] = lambda: None) -> Iterator[Path]:
    """Yield an empty folder beside ``folder``; on success it takes its place, on any error nothing has changed.

    The earlier folder is moved aside before the new one moves in and deleted after; ``recover`` puts it back should the
    machine stop between those two moves. What was there keeps its permissions, and what is new has those that the umask
    leaves.

    Args:
        folder: absent, or what is to be replaced.
        check: called at the last moment, while nobody else can replace the folder; whatever it raises stops the move.

    Raises:
        InputError: when nothing can be written there.
    """
    folder = _real(folder)
    recover(folder)
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        _sweep(folder)
        fresh, lock = _fresh(folder)
    except OSError as error:
        raise InputError(f"Nothing can be written beside {folder} ({error.strerror}); choose another place.") from error
    state = "the earlier content is untouched"
    try:
        usual = _usual(fresh)
        yield fresh
        files = [path for path in fresh.rglob("*") if path.is_file() and not path.is_symlink()]
        with held(folder, shared=True):
            # temporary folders, and what safetensors writes, only their owner can read
            fresh.chmod(_mode(folder, usual))
            for path in files:
                path.chmod(_mode(folder / path.relative_to(fresh), usual & 0o666))
        for path in files:
            flush(path)
        flush(fresh)
        aside = _aside(folder)
        with held(folder):
            check()
            if folder.exists():
                folder.rename(aside)
            fresh.rename(folder)
            state = "the new content is in its place, but may not outlast a power cut; save it again"
            flush(folder.parent)
            shutil.rmtree(aside, ignore_errors=True)
    except OSError as error:
        if isinstance(error, FileNotFoundError) or error.errno is None:
            raise
        raise InputError(f"{folder} could not be written ({error.strerror}); {state}.") from error
    except SafetensorError as error:  # what it says of a full disk
        raise InputError(f"{folder} could not be written ({error}); {state}.") from error
    finally:
        recover(folder)
        shutil.rmtree(fresh, ignore_errors=True)
        os.close(lock)


def _fresh(folder: Path) -> tuple[Path, int]:
    """An empty folder beside this one, locked while its process lives."""
    while True:
        fresh = Path(tempfile.mkdtemp(prefix=f".{folder.name}.new-", dir=folder.parent))
        try:
            lock = os.open(fresh, os.O_RDONLY)
        except FileNotFoundError:  # another process has swept it away before it was locked
            continue
        with contextlib.suppress(OSError):  # not every file system knows locks
            fcntl.flock(lock, fcntl.LOCK_EX)
        if fresh.exists():  # nor in between
            return fresh, lock
        os.close(lock)


def _usual(fresh: Path) -> int:
    """Permissions of a new folder in this one; asking the umask itself would change it for other threads."""
    inside = fresh / "inside"
    inside.mkdir()
    mode = _mode(inside, 0)
    inside.rmdir()
    return mode


def _mode(path: Path, usual: int) -> int:
    """Permissions of what is there; else the usual ones."""
    return stat.S_IMODE(path.stat().st_mode) if os.path.exists(path) else usual


def check_beside(path: Path) -> None:
    """Refuse a file or folder that could not be put in its place, before the work is done.

    Raises:
        InputError: nothing can be written in the folder around it, there or yet to be made.
    """
    real = _real(path)
    around = next(folder for folder in real.parents if os.path.lexists(folder))
    try:  # for root is told that it may write anywhere
        probe, lock = _fresh(around / real.name)
        probe.rmdir()
        os.close(lock)
    except OSError as error:
        raise InputError(f"'{path}' cannot be written ({error.strerror}); choose another place.") from error


def _sweep(folder: Path) -> None:
    """Delete what killed processes left beside this folder: what nobody holds the lock of."""
    for left in folder.parent.glob(f".{glob.escape(folder.name)}.new-*"):
        with contextlib.suppress(OSError):
            lock = os.open(left, os.O_RDONLY | os.O_NOFOLLOW | os.O_DIRECTORY)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(left, ignore_errors=True)
            finally:
                os.close(lock)


def recover(folder: Path) -> None:
    """Undo a replacement that was cut off between its two renames."""
    folder = _real(folder)
    aside = _aside(folder)
    if not os.path.exists(aside):
        return
    with held(folder):  # what is being replaced at this moment was not cut off
        if not os.path.exists(aside):
            return
        if folder.exists():
            shutil.rmtree(aside, ignore_errors=True)
        else:
            aside.rename(folder)


@contextlib.contextmanager
def held(folder: Path, *, shared: bool = False) -> Iterator[None]:
    """Inside, nobody replaces this folder; with ``shared`` others may be inside as well, who do not replace it either.

    The lock is the parent folder's, so that nothing is left behind. Where the file system knows no locks, or somebody
    holds one for longer than any replacement takes, it goes on without.
    """
    try:
        lock = os.open(_real(folder).parent, os.O_RDONLY | os.O_DIRECTORY)
    except OSError:
        yield
        return
    try:
        end = time.monotonic() + PATIENCE
        while not _locked(lock, fcntl.LOCK_SH if shared else fcntl.LOCK_EX) and time.monotonic() < end:
            time.sleep(0.01)
        yield
    finally:
        os.close(lock)


def _locked(lock: int, kind: int) -> bool:
    try:
        fcntl.flock(lock, kind | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:  # no locks here: there is nothing to wait for
        return True
    return True


def _real(folder: Path) -> Path:
    """Where the folder is: a link to it stays a link."""
    if "\0" in str(folder):  # no place is called so
        raise InputError(f"{str(folder)!r} cannot be written; name a folder without a null in it.")
    real = Path(os.path.realpath(folder))
    if not real.name:
        raise InputError(f"'{folder}' cannot be written; name a folder inside it.")
    return real


def _aside(folder: Path) -> Path:
    return folder.with_name(f".{folder.name}.old")


def flush(path: Path) -> None:
    """Make sure that a file or folder has reached the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sha256(path: Path) -> str:
    """Checksum of a file, in hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_text(path: Path) -> None:
    """Refuse a file that ``write_text`` would refuse, before the work is done."""
    if os.path.isdir(path):
        raise InputError(f"'{path}' cannot be written (it is a folder); name a file in it.")
    check_beside(path)


def write_text(text: str, path: Path) -> None:
    """Put a file in its place, whole or not at all."""
    fresh = path.with_name(f".{path.name}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh.write_text(text, "utf-8")
        fresh.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            fresh.unlink()
        raise InputError(f"'{path}' cannot be written ({error.strerror}); choose another place with --out.") from error
