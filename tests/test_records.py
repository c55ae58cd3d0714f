"""TensorBoard hears each epoch once, and only if asked for."""

from __future__ import annotations

import importlib.util
from pathlib import Path

import pytest

from classgraft.errors import InputError
from classgraft.training import records
from classgraft.training.journal import keeping
from classgraft.training.records import Records


class Board:
    """In place of TensorBoard's writer."""

    def __init__(self) -> None:
        self.told: list[tuple[str, float, int]] = []
        self.closed = False

    def add_scalar(self, name: str, value: float, epoch: int) -> None:
        self.told.append((name, value, epoch))

    def close(self) -> None:
        self.closed = True


def test_each_epoch_is_told_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    board = Board()
    monkeypatch.setattr(records, "_board", lambda folder: board)
    with Records(tmp_path, tensorboard=True) as kept:
        kept.keep(0, "first", [{"new": 3.0}])  # an earlier process has told this one
        kept.write(0, "first", [{"new": 3.0}, {"new": 2.0}], 1.0)
        kept.write(0, "first", [{"new": 3.0}, {"new": 2.0}, {"new": 1.0}], 1.0)
    assert board.told == [("0 first/new", 2.0, 1), ("0 first/new", 1.0, 2)]
    assert board.closed


@pytest.mark.skipif(importlib.util.find_spec("tensorboard") is not None, reason="it is installed")
def test_where_it_is_not_installed_a_sentence_says_so(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="TensorBoard"), keeping(tmp_path, tensorboard=True):
        pass
