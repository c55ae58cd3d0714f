"""The run folder: what was finished returns, what was not goes on, what is broken is noticed."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from small import classifier, images
from torch import Tensor

from classgraft.data.images import Images
from classgraft.errors import InputError
from classgraft.training import sealed
from classgraft.training.carries import digest
from classgraft.training.engine import engine
from classgraft.training.journal import keeping
from classgraft.training.loop import Batch, Epochs, Terms, descend, fit, run
from classgraft.training.recipe import Recipe

RECIPE = Recipe(epochs=3, batch_size=8, lr=0.05)


class Stopped(Exception):
    """The machine stops."""


def trained(
    folder: Path,
    stop_at: int | None = None,
    recipe: Recipe = RECIPE,
    seen: Images | None = None,
    seed: int = 0,
    every: float = 0.0,
) -> tuple[str, int]:
    """Two phases; the hash of weights and histories, and the steps that were taken. Stops in the given step."""
    model, seen = classifier(dropout=0.3, seed=seed), seen or images(30)
    steps = 0

    def objective(batch: Batch) -> Terms:
        nonlocal steps
        if steps == stop_at:
            raise Stopped
        steps += 1
        return {"class": F.cross_entropy(model(batch.images), batch.targets)}

    with keeping(folder, every=every):
        first = fit(model, objective, seen, recipe, "first")
        again = replace(recipe, optimiser="adamw", lr=1e-3, epochs=2)
        model.train()
        second = run(descend(objective, [model], again), Epochs(seen, again, torch.device("cpu")), again, "second")
    return digest(model, first.epochs, second.epochs), steps


@pytest.mark.parametrize("stop_at", [0, 5, 12, 14, 19])
def test_a_stopped_run_goes_on_at_the_step_where_it_was(tmp_path: Path, stop_at: int) -> None:
    whole, steps = trained(tmp_path / "whole")
    with pytest.raises(Stopped):
        trained(tmp_path / "broken", stop_at)
    assert trained(tmp_path / "broken") == (whole, steps - stop_at)
    metrics = [(tmp_path / name / "metrics.jsonl").read_bytes() for name in ("whole", "broken")]
    assert metrics[0] == metrics[1]
    assert trained(tmp_path / "broken") == (whole, 0)


def test_how_often_it_is_written_changes_no_bit(tmp_path: Path) -> None:
    assert trained(tmp_path / "a", every=0.0) == trained(tmp_path / "b", every=1e9)


def test_metrics_hold_no_times_and_times_are_in_their_own_file(tmp_path: Path) -> None:
    trained(tmp_path)
    rows = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(row["run"], row["what"], row["epoch"]) for row in rows] == [
        *((0, "first", epoch) for epoch in range(3)),
        *((1, "second", epoch) for epoch in range(2)),
    ]
    assert {key for row in rows for key in row} == {"run", "what", "epoch", "class"}
    assert all(json.loads(line)["seconds"] >= 0 for line in (tmp_path / "times.jsonl").read_text().splitlines())


def cut_short(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [cut_short, flip_a_bit, empty, Path.unlink])
def test_a_broken_journal_is_noticed_and_the_one_before_it_used(tmp_path: Path, damage: Callable[[Path], None]) -> None:
    whole, steps = trained(tmp_path / "whole")
    with pytest.raises(Stopped):
        trained(tmp_path / "broken", 7)
    damage(tmp_path / "broken" / "run-000.journal")
    assert trained(tmp_path / "broken") == (whole, steps - 6)
    for name in ("run-000.journal", "run-000.previous"):
        damage(tmp_path / "broken" / name)
    assert trained(tmp_path / "broken")[0] == whole


def test_a_broken_journal_never_pushes_out_a_good_one(tmp_path: Path) -> None:
    with pytest.raises(Stopped):
        trained(tmp_path, 7)
    good = (tmp_path / "run-000.previous").read_bytes()
    flip_a_bit(tmp_path / "run-000.journal")
    with pytest.raises(Stopped):
        trained(tmp_path, 1)
    assert (tmp_path / "run-000.previous").read_bytes() == good


def test_writing_takes_no_more_memory_where_a_file_stands_already(tmp_path: Path) -> None:
    """The file before is read for its digest alone; its tensors are not made again."""
    path, content, peaks = tmp_path / "run-000.journal", {"weight": torch.arange(1 << 20)}, []
    for _ in range(3):
        tracemalloc.start()
        sealed.write(path, content)
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    assert max(peaks) < 1.2 * peaks[0]
    for kept in (path, sealed.previous(path)):
        found = sealed.read(kept)
        assert found is not None
        assert torch.equal(found["weight"], content["weight"])


def other_images() -> Images:
    pixels: Tensor = images(30).pixels.clone()
    pixels[3, 0, 0, 0] ^= 1
    return replace(images(30), pixels=pixels)


def test_another_run_in_the_same_folder_is_refused(tmp_path: Path) -> None:
    trained(tmp_path)
    for words, change in {
        "recipe": {"recipe": replace(RECIPE, lr=0.06)},
        "images": {"seen": other_images()},
        "starting weights": {"seed": 1},
    }.items():
        with pytest.raises(InputError, match=words):
            trained(tmp_path, **change)  # type: ignore[arg-type]
    with engine(precision="bf16"), pytest.raises(InputError, match="engine"):
        trained(tmp_path)
    with pytest.raises(InputError, match="settings"), keeping(tmp_path, "lwf, temperature 3"):
        fit(classifier(dropout=0.3), lambda batch: {}, images(30), RECIPE, "first")


def test_a_generator_that_the_objective_draws_from_goes_on_too(tmp_path: Path) -> None:
    def noisy(folder: Path, stop_at: int | None = None) -> str:
        model, generator, steps = classifier(), torch.Generator().manual_seed(3), iter(range(100))

        def objective(batch: Batch) -> Terms:
            if next(steps) == stop_at:
                raise Stopped
            noise = torch.randn(batch.images.shape, generator=generator)
            return {"class": F.cross_entropy(model(batch.images + noise), batch.targets)}

        with keeping(folder, every=0.0):
            fit(model, objective, images(30), RECIPE, carries=[generator])
        return digest(model)

    with pytest.raises(Stopped):
        noisy(tmp_path / "broken", 6)
    assert noisy(tmp_path / "broken") == noisy(tmp_path / "whole")


def test_the_last_epochs_are_told_though_the_kill_came_before_their_lines(tmp_path: Path) -> None:
    trained(tmp_path)
    told = tmp_path / "metrics.jsonl"
    whole = told.read_text()
    told.write_text("".join(whole.splitlines(keepends=True)[:-1]))
    assert trained(tmp_path)[1] == 0
    assert told.read_text() == whole


def test_a_place_that_cannot_be_written_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="run folder"), keeping(tmp_path / "file"):
        pass


def test_kills_at_random_instants_change_no_bit() -> None:
    script = Path(__file__).parents[1] / "benchmarks" / "kills.py"
    found = subprocess.run([sys.executable, str(script), "--short"], capture_output=True, text=True, env=os.environ)
    assert found.returncode == 0, found.stdout + found.stderr
