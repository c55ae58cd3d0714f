"""Folders with one folder of image files a class."""

from __future__ import annotations

import os
from pathlib import Path

from classgraft.data.decode import FORMATS
from classgraft.data.names import check_names, normal
from classgraft.data.photos import Photo, Source
from classgraft.errors import InputError

EXTENSIONS = frozenset(extension for extensions in FORMATS.values() for extension in extensions)
"""What marks a file as an image, in lower case."""

_LITTER = {"Thumbs.db", "desktop.ini", "__MACOSX"}
_SPLITS = {"train", "training", "test", "testing", "val", "valid", "validation"}


def opened(root: Path) -> Source:
    top = real(root)
    folders: dict[str, Path] = {}
    ignored = 0
    for entry in entries(root, top):
        name = normal(entry.name)
        if not os.path.isdir(entry):
            ignored += 1
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
        found, others = images(folders[name], top)
        if not found:
            raise InputError(f"class {name!r} is empty: {no_image(folders[name], others)}")
        photos += [photo(file.relative_to(root).as_posix(), file) for file in found]
        labels += [label] * len(found)
        ignored += others
    return Source(classes, tuple(photos), tuple(labels), ignored)


def images(folder: Path, root: Path) -> tuple[list[Path], int]:
    """The image files in a folder and those inside it, sorted, and the number of other files."""
    found: list[Path] = []
    ignored = 0
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
            elif os.path.isfile(entry) and Path(entry).suffix.lower() in EXTENSIONS:
                found.append(Path(entry))
            else:
                ignored += 1
    return sorted(found), ignored


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
    # A file name on Linux may hold bytes that are not UTF-8, and a name is printed and written to JSON.
    return Photo(name.encode("utf-8", "backslashreplace").decode(), file.read_bytes)


def no_image(folder: Path, others: int) -> str:
    passed = f" but {others} other files" if others else ""
    return f"'{folder}' holds no image{passed}; add some ({', '.join(sorted(EXTENSIONS))})."
