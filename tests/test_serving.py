"""The page without a browser: what it answers, what it changes, and what it refuses."""

from __future__ import annotations

import html
import io
import os
import re
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from outside import COLOURS, OLD, copied, furnish, photos, run
from PIL import Image

import classgraft
from classgraft.data.sources import open_sources
from classgraft.errors import InputError
from classgraft.folder import Changed, opened, state
from classgraft.proposals import propose
from classgraft.storage import held
from classgraft.training.answers import answers

pytest.importorskip("fastapi")
testing = pytest.importorskip("starlette.testclient")

from classgraft.serving import app, desk, guard  # noqa: E402

HERE = "http://127.0.0.1:8000"


def picture(colour: str = "cyan", seed: int = 0, side: int = 36, form: str = "PNG") -> bytes:
    noise = torch.randn((side, side, 3), generator=torch.Generator().manual_seed(seed)) * 15
    pixels = (noise + torch.tensor(COLOURS[colour])).clamp(0, 255).to(torch.uint8).numpy()
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, form)
    return stream.getvalue()


@pytest.fixture(scope="module")
def furnished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return furnish(tmp_path_factory.mktemp("furnished"))


@pytest.fixture
def place(furnished: Path, tmp_path: Path) -> Path:
    return copied(furnished, tmp_path / "place")


class Browser:
    """A browser on the page: it sends the header that browsers send, and follows redirects."""

    def __init__(self, at: Any, origin: str | None = HERE, host: str = HERE) -> None:
        headers = {} if origin is None else {"origin": origin}
        self.client = testing.TestClient(at, base_url=host, headers=headers, raise_server_exceptions=False)

    def get(self, path: str) -> Any:
        return self.client.get(path)

    def post(self, path: str, *files: bytes, field: str = "photos", follow: bool = True, **fields: str) -> Any:
        parts = [(field, (f"{i}.png", content, "image/png")) for i, content in enumerate(files)]
        return self.client.post(path, data=fields, files=parts or None, follow_redirects=follow)

    def proposed(self, name: str, *files: bytes, **fields: str) -> str:
        """The address of a proposal that is ready or has failed."""
        answer = self.post("/proposals", *files, follow=False, name=name, **fields)
        assert answer.status_code == 303, words(answer)
        where = str(answer.headers["location"])
        self.wait(where)
        return where

    def wait(self, where: str) -> None:
        """Until a proposal is ready or has failed."""

        def done() -> bool:
            page = self.get(where)
            assert page.status_code == 200, words(page)
            return "data-busy" not in page.text

        until(done)


def until(done: Any) -> None:
    end = time.monotonic() + 60
    while not done():
        assert time.monotonic() < end
        time.sleep(0.05)


def words(answer: Any) -> str:
    """The text of a page."""
    return " ".join(html.unescape(re.sub("<[^>]*>", " ", answer.text)).split())


def at(page: Any) -> str:
    """The state that a page was shown in."""
    return re.search('name="at" value="([^"]*)"', page.text).group(1)  # type: ignore[union-attr]


@pytest.fixture
def served(place: Path) -> Iterator[Any]:
    made = desk.Desk(place / "base", method="imprint")
    yield app.application(made)
    made.close()


@pytest.fixture
def browser(served: Any) -> Browser:
    return Browser(served)


THREE = tuple(picture("cyan", seed) for seed in range(3))


# -- the story -----------------------------------------------------------------------------------------------------


def test_a_picture_is_named_as_predict_names_it(browser: Browser, place: Path) -> None:
    shown = words(browser.post("/predict", picture("red"), field="pictures"))
    (place / "red.png").write_bytes(picture("red"))
    (found,) = classgraft.predict(classgraft.load(place / "base"), [place / "red.png"])
    assert f"{found.classes[0]} {100 * found.probabilities[0]:.1f} %" in shown
    assert f"unknown {found.unknown:.2f}" in shown
    assert shown.index(found.classes[0]) < shown.index(found.classes[1])


