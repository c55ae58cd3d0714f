"""The command line's words for a benchmark, as the values that they stand for."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from classgraft.errors import InputError
from classgraft.evaluator.orders import Order
from classgraft.evaluator.protocols import Equal, Split
from classgraft.evaluator.settings import Setting, named
from classgraft.evaluator.start import Start
from classgraft.models.sources import argument

Triple = tuple[float, float, float]


def listed(text: str) -> list[str]:
    """What stands between commas."""
    return [word.strip() for word in text.split(",") if word.strip()]


def numbers(option: str, text: str) -> list[int]:
    """Whole numbers between commas, none below 0."""
    words = listed(text)
    if not words or not all(word.isascii() and word.isdigit() for word in words):
        raise InputError(f"{option} is '{text}'; write whole numbers with commas between, such as 0,1,2.")
    return list(map(int, words))


def orders(text: str | None) -> tuple[Order, ...] | None:
    """Seeds and names of orders."""
    return tuple(int(word) if word.isdecimal() else word for word in listed(text)) if text is not None else None


def settings(words: Sequence[str]) -> dict[str, dict[str, Any]]:
    """``lwf.temperature=3`` as {"lwf": {"temperature": 3}}."""
    found: dict[str, dict[str, Any]] = {}
    for word in words:
        key, value = argument(word)
        method, dot, field = key.partition(".")
        if not dot:
            raise InputError(f"--set '{word}' does not say whose field it is; write METHOD.FIELD=VALUE.")
        found.setdefault(method, {})[field] = value
    return found


def given(options: Mapping[str, Any]) -> dict[str, Any]:
    """Those that are not None."""
    return {key: value for key, value in options.items() if value is not None}


def setting(
    protocol: str | None,
    steps: Mapping[str, Any],
    arch: str | None,
    arguments: Sequence[str],
    weights: Path | None,
    mean: Triple | None,
    std: Triple | None,
) -> Setting:
    """A named setting, or one of these steps, with this network."""
    asked = given(steps)
    if protocol is not None and asked:
        raise InputError(
            f"--protocol says already how the classes come; leave --{next(iter(asked))} out, or the protocol."
        )
    if "sizes" in asked:
        unfit = next((key for key in ("first", "step", "classes") if key in asked), None)
        if unfit:
            raise InputError(f"--sizes says how many classes each step has; leave --{unfit} out.")
        asked["sizes"] = tuple(numbers("--sizes", asked["sizes"]))
        found = Setting(Split(**asked))
    else:
        found = named(protocol) if protocol is not None else Setting(Equal(**{"first": 10, "step": 10, **asked}))
    network = given({"source": arch, "weights": weights, "mean": mean, "std": std})
    if arguments:
        network["arguments"] = dict(map(argument, arguments))
    if not network:
        return found
    start = Start(**network) if arch else dataclasses.replace(found.start, **network)
    return dataclasses.replace(found, start=start, expected=())
