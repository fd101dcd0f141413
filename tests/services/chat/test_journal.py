"""The journal's fence and its ends: each test tells one way in which text went wrong, or a request was forgotten."""

import pytest
import redis

from services.chat.journal import Journal, Ownership, Refusal
from services.connection.subscription import Subscription
from services.errors import Conflict, Forbidden, Gone
from services.wire.keys import Keys
from services.wire.messages import ChatRequest, Event, Message

REQUEST = ChatRequest("r1", "ann", "m", (Message("user", "hi"),))


@pytest.fixture
def journal(redis_client: redis.Redis, namespace: str) -> Journal:
    return Journal(redis_client, Keys(namespace))


def begin(
    journal: Journal, epoch: int, nonce: str, request: ChatRequest = REQUEST, **rules: int
) -> Ownership | Refusal:
    rules = {"max_tries": 3, "max_begins": 20, "deadline_ms": 60_000} | rules
    return journal.begin(request, request.encode(), epoch=epoch, nonce=nonce, wid="w", **rules)


def append(journal: Journal, client: redis.Redis, epoch: int, nonce: str, off: int, text: str) -> int | Refusal:
    event = Event("tokens", nonce, off, off, tuple(map(ord, text)), text)
    command = journal.append_command("r1", epoch, event)
    try:
        return journal.appended(client.execute_command(*command))
    except redis.exceptions.NoScriptError:
        journal.load_append()
        return journal.appended(client.execute_command(*command))


def text(journal: Journal) -> str:
    read = journal.read("r1")
    assert read is not None
    return "".join(event.text for event in read[1])


def test_an_id_belongs_to_the_user_and_model_that_used_it_first(journal: Journal) -> None:
    assert journal.create(REQUEST).status == "new"
    assert journal.create(REQUEST).status == "new"
    for other in (ChatRequest("r1", "bob", "m", ()), ChatRequest("r1", "ann", "m2", ())):
        with pytest.raises(Conflict, match="r1"):
            journal.create(other)


def test_equal_epochs_are_told_apart_by_their_nonce(journal: Journal, redis_client: redis.Redis) -> None:
    """A server that lost its tail handed out delivery count 2 twice; the zombie obeyed NEED and spliced its text in."""
    begin(journal, 2, "bbbb")
    append(journal, redis_client, 2, "bbbb", 0, "abc")
    redis_client.hset(Keys(_namespace(redis_client, journal)).state("r1"), mapping={"nonce": "cccc"})
    assert append(journal, redis_client, 2, "bbbb", 3, "b") == Refusal("LOST")
    assert begin(journal, 2, "dddd") == Refusal("STALE", number=2)
    assert text(journal) == "abc"


def _namespace(client: redis.Redis, journal: Journal) -> str:
    return journal._keys.namespace


def test_a_former_owner_is_refused_from_the_moment_of_begin(journal: Journal, redis_client: redis.Redis) -> None:
    begin(journal, 1, "aaaa")
    append(journal, redis_client, 1, "aaaa", 0, "abc")
    taken = begin(journal, 2, "bbbb")
    assert isinstance(taken, Ownership) and (taken.n, taken.toff) == (3, 3)
    assert append(journal, redis_client, 1, "aaaa", 3, "d") == Refusal("LOST")
    assert journal.finish("r1", 1, Event("finished", "aaaa", 3, 3)) == Refusal("LOST")
    assert journal.keep_alive("r1", "aaaa") == Refusal("LOST")
    assert journal.hand_back("r1", "aaaa") == Refusal("LOST")
    assert append(journal, redis_client, 2, "bbbb", 3, "D") == 4
    assert text(journal) == "abcD"


def test_begin_returns_the_journal_it_continues(journal: Journal, redis_client: redis.Redis) -> None:
    begin(journal, 1, "aaaa")
    append(journal, redis_client, 1, "aaaa", 0, "ab")
    taken = begin(journal, 2, "bbbb")
    assert isinstance(taken, Ownership)
    assert [(event.kind, event.off, event.text) for event in taken.events] == [
        ("begin", 0, ""),
        ("tokens", 0, "ab"),
        ("begin", 2, ""),
    ]


