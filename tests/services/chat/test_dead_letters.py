"""Requests given up: listed with their reason, driven again once, dropped."""

import pytest
import redis

from services.chat.dead_letters import DeadLetters
from services.chat.queue import Limits
from services.chat.requests import Requests
from services.errors import InvalidRequest, ProtocolError
from services.serving.overview import overview
from services.wire.keys import Keys
from services.wire.messages import ChatRequest, Message


class Installation:
    """One model with a poison request that has been given up."""

    def __init__(self, client: redis.Redis, namespace: str) -> None:
        self.redis, self.keys = client, Keys(namespace)
        client.sadd(self.keys.models, "m")
        self.requests = Requests(client, self.keys, limits=Limits(requests=1))
        self.queue = self.requests.queue("m")
        self.letters = DeadLetters(client, self.requests)

    def give_up(self, rid: str, reason: str = "poison") -> None:
        self.requests.submit(ChatRequest(rid, "ann", "m", (Message("user", "hi"),), priority="batch"))
        entry = self.queue.take("w", suspects=True)
        assert entry is not None
        self.requests.journal.give_up(rid, "ann", reason, "")
        self.queue.ack(entry, reason)


@pytest.fixture
def installation(redis_client: redis.Redis, namespace: str) -> Installation:
    return Installation(redis_client, namespace)


def test_dead_letters_are_listed_with_their_reason_newest_first(installation: Installation) -> None:
    installation.give_up("r1")
    installation.give_up("r2", "expired")
    listed = installation.letters.newest(10)
    assert [(letter.rid, letter.reason, letter.user, letter.model) for letter in listed] == [
        ("r2", "expired", "ann", "m"),
        ("r1", "poison", "ann", "m"),
    ]
    assert [letter.rid for letter in installation.letters.newest(1)] == ["r2"]
    shown = overview(installation.redis, installation.keys)
    assert [row["reason"] for row in shown["dead"]] == ["expired", "poison"] and shown["models"][0]["dead"] == 2


def test_a_dead_letter_runs_again_under_an_id_of_its_own(installation: Installation) -> None:
    """Its own id has had its one end, which no reader may see taken back."""
    installation.give_up("r1")
    installation.requests.submit(ChatRequest("full", "bob", "m", (Message("user", "hi"),)))
    (letter,) = installation.letters.matching("r1")
    rid = installation.letters.retry(letter)
    assert rid != "r1" and set(installation.queue.in_flight()) == {"full", rid}, "past the ceiling: accepted once"
    assert installation.letters.newest(10) == []
    head = installation.requests.journal.head(rid)
    assert head is not None and (head.user, head.status) == ("ann", "new")
    assert installation.redis.hget(installation.keys.state(rid), "redrive_of") == b"r1"
    assert installation.requests.journal.head("r1").code == "poison"  # type: ignore[union-attr]


def test_driving_the_same_letter_twice_runs_it_once(installation: Installation) -> None:
    """The command died between queueing it and dropping the letter, and was given again."""
    installation.give_up("r1")
    (letter,) = installation.letters.matching("all")
    assert installation.letters.retry(letter) == installation.letters.retry(letter)
    assert installation.queue.length() == 1


def test_what_cannot_be_read_stays_until_it_is_dropped(installation: Installation) -> None:
    installation.redis.xadd(installation.keys.dead("m"), {"rid": "r9", "reason": "protocol", "payload": "?"})
    (letter,) = installation.letters.matching("r9")
    with pytest.raises(ProtocolError):
        installation.letters.retry(letter)
    installation.letters.drop(letter)
    with pytest.raises(InvalidRequest, match="chatserver dead"):
        installation.letters.matching("r9")
