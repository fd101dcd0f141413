"""Builds in which one rule of the protocol is switched off, and the scenario that must notice.

A check that cannot fail proves nothing. A build is a copy of the tree with a few lines changed; the scenario runs
there, on real processes, exactly as in the suite. `tests/faults/test_broken_builds.py` runs them all.
"""

import shutil
from dataclasses import dataclass
from pathlib import Path

from services.places import ROOT

COPIED = ("services", "workers", "webapp", "bench", "infra", "tests", "pyproject.toml")
IGNORED = shutil.ignore_patterns("__pycache__", "node_modules", "frontend")


@dataclass(frozen=True)
class Change:
    """In one file, some text for another."""

    path: str
    old: str
    new: str = ""


@dataclass(frozen=True)
class Broken:
    """`scenario` is a file of tests/faults/ and an expression that selects tests of it (pytest's -k)."""

    rule: str
    changes: tuple[Change, ...]
    scenario: tuple[str, str]


def _append(old: str, new: str = "") -> Change:
    return Change("services/chat/scripts/append.lua", old, new)


NEVER = 'float("inf")'
NO_HEAD = Change("services/chat/reader.py", "HEAD_INTERVAL_S = 2.0", f"HEAD_INTERVAL_S = {NEVER}")
NO_AUDIT = Change("services/chat/reader.py", "AUDIT_INTERVAL_S = 5.0", f"AUDIT_INTERVAL_S = {NEVER}")

