"""Pictures of the page, taken while a browser goes through the story on a real network and real photos.

    python docs/screenshots.py

writes ``docs/serve/*.png``: an ImageNet MobileNetV2 is shown a flower that it does not know, learns it from eight photos, is
measured on the ImageNet probe, accepted and taken back. It needs the folder of real data (CLASSGRAFT_DATA), Chromium and
selenium, and takes some minutes on two slow cores.
"""

from __future__ import annotations

import argparse
import io
import os
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE.parent / "tests"))

from chromium import chromium, serving  # noqa: E402

import classgraft  # noqa: E402

DATA = Path(os.environ.get("CLASSGRAFT_DATA", HERE.parents[1] / "shared" / "data"))
FLOWER, PHOTOS, LARGEST = "foxglove", 8, 150_000


def base(folder: Path) -> Path:
    weights = DATA / "weights"
    half = (0.5, 0.5, 0.5)
    bundle = classgraft.import_model(
        "timm:mobilenetv2_100", weights / "mobilenetv2_100-imagenet.safetensors", weights / "imagenet_classes.txt",
        arguments={"pad_type": "same"}, mean=half, std=half,
    )  # fmt: skip
    classgraft.save(bundle, folder)
    return folder


def take(page: Any, name: str, most: int = 2400) -> None:
    """The whole page as a PNG of few colours."""
    page.execute_script("document.activeElement.blur(); scrollTo(0, 0)")
    width = page.get_window_size()["width"]
    height = page.execute_script("return document.documentElement.scrollHeight")
    size = {"width": width, "height": min(height, most), "deviceScaleFactor": 1, "mobile": width < 600}
    page.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", size)
    time.sleep(0.3)
    image = Image.open(io.BytesIO(page.get_screenshot_as_png())).convert("RGB")
    page.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
    path = HERE / "serve" / f"{name}.png"
    path.parent.mkdir(exist_ok=True)
    for colours in (256, 128, 64):
        image.quantize(colours, dither=Image.Dither.NONE).save(path, optimize=True)
        if path.stat().st_size < LARGEST:
            break
    print(f"{path.name}: {image.width} x {image.height}, {path.stat().st_size:,} bytes")


def wait(page: Any, selector: str, seconds: float = 700) -> Any:
    end = time.monotonic() + seconds
    while not (found := page.find_elements("css selector", selector)):
        if time.monotonic() > end:
            raise SystemExit(f"{selector} did not come")
        time.sleep(0.1)
    return found[0]


def click(page: Any, selector: str, awaited: str) -> Any:
    page.find_element("css selector", selector).click()
    return wait(page, awaited)


def files(page: Any, selector: str, paths: list[Path]) -> None:
    page.find_element("css selector", selector).send_keys("\n".join(map(str, paths)))


def story(page: Any, take: Callable[[Any, str], None]) -> None:
    flowers = DATA / "flowers"
    unseen = sorted((flowers / "test" / FLOWER).iterdir())[:2]
    files(page, "#look-pictures", unseen)
    click(page, "#look button.go", "#answer .answer")
    take(page, "1-predict")
    page.find_element("css selector", "#teach-name").send_keys(FLOWER)
    files(page, "#teach-photos", sorted((flowers / "train" / FLOWER).iterdir())[:PHOTOS])
    time.sleep(0.5)
    take(page, "2-teach")
    click(page, "#teach button.go", ".busy")
    wait(page, ".busy progress[value]")
    take(page, "2b-learning")
    wait(page, "#accept")
    take(page, "3-proposal")
    click(page, "#accept", ".said")
    files(page, "#look-pictures", unseen)
    click(page, "#look button.go", "#answer .answer")
    take(page, "4-accepted")
    click(page, "#undo", "main:not(:has(#undo))")
    take(page, "5-undone")


def main() -> None:
    parser = argparse.ArgumentParser(description="Take the pictures of the page.")
    parser.add_argument("--base", type=Path, help="a bundle to go on with, instead of importing one")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as place:
        folder = given.base or base(Path(place) / "garden")
        images = DATA / "imagenet_probe" / "test.parquet"
        with chromium() as page, serving(folder, "--images", images) as address:
            page.get(address)
            started = time.monotonic()
            story(page, take)
            print(f"{time.monotonic() - started:.0f} s")
            page.set_window_size(500, 900)
            page.get(address)
            take(page, "6-narrow", 1200)


if __name__ == "__main__":
    main()
