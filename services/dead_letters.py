"""Requests given up, kept with their reason: what an operator reads, drives again, or drops.

A dead letter has had its one terminal event under its own id, so it runs again under an id of its own, made from the
letter's: driving the same letter twice runs it once.
"""

import time
import uuid
from dataclasses import dataclass, replace
from typing import Any

from redis import Redis

from services.errors import InvalidRequest
from services.protocol import ChatRequest
from services.requests import Requests

_NAMESPACE = uuid.UUID("6f0c7f2e-56f5-4a0c-9c1b-4b3f2a4f6a11")


@dataclass(frozen=True)
class DeadLetter:
    """One request given up. `letter_id` is its place in the model's dead-letter stream."""

    letter_id: str
    model: str
    rid: str
    user: str
    reason: str
    payload: bytes

    @property
    def age_s(self) -> float:
        return max(time.time() - int(self.letter_id.partition("-")[0]) / 1000, 0.0)

    def row(self) -> dict[str, Any]:
        """What a person is shown of it."""
        fields = {"rid": self.rid, "model": self.model, "user": self.user, "reason": self.reason}
        return {**fields, "age_s": round(self.age_s, 1)}

    @property
    def new_rid(self) -> str:
        """The id under which it runs again."""
        return uuid.uuid5(_NAMESPACE, f"{self.model} {self.letter_id}").hex


class DeadLetters:
    """The dead letters of one installation, over all its models."""

    def __init__(self, redis: Redis, requests: Requests) -> None:
        self._redis = redis
        self._requests = requests

    def newest(self, limit: int) -> list[DeadLetter]:
        """The newest ones of every model, newest first."""
        keys = self._requests.keys
        letters: list[DeadLetter] = []
        for raw in self._redis.smembers(keys.models):
            model = raw.decode()
            rows = self._redis.xrevrange(keys.dead(model), count=limit)
            letters += [_letter(model, letter_id.decode(), fields) for letter_id, fields in rows]
        return sorted(letters, key=lambda letter: letter.age_s)[:limit]

    def matching(self, rid: str) -> list[DeadLetter]:
        """The letters of one request, or for `all` the newest 10,000. Raises InvalidRequest when there is none."""
        found = [letter for letter in self.newest(10_000) if rid in ("all", letter.rid)]
        if not found:
            raise InvalidRequest(f"no dead letter has the request id {rid!r}; `chatserver dead` lists them")
        return found

    def retry(self, letter: DeadLetter) -> str:
        """Queue it once more, past the ceilings; its new id. Raises ProtocolError for one that cannot be read."""
        request = replace(ChatRequest.decode(letter.payload), rid=letter.new_rid)
        self._requests.redrive(request, letter.rid)
        self.drop(letter)
        return request.rid

    def drop(self, letter: DeadLetter) -> None:
        self._redis.xdel(self._requests.keys.dead(letter.model), letter.letter_id)


def _letter(model: str, letter_id: str, fields: dict[bytes, Any]) -> DeadLetter:
    rid, user, reason = (fields.get(name, b"").decode(errors="replace") for name in (b"rid", b"user", b"reason"))
    return DeadLetter(letter_id, model, rid, user, reason, fields.get(b"payload", b""))
