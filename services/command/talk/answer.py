"""Asks one question and shows its answer while it comes. `chat` and `send` use it.

Ctrl-C ends the answer, not the program. A thread sends the cancel while the main thread goes on reading, so it sees the
terminal event like any other. A second Ctrl-C leaves at once.
"""

import itertools
import logging
import queue
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from types import FrameType
from typing import Any, Protocol

import redis

from services.chat.client import ChatClient
from services.chat.reader import Done, Rewind, Status, Text
from services.chat.said import Said
from services.connection.connect import translated, wait_for_redis
from services.errors import Forbidden, Gone, Unavailable
from services.serving.overview import waiting_for
from services.wire.messages import ANSWER, ChatRequest

CANCEL_RETRY_S = 0.5


class Display(Protocol):
    """The place where an answer is shown."""

    def reasoning(self, text: str) -> None:
        """Show more of what the model thinks before it answers."""

    def text(self, text: str) -> None:
        """Show more text of the answer."""

    def rewind(self, offset: int) -> bool:
        """Take back the text of the answer after `offset`; False when this display cannot."""

    def waiting(self, status: Status) -> None:
        """Show the status of a request without text: queued or running."""

    def note(self, line: str) -> None:
        """Show a line for the user beside the answer."""


@dataclass(frozen=True)
class Answer:
    """How a question ended: status `finished`, `failed` or `cancelled`, the answer until then, and its reasoning."""

    text: str
    status: str
    code: str
    message: str
    usage: dict[str, Any]
    reasoning: str = ""

    @property
    def only_thought(self) -> bool:
        """Whether the model came to no answer."""
        return bool(self.reasoning) and not self.text

    @property
    def exit_code(self) -> int:
        return {"finished": 0, "cancelled": 130}.get(self.status, 1)


def ask(client: ChatClient, connection: redis.Redis, request: ChatRequest, display: Display) -> Answer:
    """Submit, follow to the end, show. Raises what `ChatClient.submit` and `follow` raise."""
    logging.getLogger("chatserver.feed").setLevel(logging.ERROR)  # of a lost subscription the display is told
    _submit(client, connection, request, display)
    with _interrupt_cancels(client, request), translated():
        try:
            return _follow(client, connection, request, display)
        except BrokenPipeError:  # nobody reads our output: nobody needs the answer
            client.cancel(request.rid, request.user)
            raise


def _submit(client: ChatClient, connection: redis.Redis, request: ChatRequest, display: Display) -> None:
    while True:
        try:
            with translated():
                return client.submit(request)
        except Unavailable as error:
            if not isinstance(error.__cause__, redis.ConnectionError | redis.TimeoutError):
                raise
        wait_for_redis(connection, display.note)  # the id is accepted once, however often it is submitted


def _follow(client: ChatClient, connection: redis.Redis, request: ChatRequest, display: Display) -> Answer:
    said, done = Said(), None
    waits = partial(waiting_for, connection, client.keys)
    for event in client.follow(request.rid, request.user, request=request, on_outage=display.note, waiting_for=waits):
        if isinstance(event, Text):
            said.take(event)
            show = display.text if event.part == ANSWER else display.reasoning
            show(event.text)
        elif isinstance(event, Rewind):
            before = said.answer
            said.rewind(event.offset)
            if said.answer != before and not display.rewind(len(said.answer)):
                client.cancel(request.rid, request.user)
                lost = "Redis lost a part of the answer that is already printed; ask again"
                return Answer(said.answer, "failed", "interrupted", lost, {}, said.reasoning)
        elif isinstance(event, Status):
            display.waiting(event)
        else:
            done = event
    assert isinstance(done, Done), "an answer was followed past its end"
    return Answer(said.answer, done.status, done.code, done.message, done.usage, said.reasoning)


@contextmanager
def _interrupt_cancels(client: ChatClient, request: ChatRequest) -> Iterator[None]:
    over, interrupts = threading.Event(), itertools.count()
    wanted: queue.SimpleQueue[bool] = queue.SimpleQueue()  # see services/machine/signals.py

    def interrupt(number: int, frame: FrameType | None) -> None:
        if next(interrupts):
            raise KeyboardInterrupt
        wanted.put(True)

    def cancel_when_wanted() -> None:
        if wanted.get():
            _cancel(client, request, over)

    threading.Thread(target=cancel_when_wanted, name="cancel", daemon=True).start()
    before = signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        over.set()
        wanted.put(False)
        signal.signal(signal.SIGINT, before)


def _cancel(client: ChatClient, request: ChatRequest, over: threading.Event) -> None:
    """Repeat the cancel until Redis accepts it or the answer ends: Redis may be away, or have lost the request."""
    while not over.is_set():
        try:
            client.cancel(request.rid, request.user)
        except (redis.RedisError, Gone):
            over.wait(CANCEL_RETRY_S)
        except Forbidden:
            return
        else:
            return
