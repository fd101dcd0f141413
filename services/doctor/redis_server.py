"""Checks the server: version, append-only file, eviction, memory, connections, replicas.

infra/redis/redis.conf has the right settings, docs/redis.md explains them. A managed service forbids CONFIG: then the
checks use INFO alone.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import redis

from services.connection.cluster import primaries_of
from services.connection.connect import address_of
from services.connection.memory import FULL_PERCENT
from services.doctor.findings import Finding, note, ok, warning, wrong

OLDEST_REDIS = (7, 0)
OLDEST_VALKEY = (8, 0)
# Release line → its first patch without the faults by which a client, or with TLS anybody who reaches the port, may run
# code in the server: CVE-2025-49844 (Lua), CVE-2026-81934 (Redis, TLS), CVE-2026-56684 and CVE-2026-63639 (Valkey).
PATCHED: dict[str, dict[tuple[int, int], int]] = {
    "Redis": {(7, 2): 16, (7, 4): 11, (8, 2): 9, (8, 4): 6, (8, 6): 6, (8, 8): 2, (8, 10): 1},
    "Valkey": {(8, 0): 10, (8, 1): 9, (9, 0): 5, (9, 1): 1},
}
FULL, NEARLY_FULL = 0.95, 0.8
SLOWEST_FAILOVER_MS = 5_000
CONF = "as infra/redis/redis.conf does"
# Setting → the value that it must have, and what happens under another.
SETTINGS = {
    "no-appendfsync-on-rewrite": (
        "no",
        "a power cut during a rewrite of the append-only file loses text that users saw",
    ),
    "aof-load-truncated": ("yes", "after a crash during a write the server refuses to start"),
}


@dataclass(frozen=True)
class Server:
    """One server that takes writes. `config` is None where CONFIG is forbidden."""

    address: str
    info: Mapping[str, Any]
    config: Mapping[str, str] | None


def read_servers(client: redis.Redis) -> list[Server]:
    """Every primary in its present state. Raises the errors of redis."""
    return [Server(address_of(node), node.info(), _config(node)) for node in primaries_of(client)]


def _config(node: redis.Redis) -> Mapping[str, str] | None:
    try:
        return dict(node.config_get("*"))
    except redis.ResponseError:  # an unknown command, or one that this user may not use
        return None


Judge = Callable[[Server], Iterable[Finding]]


def of_all(servers: Sequence[Server], judge: Judge) -> list[Finding]:
    """The findings that are not ok, each with its server's address; without any, those of the first server."""
    found = [(server, finding) for server in servers for finding in judge(server)]
    named = [
        replace(finding, message=f"{server.address}: {finding.message}") if len(servers) > 1 else finding
        for server, finding in found
        if finding.level != "ok"
    ]
    return named or [finding for server, finding in found if server is servers[0]]


def check_config(server: Server) -> Iterator[Finding]:
    """Whether the server shows its settings, and the settings that have one right value."""
    if server.config is None:
        yield note(
            "the server forbids CONFIG, as managed services do: the doctor cannot see appendfsync and buffer limits",
            "compare its settings with infra/redis/redis.conf in the console of the service",
        )
        return
    wrongly = {
        name: server.config[name] for name, (right, _) in SETTINGS.items() if server.config.get(name, right) != right
    }
    for name, value in wrongly.items():
        yield warning(f"{name} is {value!r}: {SETTINGS[name][1]}", f"`CONFIG SET {name} {SETTINGS[name][0]}`, {CONF}")
    yield from _pubsub_buffer(server.config)
    if not wrongly:
        yield ok("as infra/redis/redis.conf")


def _pubsub_buffer(config: Mapping[str, str]) -> Iterator[Finding]:
    words = config.get("client-output-buffer-limit", "").split()
    if "pubsub" in words and words[words.index("pubsub") + 1] == "0":
        yield warning(
            "client-output-buffer-limit pubsub is 0: a reader that hangs can fill the memory of Redis",
            f"`CONFIG SET client-output-buffer-limit 'pubsub 32mb 8mb 60'`, {CONF}",
        )


