"""One request of this worker, from the entry that it took to the acknowledged end.

It is the worker's side of the protocol, and knows no engines or threads: it begins (and repairs a stale epoch), keeps
the tokens that are not in the journal yet, answers each refusal, ends the request and acknowledges the entry.
`workers/worker.py` makes an assignment of each entry that it takes; `workers/loop.py` drives it. A lost connection
leaves an assignment as it was: the caller may repeat every call.
"""

import contextlib
import logging
import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal, Protocol

from redis.exceptions import NoScriptError, ResponseError

from services.chat.charges import Tokens
from services.chat.journal import Journal, Ownership, Refusal
from services.chat.queue import RETRY_PLACE, SUSPECT_PLACE, Entry, RequestQueue
from services.errors import Forbidden, Gone, ProtocolError
from services.wire.keys import NAME
from services.wire.messages import ChatRequest, Event, Part, Place, TokenLogprob

log = logging.getLogger("chatserver.worker")

MAX_BEGINS = 20  # in all, whatever progress was made between
_MAX_RAISES = 8

_DEAD = frozenset({"poison", "expired"})  # given up without an answer: kept, so that an operator can drive it again

Verdict = Literal["held", "done", "over", "restart"]
"""Still ours; ended by us and acknowledged; ended or lost otherwise; to be begun again."""


class Transcript(Protocol):
    """The tokens of an answer and the text that has come out of them; `workers.answer.Answer` is the real one."""

    token_ids: list[int]

    @property
    def parts(self) -> Sequence[Part]: ...

    def slice_from(self, token_offset: int) -> tuple[tuple[int, ...], int, str]:
        """Tokens from a token offset on, the text offset where they start, and their text (no held-back tail)."""


def parts_within(transcript: Transcript, offset: int, text: str) -> tuple[Part, ...]:
    """The parts that begin within this text."""
    return tuple(part for part in transcript.parts if offset <= part[0] < offset + len(text))


@dataclass(frozen=True)
class Ending:
    """How the answer ends, once the journal has all its tokens."""

    kind: Literal["finished", "failed"]
    code: str
    message: str
    tail: str  # text that was held back until the end was known
    usage: dict[str, int]
    parts: tuple[Part, ...] = ()  # that begin in the tail
    places: tuple[Place, ...] = ()  # of the tokens that begin in it, where log probabilities are asked for


@dataclass(frozen=True)
class WorkerIdentity:
    """The id of a worker, and the limits to begin a request: its tries, and the time since its submission."""

    wid: str
    max_tries: int
    deadline_ms: int


