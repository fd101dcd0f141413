"""One streamed question to `/v1/chat/completions`, with the time of each piece of its answer.

`scenarios.py` calls it from as many threads as there are clients. The reader believes only what all servers agree on:
lines of `data:`, a choice with a delta, and an end; a frame with an error, another status or a missing end is an error.
"""

import http.client
import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

TIMEOUT_S = 600.0
Message = dict[str, str]


@dataclass
class Reply:
    """Times are `time.monotonic()`."""

    sent_at: float
    pieces: list[str] = field(default_factory=list)
    arrivals: list[float] = field(default_factory=list)  # of the pieces
    ended_at: float = 0.0
    error: str = ""

    @property
    def text(self) -> str:
        return "".join(self.pieces)

    @property
    def first_ms(self) -> float:
        return 1000 * (self.arrivals[0] - self.sent_at)

    @property
    def gaps_ms(self) -> list[float]:
        """Between one piece and the next. A server that sends several tokens at once has fewer, longer gaps."""
        return [1000 * (after - before) for before, after in zip(self.arrivals, self.arrivals[1:], strict=False)]


class StreamError(Exception):
    """The stream says that the answer failed, or is no stream of chat completions."""


def ask(url: str, model: str, messages: list[Message], tokens: int) -> Reply:
    """Greedy, at most `tokens` new ones. Never raises for what the server does; see `error`."""
    body = {"model": model, "messages": messages, "max_tokens": tokens, "temperature": 0, "stream": True}
    place = urlsplit(url)
    connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=TIMEOUT_S)
    reply = Reply(time.monotonic())
    try:
        connection.request(
            "POST",
            "/v1/chat/completions",
            json.dumps(body),
            {"Content-Type": "application/json", "Connection": "close"},
        )
        response = connection.getresponse()
        if response.status != 200:
            raise StreamError(f"status {response.status}: {response.read(500).decode(errors='replace')}")
        for piece in pieces(iter(response.readline, b"")):
            reply.arrivals.append(time.monotonic())
            reply.pieces.append(piece)
        if not reply.pieces:
            raise StreamError("the answer is empty")
    except (OSError, http.client.HTTPException, StreamError) as error:
        reply.error = f"{type(error).__name__}: {error}"
    finally:
        connection.close()
    reply.ended_at = time.monotonic()
    return reply


def pieces(lines: Iterable[bytes]) -> Iterator[str]:
    """The text in a stream of server-sent events, as it comes. Raises StreamError when the stream breaks off."""
    finished = False
    for line in lines:
        name, _, value = line.strip().partition(b":")
        if name != b"data":
            continue  # an empty line, a comment that keeps the connection, the name of an event
        if value.strip() == b"[DONE]":
            return
        for choice in _choices(value):
            if text := (choice.get("delta") or {}).get("content"):
                yield text
            finished = finished or bool(choice.get("finish_reason"))
    if not finished:
        raise StreamError("the stream ended before the answer did")


def _choices(value: bytes) -> list[dict[str, Any]]:
    try:
        frame = json.loads(value)
    except ValueError:
        raise StreamError(f"not JSON: {value[:200]!r}") from None
    if not isinstance(frame, dict) or frame.get("error") or "error_code" in frame:
        raise StreamError(f"{value[:500].decode(errors='replace')}")
    return frame.get("choices") or []  # the frame with the usage has none
