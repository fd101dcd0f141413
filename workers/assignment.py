"""One request that this worker owns: from the entry it took to the acknowledged end.

The protocol's worker side, and nothing of engines or threads: begin (with the repair of a stale epoch), the tokens that
are not journalled yet, what to do with each refusal, the end and its acknowledgement. A lost connection anywhere leaves
an assignment as it was; every call may be made again.
"""

import contextlib
import logging
import secrets
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

from services.chat.journal import Begun, Journal, Refused
from services.chat.queue import RETRY_PLACE, SUSPECT_PLACE, Entry, RequestQueue
from services.errors import Forbidden, Gone, ProtocolError
from services.wire.keys import NAME
from services.wire.messages import ChatRequest, Event

log = logging.getLogger("chatserver.worker")

MAX_BEGINS = 20  # in all, whatever progress was made between
_MAX_RAISES = 8

_DEAD = frozenset({"poison", "expired"})  # given up without an answer: kept, so that an operator can drive it again

Verdict = Literal["held", "done", "over", "restart"]
"""Still ours; ended by us and acknowledged; ended or lost otherwise; to be begun again."""


class Transcript(Protocol):
    """The tokens of an answer and the text that has come out of them; `workers.answer.Answer` is the real one."""

    token_ids: list[int]

    def slice_from(self, token_offset: int) -> tuple[tuple[int, ...], int, str]:
        """Tokens from a token offset on, the text offset where they start, and their text (no held-back tail)."""


@dataclass(frozen=True)
class Ending:
    """How the answer is to end, once all its tokens are journalled."""

    kind: Literal["finished", "failed"]
    code: str
    message: str
    tail: str  # text that was held back until the end was known
    usage: dict[str, int]


@dataclass(frozen=True)
class Rules:
    """What a worker needs to know to own requests."""

    wid: str
    max_tries: int
    deadline_ms: int


class Assignment:
    """Ownership of one answer."""

    def __init__(self, entry: Entry, request: ChatRequest, begun: Begun, nonce: str) -> None:
        self.entry = entry
        self.request = request
        self.nonce = nonce
        self.tries = begun.tries
        self.journalled = begun.n  # tokens that are known to be in the journal
        self.events = begun.events

    @property
    def rid(self) -> str:
        return self.entry.rid

    @property
    def suspect(self) -> bool:
        """It killed its last owner before a single token, and has not produced one here either."""
        return self.tries >= 2 and self.journalled == 0

    def journalled_ids(self) -> list[int]:
        """The tokens to continue from."""
        ids: list[int] = []
        for event in self.events:
            ids[event.off :] = event.ids if event.kind == "tokens" else ids[event.off :]
        return ids

    def behind(self, transcript: Transcript) -> bool:
        """Whether there are tokens that are not journalled yet."""
        return self.journalled < len(transcript.token_ids)

    def next_event(self, transcript: Transcript) -> Event | None:
        """What is not journalled yet, as one event; None when nothing is."""
        if not self.behind(transcript):
            return None
        ids, toff, text = transcript.slice_from(self.journalled)
        return Event("tokens", self.nonce, self.journalled, toff, ids, text)


def begin(queue: RequestQueue, journal: Journal, entry: Entry, rules: Rules) -> Assignment | None:
    """Become the owner of a delivered entry; None when there is nothing to do (then the entry is dealt with)."""
    try:
        return _begin(queue, journal, entry, rules)
    except ProtocolError as error:
        # A payload or a journal of another version must end for its readers too, not loop from worker to worker.
        log.warning("given up: %s", error, extra={"rid": entry.rid, "code": error.code})
        if NAME.fullmatch(entry.rid):
            with contextlib.suppress(Gone, Forbidden):
                journal.give_up(entry.rid, entry.user, error.code, error.message)
        queue.ack(entry, reason=error.code)
        return None


