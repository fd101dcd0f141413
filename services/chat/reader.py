"""The one journal reader: live events and replay in, text out; never a gap, never a repeat.

It does no input or output of its own. A driver (the web relay, the CLI, a test) feeds it live events, journal reads
and heads, and asks `wants` what to fetch next. A cursor is (offset in code points, nonce): stream ids are reused when
Redis loses its tail, an offset under a nonce is not.

The rules: subscribe, then read; a live event counts only if its nonce is the one verified last and it continues the
text; anything else means *read the whole journal and compare*. If what was shown is no prefix of the journal, `Rewind`
says so. While silent, compare the head; without progress, audit the queue.
"""

import os.path
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

from services.chat.journal import Head
from services.wire.messages import Event

HEAD_INTERVAL_S = 2.0
AUDIT_INTERVAL_S = 5.0


@dataclass(frozen=True)
class Text:
    """`text` continues the answer at `offset`."""

    offset: int
    nonce: str
    text: str


@dataclass(frozen=True)
class Rewind:
    """Forget everything from `offset` on; other text follows."""

    offset: int
    nonce: str


@dataclass(frozen=True)
class Status:
    """What the request is doing while no text comes.

    `position` is the number of requests ahead of a queued one; `eta_s` in how many seconds
    a worker takes it, at the pace of the line now.
    """

    state: Literal["queued", "running"]
    position: int | None = None
    eta_s: int | None = None


@dataclass(frozen=True)
class Done:
    """The end, exactly once. `offset` is the length of the whole answer."""

    status: str
    offset: int
    code: str
    message: str
    usage: dict[str, Any]


ReaderEvent = Text | Rewind | Status | Done
Want = Literal["journal", "head", "audit"]


@dataclass(frozen=True)
class JournalView:
    """A journal folded to what a reader compares with."""

    text: str
    nonce: str  # of the last owner
    ends: dict[str, int]  # nonce → where its text ends
    terminal: Event | None

    @classmethod
    def of(cls, events: Iterable[Event]) -> "JournalView":
        text, nonce, terminal = "", "", None
        ends: dict[str, int] = {}
        for event in events:
            text = text[: event.toff] + event.text
            nonce = event.nonce
            ends[nonce] = len(text)
            if event.terminal:
                terminal = event
        return cls(text, nonce, ends, terminal)


class JournalReader:
    """Follows one answer. `shown` is the text given out; `done` says that its end was given out too."""

    def __init__(self, now: float, *, offset: int = 0, nonce: str = "") -> None:
        self.shown = ""
        self.done = False
        self.running = False
        self._resume: tuple[int, str] | None = (offset, nonce)
        self._ends: dict[str, int] = {}  # nonce → where its text ended at the last journal read
        self._nonce: str | None = None  # the verified owner; None = compare with the journal first
        self._unread = True
        self._heard_at = now  # anything from the owner
        self._head_at = now
        self._audit_at = now

    @property
    def nonce(self) -> str:
        """The nonce half of the cursor that belongs to `len(shown)`."""
        return self._nonce or ""

    @property
    def ready(self) -> bool:
        """Whether the journal has been read once, so that cursors can be judged."""
        return self._resume is None

    def trusted(self, offset: int, nonce: str) -> int:
        """How much of another's cursor the journal still holds: what its nonce wrote, and what was there before."""
        return min(offset, len(self.shown) if nonce and nonce == self._nonce else self._ends.get(nonce, 0))

    def resubscribed(self) -> None:
        """The live channel (re)started, or a read failed: the truth is only in the journal."""
        self._unread = True

    def wants(self, now: float) -> Want | None:
        """What to fetch next, if anything: the journal at once, the head while silent, the queue without progress."""
        if self.done:
            return None
        if self._unread:
            return "journal"
        if now - max(self._heard_at, self._audit_at) >= AUDIT_INTERVAL_S:
            return "audit"
        if now - max(self._heard_at, self._head_at) >= HEAD_INTERVAL_S:
            return "head"
        return None

    # -- what the driver feeds -----------------------------------------------------------------------------------

    def live(self, event: Event, now: float) -> list[ReaderEvent]:
        """One event from the channel."""
        if self.done:
            return []
        if self._resume is not None or event.nonce != self._nonce:
            self._unread = True
            return []
        self._heard_at = now
        started = self._start()
        if event.kind in ("begin", "beat"):
            if event.toff > len(self.shown):
                self._unread = True
            return started
        if event.toff > len(self.shown) or (event.terminal and event.toff + len(event.text) < len(self.shown)):
            self._unread = True
            return started
        fresh = event.text[len(self.shown) - event.toff :]
        out = started + self._show(fresh)
        return out + self._end(event) if event.terminal else out

    def reading(self) -> None:
        """A journal read starts now; whatever live event cannot be placed before its result asks for another."""
        self._unread = False

    def journal(self, events: Iterable[Event], now: float) -> list[ReaderEvent]:
        """The whole journal, read after the channel was confirmed and `reading` was called."""
        view = JournalView.of(events)
        self._head_at = now
        self._ends = view.ends
        out: list[ReaderEvent] = []
        if self._resume is not None:
            out += self._adopt_cursor(view)
        if view.nonce:
            out += self._start()
        if view.text.startswith(self.shown):
            if view.nonce != self._nonce or len(view.text) > len(self.shown):
                self._heard_at = now
            self._nonce = view.nonce
            out += self._show(view.text[len(self.shown) :])
        elif self.shown.startswith(view.text) and view.terminal is None:
            # Redis lost its tail. The same owner resends it; another owner must prove that it writes the same.
            if view.nonce != self._nonce:
                self._nonce = None
        else:
            keep = len(os.path.commonprefix([self.shown, view.text]))
            self.shown, self._nonce = view.text[:keep], view.nonce
            self._heard_at = now
            out += [Rewind(keep, view.nonce), *self._show(view.text[keep:])]
        return out + self._end(view.terminal) if view.terminal else out

    def head(self, head: Head, now: float) -> None:
        """The head of the answer, while the channel is silent."""
        self._head_at = now
        if head.ended or head.toff != len(self.shown) or head.nonce not in ("", self._nonce):
            self._unread = True

    def audited(self, now: float) -> None:
        """The driver has looked after the request's entry in the queue."""
        self._audit_at = now

    def gone(self, code: str, message: str) -> list[ReaderEvent]:
        """The request's state is missing and nobody can bring it back."""
        return self._end(Event("failed", self.nonce, toff=len(self.shown), code=code, message=message))

    # -- inside --------------------------------------------------------------------------------------------------

    def _adopt_cursor(self, view: JournalView) -> list[ReaderEvent]:
        """Trust a resumed cursor as far as the journal still holds what its nonce wrote."""
        assert self._resume is not None
        offset, nonce = self._resume
        self._resume = None
        keep = min(offset, view.ends.get(nonce, 0))
        self.shown, self._nonce = view.text[:keep], view.nonce
        return [Rewind(keep, view.nonce)] if keep < offset else []

    def _start(self) -> list[ReaderEvent]:
        if self.running:
            return []
        self.running = True
        return [Status("running")]

    def _show(self, text: str) -> list[ReaderEvent]:
        if not text:
            return []
        offset = len(self.shown)
        self.shown += text
        return [Text(offset, self.nonce, text)]

    def _end(self, event: Event) -> list[ReaderEvent]:
        self.done = True
        return [Done(event.kind, len(self.shown), event.code, event.message, event.usage)]
