"""The user `worker` of infra/redis/worker.acl: it serves questions from end to end, and orders nothing."""

import contextlib
import re
import secrets
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
import redis
from redis.exceptions import NoPermissionError

from services.chat.client import ChatClient
from services.chat.dead_letters import DeadLetters
from services.chat.queue import RequestQueue
from services.chat.reader import Done, Text
from services.chat.requests import Requests
from services.connection.cluster import primaries_of
from services.connection.connect import connect
from services.connection.embedded import EmbeddedServer
from services.doctor import pipelines, queues, redis_access, redis_server
from services.jobs.dispatch import Dispatch
from services.jobs.jobs import Jobs
from services.jobs.previews import Previews
from services.places import ROOT
from services.serving.registry import Registry
from services.serving.trained_models import Claim, TrainedModel, TrainedModels
from services.settings import Settings
from services.wire.keys import GROUP, Keys
from services.wire.messages import ChatRequest, Message
from tests.conftest import Eventually
from tests.stand_ins.synthetic_worker import EchoEngine, plan
from tests.workers.test_standby import Standbys
from workers.worker import Worker

RULES = [
    rule
    for line in (ROOT / "infra" / "redis" / "worker.acl").read_text("utf-8").splitlines()
    if not line.startswith("#")
    for rule in line.split()
]
LIBRARY = "command client|setinfo"  # redis-py tells its version where it may; Redis 7.0 knows no such command
MODEL, STORY = "echo", "one two three " * 20
TIMES = {"lease_s": 1.5, "stall_s": 60.0, "flush_s": 0.02, "drain_s": 5.0, "queue_deadline_s": 60.0}


class Account:
    """The user `worker` of one test's namespace."""

    def __init__(self, admin: redis.Redis, url: str, namespace: str) -> None:
        self.keys = Keys(namespace)
        self.name, password = f"worker-{namespace}", secrets.token_hex(8)
        self._admin = admin
        rules = [rule.replace("chatserver:", f"{namespace}:") for rule in RULES]
        for server in primaries_of(admin):
            server.execute_command("ACL", "SETUSER", self.name, "on", f">{password}", *rules)
        self.url = re.sub(r"://([^@/]*@)?", f"://{self.name}:{password}@", url, count=1)

    def refusals(self) -> list[str]:
        """What the servers refused to this user, also where the caller passed over it."""
        found = [row for server in primaries_of(self._admin) for row in server.execute_command("ACL", "LOG")]
        rows = [dict(zip(row[::2], row[1::2], strict=True)) if isinstance(row, list) else row for row in found]
        told = [{_text(name): _text(value) for name, value in row.items()} for row in rows]
        refused = [f"{row['reason']} {row['object']}" for row in told if row["username"] == self.name]
        return [each for each in refused if each != LIBRARY]

    def delete(self) -> None:
        for server in primaries_of(self._admin):
            server.execute_command("ACL", "DELUSER", self.name)


def _text(value: object) -> str:
    return value.decode() if isinstance(value, bytes) else str(value)


@pytest.fixture
def account(redis_client: redis.Redis, redis_server: EmbeddedServer, namespace: str) -> Iterator[Account]:
    made = Account(redis_client, redis_server.url, namespace)
    yield made
    made.delete()


@pytest.fixture
def as_worker(account: Account) -> Iterator[redis.Redis]:
    with contextlib.closing(connect(account.url, role="worker")) as client:
        yield client


@contextlib.contextmanager
def working(client: redis.Redis, keys: Keys) -> Iterator[Worker]:
    engine = EchoEngine(rate=100, chunk=4, slots=8)
    engine.start()
    worker = Worker(client, keys, MODEL, engine, plan, max_tries=3, answer_ttl_s=3600, **TIMES)
    thread = threading.Thread(target=worker.run)
    thread.start()
    try:
        yield worker
    finally:
        worker.stop()
        thread.join(10)
        engine.stop()


def question(rid: str, text: str = "hello") -> ChatRequest:
    return ChatRequest(rid, "ann", MODEL, (Message("user", text),))


def test_the_patterns_are_those_of_the_keys_that_workers_use() -> None:
    keys = Keys("chatserver")
    of_model = (keys.requests, keys.waiting, keys.turns, keys.pace, keys.ids, keys.users, keys.bytes, keys.dead)
    written = [
        make("*") for make in (*of_model, keys.state, keys.journal, keys.worker, keys.loading, keys.claim, keys.trouble)
    ]
    wanted = {f"~{key}" for key in (*written, keys.workers, keys.models)}
    wanted |= {f"%R~{key}" for key in (keys.catalogue, keys.wanted, keys.limits, keys.group_limits)}
    wanted |= {f"&{channel}" for channel in (keys.events("*"), keys.control)}
    assert {rule for rule in RULES if not rule.startswith("+")} == wanted


