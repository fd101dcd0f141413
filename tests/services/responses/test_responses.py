"""Kept responses over the real server: whose they are, how they continue, and what deleting takes away."""

import pytest
import redis

from services.chat.dead_letters import DeadLetters
from services.chat.journal import Journal, Ownership, Refusal
from services.chat.queue import Limits
from services.chat.requests import Requests
from services.errors import InvalidRequest, UnknownResponse
from services.responses.record import ResponseRecord
from services.responses.responses import KeptResponse, Responses
from services.wire.keys import Keys
from services.wire.messages import ChatRequest, Event, Message, Part

MAX_CHARS = 1_000
RULES = {"max_tries": 3, "max_begins": 20, "deadline_ms": 60_000}


class House:
    """One installation whose only worker is the test."""

    def __init__(self, client: redis.Redis, keys: Keys) -> None:
        self.redis = client
        self.keys = keys
        client.sadd(keys.models, "m")
        self.requests = Requests(client, keys, answer_ttl_s=5_000)
        self.responses = Responses(self.requests, DeadLetters(client, self.requests))

    @property
    def journal(self) -> Journal:
        return self.requests.journal

    def submit(self, rid: str, *asked: str, user: str = "ann", previous: str = "", stored: bool = True) -> ChatRequest:
        messages = tuple(Message("user", each) for each in asked)
        request = ChatRequest(rid, user, "m", messages)
        record = ResponseRecord(1_700_000_000, "m", messages, 1.0, 1.0, previous=previous)
        self.requests.submit(request, note=record.encode() if stored else b"")
        return request

    def begin(self, request: ChatRequest, nonce: str = "n") -> Ownership | Refusal:
        return self.journal.begin(request, request.encode(), epoch=1, nonce=nonce, wid="w", **RULES)

    def write(self, request: ChatRequest, text: str, *parts: Part) -> int | Refusal:
        """The worker's first text."""
        event = Event("tokens", "n", 0, 0, tuple(map(ord, text)), text, parts=parts)
        self.journal.load_append()
        return self.journal.appended(self.redis.execute_command(*self.journal.append_command(request.rid, 1, event)))

    def answer(self, rid: str, asked: str, text: str, *parts: Part, previous: str = "") -> None:
        """A response from its order to its end."""
        request = self.submit(rid, asked, previous=previous)
        self.begin(request)
        self.write(request, text, *parts)
        end = Event("finished", "n", len(text), len(text), code="stop", usage={"prompt_tokens": 1})
        assert self.journal.finish(rid, 1, end) is None

    def find(self, rid: str) -> KeptResponse:
        return self.responses.find(rid, "ann")


@pytest.fixture
def house(redis_client: redis.Redis, namespace: str) -> House:
    return House(redis_client, Keys(namespace))


def test_a_response_is_seen_as_it_is_at_each_stage(house: House) -> None:
    request = house.submit("r1", "hi")
    waiting = house.find("r1")
    assert (waiting.running, waiting.text, waiting.end) == (False, "", None)
    house.begin(request)
    house.write(request, "hmfo", (0, "reasoning"), (2, "answer"))
    running = house.find("r1")
    assert (running.running, running.end, running.answer) == (True, None, Message("assistant", "fo", "hm"))
    end = Event("finished", "n", 4, 4, text="ur", code="stop", usage={"prompt_tokens": 1})
    house.journal.finish("r1", 1, end)
    kept = house.find("r1")
    assert kept.answer == Message("assistant", "four", "hm") and kept.end is not None
    assert (kept.end.status, kept.end.code, kept.end.offset) == ("finished", "stop", 6)


def test_a_repeated_submit_keeps_the_first_note(house: House) -> None:
    house.submit("r1", "hi")
    house.submit("r1", "ho")
    assert house.find("r1").record.messages == (Message("user", "hi"),)


@pytest.mark.parametrize("rid", ["", "r2", "{r1}", "r1 ", "r" * 200])
def test_what_does_not_exist_is_unknown(house: House, rid: str) -> None:
    house.submit("r1", "hi")
    with pytest.raises(UnknownResponse):
        house.find(rid)


def test_another_users_response_and_one_that_is_not_stored_are_unknown(house: House) -> None:
    house.submit("r1", "hi")
    house.submit("r2", "hi", stored=False)
    for rid, user in (("r1", "bob"), ("r2", "ann")):
        for act in (house.responses.find, house.responses.cancel, house.responses.delete):
            with pytest.raises(UnknownResponse):
                act(rid, user)
    assert house.find("r1").end is None