def test_a_class_is_proposed_accepted_and_undone(browser: Browser, place: Path) -> None:
    before = state(place / "base")
    where = browser.proposed("cyan", *THREE)
    page = browser.get(where)
    assert "A new class from 3 photos" in words(page)
    assert "each half of your photos was judged by a trial model" in words(page)
    assert "not measured: no images of them are at hand" in words(page)
    assert state(place / "base") == before  # nothing has happened yet
    assert "cyan" in words(
        browser.post("/predict", picture("cyan", 9), field="pictures", proposal=where.split("/")[-1])
    )
    after = browser.post(f"{where}/accept")
    assert "Accepted. Last step now: 1 class added by imprint from 3 photos." in words(after)
    assert classgraft.load(place / "base").classes == (*OLD, "cyan")
    assert run("verify", place / "base").code == 0
    assert browser.get(where).status_code == 404
    assert "Taken back" in words(browser.post("/undo", at=at(after)))
    assert classgraft.load(place / "base").classes == OLD
    assert state(place / "base") == before


def test_a_discarded_proposal_leaves_no_trace(browser: Browser, place: Path) -> None:
    before = sorted((path, path.stat().st_mtime_ns) for path in place.rglob("*"))
    where = browser.proposed("cyan", *THREE)
    assert "Waiting for a decision" in words(browser.get("/"))
    assert "Waiting for a decision" not in words(browser.post(f"{where}/discard"))
    assert browser.post(f"{where}/accept").status_code == 404
    assert sorted((path, path.stat().st_mtime_ns) for path in place.rglob("*")) == before


def test_an_added_class_is_removed_and_a_known_one_refined(browser: Browser, place: Path) -> None:
    browser.post(f"{browser.proposed('cyan', *THREE)}/accept")
    assert "tick that it is there" in words(browser.post("/proposals", *THREE, name="cyan"))
    assert "no class 'pink'" in words(browser.post("/proposals", *THREE, name="pink", refine="yes"))
    assert "only classes that an extension added" in words(browser.get(browser.proposed("red", *THREE, refine="yes")))
    gone = browser.post("/remove", name="cyan", at=at(browser.get("/")))
    assert "the class 'cyan' was removed" in words(gone)
    assert classgraft.load(place / "base").classes == OLD


def test_images_given_to_measure_on_are_what_old_and_new_are_measured_on(place: Path) -> None:
    """The numbers are those of ``evaluate`` on the bundle that is accepted then."""
    photos(place / "test", ["cyan"], 5)
    sources = [str(place / "old"), str(place / "test")]
    made = desk.Desk(place / "base", images=sources, method="imprint")
    browser = Browser(app.application(made))
    where = browser.proposed("cyan", *THREE)
    page = words(browser.get(where))
    browser.post(f"{where}/accept")
    made.close()
    bundle = classgraft.load(place / "base")
    found = classgraft.evaluate(bundle, *sources).summary()
    for name in ("old", "new", "harmonic"):
        assert f"{100 * found[name]:.1f} %" in page
    before = classgraft.evaluate(classgraft.undo(bundle), place / "old").accuracy()
    assert f"was {100 * (before or 0):.1f} %" in page
    assert "5 images of the folder that this page was started with; nothing was learnt from them" in page


# -- what a proposal says ------------------------------------------------------------------------------------------


def images(place: Path, names: tuple[str, ...], count: int = 4) -> classgraft.Images:
    bundle = classgraft.load(place / "base")
    source = open_sources(photos(place / "p", names, count))
    return classgraft.api.images_of(source, bundle.preparation)


def test_photos_are_judged_by_models_that_have_not_learnt_from_them(place: Path, monkeypatch: Any) -> None:
    bundle, four = classgraft.load(place / "base"), images(place, ("cyan",))
    seen: list[tuple[str, ...]] = []
    extend = classgraft.api.extend

    def watched(*given: Any, **options: Any) -> Any:
        seen.append(given[1].names)
        return extend(*given, **options)

    monkeypatch.setattr(classgraft.api, "extend", watched)
    found = propose(bundle, four, method="imprint")
    whole, first, second = seen
    assert whole == four.names
    assert sorted(first + second) == sorted(whole)
    assert not set(first) & set(second)
    assert [one.place for one in found.judged] == [0, 1, 2, 3]
    assert found.new is not None
    assert found.new.value == sum(one.right for one in found.judged) / 4
    for learnt in (first, second):
        trial = extend(bundle, four.subset(torch.tensor([four.names.index(n) for n in learnt])), method="imprint")
        for one in found.judged:
            if four.names[one.place] not in learnt:
                single = four.subset(torch.tensor([one.place]))
                assert classgraft.predict(trial, single, 1)[0].classes[0] == one.answered


def test_one_photo_is_not_judged_and_says_so(browser: Browser) -> None:
    page = words(browser.get(browser.proposed("cyan", THREE[0])))
    assert "not measured: one photo cannot be learnt from and judged at once" in page
    assert "Not measured" in page


