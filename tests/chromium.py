"""Chromium without a window, driven by selenium; a test that asks for it skips where it is not installed."""

from __future__ import annotations

import contextlib
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

FLAGS = ("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
         "--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--hide-scrollbars",
         "--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream")  # fmt: skip
"""The last two: a camera that shows a test picture, and nobody asked whether it may be used."""


@contextlib.contextmanager
def chromium(width: int = 1120, height: int = 900) -> Iterator[Any]:
    """A driver of a fresh Chromium with a window of this size."""
    webdriver = pytest.importorskip("selenium.webdriver", reason="selenium is not installed")
    browser, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if not browser or not driver:
        pytest.skip("no chromium and chromedriver on the path (Debian: apt-get install chromium chromium-driver)")
    options = webdriver.ChromeOptions()
    options.binary_location = browser
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    with tempfile.TemporaryDirectory(prefix="chromium-") as profile:
        for flag in (*FLAGS, f"--user-data-dir={profile}", f"--window-size={width},{height}"):
            options.add_argument(flag)
        service = webdriver.ChromeService(executable_path=driver)
        started = webdriver.Chrome(options=options, service=service)
        try:
            yield started
        finally:
            started.quit()


@contextlib.contextmanager
def serving(*words: object) -> Iterator[str]:
    """The address of ``classgraft serve`` with these words, in a process of its own."""
    command = [sys.executable, "-m", "classgraft", "serve", *map(str, words), "--port", "0"]
    source = Path(__file__).parents[1] / "src"
    paths = os.pathsep.join([str(source), os.environ.get("PYTHONPATH", "")])
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONPATH": paths}
    ) as process:
        try:
            line = process.stdout.readline() if process.stdout else ""
            assert line.startswith("http://127.0.0.1:"), line
            yield line.split()[0]
        finally:
            process.terminate()
            process.wait(20)
