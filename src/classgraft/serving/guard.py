"""What stands before the page: who may ask, how much may be sent, and what a browser may do with the answers."""

from __future__ import annotations

import ipaddress
import socket
from typing import TYPE_CHECKING
from urllib.parse import SplitResult, urlsplit

from classgraft.errors import InputError

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

POLICY = (
    "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self' data: blob:; media-src blob:; connect-src 'self';"
    " form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
    "referrer-policy": "same-origin",  # with no-referrer browsers would send "Origin: null" along with our own forms
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "permissions-policy": "camera=(self), microphone=(), geolocation=()",
    "cache-control": "no-store",
}
SAFE = ("GET", "HEAD")


class TooMuch(InputError):
    """More bytes than may be sent at a time."""


class Guard:
    """An application behind the checks.

    The host that was asked for must be a number, ``localhost``, this machine's name or the one that the page was started
    for: a page elsewhere whose name was pointed here (DNS rebinding) has another. What changes something must come from a
    page of this very host and port, as the browser says in ``Origin``.
    """

    def __init__(self, app: ASGIApp, host: str, most: int) -> None:
        self.app, self.most = app, most
        machine = socket.gethostname().lower()
        self.names = {"localhost", host.lower(), machine, f"{machine}.local"}

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "lifespan":
            await self.app(scope, receive, send)
            return
        if scope["type"] != "http":
            await send({"type": "websocket.close"})
            return
        refusal, got = self.refusal(scope), 0

        async def guarded(message: Message) -> None:
            if message["type"] == "http.response.start":
                own = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                message = {**message, "headers": [*message.get("headers", ()), *own]}
            await send(message)

        async def counted() -> Message:
            nonlocal got
            if _length(scope) > self.most:
                raise TooMuch(self.too_much)
            message = await receive()
            got += len(message.get("body", b""))
            if got > self.most:
                raise TooMuch(self.too_much)
            return message

        if refusal:
            await guarded({"type": "http.response.start", "status": 403, "headers": [_PLAIN]})
            await guarded({"type": "http.response.body", "body": refusal.encode()})
            return
        await self.app(scope, counted, guarded)

    @property
    def too_much(self) -> str:
        return f"The pictures are more than {self.most >> 20} MiB together; send fewer or smaller ones."

    def refusal(self, scope: Scope) -> str:
        """Why this request is not answered; empty where it is."""
        host = _header(scope, b"host")
        if not self._is_here(host):
            return (
                "Refused: this page is not to be had under the name that it was asked for; use localhost or its number."
            )
        if scope["method"] not in SAFE and _split(_header(scope, b"origin")).netloc.lower() != host.lower():
            return "Refused: only this page itself may change something here; open it and use its buttons."
        return ""

    def _is_here(self, host: str) -> bool:
        name = _split(f"//{host}").hostname or ""
        return name in self.names or _is_number(name)


_PLAIN = (b"content-type", b"text/plain; charset=utf-8")


def _split(address: str) -> SplitResult:
    """Empty where it is no address."""
    try:
        return urlsplit(address)
    except ValueError:
        return urlsplit("")


def _header(scope: Scope, name: bytes) -> str:
    """Empty where it is missing or there are several."""
    found = [value for key, value in scope["headers"] if key == name]
    return found[0].decode("latin-1") if len(found) == 1 else ""


def _length(scope: Scope) -> int:
    stated = _header(scope, b"content-length")
    return int(stated) if stated.isdecimal() else 0


def _is_number(name: str) -> bool:
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def is_loopback(address: str) -> bool:
    """Whether only this machine can reach it."""
    return ipaddress.ip_address(address.partition("%")[0]).is_loopback
