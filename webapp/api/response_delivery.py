"""Delivers one response over HTTP: as a stream of its events, or whole at its end. `responses.py` calls it.

A stream that somebody may leave and take up again begins at once; another one as those of `delivery.py` do.
"""

import itertools
import logging
from collections.abc import Callable, Iterable, Iterator
from functools import partial

import orjson
from flask import Response

from services.chat.feed import AnswerFeed
from services.chat.follower import Follower
from services.chat.reader import Done, Rewind, Status, Text
from services.chat.requests import Requests
from services.errors import ChatServerError
from services.openai.frames import Frame
from services.openai.response_objects import ResponseFrames, whole_response
from services.responses.responses import KeptResponse
from services.wire.messages import ChatRequest
from webapp.api.answers import Answers
from webapp.api.apart import apart
from webapp.api.delivery import END, Told, event_stream, opening, with_comments
from webapp.api.errors import failed
from webapp.api.response_events import ResponseEvents

log = logging.getLogger("chatserver.web")


class ResponseAnswer(Answers):
    """The answer of one response: of a new one with its order and note, else of one that was ordered before."""

    def __init__(
        self,
        feed: AnswerFeed,
        requests: Requests,
        rid: str,
        user: str,
        *,
        interval_s: float,
        order: ChatRequest | None = None,
        note: bytes = b"",
        address: str = "",
        outlives_reader: bool = True,
    ) -> None:
        self._rid = rid
        self._user = user
        self._note = note
        orders = [order] if order else []
        super().__init__(
            feed, requests, orders, address=address, interval_s=interval_s, outlives_reader=outlives_reader
        )

    @property
    def follower(self) -> Follower:
        return self._followers[0]

    def _submit(self, address: str) -> None:
        order = self._orders[0] if self._orders else None
        if order:
            self._submitted.append(order)  # before it is known: a lost reply may be that of one that was accepted
            self._requests.submit(order, address, self._note)
            log.info("submitted", extra={"rid": order.rid, "model": order.model, "user": order.user})
        follower = self._feed.follow(self._rid, self._user, self._changed.set, request=order, note=self._note)
        self._followers.append(follower)


class ResponseDelivery:
    """One HTTP request's response to its client. Each method returns and leaves the answer in the end."""

    def __init__(self, answer: ResponseAnswer, frames: ResponseFrames, client_left: Callable[[], bool]) -> None:
        self._answer = answer
        self._frames = frames
        self._client_left = client_left

    def whole(self) -> Response:
        """The response when it has ended. One that failed is an HTTP error."""
        try:
            for told in self._answer.events():
                if told == "tick" and self._client_left():
                    return Response(status=499)  # nobody reads it
                if told != "tick" and isinstance(told[1], Done):
                    return self._ended(told[1])
        finally:
            self._answer.close()
        raise AssertionError("an answer ends with its end")

    def stream(self, *, after: int = -1, at_once: bool) -> Response:
        """The events after a number, as they come."""
        told = self._answer.events()
        try:
            begun = [] if at_once else opening(told)
        except BaseException:
            self._answer.close()
            raise
        last = begun[-1] if begun else "tick"
        if last != "tick" and isinstance(last[1], Done) and last[1].status == "failed":
            self._answer.close()
            return failed(last[1])
        events = self._events(itertools.chain(begun, told), ResponseEvents(self._frames, after))
        return event_stream(events, self._answer)

    def _ended(self, done: Done) -> Response:
        if done.status == "failed":
            return failed(done)
        answer = self._answer.follower
        logprobs = answer.logprobs
        whole = partial(self._frames.whole, answer.text, done.parts or (), done, running=True, logprobs=logprobs)
        return _made(len(logprobs), whole)

    def _events(self, told: Iterator[Told], events: ResponseEvents) -> Iterator[bytes]:
        try:
            for frame in events.opening():
                yield _event(frame)
            yield from self._middle(told, events)
        except ChatServerError as error:
            yield _event(events.error(error.code, error.message))
        except Exception:  # the status is sent: what is left is an event
            log.exception("a stream failed")
            yield _event(events.error(ChatServerError.code, "the server failed on this stream; its log says why"))
        finally:
            self._answer.close()

    def _middle(self, told: Iterator[Told], events: ResponseEvents) -> Iterator[bytes]:
        """All from the beginning of the answer to its end."""
        for each in with_comments(told, self._answer, self._client_left):
            if isinstance(each, bytes):
                yield each
                continue
            event = each[1]
            if isinstance(event, Rewind):
                yield _event(events.rewound(event.offset))
                return
            for frame in _frames_of(event, events):
                yield _event(frame)
            if isinstance(event, Done):
                yield END


def _frames_of(event: Text | Done | Status, events: ResponseEvents) -> Iterable[Frame]:
    if isinstance(event, Text):
        return apart(len(event.logprobs), lambda: list(events.text(event)))
    if isinstance(event, Done):
        return events.end(event)
    return events.begun() if event.state in ("running", "interrupted") else ()


def kept_response(kept: KeptResponse) -> Response:
    """A kept response as it is now, as a whole response of HTTP."""
    return _made(len(kept.logprobs), partial(whole_response, kept))


def _made(num_logprobs: int, make: Callable[[], Frame]) -> Response:
    return Response(apart(num_logprobs, lambda: orjson.dumps(make())), mimetype="application/json")


def as_json(frame: Frame) -> Response:
    """An object as a whole response of HTTP."""
    return Response(orjson.dumps(frame), mimetype="application/json")


def _event(frame: Frame) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (frame["type"].encode(), orjson.dumps(frame))