def test_a_question_is_served_taken_over_and_given_up_without_a_refusal(
    account: Account, as_worker: redis.Redis, redis_client: redis.Redis, eventually: Eventually
) -> None:
    keys = account.keys
    client, registry = ChatClient(redis_client, keys), Registry(redis_client, keys)
    requests, theirs = Requests(redis_client, keys), RequestQueue(as_worker, keys, MODEL)
    Registry(as_worker, keys).announce_loading(MODEL)
    assert registry.is_loading(MODEL) and redis_client.smembers(keys.models) == {MODEL.encode()}

    def ended(rid: str, status: str) -> Callable[[], bool]:
        return lambda: (head := requests.journal.head(rid)) is not None and head.status == status

    for rid in ("of-the-dead", "stranded"):
        requests.submit(question(rid))
        taken = theirs.take(f"held-{rid}", suspects=True)
        assert taken is not None and taken.rid == rid
    redis_client.xgroup_delconsumer(keys.requests(MODEL), GROUP, "held-stranded")
    with working(as_worker, keys) as worker:
        eventually(lambda: [each.wid for each in registry.workers()] == [worker.wid], "the worker's presence")
        client.submit(question("r1", STORY))
        events = list(client.follow("r1", "ann"))
        assert "".join(each.text for each in events if isinstance(each, Text)) == STORY
        assert [each.status for each in events if isinstance(each, Done)] == ["finished"]
        eventually(ended("of-the-dead", "finished"), "the takeover", 20)
        eventually(ended("stranded", "finished"), "what the janitor rescues", 20)
        requests.queue(MODEL).enqueue("unreadable", "ann", b"not a payload")
        eventually(lambda: DeadLetters(redis_client, requests).newest(9), "the dead letter", 20)
        client.submit(question("long", "x" * 20_000))
        eventually(ended("long", "running"), "its beginning")
        client.cancel("long", "ann")
        eventually(lambda: not theirs.length(), "an empty queue", 20)
        assert theirs.retire_idle(0) >= 1, "the names of the dead"
    assert not registry.workers(), "it leaves in order"
    assert account.refusals() == []


def test_a_standby_worker_takes_a_wanted_model_and_gives_it_back(
    account: Account, redis_client: redis.Redis, namespace: str, tmp_path: Path, eventually: Eventually
) -> None:
    standbys = Standbys(redis_client, account.url, namespace, tmp_path)
    try:
        standbys.start()
        standbys.register("july")
        standbys.trained.serve("july")
        eventually(lambda: standbys.servers("july"), "a worker of the model", 30)
        standbys.register("missing", path=str(tmp_path / "nowhere"))
        standbys.trained.stop_serving("july")
        standbys.trained.serve("missing")
        eventually(lambda: standbys.trained.trouble("missing"), "the reason why the other is not served", 30)
        assert standbys.trained.loader("july") == ""
    finally:
        standbys.close()
    assert account.refusals() == []


def test_a_person_beside_a_worker_may_ask_and_look(
    account: Account, as_worker: redis.Redis, redis_client: redis.Redis, eventually: Eventually
) -> None:
    with working(redis_client, account.keys):
        eventually(lambda: Registry(as_worker, account.keys).models(), "the model")
        client = ChatClient(as_worker, account.keys)
        client.submit(question("r1"))
        assert [each.status for each in client.follow("r1", "ann") if isinstance(each, Done)] == ["finished"]
    assert account.refusals() == []


def test_the_doctor_of_a_worker_finds_nothing_wrong(
    account: Account, as_worker: redis.Redis, redis_client: redis.Redis
) -> None:
    settings = Settings(redis_url=account.url, namespace=account.keys.namespace)
    (seen,) = pipelines.check_pipelines(as_worker, settings)
    assert seen.level == "note" and "sees no jobs" in seen.message
    found = [*redis_access.check_reach(as_worker, chosen=True, can_start=False), *redis_access.check_clocks(as_worker)]
    for server in redis_server.read_servers(as_worker):
        found += redis_server.check_version(server)
    for check in (queues.check_workers, queues.check_queues, queues.check_dead_letters):
        found += check(as_worker, account.keys)
    assert "wrong" not in {finding.level for finding in found}