def check_version(server: Server) -> Iterator[Finding]:
    info = server.info
    valkey = str(info.get("valkey_version") or "")
    name, version, oldest = "Redis", str(info["redis_version"]), OLDEST_REDIS
    if valkey:
        name, version, oldest = "Valkey", valkey, OLDEST_VALKEY
    other = next(
        (field.removesuffix("_version") for field in ("dragonfly_version", "kvrocks_version") if field in info), ""
    )
    if other:
        yield warning(
            f"this is {other}, which calls itself Redis {version}: ChatServer was never tested with it",
            "use Valkey 8 or Redis 7.0",
        )
    elif _numbers(version) >= oldest:
        yield _patches(name, version)
    elif _numbers(str(info["redis_version"])) >= OLDEST_REDIS:
        yield warning(f"ChatServer was never tested with {name} {version}", "install Valkey 8 or newer")
    else:
        yield wrong(f"{name} {version} lacks commands that ChatServer uses", "install Redis 7.0 or Valkey 8, or newer")


def _patches(name: str, version: str) -> Finding:
    """Whether a supported version has the fixes of PATCHED. A package of a distribution may have them in an old one."""
    lines, line = PATCHED[name], _numbers(version)
    by_distribution = "or make sure that your distribution's package has the fixes"
    newest = max(lines)
    if line not in lines and line < newest:
        return note(
            f"{name} {version}: its makers fix no more security faults in {line[0]}.{line[1]}",
            f"install {name} {newest[0]}.{newest[1]}.{lines[newest]} or newer, {by_distribution}",
        )
    if line in lines and _patch(version) < lines[line]:
        return warning(
            f"{name} {version} has known security faults: who reaches its port may run code in it",
            f"install {name} {line[0]}.{line[1]}.{lines[line]} or newer, {by_distribution}",
        )
    return ok(f"{name} {version}")


def _numbers(version: str) -> tuple[int, int]:
    major, _, rest = version.partition(".")
    minor = rest.partition(".")[0]
    return int(major), int(minor) if minor.isdigit() else 0


def _patch(version: str) -> int:
    """The third number of a version; 0 where there is none."""
    return int(found[1]) if (found := re.match(r"\d+\.\d+\.(\d+)", version)) else 0


def check_persistence(server: Server) -> Iterator[Finding]:
    """Whether data survives a restart of the server."""
    info, config = server.info, server.config or {}
    if not info.get("aof_enabled"):
        yield wrong(
            "Redis has no append-only file: a restart loses queues and answers",
            f"`CONFIG SET appendonly yes` and `CONFIG REWRITE`, {CONF}",
        )
        return
    yield from _aof_health(info)
    yield from _snapshot_health(info, config)
    fsync = config.get("appendfsync", "")
    if fsync == "no":
        yield warning(
            "appendfsync is 'no': a power cut loses the writes of the last half minute",
            f"`CONFIG SET appendfsync always`, {CONF}; `everysec` on a slow disk",
        )
    else:
        yield ok(f"append-only file, appendfsync {fsync or 'not to be seen'}")


def _aof_health(info: Mapping[str, Any]) -> Iterator[Finding]:
    if info.get("aof_last_write_status", "ok") != "ok":
        yield wrong("the last write to the append-only file failed; Redis refuses writes", "make room on its disk")
    if info.get("aof_last_bgrewrite_status", "ok") != "ok":
        yield warning(
            "the last rewrite of the append-only file failed; the file only grows",
            "make room on its disk and memory (vm.overcommit_memory=1), then `BGREWRITEAOF`; its log says why",
        )