def test_mistakes_of_the_new_class_alone_are_listed(place: Path) -> None:
    """A class from photos that look like an old one takes its images, and they are named with their number."""
    bundle = classgraft.load(place / "base")
    source = open_sources(place / "old")
    old = classgraft.api.images_of(source, bundle.preparation)
    reds = old.of(("red",))
    found = propose(bundle, classgraft.Images(reds.pixels, reds.labels, ("ruby",), reds.preparation), method="imprint",
                    known=old)  # fmt: skip
    assert found.pairs
    assert all("ruby" in (pair.true, pair.answered) for pair in found.pairs)
    taken = {(pair.true, pair.answered): (pair.count, pair.of) for pair in found.pairs}
    logits = answers(found.bundle.model, reds).argmax(1).tolist()
    assert taken.get(("red", "ruby"), (0, 3)) == (logits.count(3), 3)
    assert sum(share for _, share in found.nearest) <= 1
    assert "ruby" not in dict(found.nearest)
    assert found.old is not None
    assert found.change is not None
    assert found.change.before + found.change.value == pytest.approx(found.old.value)


# -- two at once ---------------------------------------------------------------------------------------------------


def test_a_proposal_is_refused_once_the_model_has_changed_and_can_be_made_again(browser: Browser, place: Path) -> None:
    first, second = browser.proposed("cyan", *THREE), browser.proposed("pink", *(picture("pink", i) for i in range(3)))
    browser.post(f"{first}/accept")
    answer = browser.post(f"{second}/accept")
    assert answer.status_code == 409
    assert "The model was changed after this proposal was made" in words(answer)
    assert classgraft.load(place / "base").classes == (*OLD, "cyan")
    browser.post(f"{second}/again")
    browser.wait(second)
    assert "Accepted" in words(browser.post(f"{second}/accept"))
    assert classgraft.load(place / "base").classes == (*OLD, "cyan", "pink")


def test_what_another_program_changed_is_seen_and_not_overwritten(browser: Browser, place: Path) -> None:
    where, shown = browser.proposed("cyan", *THREE), browser.get("/")
    assert run("remove", place / "base", "green").code == 0
    assert browser.post(f"{where}/accept").status_code == 409
    assert "green" not in words(browser.post("/predict", picture("red"), field="pictures"))[:600]
    assert "Undo" in words(browser.get("/"))
    assert browser.post("/undo", at=at(browser.get("/"))).status_code == 200
    assert "Undo" not in words(shown)
    assert classgraft.load(place / "base").classes == OLD


def test_of_two_who_accept_at_once_one_is_refused(served: Any, place: Path) -> None:
    browsers = [Browser(served) for _ in range(4)]
    colours = ("cyan", "pink", "grey", "green")
    wheres = [b.proposed(f"new {c}", picture(c, 1), picture(c, 2)) for b, c in zip(browsers, colours, strict=True)]
    barrier = threading.Barrier(len(browsers))

    def accept(browser: Browser, where: str) -> int:
        barrier.wait()
        return int(browser.post(f"{where}/accept").status_code)

    with ThreadPoolExecutor(len(browsers)) as pool:
        codes = list(pool.map(accept, browsers, wheres))
    assert sorted(codes) == [200, 409, 409, 409]
    bundle = classgraft.load(place / "base")
    assert bundle.classes == (*OLD, f"new {colours[codes.index(200)]}")
    assert run("verify", place / "base").code == 0
    assert not [path for path in place.iterdir() if path.name.startswith(".")]


def test_an_old_page_undoes_nothing_that_it_does_not_show(browser: Browser, place: Path) -> None:
    browser.post(f"{browser.proposed('cyan', *THREE)}/accept")
    shown = at(browser.get("/"))
    browser.post(f"{browser.proposed('pink', *THREE)}/accept")
    for path, fields in (("/undo", {}), ("/remove", {"name": "cyan"})):
        answer = browser.post(path, at=shown, **fields)
        assert answer.status_code == 409
        assert "changed after this page was shown" in words(answer)
    assert classgraft.load(place / "base").classes == (*OLD, "cyan", "pink")


