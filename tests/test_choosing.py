"""What ``auto`` picks, and that it says why."""

from __future__ import annotations

import pytest
from test_contract import NEW, OLD, photos, trained

import classgraft
from classgraft import api
from classgraft.bundle import Bundle
from classgraft.errors import InputError
from classgraft.models.preparation import Preparation
from classgraft.models.sources import Architecture


def bundle() -> Bundle:
    model = trained()
    return Bundle(model, Architecture("python:Body"), "1", Preparation(12, 14, (0.5, 0.5, 0.5), (0.25, 0.25, 0.25)))


def picked(base: Bundle, **given: object) -> tuple[str, str]:
    event = classgraft.extend(base, photos(NEW), settings={"views": 2} if not base.memories else {}, **given).history[
        -1
    ]
    return event["method"], event["why"]


def test_it_picks_by_what_is_at_hand_and_says_why() -> None:
    method, why = picked(bundle())
    assert (method, "--old-images would keep them better" in why) == ("glne", True)
    method, why = picked(bundle(), old_images=photos(OLD))
    assert (method, "kept of the old classes" in why) == ("glne", True)
    kept = api.remember(bundle(), photos(OLD), "glne")
    assert picked(kept)[1] == why
    method, why = picked(api.remember(bundle(), photos(OLD), "slda"))
    assert (method, "memory was made for" in why) == ("slda", True)
    assert picked(bundle(), method="imprint") == ("imprint", "chosen by name")


def test_it_says_so_where_a_head_allows_none_of_its_ways() -> None:
    from dataclasses import replace

    kept = api.remember(bundle(), photos(OLD), "ncm")
    grown = replace(classgraft.extend(kept, photos(NEW), method="ncm"), memories={})
    with pytest.raises(InputError, match="give --old-images"):
        classgraft.extend(grown, photos(("gnu",)))