def _begin(queue: RequestQueue, journal: Journal, entry: Entry, rules: Rules) -> Assignment | None:
    request = ChatRequest.decode(entry.payload)
    if (request.rid, request.user, request.model) != (entry.rid, entry.user, queue.model):
        raise ProtocolError(f"the payload is of {request.rid} for {request.model}, the entry of {entry.rid}")
    for _ in range(_MAX_RAISES):
        nonce = secrets.token_hex(8)
        reply = journal.begin(
            request,
            entry.payload,
            epoch=entry.epoch,
            nonce=nonce,
            wid=rules.wid,
            max_tries=rules.max_tries,
            max_begins=MAX_BEGINS,
            deadline_ms=rules.deadline_ms,
        )
        if isinstance(reply, Begun):
            # The state's payload is the truth: an id submitted twice is the question that came first.
            return Assignment(entry, ChatRequest.decode(reply.payload), reply, nonce)
        if reply.why != "STALE":
            _drop(queue, entry, reply)
            return None
        # A re-queued entry, or a server that lost its tail: our count is behind what the answer has seen.
        new_count = reply.number + 1 - entry.base
        if not queue.hold(entry, rules.wid, "raise", new_count):
            log.warning("lease lost", extra={"rid": entry.rid})
            return None
        entry = replace(entry, count=new_count)
    return None


def _drop(queue: RequestQueue, entry: Entry, refused: Refused) -> None:
    """Acknowledge a request that cannot be begun."""
    given_up = refused.code in _DEAD
    queue.ack(entry, reason=refused.code if given_up else "")
    if given_up:
        log.warning("given up", extra={"rid": entry.rid, "code": refused.code})
    else:
        log.info("had ended", extra={"rid": entry.rid, "status": refused.status or refused.why.lower()})


def applied(queue: RequestQueue, held: Assignment, reply: list[Any], rules: Rules) -> Verdict:
    """Digest the reply of an append."""
    result = Journal.appended(reply)
    if isinstance(result, int):
        held.journalled = max(held.journalled, result)
        return "held"
    if result.why == "NEED":  # the server lost a tail that we still have: send from there
        held.journalled = result.number
        return "held"
    return settle(queue, held, result, rules)


def settle(queue: RequestQueue, held: Assignment, refused: Refused, rules: Rules) -> Verdict:
    """What a refusal means: ended → acknowledge; lost or gone → begin again if the pending list still names us."""
    if refused.why == "ENDED":
        queue.ack(held.entry)
        log.info("had ended", extra={"rid": held.rid, "status": refused.status})
        return "over"
    if queue.hold(held.entry, rules.wid, "renew"):
        return "restart"
    log.warning("lease lost", extra={"rid": held.rid})
    return "over"


def end(queue: RequestQueue, journal: Journal, held: Assignment, toff: int, ending: Ending, rules: Rules) -> Verdict:
    """Write the terminal event, then acknowledge. After a connection error in between, call it again whole."""
    event = Event(
        ending.kind,
        held.nonce,
        held.journalled,
        toff,
        text=ending.tail,
        code=ending.code,
        message=ending.message,
        usage=dict(ending.usage),
    )
    refused = journal.finish(held.rid, held.entry.epoch, event)
    if refused is None:
        queue.ack(held.entry)
        return "done"
    if refused.why == "NEED":
        held.journalled = refused.number
        return "held"
    return settle(queue, held, refused, rules)


def hand_back(queue: RequestQueue, journal: Journal, held: Assignment, rules: Rules) -> bool:
    """Let go so that another worker continues at once; False when the request had ended or was lost already."""
    refused = journal.hand_back(held.rid, held.nonce)
    if refused is not None:
        settle(queue, held, refused, rules)
        return False
    if not queue.hand_back(held.entry, rules.wid, SUSPECT_PLACE if held.suspect else RETRY_PLACE):
        log.warning("lease lost", extra={"rid": held.rid})
        return False
    log.info("handed back", extra={"rid": held.rid, "tokens": held.journalled})
    return True
