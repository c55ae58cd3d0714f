"""The documentation builds without a warning and without a network, and holds a page for every method."""

from __future__ import annotations

import dataclasses
import html
import importlib.util
import re
import socket
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

import classgraft
from classgraft import catalogue

for needed in ("sphinx", "myst_parser", "furo"):
    pytest.importorskip(needed)

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built while nothing can be connected to."""
    spec = importlib.util.spec_from_file_location("website", ROOT / "docs" / "website.py")
    assert spec
    assert spec.loader
    website: Any = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(website)
    out = tmp_path_factory.mktemp("site")
    with pytest.MonkeyPatch.context() as patch:

        def refused(*_: object) -> None:
            raise OSError("no network while the site is built")

        patch.setattr(socket.socket, "connect", refused)
        website.build(out)
    return out


class Links(HTMLParser):
    """What a page loads, and where it leads."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.led: list[str] = []
        self.feed(page.read_text("utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = dict(attrs)
        if tag in ("img", "script", "iframe", "source") and given.get("src"):
            self.loaded.append(str(given["src"]))
        if tag == "link" and given.get("href"):
            self.loaded.append(str(given["href"]))
        if tag == "a" and given.get("href"):
            self.led.append(str(given["href"]))


def words(page: Path) -> str:
    return " ".join(html.unescape(re.sub("<[^>]*>", " ", page.read_text("utf-8"))).split())


def test_every_method_has_a_page_with_its_paper_its_formula_and_its_fields(site: Path) -> None:
    index = words(site / "methods" / "index.html")
    for entry in catalogue.ENTRIES:
        kind, text = catalogue.method_type(entry), words(site / "methods" / f"{entry.verb}-{entry.name}.html")
        first = (importlib.import_module(entry.module).__doc__ or "").partition("\n")[0].replace("``", "")
        assert first in text, entry.name
        for field in dataclasses.fields(kind):
            assert field.name in text, (entry.name, field.name)
        assert entry.summary in index
        assert re.search(r"<pre>.* = ", (site / "methods" / f"{entry.verb}-{entry.name}.html").read_text("utf-8")), (
            entry.name
        )


def test_the_measured_rows_of_a_method_stand_on_its_page(site: Path) -> None:
    text = words(site / "methods" / "extend-glne.html")
    row = next(
        line for line in (ROOT / "docs" / "results.md").read_text("utf-8").splitlines() if line.startswith("| glne |")
    )
    assert " ".join(cell.strip() for cell in row.strip("|").split("|")) in text
    assert "imprint" not in text.partition("Measured")[2].partition("Source")[0]


def test_all_that_the_package_offers_is_in_the_reference(site: Path) -> None:
    text = words(site / "api.html")
    assert all(f"{name}" in text for name in classgraft.__all__)


def test_nothing_is_loaded_from_elsewhere_and_no_link_is_dead(site: Path) -> None:
    pages = [page for page in site.rglob("*.html") if page.name not in ("genindex.html", "search.html")]
    assert len(pages) > len(catalogue.ENTRIES) + 9
    for page in pages:
        links = Links(page)
        assert not [where for where in links.loaded if re.match(r"(https?:)?//", where)], page
        for where in links.loaded + links.led:
            path = re.split(r"[?#]", where)[0]
            if path and not re.match(r"[a-z]+:", where):
                assert (page.parent / path).exists(), (page, where)
