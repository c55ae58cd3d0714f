"""docs/tutorial.md runs from its first block to its last, on few digits and tiny photos, and says what is so."""

from __future__ import annotations

import re
import shlex
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import sklearn.datasets
import torch
import torchvision
from outside import NEW, OLD, hurried, photos
from torch import nn

import classgraft
from classgraft.data.policies import OPERATIONS

PAGE = (Path(__file__).parents[1] / "docs" / "tutorial.md").read_text("utf-8")
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.M | re.S)
LESS = {
    '"batch_size": 64': '"batch_size": 8',
    "range(20)": "range(3)",
    "--epochs 5": "--epochs 1",
    "--out frozen/": "--epochs 1 --out frozen/",
}
"""What is run shorter than it is written."""
FEW = 90
"""Digits, of 1,797."""


class Narrow(nn.Linear):
    """AlexNet's full layers with 32 units in place of 4,096."""

    def __init__(self, inside: int, outside: int) -> None:
        super().__init__(*(32 if width == 4096 else width for width in (inside, outside)))


@pytest.fixture(scope="module")
def ran(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Every name that the blocks leave behind."""
    place, whole = tmp_path_factory.mktemp("tutorial"), sklearn.datasets.load_digits()
    few = SimpleNamespace(images=whole.images[:FEW], target=whole.target[:FEW])
    names: dict[str, Any] = {"__name__": "tutorial"}
    with pytest.MonkeyPatch.context() as patch, torch.random.fork_rng(devices=[]):
        patch.chdir(place)
        patch.setattr(sklearn.datasets, "load_digits", lambda: few)
        narrow = SimpleNamespace(**{**vars(nn), "Linear": Narrow})
        patch.setattr(sys.modules["torchvision.models.alexnet"], "nn", narrow)
        photos(place / "photos", (*OLD, *NEW), 2)
        torch.save(torchvision.models.alexnet().state_dict(), "alexnet-owt-7be5be79.pth")
        for language, text in BLOCKS:
            for written, run in LESS.items():
                text = text.replace(written, run)
            if language == "python":
                exec(compile(text, "docs/tutorial.md", "exec"), names)
            else:
                for line in text.splitlines():
                    hurried(*shlex.split(line)[1:])
        names["frozen in the shell"] = classgraft.load(place / "frozen")
    return names


def test_every_block_is_run_and_what_is_shortened_is_there() -> None:
    assert {language for language, _ in BLOCKS} == {"python", "sh"}
    assert len(BLOCKS) == len(re.findall("^```", PAGE, re.M)) / 2
    assert all(written in PAGE for written in LESS)
    assert all(
        line.startswith("classgraft ") for language, text in BLOCKS for line in text.splitlines() if language == "sh"
    )


def test_the_lecture_s_program_fits_in_forty_lines_and_its_loss_falls(ran: dict[str, Any]) -> None:
    assert len([line for line in BLOCKS[0][1].splitlines() if line]) <= 40
    assert ran["losses"] == sorted(ran["losses"], reverse=True)


def test_each_swap_learns(ran: dict[str, Any]) -> None:
    chance, right, known = 0.2, ran["right"], ran["known"]
    assert right(ran["model"], known) < chance
    for name in ("learnt", "by_angle", "by_squares"):
        assert right(ran[name], known) > right(ran["model"], known), name
    assert right(ran["residual"], ran["three"]) > chance
    assert right(ran["varied"], ran["photos"]) > chance


def test_randaugment_has_the_fourteen_operations_that_the_page_lists(ran: dict[str, Any]) -> None:
    listed = re.findall(r"^\| `([a-z-]+)` \|", PAGE, re.M)
    assert len(listed) == 14
    assert set(listed) == set(OPERATIONS) == set(ran["changed"])
    same = [name for name, pixels in ran["changed"].items() if torch.equal(pixels, ran["one"])]
    assert same == ["identity"]


def test_the_frozen_alexnet_kept_every_bit_of_its_body_and_learnt_a_head(ran: dict[str, Any]) -> None:
    given, frozen, shell = ran["alexnet"].model, ran["frozen"], ran["frozen in the shell"]
    assert frozen.classes == shell.classes == tuple(sorted((*OLD, *NEW)))
    for name, tensor in given.body.state_dict().items():
        assert torch.equal(tensor, frozen.body.state_dict()[name]), name
        assert torch.equal(tensor, shell.model.body.state_dict()[name]), name
    assert not torch.equal(given.head.weight, frozen.head.weight)


def test_the_four_ways_learn_the_other_digits_from_a_body_of_the_first(ran: dict[str, Any]) -> None:
    assert list(ran["found"]) == ["from scratch", "feature extraction", "fine-tuning", "LP-FT"]
    assert (ran["pretrained"].classes, ran["few"].classes) == (ran["first"], ran["others"])
    assert ran["taught"].classes == ran["others"]
    assert max(ran["found"].values()) > 0.4
