"""The conversation's model names it, where its owner asks."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from redis import Redis

from services.chat.feed import AnswerFeed
from services.chat.journal import Ownership
from services.chat.requests import Requests
from services.conversations import titling
from services.conversations.archivist import Archivist
from services.conversations.asking import Asker
from services.conversations.conversations import Conversations
from services.conversations.titling import Titler, title_of
from services.database.database import Database
from services.errors import Conflict, NotFound, Unavailable
from services.wire.messages import ChatRequest, Event
from tests.conftest import Eventually
from tests.services.conversations.test_archivist import answered


@pytest.fixture
def titler(conversations: Conversations, requests: Requests, redis_client: Redis) -> Iterator[Titler]:
    def spawn(target: Callable[..., None], *arguments: Any) -> None:
        threading.Thread(target=target, args=arguments, daemon=True).start()

    feed = AnswerFeed(requests, redis_client, spawn=spawn, waiting_for=lambda model: "queued")
    feed.start()
    yield Titler(conversations, requests, feed, max_chars=10_000)
    feed.stop()


@pytest.fixture
def talk(asker: Asker, requests: Requests, database: Database) -> None:
    """A conversation `c` of ada's with a question and its answer."""
    answered(asker, requests)
    Archivist(database, requests).round()


def write_title(requests: Requests, text: str, eventually: Eventually) -> ChatRequest:
    """What a worker does with the request for a title."""
    eventually(lambda: any(rid.startswith("title-") for rid in requests.queue("echo").waiting()))
    rid = next(rid for rid in requests.queue("echo").waiting() if rid.startswith("title-"))
    head = requests.journal.head(rid)
    assert head is not None
    request = ChatRequest.decode(head.payload)
    owned = requests.journal.begin(
        request, head.payload, epoch=1, nonce="n", wid="w", max_tries=3, max_begins=20, deadline_ms=600_000
    )
    assert isinstance(owned, Ownership), owned
    requests.journal.load_append()
    requests.journal._redis.execute_command(
        *requests.journal.append_command(rid, 1, Event("tokens", "n", 0, 0, (1,), text))
    )
    requests.journal.finish(rid, 1, Event("finished", "n", 1, len(text), code="stop"))
    return request


def test_the_model_reads_the_beginning_and_its_title_is_kept_as_its_own(
    talk: None, titler: Titler, requests: Requests, conversations: Conversations, eventually: Eventually
) -> None:
    with ThreadPoolExecutor(1) as pool:
        named = pool.submit(titler.title, "ada", "c")
        request = write_title(requests, ' "Questions about the sea"', eventually)
    assert named.result()["title"] == "Questions about the sea"
    assert conversations.find("ada", "c").conversation.titled_by == "model"
    assert (request.priority, request.continue_final, request.user) == ("batch", True, "ada")
    assert "sea?" in request.messages[0].content and "The sea" in request.messages[0].content


def test_a_title_that_the_user_gave_meanwhile_stays(
    talk: None, titler: Titler, requests: Requests, conversations: Conversations, eventually: Eventually
) -> None:
    with ThreadPoolExecutor(1) as pool:
        named = pool.submit(titler.title, "ada", "c")
        eventually(lambda: any(rid.startswith("title-") for rid in requests.queue("echo").waiting()))
        conversations.edit("ada", "c", {"title": "mine"})
        write_title(requests, " The model's", eventually)
    assert named.result()["title"] == "mine"
    assert conversations.find("ada", "c").conversation.titled_by == "user"


def test_a_model_that_writes_nothing_changes_nothing(
    talk: None, titler: Titler, requests: Requests, conversations: Conversations, eventually: Eventually
) -> None:
    with ThreadPoolExecutor(1) as pool:
        named = pool.submit(titler.title, "ada", "c")
        write_title(requests, ' ""', eventually)
    with pytest.raises(Conflict, match="echo wrote no title; name the conversation yourself"):
        named.result()
    assert conversations.find("ada", "c").conversation.titled_by == "first_words"


def test_a_title_that_does_not_come_is_cancelled(
    talk: None, titler: Titler, requests: Requests, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(titling, "LONGEST_S", 0.2)
    with pytest.raises(Unavailable, match="echo wrote no title within 0 s; try again"):
        titler.title("ada", "c")
    assert not any(rid.startswith("title-") for rid in requests.queue("echo").waiting())


def test_others_and_those_without_an_answer_are_refused(
    talk: None, titler: Titler, conversations: Conversations
) -> None:
    conversations.create("ada", "empty", {})
    with pytest.raises(NotFound):
        titler.title("eve", "c")
    with pytest.raises(Conflict, match="no answer yet"):
        titler.title("ada", "empty")


@pytest.mark.parametrize(
    ("written", "title"),
    [
        ("  **The sea**\nIt is", "The sea"),
        ("“Das Meer”.", "Das Meer"),
        ("# A  b", "A b"),
        ("x" * 300, "x" * 200),
        ("\n\n", ""),
    ],
)
def test_a_title_is_the_first_line_without_its_marks(written: str, title: str) -> None:
    assert title_of(written) == title
