"""Mutated bundles, images, tables, class lists and journals: an InputError or work done (thousands: benchmarks/fuzz.py)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from mutations import Target, seeds, tried
from outside import copied, done, furnish, is_sentence, run

import classgraft
from classgraft import InputError
from classgraft.data import parquet
from classgraft.data.sources import open_source
from classgraft.storage import held


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz") / "place"


@pytest.fixture(scope="module")
def targets(place: Path) -> list[Target]:
    return seeds(place)


@settings(max_examples=150, deadline=None, database=None, suppress_health_check=list(HealthCheck), derandomize=True)
@given(kind=st.integers(0, 10**6), seed=st.integers(0, 10**6))
def test_any_mutated_input_is_refused_in_a_sentence_or_works(
    place: Path, targets: list[Target], kind: int, seed: int
) -> None:
    assert not tried(targets[kind % len(targets)], place, seed)


# -- inputs that name or are something else -----------------------------------------------------------------------


@pytest.fixture(scope="module")
def furnished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return furnish(tmp_path_factory.mktemp("furnished"))


@pytest.fixture
def newcomer(furnished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(copied(furnished, tmp_path / "place"))
    return tmp_path / "place"


@pytest.mark.parametrize(
    "name", ["model.safetensors", "history.jsonl", "undo-0.json", "undo-0.safetensors", "config.json"]
)
@pytest.mark.parametrize("kind", ["pipe", "device", "link to nowhere", "link to itself"])
def test_what_would_be_read_for_ever_is_refused(name: str, kind: str, newcomer: Path) -> None:
    path = newcomer / "grown" / name
    path.unlink()
    match kind:
        case "pipe":
            os.mkfifo(path)
        case "device":
            path.symlink_to("/dev/zero")
        case "link to nowhere":
            path.symlink_to("nowhere")
        case _:
            path.symlink_to(path)
    started = time.monotonic()
    ran = run("predict", "grown", "new")
    assert (ran.code, ran.out) == (2, "")
    assert is_sentence(ran.err.rstrip("\n")), ran.err
    assert time.monotonic() - started < 10


@pytest.mark.parametrize(
    "name", ["/dev/zero", "../names.txt", "../../../etc/passwd", "", ".", "x/../config.json", "a\nb"]
)
def test_checksums_of_files_outside_are_not_computed(name: str, newcomer: Path) -> None:
    path = newcomer / "grown/config.json"
    text = path.read_text("utf-8")
    config = json.loads(text)
    config["graft"]["sha256"][name] = "0"
    path.write_text(json.dumps(config))
    ran = run("predict", "grown", "new")
    assert ran.code == 2
    assert "has no file of a bundle called" in ran.err


def test_a_bundle_of_links_into_a_cache_is_read_and_written_over_without_following_them(newcomer: Path) -> None:
    """As model hubs lay them out; what is written never goes through a link."""
    real = copied(newcomer / "grown", newcomer / "cache")
    for path in (newcomer / "grown").iterdir():
        path.unlink()
        path.symlink_to(real / path.name)
    before = {path.name: path.read_bytes() for path in real.iterdir()}
    done("undo", "grown")
    assert {path.name: path.read_bytes() for path in real.iterdir()} == before
    assert not any(path.is_symlink() for path in (newcomer / "grown").iterdir())


def test_names_of_classes_are_never_paths(newcomer: Path) -> None:
    (newcomer / "names2.txt").write_text("../../a\n/etc/b\n..\n", "utf-8")
    done("import", "cifar:resnet20", "--weights", "w.safetensors", "--classes", "names2.txt", "--out", "in/side")
    done("export", "in/side", "--format", "torch-export", "--out", "in/x")
    done("remove", "in/side", "../../a")
    assert sorted(path.name for path in (newcomer / "in").iterdir()) == ["side", "x"]
    assert not (newcomer.parent / "a").exists()


# -- bombs ---------------------------------------------------------------------------------------------------------


def test_a_table_of_endless_rows_is_refused_before_they_are_read(tmp_path: Path) -> None:
    rows = 3_000_000
    columns = {"image": pa.nulls(rows, pa.binary()), "label": pa.array(np.zeros(rows, np.int64))}
    pq.write_table(pa.table(columns), tmp_path / "t.parquet", compression="zstd")
    assert (tmp_path / "t.parquet").stat().st_size < 100_000
    with pytest.raises(InputError, match=r"states 3,000,000 rows in .* bytes, too few"):
        open_source(tmp_path / "t.parquet")


def test_a_table_that_unpacks_to_more_than_memory_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parquet, "LARGEST_GROUP", 1 << 20)
    table = pa.table({"image": pa.array([bytes(2 << 20)], pa.binary()), "label": pa.array([0])})
    pq.write_table(table, tmp_path / "t.parquet", compression="zstd", use_dictionary=False)
    assert (tmp_path / "t.parquet").stat().st_size < 20_000
    with pytest.raises(InputError, match=r"unpacks to 2,097,.* more than 1,048,576; write it again"):
        open_source(tmp_path / "t.parquet")


# -- two processes -------------------------------------------------------------------------------------------------

WRITER = """
    import os, sys, time, classgraft
    first, second = classgraft.load(sys.argv[1]), classgraft.load(sys.argv[2])
    end = time.monotonic() + 120
    count = 0
    while time.monotonic() < end and (count < 3 or not os.path.exists(sys.argv[4])):
        classgraft.save((first, second)[count % 2], sys.argv[3])
        count += 1
    print(count)
"""


def test_two_writers_and_a_reader_always_see_a_whole_bundle(newcomer: Path) -> None:
    """The last to write wins; nobody ever reads half of one and half of another."""
    copied(newcomer / "base", newcomer / "shared")
    command = [sys.executable, "-c", textwrap.dedent(WRITER), "base", "grown", "shared", "enough"]
    writers = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    found: set[int] = set()
    count = 0
    while any(writer.poll() is None for writer in writers):
        found.add(len(classgraft.load("shared").classes))
        count += 1
        if found == {3, 5} and count > 2:  # however slow the machine is
            (newcomer / "enough").touch()
    written = [int(writer.communicate(timeout=60)[0]) for writer in writers]
    assert all(writer.returncode == 0 for writer in writers)
    assert found == {3, 5}
    assert min(*written, count) > 2
    assert len(classgraft.load("shared").classes) in (3, 5)
    assert not [path.name for path in newcomer.iterdir() if path.name.startswith(".")]


def test_a_reader_is_waited_for_but_not_for_ever(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("classgraft.storage.PATIENCE", 0.2)
    with held(tmp_path / "x", shared=True):
        started = time.monotonic()
        with held(tmp_path / "x", shared=True):
            assert time.monotonic() - started < 0.1
        with held(tmp_path / "x"):
            assert time.monotonic() - started >= 0.2
    started = time.monotonic()
    with held(tmp_path / "x"):
        assert time.monotonic() - started < 0.1
    with held(tmp_path / "nowhere/at/all"):  # no folder to lock
        pass
