"""Fixtures that several tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

os.environ.setdefault("OMP_NUM_THREADS", "1")  # for the processes that tests start
torch.set_num_threads(1)  # tests run side by side; threads that wait for a busy core cost far more than they save


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real data: CLASSGRAFT_DATA, else ../shared/data beside the checkout; without it the test skips."""
    beside = Path(__file__).resolve().parents[2] / "shared" / "data"
    path = Path(os.environ.get("CLASSGRAFT_DATA", beside))
    if not path.is_dir():
        pytest.skip("no real data: set CLASSGRAFT_DATA to the folder that holds it")
    return path
