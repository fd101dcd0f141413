"""Leases alone, without an engine: who has lost one by the worker's clock and by the server's."""

from collections.abc import Iterator
from dataclasses import dataclass

import pytest
import redis

from services.chat.journal import Journal
from services.chat.queue import RETRY_PLACE, SUSPECT_PLACE, Entry, PendingEntry, RequestQueue
from services.chat.requests import Requests
from services.wire.keys import Keys
from services.wire.messages import ChatRequest, Message
from workers.assignment import Assignment, WorkerIdentity
from workers.leases import RESCUE_S, Leases

LEASE_S = 3.0
LOOK_S = 0.25
ALMOST_S = LEASE_S - LOOK_S
OWNER, WATCHER = "w1", "w2"


@dataclass
class Watch:
    """One worker's lease, as another sees it. Each has a clock; the owner renews by the server's."""

    leases: Leases
    now: float = 0.0
    server_s: float = 5000.0
    renewed_s: float = 5000.0
    count: int = 1

    def renew(self) -> None:
        self.renewed_s = self.server_s

    def look(self) -> bool:
        """Whether the lease is over, as of this look."""
        row = PendingEntry("1-0", OWNER, max(self.server_s - self.renewed_s, 0.0), self.count)
        self.leases.observe([row], self.now)
        return self.leases.expired(self.now) == [row]

    def over_within(self, seconds: float, *, every_s: float = LOOK_S, server_pace: float = 1.0) -> bool:
        """Let both clocks go on; whether the lease is over at one of the looks."""
        for _ in range(round(seconds / every_s)):
            self.now += every_s
            self.server_s += every_s * server_pace
            if self.look():
                return True
        return False


@pytest.fixture
def keys(redis_client: redis.Redis, namespace: str) -> Keys:
    made = Keys(namespace)
    redis_client.sadd(made.models, "m")
    return made


@pytest.fixture
def queue(redis_client: redis.Redis, keys: Keys) -> RequestQueue:
    return RequestQueue(redis_client, keys, "m")


@pytest.fixture
def journal(redis_client: redis.Redis, keys: Keys) -> Journal:
    return Journal(redis_client, keys)


@pytest.fixture
def leases(queue: RequestQueue, journal: Journal) -> Leases:
    return Leases(queue, journal, WATCHER, lease_s=LEASE_S, now=0.0)


@pytest.fixture
def watch(leases: Leases) -> Iterator[Watch]:
    made = Watch(leases)
    assert not made.over_within(LOOK_S), "it has just been renewed"
    yield made


def test_a_lease_that_nobody_renews_is_over_after_its_time(watch: Watch) -> None:
    watch.renew()
    assert not watch.over_within(ALMOST_S)
    assert watch.over_within(LOOK_S)


def test_a_lease_that_is_renewed_is_never_over(watch: Watch) -> None:
    for _ in range(12):
        watch.renew()
        assert not watch.over_within(LEASE_S / 3)


def test_a_dead_owner_is_found_at_the_first_look_by_the_servers_clock_alone(leases: Leases) -> None:
    assert Watch(leases, renewed_s=4990.0).over_within(LOOK_S)


def test_a_first_look_that_comes_late_says_nothing(leases: Leases) -> None:
    late = Watch(leases, now=2.0, renewed_s=4990.0)
    assert not late.over_within(LEASE_S)
    assert late.over_within(LOOK_S), "by the watcher's clock, from that look on"


def test_a_servers_clock_that_steps_forward_ends_no_lease(watch: Watch) -> None:
    watch.server_s += 3600
    assert not watch.look()
    watch.renew()
    assert not watch.over_within(ALMOST_S)


def test_after_a_step_forward_a_dead_owner_is_found_by_the_watchers_clock(watch: Watch) -> None:
    watch.server_s += 3600
    assert not watch.look()
    assert not watch.over_within(ALMOST_S)
    assert watch.over_within(LOOK_S)


def test_after_a_step_back_a_dead_owner_is_found_by_the_watchers_clock(watch: Watch) -> None:
    assert not watch.over_within(1.0)
    watch.server_s -= 3600
    assert not watch.look()
    assert not watch.over_within(ALMOST_S)
    assert watch.over_within(LOOK_S)


