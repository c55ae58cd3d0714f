"""The one error that is the input's fault: the command line prints it as a sentence and exits with code 2."""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class InputError(ValueError):
    """Something given from outside is wrong. The message is one sentence: it names the thing and the remedy."""


def nearest(word: str, known: Iterable[str]) -> str:
    """A closing remark that lists what is known and suggests the nearest: " Did you mean 'glne'? Known: ..."."""
    known = sorted(known)
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    hint = f" Did you mean '{close[0]}'?" if close else ""
    return f"{hint} Known: {', '.join(known)}."
