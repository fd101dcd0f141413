"""The whole wire in one process: submit → worker → journal → reader, on whatever server the run is for."""

import threading
import time
from collections.abc import Callable, Iterator

import pytest
import redis

from services.chat.client import ChatClient
from services.chat.reader import Done, Text
from services.wire.keys import Keys
from services.wire.messages import ChatRequest, Message
from tests.stand_ins.synthetic_worker import EchoEngine, plan
from workers.worker import Worker

MODEL = "echo"


@pytest.fixture
def client(redis_client: redis.Redis, namespace: str, eventually: Callable[..., None]) -> Iterator[ChatClient]:
    """A client beside a worker that repeats what it is told."""
    keys = Keys(namespace)
    engine = EchoEngine(rate=100, chunk=4, slots=8)
    rules = {"lease_s": 3, "stall_s": 60, "flush_s": 0.02, "drain_s": 5, "max_tries": 3, "queue_deadline_s": 60}
    worker = Worker(redis_client, keys, MODEL, engine, plan, answer_ttl_s=3600, **rules)  # type: ignore[arg-type]
    thread = threading.Thread(target=worker.run)
    engine.start()
    thread.start()
    eventually(lambda: redis_client.smembers(keys.models), "the worker's presence")
    yield ChatClient(redis_client, keys)
    worker.stop()
    thread.join(10)
    engine.stop()
    assert not thread.is_alive()


def ask(client: ChatClient, rid: str, text: str) -> ChatRequest:
    request = ChatRequest(rid, "ann", MODEL, (Message("user", text),))
    client.submit(request)
    return request


def test_every_answer_arrives_whole_and_ends_once(client: ChatClient) -> None:
    requests = [ask(client, f"r{number}", f"answer {number} " * 20) for number in range(24)]
    for request in requests:
        events = list(client.follow(request.rid, "ann", request=request))
        assert "".join(e.text for e in events if isinstance(e, Text)) == request.messages[0].content
        assert [(e.status, e.code) for e in events if isinstance(e, Done)] == [("finished", "stop")]


def test_a_cancelled_answer_ends_and_its_worker_is_woken(
    client: ChatClient, redis_client: redis.Redis, eventually: Callable[..., None]
) -> None:
    request = ask(client, "long", "x" * 20_000)
    for event in client.follow("long", "ann", request=request):
        if isinstance(event, Text) and event.offset == 0:
            client.cancel("long", "ann")
    assert isinstance(event, Done) and event.status == "cancelled"
    started = time.monotonic()
    eventually(lambda: not client.queue(MODEL).holds("long"), "its acknowledgement")
    assert time.monotonic() - started < 1.8
