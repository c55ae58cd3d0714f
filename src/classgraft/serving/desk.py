"""What the page works on: one bundle's folder, and the proposals that wait for a decision. It knows nothing of HTTP."""

from __future__ import annotations

import contextvars
import logging
import queue
import secrets
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Literal

from classgraft import api
from classgraft.bundle import Bundle
from classgraft.data.decode import check_size
from classgraft.data.images import Images
from classgraft.data.names import check_names
from classgraft.data.sources import Photo, Source, open_sources
from classgraft.errors import InputError
from classgraft.folder import Changed, opened, state
from classgraft.proposals import Proposal, look_ahead, propose
from classgraft.training.loop import show_progress, silent

WAITING = 8
"""Proposals that may wait for a decision at a time; each holds a model."""
PIXELS = 50_000_000
"""Of an uploaded image: what cameras make, and half of what files may have."""
NAME = 200
"""Characters of a class name."""

log = logging.getLogger(__name__)


class Gone(InputError):
    """There is no such proposal."""


@dataclass(frozen=True)
class Upload:
    """A file as it came: its name is words for a message, never a path."""

    name: str
    content: bytes = field(repr=False)


@dataclass
class Ticket:
    """A proposal on its way: asked for, worked on, then ready or failed."""

    key: str
    name: str
    refine: bool
    photos: Images
    warnings: tuple[str, ...]
    """Of the photos, such as those that could not be used."""
    standing: Literal["waiting", "working", "ready", "failed"] = "waiting"
    state: str = ""
    """Of the folder that the proposal was made from."""
    steps: tuple[str, int, int] = ("", 0, 0)
    """What is being done, how much of it is done and how much there is."""
    proposal: Proposal | None = None
    failure: str = ""


@dataclass(frozen=True)
class Answers:
    """What a model says of some pictures."""

    images: Images
    predictions: tuple[api.Prediction, ...]
    warnings: tuple[str, ...]


