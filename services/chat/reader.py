"""The one journal reader: live events and replay in, text out; never a gap, never a repeat.

It does no input or output of its own. Its `Answer` feeds it live events, journal reads and heads, and asks `wants` what
to fetch next; each `Follower` of the answer shows its text from a cursor on. A cursor is (offset in code points,
nonce): stream ids are reused when Redis loses its tail, an offset under a nonce is not.

The rules: subscribe, then read; a live event counts only if its nonce is the one verified last and it continues the
text; anything else means *read the whole journal and compare*. What was shown and is not in the journal, or there in
another part, is rewound. While silent, compare the head; without progress, audit the queue.
"""

import os.path
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, NamedTuple

from services.chat.journal import Head
from services.chat.logprobs import LogprobLog, Logprobs, PlacedLogprob, within
from services.wire.messages import ANSWER, Event, Part

HEAD_INTERVAL_S = 2.0
AUDIT_INTERVAL_S = 5.0


class Text(NamedTuple):  # one is made per token and follower
    """`text` continues at `offset`. All of it belongs to one part: `answer`, `reasoning`, or one of a later build.

    `logprobs`: of the tokens that begin in it, where the request asks for them.
    """

    offset: int
    nonce: str
    text: str
    part: str = ANSWER
    logprobs: Logprobs = ()


@dataclass(frozen=True)
class Rewind:
    """Forget everything from `offset` on; other text follows."""

    offset: int
    nonce: str


WaitingState = Literal["queued", "loading", "no_worker"]


@dataclass(frozen=True)
class Status:
    """What the request is doing while no text comes.

    It waits in line (`queued`), for a model that a worker is loading, or for a worker (`no_worker`). `running`: its
    worker reads the prompt or writes. `interrupted`: nothing is heard of its worker; another one will continue.
    `position` is the number of requests ahead of one that waits; `eta_s` in how many seconds a worker takes it, at the
    pace of the line now. `context`: what the prompt of one that runs leaves out (see `Event`).
    """

    state: WaitingState | Literal["running", "interrupted"]
    position: int | None = None
    eta_s: int | None = None
    context: dict[str, int] | None = None


@dataclass(frozen=True)
class Done:
    """The end, exactly once. `offset` is the length of the whole text, `parts` where each part of it begins.

    None: all of it is the answer.
    """

    status: str
    offset: int
    code: str
    message: str
    usage: dict[str, Any]
    parts: tuple[Part, ...] | None = None


ReaderEvent = Text | Rewind | Status | Done
Want = Literal["journal", "head", "audit"]


@dataclass(frozen=True)
class JournalView:
    """A journal folded to what a reader compares with."""

    text: str
    nonce: str  # of the last owner
    ends: dict[str, int]  # nonce → where its text ends
    terminal: Event | None
    context: dict[str, int]
    parts: tuple[Part, ...] = ()
    logprobs: LogprobLog = field(default_factory=LogprobLog)

    @classmethod
    def of(cls, events: Iterable[Event]) -> "JournalView":
        text, nonce, terminal = "", "", None
        ends: dict[str, int] = {}
        context: dict[str, int] = {}
        parts: tuple[Part, ...] = ()
        logprobs = LogprobLog()
        for event in events:
            logprobs.fold(event)
            text = text[: event.toff] + event.text
            if parts or event.parts:
                parts = (*(part for part in parts if part[0] < event.toff), *event.parts)
            nonce = event.nonce
            context = event.context or context
            ends[nonce] = len(text)
            if event.terminal:
                terminal = event
        return cls(text, nonce, ends, terminal, context, parts, logprobs)

    @property
    def end(self) -> Done | None:
        """The end, if the journal has it."""
        if self.terminal is None:
            return None
        about = self.terminal
        return Done(about.kind, len(self.text), about.code, about.message, about.usage, self.parts or None)