def test_a_repeated_begin_with_the_same_nonce_is_the_same_begin(journal: Journal) -> None:
    first, second = begin(journal, 1, "aaaa"), begin(journal, 1, "aaaa")
    assert first == second
    head = journal.head("r1")
    assert head is not None and (head.begins, head.tries) == (1, 1)


def test_an_append_is_idempotent_and_never_leaves_a_gap(journal: Journal, redis_client: redis.Redis) -> None:
    begin(journal, 1, "aaaa")
    assert append(journal, redis_client, 1, "aaaa", 0, "abc") == 3
    assert append(journal, redis_client, 1, "aaaa", 0, "abc") == 3
    assert append(journal, redis_client, 1, "aaaa", 5, "x") == Refusal("NEED", number=3)
    assert append(journal, redis_client, 1, "aaaa", 2, "cd") == Refusal("NEED", number=3)
    assert text(journal) == "abc"


def test_there_is_exactly_one_terminal(journal: Journal, redis_client: redis.Redis) -> None:
    begin(journal, 1, "aaaa")
    append(journal, redis_client, 1, "aaaa", 0, "abc")
    done = Event("finished", "aaaa", 3, 3, text="!", code="stop", usage={"prompt_tokens": 1})
    assert journal.finish("r1", 1, Event("finished", "aaaa", 2, 2)) == Refusal("NEED", number=3)
    assert journal.finish("r1", 1, done) is None
    assert journal.finish("r1", 1, done) == Refusal("ENDED", "finished")
    assert journal.cancel("r1", "ann") == ("finished", "m")
    assert append(journal, redis_client, 1, "aaaa", 3, "d") == Refusal("ENDED", "finished")
    assert begin(journal, 9, "bbbb") == Refusal("ENDED", "finished", "stop")
    read = journal.read("r1")
    assert read is not None
    head, events = read
    assert [event.kind for event in events if event.terminal] == ["finished"] and text(journal) == "abc!"
    assert head.payload == b"" and head.ended_ms >= head.first_ms >= head.begun_ms >= head.created_ms
    assert events[-1].usage["prompt_tokens"] == 1 and events[-1].usage["total_ms"] >= 0


def test_cancel_needs_no_worker_but_the_owner(journal: Journal) -> None:
    with pytest.raises(Gone, match="r1"):
        journal.cancel("r1", "ann")
    journal.create(REQUEST)
    with pytest.raises(Forbidden, match="r1"):
        journal.cancel("r1", "bob")
    assert journal.cancel("r1", "ann") == ("cancelled", "m")
    assert begin(journal, 1, "aaaa") == Refusal("ENDED", "cancelled", "cancelled")


def test_a_journal_that_ended_overrules_a_state_that_disagrees(journal: Journal, redis_client: redis.Redis) -> None:
    """Redis 7.0 applied half of a transaction that its file had lost the end of: two terminals."""
    begin(journal, 1, "aaaa")
    journal.finish("r1", 1, Event("finished", "aaaa", 0, 0))
    redis_client.hset(journal._keys.state("r1"), mapping={"status": "running"})
    assert begin(journal, 2, "bbbb") == Refusal("ENDED", "finished", "")
    assert journal.cancel("r1", "ann") == ("finished", "m")


def test_deaths_without_a_token_end_as_poison(journal: Journal) -> None:
    for epoch in (1, 2, 3):
        assert isinstance(begin(journal, epoch, f"n{epoch}"), Ownership)
    assert begin(journal, 4, "n4") == Refusal("ENDED", "failed", "poison")
    read = journal.read("r1")
    assert read is not None
    assert (read[1][-1].kind, read[1][-1].code) == ("failed", "poison") and "3 attempts" in read[1][-1].message


