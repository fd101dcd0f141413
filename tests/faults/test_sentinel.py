"""A primary behind Sentinel is killed under load: the replica takes over, and nobody reads a wrong text."""

from collections.abc import Callable
from pathlib import Path

import pytest

from tests.faults.conftest import Outcome
from tests.faults.traffic import MODEL, Traffic, wait_for_ends
from tests.servers import sentinels

TEXT = "The quick brown fox jumps over the lazy dog. " * 11  # 3 s at 160 code points a second


@pytest.mark.parametrize("replica_is", ["in step", "behind"])
def test_requests_survive_the_death_of_the_primary(
    redis_binary: Path,
    tmp_path: Path,
    namespace: str,
    eventually: Callable[..., None],
    outcome: Outcome,
    replica_is: str,
) -> None:
    with sentinels(redis_binary, tmp_path) as (url, primary, replica):
        traffic = Traffic(url, namespace)
        try:
            eventually(lambda: traffic.redis.smembers(traffic.keys.models), "the workers' presence")
            before = traffic.ask(20, TEXT)  # four of them wait for a slot
            eventually(lambda: sum(len(reader.shown) > 40 for reader in before) >= 16, "answers in full flow")
            if replica_is == "behind":
                replica.client.execute_command("REPLICAOF", "127.0.0.1", 1)  # nobody: what follows is lost
                shown = [len(reader.shown) for reader in before]
                before += traffic.ask(2, "accepted, and then forgotten")
                eventually(lambda: traffic.client.queue(MODEL).length() == 22, "their acceptance")
                eventually(lambda: len(before[0].shown) > shown[0] + 40, "tokens that are lost")
            primary.end()
            during = traffic.ask(4, "asked while nobody answers")
            eventually(lambda: replica.client.info("replication")["role"] == "master", "the failover", 20)
            wait_for_ends(before + during, eventually)
            after = traffic.ask(4, "asked after the failover")
            wait_for_ends(after, eventually)
        finally:
            traffic.close()
    assert [problem for reader in traffic.readers for problem in reader.problems] == []
    assert {status for reader in traffic.readers for status in reader.ends} <= {"finished", "failed"}
    assert all(len(reader.ends) == 1 for reader in traffic.readers)
    assert [reader.ends for reader in after] == [["finished"]] * 4
    outcome(f"Sentinel failover, replica {replica_is}", requests=len(traffic.readers))
