"""Class names: what counts as the same name, which are refused, and how two lists of them meet."""

from __future__ import annotations

import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from classgraft.errors import InputError

_UNPRINTABLE = {"Cc", "Cs", "Zl", "Zp"}
"""Unicode categories that no name may hold: controls, halves of characters (bytes that were not UTF-8), line breaks."""


def normal(name: str) -> str:
    """The name in Unicode NFC without surrounding white space: two names are the same if this is."""
    return unicodedata.normalize("NFC", name).strip()


def check_names(names: Sequence[str], where: str = "the class names", unit: str = "position") -> tuple[str, ...]:
    """The names as `normal` has them, in order.

    `where` and `unit` (counted from one) are words for the error: where the list stands and what one step in it is.

    Raises:
        InputError: a name is empty, occurs twice, or holds a control character or a line break.
    """
    first: dict[str, int] = {}
    for place, name in enumerate(map(normal, names), 1):
        if not name:
            raise InputError(f"{where}: the name at {unit} {place} is empty; write one or take the entry out.")
        if any(unicodedata.category(character) in _UNPRINTABLE for character in name):
            raise InputError(f"{where}: {name!r} at {unit} {place} holds an unprintable character; take it out.")
        if first.setdefault(name, place) != place:
            raise InputError(f"{where}: {name!r} stands at {unit} {first[name]} and {place}; each name must be unique.")
    return tuple(first)


def read_names(path: str | Path) -> tuple[str, ...]:
    """The class names in a UTF-8 text file, one a line; a byte order mark, CRLF and blank lines at the end are fine.

    Raises:
        InputError: the file cannot be read, is not UTF-8, is empty, or holds a name that `check_names` refuses.
    """
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}; give a text file with one name a line.") from error
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise InputError(f"{path}: line {line} is not UTF-8; save the file in that encoding.") from error
    text = text.rstrip()
    if not text:
        raise InputError(f"{path} holds no name; write one a line.")
    # str.splitlines would also cut at characters that an editor does not count as the end of a line.
    return check_names(text.split("\n"), str(path), "line")


@dataclass(frozen=True)
class Match:
    """Where each wanted name stands among the known ones."""

    found: dict[str, int]
    """Wanted name, as given -> index of the known one."""
    unknown: tuple[str, ...]
    """Wanted names, as given, that are not known or not by exactly one class."""
    warnings: tuple[str, ...]
    """A sentence for each name that was found by a synonym or not matched for being ambiguous."""


def match(wanted: Sequence[str], known: Sequence[str]) -> Match:
    """Look names up: by the whole name first, then among the comma-separated synonyms, last of all ignoring case.

    >>> match(["goldfish", "rose"], ["tench, Tinca tinca", "goldfish, Carassius auratus"])
    Match(found={'goldfish': 1}, unknown=('rose',), warnings=("'goldfish' is taken as 'goldfish, Carassius auratus'.",))
    """
    whole = _places([normal(name)] for name in known)
    synonym = _places(_synonyms(name) for name in known)
    caseless = _places(map(str.casefold, _synonyms(name)) for name in known)
    found: dict[str, int] = {}
    unknown: list[str] = []
    warnings: list[str] = []
    for given in wanted:
        name = normal(given)
        hits = whole.get(name) or synonym.get(name) or caseless.get(name.casefold()) or []
        if len(hits) == 1:
            found[given] = hits[0]
            if name not in whole:
                warnings.append(f"{name!r} is taken as {known[hits[0]]!r}.")
            continue
        unknown.append(given)
        if hits:
            several = ", ".join(repr(known[hit]) for hit in hits)
            warnings.append(f"{name!r} may mean any of {several} and is not matched; write the whole name.")
    return Match(found, tuple(unknown), tuple(warnings))


def _synonyms(name: str) -> list[str]:
    # The whole name is one of them, for names that differ in nothing but case.
    return [synonym for synonym in (normal(name), *map(normal, name.split(","))) if synonym]


def _places(entries: Iterable[Iterable[str]]) -> dict[str, list[int]]:
    """Each key -> the indices of the entries that have it, ascending."""
    places: dict[str, list[int]] = defaultdict(list)
    for index, keys in enumerate(entries):
        for key in set(keys):
            places[key].append(index)
    return dict(places)