def test_a_worker_orders_no_job_and_reads_none(
    account: Account, as_worker: redis.Redis, redis_client: redis.Redis
) -> None:
    keys = account.keys
    ours, theirs = Jobs(redis_client, keys), Jobs(as_worker, keys)
    ours.submit("j1", "clean", "j1", {"inputs": ["/data/in.json"]})
    attempts: list[Callable[[], object]] = [
        lambda: theirs.submit("j2", "clean", "j2", {"inputs": ["/etc/passwd"]}),
        lambda: theirs.submit("j1", "clean", "j1", {"inputs": ["/data/in.json"]}),
        theirs.list,
        theirs.unfinished,
        lambda: theirs.get("j1"),
        lambda: theirs.cancel("j1"),
        lambda: theirs.remove("j1"),
        lambda: theirs.log("j1", "a line"),
        lambda: theirs.note("j1", "read", {}),
        lambda: theirs.units("j1"),
        lambda: theirs.points("j1"),
        lambda: Dispatch(as_worker, keys, "j1").read(),
        lambda: as_worker.hset(keys.job("j1").job, "spec", "{}"),
        lambda: as_worker.zrange(keys.jobs, 0, -1),
        lambda: as_worker.get(keys.beat),
        lambda: Previews(as_worker, keys, b"their key").order({"data": ["/etc/passwd"]}),
        lambda: as_worker.set(keys.beat, "here"),
    ]
    for attempt in attempts:
        with pytest.raises(NoPermissionError):
            attempt()
    assert [job.id for job in ours.list()] == ["j1"] and ours.get("j1").state == "submitted"


@pytest.mark.parametrize("key", ["units", "sweeps", "trainings", "unacked", "_kombu.binding.units"])
def test_a_worker_sends_and_reads_no_message_of_celery(account: Account, as_worker: redis.Redis, key: str) -> None:
    for command in (["LPUSH", "x"], ["LRANGE", "0", "-1"], ["SMEMBERS"], ["DEL"]):
        with pytest.raises(NoPermissionError):
            as_worker.execute_command(command[0], account.keys.celery + key, *command[1:])
    with pytest.raises(NoPermissionError):
        as_worker.publish(f"/0.{account.keys.celery}pidbox", "shutdown")


@pytest.mark.parametrize(
    "command",
    [
        "CONFIG GET *",
        "CONFIG SET dir /tmp",
        "FLUSHALL",
        "FLUSHDB",
        "KEYS *",
        "SCAN 0",
        "RANDOMKEY",
        "SHUTDOWN NOSAVE",
        "ACL WHOAMI",
        "ACL LIST",
        "MONITOR",
        "BGREWRITEAOF",
        "SAVE",
        "REPLICAOF NO ONE",
        "CLIENT LIST",
        "CLIENT KILL TYPE normal",
        "CLIENT PAUSE 1",
        "SCRIPT FLUSH",
        "SCRIPT KILL",
        "FUNCTION LIST",
        "MODULE LIST",
        "SLOWLOG GET",
        "PSUBSCRIBE *",
        "MIGRATE 127.0.0.1 6379 x 0 1",
        "RESTORE x 0 x",
        "RENAME x y",
        "COPY x y",
        "SORT x",
    ],
)
def test_a_worker_does_not_rule_the_server(as_worker: redis.Redis, command: str) -> None:
    with pytest.raises(NoPermissionError):
        as_worker.execute_command(*command.split())


def test_a_script_of_a_worker_may_no_more_than_the_worker(account: Account, as_worker: redis.Redis) -> None:
    jobs, state = account.keys.jobs, account.keys.state("r1")
    with pytest.raises(NoPermissionError):
        as_worker.execute_command("EVAL", f"#!lua\nreturn redis.call('ZRANGE', '{jobs}', 0, -1)", 1, jobs)
    for line in (f"redis.call('ZRANGE', '{jobs}', 0, -1)", "redis.call('FLUSHALL')"):
        with pytest.raises(redis.ResponseError, match=r"(?i)permission|ACL|can't (access|run)"):
            as_worker.execute_command("EVAL", f"return {line}", 1, state)


def test_a_worker_registers_no_model_and_wants_none(
    account: Account, as_worker: redis.Redis, redis_client: redis.Redis
) -> None:
    """A path in the catalogue is what other workers load."""
    model = TrainedModels(redis_client, account.keys).register(TrainedModel("july", "/models/july", "opt", "july", 0.0))
    trained = TrainedModels(as_worker, account.keys)
    assert trained.find("july") == model and trained.keep_claim(Claim("july", "me"))
    for attempt in (
        lambda: trained.register(replace(model, name="august", job="august")),
        lambda: trained.remove("july"),
        lambda: trained.serve("july"),
        lambda: trained.stop_serving("july"),
    ):
        with pytest.raises(NoPermissionError):
            attempt()


def test_a_worker_of_one_namespace_is_a_stranger_in_another(as_worker: redis.Redis) -> None:
    with pytest.raises(NoPermissionError):
        as_worker.hgetall(Keys("another").state("r1"))
