"""What the queue refuses can be asked again: nothing that Redis remembers of the first try is in the way."""

import random
from collections.abc import Iterator

import pytest
from redis import Redis

from services.arena.battles import MAX_QUESTIONS, Battles
from services.arena.blind import answer_id
from services.arena.contestants import Contestant
from services.chat.requests import Requests
from services.conversations.prompt import PromptLimits
from services.database.database import Database
from services.errors import UnknownModel
from services.wire.keys import Keys, check_name
from tests.services.arena.database import finish
from webapp.arena.asking import MAX_ID_CHARS, Arena, Challenge

MODELS = ("one", "two")
CHALLENGE = Challenge("b1", "Why?", (Contestant("one"), Contestant("two")))


class Turns(random.Random):
    """Keeps the order of the sides at the first draw, turns it at the second, and so on."""

    def __init__(self) -> None:
        super().__init__()
        self._draws: Iterator[float] = iter((0.1, 0.9) * 10)

    def random(self) -> float:
        return next(self._draws)


class Served:
    """The models that the queue knows; nobody takes their requests."""

    def __init__(self, redis: Redis, key: str) -> None:
        self._redis, self._key = redis, key
        self.come(*MODELS)

    def come(self, *models: str) -> None:
        self._redis.sadd(self._key, *models)
        self._redis.expire(self._key, 600)

    def go(self, model: str) -> None:
        self._redis.srem(self._key, model)


@pytest.fixture
def requests(redis_client: Redis, namespace: str) -> Requests:
    return Requests(redis_client, Keys(namespace), answer_ttl_s=600)


@pytest.fixture
def served(redis_client: Redis, namespace: str) -> Served:
    return Served(redis_client, Keys(namespace).models)


@pytest.fixture
def arena(database: Database, requests: Requests) -> Arena:
    return Arena(Battles(database, PromptLimits(1_000, 100_000)), requests, lambda: MODELS, Turns())


def test_a_battle_of_which_one_side_was_refused_begins_under_the_same_id_with_the_sides_turned(
    arena: Arena, served: Served, requests: Requests
) -> None:
    """The left request's id belonged to the other model: a Conflict for ever."""
    served.go("two")
    with pytest.raises(UnknownModel):
        arena.begin("ada", "", CHALLENGE)
    served.come("two")
    battle = arena.begin("ada", "", CHALLENGE)
    assert battle.left.model == "two" and waiting(requests, battle.rounds[0].left.id, battle.rounds[0].right.id)


def test_a_later_question_that_one_side_refused_is_asked_again_under_its_number(
    arena: Arena, served: Served, requests: Requests, database: Database
) -> None:
    """The left answer stayed the cancelled one, so the battle could neither go on nor be voted on."""
    first = arena.begin("ada", "", CHALLENGE).rounds[0]
    for answer in (first.left, first.right):
        finish(database, answer.id, "because")
    served.go("two")
    with pytest.raises(UnknownModel):
        arena.ask("ada", "", "b1", 1, "And?")
    served.come("two")
    asked = arena.ask("ada", "", "b1", 1, "And?").rounds[1]
    assert (asked.left.state, asked.right.state) == ("open", "open")
    assert waiting(requests, asked.left.id, asked.right.id)


def test_the_longest_id_of_a_battle_makes_ids_that_the_queue_takes() -> None:
    check_name(answer_id("b" * MAX_ID_CHARS, MAX_QUESTIONS, "right"), "id")


def waiting(requests: Requests, *rids: str) -> bool:
    """Whether the queue has these requests, and none of them has ended."""
    heads = [requests.journal.head(rid) for rid in rids]
    return all(head is not None and not head.ended for head in heads)
