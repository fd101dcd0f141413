"""Clients that keep the rules of docs/protocol.md strictly and write down every breach of the other side.

    tab = Tab("tab-0", urls)
    reading = tab.run(Question("q1", "hello", 40), Behaviour(second_tab=True), deadline=time.monotonic() + 30)
    assert reading.done and not reading.breaches

`Tab` is a browser's tab over Socket.IO; `Terminal` is the CLI's client, straight to Redis. `run` is for one thread at a
time per client. The readings of both are judged by `tests/faults/invariants.py`.
"""

import threading
import time
from collections import Counter, deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import redis
import socketio

from services.chat.client import ChatClient
from services.chat.reader import Done, ReaderEvent, Rewind, Text
from services.connection.connect import connect
from services.errors import ChatServerError
from services.wire.keys import Keys
from services.wire.messages import TERMINAL, ChatRequest, Message, SamplingOptions
from tests.end_to_end.system import OrderedClient, session_cookie, wait_until
from tests.faults.worker import MODEL

CALL_TIMEOUT_S = 5.0
PAUSE_S = 0.02
RETRY_S = 0.2
RECEIVED_CHARS = 64  # a quarter of the harness's window
PASSING = frozenset({"unavailable", "busy", "user_limit", "unknown_model"})  # a later try may be accepted


@dataclass(frozen=True)
class Question:
    """What is asked; `text` may be an order of `tests/faults/worker.py`."""

    rid: str
    text: str = "hello"
    max_new_tokens: int = 40

    def payload(self) -> dict[str, Any]:
        """As a socket submits it."""
        messages = [{"role": "user", "content": self.text}]
        sampling = {"max_new_tokens": self.max_new_tokens}
        return {"id": self.rid, "model": MODEL, "messages": messages, "sampling": sampling}

    def request(self, user: str) -> ChatRequest:
        """As a client of Redis submits it."""
        options = SamplingOptions(max_new_tokens=self.max_new_tokens)
        return ChatRequest(self.rid, user, MODEL, (Message("user", self.text),), options)


@dataclass(frozen=True)
class Behaviour:
    """What a person does beside reading. A terminal has no slowness and no second tab."""

    slow_s: float = 0.0  # acknowledges what it received only this often
    second_tab: bool = False  # opens the same answer on another web process
    vanish: bool = False  # goes away once the question is accepted
    cancel_after: int | None = None  # code points after which it cancels
    twice: bool = False  # submits the same id once more
    moves_after: int | None = None  # code points after which its connection goes to the next web process


@dataclass
class Reading:
    """What one reader saw of one answer."""

    question: Question
    reader: str
    watched_at: float = field(default_factory=time.monotonic)
    acknowledged_at: float | None = None  # `time.monotonic()`; None: this reader did not submit it, or in vain
    text: str = ""
    arrivals: list[float] = field(default_factory=list)  # when text came, `time.monotonic()`
    nonce: str = ""
    done: list[dict[str, Any]] = field(default_factory=list)
    done_at: float | None = None  # `time.monotonic()`
    late_s: float = 0.0  # how long after the journal's end it was told; clocks of one machine
    rewinds: int = 0
    breaches: list[str] = field(default_factory=list)
    refusals: Counter[str] = field(default_factory=Counter)
    asked_to_cancel: bool = False  # whether or not that was acknowledged
    cancelled: str = ""  # the status that the acknowledgement named
    left: bool = False  # its reader went away on purpose
    repeats: bool = False  # this reader asked for the text again on this connection: repeats are its own doing
    trace: deque[str] = field(default_factory=lambda: deque(maxlen=60))

    @property
    def rid(self) -> str:
        return self.question.rid

    def note(self, what: str) -> None:
        self.trace.append(f"{time.monotonic():.3f} {what}")

    def breach(self, what: str) -> None:
        self.note(f"BREACH {what}")
        self.breaches.append(f"{self.reader} on {self.rid}: {what}")

    def apply_text(self, offset: int, nonce: str, text: str) -> bool:
        """Text that was sent; False when there is a gap before it."""
        have = len(self.text)
        self.note(f"text {offset}+{len(text)} have {have} nonce {nonce[:6]}")
        if self.done and not self.repeats:
            self.breach(f"text at {offset} after the end")
        elif offset == have:
            self.text, self.nonce = self.text + text, nonce
            self.arrivals.append(time.monotonic())
        elif not self.repeats:
            self.breach(f"text at {offset}, have {have}")
        elif text[: have - offset] != self.text[offset : offset + len(text)] and offset < have:
            self.breach(f"the repeat at {offset} is another text")
        return offset <= have

    def apply_rewind(self, offset: int, nonce: str) -> None:
        self.note(f"rewind {offset} have {len(self.text)} nonce {nonce[:6]}")
        if self.done:
            self.breach(f"rewind to {offset} after the end")
        self.rewinds += 1
        self.text, self.nonce = self.text[:offset], nonce

    def apply_done(self, done: dict[str, Any]) -> None:
        self.note(f"done {done['status']} {done['code']} at {done['offset']} have {len(self.text)}")
        if done["status"] not in TERMINAL:
            self.breach(f"ended as {done['status']}")
        if self.done and not (self.repeats and done == self.done[0]):
            self.breach(f"a second end: {done} after {self.done[0]}")
        if done["offset"] != len(self.text):
            self.breach(f"done at {done['offset']}, have {len(self.text)}")
        self.done_at = self.done_at or time.monotonic()
        self.done.append(done)


