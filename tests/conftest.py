"""Fixtures that several tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real data: CLASSGRAFT_DATA, else ../shared/data beside the checkout; without it the test skips."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    path = Path(os.environ.get("CLASSGRAFT_DATA", beside))
    if not path.is_dir():
        pytest.skip("no real data: set CLASSGRAFT_DATA to the folder that holds it")
    return path
