"""The work queue: once per id, owned by one, never forgotten."""

import time
import uuid
from collections import Counter
from collections.abc import Callable
from dataclasses import replace

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.chat.queue import RETRY_PLACE, SUSPECT_PLACE, Entry, Limits, RequestQueue
from services.chat.requests import Requests
from services.errors import Busy, UserLimit
from services.wire.keys import GROUP, HANDBACK, Keys
from services.wire.messages import ChatRequest, Message, Priority


@pytest.fixture
def queue(redis_client: redis.Redis, namespace: str) -> RequestQueue:
    return RequestQueue(redis_client, Keys(namespace), "m")


def enqueue(
    queue: RequestQueue,
    rid: str,
    user: str = "ann",
    base: int = 0,
    force: bool = False,
    priority: Priority = "interactive",
    address: str = "",
    payload: bytes = b"payload",
    **limits: int,
) -> bool:
    bounds = Limits(**{"requests": 100, "user_requests": 100} | limits)
    about = {"priority": priority, "base": base, "address": address}
    return queue.enqueue(rid, user, payload, **about, limits=None if force else bounds)


def taken(queue: RequestQueue, wid: str = "w1") -> Entry:
    entry = queue.take(wid, suspects=False)
    assert entry is not None
    return entry


def test_a_request_is_queued_once_and_delivered_once(queue: RequestQueue) -> None:
    assert enqueue(queue, "r1") and not enqueue(queue, "r1")
    entry = taken(queue)
    assert (entry.rid, entry.user, entry.payload, entry.epoch) == ("r1", "ann", b"payload", 1)
    assert queue.take("w2", suspects=True) is None
    assert not enqueue(queue, "r1"), "it is still in flight"


def test_a_lost_consumer_group_is_made_again(queue: RequestQueue, redis_client: redis.Redis) -> None:
    enqueue(queue, "r1")
    redis_client.xgroup_destroy(queue._requests, GROUP)
    assert taken(queue).rid == "r1"


def test_the_ceilings_refuse_with_a_hint_and_force_goes_past_them(queue: RequestQueue) -> None:
    enqueue(queue, "r1")
    with pytest.raises(Busy, match="1 requests wait for m") as full:
        enqueue(queue, "r2", requests=1)
    assert full.value.retry_after_s == 5 and full.value.code == "busy"
    with pytest.raises(UserLimit) as limit:
        enqueue(queue, "r2", user_requests=1)
    assert limit.value.code == "user_limit"
    assert enqueue(queue, "r2", "bob", user_requests=1), "another user is not meant"
    assert enqueue(queue, "r3", requests=1, force=True)


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


def test_only_who_is_seen_as_the_owner_loses_an_entry(queue: RequestQueue) -> None:
    enqueue(queue, "r1")
    entry = taken(queue)
    assert not queue.hand_back(entry, "w2", RETRY_PLACE) and not queue.hand_back(replace(entry, count=2), "w1", 0)
    assert queue.hand_back(entry, "w1", RETRY_PLACE)
    assert not queue.hand_back(entry, "w1", RETRY_PLACE), "somebody was faster"
    again = taken(queue, "w2")
    assert (again.rid, again.epoch, again.place) == ("r1", 2, RETRY_PLACE)


def test_only_the_owner_renews_raises_and_hands_back(queue: RequestQueue) -> None:
    enqueue(queue, "r1")
    entry = taken(queue)
    assert queue.hold(entry, "w1", "renew") and not queue.hold(entry, "w2", "renew")
    assert queue.pending()[0].count == 1, "a renewal is no delivery"
    assert queue.hold(entry, "w1", "raise", 7)
    assert not queue.hold(entry, "w1", "renew"), "the count is part of the lease"
    assert queue.hand_back(replace(entry, count=7), "w1", RETRY_PLACE)
    (seen,) = queue.pending()
    assert (seen.owner, seen.count) == (HANDBACK, 7)
    assert taken(queue).epoch == 8


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
    assert queue.waiting() == ["r2"]
    assert queue.rescue() == (1, "") and queue.rescue() == (0, "")
    assert queue.waiting() == ["r1", "r2"]
    assert taken(queue, "w2").rid == "r1"


