"""Asks an HTTP endpoint of the operator's about questions and answers. `services/chat/requests.py` calls it.

A question is judged before it is queued, the answer of a conversation when it is archived.

    POST MODERATION_URL {"stage": "question", "id", "user", "model", "messages": [{"role", "content", …}], "prompt",
                         "tools": [{"type": "function", "function"}], "stop": ["…"], "response_format": {"type", …}}
    POST MODERATION_URL {"stage": "answer", "id", "user", "model",
                         "messages": [{"role": "assistant", "content", "reasoning"}]}
    200 {"verdict": "pass" | "flag" | "refuse", "reason": "…"}

Whatever else the endpoint does (it is away, slow, answers another status or other JSON) is an outage, and a setting
says what happens to the question then; an answer without a verdict is flagged. No call takes longer than its limit.
"""

import contextlib
import http.client
import logging
import socket
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal, get_args
from urllib.parse import urlsplit

import orjson

from services.errors import ConfigurationError, ContentRefused, Unavailable
from services.settings import Settings
from services.wire.messages import ChatRequest

log = logging.getLogger("chatserver.moderation")

VerdictKind = Literal["pass", "flag", "refuse"]
MOST_BYTES = 65_536  # of a verdict
MOST_REASON_CHARS = 500
NO_VERDICT = "no verdict"
AWAY_S = 5.0
CONNECTIONS = {"http": http.client.HTTPConnection, "https": http.client.HTTPSConnection}


@dataclass(frozen=True)
class Verdict:
    """What the endpoint says of a text. A flagged one is answered like others; its state keeps the verdict."""

    kind: VerdictKind = "pass"
    reason: str = ""

    @classmethod
    def decode(cls, data: bytes) -> "Verdict":
        """Raises ValueError for anything else."""
        raw = orjson.loads(data)
        kind: Any = raw.get("verdict") if isinstance(raw, dict) else None
        if kind not in get_args(VerdictKind):
            raise ValueError(f"its verdict {kind!r:.80} is not pass, flag or refuse")
        return cls(kind, str(raw.get("reason") or "")[:MOST_REASON_CHARS])


@dataclass(frozen=True)
class FinishedAnswer:
    """What a model wrote to a user."""

    rid: str
    user: str
    model: str
    content: str
    reasoning: str


class Moderator:
    """The endpoint, and what its outage means: `refuse` (the client may try again), `flag` or `pass`."""

    def __init__(self, url: str, *, timeout_s: float, outage: VerdictKind) -> None:
        parts = urlsplit(url)
        if parts.scheme not in CONNECTIONS or not parts.hostname:
            raise ConfigurationError(f"CHATSERVER_MODERATION_URL={url!r} is no http:// or https:// URL")
        self._parts = parts
        self._timeout_s = timeout_s
        self._outage = outage
        self._away_until = 0.0  # answers, of which many may wait to be archived, are not shown to it until then

    @classmethod
    def from_settings(cls, settings: Settings) -> "Moderator | None":
        """None where nothing is moderated."""
        if not settings.moderation_url:
            return None
        outage: VerdictKind = settings.moderation_outage
        return cls(settings.moderation_url, timeout_s=settings.moderation_timeout_s, outage=outage)

    def judge(self, request: ChatRequest) -> Verdict:
        """The verdict on a request that nobody has accepted yet. Raises ContentRefused, or Unavailable in an outage."""
        verdict = self._verdict(request.rid, _question(request))
        if verdict is None:
            if self._outage == "refuse":
                raise Unavailable("the moderation does not answer, and nothing is accepted without it", retry_after_s=5)
            return Verdict(self._outage, NO_VERDICT if self._outage == "flag" else "")
        if verdict.kind == "refuse":
            raise ContentRefused(verdict.reason or "the operator's moderation refuses this text")
        return verdict

    def judge_answer(self, answer: FinishedAnswer) -> Verdict:
        """The verdict on what a user has read already: `refuse` keeps it from nobody. Without one it is a flag."""
        away = time.monotonic() < self._away_until
        verdict = None if away else self._verdict(answer.rid, _answer(answer))
        if verdict is None:
            return Verdict() if self._outage == "pass" else Verdict("flag", NO_VERDICT)
        return verdict

    def _verdict(self, rid: str, body: bytes) -> Verdict | None:
        """None in an outage."""
        try:
            return Verdict.decode(self._post(body))
        except (OSError, http.client.HTTPException, ValueError) as error:
            why = str(error) or type(error).__name__
            log.warning("no verdict: %s", why, extra={"rid": rid, "outage": self._outage})
            self._away_until = time.monotonic() + AWAY_S
            return None

    def _post(self, body: bytes) -> bytes:
        """The body of a 200 that came in time. Raises OSError, HTTPException or ValueError."""
        ends_at = time.monotonic() + self._timeout_s
        target = (self._parts.path or "/") + (f"?{self._parts.query}" if self._parts.query else "")
        connection = CONNECTIONS[self._parts.scheme](
            self._parts.hostname or "", self._parts.port, timeout=self._timeout_s
        )
        with contextlib.closing(connection):
            connection.connect()
            with _cut_at(ends_at, connection.sock):
                connection.request("POST", target, body, {"Content-Type": "application/json"})
                response = connection.getresponse()
                data: bytes = response.read(MOST_BYTES + 1)
        if response.status != 200 or len(data) > MOST_BYTES:
            raise ValueError(f"it answered with status {response.status} and {len(data)} bytes")
        return data


@contextlib.contextmanager
def _cut_at(ends_at: float, sock: socket.socket) -> Iterator[None]:
    """End the connection at this time: a timeout of the socket begins anew with every byte."""

    def cut() -> None:
        with contextlib.suppress(OSError):  # closed meanwhile
            sock.shutdown(socket.SHUT_RDWR)

    timer = threading.Timer(max(ends_at - time.monotonic(), 0.0), cut)
    timer.daemon = True
    timer.start()
    try:
        yield
    finally:
        timer.cancel()


def _question(request: ChatRequest) -> bytes:
    """Whatever in a request is text of the client's: a schema or a tool's description reaches the model, too."""
    who = {"id": request.rid, "user": request.user, "model": request.model}
    said = {"messages": [message.encoded() for message in request.messages], "prompt": request.prompt}
    form = {"stop": request.sampling.stop, "response_format": request.sampling.response_format}
    return orjson.dumps({"stage": "question", **who, **said, "tools": request.tools, **form})


def _answer(answer: FinishedAnswer) -> bytes:
    who = {"id": answer.rid, "user": answer.user, "model": answer.model}
    said = {"role": "assistant", "content": answer.content, "reasoning": answer.reasoning}
    return orjson.dumps({"stage": "answer", **who, "messages": [said]})