def test_a_conversation_has_all_turns_in_their_order(house: House) -> None:
    house.answer("r1", "one", "hmuno", (0, "reasoning"), (2, "answer"))
    house.answer("r2", "two", "due", previous="r1")
    house.answer("r3", "three", "tre", previous="r2")
    assert house.responses.conversation("r3", "ann", MAX_CHARS) == [
        Message("user", "one"), Message("assistant", "uno", "hm"),
        Message("user", "two"), Message("assistant", "due"),
        Message("user", "three"), Message("assistant", "tre"),
    ]  # fmt: skip


def test_whoever_continues_a_conversation_keeps_it_alive(house: House) -> None:
    house.answer("r1", "one", "uno")
    house.answer("r2", "two", "due", previous="r1")
    for rid in ("r1", "r2"):
        house.redis.expire(house.keys.state(rid), 30)
        house.redis.expire(house.keys.journal(rid), 30)
    house.responses.conversation("r2", "ann", MAX_CHARS)
    for rid in ("r1", "r2"):
        assert house.redis.ttl(house.keys.state(rid)) > 4_000 and house.redis.ttl(house.keys.journal(rid)) > 4_000


def test_a_cancelled_response_is_continued_with_the_text_that_it_has(house: House) -> None:
    request = house.submit("r1", "one")
    house.begin(request)
    house.write(request, "un")
    house.responses.cancel("r1", "ann")
    assert house.responses.conversation("r1", "ann", MAX_CHARS)[1:] == [Message("assistant", "un")]
    house.submit("r2", "two")
    house.responses.cancel("r2", "ann")
    assert house.responses.conversation("r2", "ann", MAX_CHARS) == [Message("user", "two")]


def test_what_cannot_be_continued_is_told_with_the_reason(house: House) -> None:
    house.answer("r1", "x" * 600, "y" * 600)
    house.submit("r2", "two")
    house.begin(house.submit("r3", "three"))
    house.journal.finish("r3", 1, Event("failed", "n", code="engine_error"))
    house.answer("r4", "four", "y", previous="r0")
    reasons = {
        "r1": "more than 1000 characters",
        "r2": "has not ended",
        "r3": "failed",
        "r4": "no response has the id 'r0'",
    }
    for rid, why in reasons.items():
        with pytest.raises(InvalidRequest, match=why) as caught:
            house.responses.conversation(rid, "ann", MAX_CHARS)
        assert caught.value.field == "previous_response_id"


def test_deleting_takes_text_and_note_away_but_not_the_end(house: House) -> None:
    """A worker that has not heard of the end must not find an unknown request: it would begin it again."""
    request = house.submit("r1", "hi")
    house.begin(request)
    house.write(request, "secret", (0, "reasoning"))
    house.responses.delete("r1", "ann")
    with pytest.raises(UnknownResponse):
        house.find("r1")
    assert house.write(request, "secret and more") == Refusal("ENDED", "cancelled")
    assert house.begin(request, "n2") == Refusal("ENDED", "cancelled", "cancelled")
    assert b"secret" not in repr(house.journal.read("r1")).encode()
    read = house.journal.read("r1")
    assert read is not None and [event.kind for event in read[1]] == ["cancelled"]


def test_deleting_an_ended_response_twice_is_unknown_the_second_time(house: House) -> None:
    house.answer("r1", "hi", "ho")
    house.responses.delete("r1", "ann")
    with pytest.raises(UnknownResponse):
        house.responses.delete("r1", "ann")
    assert 0 < house.redis.ttl(house.keys.state("r1")) <= 600 and 0 < house.redis.ttl(house.keys.journal("r1")) <= 600


def test_what_has_not_ended_is_not_forgotten(house: House) -> None:
    request = house.submit("r1", "hi")
    assert house.journal.forget("r1", "ann") is False
    house.begin(request)
    assert house.journal.forget("r1", "ann") is False
    assert house.find("r1").record.messages == request.messages


def test_deleting_takes_a_dead_letter_away_too(house: House) -> None:
    """It held the input, and `chatserver dead retry` would have asked again."""
    requests = Requests(house.redis, house.keys, limits=Limits(wait_s=0))
    house.submit("r1", "secret")
    head = house.journal.head("r1")
    assert head is not None
    while not DeadLetters(house.redis, requests).newest(1):  # the clock of Redis must have moved on
        requests.expire("r1", head)
    house.responses.delete("r1", "ann")
    assert DeadLetters(house.redis, requests).newest(1) == []