def test_a_look_for_lost_entries_goes_on_where_it_stopped(queue: RequestQueue, redis_client: redis.Redis) -> None:
    """A thousand long questions in one look kept the server from everybody for more than a second."""
    for number in range(5):
        enqueue(queue, f"r{number}")
    redis_client.zrem(queue._waiting, *redis_client.zrange(queue._waiting, 1, 4))
    rescued, last = queue.rescue(limit=2)
    assert rescued == 1 and last
    assert queue.rescue(last, limit=2)[0] == 2
    assert queue.waiting() == ["r1", "r2", "r3", "r0"]


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
    redis_client.delete(queue._requests)
    assert not queue.hold(entry, "w1", "renew") and not queue.hand_back(entry, "w1", RETRY_PLACE)
    assert queue.rescue() == (0, "") and queue.pending() == [] and not queue.retire("w1")


def test_a_refused_request_leaves_nothing_behind(redis_client: redis.Redis, namespace: str) -> None:
    """Refusals of large questions filled the memory for a day."""
    keys = Keys(namespace)
    redis_client.sadd(keys.models, "m")
    requests = Requests(redis_client, keys, limits=Limits(requests=1))
    requests.submit(ChatRequest("r1", "ann", "m", (Message("user", "hi"),)))
    with pytest.raises(Busy):
        requests.submit(ChatRequest("r2", "ann", "m", (Message("user", "x" * 100_000),)))
    assert not redis_client.exists(keys.state("r2")) and redis_client.exists(keys.state("r1"))
    requests.queue("m").ack(taken(requests.queue("m")))
    requests.submit(ChatRequest("r2", "ann", "m", (Message("user", "hi"),)))
    assert requests.queue("m").waiting() == ["r2"]


# -- who is next -----------------------------------------------------------------------------------------------------


def order(queue: RequestQueue) -> list[str]:
    """The ids in the order in which they are taken."""
    return [taken(queue).rid for _ in range(len(queue.waiting()))]


def test_users_take_turns(queue: RequestQueue) -> None:
    """A hundred questions of one user made everybody else wait for all of them."""
    for number in range(4):
        enqueue(queue, f"ann{number}", "ann")
    assert taken(queue).rid == "ann0"
    enqueue(queue, "bob0", "bob")
    enqueue(queue, "cat0", "cat")
    enqueue(queue, "bob1", "bob")
    assert queue.waiting() == ["bob0", "cat0", "ann1", "bob1", "ann2", "ann3"]
    assert order(queue) == ["bob0", "cat0", "ann1", "bob1", "ann2", "ann3"]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.one_of(st.just("take"), st.sampled_from("abcd")), max_size=60))
def test_a_first_question_waits_for_at_most_two_of_each_other_user_and_a_newcomers_for_one(
    redis_client: redis.Redis, namespace: str, events: list[str]
) -> None:
    queue = RequestQueue(redis_client, Keys(f"{namespace}-{uuid.uuid4().hex}"), "m")
    ahead: dict[str, Counter[str]] = {}  # of each user's first waiting question: who was taken before it
    served: set[str] = set()
    waiting: Counter[str] = Counter()
    for number, event in enumerate([*events, *["take"] * 60]):
        if event == "take":
            entry = queue.take("w", suspects=False)
            if entry is None:
                continue
            waiting[entry.user] -= 1
            ahead.pop(entry.user, None)
            for others in ahead.values():
                others[entry.user] += 1
            for user, others in ahead.items():
                assert others[entry.user] <= (2 if user in served else 1)
            served.add(entry.user)
        else:
            if waiting[event] == 0:
                ahead[event] = Counter()
            waiting[event] += 1
            enqueue(queue, f"{number}", event)
    assert not +waiting, "everybody is served"


def test_a_stream_of_single_questions_starves_nobody(queue: RequestQueue) -> None:
    """Whoever had nothing in flight began in the turn that is served, however often: ann's second never came."""
    enqueue(queue, "ann0", "ann")
    enqueue(queue, "ann1", "ann")
    enqueue(queue, "bob0", "bob")
    served = []
    for number in range(1, 6):
        entry = taken(queue)
        served.append(entry.rid)
        enqueue(queue, f"bob{number}", "bob")
        queue.ack(entry)
    assert served.index("ann1") <= 2


