"""Asks an HTTP endpoint of the operator's whether a request may be queued. `services/chat/requests.py` calls it.

    POST MODERATION_URL {"stage": "question", "id", "user", "model", "messages": [{"role", "content", …}], "prompt",
                         "tools": [{"type": "function", "function"}], "stop": ["…"], "response_format": {"type", …}}
    200 {"verdict": "pass" | "flag" | "refuse", "reason": "…"}

Whatever else the endpoint does (it is away, slow, answers another status or other JSON) is an outage, and a setting
says what happens to the request then. No call takes longer than its limit.
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


class Moderator:
    """The endpoint, and what its outage means: `refuse` (the client may try again), `flag` or `pass`."""

    def __init__(self, url: str, *, timeout_s: float, outage: VerdictKind) -> None:
        parts = urlsplit(url)
        if parts.scheme not in CONNECTIONS or not parts.hostname:
            raise ConfigurationError(f"CHATSERVER_MODERATION_URL={url!r} is no http:// or https:// URL")
        self._parts = parts
        self._timeout_s = timeout_s
        self._outage = outage

    @classmethod
    def from_settings(cls, settings: Settings) -> "Moderator | None":
        """None where nothing is moderated."""
        if not settings.moderation_url:
            return None
        outage: VerdictKind = settings.moderation_outage
        return cls(settings.moderation_url, timeout_s=settings.moderation_timeout_s, outage=outage)

    def judge(self, request: ChatRequest) -> Verdict:
        """The verdict on a request that nobody has accepted yet. Raises ContentRefused, or Unavailable in an outage."""
        try:
            verdict = Verdict.decode(self._post(_question(request)))
        except (OSError, http.client.HTTPException, ValueError) as error:
            return self._without(request, error)
        if verdict.kind == "refuse":
            raise ContentRefused(verdict.reason or "the operator's moderation refuses this text")
        return verdict

    def _without(self, request: ChatRequest, error: Exception) -> Verdict:
        why = str(error) or type(error).__name__
        log.warning("no verdict: %s", why, extra={"rid": request.rid, "outage": self._outage})
        if self._outage == "refuse":
            raise Unavailable("the moderation does not answer, and nothing is accepted without it", retry_after_s=5)
        return Verdict(self._outage, "no verdict" if self._outage == "flag" else "")

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