@pytest.mark.parametrize("part", ["", "config.json"])
def test_nobody_moves_a_bundle_between_two_looks_at_it(place: Path, monkeypatch: Any, part: str) -> None:
    """Between the two moves of a replacement there is nothing in its place, which is not to be taken for a file."""
    bundle, at = opened(place / "base")
    look, moves = os.path.lexists, []

    def moving(away: threading.Event) -> None:
        with held(place / "base"):
            (place / "base").rename(place / "away")
            away.set()
            time.sleep(0.1)
            (place / "away").rename(place / "base")

    def slowly(path: Any) -> bool:
        there = look(path)
        if Path(path) == place / "base" / part:
            away = threading.Event()
            moves.append(pool.submit(moving, away))
            away.wait(0.2)
        return there

    with ThreadPoolExecutor(8) as pool:
        monkeypatch.setattr("os.path.lexists", slowly)
        classgraft.save(classgraft.api.remove(bundle, "red"), place / "base", expecting=at)
        monkeypatch.undo()
        assert moves
        for moved in moves:
            moved.result()
    assert classgraft.load(place / "base").classes == ("green", "blue")


def test_saving_over_what_has_changed_is_refused_at_the_last_moment(place: Path, monkeypatch: Any) -> None:
    """Somebody comes in between the first look and the move."""
    bundle, at = opened(place / "base")
    other = classgraft.api.remove(bundle, "green")
    write = classgraft.folder.card

    def slow(given: Any) -> str:
        monkeypatch.setattr("classgraft.folder.card", write)
        classgraft.save(other, place / "base")
        return write(given)

    monkeypatch.setattr("classgraft.folder.card", slow)
    with pytest.raises(Changed, match=r"was changed after this was made from it; load it again"):
        classgraft.save(classgraft.api.remove(bundle, "red"), place / "base", expecting=at)
    assert classgraft.load(place / "base").classes == ("red", "blue")
    assert not [path for path in place.iterdir() if path.name.startswith(".")]


# -- what is refused -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("host", "known"),
    [
        ("http://localhost:8000", True), ("http://127.0.0.1", True), ("http://[::1]:8000", True), ("http://192.168.1.7", True),
        ("http://evil.example", False), ("http://127.0.0.1.evil.example", False), ("http://localhost.evil.example:8000", False),
    ],
)  # fmt: skip
def test_the_page_answers_only_under_its_own_names(served: Any, host: str, known: bool) -> None:
    answer = Browser(served, origin=host, host=host).get("/")
    assert answer.status_code == (200 if known else 403)
    assert ("What is it?" in answer.text) == known


def test_only_the_page_itself_changes_something(served: Any, browser: Browser, place: Path) -> None:
    browser.post(f"{browser.proposed('cyan', *THREE)}/accept")
    where, before = browser.proposed("pink", *THREE), state(place / "base")
    asked = [("/undo", {"at": at(browser.get("/"))}), (f"{where}/accept", {}), (f"{where}/discard", {}), ("/predict", {}),
             ("/proposals", {"name": "x"})]  # fmt: skip
    for origin in (None, "null", "http://[", "http://evil.example", "http://127.0.0.1:9", "http://127.0.0.1", ""):
        stranger = Browser(served, origin=origin)
        assert [stranger.post(path, *THREE[:1], **fields).status_code for path, fields in asked] == [403] * 5, origin
    assert state(place / "base") == before
    assert browser.get(where).status_code == 200


def test_other_pages_may_neither_frame_nor_read_nor_script_this_one(browser: Browser) -> None:
    for path in ("/", "/assets/page.js", "/nothing"):
        answer = browser.get(path)
        assert "default-src 'none'" in answer.headers["content-security-policy"]
        assert "frame-ancestors 'none'" in answer.headers["content-security-policy"]
        assert answer.headers["cross-origin-resource-policy"] == "same-origin"
        assert answer.headers["x-content-type-options"] == "nosniff"
        assert "access-control-allow-origin" not in answer.headers
    preflight = browser.client.options("/undo", headers={"access-control-request-method": "POST"})
    assert "access-control-allow-origin" not in preflight.headers


def test_nothing_comes_from_outside(browser: Browser) -> None:
    for path in ("/", "/assets/style.css", "/assets/page.js"):
        text = browser.get(path).text
        assert not re.search(r"(https?:)?//\w", text.replace(HERE, "")), path
    for path in ("/docs", "/redoc", "/openapi.json"):
        assert browser.get(path).status_code == 404


@pytest.mark.parametrize("path", ["/assets/../desk.py", "/assets/..%2fdesk.py", "/assets/desk.py", "/assets/%00",
                                  "/proposals/x", "/nothing"])  # fmt: skip
