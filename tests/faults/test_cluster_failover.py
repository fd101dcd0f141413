"""A primary of a cluster is killed under load: its replica takes over, and nobody reads a wrong text."""

from collections.abc import Callable
from pathlib import Path

from services.wire.keys import Keys
from tests.faults.conftest import Outcome
from tests.faults.traffic import MODEL, Traffic, wait_for_ends
from tests.servers import ClusterOfServers

TEXT = "The quick brown fox jumps over the lazy dog. " * 11


def test_requests_survive_the_death_of_the_queues_primary(
    redis_binary: Path, tmp_path: Path, namespace: str, eventually: Callable[..., None], outcome: Outcome
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
    outcome("cluster: the queue's primary SIGKILL", requests=len(traffic.readers))


def test_answers_on_the_living_nodes_go_on_while_one_is_away(
    redis_binary: Path, tmp_path: Path, namespace: str, eventually: Callable[..., None], outcome: Outcome
) -> None:
    """One reply that was an error kept the worker from all replies behind it: nothing moved until the failover."""
    cluster = ClusterOfServers(redis_binary, tmp_path)
    try:
        for node in cluster.nodes:
            node.client.config_set("cluster-require-full-coverage", "no")
        traffic = Traffic(cluster.url, namespace)
        try:
            eventually(lambda: traffic.redis.smembers(traffic.keys.models), "the workers' presence")
            readers = traffic.ask(16, TEXT)
            eventually(lambda: all(len(reader.shown) > 40 for reader in readers), "answers in full flow")
            home = {reader: cluster.owner(traffic.keys.events(reader.request.rid)) for reader in readers}
            queue = cluster.owner(traffic.keys.requests(MODEL))
            away = next(node for node in cluster.primaries if node is not queue)
            away.end()
            shown = {reader: len(reader.shown) for reader in readers if home[reader] is not away}
            eventually(lambda: all(len(reader.shown) > shown[reader] + 100 for reader in shown), "their text")
            away.start()  # with nothing in it: whoever asked asks again
            wait_for_ends(readers, eventually)
        finally:
            traffic.close()
    finally:
        cluster.stop()
    assert [problem for reader in readers for problem in reader.problems] == []
    assert [reader.ends for reader in readers] == [["finished"]] * 16
    outcome("cluster: one node away", requests=16)
