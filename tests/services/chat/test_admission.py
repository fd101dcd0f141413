"""What the queue refuses at its door, and that whatever is inside ends without more room."""

import contextlib
import uuid
from collections.abc import Iterator
from pathlib import Path

import pytest
import redis

from services.chat.journal import Journal, Ownership
from services.chat.queue import Entry, Limits, RequestQueue
from services.chat.requests import Requests
from services.connection.connect import connect
from services.connection.embedded import EmbeddedServer
from services.errors import Busy, UserLimit
from services.serving.registry import Registry, WorkerInfo
from services.serving.trained_models import Claim, TrainedModels
from services.wire.keys import GROUP, Keys
from services.wire.messages import ChatRequest, Event, Message

LARGE = "x" * 700_000


def question(rid: str, user: str = "ann", text: str = "hi") -> ChatRequest:
    return ChatRequest(rid, user, "m", (Message("user", text),))


@pytest.fixture
def requests(redis_client: redis.Redis, namespace: str) -> Requests:
    return admitting(redis_client, namespace)


def admitting(client: redis.Redis, namespace: str, **limits: float) -> Requests:
    keys = Keys(namespace)
    client.sadd(keys.models, "m")
    return Requests(client, keys, limits=Limits(**limits))  # type: ignore[arg-type]


def queue_of(requests: Requests) -> RequestQueue:
    return requests.queue("m")


def taken(queue: RequestQueue) -> Entry:
    entry = queue.take("w1", suspects=False)
    assert entry is not None
    return entry


def answer(requests: Requests, entry: Entry, text: str = "yes") -> None:
    """What a worker does with an entry."""
    nonce = uuid.uuid4().hex
    begun = requests.journal.begin(
        question(entry.rid, entry.user),
        entry.payload,
        epoch=entry.epoch,
        nonce=nonce,
        wid="w1",
        max_tries=3,
        max_begins=9,
        deadline_ms=900_000,
    )
    assert isinstance(begun, Ownership)
    requests.journal.finish(entry.rid, entry.epoch, Event("finished", nonce, 0, 0, code="stop"))
    requests.queue("m").ack(entry)


# -- memory ----------------------------------------------------------------------------------------------------------


@pytest.fixture
def small(tmp_path: Path) -> Iterator[redis.Redis]:
    """A Redis with room for a few large questions."""
    with (
        EmbeddedServer(tmp_path, appendfsync="no") as server,
        contextlib.closing(connect(server.url, role="command")) as client,
    ):
        client.config_set("maxmemory", client.info("memory")["used_memory"] + 24 * 2**20)
        yield client


def fill(requests: Requests) -> int:
    """Ask large questions, each of another user, until the memory refuses one; how many were accepted."""
    for number in range(100):
        try:
            requests.submit(question(f"large-{number}", f"user-{number}", LARGE))
        except Busy as error:
            assert "the memory of Redis is" in error.message and error.retry_after_s == 30
            return number
    raise AssertionError("nothing was refused")


