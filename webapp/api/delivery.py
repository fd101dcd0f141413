"""Delivers answers over HTTP: as a stream of server-sent events, or whole. The blueprints of completions call it.

A stream begins with the first text, or after two seconds; so what a worker refuses at once still has its HTTP status.
While nothing comes, comments say what the request waits for: proxies and clients take silence for death.
"""

import itertools
import logging
import time
from collections.abc import Callable, Iterator

import orjson
from flask import Response

from services.chat.follower import Follower
from services.chat.reader import Done, ReaderEvent, Rewind, Text
from services.chat.said import Said
from services.errors import ChatServerError
from services.openai.failures import error_body, failure
from services.openai.frames import Frame, Frames, usage_of
from webapp.api.answers import Answers, Tick
from webapp.api.apart import apart
from webapp.api.errors import failed

log = logging.getLogger("chatserver.web")

OPENING_S = 2.0
COMMENT_S = 5.0
END = b"data: [DONE]\n\n"

Told = tuple[int, ReaderEvent] | Tick


class Delivery:
    """One HTTP request's answers to its client. `client_left` says whether anybody still reads.

    `n`: how many choices answer the same prompt. Each method returns a response and leaves the answers in the end.
    """

    def __init__(self, answers: Answers, frames: Frames, client_left: Callable[[], bool], *, n: int) -> None:
        self._answers = answers
        self._frames = frames
        self._client_left = client_left
        self._n = n
        self._num = len(answers.waiting)
        self._ends: dict[int, Done] = {}

    def whole(self) -> Response:
        """All at once, when all choices have ended."""
        said = [Said() for _ in range(self._num)]
        try:
            for told in self._answers.events():
                if told == "tick":
                    if self._client_left():
                        return Response(status=499)  # nobody reads it
                    continue
                choice, event = told
                if isinstance(event, Text):
                    said[choice].take(event)
                elif isinstance(event, Rewind):
                    said[choice].rewind(event.offset)
                elif isinstance(event, Done):
                    if event.status != "finished":
                        return failed(event)
                    self._ends[choice] = event
        finally:
            self._answers.close()
        pairs = [(each, self._ends[choice]) for choice, each in enumerate(said)]
        num_logprobs = sum(len(each.logprobs) for each in said)
        whole = apart(num_logprobs, lambda: orjson.dumps(self._frames.whole(pairs, self._usage())))
        return Response(whole, mimetype="application/json")

    def stream(self, *, includes_usage: bool) -> Response:
        """As it comes."""
        told = self._answers.events()
        try:
            begun = opening(told)
        except BaseException:
            self._answers.close()
            raise
        last = begun[-1]
        if last != "tick" and isinstance(last[1], Done) and last[1].status != "finished":
            self._answers.close()
            return failed(last[1])
        return event_stream(self._events(itertools.chain(begun, told), includes_usage), self._answers)

    def _events(self, told: Iterator[Told], includes_usage: bool) -> Iterator[bytes]:
        try:
            for choice in range(self._num):
                yield _data(self._frames.first(choice))
            yield from self._middle(told)
            if len(self._ends) == self._num:
                if includes_usage:
                    yield _data(self._frames.usage(self._usage()))
                yield END
        except ChatServerError as error:
            yield _data(error_body(error.code, error.http_status, error.message))
        except Exception:  # the status is sent: what is left is an event
            log.exception("a stream failed")
            yield _data(error_body(ChatServerError.code, 500, "the server failed on this stream; its log says why"))
        finally:
            self._answers.close()

    def _middle(self, told: Iterator[Told]) -> Iterator[bytes]:
        """Text and ends of all choices; an error is the last."""
        for each in with_comments(told, self._answers, self._client_left):
            if isinstance(each, bytes):
                yield each
                continue
            choice, event = each
            if isinstance(event, Text):
                yield from map(_data, apart(len(event.logprobs), self._frames.text, choice, event))
            elif isinstance(event, Rewind):
                lost = "Redis lost a part of the answer that is already sent; ask again"
                yield _data(error_body("interrupted", 500, lost))
                return
            elif isinstance(event, Done):
                if event.status != "finished":
                    yield _data(failure(event)[0])
                    return
                self._ends[choice] = event
                yield from map(_data, self._frames.end(choice, event))

    def _usage(self) -> Frame:
        return usage_of((self._ends[choice] for choice in sorted(self._ends)), self._n)


def opening(told: Iterator[Told]) -> list[Told]:
    """What comes until the first text or end, but not for long."""
    begun_at, begun = time.monotonic(), list[Told]()
    for each in told:
        begun.append(each)
        if time.monotonic() - begun_at > OPENING_S or (each != "tick" and isinstance(each[1], Text | Done)):
            break
    return begun


def event_stream(events: Iterator[bytes], answers: Answers) -> Response:
    """Server-sent events as a response, at whose end the answers are left."""
    response = Response(events, mimetype="text/event-stream")
    response.headers["Cache-Control"] = "no-cache"
    response.headers["X-Accel-Buffering"] = "no"  # nginx would hold the stream back
    response.call_on_close(answers.close)  # the generator may never have begun
    return response


def with_comments(
    told: Iterator[Told], answers: Answers, client_left: Callable[[], bool]
) -> Iterator[tuple[int, ReaderEvent] | bytes]:
    """What is told, until the client leaves; while no text comes, a comment now and then."""
    told_at = time.monotonic()
    for each in told:
        if each != "tick":
            told_at = time.monotonic() if isinstance(each[1], Text) else told_at
            yield each
        elif client_left():
            return
        elif time.monotonic() - told_at > COMMENT_S:
            told_at = time.monotonic()
            yield comment(answers.waiting)


def comment(waiting: list[Follower]) -> bytes:
    """A line that clients skip: what the first choice that has not ended is doing."""
    status = next((follower.status for follower in waiting), None)
    words: str = status.state if status else "queued"
    if status and status.position is not None:
        words += f", {status.position} ahead"
    if status and status.eta_s is not None:
        words += f", about {status.eta_s} s"
    return f": {words}\n\n".encode()


def _data(frame: Frame) -> bytes:
    return b"data: " + orjson.dumps(frame) + b"\n\n"