BUILDS = {
    "no offset check": Broken(
        "an append states the offset that it continues",
        (
            _append("if offset + count <= n then return { 'OK', n } end\n"),
            _append("if offset ~= n then return { 'NEED', n } end\n"),
        ),
        ("test_redis.py", "sends_again"),
    ),
    "no nonce": Broken(
        "an append under another nonce than the last begin's is refused",
        (_append("if s[2] ~= ARGV[2] then return { 'LOST' } end\n"),),
        ("test_redis.py", "ghost"),
    ),
    "acknowledged before the end": Broken(
        "the terminal event is written before the entry is acknowledged",
        (
            Change(
                "workers/assignment.py",
                "        refused = self._journal.finish(self.rid, self.entry.epoch, event)\n",
                "        self._queue.ack(self.entry)\n"
                "        refused = self._journal.finish(self.rid, self.entry.epoch, event)\n",
            ),
        ),
        ("test_workers.py", "any_command"),
    ),
    "journal read before the marker": Broken(
        "one script writes the marker and returns the journal",
        (
            Change(
                "services/chat/journal.py",
                "        reply = _BEGIN(\n",
                "        before = self.read(request.rid)\n        reply = _BEGIN(\n",
            ),
            Change(
                "services/chat/journal.py",
                "reply[4], tuple(map(Event.decode, reply[5:])))",
                "reply[4], before[1] if before else ())",
            ),
        ),
        ("test_workers.py", "until_the_begin"),
    ),
    "no rewind": Broken(
        "a reader whose text is no prefix of the journal is rewound",
        (
            Change(
                "services/chat/reader.py",
                "            self.rewinds.append(kept)\n",
            ),
        ),
        ("test_redis.py", "is_replaced"),
    ),
    "no audit": Broken(
        "a reader without progress looks for its entry in the queue", (NO_AUDIT,), ("test_redis.py", "queued_again")
    ),
    "acknowledgement repeated by the library": Broken(
        "no library retries; after a lost connection the worker writes the end again",
        (
            Change(
                "services/connection/connect.py",
                '"retry": Retry(NoBackoff(), 0)',
                '"retry": Retry(NoBackoff(), 100000)',
            ),
        ),
        ("test_redis.py", "never_repeated"),
    ),
    "read before subscribed": Broken(
        "the journal is read after the subscription was confirmed",
        (
            NO_HEAD,
            NO_AUDIT,
            Change(
                "services/chat/feed.py",
                'elif kind == b"ssubscribe":\n            channel.answer.resubscribed()\n',
                'elif kind == b"ssubscribe":\n            pass\n',
            ),
        ),
        ("test_redis.py", "before_the_subscription and terminal"),
    ),
    "no poll": Broken("a silent reader compares the head", (NO_HEAD, NO_AUDIT), ("test_redis.py", "by_asking")),
    "ceiling is the delivery count": Broken(
        "deliveries fence and never condemn",
        (Change("services/chat/scripts/begin.lua", "if tries > max_tries", "if epoch > max_tries"),),
        ("test_workers.py", "again_and_again"),
    ),
    "begin does not look": Broken(
        "an answer that has ended is not begun again",
        (
            Change(
                "services/chat/scripts/begin.lua",
                "if over then return { 'ENDED', over, redis.call('HGET', STATE, 'code') or '' } end\n",
            ),
        ),
        ("test_workers.py", "any_command"),
    ),
    "cancel does not look": Broken(
        "an answer that has ended is not cancelled",
        (Change("services/chat/scripts/cancel.lua", "if over then return { 'ENDED', s[7], over } end\n"),),
        ("test_clients.py", "late_or_twice"),
    ),
    "nothing is poison": Broken(
        "a request is given up after its tries",
        (
            Change(
                "services/chat/scripts/begin.lua", "if tries > max_tries or begins > max_begins then", "if false then"
            ),
        ),
        ("test_workers.py", "kills_every_worker"),
    ),
    "no grace after an outage": Broken(
        "owners renew first after an outage of Redis",
        (
            Change("workers/leases.py", "self._grace_until = now + self._lease_s", "self._grace_until = now"),
            Change("workers/leases.py", "blind = pause_s >= self._lease_s / 3", "blind = False"),
        ),
        ("test_redis.py", "renew_first"),
    ),
    "no janitor": Broken(
        "entries that nobody holds stand in line again",
        (Change("workers/leases.py", "RESCUE_S = 10.0", f"RESCUE_S = {NEVER}"),),
        ("test_holes.py", "janitor"),
    ),
    "anybody may read": Broken(
        "a request belongs to its user",
        (
            Change("services/chat/feed.py", "head.user != user", "False"),
            Change("services/chat/feed.py", "found.answer.user == user", "True"),
            Change("services/chat/answer.py", "head.user != self.user", "False"),
        ),
        ("test_clients.py", "not_theirs"),
    ),
    "first come, first served": Broken(
        "users share by tokens",
        (
            Change(
                "services/chat/scripts/enqueue.lua",
                "paid and math.max(paid + 1, served_in(priority)) or served_in(priority)",
                "0",
            ),
        ),
        ("test_clients.py", "hundred"),
    ),
    "a retry waits like everybody": Broken(
        "what ran before goes first",
        (
            Change(
                "services/chat/queue.py",
                "SUSPECT_PLACE, RETRY_PLACE, BATCH_PLACE = -2.0, -1.0, 1e12",
                "SUSPECT_PLACE, RETRY_PLACE, BATCH_PLACE = 9e9, 9e9, 1e12",
            ),
        ),
        ("test_workers.py", "those_who_wait"),
    ),
    "any version is taken": Broken(
        "a worker takes only what it can read",
        (Change("services/wire/keys.py", "{{{model}}}:waiting:{VERSION}", "{{{model}}}:waiting:1"),),
        ("test_workers.py", "another_version"),
    ),
}


def build(broken: Broken, folder: Path) -> None:
    """Copy the tree and switch the rule off. Raises AssertionError when the text to change is not there any more."""
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            shutil.copytree(source, folder / name, ignore=IGNORED)
        else:
            shutil.copy(source, folder / name)
    for change in broken.changes:
        path = folder / change.path
        text = path.read_text()
        assert change.old in text, f"{change.old!r} is not in {change.path} any more"
        path.write_text(text.replace(change.old, change.new))
