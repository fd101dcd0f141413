"""Quotas: what is reserved is settled once, whatever died; a refusal says when to come again."""

import uuid
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest
import redis

from services.chat.charges import estimate
from services.chat.journal import Journal, Ownership
from services.chat.queue import Limits
from services.chat.quotas import Quotas
from services.chat.requests import Requests
from services.errors import Busy, InvalidRequest, QuotaExceeded, UserLimit
from services.settings import Settings
from services.wire.keys import Keys
from services.wire.limits import MOST, UserLimits
from services.wire.messages import ChatRequest, Event, Message, SamplingOptions

PROMPT, ANSWER = 14, 100  # what `question` reserves


def question(rid: str, user: str = "ann", answer: int = ANSWER) -> ChatRequest:
    return ChatRequest(rid, user, "m", (Message("user", "x" * 40),), SamplingOptions(max_new_tokens=answer))


Admitting = Callable[..., Requests]


@pytest.fixture
def admitting(redis_client: redis.Redis, namespace: str) -> Admitting:
    """A front end under these limits for everybody."""
    keys = Keys(namespace)
    redis_client.sadd(keys.models, "m", "other")

    def make(tokens_per_day: int = 0, in_flight: int = 0, **limits: Any) -> Requests:
        quotas = Quotas(redis_client, keys, default=UserLimits(tokens_per_day, in_flight), wait_s=900, table_s=0)
        return Requests(redis_client, keys, limits=Limits(**limits), quotas=quotas)

    return make


def begin(requests: Requests, rid: str, user: str = "ann") -> Callable[..., None]:
    """A worker takes the next request and begins it; what is returned ends it."""
    queue = requests.queue("m")
    entry = queue.take("w", suspects=False)
    assert entry is not None and entry.rid == rid
    nonce = uuid.uuid4().hex
    request = question(rid, user)
    limits = {"max_tries": 3, "max_begins": 9, "deadline_ms": 900_000}
    begun = requests.journal.begin(request, entry.payload, epoch=entry.epoch, nonce=nonce, wid="w", **limits)
    assert isinstance(begun, Ownership)

    def end(prompt: int = PROMPT, answer: int = 0, *, old_build: bool = False) -> None:
        requests.journal.load_append()
        tokens = Event("tokens", nonce, 0, 0, tuple(range(answer)), "text")
        reply = requests.journal._redis.execute_command(*requests.journal.append_command(rid, entry.epoch, tokens))
        assert Journal.appended(reply) == answer
        usage = {"prompt_tokens": prompt, "completion_tokens": answer}
        event = Event("finished", nonce, answer, 4, code="stop", usage=usage)
        assert requests.journal.finish(rid, entry.epoch, event) is None
        if old_build:
            requests.journal._redis.hdel(requests.keys.state(rid), "used")
        queue.ack(entry)

    return end


def test_the_estimate_is_what_these_tests_say() -> None:
    wanted = estimate(question("r"))
    assert (wanted.prompt, wanted.answer) == (PROMPT, ANSWER)


# -- off by default --------------------------------------------------------------------------------------------------


