"""The command line answers at once: it imports nothing heavy before a command runs."""

from __future__ import annotations

import subprocess
import sys

import pytest

HEAVY = {"torch", "timm", "PIL", "numpy", "torchvision", "pyarrow", "safetensors", "sklearn", "scipy", "jinja2"}


def imported(*words: str) -> set[str]:
    """Top-level packages that `python -m classgraft` imports."""
    command = [sys.executable, "-X", "importtime", "-m", "classgraft", *words]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert ran.returncode in (0, 2), ran.stderr
    return {
        line.rpartition("|")[2].strip().partition(".")[0]
        for line in ran.stderr.splitlines()
        if line.startswith("import time:")
    }


@pytest.mark.parametrize(
    "words", [("--help",), ("extend", "--help"), ("methods",), ("nothing",), ("demo", "--seed", "x")], ids=" ".join
)
def test_help_methods_and_slips_of_the_pen_import_nothing_heavy(words: tuple[str, ...]) -> None:
    found = imported(*words)
    assert "classgraft" in found
    assert "typer" in found
    assert not found & HEAVY


def test_the_measure_sees_what_a_command_does_import() -> None:
    assert "torch" in imported("undo", "nowhere")
