"""Users share a model by the tokens that they get, not by the number of their requests."""

import hashlib
import random
import uuid
from collections import Counter
from collections.abc import Callable

import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import services.chat.queue as queue_module
from services.chat.charges import Tokens, estimate
from services.chat.queue import Entry, Limits, RequestQueue
from services.wire.keys import Keys
from services.wire.messages import ChatRequest, Message, Priority, SamplingOptions

MANY = Limits(requests=2000, user_requests=2000)
MOST_ANSWER = 1000


@pytest.fixture
def queue(redis_client: redis.Redis, namespace: str) -> RequestQueue:
    return RequestQueue(redis_client, Keys(namespace), "m")


class Line:
    """A queue with workers that run so many requests at once, and the tokens that each user got there."""

    def __init__(self, queue: RequestQueue, *, slots: int = 1) -> None:
        self.queue = queue
        self._slots = slots
        self._number = 0
        self.running: list[Entry] = []
        self.tokens: Counter[str] = Counter()
        self.waiting: Counter[str] = Counter()

    def ask(
        self, user: str, *, prompt: int = 10, weight: float = 1.0, address: str = "", priority: Priority = "interactive"
    ) -> str:
        rid = f"r{self._number}"
        self._number += 1
        self.waiting[user] += 1
        expected = Tokens(prompt, MOST_ANSWER)
        about = {"priority": priority, "address": address, "expected": expected, "weight": weight}
        assert self.queue.enqueue(rid, user, b"payload", limits=MANY, **about)  # type: ignore[arg-type]
        return rid

    def take(self) -> Entry | None:
        entry = self.queue.take("w", suspects=False) if len(self.running) < self._slots else None
        if entry is not None:
            self.running.append(entry)
            self.waiting[entry.user] -= 1
        return entry

    def end(self, answer: int, prompt: int = 10) -> str:
        """The oldest that runs ends; whose it was."""
        entry = self.running.pop(0)
        self.queue.ack(entry, used=Tokens(prompt, answer))
        self.tokens[entry.user] += prompt + answer
        return entry.user


def serve(line: Line, until: int, length_of: Callable[[str], int], users: str, weights: dict[str, float]) -> None:
    """Answer until so many tokens are served, while each user has four requests waiting."""
    while sum(line.tokens.values()) < until:
        for user in users:
            while line.waiting[user] < 4:
                line.ask(user, weight=weights.get(user, 1.0))
        while line.take():
            pass
        line.end(length_of(line.running[0].user))


@pytest.mark.parametrize("slots", [1, 8])
def test_two_users_whose_answers_are_one_to_twenty_get_half_of_the_tokens_each(queue: RequestQueue, slots: int) -> None:
    """They took turns: whose answers were twenty times as long had 95 % of the model."""
    line = Line(queue, slots=slots)
    serve(line, 40_000, lambda user: {"a": 25, "b": 500}[user], "ab", {})
    assert line.tokens["a"] / sum(line.tokens.values()) == pytest.approx(0.5, abs=0.05)


def test_answers_of_unpredictable_length_share_as_well(queue: RequestQueue) -> None:
    line, chance = Line(queue, slots=4), random.Random(1)
    serve(
        line, 60_000, lambda user: {"a": chance.choice([5, 900]), "b": 300, "c": chance.randint(1, 60)}[user], "abc", {}
    )
    assert max(line.tokens.values()) < 1.15 * min(line.tokens.values()), line.tokens


def test_a_burst_that_was_queued_at_once_is_shared_by_what_its_answers_turn_out_to_be(queue: RequestQueue) -> None:
    line = Line(queue)
    for user in "ab" * 40:
        line.ask(user)
    while line.waiting["a"] > 0:
        line.take()
        line.end(490 if line.running[0].user == "b" else 15)
    assert line.tokens["a"] == 40 * 25 and line.tokens["b"] <= line.tokens["a"] + 2 * 500


def test_a_user_of_weight_three_gets_three_times_the_tokens(queue: RequestQueue) -> None:
    line = Line(queue, slots=2)
    serve(line, 40_000, lambda user: 100, "ab", {"a": 3.0})
    assert line.tokens["a"] / line.tokens["b"] == pytest.approx(3.0, rel=0.1)


def test_batch_requests_share_among_themselves(queue: RequestQueue) -> None:
    line = Line(queue)
    for user in "ab" * 30:
        line.ask(user, priority="batch")
    while line.waiting["a"] > 0:
        line.take()
        line.end(490 if line.running[0].user == "b" else 15)
    assert line.tokens["a"] == 30 * 25 and line.tokens["b"] <= line.tokens["a"] + 2 * 500


def test_long_prompts_weigh_as_long_answers_do(queue: RequestQueue) -> None:
    line = Line(queue)
    for user in "ab" * 20:
        line.ask(user, prompt=990 if user == "b" else 10)
    for _ in range(22):
        line.take()
        line.end(10, prompt=990 if line.running[0].user == "b" else 10)
    assert line.tokens["b"] <= line.tokens["a"] + 2 * 1000


def test_who_comes_back_from_a_pause_has_saved_nothing_up(queue: RequestQueue) -> None:
    line = Line(queue)
    for _ in range(3):
        line.ask("idle")
        line.take()
        line.ask("busy")  # the queue is never empty, so nothing is forgotten
        line.end(10)
        line.take()
        line.ask("busy")
        line.end(500)
        line.take()
        line.end(500)
    for user in ["busy"] * 4 + ["idle"] * 10:
        line.ask(user)
    order = []
    for _ in range(8):
        entry = line.take()
        assert entry is not None
        order.append(entry.user)
        line.end(256)
    assert order[:2] == ["busy", "idle"] and Counter(order) == {"busy": 4, "idle": 4}


