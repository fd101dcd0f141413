"""The requests that were given up, with their reasons. An operator lists them, runs them again, or drops them.

The id of a dead letter has had its one terminal event, so the request runs again under a new id. That id is derived
from the letter's: to retry the same letter twice runs it once.
"""

import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from redis import Redis

from services.chat.requests import Requests
from services.connection.connect import server_time
from services.errors import InvalidRequest
from services.wire.messages import ChatRequest

PAGE = 100
_NAMESPACE = uuid.UUID("6f0c7f2e-56f5-4a0c-9c1b-4b3f2a4f6a11")


@dataclass(frozen=True)
class DeadLetter:
    """One request that was given up. `letter_id` is its id in the model's dead-letter stream."""

    letter_id: str
    model: str
    rid: str
    user: str
    reason: str
    payload: bytes

    @property
    def died_ms(self) -> int:
        """When the request was given up, by the clock of Redis."""
        return int(self.letter_id.partition("-")[0])

    def row(self, now: float) -> dict[str, Any]:
        """The letter as people see it; `now` in seconds by the clock of Redis."""
        fields = {"rid": self.rid, "model": self.model, "user": self.user, "reason": self.reason}
        return {**fields, "age_s": round(max(now - self.died_ms / 1000, 0.0), 1)}

    @property
    def new_rid(self) -> str:
        """The id under which the request runs again."""
        return uuid.uuid5(_NAMESPACE, f"{self.model} {self.letter_id}").hex


class DeadLetters:
    """The dead letters of one installation, over all its models."""

    def __init__(self, redis: Redis, requests: Requests) -> None:
        self._redis = redis
        self._requests = requests

    def newest(self, limit: int) -> list[DeadLetter]:
        """The newest letters of every model, newest first."""
        letters = [letter for model in self._models() for letter in self._page(model, "+", limit)]
        return sorted(letters, key=lambda letter: letter.died_ms, reverse=True)[:limit]

    def rows(self, limit: int) -> list[dict[str, Any]]:
        """The newest letters as people see them."""
        now = server_time(self._redis)
        return [letter.row(now) for letter in self.newest(limit)]

    def _models(self) -> list[str]:
        return [raw.decode() for raw in self._redis.smembers(self._requests.keys.models)]

    def _pages(self) -> Iterator[DeadLetter]:
        """All letters, with their payloads. Each reply of Redis brings a few."""
        for model in self._models():
            page = self._page(model, "+", PAGE)
            while page:
                yield from page
                page = self._page(model, f"({page[-1].letter_id}", PAGE)

    def _page(self, model: str, newest: str, count: int) -> list[DeadLetter]:
        rows = self._redis.xrevrange(self._requests.keys.dead(model), max=newest, count=count)
        return [_letter(model, letter_id.decode(), fields) for letter_id, fields in rows]

    def matching(self, rid: str) -> list[DeadLetter]:
        """The letters of one request, or all letters for `all`. Raises InvalidRequest when there is none."""
        found = [letter for letter in self._pages() if rid in ("all", letter.rid)]
        if not found:
            which = "" if rid == "all" else f" with the request id {rid!r}"
            raise InvalidRequest(f"there is no dead letter{which}; `chatserver dead` lists them")
        return found

    def retry(self, letter: DeadLetter) -> str:
        """Queue the request again, past the limits; returns its new id. Raises ProtocolError if it is unreadable."""
        request = replace(ChatRequest.decode(letter.payload), rid=letter.new_rid)
        self._requests.redrive(request, letter.rid)
        self.drop(letter)
        return request.rid

    def drop(self, letter: DeadLetter) -> None:
        self._redis.xdel(self._requests.keys.dead(letter.model), letter.letter_id)


def _letter(model: str, letter_id: str, fields: dict[bytes, Any]) -> DeadLetter:
    rid, user, reason = (fields.get(name, b"").decode(errors="replace") for name in (b"rid", b"user", b"reason"))
    return DeadLetter(letter_id, model, rid, user, reason, fields.get(b"payload", b""))
