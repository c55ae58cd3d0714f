"""The page in a browser, clicked through from a picture to a class that is accepted and taken back."""

from __future__ import annotations

import base64
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from chromium import chromium, serving
from outside import OLD, furnish, photo, photos

import classgraft

pytest.importorskip("fastapi")

DROP = """
const [zone, files] = arguments, held = new DataTransfer();
for (const [name, text] of files) {
  const bytes = Uint8Array.from(atob(text), (c) => c.charCodeAt(0));
  held.items.add(new File([bytes], name, {type: "image/png"}));
}
for (const kind of ["dragenter", "dragover", "drop"])
  zone.dispatchEvent(new DragEvent(kind, {dataTransfer: held, bubbles: true, cancelable: true}));
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = furnish(tmp_path_factory.mktemp("furnished"))
    photos(made / "test", ["cyan"], 4)
    return made


@pytest.fixture(scope="module")
def page(place: Path) -> Iterator[Any]:
    """A browser on the page of ``base``."""
    words = (place / "base", "--images", place / "old", "--images", place / "test", "--method", "imprint")
    with chromium() as driver, serving(*words) as address:
        driver.get(address)
        driver.address = address
        yield driver


def found(page: Any, selector: str) -> list[Any]:
    return list(page.find_elements("css selector", selector))


def one(page: Any, selector: str) -> Any:
    (element,) = found(page, selector)
    return element


def wait(done: Callable[[], Any]) -> Any:
    end = time.monotonic() + 60
    while True:
        try:
            if answer := done():
                return answer
        except Exception:  # an element of the page that was
            if time.monotonic() > end:
                raise
        assert time.monotonic() < end
        time.sleep(0.05)


def drop(page: Any, zone: str, files: list[Path]) -> None:
    content = [[file.name, base64.b64encode(file.read_bytes()).decode()] for file in files]
    page.execute_script(DROP, one(page, zone), content)


def test_from_a_picture_to_a_class_and_back(page: Any, place: Path) -> None:
    # a picture is named, without another page
    red = photo(place / "red.png", "red", 7)
    one(page, "#look input[type=file]").send_keys(str(red))
    assert len(found(page, "#look .chosen li")) == 1
    one(page, "#look button.go").click()
    wait(lambda: found(page, "#answer .answer"))
    (expected,) = classgraft.predict(classgraft.load(place / "base"), [red])
    assert one(page, "#answer .first th").text == expected.classes[0]
    assert one(page, "#answer .first .number").text == f"{100 * expected.probabilities[0]:.1f} %"
    assert page.current_url == page.address

    # one picture more, and the first taken out; what is no picture is refused where it was dropped
    drop(page, "#look .zone", [photo(place / "blue.png", "blue", 7)])
    assert len(found(page, "#look .chosen li")) == 2
    found(page, "#look .chosen button")[0].click()
    assert [image.get_attribute("alt") for image in found(page, "#look .chosen img")] == ["blue.png"]

    # a class is dropped in, tried, and looked at before it is accepted
    one(page, "#teach-name").send_keys("cyan")
    drop(page, "#teach .zone", [place / "new" / "cyan" / f"{i}.png" for i in range(3)])
    assert len(found(page, "#teach .chosen li")) == 3
    one(page, "#teach button.go").click()
    wait(lambda: found(page, "#accept"))
    assert "/proposals/" in page.current_url
    tiles = [tile.text for tile in found(page, ".tiles div")]
    assert all("%" in tile for tile in tiles)
    assert "n = 9" in tiles[0]
    assert "n = 4" in tiles[1]
    assert classgraft.load(place / "base").classes == OLD
    one(page, "#look-pictures").send_keys(str(place / "new" / "cyan" / "0.png"))
    one(page, "main .zone ~ button.go").click()
    wait(lambda: found(page, "#answer .answer"))
    assert "cyan" in one(page, "#answer .likely").text

    # accepted, and taken back
    shown = [tile.text for tile in found(page, ".tiles div")]
    one(page, "#accept").click()
    wait(lambda: "Accepted" in one(page, ".said").text)
    bundle = classgraft.load(place / "base")
    assert bundle.classes == (*OLD, "cyan")
    summary = classgraft.evaluate(bundle, place / "old", place / "test").summary()
    for tile, name in zip(shown, ("old", "new", "harmonic"), strict=True):
        assert f"{100 * summary[name]:.1f}" in tile
    one(page, "#undo").click()
    wait(lambda: "Taken back" in one(page, ".said").text)
    assert classgraft.load(place / "base").classes == OLD
    assert not found(page, "#undo")


def test_a_photo_is_taken_with_the_camera(page: Any) -> None:
    page.get(page.address)
    one(page, "#look .camera").click()
    wait(lambda: page.execute_script("return document.querySelector('#look video')?.videoWidth"))
    one(page, "#look .camera").click()
    wait(lambda: found(page, "#look .chosen img"))
    assert not found(page, "#look video")
    one(page, "#look button.go").click()
    wait(lambda: found(page, "#answer .answer"))
    assert one(page, "#answer .file").text.startswith("photo-")


def test_a_bad_picture_is_said_where_it_was_chosen(page: Any, place: Path) -> None:
    page.get(page.address)
    (place / "bad.png").write_bytes(b"no image")
    one(page, "#look-pictures").send_keys(str(place / "bad.png"))
    one(page, "#look button.go").click()
    wait(lambda: "cannot be used" in one(page, "#look .wrong").text)
    assert not found(page, "#answer .answer")
    assert one(page, "#look button.go").is_enabled()


def test_everything_works_without_script(page: Any, place: Path) -> None:
    page.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": True})
    try:
        page.get(page.address)
        assert not one(page, "#look .camera").is_displayed()
        one(page, "#look-pictures").send_keys(str(place / "new" / "cyan" / "0.png"))
        one(page, "#look button.go").click()
        wait(lambda: found(page, "#answer .answer"))
        assert page.current_url.endswith("/predict")
        one(page, "#teach-name").send_keys("cyan")
        one(page, "#teach-photos").send_keys("\n".join(str(place / "new" / "cyan" / f"{i}.png") for i in range(3)))
        one(page, "#teach button.go").click()
        wait(lambda: found(page, "#accept"))  # it comes by itself
        found(page, "#discard")[0].click()
        wait(lambda: page.current_url == page.address)
        assert classgraft.load(place / "base").classes == OLD
    finally:
        page.execute_cdp_cmd("Emulation.setScriptExecutionDisabled", {"value": False})


def test_nothing_was_loaded_from_elsewhere_and_no_rule_was_broken(page: Any) -> None:
    """Last, so that the browser's log holds all of the above."""
    page.get(page.address)
    script = "return performance.getEntriesByType('resource').map((entry) => entry.name)"
    wait(lambda: len(page.execute_script(script)) >= 2)  # they are entered some time after the page is there
    names = page.execute_script(script)
    assert all(name.startswith((page.address, "data:", "blob:")) for name in names)
    complaints = [entry["message"] for entry in page.get_log("browser") if "400 (Bad Request)" not in entry["message"]]
    assert not complaints
