"""One reader of an answer: its place, and what it is told next. Made by `AnswerFeed.follow`; all a front end needs.

Sockets, HTTP streams and the command line differ in how they frame events and in when they ask for the next one.
"""

import dataclasses
import time
from collections.abc import Callable

from services.chat.answer import Answer, Outage
from services.chat.logprobs import Logprobs, within
from services.chat.reader import Done, ReaderEvent, Rewind, Status, Text, part_at
from services.wire.messages import ANSWER


class Follower:
    """`changed` is called, from whatever thread heard it, when `next` may have something. `offset` is what was told."""

    def __init__(self, answer: Answer, changed: Callable[[], None], offset: int = 0, nonce: str = "") -> None:
        self.changed = changed
        self.rid = answer.rid
        self._answer = answer
        self.resume(offset, nonce)

    @property
    def text(self) -> str:
        """The whole text, reasoning and answer, as far as this process knows it."""
        return self._answer.reader.shown

    @property
    def logprobs(self) -> Logprobs:
        """Those of the whole text."""
        return tuple(self._answer.reader.logprobs.placed)

    @property
    def status(self) -> Status | None:
        """What the request does: its place in line, or that it runs."""
        return self._answer.reader.status

    @property
    def told_all(self) -> bool:
        """Whether all text that this process knows was told."""
        return self.offset >= len(self._answer.reader.shown)

    @property
    def has_end(self) -> bool:
        """Whether the answer has ended, and `text` is whole; `next` tells the end after all text."""
        return self._answer.reader.end is not None

    @property
    def outage(self) -> Outage | None:
        """Redis does not answer at present; the answer goes on when it does."""
        return self._answer.outage

    @property
    def submitted_at(self) -> float:
        """When the request was accepted, by `time.monotonic`."""
        return self._answer.submitted_at

    def resume(self, offset: int, nonce: str) -> None:
        """Go on from a cursor: what a reader was shown, by whatever process, under the nonce that came with it."""
        self.offset = offset
        self.done = False  # the end was told
        self._nonce = nonce
        self._num_rewinds: int | None = None  # of the answer's, heeded; None until the cursor is judged
        self._status: Status | None = None  # told last
        self._num_reads = self._answer.ahead(offset, nonce)

    def next(self, until: int | None = None) -> ReaderEvent | None:
        """What to tell now, with no text beyond the offset `until`; None: nothing before the next change."""
        reader = self._answer.reader
        if self.done or reader.rewinding:
            return None
        # In this order, and all before the rewinds: no lock is needed then.
        end, shown, parts = reader.end, reader.shown, reader.parts
        if self._status is not reader.status:
            self._status = reader.status
            return self._status
        if self._num_rewinds != len(reader.rewinds):
            return self._judge(until)
        part: str = ANSWER
        if parts:
            part, next_part = part_at(parts, self.offset)
            until = next_part if until is None else min(until, next_part or until)
        text = shown[self.offset : until]
        if text:
            offset = self.offset
            self.offset += len(text)
            logprobs = within(reader.logprobs.placed, offset, self.offset)
            return Text(offset, reader.nonce, text, part, logprobs)
        if end is None or self.offset < len(shown):
            return None
        self.done = True
        return dataclasses.replace(end, offset=self.offset)

    def _judge(self, until: int | None) -> ReaderEvent | None:
        """How much of what was told still holds. A cursor that is ahead of us waits for a read of the journal."""
        reader = self._answer.reader
        num_rewinds = len(reader.rewinds)
        if self._num_rewinds is not None:
            keep = min(reader.rewinds[self._num_rewinds : num_rewinds])
        elif reader.knows(self.offset, self._nonce) or reader.has_read_since(self._num_reads):
            keep = reader.trusted(self.offset, self._nonce)
        else:
            return None
        self._num_rewinds = num_rewinds
        if keep >= self.offset:
            return self.next(until)
        self.offset = keep
        return Rewind(keep, reader.nonce)

    def account(self, done: Done) -> dict[str, str | int | float]:
        """What the log says of an answer that was told to its end. `seconds`: since it was accepted."""
        return {
            "status": done.status,
            "code": done.code,
            "tokens": done.usage.get("completion_tokens", 0),
            "chars": done.offset,
            "seconds": round(time.monotonic() - self.submitted_at, 3),
        }

    def close(self) -> None:
        """Nothing more is told."""
        self.done = True