def test_a_servers_clock_that_stands_still_keeps_no_dead_owner(watch: Watch) -> None:
    watch.renew()
    assert not watch.look()
    assert not watch.over_within(ALMOST_S, server_pace=0.0)
    assert watch.over_within(LOOK_S, server_pace=0.0)


def test_who_looks_less_often_than_owners_renew_counts_no_time(watch: Watch) -> None:
    assert not watch.over_within(10 * LEASE_S, every_s=LEASE_S / 3)
    assert not watch.over_within(ALMOST_S)
    assert watch.over_within(LOOK_S)


def test_another_delivery_is_another_lease(watch: Watch) -> None:
    """No idle time tells them apart here: the server's clock stands still."""
    watch.renew()
    assert not watch.over_within(2.0, server_pace=0.0)
    watch.count += 1
    assert not watch.look()
    assert not watch.over_within(ALMOST_S, server_pace=0.0)


def test_no_lease_is_over_until_owners_could_renew_after_an_outage(watch: Watch) -> None:
    assert not watch.over_within(2.0)
    watch.leases.disconnected(watch.now)
    assert not watch.over_within(ALMOST_S)
    assert watch.over_within(LOOK_S)


def test_its_own_leases_are_due_every_third_of_a_lease(leases: Leases) -> None:
    assert (leases.due(0.9), leases.due(1.0)) == (False, True)
    leases.renewed(1.0)
    assert (leases.due(1.9), leases.due(2.0)) == (False, True)


# -- with the queue --------------------------------------------------------------------------------------------------


@dataclass
class Line:
    """The queue, and requests in it."""

    redis: redis.Redis
    keys: Keys
    queue: RequestQueue
    journal: Journal

    def taken(self, rid: str, wid: str) -> Entry:
        """A new request that this worker has taken."""
        Requests(self.redis, self.keys).submit(ChatRequest(rid, "ann", "m", (Message("user", "hello"),)))
        entry = self.queue.take(wid, suspects=True)
        assert entry is not None and entry.rid == rid
        return entry

    def begun(self, rid: str, wid: str) -> Entry:
        entry = self.taken(rid, wid)
        assert Assignment(self.queue, self.journal, WorkerIdentity(wid, 3, 60_000), entry).begin()
        return entry


@pytest.fixture
def line(redis_client: redis.Redis, keys: Keys, queue: RequestQueue, journal: Journal) -> Line:
    return Line(redis_client, keys, queue, journal)


def free_for_a_lease(leases: Leases, mine: set[str]) -> None:
    """Look as often as a worker does, until its own clock has counted a whole lease."""
    for look in range(int(LEASE_S / LOOK_S) + 2):
        leases.free(mine, look * LOOK_S)


def test_a_renewal_says_which_leases_are_still_held(leases: Leases, line: Line) -> None:
    kept, lost = line.taken("r1", WATCHER), line.taken("r2", WATCHER)
    assert line.queue.hand_back(lost, WATCHER, RETRY_PLACE)
    assert leases.renew([kept, lost]) == [True, False]


def test_what_another_lost_is_freed_and_what_runs_here_is_not(leases: Leases, line: Line) -> None:
    line.taken("r1", OWNER)
    mine = line.taken("r2", WATCHER)
    free_for_a_lease(leases, {mine.entry_id})
    assert line.queue.waiting() == ["r1"]


def test_what_may_have_killed_its_owner_is_freed_as_a_suspect(leases: Leases, line: Line) -> None:
    line.taken("r1", OWNER)
    line.begun("r2", OWNER)
    free_for_a_lease(leases, set())
    freed = [line.queue.take("w3", suspects=True) for _ in range(2)]
    assert [(entry.rid, entry.place) for entry in freed if entry] == [("r2", SUSPECT_PLACE), ("r1", RETRY_PLACE)]


def test_what_nobody_holds_is_rescued_now_and_then(leases: Leases, line: Line) -> None:
    line.redis.xadd(line.keys.requests("m"), {"rid": "r1", "user": "ann", "payload": "?", "base": "0"})
    leases.rescue(RESCUE_S - 0.1)
    assert line.queue.waiting() == []
    leases.rescue(RESCUE_S)
    assert line.queue.waiting() == ["r1"]


def test_a_worker_that_holds_nothing_is_forgotten(leases: Leases, line: Line) -> None:
    line.queue.ack(line.taken("r1", WATCHER))
    leases.retire()
    assert line.redis.xinfo_consumers(line.keys.requests("m"), "workers") == []