def test_no_other_file_is_sent(browser: Browser, path: str) -> None:
    answer = browser.get(path)
    assert answer.status_code == 404
    assert "There is no" in words(answer) or "There is nothing here" in words(answer)


BAD = {
    "nothing": b"",
    "text": b"no image at all",
    "half": picture(side=64)[:3000],
    "bomb": b"\x89PNG\r\n\x1a\n" + b"\0\0\0\rIHDR" + (60_000).to_bytes(4, "big") * 2 + b"\x08\2\0\0\0" + b"\0" * 4,
}


@pytest.mark.parametrize("kind", BAD)
def test_a_picture_that_cannot_be_used_is_an_error_in_a_sentence(browser: Browser, kind: str) -> None:
    for path, fields in (("/predict", {}), ("/proposals", {"name": "cyan"})):
        answer = browser.post(path, BAD[kind], field="pictures", **fields)
        assert answer.status_code == 400
        assert "image '0.png' cannot be used: " in words(answer)
        assert "Traceback" not in answer.text


def test_bad_pictures_among_good_ones_are_left_out_and_said(browser: Browser) -> None:
    page = words(browser.get(browser.proposed("cyan", *THREE, BAD["text"])))
    assert "from 3 photos" in page
    assert "1 corrupt image skipped: image '3.png' cannot be used" in page


def test_an_image_of_more_pixels_than_a_camera_makes_is_refused_by_its_header(
    browser: Browser, monkeypatch: Any
) -> None:
    monkeypatch.setattr(desk, "PIXELS", 36 * 36 - 1)
    assert "36 x 36 is more than 1,295 pixels; make it smaller." in words(browser.post("/predict", THREE[0]))
    monkeypatch.setattr(desk, "PIXELS", 36 * 36)
    assert browser.post("/predict", THREE[0]).status_code == 200


def test_uploads_are_limited_in_number_and_bytes(served: Any, browser: Browser, monkeypatch: Any) -> None:
    monkeypatch.setattr(app, "PHOTOS", 2)
    answer = browser.post("/predict", *THREE)
    assert answer.status_code == 413
    assert "More than 2 pictures came at once; send fewer." in words(answer)
    monkeypatch.setattr(served, "most", 2000)
    answer = browser.post("/predict", THREE[0])
    assert (answer.status_code, "send fewer or smaller ones" in words(answer)) == (413, True)
    body = (chunk for chunk in [b"x" * 1000] * 9)  # without a length
    answer = browser.client.post("/predict", content=body, headers={"content-type": "multipart/form-data; boundary=b"})
    assert (answer.status_code, "send fewer or smaller ones" in words(answer)) == (413, True)


def test_only_so_many_proposals_wait(browser: Browser, monkeypatch: Any) -> None:
    monkeypatch.setattr(desk, "WAITING", 1)
    where = browser.proposed("cyan", THREE[0])
    assert "1 proposals wait already" in words(browser.post("/proposals", THREE[0], name="pink"))
    browser.post(f"{where}/discard")
    browser.proposed("pink", THREE[0])


HOSTILE = ("../../etc/passwd", "<script>alert(1)</script>", "\"><img src=x onerror=alert(1)>", "{{ 7*7 }}",
           "x\u202egnp.exe", "日本 語", "a" * desk.NAME)  # fmt: skip


def test_names_are_words_never_paths_nor_markup(browser: Browser, place: Path) -> None:
    before = {path for path in place.parent.rglob("*") if not path.is_relative_to(place / "base")}
    pages = []
    for name in HOSTILE:
        where = browser.proposed(name, THREE[0])
        pages += [browser.get(where).text, browser.get("/").text, browser.post(f"{where}/accept").text]
        pages.append(browser.post("/predict", THREE[0]).text)
    for text in pages:
        assert "<script>alert" not in text
        assert "<img src=x" not in text
    assert "{{ 7*7 }}" in pages[-1]
    assert classgraft.load(place / "base").classes == (*OLD, *HOSTILE)
    assert {path for path in place.parent.rglob("*") if not path.is_relative_to(place / "base")} == before


@pytest.mark.parametrize("name", ["", "   ", "a\nb", "a\0b", "x" * (desk.NAME + 1)])
def test_names_that_are_none_are_refused(browser: Browser, name: str) -> None:
    answer = browser.post("/proposals", THREE[0], name=name)
    assert answer.status_code == 400
    assert "name" in words(answer)


