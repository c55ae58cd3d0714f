"""Folders with one folder of image files a class."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path

from classgraft.data.decode import FORMATS
from classgraft.data.names import check_names, normal
from classgraft.data.photos import Photo, Source
from classgraft.errors import InputError

EXTENSIONS = frozenset(extension for extensions in FORMATS.values() for extension in extensions)
"""What marks a file as an image, in lower case."""

_START = re.compile(rb"\xff\xd8\xff|\x89PNG\r\n|GIF8|RIFF.{4}WEBP", re.DOTALL)
"""What marks a file without an extension as one."""

_LIKE_PICTURES = {
    *(".heic", ".heif", ".jxl", ".svg", ".psd", ".pdf", ".eps", ".tga", ".ico"),
    *(".raw", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".raf", ".rw2", ".pef", ".srw"),
    *(".mp4", ".m4v", ".mov", ".avi", ".mkv", ".webm", ".wmv", ".mpg", ".mpeg", ".3gp"),
}
"""What marks a file as a picture or film of a kind that is not read, in lower case."""

_LITTER = {"Thumbs.db", "desktop.ini", "__MACOSX"}
_SPLITS = {"train", "training", "test", "testing", "val", "valid", "validation"}


def opened(root: Path) -> Source:
    top = real(root)
    folders: dict[str, Path] = {}
    others: list[Path] = []
    for entry in entries(root, top):
        name = normal(entry.name)
        if not os.path.isdir(entry):
            others.append(Path(entry))
        elif name in folders:
            twice = f"{folders[name].name!a} and {entry.name!a}"
            raise InputError(f"'{root}' has two folders for class {name!r}, {twice}; rename or merge them.")
        else:
            folders[name] = Path(entry)
    if not folders:
        raise InputError(f"'{root}' holds no class; put the images of each class in a folder named after it.")
    if len(folders) > 1 and {name.casefold() for name in folders} <= _SPLITS:
        raise InputError(f"'{root}' holds splits ({', '.join(sorted(folders))}), not classes; name one of them.")
    classes = check_names(sorted(folders), f"the folders in '{root}'")
    photos: list[Photo] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        found, left = images(folders[name], top)
        if not found:
            raise InputError(f"class {name!r} is empty: {no_image(folders[name], left)}")
        if len(classes) == 1:
            _check_depth(root, folders[name], found)
        photos += [photo(file.relative_to(root).as_posix(), file) for file in found]
        labels += [label] * len(found)
        others += left
    return Source(classes, tuple(photos), tuple(labels), unread(others, root))


def _check_depth(root: Path, folder: Path, found: Sequence[Path]) -> None:
    """Refuse a lone folder of folders of images: these are the classes, and a level too deep."""
    parts = [file.relative_to(folder).parts for file in found]
    inside = sorted({first for first, *_ in parts})
    if all(len(part) > 1 for part in parts) and (len(inside) > 1 or folder.name.casefold() in _SPLITS):
        shown = ", ".join(inside[:3]) + (", ..." if len(inside) > 3 else "")
        raise InputError(
            f"'{root}' has one folder, '{folder.name}', with folders of its own ({shown}): give '{folder}' if those are the"
            f" classes, or put the images of one class straight into '{folder.name}'."
        )


def images(folder: Path, root: Path) -> tuple[list[Path], list[Path]]:
    """The image files in a folder and those inside it, sorted, and the other files."""
    found: list[Path] = []
    others: list[Path] = []
    seen: set[Path] = set()  # links may lead in circles
    todo = [folder]
    while todo:
        here = todo.pop()
        if real(here) in seen:
            continue
        seen.add(real(here))
        for entry in entries(here, root):
            if os.path.isdir(entry):
                todo.append(Path(entry))
            elif _is_image(Path(entry)):
                found.append(Path(entry))
            else:
                others.append(Path(entry))
    return sorted(found), others


def _is_image(file: Path) -> bool:
    if not os.path.isfile(file):
        return False
    if file.suffix:
        return file.suffix.lower() in EXTENSIONS
    try:
        with file.open("rb") as opened:
            start = opened.read(12)
    except OSError:
        return False
    return _START.match(start) is not None


def unread(others: Sequence[Path], root: Path) -> tuple[str, ...]:
    """Those of the other files in a folder that a person may take for pictures, by their paths in it, sorted: such as are
    not read, and images beside the folders of the classes."""
    like = sorted(file for file in others if file.suffix.lower() in _LIKE_PICTURES or _is_image(file))
    return tuple(printable(file.relative_to(root).as_posix()) for file in like)


def entries(folder: Path, root: Path) -> list[os.DirEntry[str]]:
    """What a folder holds but for hidden files and litter; refuses links that lead out of `root`."""
    try:
        listed = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        raise InputError(f"'{folder}' cannot be listed: {error.strerror}; check its permissions.") from error
    entries = [entry for entry in listed if not entry.name.startswith(".") and entry.name not in _LITTER]
    for entry in entries:
        if entry.is_symlink() and not real(entry).is_relative_to(root):
            raise InputError(f"'{entry.path}' is a link that leads out of '{root}'; put the files themselves there.")
    return entries


def real(path: os.PathLike[str]) -> Path:
    return Path(os.path.realpath(path))  # unlike Path.resolve it survives a link to itself


def photo(name: str, file: Path) -> Photo:
    return Photo(printable(name), file.read_bytes)


def printable(name: str) -> str:
    # A file name on Linux may hold bytes that are not UTF-8, and a name is printed and written to JSON.
    return name.encode("utf-8", "backslashreplace").decode()


def no_image(folder: Path, others: Sequence[Path]) -> str:
    passed = f" but {len(others)} other files" if others else ""
    return f"'{folder}' holds no image{passed}; add some ({', '.join(sorted(EXTENSIONS))})."