def test_progress_and_handing_back_are_no_tries(journal: Journal, redis_client: redis.Redis) -> None:
    """An innocent request was given up because three drains had raised its delivery count."""
    for epoch in range(1, 8):
        assert isinstance(begin(journal, epoch, f"n{epoch}"), Ownership)
        assert journal.hand_back("r1", f"n{epoch}") is None
    for epoch in range(8, 16):
        begun = begin(journal, epoch, f"n{epoch}")
        assert isinstance(begun, Ownership) and begun.tries <= 2
        append(journal, redis_client, epoch, f"n{epoch}", begun.n, "x")


def test_twenty_begins_are_enough_whatever_their_progress(journal: Journal, redis_client: redis.Redis) -> None:
    for epoch in range(1, 21):
        begun = begin(journal, epoch, f"n{epoch}")
        assert isinstance(begun, Ownership)
        append(journal, redis_client, epoch, f"n{epoch}", begun.n, "x")
    assert begin(journal, 21, "n21") == Refusal("ENDED", "failed", "poison")


def test_a_request_that_waited_too_long_expires(journal: Journal, redis_client: redis.Redis) -> None:
    journal.create(REQUEST)
    redis_client.hincrby(journal._keys.state("r1"), "created_ms", -10_000)
    assert begin(journal, 1, "aaaa", deadline_ms=9_000) == Refusal("ENDED", "failed", "expired")


def test_an_entry_of_another_user_or_model_is_foreign(journal: Journal) -> None:
    journal.create(REQUEST)
    assert begin(journal, 1, "aaaa", ChatRequest("r1", "bob", "m", ())) == Refusal("FOREIGN")
    assert begin(journal, 1, "aaaa", ChatRequest("r1", "ann", "m2", ())) == Refusal("FOREIGN")


def test_a_lost_state_is_made_again_by_begin(journal: Journal) -> None:
    begun = begin(journal, 3, "aaaa")
    assert isinstance(begun, Ownership) and begun.n == 0 and begun.payload == REQUEST.encode()
    head = journal.head("r1")
    assert head is not None and (head.user, head.model, head.epoch) == ("ann", "m", 3)


def test_writes_to_a_lost_state_say_gone(journal: Journal, redis_client: redis.Redis) -> None:
    assert append(journal, redis_client, 1, "aaaa", 0, "a") == Refusal("GONE")
    assert journal.finish("r1", 1, Event("finished", "aaaa")) == Refusal("GONE")
    assert journal.keep_alive("r1", "aaaa") == Refusal("GONE")
    assert journal.head("r1") is None and journal.read("r1") is None


def test_everything_of_a_request_expires_together(journal: Journal, redis_client: redis.Redis) -> None:
    begin(journal, 1, "aaaa")
    journal.finish("r1", 1, Event("finished", "aaaa"))
    keys = (journal._keys.state("r1"), journal._keys.journal("r1"))
    assert all(86_000 < redis_client.ttl(key) <= 86_400 for key in keys)


def test_what_was_refused_is_never_published(journal: Journal, redis_client: redis.Redis) -> None:
    live = Subscription.to(redis_client, journal._keys.events("r1"))
    confirmed = live.hear(1)
    assert confirmed is not None and confirmed[0] == b"ssubscribe"
    begin(journal, 1, "aaaa")
    begin(journal, 2, "bbbb")
    append(journal, redis_client, 1, "aaaa", 0, "zombie")
    append(journal, redis_client, 2, "bbbb", 0, "ok")
    append(journal, redis_client, 2, "bbbb", 0, "ok")
    journal.keep_alive("r1", "bbbb")
    heard = []
    while (message := live.hear(0.3)) is not None:
        heard.append(Event.decode(message[2]))
    live.close()
    assert [(event.kind, event.nonce, event.text) for event in heard] == [
        ("begin", "aaaa", ""),
        ("begin", "bbbb", ""),
        ("tokens", "bbbb", "ok"),
        ("beat", "bbbb", ""),
    ]