@pytest.mark.parametrize("priority", ["interactive", "batch"])
def test_what_was_withdrawn_costs_its_user_no_turn(queue: RequestQueue, priority: Priority) -> None:
    """Who cancelled ten questions waited with the next one for ten of everybody else's."""
    for number in range(6):
        enqueue(queue, f"bob{number}", "bob", priority=priority)
        enqueue(queue, f"ann{number}", "ann", priority=priority)
    assert [taken(queue).rid for _ in range(2)] == ["bob0", "ann0"]
    for number in (2, 1, 4, 5):
        assert queue.withdraw(f"ann{number}", "ann")
    enqueue(queue, "ann6", "ann", priority=priority)
    assert order(queue) == ["bob1", "ann3", "bob2", "ann6", "bob3", "bob4", "bob5"]


def test_withdrawing_wins_no_turn(queue: RequestQueue) -> None:
    for number in range(4):
        enqueue(queue, f"bob{number}", "bob")
    for number in range(20):
        enqueue(queue, f"ann{number}", "ann")
        if number % 2:
            queue.withdraw(f"ann{number - 1}", "ann")
    served = order(queue)
    assert [rid[:3] for rid in served[:8]] == ["bob", "ann"] * 4


def test_the_turns_of_users_long_served_are_forgotten(queue: RequestQueue, redis_client: redis.Redis) -> None:
    for rid in ("zoe0", "zoe1", "zoe2"):
        enqueue(queue, rid, "zoe")
    for number in range(1100):
        enqueue(queue, f"r{number}", f"user{number}", requests=2000)
    for _ in range(1102):
        queue.ack(taken(queue))
    assert queue.in_flight() == ["zoe2"] and redis_client.hlen(queue._keys[2]) < 10


def test_interactive_requests_go_before_batch_ones_but_one_in_eight(queue: RequestQueue) -> None:
    for number in range(3):
        enqueue(queue, f"b{number}", "robot", priority="batch")
    for number in range(20):
        enqueue(queue, f"i{number}", f"user{number}")
    served = order(queue)
    assert [index for index, rid in enumerate(served) if rid.startswith("b")] == [7, 15, 22]
    assert [rid for rid in served if rid.startswith("b")] == ["b0", "b1", "b2"]


def test_what_ran_before_goes_first_and_what_may_kill_needs_a_willing_worker(queue: RequestQueue) -> None:
    for rid in ("r1", "r2", "r3"):
        enqueue(queue, rid, rid)
    first, second = taken(queue), taken(queue)
    assert queue.hand_back(first, "w1", RETRY_PLACE) and queue.hand_back(second, "w1", SUSPECT_PLACE)
    assert queue.waiting() == ["r2", "r1", "r3"]
    assert [taken(queue, "w2").rid, taken(queue, "w2").rid] == ["r1", "r3"]
    assert queue.take("w2", suspects=False) is None
    suspect = queue.take("w2", suspects=True)
    assert suspect is not None and suspect.rid == "r2"


def test_what_waits_is_counted_by_class_with_the_age_of_its_oldest(
    queue: RequestQueue, redis_client: redis.Redis, eventually: Callable[..., None]
) -> None:
    """`chatserver status` told how many waited, and not for how long."""
    for rid, priority in (("r1", "interactive"), ("r2", "batch"), ("r3", "interactive")):
        enqueue(queue, rid, rid, priority=priority)  # type: ignore[arg-type]
    first, _ = taken(queue), taken(queue)
    assert queue.hand_back(first, "w1", RETRY_PLACE)
    eventually(lambda: queue.classes()["retried"].oldest_s >= 0.02, "an age of 20 ms")
    classes = queue.classes()
    assert {name: each.number for name, each in classes.items()} == {"retried": 1, "interactive": 0, "batch": 1}
    seconds, millionths = redis_client.time()
    queued_s = int(first.entry_id.partition("-")[0]) / 1000
    assert classes["retried"].oldest_s <= seconds + millionths / 1e6 - queued_s
    assert classes["interactive"].oldest_s == 0.0


def test_a_declined_request_gets_its_place_back(queue: RequestQueue) -> None:
    enqueue(queue, "r1", "ann")
    enqueue(queue, "r2", "ann")
    taken(queue)
    entry = taken(queue)
    enqueue(queue, "r3", "bob")
    assert queue.hand_back(entry, "w1", entry.place)
    assert taken(queue).epoch == 2, "r2 again"


