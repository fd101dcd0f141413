"""Conversations of an owner: listed, edited, deleted and taken back, shared."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest

from services.conversations import conversations as room
from services.conversations.asking import append
from services.conversations.conversations import Conversations, owned
from services.conversations.edits import parse_edits
from services.conversations.tables import ConversationRow
from services.database.database import Database
from services.errors import Conflict, InvalidRequest, NotFound


def date(database: Database, **times: int) -> None:
    """Set when conversations were changed last."""
    with database.write() as session:
        for cid, updated_ms in times.items():
            session.get_one(ConversationRow, cid).updated_ms = updated_ms


def titles(conversations: Conversations, **options: Any) -> list[str]:
    return [each["id"] for each in conversations.page("ada", **options).conversations]


def test_a_conversation_is_made_once(conversations: Conversations) -> None:
    assert conversations.create("ada", "c", {"title": "Sea"})[1]
    tree, is_new = conversations.create("ada", "c", {"title": "Sea"})
    assert not is_new and tree.as_dict()["title"] == "Sea"
    with pytest.raises(Conflict):
        conversations.create("eve", "c", {})


def test_the_list_has_the_pinned_first_then_the_newest_page_by_page(
    conversations: Conversations, database: Database
) -> None:
    for cid in "abcde":
        conversations.create("ada", cid, {"title": cid})
    conversations.create("eve", "z", {})
    date(database, a=5, b=3, c=3, d=2, e=1)
    conversations.edit("ada", "e", {"pinned": True})
    first = conversations.page("ada", limit=2)
    assert [each["id"] for each in first.conversations] == ["e", "a", "c"] and first.next
    second = conversations.page("ada", limit=2, before=first.next)
    assert [each["id"] for each in second.conversations] == ["b", "d"] and second.next is None
    with pytest.raises(InvalidRequest, match="before="):
        conversations.page("ada", before="yesterday")


def test_folders_are_those_that_hold_something(conversations: Conversations) -> None:
    conversations.create("ada", "a", parse_edits({"folder": " work "}))
    conversations.create("ada", "b", {})
    conversations.create("eve", "c", {"folder": "hers"})
    assert conversations.page("ada").folders == ["work"]
    assert titles(conversations, folder="work") == ["a"] and titles(conversations, folder="") == ["b"]


def test_a_title_that_a_user_gave_is_known_as_such(conversations: Conversations, database: Database) -> None:
    conversations.create("ada", "a", {})
    assert conversations.edit("ada", "a", parse_edits({"title": "  The   sea "}))["title"] == "The sea"
    with database.read() as session:
        assert session.get_one(ConversationRow, "a").titled_by == "user"


def test_only_a_message_of_the_conversation_is_its_current_one(
    conversations: Conversations, database: Database
) -> None:
    for cid in ("a", "b"):
        conversations.create("ada", cid, {})
    with database.write() as session:
        append(session, owned(session, "ada", "b"), id="m", role="user", content="hi")
    conversations.edit("ada", "b", {"current_id": "m"})
    with pytest.raises(InvalidRequest, match="no message of this conversation"):
        conversations.edit("ada", "a", {"current_id": "m"})


@pytest.mark.parametrize("name", ["edit", "delete", "restore", "share", "unshare", "find"])
def test_another_owner_finds_nothing(conversations: Conversations, name: str) -> None:
    conversations.create("ada", "a", {})
    rest = ({},) if name == "edit" else ()
    with pytest.raises(NotFound):
        getattr(conversations, name)("eve", "a", *rest)


def test_a_deleted_conversation_is_gone_until_it_is_restored(conversations: Conversations) -> None:
    conversations.create("ada", "a", {})
    until, running = conversations.delete("ada", "a")
    assert until > 0 and running == [] and titles(conversations) == []
    with pytest.raises(NotFound):
        conversations.find("ada", "a")
    assert conversations.purge() == 0
    conversations.restore("ada", "a")
    assert titles(conversations) == ["a"]


def test_what_was_deleted_long_ago_is_purged_with_its_messages(
    conversations: Conversations, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    conversations.create("ada", "a", {})
    with database.write() as session:
        conversation = owned(session, "ada", "a")
        append(session, conversation, id="m", role="user", content="hi")
        append(session, conversation, id="n", parent_id="m", role="assistant", content="ho")
    conversations.delete("ada", "a")
    monkeypatch.setattr(room, "UNDO_MS", -1)
    assert conversations.purge() == 1
    with pytest.raises(NotFound):
        conversations.restore("ada", "a")


def test_a_shared_link_shows_the_branch_and_neither_owner_nor_system(
    conversations: Conversations, database: Database
) -> None:
    conversations.create("ada", "a", {"system": "secret", "title": "Sea"})
    with database.write() as session:
        conversation = owned(session, "ada", "a")
        append(session, conversation, id="q", role="user", content="sea?")
        append(session, conversation, id="one", parent_id="q", role="assistant", content="1")
        append(session, conversation, id="two", parent_id="q", role="assistant", content="2")
        conversation.current_id = "two"
    secret = conversations.share("ada", "a")
    assert conversations.share("ada", "a") == secret and len(secret) >= 32
    shown = conversations.shared(secret)
    assert [message["id"] for message in shown["messages"]] == ["q", "two"]
    assert "secret" not in str({**shown, "shared_as": ""}) and "ada" not in str(shown)
    conversations.unshare("ada", "a")
    for gone in (secret, ""):
        with pytest.raises(NotFound):
            conversations.shared(gone)


@pytest.mark.parametrize(
    "edits",
    [
        {"owner": "eve"},
        {"title": " "},
        {"title": "x" * 201},
        {"pinned": 1},
        {"settings": {"sampling": {"warmth": 1}}},
        {"settings": []},
        {"system": None},
        {"current_id": 3},
        [],
    ],
)
def test_wrong_edits_are_refused(edits: object) -> None:
    with pytest.raises(InvalidRequest):
        parse_edits(edits)


def test_the_same_conversation_made_many_times_at_once_is_one(conversations: Conversations) -> None:
    with ThreadPoolExecutor(8) as pool:
        made = list(pool.map(lambda _: conversations.create("ada", "c", {})[1], range(16)))
    assert sorted(made) == [False] * 15 + [True]
