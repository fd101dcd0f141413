"""Checks the access to Redis at `REDIS_URL`: does it answer, accept the login, take writes? Could others read along?"""

import ipaddress
import socket
import time
from collections.abc import Callable, Iterable, Iterator

import redis
from redis.connection import SSLConnection
from redis.sentinel import SentinelConnectionPool

from services.connection.cluster import Cluster, primaries_of
from services.connection.connect import URL_VARIABLE, address_of, credentials_in, server_time, translated
from services.doctor.findings import Finding, note, ok, warning, wrong
from services.errors import ConfigurationError, Unavailable

PINGS = 5  # the quickest counts: the others say how busy this machine is
SLOW_S = 0.05  # as long as a worker keeps tokens before it writes them
CLOCK_WARNING_S = 1.0
CLOCK_WRONG_S = 30.0
SENTINELS = 3


def check_reach(client: redis.Redis, *, chosen: bool, can_start: bool) -> Iterator[Finding]:
    """Whether Redis answers. `chosen`: REDIS_URL is set; `can_start`: `chatserver up` could start a server."""
    where = address_of(client)
    try:
        with translated():
            quickest_s = min(_ping_s(client) for _ in range(PINGS))
            infos = [server.info() for server in primaries_of(client)]
    except ConfigurationError as error:
        yield wrong(f"{where}: {error.message}", error.remedy)
    except Unavailable as error:
        if chosen or not can_start:
            yield wrong(f"{where}: {error.message}", "start the server, open the network to it, or correct REDIS_URL")
        else:
            yield warning(f"{where}: {error.message}", "`chatserver up` starts a server; else set REDIS_URL to yours")
    except redis.RedisError as error:
        yield wrong(
            f"{where} does not answer as Redis must: {error}",
            "check whether another program answers there, or an ACL forbids INFO",
        )
    else:
        yield from _answer(where, quickest_s)
        yield from (finding for info in infos for finding in _kind(where, info, isinstance(client, Cluster)))


def _ping_s(client: redis.Redis) -> float:
    began_s = time.perf_counter()
    client.ping()
    return time.perf_counter() - began_s


def _answer(where: str, quickest_s: float) -> Iterator[Finding]:
    yield ok(f"{where} answers in {quickest_s * 1000:.1f} ms")
    if quickest_s > SLOW_S:
        yield warning(
            f"{where} answers only after {quickest_s * 1000:.0f} ms: every token waits for that",
            "run Redis, workers and web app near each other",
        )


def _kind(where: str, info: dict[str, object], by_cluster: bool) -> Iterator[Finding]:
    """Whether the server has the wrong role: a replica, a sentinel, one node of a cluster."""
    mode = info.get("redis_mode") or info.get("server_mode")
    if mode == "sentinel":
        yield wrong(f"{where} is a sentinel, which keeps no data", "REDIS_URL=redis+sentinel://host:26379/service")
    elif mode == "cluster" and not by_cluster:
        yield wrong(f"{where} is one node of a cluster", "REDIS_URL=redis+cluster://host1:6379,host2:6379")
    elif info.get("role") != "master":
        primary = f"{info.get('master_host')}:{info.get('master_port')}"
        yield wrong(f"{where} is a replica of {primary}, which refuses writes", "set REDIS_URL to its primary")


def check_clocks(client: redis.Redis, now: Callable[[], float] = time.time) -> Iterator[Finding]:
    """Compare the clock of Redis (ages, leases) with this machine's (logs, cookies, certificates, clouds)."""
    skew_s = max((_skew_s(server, now) for server in primaries_of(client)), key=abs)
    said = f"this machine's clock is {abs(skew_s):.1f} s {'ahead of' if skew_s > 0 else 'behind'} that of Redis"
    remedy = "run an NTP client on both machines (`timedatectl set-ntp true`)"
    if abs(skew_s) > CLOCK_WRONG_S:
        yield wrong(f"{said}: certificates and cloud accounts may fail, and logs are out of order", remedy)
    elif abs(skew_s) > CLOCK_WARNING_S:
        yield warning(f"{said}: the times in the machines' logs do not match", remedy)
    else:
        yield ok("this machine and Redis agree")


def _skew_s(server: redis.Redis, now: Callable[[], float]) -> float:
    """This machine's clock minus that of Redis, less what the round trip may explain."""
    began_s = now()
    theirs_s = server_time(server)
    ended_s = now()
    if began_s <= theirs_s <= ended_s:
        return 0.0
    return began_s - theirs_s if theirs_s < began_s else ended_s - theirs_s


def check_exposure(client: redis.Redis) -> Iterator[Finding]:
    """Who else may read or write: anybody, without a password; the network between, without TLS."""
    pool = client.connection_pool
    password, tls = bool(pool.connection_kwargs.get("password")), issubclass(pool.connection_class, SSLConnection)
    far = [host for host in _hosts(client) if not _all(host, lambda address: address.is_loopback)]
    public = [host for host in far if not _all(host, lambda address: not address.is_global)]
    if far and not password:
        yield warning(
            f"{far[0]} lets everybody in: REDIS_URL has no password",
            f"set requirepass or an ACL user there, and {credentials_in(URL_VARIABLE)}",
        )
    if public and not tls:
        what = "the password and every message" if password else "every message"
        yield warning(f"{what} travel unencrypted to {public[0]}", "use rediss:// there, or a VPN")
    if not far:
        yield ok("Redis is on this machine")
    elif password and (tls or not public):
        yield ok("a password, and " + ("TLS" if tls else "a private network"))


def _hosts(client: redis.Redis) -> list[str]:
    """The hosts in the URL; empty for a unix socket. Behind Sentinel: the sentinels."""
    if isinstance(client, Cluster):
        return [host for host, _ in client.seeds]
    pool = client.connection_pool
    pools = [each.connection_pool for each in pool.sentinel_manager.sentinels] if by_sentinel(client) else [pool]
    options = [each.connection_kwargs for each in pools]
    return [str(each.get("host", "localhost")) for each in options if "path" not in each]


def by_sentinel(client: redis.Redis) -> bool:
    return isinstance(client.connection_pool, SentinelConnectionPool)


Judge = Callable[[ipaddress.IPv4Address | ipaddress.IPv6Address], bool]


def _all(host: str, judge: Judge) -> bool:
    """Whether this holds for every address of a host. An unknown address counts as far away."""
    try:
        found: Iterable[str] = {str(row[4][0]) for row in socket.getaddrinfo(host, None)}
    except OSError:
        return False
    return all(judge(ipaddress.ip_address(address.partition("%")[0])) for address in found)


def check_sentinels(client: redis.Redis) -> Iterator[Finding]:
    """How many sentinels watch: with fewer than three, the death of one prevents a failover."""
    if not by_sentinel(client):
        return
    watchers = client.connection_pool.sentinel_manager.sentinels
    answering = [each for each in watchers if _answers(each)]
    if len(answering) < len(watchers):
        yield warning(f"{len(answering)} of {len(watchers)} sentinels answer", "start the missing sentinels")
    elif len(watchers) < SENTINELS:
        yield note(
            f"REDIS_URL names {len(watchers)} sentinel(s)",
            "name all sentinels in REDIS_URL, at least three, so that one may be away",
        )
    else:
        yield ok(f"all {len(watchers)} sentinels answer")


def _answers(sentinel: redis.Redis) -> bool:
    try:
        return bool(sentinel.ping())
    except redis.RedisError:
        return False
