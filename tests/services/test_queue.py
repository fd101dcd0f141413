"""The work queue: once per id, owned by one, never forgotten."""

import pytest
import redis

from services.errors import Busy, UserLimit
from services.protocol import GROUP, HANDBACK, ChatRequest, Keys, Message
from services.queue import Entry, RequestQueue
from services.requests import Requests


@pytest.fixture
def queue(redis_client: redis.Redis, namespace: str) -> RequestQueue:
    return RequestQueue(redis_client, Keys(namespace), "m")


def enqueue(
    queue: RequestQueue, rid: str, user: str = "ann", base: int = 0, force: bool = False, **limits: int
) -> bool:
    limits = {"max_queue": 100, "max_user": 100} | limits
    return queue.enqueue(rid, user, b"payload", base=base, force=force, **limits)


def taken(queue: RequestQueue, wid: str = "w1") -> Entry:
    entry = queue.take(wid, 0)
    assert entry is not None
    return entry


def test_a_request_is_queued_once_and_delivered_once(queue: RequestQueue) -> None:
    assert enqueue(queue, "r1") and not enqueue(queue, "r1")
    entry = taken(queue)
    assert (entry.rid, entry.user, entry.payload, entry.epoch) == ("r1", "ann", b"payload", 1)
    assert queue.take("w2", 0) is None
    assert not enqueue(queue, "r1"), "it is still in flight"


def test_requests_queued_before_the_group_existed_are_delivered(queue: RequestQueue, redis_client: redis.Redis) -> None:
    """A group made at `$` passes over them, and nobody ever gets them."""
    enqueue(queue, "r1")
    redis_client.xgroup_destroy(queue._requests, GROUP)
    assert queue.take("w1", 0) is None, "the missing group is made"
    assert taken(queue).rid == "r1"


def test_the_ceilings_refuse_with_a_hint_and_force_goes_past_them(queue: RequestQueue) -> None:
    enqueue(queue, "r1")
    with pytest.raises(Busy, match="1 requests wait for m") as full:
        enqueue(queue, "r2", max_queue=1)
    assert full.value.retry_after_s == 5 and full.value.code == "busy"
    with pytest.raises(UserLimit) as limit:
        enqueue(queue, "r2", max_user=1)
    assert limit.value.code == "user_limit"
    assert enqueue(queue, "r2", "bob", max_user=1), "another user is not meant"
    assert enqueue(queue, "r3", max_queue=1, force=True)


def test_acknowledging_forgets_the_request_and_its_counts(queue: RequestQueue, redis_client: redis.Redis) -> None:
    enqueue(queue, "r1")
    enqueue(queue, "r2")
    entry = taken(queue)
    assert queue.ack(entry) and not queue.ack(entry)
    assert queue.length() == 1 and not queue.holds("r1") and queue.holds("r2")
    assert redis_client.hgetall(queue._users) == {b"ann": b"1"}
    queue.ack(taken(queue))
    assert redis_client.exists(queue._ids, queue._users) == 0 and queue.pending() == []


def test_a_late_ack_does_not_forget_the_request_queued_again(queue: RequestQueue, redis_client: redis.Redis) -> None:
    enqueue(queue, "r1")
    old = taken(queue)
    redis_client.hdel(queue._ids, "r1")  # half of a script was lost
    enqueue(queue, "r1", base=5)
    queue.ack(old)
    assert queue.holds("r1") and taken(queue).epoch == 6


def test_a_dead_request_keeps_its_reason_and_payload(queue: RequestQueue, redis_client: redis.Redis) -> None:
    enqueue(queue, "r1")
    queue.ack(taken(queue), reason="poison")
    assert queue.dead_length() == 1
    ((_, fields),) = redis_client.xrange(queue._dead)
    assert fields[b"reason"] == b"poison" and fields[b"payload"] == b"payload" and fields[b"rid"] == b"r1"