def test_names_of_files_are_cut_to_words(browser: Browser) -> None:
    parts = [("pictures", ("../../<b>\u0007" + "y" * 200 + ".png", b"no image", "image/png"))]
    answer = browser.client.post("/predict", files=parts)
    assert answer.status_code == 400
    assert "<b>" not in answer.text
    assert "../" not in answer.text
    assert "y" * 81 not in answer.text


@pytest.mark.parametrize(
    "body", [b"", b"--b\r\n", b"--b\r\nContent-Disposition: form-data\r\n\r\nx\r\n--b--\r\n", b"\xff" * 99]
)
def test_forms_that_are_none_are_refused(browser: Browser, body: bytes) -> None:
    kind = {"content-type": "multipart/form-data; boundary=b"}
    answer = browser.client.post("/proposals", content=body, headers=kind)
    assert answer.status_code == 400


def test_a_bug_gives_a_plain_page(browser: Browser, served: Any, monkeypatch: Any) -> None:
    monkeypatch.setattr(desk.Desk, "answers", lambda *_: 1 / 0)
    answer = browser.post("/predict", THREE[0])
    assert answer.status_code == 500
    assert "Something in classgraft went wrong" in words(answer)
    assert "ZeroDivisionError" not in answer.text
    assert "content-security-policy" in answer.headers


def test_a_bug_while_learning_leaves_the_page_working(browser: Browser, monkeypatch: Any) -> None:
    monkeypatch.setattr(desk, "propose", lambda *_, **__: 1 / 0)
    page = words(browser.get(browser.proposed("cyan", *THREE)))
    assert "Something in classgraft went wrong" in page
    assert "ZeroDivision" not in page
    monkeypatch.undo()
    assert "A new class" in words(browser.get(browser.proposed("cyan", *THREE)))


def test_a_bundle_that_is_gone_is_an_error_that_tells_no_path(browser: Browser, place: Path) -> None:
    (place / "base").rename(place / "elsewhere")
    answer = browser.get("/")
    assert answer.status_code == 400
    assert "'base' is not there" in words(answer)
    assert str(place) not in answer.text
    (place / "elsewhere").rename(place / "base")
    assert browser.get("/").status_code == 200


# -- the command ---------------------------------------------------------------------------------------------------


def test_the_command_says_what_is_missing_or_in_the_way(place: Path, monkeypatch: Any) -> None:
    assert "no bundle" in run("serve", place / "old").err
    ran = run("serve", place / "base", "--host", "256.1.2.3", "--port", 0)
    assert (ran.code, "cannot be listened on" in ran.err) == (2, True)
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "uvicorn" else find(name))
    ran = run("serve", place / "base")
    assert (ran.code, "pip install 'classgraft[serve]'" in ran.err) == (2, True)


@pytest.mark.parametrize(("host", "warned"), [("127.0.0.1", False), ("0.0.0.0", True), ("localhost", False)])
def test_a_word_of_warning_where_others_can_reach_the_page(monkeypatch: Any, host: str, warned: bool) -> None:
    uvicorn = pytest.importorskip("uvicorn")
    listened: list[Any] = []
    monkeypatch.setattr(uvicorn.Server, "run", lambda self, sockets: listened.extend(s.getsockname() for s in sockets))
    told: list[str] = []
    warnings: list[str] = []
    app.run(None, host, 0, told.append, warnings.append)  # type: ignore[arg-type]
    assert len(listened) == 1
    assert told == [f"http://{host}:{listened[0][1]}/"]
    assert len(warnings) == warned


def test_loopback_is_told_from_other_addresses() -> None:
    assert [guard.is_loopback(a) for a in ("127.0.0.1", "127.9.9.9", "::1", "0.0.0.0", "::", "10.0.0.1", "fe80::1%eth0")] == [
        True, True, True, False, False, False, False,
    ]  # fmt: skip


def test_a_port_that_is_taken_is_an_error_in_a_sentence() -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(InputError, match="choose --host or --port"):
        app.run(None, "127.0.0.1", taken.getsockname()[1], print, print)  # type: ignore[arg-type]


def test_a_large_picture_goes_through_no_file(browser: Browser, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(self: object) -> None:
        raise AssertionError("an upload was written to the disk")

    monkeypatch.setattr("tempfile.SpooledTemporaryFile.rollover", refused)
    noise = np.random.default_rng(0).integers(0, 256, (900, 900, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, "PNG")
    assert len(buffer.getvalue()) > 2 << 20
    assert browser.post("/predict", buffer.getvalue(), field="pictures").status_code == 200