class Assignment:
    """An entry that this worker took; after `begin` this worker owns the answer."""

    request: ChatRequest  # what is asked; known once it has begun

    def __init__(self, queue: RequestQueue, journal: Journal, identity: WorkerIdentity, entry: Entry) -> None:
        self._queue = queue
        self._journal = journal
        self._identity = identity
        self.entry = entry
        self.nonce = ""
        self.tries = 0
        self.journalled = 0  # tokens that are known to be in the journal
        self.prompt_tokens = 0  # known once the answer is planned
        self.events: tuple[Event, ...] = ()  # the journal at the last begin

    @property
    def rid(self) -> str:
        return self.entry.rid

    @property
    def wid(self) -> str:
        return self._identity.wid

    @property
    def used(self) -> Tokens:
        """What the answer has used till now, whoever wrote it."""
        return Tokens(self.prompt_tokens, self.journalled)

    @property
    def suspect(self) -> bool:
        """Whether the request killed its last worker before its first token, and has no token here yet."""
        return self.tries >= 2 and self.journalled == 0

    def facts(self) -> dict[str, object]:
        """The fields of the log line about a begin."""
        return {"rid": self.rid, "epoch": self.entry.epoch, "try": self.tries}

    # -- begin, or leave it --------------------------------------------------------------------------------------

    def begin(self) -> bool:
        """Become the owner under a fresh nonce, perhaps once more. False when there is nothing left to do.

        Then the entry is acknowledged, or another worker owns it.
        """
        try:
            return self._begin(self._question())
        except ProtocolError as error:
            self._give_up(error)
            return False

    def decline(self) -> None:
        """Give an entry that has not begun back, for a worker with room. It keeps its place and its tries."""
        if self._queue.hand_back(self.entry, self.wid, self.entry.place):
            log.info("handed back, not begun", extra={"rid": self.rid})

    def _question(self) -> ChatRequest:
        entry, request = self.entry, ChatRequest.decode(self.entry.payload)
        if (request.rid, request.user, request.model) != (entry.rid, entry.user, self._queue.model):
            raise ProtocolError(f"the payload is of {request.rid} for {request.model}, the entry of {entry.rid}")
        return request

    def _begin(self, request: ChatRequest) -> bool:
        entry = self.entry
        for _ in range(_MAX_RAISES):
            reply = self._ask_for(request, entry)
            if isinstance(reply, Ownership):
                self._own(entry, reply)
                return True
            if reply.why != "STALE":
                self._drop(reply)
                return False
            # A re-queued entry, or a server that lost its tail: our count is behind what the answer has seen.
            new_count = reply.number + 1 - entry.base
            if not self._queue.hold(entry, self.wid, "raise", new_count):
                self._lost()
                return False
            entry = replace(entry, count=new_count)
        return False

    def _ask_for(self, request: ChatRequest, entry: Entry) -> Ownership | Refusal:
        return self._journal.begin(
            request,
            entry.payload,
            epoch=entry.epoch,
            nonce=secrets.token_hex(8),
            wid=self.wid,
            max_tries=self._identity.max_tries,
            max_begins=MAX_BEGINS,
            deadline_ms=self._identity.deadline_ms,
        )

    def _own(self, entry: Entry, ownership: Ownership) -> None:
        self.request = ChatRequest.decode(ownership.payload)
        self.entry = entry
        self.nonce = ownership.nonce
        self.tries = ownership.tries
        self.journalled = ownership.n
        self.events = ownership.events

    def _drop(self, refused: Refusal) -> None:
        """Acknowledge a request that cannot be begun."""
        given_up = refused.code in _DEAD
        never_ran = self.entry.epoch == 1 and refused.code != "poison"
        reason = refused.code if given_up else ""
        self._queue.ack(self.entry, reason=reason, used=Tokens() if never_ran else None)
        if given_up:
            log.warning("given up", extra={"rid": self.rid, "code": refused.code})
        else:
            log.info("had ended", extra={"rid": self.rid, "status": refused.status or refused.why.lower()})

    def _give_up(self, error: ProtocolError) -> None:
        """End a request of another version: its readers need an end, and it must not go from worker to worker."""
        log.warning("given up: %s", error, extra={"rid": self.rid, "code": error.code})
        if NAME.fullmatch(self.rid):
            with contextlib.suppress(Gone, Forbidden):
                self._journal.give_up(self.rid, self.entry.user, error.code, error.message)
        self._queue.ack(self.entry, reason=error.code)

    def _lost(self) -> None:
        log.warning("lease lost", extra={"rid": self.rid})

    # -- the answer ----------------------------------------------------------------------------------------------

    def journalled_ids(self) -> list[int]:
        """The tokens to continue from."""
        ids: list[int] = []
        for event in self.events:
            ids[event.off :] = event.ids if event.kind == "tokens" else ids[event.off :]
        return ids

    def journalled_logprobs(self) -> list[TokenLogprob | None]:
        """What the journal has of them, where the request asks for it: one for each token."""
        found: list[TokenLogprob | None] = []
        for event in self.events:
            if event.kind == "tokens":
                found[event.off :] = event.logprobs or [None] * len(event.ids)
        return found[: self.journalled]

    def behind(self, transcript: Transcript) -> bool:
        """Whether the journal lacks tokens."""
        return self.journalled < len(transcript.token_ids)

    def next_event(self, transcript: Transcript) -> Event | None:
        """The tokens that the journal lacks, as one event; None when it has all."""
        if not self.behind(transcript):
            return None
        ids, toff, text = transcript.slice_from(self.journalled)
        return Event("tokens", self.nonce, self.journalled, toff, ids, text, parts=parts_within(transcript, toff, text))

    def append_command(self, event: Event) -> tuple[Any, ...]:
        """The command that appends and publishes an event, for a pipeline; `appended` takes its reply."""
        return self._journal.append_command(self.rid, self.entry.epoch, event)

    def appended(self, reply: Any) -> Verdict:
        """Handle the reply of an append, or the error in its place."""
        if isinstance(reply, Exception):
            self._not_appended(reply)
            return "held"
        result = Journal.appended(reply)
        if isinstance(result, int):
            self.journalled = max(self.journalled, result)
            return "held"
        return self._settle(result)

    def _not_appended(self, error: Exception) -> None:
        if isinstance(error, NoScriptError):
            self._journal.load_append()
        elif isinstance(error, ResponseError):
            log.warning("append refused (%s); the tokens are kept", error, extra={"rid": self.rid})

    def keep_alive(self) -> Verdict:
        """Tell readers that the worker lives. The journal may reply that the answer has ended, or has another owner."""
        refused = self._journal.keep_alive(self.rid, self.nonce)
        return "held" if refused is None else self._settle(refused)

    # -- the end -------------------------------------------------------------------------------------------------

    def finish(self, toff: int, ending: Ending) -> Verdict:
        """Write the terminal event, then acknowledge. After a connection error between the two, call it again."""
        event = Event(
            ending.kind,
            self.nonce,
            self.journalled,
            toff,
            text=ending.tail,
            code=ending.code,
            message=ending.message,
            usage=dict(ending.usage),
            parts=ending.parts,
            places=ending.places,
        )
        refused = self._journal.finish(self.rid, self.entry.epoch, event)
        if refused is None:
            self._queue.ack(self.entry, used=self.used)
            return "done"
        return self._settle(refused)

    def hand_back(self) -> bool:
        """Hand the request back, so that another worker continues at once. False when it had ended or was lost."""
        refused = self._journal.hand_back(self.rid, self.nonce)
        if refused is not None:
            self._settle(refused)
            return False
        if not self._queue.hand_back(self.entry, self.wid, SUSPECT_PLACE if self.suspect else RETRY_PLACE):
            self._lost()
            return False
        log.info("handed back", extra={"rid": self.rid, "tokens": self.journalled})
        return True

    def _settle(self, refused: Refusal) -> Verdict:
        """Act on a refusal. Ended: acknowledge. Lost or gone: begin again if the pending list names this worker."""
        if refused.why == "NEED":  # the server lost a tail that we still have: send from there
            self.journalled = refused.number
            return "held"
        if refused.why == "ENDED":
            self._queue.ack(self.entry, used=self.used)
            log.info("had ended", extra={"rid": self.rid, "status": refused.status})
            return "over"
        if self._queue.hold(self.entry, self.wid, "renew"):
            return "restart"
        self._lost()
        return "over"