def test_a_newcomer_does_not_wait_for_who_was_charged_too_much(queue: RequestQueue) -> None:
    """Credit that goes back must not put a heap of requests before somebody who waits."""
    line = Line(queue, slots=4)
    for _ in range(30):
        line.ask("ann")
    for _ in range(4):
        line.take()
    line.ask("new")
    for _ in range(4):
        line.end(1)
    entry = line.take()
    assert entry is not None and entry.user == "new"


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.lists(
        st.one_of(
            st.tuples(st.just("take"), st.just(0)),
            st.tuples(st.just("end"), st.sampled_from([0, 1, 30, 300, 1000])),
            st.tuples(st.sampled_from("abcd"), st.sampled_from([0, 10, 400])),
        ),
        max_size=80,
    ),
    st.integers(1, 5),
)
def test_a_newcomers_first_question_waits_for_at_most_one_request_of_each_other_user(
    redis_client: redis.Redis, namespace: str, events: list[tuple[str, int]], slots: int
) -> None:
    line = Line(RequestQueue(redis_client, Keys(f"{namespace}-{uuid.uuid4().hex}"), "m"), slots=slots)
    ahead: dict[str, Counter[str]] = {}  # of each newcomer's first question: who was taken before it
    known: set[str] = set()
    for what, number in [*events, *[("take", 0), ("end", 7)] * 80]:
        if what == "take":
            entry = line.take()
            if entry is None:
                continue
            ahead.pop(entry.user, None)
            for others in ahead.values():
                others[entry.user] += 1
                assert max(others.values()) <= 1
        elif what == "end":
            if line.running:
                line.end(number)
        else:
            if what not in known:
                ahead[what] = Counter()
            known.add(what)
            line.ask(what, prompt=number)
    assert not +line.waiting, "everybody is served"


def test_what_is_cancelled_in_line_is_paid_back(queue: RequestQueue) -> None:
    line = Line(queue)
    line.ask("bob")
    rids = [line.ask("ann") for _ in range(5)]
    line.ask("bob")
    for rid in rids[1:4]:
        assert queue.withdraw(rid, "ann")
    assert queue.waiting() == ["r0", "r1", "r5", "r6"], "bob's second stands behind ann's second"


def test_an_end_that_is_told_twice_is_charged_once(queue: RequestQueue) -> None:
    """A worker repeats its acknowledgement after a lost reply."""
    line = Line(queue)
    for user in ("ann", "ann", "bob", "bob"):
        line.ask(user)
    entry = line.take()
    assert entry is not None
    used = Tokens(10, 290)
    assert queue.ack(entry, used=used)
    once = queue._redis.zrange(queue._waiting, 0, -1, withscores=True)
    assert not queue.ack(entry, used=used)
    assert queue._redis.zrange(queue._waiting, 0, -1, withscores=True) == once


def test_without_the_settlement_the_shares_are_wrong(queue: RequestQueue, monkeypatch: pytest.MonkeyPatch) -> None:
    """The test of the first test."""
    text = queue_module._ACK.text.replace("if prompt then settle(fields, user, prompt, answer) end", "")
    assert text != queue_module._ACK.text
    monkeypatch.setattr(queue_module._ACK, "text", text)
    monkeypatch.setattr(queue_module._ACK, "sha", hashlib.sha1(text.encode()).hexdigest())
    line = Line(queue)
    serve(line, 40_000, lambda user: {"a": 25, "b": 500}[user], "ab", {})
    assert line.tokens["b"] > 5 * line.tokens["a"]


# -- builds before this one ------------------------------------------------------------------------------------------


def test_a_request_of_an_older_front_end_is_charged_when_it_ends(
    queue: RequestQueue, redis_client: redis.Redis
) -> None:
    """Older builds write no estimate: there a request costs one turn."""
    for number in range(3):
        redis_client.xadd(queue._requests, {"rid": f"old{number}", "user": "ann", "payload": b"p", "base": 0})
    ids = [entry_id.decode() for entry_id, _ in redis_client.xrange(queue._requests)]
    redis_client.zadd(queue._waiting, {f"{each} old{n} ann": n for n, each in enumerate(ids)})
    redis_client.hset(queue._users, "ann", 3)
    redis_client.hset(queue._keys[2], "interactive ann", 2)
    entry = queue.take("w", suspects=False)
    assert entry is not None and queue.ack(entry, used=Tokens(10, 90))
    assert [place for _, place in redis_client.zrange(queue._waiting, 0, -1, withscores=True)] == [100.0, 101.0]


def test_older_front_ends_can_count_on_with_what_is_kept(queue: RequestQueue, redis_client: redis.Redis) -> None:
    """They raise and lower the last place of a user by whole numbers, and would fail on others."""
    line = Line(queue, slots=3)
    for number in range(12):
        line.ask("ann" if number % 2 else "bob", weight=0.7, prompt=13 * number)
        line.take()
    for number in range(3):
        line.end(17 * number)
    kept = redis_client.hgetall(queue._keys[2])
    assert {b"#interactive", b"interactive ann", b"interactive bob"} <= set(kept)
    assert all(value.isdigit() for value in kept.values()), kept
    places = [place for _, place in redis_client.zrange(queue._waiting, 0, -1, withscores=True)]
    assert places and all(place == int(place) for place in places)


# -- estimates -------------------------------------------------------------------------------------------------------


def test_a_prompt_is_estimated_by_its_bytes() -> None:
    asked = ChatRequest("r", "u", "m", (Message("user", "four" * 25),), SamplingOptions(max_new_tokens=77))
    assert estimate(asked) == Tokens(29, 77)
    assert estimate(ChatRequest("r", "u", "m", (), prompt="你好" * 10)).prompt == 15
