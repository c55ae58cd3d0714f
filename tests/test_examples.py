"""The scripts under docs/ and the blocks of docs/detectors.md run, on a few real images."""

from __future__ import annotations

import re
import runpy
import sys
from pathlib import Path
from typing import Any

import pytest

from classgraft import detectors
from classgraft.data.boxes import Boxed
from classgraft.training.recipe import Recipe

DOCS = Path(__file__).parents[1] / "docs"


def page_of(name: str, *words: object, monkeypatch: pytest.MonkeyPatch, to: Path) -> str:
    """What the script of this name writes, run with these words."""
    monkeypatch.setattr(sys, "argv", [f"{name}.py", *map(str, words), "--out", str(to / "page.html")])
    runpy.run_path(str(DOCS / f"{name}.py"), run_name="__main__")
    return (to / "page.html").read_text("utf-8")


def test_pixels_are_labelled_distilled_and_shown(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = (data / "camvid", "--epochs", 1, "--frames", 4, "--side", 64)
    page = page_of("segmentation", *words, monkeypatch=monkeypatch, to=tmp_path)
    told = capsys.readouterr().out
    for network in ("teacher", "student, masks alone", "student, distilled"):
        assert re.search(rf"^{network}  [\d,]+  \d+\.\d  \d+\.\d$", told, re.M)
    assert page.count("<img") == 4 * 5


def test_boxes_are_taught_distilled_grafted_and_shown(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("pycocotools")
    words = ("--classes", "RBC,WBC,Platelets", "--epochs", 1, "--tune", 1, "--images", 6, "--side", 96, "--shots", 2)
    page = page_of("detection", data / "bccd", *words, monkeypatch=monkeypatch, to=tmp_path)
    told = capsys.readouterr().out
    for network in ("teacher", "student, distilled", "grafted", "grafted, tuned"):
        assert re.search(rf"^{network}  [\d,]+  \d+\.\d  \d+\.\d  \d+\.\d$", told, re.M)
    assert re.search(r"^base  [\d,]+  \d+\.\d  \d+\.\d  $", told, re.M)  # of a class that it does not have, nothing
    assert page.count("<img") == 6 * 7


def test_points_are_found_by_all_that_teaches_them_and_shown(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = (data / "face_keypoints", "--epochs", 1, "--faces", 40, "--annotated", 12, "--confidence", 0)
    page = page_of("faces", *words, monkeypatch=monkeypatch, to=tmp_path)
    told = capsys.readouterr().out
    for network in ("12 annotated faces", "and 28 unlabelled", "frames of a video", "and experts of parts"):
        assert re.search(rf"^{network}  [\d,]+(  \d+\.\d\d){{4}}$", told, re.M)
    assert page.count("<img") == 6 * 7


def test_boxes_are_grafted_measured_undone_and_distilled(
    data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    read, train = detectors.read_voc, detectors.train

    def few(folder: str, *words: Any, **options: Any) -> Boxed:
        return read(data / folder, *words, **options).some(6, seed=0)

    def shortly(model: detectors.Detector, images: Boxed, *_: Any, **options: Any) -> detectors.Detector:
        return train(model, images, Recipe(epochs=1, batch_size=4), **options)

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(detectors, "read_voc", few)
    monkeypatch.setattr(detectors, "train", shortly)
    grafted, tuned, distilled = re.findall(
        r"^```python\n(.*?)^```$", (DOCS / "detectors.md").read_text("utf-8"), re.M | re.S
    )
    names: dict[str, Any] = {}
    exec(compile(grafted, "docs/detectors.md", "exec"), names)
    assert names["grown"].classes == ("RBC", "WBC", "Platelets")
    assert (tmp_path / "grown").is_dir()
    exec(compile(tuned.replace("400", "2"), "docs/detectors.md", "exec"), names)
    assert names["tuned"].classes == names["grown"].classes
    names |= {"names": names["grown"].classes, "images": few("bccd", "train", names["grown"].classes, side=64)}
    exec(
        compile(distilled.replace('distiller("detection")', 'distiller("detection", {"epochs": 1})'), "b", "exec"),
        names,
    )
    assert names["student"].classes == names["grown"].classes
