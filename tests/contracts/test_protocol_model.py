"""The protocol under a random scheduler: with all rules nothing breaks, with any one rule off something does.

The second half is the test of the first: a check that cannot fail proves nothing. `make test-model` runs more seeds.
"""

import hashlib
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from greenlet import GreenletExit

import services.chat.journal as journal_module
import services.chat.queue as queue_module
import services.chat.quotas as quotas_module
import services.chat.reader as reader_module
from services.chat.reader import JournalReader, JournalView
from services.connection.embedded import EmbeddedServer
from tests.contracts.protocol_model import LOSSY, PROCESSES, Faults, World
from workers.assignment import Assignment

SEEDS = int(os.environ.get("MODEL_SEEDS", "30"))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, redis_binary: Path) -> Iterator[EmbeddedServer]:
    """A server of its own: lossy episodes kill it and cut its append-only file."""
    with EmbeddedServer(tmp_path_factory.mktemp("model"), binary=redis_binary, appendfsync="no") as made:
        yield made


def violations(server: EmbeddedServer, seed: int, faults: Faults) -> list[str]:
    world = World(server, seed, faults)
    try:
        return world.run()
    finally:
        world.close()


@pytest.mark.parametrize("seed", range(SEEDS))
def test_processes_may_die_stall_drain_and_lose_messages(server: EmbeddedServer, seed: int) -> None:
    assert violations(server, seed, PROCESSES) == []


@pytest.mark.parametrize("seed", range(1000, 1000 + SEEDS // 3))
def test_a_poison_request_is_given_up_and_its_neighbours_are_answered(server: EmbeddedServer, seed: int) -> None:
    assert violations(server, seed, replace(PROCESSES, poison=True)) == []


@pytest.mark.parametrize("seed", range(2000, 2000 + SEEDS // 2))
def test_redis_may_lose_the_tail_of_its_file(server: EmbeddedServer, seed: int) -> None:
    assert violations(server, seed, LOSSY) == []


# -- teeth: one rule off ---------------------------------------------------------------------------------------------

Break = Callable[[pytest.MonkeyPatch], None]


def without(monkeypatch: pytest.MonkeyPatch, script_name: str, old: str, new: str = "") -> None:
    """Change a Lua script for the length of a test."""
    modules = (journal_module, queue_module, quotas_module)
    script = next(getattr(module, script_name) for module in modules if hasattr(module, script_name))
    assert old in script.text, f"{old!r} is not in {script.name}.lua any more"
    text = script.text.replace(old, new)
    monkeypatch.setattr(script, "text", text)
    monkeypatch.setattr(script, "sha", hashlib.sha1(text.encode()).hexdigest())


def no_offset_check(monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "_APPEND", "if offset + count <= n then return { 'OK', n } end")
    without(monkeypatch, "_APPEND", "if offset ~= n then return { 'NEED', n } end")


def ceiling_is_the_delivery_count(monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "_BEGIN", "if tries > max_tries", "if epoch > max_tries")


def cancel_does_not_look(monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "_CANCEL", "if over then return { 'ENDED', s[7], over } end")


def begin_does_not_look(monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "_BEGIN", "if over then return { 'ENDED', over, redis.call('HGET', STATE, 'code') or '' } end")


def any_nonce_may_append(monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "_APPEND", "if s[2] ~= ARGV[2] then return { 'LOST' } end")


def a_settlement_leaves_its_reservation(monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "_SETTLE", "redis.call('HDEL', RESERVED, ARGV[i])")


def a_repeated_submit_reserves_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """As under a name of its own."""
    without(monkeypatch, "_RESERVE", "redis.call('HSET', RESERVED, rid,", "redis.call('HSET', RESERVED, rid .. now_ms,")
    without(monkeypatch, "_RESERVE", "if known then", "if false then")


def nothing_is_poison(monkeypatch: pytest.MonkeyPatch) -> None:
    without(monkeypatch, "_BEGIN", "if tries > max_tries or begins > max_begins then", "if false then")


def no_poll(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader_module, "HEAD_INTERVAL_S", float("inf"))
    monkeypatch.setattr(reader_module, "AUDIT_INTERVAL_S", float("inf"))


def no_audit(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader_module, "AUDIT_INTERVAL_S", float("inf"))


def ack_before_the_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    finish = Assignment.finish

    def hasty(self, toff, ending):  # type: ignore[no-untyped-def]
        self._queue.ack(self.entry)
        if self.journalled % 3 == 0:
            raise GreenletExit  # a kill at the worst moment
        return finish(self, toff, ending)

    monkeypatch.setattr(Assignment, "finish", hasty)
    no_audit(monkeypatch)  # it would hide the damage


def no_rewind(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was shown is kept, and the journal's text is taken from there on."""
    journal = JournalReader.journal

    def stubborn(self, events, now):  # type: ignore[no-untyped-def]
        events = list(events)
        view = JournalView.of(events)
        if self.num_reads > 1 and not view.text.startswith(self.shown) and len(view.text) >= len(self.shown):
            self.shown = view.text[: len(self.shown)]
        return journal(self, events, now)

    monkeypatch.setattr(JournalReader, "journal", stubborn)


def a_repeat_is_dropped_whatever_its_nonce(monkeypatch: pytest.MonkeyPatch) -> None:
    live = JournalReader.live

    def trusting(self, event, now):  # type: ignore[no-untyped-def]
        self._nonce = event.nonce if self._last_read else self._nonce
        return live(self, event, now)

    monkeypatch.setattr(JournalReader, "live", trusting)


def a_cursor_is_judged_by_what_is_known(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(JournalReader, "knows", lambda self, offset, nonce: not offset or self._last_read > 0)


@pytest.mark.slow
@pytest.mark.timeout(600)  # a rare violation needs a minute of CPU, and machines are shared
@pytest.mark.parametrize(
    ("rule", "faults"),
    [
        (no_offset_check, PROCESSES),
        (ceiling_is_the_delivery_count, replace(PROCESSES, drain=0.05)),
        (cancel_does_not_look, replace(PROCESSES, cancel=0.01)),
        (begin_does_not_look, PROCESSES),
        (any_nonce_may_append, replace(LOSSY, cut=0.006, kill=0.01, stall=0.02)),
        (a_settlement_leaves_its_reservation, PROCESSES),
        (a_repeated_submit_reserves_again, PROCESSES),
        (nothing_is_poison, replace(PROCESSES, poison=True)),
        (no_poll, replace(PROCESSES, drop_message=0.2)),
        (ack_before_the_terminal, PROCESSES),
        (no_audit, replace(LOSSY, cut=0.008)),
        (no_rewind, replace(LOSSY, cut=0.003, kill=0.01)),
        (a_repeat_is_dropped_whatever_its_nonce, replace(LOSSY, cut=0.003, kill=0.01, drop_message=0.2)),
        (a_cursor_is_judged_by_what_is_known, PROCESSES),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_without_this_rule_something_breaks(
    server: EmbeddedServer, monkeypatch: pytest.MonkeyPatch, rule: Break, faults: Faults
) -> None:
    rule(monkeypatch)
    assert any(violations(server, seed, faults) for seed in range(3000, 3200)), "the model did not notice"