def test_a_withdrawn_request_frees_its_place_and_one_that_runs_stays(queue: RequestQueue) -> None:
    enqueue(queue, "r1")
    enqueue(queue, "r2")
    taken(queue)
    assert not queue.withdraw("r1", "ann") and not queue.withdraw("r9", "ann")
    assert queue.withdraw("r2", "ann") and not queue.withdraw("r2", "ann")
    assert queue.in_flight() == ["r1"] and queue.waiting() == [] and queue.length() == 1


def test_the_pace_is_the_time_between_takes_of_a_line_that_never_emptied(
    queue: RequestQueue, redis_client: redis.Redis
) -> None:
    assert queue.pace_s() is None and queue.positions() == {}
    for number in range(6):
        enqueue(queue, f"r{number}")
    for _ in range(4):
        time.sleep(0.02)  # what is measured here is time
        taken(queue)
    pace_s = queue.pace_s()
    assert pace_s is not None and pace_s > 0.019
    redis_client.hset(queue._pace, mapping={"served": 2, "span_ms": 6000})
    assert queue.positions() == {"r4": (0, 3), "r5": (1, 6)}
    redis_client.hset(queue._pace, "since_ms", int(redis_client.time()[0] - 100) * 1000)
    assert queue.positions()["r4"][1] in range(100, 110), "nobody has taken for 100 s"


def test_the_time_in_which_nobody_waited_is_no_part_of_the_pace(queue: RequestQueue, redis_client: redis.Redis) -> None:
    """The last in line was cancelled; the next came an hour later, and all after it were told to wait for hours."""
    for rid in ("r1", "r2", "r3"):
        enqueue(queue, rid)
    for _ in range(2):
        taken(queue)
    before = redis_client.hmget(queue._pace, "served", "span_ms")
    assert before[0] is not None and queue.withdraw("r3", "ann")
    time.sleep(0.05)  # what is measured here is time
    enqueue(queue, "r4")
    taken(queue)
    assert redis_client.hmget(queue._pace, "served", "span_ms") == before


def test_a_request_of_an_older_front_end_is_withdrawn_from_its_line(
    queue: RequestQueue, redis_client: redis.Redis
) -> None:
    """After an upgrade nobody could remove it: it kept a place of its user for ever."""
    enqueue(queue, "r1")
    redis_client.rename(queue._waiting, f"{queue._waiting}-of-an-older-version")
    assert queue.withdraw("r1", "ann") and queue.length() == 0
    assert redis_client.exists(queue._users) == 0


def test_names_that_a_lost_tail_left_in_the_line_are_passed_over(
    queue: RequestQueue, redis_client: redis.Redis
) -> None:
    enqueue(queue, "r1")
    enqueue(queue, "r2")
    redis_client.zadd(queue._waiting, {"1-1 ghost ann": -1})
    owned = taken(queue)
    assert owned.rid == "r1"
    redis_client.zadd(queue._waiting, {f"{owned.entry_id} r1 ann": -1})
    assert taken(queue).rid == "r2" and queue.waiting() == []


def test_a_cancelled_request_leaves_the_queue_without_a_worker(redis_client: redis.Redis, namespace: str) -> None:
    keys = Keys(namespace)
    redis_client.sadd(keys.models, "m")
    requests = Requests(redis_client, keys, limits=Limits(requests=1))
    requests.submit(ChatRequest("r1", "ann", "m", (Message("user", "hi"),)))
    assert requests.cancel("r1", "ann") == "cancelled" and requests.queue("m").length() == 0
    assert requests.cancel("r1", "ann") == "cancelled", "once more, after a lost reply"


def test_a_request_that_no_worker_took_expires_for_its_reader(redis_client: redis.Redis, namespace: str) -> None:
    """It waited for ever: only a worker looked at deadlines."""
    keys = Keys(namespace)
    redis_client.sadd(keys.models, "m")
    patient, impatient = Requests(redis_client, keys), Requests(redis_client, keys, limits=Limits(wait_s=9))
    patient.submit(ChatRequest("r1", "ann", "m", (Message("user", "hi"),)))
    head = patient.journal.head("r1")
    assert head is not None
    patient.expire("r1", head)
    assert patient.queue("m").holds("r1")
    redis_client.hincrby(keys.state("r1"), "created_ms", -10_000)
    impatient.expire("r1", head)
    read = patient.journal.read("r1")
    assert read is not None and (read[0].status, read[0].code) == ("failed", "expired")
    assert "no worker had room" in read[1][-1].message
    assert patient.queue("m").length() == 0 and patient.queue("m").dead_length() == 1
