"""The threads around the loop, against a real server."""

import contextlib
import threading
import time
from collections.abc import Iterator

import redis

from services.chat.journal import Head
from services.chat.requests import Requests
from services.wire.keys import Keys
from services.wire.messages import ChatRequest, Message
from tests.conftest import Eventually
from tests.stand_ins.synthetic_worker import EchoEngine, plan
from workers.generation import Plan, Planner
from workers.worker import Worker

LEASE_S, PLAN_S = 1.5, 0.3  # the plan is shorter than a third: the worker looks at leases often enough to free some


def slow_plan(request: ChatRequest) -> Plan:
    """As long as a long prompt takes to be tokenized."""
    time.sleep(PLAN_S)
    return plan(request)


@contextlib.contextmanager
def working(
    client: redis.Redis, keys: Keys, *, slots: int, flush_s: float = 0.02, plan: Planner = slow_plan
) -> Iterator[None]:
    engine = EchoEngine(rate=50, chunk=4, slots=slots)
    engine.start()
    times = {"lease_s": LEASE_S, "stall_s": 60.0, "flush_s": flush_s, "drain_s": 1.0, "queue_deadline_s": 900.0}
    worker = Worker(client, keys, "m", engine, plan, max_tries=3, answer_ttl_s=3600, **times)
    thread = threading.Thread(target=worker.run)
    thread.start()
    try:
        yield
    finally:
        worker.stop()
        thread.join()
        engine.stop()


def test_what_waits_to_be_planned_does_not_lose_its_lease(
    redis_client: redis.Redis, namespace: str, eventually: Eventually
) -> None:
    """A worker took as many as it had slots for: the last ones lost their leases before they were begun, were begun all
    the same and lost again; and in the end innocents were given up as poison."""
    keys = Keys(namespace)
    redis_client.sadd(keys.models, "m")
    requests = Requests(redis_client, keys)
    rids = [f"r{number}" for number in range(20)]
    for rid in rids:
        requests.submit(ChatRequest(rid, rid, "m", (Message("user", "hello"),)))

    def heads() -> list[Head]:
        return [head for rid in rids if (head := requests.journal.head(rid))]

    with working(redis_client, keys, slots=20):
        eventually(lambda: all(head.ended for head in heads()), "the end of all", timeout_s=30)
    assert [(head.status, head.begins) for head in heads()] == [("finished", 1)] * 20


def test_the_tokens_of_a_stream_alone_wait_for_no_flush(
    redis_client: redis.Redis, namespace: str, eventually: Eventually
) -> None:
    """Each waited up to 50 ms for those of other streams, though there were none."""
    keys = Keys(namespace)
    redis_client.sadd(keys.models, "m")
    requests = Requests(redis_client, keys)
    requests.submit(ChatRequest("r1", "ann", "m", (Message("user", "four tokens in each of ten steps, no more"),)))

    def ended() -> bool:
        head = requests.journal.head("r1")
        return head is not None and head.ended

    with working(redis_client, keys, slots=4, flush_s=1.0, plan=plan):  # longer than the whole answer takes
        eventually(ended, "the end", timeout_s=30)
    read = requests.journal.read("r1")
    assert read is not None
    assert len([event for event in read[1] if event.kind == "tokens"]) > 2, "one for the first, one for all others"
