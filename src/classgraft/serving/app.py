"""The page: routes from a browser to the desk, and back as HTML that needs no script."""

from __future__ import annotations

import re
import socket
from collections.abc import Awaitable, Callable, Sequence
from importlib.resources import files
from typing import Annotated, Any

from fastapi import Depends, FastAPI, Request
from fastapi.responses import HTMLResponse, RedirectResponse, Response
from jinja2 import PackageLoader
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartParser
from starlette.types import ASGIApp

from classgraft import __version__
from classgraft.bundle import grafted
from classgraft.errors import InputError
from classgraft.folder import Changed
from classgraft.report.page import ENVIRONMENT, without_controls
from classgraft.serving.desk import NAME, Answers, Desk, Gone, Upload
from classgraft.serving.guard import Guard, TooMuch, is_loopback

PHOTOS = 100
"""Files in one upload."""
BYTES = 128 << 20
"""Of one upload, altogether."""
FIELDS = 8
SAID = {"accepted": "Accepted", "undone": "Taken back", "removed": "Done"}
STATUS = {Gone: 404, Changed: 409, TooMuch: 413}

pages = ENVIRONMENT.overlay(loader=PackageLoader("classgraft.serving", ""))
SENT = {
    "style.css": ("text/css", (files("classgraft.report") / "style.css", files("classgraft.serving") / "page.css")),
    "page.js": ("text/javascript", (files("classgraft.serving") / "page.js",)),
}
"""What may be asked for under /assets, its type and what it is put together from."""


class Form:
    """What a form sent: its fields by name, and its files."""

    def __init__(self, fields: dict[str, str], uploads: Sequence[Upload]) -> None:
        self.fields, self.uploads = fields, uploads

    def __getitem__(self, name: str) -> str:
        return self.fields.get(name, "")


async def received(request: Request) -> Form:
    """A form within the limits. Files are kept in memory; their names are cut to words for a message."""
    MultiPartParser.spool_max_size = BYTES + 1  # else what is larger than 1 MiB goes through a file
    try:
        async with request.form(max_files=PHOTOS, max_fields=FIELDS, max_part_size=1 << 16) as form:
            uploads = [
                Upload(_words(part.filename), await part.read())
                for _, part in form.multi_items()
                if isinstance(part, UploadFile) and part.filename
            ]
            return Form({name: part for name, part in form.multi_items() if isinstance(part, str)}, uploads)
    except HTTPException as error:
        if "Too many files" in str(error.detail):
            raise TooMuch(f"More than {PHOTOS} pictures came at once; send fewer.") from error
        raise InputError("The form cannot be read; open the page again and use its buttons.") from error


def _words(filename: str) -> str:
    """What a person knows a file by: the last part of its name, printable and not long."""
    last = re.split(r"[/\\]", filename)[-1]
    return "".join(c if c.isprintable() else " " for c in last)[-80:].strip() or "picture"


Sent = Annotated[Form, Depends(received)]


