"""Workers and readers in this process, for tests that take Redis from them. Each reader judges what it is given."""

import threading
import time
from collections.abc import Callable

import redis

from services.chat.client import ChatClient
from services.chat.reader import Done, ReaderEvent, Rewind, Text
from services.connection.connect import connect
from services.errors import ChatServerError
from services.wire.keys import Keys
from services.wire.messages import ChatRequest, Message
from tests.stand_ins.synthetic_worker import EchoEngine, plan
from workers.worker import Worker

MODEL = "echo"


class Reader:
    """Submits one request and follows it to its end; `problems` is what no client may ever see."""

    def __init__(self, client: ChatClient, rid: str, text: str) -> None:
        self.request = ChatRequest(rid, "ann", MODEL, (Message("user", text),))
        self.shown, self.rewinds = "", 0
        self.ends: list[str] = []  # statuses, or the code of the error that ended it
        self.problems: list[str] = []
        self._client = client
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            self._submit()
            for event in self._client.follow(self.request.rid, "ann", request=self.request):
                self._apply(event)
        except ChatServerError as error:
            self.ends.append(error.code)
        if self.ends == ["finished"] and self.shown != self.request.messages[0].content:
            self.problems.append(f"{self.request.rid}: shown {self.shown!r:.60}, {len(self.shown)} characters")

    def _submit(self) -> None:
        """As often as it takes: a request id is accepted once."""
        deadline = time.monotonic() + 30
        while True:
            try:
                return self._client.submit(self.request)
            except redis.RedisError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.1)

    def _apply(self, event: ReaderEvent) -> None:
        if self.ends:
            self.problems.append(f"{self.request.rid}: {event} after the end")
        if isinstance(event, Text):
            if event.offset != len(self.shown):
                self.problems.append(f"{self.request.rid}: text at {event.offset}, have {len(self.shown)}")
            self.shown += event.text
        elif isinstance(event, Rewind):
            self.rewinds += 1
            self.shown = self.shown[: event.offset]
        elif isinstance(event, Done):
            self.ends.append(event.status)


class Traffic:
    """Two workers and any number of readers over one Redis, however many servers that is."""

    def __init__(self, url: str, namespace: str, *, rate: float = 40, slots: int = 8) -> None:
        self.keys = Keys(namespace)
        self.redis = connect(url, role="test")
        self.client = ChatClient(self.redis, self.keys)
        self.readers: list[Reader] = []
        self._clients = [connect(url, role="worker") for _ in range(2)]
        self._engines = [EchoEngine(rate=rate, chunk=4, slots=slots) for _ in self._clients]
        self._workers = [
            Worker(
                client,
                self.keys,
                MODEL,
                engine,
                plan,
                lease_s=3,
                stall_s=60,
                flush_s=0.05,
                drain_s=5,
                max_tries=3,
                queue_deadline_s=300,
                answer_ttl_s=3600,
            )
            for client, engine in zip(self._clients, self._engines, strict=True)
        ]
        self._threads = [threading.Thread(target=worker.run, daemon=True) for worker in self._workers]
        for engine in self._engines:
            engine.start()
        for thread in self._threads:
            thread.start()

    def ask(self, number: int, text: str) -> list[Reader]:
        """That many requests, each with a reader of its own."""
        made = [Reader(self.client, f"r{len(self.readers) + i}", f"{i}: {text}") for i in range(number)]
        self.readers += made
        return made

    def close(self) -> None:
        for worker in self._workers:
            worker.stop()
        for thread in self._threads:
            thread.join(10)
        for engine in self._engines:
            engine.stop()
        for client in (self.redis, *self._clients):
            client.close()


def wait_for_ends(readers: list[Reader], eventually: Callable[..., None], timeout_s: float = 60) -> None:
    """Until each reader has its end."""
    eventually(lambda: not any(reader.thread.is_alive() for reader in readers), "the end of every answer", timeout_s)