class Tab:
    """A browser's tab: on a lost connection it goes to the next web process and resumes what is not done."""

    def __init__(self, name: str, urls: Sequence[str], *, cookie: str = "") -> None:
        self.name = name
        self._urls = list(urls)
        self.cookie = cookie or session_cookie(self._urls[0])
        self.readings: list[Reading] = []
        self._open: dict[str, Reading] = {}  # to be watched until their end
        self._watched: set[str] = set()  # on the present connection
        self._client: OrderedClient | None = None
        self._received_at = 0.0
        self._slow_s = 0.0
        self._second: Tab | None = None

    @property
    def url(self) -> str:
        """The web process of the present connection, or of the last one."""
        return self._urls[-1]

    def run(self, question: Question, behaviour: Behaviour, deadline: float) -> Reading:
        """Ask, and read until the end or until `deadline` (`time.monotonic()`)."""
        reading = Reading(question, self.name)
        self.readings.append(reading)
        if not self._submit(reading, deadline):
            return reading
        if behaviour.vanish:
            reading.left = True
            self.close()
            return reading
        if behaviour.twice:
            self._submit(reading, deadline)
        if behaviour.second_tab:
            self._beside().watch(question)
        self._read(reading, behaviour, deadline)
        return reading

    def watch(self, question: Question) -> Reading:
        """Follow somebody's request of the same user; `tend` must be called until the end."""
        reading = Reading(question, self.name)
        self.readings.append(reading)
        self._open[question.rid] = reading
        return reading

    def close(self) -> None:
        """Go away at once. What is not done is forgotten by this tab, not by the server."""
        client, self._client = self._client, None
        self._open.clear()
        if client is not None and client.connected:
            client.disconnect()
        if self._second is not None:
            self._second.close()

    def _beside(self) -> "Tab":
        """The second tab: the same cookie, another web process first."""
        if self._second is None:
            self._second = Tab(f"{self.name}b", [*self._urls[1:], self._urls[0]], cookie=self.cookie)
            self._second.readings = self.readings
        return self._second

    # -- asking --------------------------------------------------------------------------------------------------

    def _submit(self, reading: Reading, deadline: float) -> bool:
        """Submit until it is acknowledged: after a lost acknowledgement the same id is simply submitted again."""
        self._open[reading.rid] = reading
        while time.monotonic() < deadline:
            if self._connected():
                reading.repeats = reading.repeats or reading.rid in self._watched
                self._watched.add(reading.rid)  # an unanswered submit may have begun to watch, too
                answer = self._call("submit", reading.question.payload())
                reading.note(f"submit: {answer}")
                if answer and answer["ok"]:
                    reading.acknowledged_at = reading.acknowledged_at or time.monotonic()
                    return True
                if answer and not self._passing(reading, "submit", answer):
                    break
            time.sleep(RETRY_S)
        self._open.pop(reading.rid, None)
        return reading.acknowledged_at is not None

    def _passing(self, reading: Reading, what: str, answer: dict[str, Any]) -> bool:
        code = answer["error"]["code"]
        reading.refusals[code] += 1
        if code not in PASSING:
            reading.breach(f"{what} refused: {answer['error']}")
        return code in PASSING

    def _read(self, reading: Reading, behaviour: Behaviour, deadline: float) -> None:
        tabs = [self, self._second] if self._second else [self]
        moves_after = behaviour.moves_after
        while time.monotonic() < deadline:
            for tab in tabs:
                tab.tend(behaviour.slow_s)
            if moves_after is not None and len(reading.text) >= moves_after:
                self._move()
                moves_after = None
            if behaviour.cancel_after is not None and len(reading.text) >= behaviour.cancel_after:
                self._cancel(reading)
            if not any(tab._open for tab in tabs):
                return
            time.sleep(PAUSE_S)
        for tab in tabs:
            tab._open.clear()

    def _move(self) -> None:
        """Lose the connection; the next one is to the next web process, where a second tab may read the same."""
        if self._client is not None and self._client.connected:
            self._client.disconnect()

    def _cancel(self, reading: Reading) -> None:
        if reading.cancelled or reading.done or not self._connected():
            return
        reading.asked_to_cancel = True
        answer = self._call("cancel", {"id": reading.rid})
        reading.note(f"cancel: {answer}")
        if answer and answer["ok"]:
            reading.cancelled = answer["status"]
        elif answer:
            self._passing(reading, "cancel", answer)

    # -- reading -------------------------------------------------------------------------------------------------

    def tend(self, slow_s: float = 0.0) -> None:
        """What is due: connect again, watch again from the cursor, acknowledge what a slow reader has read."""
        for rid in [rid for rid, reading in self._open.items() if reading.done]:
            del self._open[rid]
        if not self._open or not self._connected():
            return
        for reading in list(self._open.values()):
            if reading.rid not in self._watched:
                self._watch(reading)
        self._slow_s = slow_s
        if slow_s and time.monotonic() - self._received_at >= slow_s:
            self._received_at = time.monotonic()
            for reading in self._open.values():
                self._emit("received", {"id": reading.rid, "offset": len(reading.text)})

    def _watch(self, reading: Reading) -> None:
        self._watched.add(reading.rid)
        cursor = {"id": reading.rid, "offset": len(reading.text), "nonce": reading.nonce}
        answer = self._call("watch", cursor)
        reading.note(f"watch from {cursor['offset']} {cursor['nonce'][:6]}: {answer}")
        if answer and answer["ok"]:
            return
        if answer:
            self._passing(reading, "watch", answer)
        reading.repeats = True  # the next one may be the second
        self._watched.discard(reading.rid)

    def _connected(self) -> bool:
        """Whether there is a connection now; tries the next web process when there is none."""
        if self._client is not None and self._client.connected:
            return True
        client = OrderedClient(reconnection=False, handle_sigint=False)
        for event, handler in (("tokens", self._tokens), ("rewind", self._rewind), ("done", self._done)):
            client.on(event, lambda payload, handler=handler: self._hear(client, handler, payload))
        self._urls.append(self._urls.pop(0))
        self._watched = set()
        for reading in self._open.values():
            reading.repeats = False
        self._client = client
        try:
            client.connect(self._urls[-1], headers={"Cookie": self.cookie}, transports=["websocket"], wait_timeout=3)
        except socketio.exceptions.ConnectionError:
            self._client = None
        return self._client is not None

    def _hear(self, client: OrderedClient, handler: Any, event: dict[str, Any]) -> None:
        """An event of the present connection about an answer that is followed."""
        reading = self._open.get(event["id"])
        if client is self._client and reading is not None:
            handler(reading, event)

    def _tokens(self, reading: Reading, event: dict[str, Any]) -> None:
        before = len(reading.text)
        if not reading.apply_text(event["offset"], event["nonce"], event["text"]):
            reading.repeats = True
            self._watched.discard(reading.rid)  # a gap: watch again from what we have
        if not self._slow_s and len(reading.text) // RECEIVED_CHARS > before // RECEIVED_CHARS:
            self._emit("received", {"id": reading.rid, "offset": len(reading.text)})

    def _rewind(self, reading: Reading, event: dict[str, Any]) -> None:
        reading.apply_rewind(event["offset"], event["nonce"])

    def _done(self, reading: Reading, event: dict[str, Any]) -> None:
        reading.apply_done({name: value for name, value in event.items() if name != "id"})

    def _emit(self, event: str, payload: dict[str, Any]) -> None:
        client = self._client
        if client is not None and client.connected:
            try:
                client.emit(event, payload)
            except socketio.exceptions.SocketIOError:
                return  # the connection broke this moment; `tend` sees it

    def call(self, event: str, payload: dict[str, Any]) -> dict[str, Any] | None:
        """Any event of the protocol, once there is a connection; its acknowledgement, None when that was lost."""
        wait_until(self._connected, "a connection")
        return self._call(event, payload)

    def _call(self, event: str, payload: dict[str, Any]) -> dict[str, Any] | None:
        """The acknowledgement; None when it was lost or did not come in time."""
        client, answered = self._client, threading.Event()
        answers: list[dict[str, Any]] = []
        if client is None:
            return None
        try:
            client.emit(event, payload, callback=lambda answer: (answers.append(answer), answered.set()))
        except socketio.exceptions.SocketIOError:
            return None
        deadline = time.monotonic() + CALL_TIMEOUT_S
        while client.connected and time.monotonic() < deadline and not answered.wait(PAUSE_S):
            pass
        return answers[0] if answers else None