def application(desk: Desk, host: str = "127.0.0.1") -> ASGIApp:
    """The page of a desk behind its guard.

    Args:
        desk: what it shows and changes.
        host: the name or address that it was started for.
    """
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)

    def page(name: str, status: int = 200, **facts: Any) -> HTMLResponse:
        given = {"version": __version__, "folder": desk.folder.name or str(desk.folder), "name_limit": NAME,
                 "photo_limit": PHOTOS, "byte_limit": BYTES}  # fmt: skip
        text = pages.get_template(f"{name}.html.jinja").render(**given | facts)
        return HTMLResponse(without_controls(text), status)

    def front(answers: Answers | None = None, said: str = "") -> HTMLResponse:
        bundle, at = desk.current()
        tickets = [(ticket, desk.stale(ticket)) for ticket in desk.tickets]
        return page("front", bundle=bundle, at=at, tickets=tickets, known=desk.known, answers=answers, said=said,
                    grafted=grafted(bundle))  # fmt: skip

    def proposal(key: str, status: int = 200, answers: Answers | None = None) -> HTMLResponse:
        ticket = desk.ticket(key)
        return page("proposal", status, bundle=desk.current()[0], ticket=ticket, stale=desk.stale(ticket),
                    known=desk.known, answers=answers)  # fmt: skip

    def failed(error: str, status: int) -> HTMLResponse:
        # the folder is this machine's affair; who looks from another need not know where it lies
        return page("sorry", status, error=error.replace(str(desk.folder), desk.folder.name))

    @app.get("/")
    def show(said: str = "") -> Response:
        bundle, _ = desk.current()
        last = bundle.history[-1]["sentence"] if bundle.history else ""
        return front(said=f"{SAID[said]}. Last step now: {last}." if said in SAID else "")

    @app.get("/assets/{name}")
    def asset(name: str) -> Response:
        if name not in SENT:
            raise HTTPException(404)
        kind, parts = SENT[name]
        return Response("\n".join(part.read_text("utf-8") for part in parts), media_type=kind)

    @app.post("/predict")
    def predict(form: Sent) -> Response:
        key = form["proposal"]
        found = desk.answers(form.uploads, key)
        return proposal(key, answers=found) if key else front(answers=found)

    @app.post("/proposals")
    def propose(form: Sent) -> Response:
        ticket = desk.propose(form["name"], form.uploads, bool(form["refine"]))
        return _to(f"/proposals/{ticket.key}")

    @app.get("/proposals/{key}")
    def look(key: str) -> Response:
        return proposal(key)

    @app.post("/proposals/{key}/accept")
    def accept(key: str) -> Response:
        try:
            desk.accept(key)
        except Changed:
            return proposal(key, 409)
        return _to("/?said=accepted")

    @app.post("/proposals/{key}/again")
    def again(key: str) -> Response:
        return _to(f"/proposals/{desk.again(key).key}")

    @app.post("/proposals/{key}/discard")
    def discard(key: str) -> Response:
        desk.discard(key)
        return _to("/")

    @app.post("/undo")
    def undo(form: Sent) -> Response:
        desk.undo(form["at"])
        return _to("/?said=undone")

    @app.post("/remove")
    def remove(form: Sent) -> Response:
        desk.remove(form["name"], form["at"])
        return _to("/?said=removed")

    def refused(_: Request, error: Exception) -> Response:
        return failed(str(error), next((code for kind, code in STATUS.items() if isinstance(error, kind)), 400))

    def absent(_: Request, error: Exception) -> Response:
        status = error.status_code if isinstance(error, HTTPException) else 400
        return failed("There is nothing here; go back to the front page.", status)

    def bug(_: Request, error: Exception) -> Response:
        return failed("Something in classgraft went wrong; where it was started stands what.", 500)

    handlers: dict[Any, Callable[[Request, Exception], Response | Awaitable[Response]]] = {
        InputError: refused, HTTPException: absent, Exception: bug
    }  # fmt: skip
    for kind, handler in handlers.items():
        app.add_exception_handler(kind, handler)
    return Guard(app, host, BYTES)


def _to(where: str) -> RedirectResponse:
    return RedirectResponse(where, 303)


def run(desk: Desk, host: str, port: int, tell: Callable[[str], None], warn: Callable[[str], None]) -> None:
    """Answer browsers until somebody stops the program.

    Args:
        desk: what the page works on.
        host: the name or address to listen on.
        port: of it; 0 for any that is free.
        tell: hears the page's address once it can be opened.
        warn: hears it when others than this machine can reach the page.

    Raises:
        InputError: the address cannot be listened on.
    """
    import uvicorn

    try:
        family, _, _, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)[0]
        listening = socket.create_server(address[:2], family=family)
    except (OSError, OverflowError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(
            f"'{host}', port {port}, cannot be listened on ({reason}); choose --host or --port."
        ) from error
    with listening:
        bound, number = listening.getsockname()[:2]
        if not is_loopback(bound):
            warn(f"{bound} is no loopback address: whoever reaches it can use and change this model.")
        shown = f"[{host}]" if ":" in host else host
        tell(f"http://{shown}:{number}/")
        config = uvicorn.Config(
            application(desk, host), log_level="warning", access_log=False, server_header=False, proxy_headers=False,
            limit_concurrency=64, timeout_graceful_shutdown=3, ws="none",
        )  # fmt: skip
        uvicorn.Server(config).run([listening])