def part_at(parts: tuple[Part, ...], offset: int) -> tuple[str, int | None]:
    """The kind of the part at an offset, and where the next one begins, if it is known."""
    kind: str = ANSWER
    for start, its_kind in parts:
        if start > offset:
            return kind, start
        kind = its_kind
    return kind, None


def in_parts(text: str, parts: tuple[Part, ...], logprobs: Sequence[PlacedLogprob] = ()) -> Iterator[Text]:
    """A whole text as a follower tells it: what belongs to one part at a time."""
    offset: int | None = 0
    while offset is not None and offset < len(text):
        kind, following = part_at(parts, offset)
        its_text = text[offset:following]
        yield Text(offset, "", its_text, kind, within(logprobs, offset, offset + len(its_text)))
        offset = following


class JournalReader:
    """One answer, as far as this process knows it: `shown` is its text, `rewinds` where text of it was taken back.

    `end` is its end, once `shown` is whole. Followers look without a lock while this is changed: they are told nothing
    while `rewinding`; else the nonce, the parts and the log probabilities are written before the text, the text before
    the end.
    """

    def __init__(self, now: float, interrupted_s: float = 2.5) -> None:
        self.shown = ""
        self.parts: tuple[Part, ...] = ()
        self.logprobs = LogprobLog()
        self.rewinds: list[int] = []
        self.rewinding = False  # a rewind is noted, and the text that it took back still stands in `shown`
        self.status: Status | None = None
        self.end: Done | None = None
        self.num_reads = 0  # of the journal, begun
        self._last_read = 0  # of those, the last one that brought the journal
        self._ends: dict[str, int] = {}  # nonce → where its text ended at the last journal read
        self._nonce: str | None = None  # the verified owner; None = compare with the journal first
        self._interrupted_s = interrupted_s  # a worker that has nothing to say says so more often
        self._unread = True
        self._heard_at = now  # anything from the owner
        self._head_at = now
        self._audit_at = now

    @property
    def nonce(self) -> str:
        """The nonce half of the cursor that belongs to `len(shown)`."""
        return self._nonce or ""

    @property
    def running(self) -> bool:
        return self.status is not None and self.status.state in ("running", "interrupted")

    def wants(self, now: float) -> Want | None:
        """What to fetch next, if anything: the journal at once, the head while silent, the queue without progress."""
        if self.end is not None:
            return None
        if self._unread:
            return "journal"
        if now - max(self._heard_at, self._audit_at) >= AUDIT_INTERVAL_S:
            return "audit"
        if now - max(self._heard_at, self._head_at) >= HEAD_INTERVAL_S:
            return "head"
        return None

    # -- cursors -------------------------------------------------------------------------------------------------

    def knows(self, offset: int, nonce: str) -> bool:
        """Whether this cursor can be judged now. One that is ahead of us was shown by a process that knows more."""
        return not offset or (offset <= len(self.shown) and (nonce == self._nonce or nonce in self._ends))

    def has_read_since(self, num_reads: int) -> bool:
        """Whether a read that began after the first `num_reads` has brought the journal; after the end none is due."""
        return self._last_read > num_reads or self.end is not None

    def trusted(self, offset: int, nonce: str) -> int:
        """How much of a cursor the journal still holds: what its nonce wrote, and what was there before."""
        if self.end is not None and not self._last_read:
            return offset  # the journal was gone before it could be read
        return min(offset, len(self.shown) if nonce and nonce == self._nonce else self._ends.get(nonce, 0))

    # -- what the answer feeds -----------------------------------------------------------------------------------

    def resubscribed(self) -> None:
        """The live channel (re)started, a read failed, or a cursor is ahead: the truth is only in the journal."""
        self._unread = True

    def live(self, event: Event, now: float) -> None:
        """One event from the channel."""
        if self.end is not None:
            return
        if not self._last_read or event.nonce != self._nonce:
            self._unread = True
            return
        self._hear(now)
        self._start(event.context)
        if event.kind in ("begin", "beat"):
            if event.toff > len(self.shown):
                self._unread = True
            return
        if event.toff > len(self.shown) or (event.terminal and event.toff + len(event.text) < len(self.shown)):
            self._unread = True
            return
        self.parts += tuple(part for part in event.parts if part[0] >= len(self.shown))
        if event.logprobs or event.places:
            self.logprobs.take(event)
        self.shown += event.text[len(self.shown) - event.toff :]
        if event.terminal:
            self._finish(event)

    def reading(self) -> None:
        """A journal read starts now; whatever live event cannot be placed before its result asks for another."""
        self._unread = False
        self.num_reads += 1

    def journal(self, events: Iterable[Event], now: float) -> None:
        """The whole journal, read after the channel was confirmed and `reading` was called."""
        view = JournalView.of(events)
        self._head_at = now
        self._ends = view.ends
        heard = False
        if view.nonce:
            self._start(view.context)
        kept = self._kept(view)
        if kept == len(self.shown):
            if view.nonce != self._nonce or len(view.text) > len(self.shown):
                heard = True
            self._take(view)
        elif kept == len(view.text) and view.terminal is None:
            # Redis lost its tail. The same owner resends it; another owner must prove that it writes the same.
            if view.nonce != self._nonce:
                self._nonce = None
        else:
            self.rewinding = True
            self.rewinds.append(kept)
            self._take(view)
            self.rewinding = False
            heard = True
        if heard:
            self._hear(now)
        self._last_read = self.num_reads
        if view.terminal:
            self._finish(view.terminal)

    def head(self, head: Head, now: float) -> None:
        """The head of the answer, while the channel is silent."""
        self._head_at = now
        if head.ended or head.toff != len(self.shown) or head.nonce not in ("", self._nonce):
            self._unread = True

    def audited(self, now: float) -> None:
        """The answer has looked after the request's entry in the queue, or found that there is no state of it."""
        self._audit_at = self._head_at = now

    def silent(self, now: float) -> None:
        """Time has passed: a worker of which nothing is heard has died, or is cut off."""
        if self._state == "running" and self.end is None and now - self._heard_at >= self._interrupted_s:
            self.status = Status("interrupted", context=self._context)

    def queued(self, status: Status) -> None:
        """Where the request stands in line, and for what it waits, as of now."""
        if not self.running and self.end is None and status != self.status:
            self.status = status

    def gone(self, code: str, message: str) -> None:
        """The request's state is missing and nobody can bring it back."""
        if self.end is None:
            self._finish(Event("failed", self.nonce, toff=len(self.shown), code=code, message=message))

    # -- inside --------------------------------------------------------------------------------------------------

    def _kept(self, view: JournalView) -> int:
        """How much of what is shown the journal has, in the same parts: another owner may write it as its reasoning."""
        is_whole = view.text.startswith(self.shown)
        same = len(self.shown if is_whole else os.path.commonprefix([self.shown, view.text]))
        begins = sorted({start for start, _ in (*self.parts, *view.parts) if start < same})
        return next((at for at in begins if part_at(self.parts, at)[0] != part_at(view.parts, at)[0]), same)

    @property
    def _state(self) -> str:
        return self.status.state if self.status else ""

    @property
    def _context(self) -> dict[str, int] | None:
        return self.status.context if self.status and self.running else None

    def _take(self, view: JournalView) -> None:
        self._nonce, self.parts, self.logprobs, self.shown = view.nonce, view.parts, view.logprobs, view.text

    def _hear(self, now: float) -> None:
        """The owner of the answer lives, if it has one."""
        self._heard_at = now
        if self._nonce and self._state != "running":
            self.status = Status("running", context=self._context)

    def _start(self, context: dict[str, int]) -> None:
        if not self.running or (context and context != self._context):
            self.status = Status("running", context=context or None)

    def _finish(self, event: Event) -> None:
        self.end = Done(event.kind, len(self.shown), event.code, event.message, event.usage, self.parts or None)