def test_without_quotas_nothing_is_counted_and_a_submit_costs_no_round_trip(
    redis_client: redis.Redis, namespace: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    keys = Keys(namespace)
    redis_client.sadd(keys.models, "m")
    requests = Requests(redis_client, keys)
    for number in range(12):  # it reads which users have limits of their own, and every server learns the scripts
        requests.submit(question(f"before{number}"))
    asked: list[Any] = []
    execute = redis.Redis.execute_command

    def counting(self: redis.Redis, *words: Any, **options: Any) -> Any:
        asked.append(words[0])
        return execute(self, *words, **options)

    monkeypatch.setattr(redis.Redis, "execute_command", counting)
    requests.submit(question("r1"))
    assert asked == ["SISMEMBER", "EVALSHA", "EVALSHA"], "does the model exist, create, enqueue"
    assert not redis_client.exists(keys.reserved("ann"), keys.used("ann"))
    assert requests.quotas.usage("ann").row()["counted"] is False


# -- reserved and settled --------------------------------------------------------------------------------------------


def test_tokens_are_reserved_when_a_request_is_queued_and_settled_to_what_was_used(admitting: Admitting) -> None:
    requests = admitting(tokens_per_day=1000)
    requests.submit(question("r1"))
    usage = requests.quotas.usage("ann")
    assert (usage.used, usage.reserved, usage.in_flight) == (0, PROMPT + ANSWER, 1)
    end = begin(requests, "r1")
    assert requests.quotas.usage("ann").reserved == PROMPT + ANSWER, "it still runs"
    end(prompt=20, answer=7)
    for _ in range(2):
        usage = requests.quotas.usage("ann")
        assert (usage.used, usage.reserved, usage.in_flight) == (27, 0, 0), "once, however often somebody looks"


def test_a_repeated_submit_reserves_once(admitting: Admitting) -> None:
    requests = admitting(tokens_per_day=1000)
    for _ in range(3):
        requests.submit(question("r1"))
    assert requests.quotas.usage("ann").reserved == PROMPT + ANSWER
    begin(requests, "r1")(answer=5)
    requests.submit(question("r1"))
    assert (requests.quotas.usage("ann").used, requests.quotas.usage("ann").reserved) == (PROMPT + 5, 0)


def test_who_has_no_tokens_left_is_refused_until_the_next_day_and_told_when_that_begins(admitting: Admitting) -> None:
    requests = admitting(tokens_per_day=200)
    requests.submit(question("r1"))
    begin(requests, "r1")(answer=90)
    now = datetime.now(UTC)
    with pytest.raises(
        QuotaExceeded, match="of your 200 tokens a day 104 are used, and this request may use 114"
    ) as no:
        requests.submit(question("r2"))
    assert no.value.code == "quota_exceeded" and no.value.http_status == 429
    assert no.value.retry_after_s is not None
    resets = datetime.strptime(no.value.message.split()[-1], "%Y-%m-%dT%H:%M:%SZ").replace(tzinfo=UTC)
    assert (resets.hour, resets.minute, resets.second) == (0, 0, 0)
    assert (resets - now).total_seconds() == pytest.approx(no.value.retry_after_s, abs=5)
    requests.submit(question("r3", answer=80))  # less fits
    requests.submit(question("r4", "bob"))  # another user is not meant


def test_a_refusal_leaves_nothing_behind(admitting: Admitting, redis_client: redis.Redis) -> None:
    requests = admitting(tokens_per_day=150)
    requests.submit(question("r1"))
    with pytest.raises(QuotaExceeded, match="114 reserved by requests in flight") as no:
        requests.submit(question("r2"))
    assert no.value.retry_after_s == 5
    assert not redis_client.exists(requests.keys.state("r2")) and requests.queue("m").in_flight() == ["r1"]
    full = admitting(tokens_per_day=10_000, requests=1)
    with pytest.raises(Busy):
        full.submit(question("r3"))
    assert full.quotas.usage("ann").in_flight == 1, "what the queue refused is given back"


def test_a_request_for_which_no_day_has_room_is_wrong_not_early(admitting: Admitting) -> None:
    """A batch would wait for it for 24 hours."""
    with pytest.raises(InvalidRequest, match="may use 114 tokens, and you may use 100 a day; ask for a shorter answer"):
        admitting(tokens_per_day=100).submit(question("r1"))


def test_an_end_makes_room_without_anybody_having_looked(admitting: Admitting) -> None:
    requests = admitting(tokens_per_day=150)
    requests.submit(question("r1"))
    begin(requests, "r1")(answer=1)
    requests.submit(question("r2"))


def test_requests_in_flight_are_counted_over_all_models(admitting: Admitting) -> None:
    requests = admitting(in_flight=2)
    requests.submit(question("r1"))
    requests.submit(replace(question("r2"), model="other"))
    with pytest.raises(UserLimit, match="you have 2 requests in flight; wait for one to end"):
        requests.submit(question("r3"))
    requests.cancel("r2", "ann")
    requests.submit(question("r3"))


def test_a_reservation_counts_for_its_day(admitting: Admitting, redis_client: redis.Redis) -> None:
    requests = admitting(tokens_per_day=150)
    requests.submit(question("r1"))
    key = requests.keys.reserved("ann")
    day, *rest = redis_client.hget(key, "r1").split()
    yesterday = int(day) - 1
    redis_client.hset(key, "r1", b" ".join([b"%d" % yesterday, *rest]))
    requests.submit(question("r2"))
    begin(requests, "r1")(answer=50)
    usage = requests.quotas.usage("ann")
    assert (usage.used, usage.reserved) == (0, PROMPT + ANSWER), "only what came today"
    assert redis_client.hgetall(requests.keys.used("ann")) == {b"%d" % yesterday: b"64"}


# -- what died -------------------------------------------------------------------------------------------------------


def test_what_was_cancelled_before_it_began_costs_nothing(admitting: Admitting) -> None:
    requests = admitting(tokens_per_day=150)
    requests.submit(question("r1"))
    requests.cancel("r1", "ann")
    usage = requests.quotas.usage("ann")
    assert (usage.used, usage.reserved) == (0, 0)


def test_what_was_cancelled_while_it_ran_costs_its_prompt_and_the_tokens_that_were_written(
    admitting: Admitting, redis_client: redis.Redis
) -> None:
    requests = admitting(tokens_per_day=1000)
    requests.submit(question("r1"))
    begin(requests, "r1")
    redis_client.hset(requests.keys.state("r1"), "n", 9)
    requests.cancel("r1", "ann")
    assert requests.quotas.usage("ann").used == PROMPT + 9


def test_an_end_that_an_older_worker_wrote_is_counted_by_its_tokens(admitting: Admitting) -> None:
    requests = admitting(tokens_per_day=1000)
    requests.submit(question("r1"))
    begin(requests, "r1")(prompt=30, answer=9, old_build=True)
    assert requests.quotas.usage("ann").used == PROMPT + 9, "the prompt as it was estimated"


def test_what_expired_in_line_costs_nothing(admitting: Admitting, redis_client: redis.Redis) -> None:
    requests = admitting(tokens_per_day=1000)
    requests.submit(question("r1"))
    redis_client.hincrby(requests.keys.state("r1"), "created_ms", -1_000_000)
    head = requests.journal.head("r1")
    assert head is not None
    requests.expire("r1", head)
    assert (requests.quotas.usage("ann").used, requests.quotas.usage("ann").reserved) == (0, 0)


def test_a_front_end_that_died_before_it_queued_the_request_holds_tokens_no_longer_than_the_queue_would(
    admitting: Admitting, redis_client: redis.Redis
) -> None:
    requests = admitting(tokens_per_day=1000)
    asked = question("r1")
    requests.quotas.reserve(asked, requests.journal.create(asked).submit)  # and there it died
    assert requests.quotas.usage("ann").in_flight == 1
    redis_client.hincrby(requests.keys.state("r1"), "created_ms", -1_000_000)
    assert requests.quotas.usage("ann").in_flight == 0


def test_a_request_whose_state_is_lost_counts_for_all_that_it_may_have_used(
    admitting: Admitting, redis_client: redis.Redis
) -> None:
    requests = admitting(tokens_per_day=1000)
    requests.submit(question("r1"))
    redis_client.delete(requests.keys.state("r1"))
    assert requests.quotas.usage("ann").used == PROMPT + ANSWER


def test_a_refusal_that_comes_late_does_not_take_the_reservation_of_a_later_submit(admitting: Admitting) -> None:
    """A client sent it twice: the queue was full for the first, and had room for the second."""
    requests = admitting(tokens_per_day=1000)
    asked = question("r1")
    first, second = requests.journal.create(asked), requests.journal.create(asked)
    requests.quotas.reserve(asked, first.submit)
    requests.quotas.reserve(asked, second.submit)
    requests.quotas.release(asked, first.submit)
    assert requests.quotas.usage("ann").in_flight == 1
    requests.quotas.release(asked, second.submit)
    assert requests.quotas.usage("ann").in_flight == 0


def test_reservations_of_ended_requests_do_not_pile_up(admitting: Admitting, redis_client: redis.Redis) -> None:
    """Whoever has a large quota is never refused, so nothing but their number would have them looked at."""
    requests = admitting(tokens_per_day=10**9)
    for number in range(100):
        requests.submit(question(f"r{number}"))
        begin(requests, f"r{number}")(answer=1)
    assert redis_client.hlen(requests.keys.reserved("ann")) < 40


def test_a_redrive_is_counted_and_not_refused(admitting: Admitting) -> None:
    requests = admitting(tokens_per_day=150)
    requests.submit(question("r1"))
    requests.redrive(question("r2"), "r0")
    assert requests.quotas.usage("ann").reserved == 2 * (PROMPT + ANSWER)


# -- limits of one user ----------------------------------------------------------------------------------------------


@pytest.fixture
def quotas(redis_client: redis.Redis, namespace: str) -> Iterator[Quotas]:
    yield Quotas(redis_client, Keys(namespace), default=UserLimits(5000, 9), table_s=0)


def test_a_limit_that_is_set_leaves_the_others_at_their_defaults(quotas: Quotas) -> None:
    assert quotas.set("ann", tokens_per_day=70) == UserLimits(70, 9)
    quotas.set("ann", weight=2.5)
    assert quotas.get("ann") == quotas.heeded("ann") == UserLimits(70, 9, 2.5)
    assert quotas.get("bob") == UserLimits(5000, 9) and set(quotas.all()) == {"ann"}
    assert quotas.unset("ann") and not quotas.unset("ann")
    assert quotas.get("ann") == quotas.heeded("ann") == UserLimits(5000, 9)


@pytest.mark.parametrize("wrong", [{"weight": 0.0}, {"weight": 1000.0}, {"tokens_per_day": -1}, {"in_flight": -2}])
def test_a_limit_that_makes_no_sense_is_refused_and_not_kept(quotas: Quotas, wrong: dict[str, Any]) -> None:
    with pytest.raises(InvalidRequest):
        quotas.set("ann", **wrong)
    assert quotas.all() == {}


def test_a_field_that_a_later_build_stored_is_passed_over(quotas: Quotas, redis_client: redis.Redis) -> None:
    redis_client.hset(quotas._keys.limits, "ann", b'{"in_flight":3,"colour":"red"}')
    assert quotas.get("ann") == UserLimits(5000, 3)


def test_a_stored_number_that_this_build_refuses_harms_nobody(quotas: Quotas, redis_client: redis.Redis) -> None:
    """Older builds kept any number; one of them made every submit of everybody fail."""
    redis_client.hset(quotas._keys.limits, "ann", b'{"tokens_per_day":1000000000000000001}')
    assert quotas.heeded("ann") == quotas.get("ann") == quotas.all()["ann"] == UserLimits(MOST, 9)
    assert quotas.heeded("bob") == UserLimits(5000, 9)
    quotas.set("ann", in_flight=3)
    with pytest.raises(InvalidRequest, match="at most"):
        quotas.set("ann", tokens_per_day=MOST + 1)


def test_zero_takes_a_limit_of_everybody_from_one_user(quotas: Quotas) -> None:
    quotas.set("ann", tokens_per_day=0, in_flight=0)
    assert not quotas.get("ann").counts


def test_the_weight_of_a_user_is_that_of_the_users_requests(admitting: Admitting, redis_client: redis.Redis) -> None:
    requests = admitting()
    requests.quotas.set("ann", weight=2)
    for number in range(2):
        requests.submit(question(f"a{number}"))
        requests.submit(question(f"b{number}", "bob"))
    places = dict(redis_client.zrange(requests.keys.waiting("m"), 0, -1, withscores=True))
    second = {name.split()[1]: place for name, place in places.items() if name.split()[1].endswith(b"1")}
    assert second == {b"a1": (PROMPT + ANSWER) / 2, b"b1": PROMPT + ANSWER}


def test_the_defaults_come_from_the_settings(redis_client: redis.Redis) -> None:
    settings = Settings(user_tokens_per_day=123, user_in_flight=4)
    assert Quotas.from_settings(redis_client, settings)._default == UserLimits(123, 4, 1.0)


def test_a_limit_of_a_users_own_comes_before_the_groups_and_that_before_the_default(quotas: Quotas) -> None:
    quotas.share_groups({"ann": {"tokens_per_day": 70, "weight": 2.0}, "bob": {"in_flight": 0}})
    quotas.set("ann", tokens_per_day=7)
    expected = {"ann": UserLimits(7, 9, 2.0), "bob": UserLimits(5000, 0), "cyd": UserLimits(5000, 9)}
    assert {user: quotas.get(user) for user in expected} == expected
    assert {user: quotas.heeded(user) for user in expected} == expected
    assert quotas.all() == {"ann": expected["ann"]}
    quotas.unset("ann")
    assert quotas.get("ann") == quotas.heeded("ann") == UserLimits(70, 9, 2.0)


def test_who_leaves_a_group_has_its_limits_no_more(quotas: Quotas) -> None:
    quotas.share_groups({"ann": {"tokens_per_day": 70}, "bob": {"tokens_per_day": 70}})
    quotas.share_groups({"bob": {"tokens_per_day": 80}})
    assert quotas.get("ann") == quotas.heeded("ann") == UserLimits(5000, 9)
    assert quotas.get("bob") == quotas.heeded("bob") == UserLimits(80, 9)
    quotas.share_groups({})
    assert quotas.heeded("bob") == UserLimits(5000, 9)