def test_a_reclaim_takes_exactly_what_was_seen(queue: RequestQueue) -> None:
    enqueue(queue, "r1")
    taken(queue)
    (seen,) = queue.pending()
    assert (seen.owner, seen.count) == ("w1", 1)
    entry = queue.reclaim(seen, "w2")
    assert entry is not None and (entry.rid, entry.epoch) == ("r1", 2)
    assert queue.reclaim(seen, "w3") is None, "somebody was faster"


def test_only_the_owner_renews_raises_and_hands_back(queue: RequestQueue) -> None:
    enqueue(queue, "r1")
    entry = taken(queue)
    assert queue.hold(entry, "w1", "renew") and not queue.hold(entry, "w2", "renew")
    assert queue.pending()[0].count == 1, "a renewal is no delivery"
    assert queue.hold(entry, "w1", "raise", 7)
    assert not queue.hold(entry, "w1", "renew"), "the count is part of the lease"
    (seen,) = queue.pending()
    assert seen.count == 7
    again = queue.reclaim(seen, "w1")
    assert again is not None and again.epoch == 8
    assert queue.hold(again, "w1", "handback")
    (seen,) = queue.pending()
    assert (seen.owner, seen.count) == (HANDBACK, 8) and seen.idle_s > 3600


def test_a_worker_that_holds_something_is_not_retired(queue: RequestQueue, redis_client: redis.Redis) -> None:
    """XGROUP DELCONSUMER drops the pending list with the consumer: the entry is never delivered again."""
    enqueue(queue, "r1")
    entry = taken(queue)
    assert not queue.retire("w1")
    queue.ack(entry)
    assert queue.retire("w1")
    assert redis_client.xinfo_consumers(queue._requests, GROUP) == []


def test_entries_that_were_delivered_to_nobody_are_rescued(queue: RequestQueue, redis_client: redis.Redis) -> None:
    enqueue(queue, "r1")
    enqueue(queue, "r2")
    taken(queue)
    redis_client.execute_command("XGROUP", "DELCONSUMER", queue._requests, GROUP, "w1")
    assert queue.pending() == []
    assert queue.rescue() == 1 and queue.rescue() == 0
    (seen,) = queue.pending()
    assert seen.owner == HANDBACK
    entry = queue.reclaim(seen, "w2")
    assert entry is not None and entry.rid == "r1"
    assert taken(queue, "w2").rid == "r2"


def test_waiting_lists_the_untaken_in_order(queue: RequestQueue) -> None:
    assert queue.waiting() == []
    for rid in ("r1", "r2", "r3"):
        enqueue(queue, rid)
    assert queue.waiting() == ["r1", "r2", "r3"]
    taken(queue)
    assert queue.waiting() == ["r2", "r3"] and queue.in_flight() == ["r1", "r2", "r3"]


def test_scripts_of_a_vanished_queue_answer_no(queue: RequestQueue, redis_client: redis.Redis) -> None:
    enqueue(queue, "r1")
    entry = taken(queue)
    (seen,) = queue.pending()
    redis_client.delete(queue._requests)
    assert not queue.hold(entry, "w1", "renew") and queue.reclaim(seen, "w2") is None
    assert queue.rescue() == 0 and queue.pending() == [] and not queue.retire("w1")


def test_a_refused_request_leaves_nothing_behind(redis_client: redis.Redis, namespace: str) -> None:
    """Refusals of large questions filled the memory for a day."""
    keys = Keys(namespace)
    redis_client.sadd(keys.models, "m")
    requests = Requests(redis_client, keys, max_queue=1)
    requests.submit(ChatRequest("r1", "ann", "m", (Message("user", "hi"),)))
    with pytest.raises(Busy):
        requests.submit(ChatRequest("r2", "ann", "m", (Message("user", "x" * 100_000),)))
    assert not redis_client.exists(keys.state("r2")) and redis_client.exists(keys.state("r1"))
    requests.queue("m").ack(taken(requests.queue("m")))
    requests.submit(ChatRequest("r2", "ann", "m", (Message("user", "hi"),)))
    assert requests.queue("m").waiting() == ["r2"]