def _snapshot_health(info: Mapping[str, Any], config: Mapping[str, str]) -> Iterator[Finding]:
    if info.get("rdb_last_bgsave_status", "ok") == "ok":
        return
    stops = bool(config.get("save")) and config.get("stop-writes-on-bgsave-error") == "yes"
    remedy = f"make room on its disk and memory, then `BGSAVE`; or `CONFIG SET save ''`, {CONF}"
    if stops:
        yield wrong("the last snapshot failed, and Redis refuses writes until one succeeds", remedy)
    else:
        yield warning("the last snapshot (BGSAVE) failed", remedy)


def check_eviction(server: Server) -> Iterator[Finding]:
    policy = str(server.info.get("maxmemory_policy", "noeviction"))
    remedy = f"`CONFIG SET maxmemory-policy noeviction` and `CONFIG REWRITE`, {CONF}"
    if policy == "noeviction":
        yield ok("noeviction")
    elif server.info.get("maxmemory"):
        yield wrong(f"maxmemory-policy is {policy}: a full Redis deletes questions and answers", remedy)
    else:
        yield warning(f"maxmemory-policy is {policy}: with a maxmemory Redis would delete answers", remedy)


def check_memory(server: Server) -> Iterator[Finding]:
    used, most = int(server.info["used_memory"]), int(server.info.get("maxmemory") or 0)
    whole = int(server.info.get("total_system_memory") or 0)
    limit = most or whole
    said = f"{_mib(used)} of {_mib(limit)} used" + ("" if most else " (no maxmemory: the machine's memory)")
    remedy = "raise maxmemory or the machine's memory, lower CHATSERVER_ANSWER_TTL_S, or remove jobs that have ended"
    if (most and used >= FULL_PERCENT / 100 * most) or (limit and used > FULL * limit):
        yield wrong(f"{said}: Redis refuses new requests", remedy)
    elif limit and used > NEARLY_FULL * limit:
        yield warning(said, remedy)
    else:
        yield ok(said if limit else f"{_mib(used)} used")


def _mib(size: int) -> str:
    return f"{size / 2**20:,.0f} MiB"


def check_connections(server: Server) -> Iterator[Finding]:
    now, most = int(server.info.get("connected_clients", 0)), int(server.info.get("maxclients", 0))
    if most and now > NEARLY_FULL * most:
        yield warning(f"{now} of at most {most} connections are open", "raise maxclients and the server's `ulimit -n`")
    else:
        yield ok(f"{now} of {most or 'any number of'} connections")


def check_replicas(server: Server, *, by_sentinel: bool) -> Iterator[Finding]:
    """Whether a failover would find a replica. A single server needs none."""
    replicas, least = (
        int(server.info.get("connected_slaves", 0)),
        (server.config or {}).get("min-replicas-to-write", "0"),
    )
    good = server.info.get("min_slaves_good_slaves")
    if good is not None and int(good) < int(least):
        yield wrong(
            f"{good} replica(s) follow and min-replicas-to-write is {least}: Redis refuses writes",
            "start the replicas, or lower min-replicas-to-write",
        )
    elif by_sentinel and not replicas:
        yield warning(
            "no replica follows the primary: Sentinel has no server to promote", "start one replica, or better two"
        )
    elif by_sentinel and least == "0":
        yield note(
            f"{replicas} replica(s); min-replicas-to-write is 0: an isolated primary accepts writes that will be lost",
            "docs/redis.md says what `min-replicas-to-write 1` buys and costs",
        )
    else:
        yield ok(f"{replicas} replica(s)")


def check_cluster(server: Server) -> Iterator[Finding]:
    """Checks a node of a cluster."""
    if not server.info.get("cluster_enabled"):
        return
    timeout_ms = int((server.config or {}).get("cluster-node-timeout", 0))
    if timeout_ms > SLOWEST_FAILOVER_MS:
        yield note(
            f"cluster-node-timeout is {timeout_ms / 1000:g} s: when a node dies, readers see no text for that long",
            "`CONFIG SET cluster-node-timeout 5000` on every node",
        )
    else:
        yield ok("a node of a cluster")