class Terminal:
    """The command line's client: `ChatClient.follow`, straight to Redis or through a proxy."""

    def __init__(self, name: str, redis_url: str, keys: Keys, *, address: str = "") -> None:
        self.name = name
        self.user = f"user-{name}"
        self._address = address  # from which a web process would see it ask
        self.readings: list[Reading] = []
        self._redis: redis.Redis = connect(redis_url, role="test")
        self._client = ChatClient(self._redis, keys)

    def run(self, question: Question, behaviour: Behaviour, deadline: float) -> Reading:
        """Ask, and read until the end or until `deadline` (`time.monotonic()`)."""
        reading = Reading(question, self.name)
        self.readings.append(reading)
        if not self._submit(reading, deadline):
            return reading
        if behaviour.twice:
            self._submit(reading, deadline)
        if behaviour.vanish:
            reading.left = True
            return reading
        thread = threading.Thread(target=self._follow, args=(reading, behaviour, deadline), daemon=True)
        thread.start()
        thread.join(max(0.0, deadline - time.monotonic()))
        return reading

    def close(self) -> None:
        self._redis.close()

    def _submit(self, reading: Reading, deadline: float) -> bool:
        while time.monotonic() < deadline:
            try:
                self._client.submit(reading.question.request(self.user), self._address)
            except (redis.RedisError, ChatServerError) as error:
                self._refused(reading, error)
                time.sleep(RETRY_S)
            else:
                reading.acknowledged_at = reading.acknowledged_at or time.monotonic()
                return True
        return False

    def _refused(self, reading: Reading, error: Exception) -> None:
        code = error.code if isinstance(error, ChatServerError) else "unavailable"
        reading.note(f"refused: {error}")
        reading.refusals[code] += 1
        if code not in PASSING:
            reading.breach(f"refused: {error}")

    def _follow(self, reading: Reading, behaviour: Behaviour, deadline: float) -> None:
        request = reading.question.request(self.user)
        try:
            for event in self._client.follow(reading.rid, self.user, request=request, on_outage=reading.note):
                self._apply(reading, event)
                if behaviour.cancel_after is not None and len(reading.text) >= behaviour.cancel_after:
                    self._cancel(reading)
                if time.monotonic() > deadline:
                    return
        except Exception as error:  # noqa: BLE001 - whatever ends the generator ends an answer that was promised
            if time.monotonic() < deadline:  # later it is our own `close` that ends it
                reading.breach(f"following ended with {error!r}")

    def _apply(self, reading: Reading, event: ReaderEvent) -> None:
        if isinstance(event, Text):
            reading.apply_text(event.offset, event.nonce, event.text)
        elif isinstance(event, Rewind):
            reading.apply_rewind(event.offset, event.nonce)
        elif isinstance(event, Done):
            reading.apply_done({**vars(event)})

    def _cancel(self, reading: Reading) -> None:
        if reading.cancelled or reading.done:
            return
        reading.asked_to_cancel = True
        try:
            reading.cancelled = self._client.cancel(reading.rid, self.user)
        except (redis.RedisError, ChatServerError) as error:
            self._refused(reading, error)
