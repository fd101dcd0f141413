"""The responses that are kept: found again, continued, cancelled, deleted. The HTTP API calls it.

A response is a request whose id is the response's, with a `ResponseRecord` as its note. Another user's is unknown.
"""

from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass

from services.chat.dead_letters import DeadLetters
from services.chat.journal import Head
from services.chat.logprobs import PlacedLogprob
from services.chat.reader import Done, JournalView, in_parts
from services.chat.requests import Requests
from services.chat.said import Said, SaidCall, call_id
from services.errors import InvalidRequest, UnknownResponse
from services.responses.record import ResponseRecord
from services.wire.keys import NAME
from services.wire.messages import CallMessage, Message, Part, ToolCall
from services.wire.parsing import MAX_MESSAGES
from services.wire.tools import parse_arguments


@dataclass(frozen=True)
class KeptResponse:
    """A response as it is now. `text` and `parts` are of its answer so far; `end` is None until it has ended."""

    rid: str
    record: ResponseRecord
    running: bool  # a worker has begun it
    text: str
    parts: tuple[Part, ...]
    end: Done | None
    logprobs: Sequence[PlacedLogprob] = ()

    @property
    def answer(self) -> Message:
        """The assistant's turn."""
        said = Said()
        for each in in_parts(self.text, self.parts):
            said.take(each)
        calls = said.calls
        if not calls:
            return Message("assistant", said.answer, said.reasoning)
        whole, broken = _told_apart(self.rid, calls)
        text = said.answer + broken
        if not whole:
            return Message("assistant", text, said.reasoning)
        return CallMessage("assistant", text, said.reasoning, whole)


class Responses:
    """The responses of one installation."""

    def __init__(self, requests: Requests, dead: DeadLetters) -> None:
        self._requests = requests
        self._journal = requests.journal
        self._dead = dead

    def record(self, rid: str, user: str) -> ResponseRecord:
        """What was ordered. Raises UnknownResponse."""
        note = self._journal.note(rid, user) if NAME.fullmatch(rid) else b""
        if not note:
            raise _unknown(rid)
        return ResponseRecord.decode(note)

    def find(self, rid: str, user: str) -> KeptResponse:
        """The response as it is now. Raises UnknownResponse."""
        record, found = self.record(rid, user), self._journal.read(rid)
        if found is None:
            raise _unknown(rid)
        head, events = found
        view = JournalView.of(events)
        return KeptResponse(rid, record, _begun(head), view.text, view.parts, view.end, view.logprobs.placed)

    def conversation(self, rid: str, user: str, max_chars: int) -> list[Message]:
        """All turns up to the end of this response, with reasoning. Keeps all of its responses as if they ended now.

        Raises InvalidRequest for one that is unknown or has not ended well, and for a conversation that is too long.
        """
        turns: list[list[Message]] = []
        num_chars = num_turns = 0
        following = rid
        while following:
            kept = self._ended(following, user)
            turns.append([*kept.record.messages, *([kept.answer] if kept.text else [])])
            num_chars += sum(len(message.text) for message in turns[-1])
            num_turns += len(turns[-1])
            if num_chars > max_chars or num_turns > MAX_MESSAGES:
                limits = f"{max_chars} characters or {MAX_MESSAGES} messages"
                raise _not_continued(rid, f"its conversation has more than {limits}; begin another one")
            self._journal.keep(following)
            following = kept.record.previous
        return [message for each in reversed(turns) for message in each]

    def cancel(self, rid: str, user: str) -> KeptResponse:
        """End the response, if it has not ended. Raises UnknownResponse."""
        if self.find(rid, user).end is None:
            self._requests.cancel(rid, user)
        return self.find(rid, user)

    def delete(self, rid: str, user: str) -> None:
        """Forget the response and its answer; one that runs is cancelled. Raises UnknownResponse."""
        kept = self.cancel(rid, user)
        self._journal.forget(rid, user)
        if kept.end is not None and kept.end.status == "failed":
            with suppress(InvalidRequest):  # it was not given up
                for letter in self._dead.matching(rid):
                    self._dead.drop(letter)

    def _ended(self, rid: str, user: str) -> KeptResponse:
        try:
            kept = self.find(rid, user)
        except UnknownResponse as error:
            raise _not_continued(rid, error.message) from None
        if kept.end is None:
            raise _not_continued(rid, "it has not ended; wait for its end, or cancel it")
        if kept.end.status == "failed":
            raise _not_continued(rid, "it failed; continue the response before it")
        return kept


def _told_apart(rid: str, calls: Sequence[SaidCall]) -> tuple[tuple[ToolCall, ...], str]:
    """The calls, and the text of those whose arguments are no JSON object: no template could write them as calls."""
    whole: list[ToolCall] = []
    broken = ""
    for index, call in enumerate(calls):
        try:
            whole.append(ToolCall(call.name, parse_arguments(call.arguments, "arguments"), call_id(rid, index)))
        except InvalidRequest:
            broken += f"\n{call.name} {call.arguments}"
    return tuple(whole), broken


def _begun(head: Head) -> bool:
    return head.epoch > 0


def _unknown(rid: str) -> UnknownResponse:
    return UnknownResponse(f"no response has the id {rid!r:.80}; it was not stored, was deleted, or has expired")


def _not_continued(rid: str, why: str) -> InvalidRequest:
    return InvalidRequest(f"the response {rid!r:.80} cannot be continued: {why}", field="previous_response_id")