class Desk:
    """Answers from the bundle as it lies in its folder now; makes proposals one at a time, in a thread of its own.

    Nothing is written until a proposal is accepted, and then only if the folder still holds what it was made from.
    """

    def __init__(
        self,
        folder: Path,
        *,
        images: Sequence[str] = (),
        method: str = "auto",
        settings: Mapping[str, Any] | None = None,
        placed: Callable[[Bundle], Bundle] = lambda bundle: bundle,
        warn: Callable[[str], None] = lambda sentence: None,
    ) -> None:
        self.folder, self._method, self._settings, self._placed = folder, method, settings, placed
        self._lock = threading.Lock()
        """Of the two that follow."""
        self._held: tuple[Bundle, str] | None = None
        self._tickets: dict[str, Ticket] = {}
        self._decoding = threading.Lock()
        """One upload is decoded at a time, so that many cannot fill the memory."""
        bundle, _ = self.current()
        self.known = api.images_of(open_sources(list(images)), bundle.preparation, warn=warn) if images else None
        self._work: queue.Queue[Ticket | None] = queue.Queue()
        context = contextvars.copy_context()  # the device that was asked for
        self._worker = threading.Thread(target=lambda: context.run(self._labour), daemon=True)
        show_progress(self._progress)
        self._worker.start()

    def close(self) -> None:
        """Start no more work, and let the proposals go."""
        show_progress(silent)
        with self._lock:
            self._tickets.clear()
        self._work.put(None)

    def current(self) -> tuple[Bundle, str]:
        """The bundle as it lies in the folder, and the state of that."""
        with self._lock:
            if self._held is None or self._held[1] != state(self.folder):
                bundle, at = opened(self.folder)
                self._held = self._placed(bundle), at
            return self._held

    def answers(self, pictures: Sequence[Upload], key: str = "") -> Answers:
        """Of the bundle; or of a proposal's, which nobody has accepted yet."""
        bundle = _ready(self.ticket(key)).bundle if key else self.current()[0]
        images, warnings = self._decoded(pictures, bundle, "")
        with self._decoding:
            return Answers(images, tuple(api.predict(bundle, images)), warnings)

    def propose(self, name: str, photos: Sequence[Upload], refine: bool = False) -> Ticket:
        """Ask for a new class, or for a better one; what can be refused at once is."""
        (name,) = check_names([name], "the name of the class")
        if len(name) > NAME:
            raise InputError(f"The name of the class has {len(name)} characters; use {NAME} at most.")
        bundle, _ = self.current()
        if name in bundle.classes and not refine:
            raise InputError(
                f"The model already has the class '{name}'; choose another name, or tick that it is there."
            )
        if refine and name not in bundle.classes:
            raise InputError(f"The model has no class '{name}' to add photos to; correct the name, or untick that.")
        self._room()
        images, warnings = self._decoded(photos, bundle, name)
        return self._queued(Ticket(secrets.token_urlsafe(6), name, refine, images, warnings))

    def again(self, key: str) -> Ticket:
        """Make the same proposal from what the folder holds now."""
        earlier = self.ticket(key)
        self.discard(key)
        return self._queued(Ticket(earlier.key, earlier.name, earlier.refine, earlier.photos, earlier.warnings))

    def ticket(self, key: str) -> Ticket:
        with self._lock:
            if key not in self._tickets:
                raise Gone("There is no such proposal, or no longer: somebody has accepted or discarded it.")
            return self._tickets[key]

    @property
    def tickets(self) -> list[Ticket]:
        """Those that wait for a decision, oldest first."""
        with self._lock:
            return list(self._tickets.values())

    def stale(self, ticket: Ticket) -> bool:
        """Whether the folder holds something else than what the proposal was made from."""
        return bool(ticket.state) and ticket.state != state(self.folder)

    def accept(self, key: str) -> str:
        """Put the proposed bundle in the place of the one that it was made from; what was done, in a sentence."""
        ticket = self.ticket(key)  # once: under its key there may be another by now
        proposal = _ready(ticket)
        api.save(proposal.bundle, self.folder, expecting=ticket.state)
        self.discard(key)
        return str(proposal.bundle.history[-1]["sentence"])

    def discard(self, key: str) -> None:
        with self._lock:
            self._tickets.pop(key, None)

    def undo(self, at: str) -> str:
        """Take back the last step, if the folder is in this state still; what was taken back."""
        bundle = self._still(at)
        api.save(api.undo(bundle), self.folder, expecting=at)
        return str(bundle.history[-1]["sentence"])

    def remove(self, name: str, at: str) -> str:
        """Remove a class, if the folder is in this state still; what was done."""
        smaller = api.remove(self._still(at), name)
        api.save(smaller, self.folder, expecting=at)
        return str(smaller.history[-1]["sentence"])

    def _still(self, at: str) -> Bundle:
        bundle, found = self.current()
        if found != at:
            raise Changed("The model was changed after this page was shown; look at it again before you decide.")
        return bundle

    def _room(self) -> None:
        if len(self._tickets) >= WAITING:
            raise InputError(f"{WAITING} proposals wait already; accept or discard one of them first.")

    def _queued(self, ticket: Ticket) -> Ticket:
        with self._lock:
            self._room()
            self._tickets[ticket.key] = ticket
        self._work.put(ticket)
        return ticket

    def _decoded(self, uploads: Sequence[Upload], bundle: Bundle, name: str) -> tuple[Images, tuple[str, ...]]:
        """Squares of what can be used, and a sentence for the rest; a single photo that cannot be is an error."""
        if not uploads:
            raise InputError("No picture came along; choose one at least.")
        photos = tuple(Photo(upload.name, _reader(upload)) for upload in uploads)
        source = Source((name,) if name else (), photos, (0,) * len(photos) if name else ())
        said: list[str] = []
        with self._decoding:
            images = api.images_of(source, bundle.preparation, strict=len(photos) == 1, warn=said.append)
        return images, tuple(said)

    def _labour(self) -> None:
        if self.known is not None:
            try:
                look_ahead(self._placed(opened(self.folder)[0]), self.known)
            except Exception:  # the first proposal will say what is wrong
                log.debug("the images could not be looked at ahead", exc_info=True)
        while ticket := self._work.get():
            if self._tickets.get(ticket.key) is not ticket:  # discarded before its turn
                continue
            ticket.standing = "working"
            try:
                # a copy of its own: training must not share modules with the predictions that go on meanwhile
                bundle, ticket.state = opened(self.folder)
                proposal = propose(
                    self._placed(bundle), ticket.photos, method=self._method, settings=self._settings,
                    update=ticket.refine, known=self.known,
                )  # fmt: skip
                ticket.proposal = replace(proposal, warnings=(*ticket.warnings, *proposal.warnings))
                ticket.standing = "ready"
            except InputError as error:
                ticket.failure, ticket.standing = str(error), "failed"
            except Exception:
                log.exception("a proposal could not be made")
                ticket.failure = "Something in classgraft went wrong; where it was started stands what."
                ticket.standing = "failed"

    def _progress(self, what: str, done: int, total: int, terms: dict[str, float]) -> None:
        if threading.current_thread() is self._worker:
            for ticket in self.tickets:
                if ticket.standing == "working":
                    ticket.steps = (what, done, total)


def _ready(ticket: Ticket) -> Proposal:
    if ticket.proposal is None:
        raise InputError("This proposal is not ready; wait until it is.")
    return ticket.proposal


def _reader(upload: Upload) -> Callable[[], bytes]:
    def read() -> bytes:
        check_size(upload.content, upload.name, PIXELS)
        return upload.content

    return read
