"""The one error that is the input's fault: the command line prints it as a sentence and exits with code 2."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable

WORD, SENTENCE = 600, 1500
"""Characters of a word, and of a message, at most: what is quoted in one comes from outside and may have no end."""


class InputError(ValueError):
    """Something given from outside is wrong. The message is one sentence: it names the thing and the remedy."""

    def __init__(self, sentence: object = "") -> None:
        words = re.sub(rf"\S{{{WORD + 1},}}", lambda word: _cut(word[0], WORD), str(sentence))
        super().__init__(_cut(words, SENTENCE))


def _cut(text: str, most: int) -> str:
    """With its middle left out, where it is longer than this."""
    return text if len(text) <= most else f"{text[: most - most // 4 - 3]}...{text[-(most // 4) :]}"


def nearest(word: str, known: Iterable[str]) -> str:
    """A closing remark that lists what is known and suggests the nearest: " Did you mean 'glne'? Known: ..."."""
    known = sorted(known)
    close = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    hint = f" Did you mean '{close[0]}'?" if close else ""
    return f"{hint} Known: {', '.join(known)}."