def test_the_door_closes_before_the_memory_is_full_and_what_is_inside_ends(small: redis.Redis) -> None:
    """38 questions of 760 KB once stayed in the queue for ever: nothing that would free memory could be written."""
    requests = admitting(small, "ns")
    accepted = fill(requests)
    assert accepted > 5 and queue_of(requests).length() == accepted
    assert not small.exists(requests.keys.state(f"large-{accepted}")), "a refusal leaves nothing"
    small.config_set("maxmemory", small.info("memory")["used_memory"] // 2)  # nor does it matter who took the rest
    for _ in range(accepted):
        answer(requests, taken(queue_of(requests)))
    assert queue_of(requests).length() == 0
    heads = [requests.journal.head(f"large-{number}") for number in range(accepted)]
    assert {head.status for head in heads if head} == {"finished"} and None not in heads
    assert small.info("memory")["maxmemory"] > 0


def test_a_server_whose_memory_is_full_takes_no_new_state(small: redis.Redis) -> None:
    """In a cluster the queue may be elsewhere: its door stood open, and the full node grew to 16 times its limit."""
    requests = admitting(small, "ns")
    requests.submit(question("old"))
    small.config_set("maxmemory", small.info("memory")["used_memory"] // 2)
    with pytest.raises(Busy, match="the memory of Redis is"):
        requests.journal.create(question("new"))
    assert not small.exists(requests.keys.state("new"))
    assert requests.journal.create(question("old")).status == "new", "a repeat of what was accepted"
    assert requests.journal.create(question("again"), redrive_of="dead").status == "new"


def test_what_was_taken_back_before_it_began_is_kept_for_ten_minutes(small: redis.Redis) -> None:
    """A user who submits and cancels filled the memory for a day."""
    requests = admitting(small, "ns")
    requests.submit(question("r1"))
    requests.cancel("r1", "ann")
    assert 590 < small.ttl(requests.keys.state("r1")) <= 600 >= small.ttl(requests.keys.journal("r1"))


def test_a_worker_writes_tokens_while_the_memory_is_full(small: redis.Redis) -> None:
    requests = admitting(small, "ns")
    requests.submit(question("r1"))
    small.config_set("maxmemory", 1)
    entry = taken(queue_of(requests))
    begun = requests.journal.begin(
        question("r1"), entry.payload, epoch=1, nonce="n", wid="w", max_tries=3, max_begins=9, deadline_ms=10**6
    )
    assert isinstance(begun, Ownership)
    requests.journal.load_append()
    reply = small.execute_command(*requests.journal.append_command("r1", 1, Event("tokens", "n", 0, 0, (7,), "yes")))
    assert Journal.appended(reply) == 1


def test_a_worker_and_its_claim_are_seen_while_the_memory_is_full(small: redis.Redis) -> None:
    keys = Keys("ns")
    small.config_set("maxmemory", 1)
    Registry(small, keys).announce(WorkerInfo("w1", "m", "none", 4, 0, 0.0, 100, "host", 1, 0.0))
    assert [worker.wid for worker in Registry(small, keys).workers()] == ["w1"]
    assert TrainedModels(small, keys).keep_claim(Claim("m", "me"))


@pytest.mark.parametrize(("percent", "least_s", "most_s"), [(10, 86_399, 86_400), (65, 5_000, 20_000), (99, 599, 600)])
def test_ended_answers_are_kept_for_less_time_the_fuller_the_memory_is(
    small: redis.Redis, percent: int, least_s: int, most_s: int
) -> None:
    requests = admitting(small, "ns")
    requests.submit(question("r1"))
    entry = taken(queue_of(requests))
    small.config_set("maxmemory", small.info("memory")["used_memory"] * 100 // percent)
    answer(requests, entry)
    assert least_s <= small.ttl(requests.keys.state("r1")) <= most_s
    assert least_s <= small.ttl(requests.keys.journal("r1")) <= most_s


def test_dead_letters_are_bounded_by_their_size(requests: Requests, redis_client: redis.Redis) -> None:
    for number in range(60):
        requests.submit(question(f"r{number}", f"user-{number}", LARGE))
        queue_of(requests).ack(taken(queue_of(requests)), "poison")
    dead = requests.keys.dead("m")
    assert redis_client.memory_usage(dead, samples=0) <= 2**25 < 60 * len(LARGE)
    assert redis_client.xrevrange(dead, count=1)[0][1][b"rid"] == b"r59", "the oldest go"


# -- budgets ---------------------------------------------------------------------------------------------------------


def test_a_user_and_a_model_have_a_budget_of_bytes(redis_client: redis.Redis, namespace: str) -> None:
    requests = admitting(redis_client, namespace, user_bytes=2**20, total_bytes=3 * 2**20)
    requests.submit(question("a1", "ann", LARGE))
    with pytest.raises(UserLimit, match="your requests in flight hold 1 MiB of text"):
        requests.submit(question("a2", "ann", LARGE))
    requests.submit(question("a3", "ann"))
    for user in ("bob", "eve", "joe"):
        requests.submit(question(user, user, LARGE))
    with pytest.raises(Busy, match="3 MiB of text wait for model m"):
        requests.submit(question("z", "zoe", LARGE))
    for _ in range(5):
        queue_of(requests).ack(taken(queue_of(requests)))
    requests.submit(question("a2", "ann", LARGE))


def test_a_request_larger_than_its_budget_is_admitted_alone(redis_client: redis.Redis, namespace: str) -> None:
    requests = admitting(redis_client, namespace, user_bytes=10, total_bytes=10)
    requests.submit(question("r1", text=LARGE))
    with pytest.raises(Busy):
        requests.submit(question("r2", "bob"))


def test_the_bytes_of_a_queue_have_a_share_for_newcomers(redis_client: redis.Redis, namespace: str) -> None:
    requests = admitting(redis_client, namespace, total_bytes=5 * 2**20)
    for user in ("ann", "bob", "eve", "joe", "zoe"):
        requests.submit(question(user, user, LARGE))
    with pytest.raises(Busy, match="5 MiB of text wait"):
        requests.submit(question("more", "ann", LARGE))
    requests.submit(question("new", "newcomer", LARGE))


def test_counts_that_an_older_build_left_end_with_the_queue(requests: Requests, redis_client: redis.Redis) -> None:
    """It counts neither bytes nor addresses out: an empty queue was full."""
    queue = queue_of(requests)
    redis_client.hset(queue._bytes, mapping={"#all": 10**12, "ann": 10**12})
    redis_client.hset(queue._users, "@1.2.3.4", 10**6)
    requests.submit(question("r1"), "1.2.3.4")
    requests.submit(question("r2"), "1.2.3.4")
    assert queue.length() == 2


def test_what_is_counted_is_counted_out(requests: Requests, redis_client: redis.Redis) -> None:
    requests.submit(question("r1"), "1.2.3.4")
    requests.submit(question("r2", "bob"), "1.2.3.4")
    requests.submit(question("r3", "joe"))
    queue = queue_of(requests)
    assert redis_client.hget(queue._users, "@1.2.3.4") == b"2"
    requests.cancel("r1", "ann")
    queue.ack(taken(queue))
    left = {name: int(value) for name, value in redis_client.hgetall(queue._bytes).items()}
    assert redis_client.hgetall(queue._users) == {b"joe": b"1"}
    assert left == {b"joe": len(question("r3", "joe").encode()), b"#all": len(question("r3", "joe").encode())}


# -- crowds ----------------------------------------------------------------------------------------------------------


def test_the_last_places_are_for_users_with_nothing_in_the_queue(redis_client: redis.Redis, namespace: str) -> None:
    """16 cookies with 64 requests each once filled the queue, and everybody else was told that it is busy."""
    requests = admitting(redis_client, namespace, requests=100)
    for number in range(80):
        requests.submit(question(f"r{number}", f"greedy-{number % 2}"))
    with pytest.raises(Busy, match="80 requests wait"):
        requests.submit(question("more", "greedy-0"))
    for number in range(20):
        requests.submit(question(f"new-{number}", f"newcomer-{number}"))
    with pytest.raises(Busy, match="100 requests wait"):
        requests.submit(question("late", "late"))


def test_a_thousand_cookies_of_one_address_do_not_stand_before_a_newcomer(
    redis_client: redis.Redis, namespace: str
) -> None:
    """One question each once put a newcomer at place 943."""
    requests = admitting(redis_client, namespace, address_requests=500)
    for number in range(500):
        requests.submit(question(f"r{number}", f"cookie-{number}"), "1.2.3.4")
    with pytest.raises(UserLimit, match="500 requests of your address"):
        requests.submit(question("more", "cookie-more"), "1.2.3.4")
    requests.submit(question("new", "newcomer"), "4.3.2.1")
    requests.submit(question("local", "local"))
    waiting = queue_of(requests).waiting()
    assert waiting.index("new") == 8 and waiting.index("local") == 9, "eight of an address take one turn"


def test_eight_people_behind_an_address_take_turns_like_anybody(redis_client: redis.Redis, namespace: str) -> None:
    requests = admitting(redis_client, namespace)
    for number in range(8):
        requests.submit(question(f"office-{number}", f"office-{number}"), "1.2.3.4")
        requests.submit(question(f"home-{number}", f"home-{number}"), f"4.3.2.{number}")
    places = [place for _, place in redis_client.zrange(queue_of(requests)._waiting, 0, -1, withscores=True)]
    assert set(places) == {0.0}


def test_requests_that_are_taken_back_cost_their_address_nothing(redis_client: redis.Redis, namespace: str) -> None:
    """After 2,000 of them the neighbours behind that address stood at place 250, for ever."""
    requests = admitting(redis_client, namespace)
    requests.submit(question("first", "somebody"), "4.3.2.1")
    for number in range(50):
        requests.submit(question(f"r{number}", "restless"), "1.2.3.4")
        requests.cancel(f"r{number}", "restless")
    requests.submit(question("neighbour", "neighbour"), "1.2.3.4")
    places = dict(redis_client.zrange(queue_of(requests)._waiting, 0, -1, withscores=True))
    assert {name.split()[1]: place for name, place in places.items()} == {b"first": 0.0, b"neighbour": 0.0}


def test_what_would_wait_past_the_deadline_is_refused_at_once(redis_client: redis.Redis, namespace: str) -> None:
    """It was accepted with an estimate of two hours, and then expired after a quarter of an hour."""
    requests = admitting(redis_client, namespace, wait_s=60)
    for number in range(20):
        requests.submit(question(f"r{number}", f"user-{number}"))
    pace = requests.keys.pace("m")
    redis_client.hset(pace, mapping={"served": 20, "span_ms": 20 * 10_000})
    with pytest.raises(Busy, match="would be about 3 min, and no request may wait longer than 1 min") as refused:
        requests.submit(question("late", "late"))
    assert refused.value.retry_after_s == 120
    redis_client.hset(pace, mapping={"served": 20, "span_ms": 20 * 1_000})
    requests.submit(question("late", "late"))


def test_workers_that_were_away_do_not_make_the_line_look_slow(requests: Requests, redis_client: redis.Redis) -> None:
    """After an outage of five minutes everybody was refused: the wait would be 42 minutes. It was nine seconds."""
    for number in range(160):
        requests.submit(question(f"r{number}", f"user-{number}"))
    queue, pace = queue_of(requests), requests.keys.pace("m")
    for since_s in (0.1, 0.1, 0.1, 0.1, 300, 0.1, 0.1, 0.1):
        now_s = float("{}.{:06d}".format(*redis_client.time()))
        redis_client.hset(pace, "since_ms", int((now_s - since_s) * 1000))
        taken(queue)
    requests.submit(question("new", "newcomer"))
    assert (queue.pace_s() or 99) < 1


# -- what refusals and the dead leave --------------------------------------------------------------------------------


def test_the_refusal_of_one_submit_does_not_forget_the_same_request_accepted_meanwhile(
    redis_client: redis.Redis, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client sent it twice: the queue was full for the first, and had room for the second."""
    requests = admitting(redis_client, namespace, requests=1)
    requests.submit(question("first"))
    refused = Journal.discard

    def accepted_meanwhile(journal: Journal, rid: str, created: object) -> None:
        queue_of(requests).ack(taken(queue_of(requests)))
        monkeypatch.setattr(Journal, "discard", refused)
        requests.submit(question("r1", "bob"))
        refused(journal, rid, created)  # type: ignore[arg-type]

    monkeypatch.setattr(Journal, "discard", accepted_meanwhile)
    with pytest.raises(Busy):
        requests.submit(question("r1", "bob"))
    assert queue_of(requests).waiting() == ["r1"] and redis_client.exists(requests.keys.state("r1"))


def test_a_refusal_that_comes_late_does_not_take_a_new_state_for_the_one_that_was_forgotten(
    requests: Requests, redis_client: redis.Redis
) -> None:
    """Submits were counted from 1 in each state: the first refusal forgot what the third submit had made."""
    journal = requests.journal
    first, second = journal.create(question("r1")), journal.create(question("r1"))
    journal.discard("r1", second)
    assert not redis_client.exists(requests.keys.state("r1"))
    journal.create(question("r1"))
    journal.discard("r1", first)
    assert redis_client.exists(requests.keys.state("r1"))


def test_workers_that_were_killed_are_forgotten(requests: Requests, redis_client: redis.Redis) -> None:
    requests.submit(question("r1"))
    requests.submit(question("r2"))
    queue = queue_of(requests)
    holder, idle = queue.take("holder", suspects=False), queue.take("idle", suspects=False)
    assert holder is not None and idle is not None
    queue.ack(idle)
    assert queue.retire_idle(3600) == 0
    assert queue.retire_idle(0) == 1
    assert [row["name"] for row in redis_client.xinfo_consumers(requests.keys.requests("m"), GROUP)] == [b"holder"]
