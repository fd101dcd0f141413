"""A primary of a cluster is killed under load: its replica takes over, and nobody reads a wrong text."""

from collections.abc import Callable
from pathlib import Path

from services.protocol import Keys
from tests.faults.traffic import MODEL, Traffic, wait_for_ends
from tests.servers import ClusterOfServers

TEXT = "The quick brown fox jumps over the lazy dog. " * 11


def test_requests_survive_the_death_of_the_queues_primary(
    redis_binary: Path, tmp_path: Path, namespace: str, eventually: Callable[..., None]
) -> None:
    cluster = ClusterOfServers(redis_binary, tmp_path, replicas=1)
    try:
        traffic = Traffic(cluster.url, namespace)
        try:
            eventually(lambda: traffic.redis.smembers(traffic.keys.models), "the workers' presence")
            before = traffic.ask(20, TEXT)
            eventually(lambda: sum(len(reader.shown) > 40 for reader in before) >= 16, "answers in full flow")
            cluster.owner(Keys(namespace).requests(MODEL)).end()
            during = traffic.ask(4, "asked while a third does not answer")
            wait_for_ends(before + during, eventually)
            after = traffic.ask(4, "asked after the failover")
            wait_for_ends(after, eventually)
        finally:
            traffic.close()
    finally:
        cluster.stop()
    assert [problem for reader in traffic.readers for problem in reader.problems] == []
    assert {status for reader in traffic.readers for status in reader.ends} <= {"finished", "failed"}
    assert all(len(reader.ends) == 1 for reader in traffic.readers)
    assert [reader.ends for reader in after] == [["finished"]] * 4
