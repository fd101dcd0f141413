"""Conversations as files and back: ours without a loss, ChatGPT's, a browser's; and what others read."""

import io
import sys
import time
import zipfile
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import delete

from services.conversations import imports
from services.conversations.chatgpt import parse_chatgpt
from services.conversations.conversations import Conversations
from services.conversations.drafts import parse_ours
from services.conversations.exports import exported, markdown, openai_messages
from services.conversations.imports import Importer
from services.conversations.portions import Pace
from services.conversations.reading import MAX_UNPACKED_BYTES, Skipped, read, read_apart
from services.conversations.tables import ROLES, STATES, ConversationRow
from services.database.database import Database
from services.errors import InvalidRequest, NotFound, StorageFull, TooLarge

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30)
NAME = st.from_regex("[a-z0-9]{1,10}", fullmatch=True)
TIME = st.integers(0, 10**13)
ENDED = [state for state in STATES if state not in ("open", "unsent")]


@st.composite
def conversation(draw: st.DrawFn, number: int) -> dict[str, Any]:
    """Any tree of messages."""
    messages: list[dict[str, Any]] = []
    for place in range(draw(st.integers(0, 8))):
        parent = draw(st.sampled_from([None, *(each["id"] for each in messages)]))
        messages.append(
            {
                "id": f"m{number}.{place}",
                "parent_id": parent,
                "role": draw(st.sampled_from(ROLES)),
                "content": draw(TEXT),
                "reasoning": draw(TEXT),
                "state": draw(st.sampled_from(ENDED)),
                "code": draw(NAME),
                "error": draw(TEXT),
                "model": draw(NAME),
                "parameters": {"sampling": {"seed": draw(st.integers(0, 9))}},
                "usage": draw(st.none() | st.just({"completion_tokens": 3})),
                "extra": draw(st.dictionaries(NAME, TEXT, max_size=2)),
                "hidden": draw(st.booleans()),
                "created_ms": draw(TIME),
                "ended_ms": draw(st.none() | TIME),
                "feedback": draw(st.none() | st.just({"verdict": "down", "reason": "so", "better": "this"})),
            }
        )
    return {
        "id": f"c{number}",
        "title": " ".join(draw(TEXT).split()) or "t",
        "titled_by": draw(st.sampled_from(["first_words", "user", "model"])),
        "model": draw(NAME),
        "system": draw(TEXT),
        "settings": {"sampling": {"temperature": 0.5}, "thinking": draw(st.booleans())},
        "folder": draw(TEXT),
        "pinned": draw(st.booleans()),
        "source": draw(st.just("") | st.just(f"chatgpt:{number}")),
        "current_id": draw(st.sampled_from([None, *(each["id"] for each in messages)])),
        "created_ms": draw(TIME),
        "updated_ms": draw(TIME),
        "messages": messages,
    }


@pytest.fixture
def importer(database: Database) -> Importer:
    return Importer(database, lambda rid, owner: rid == "runs")


def file_of(value: object) -> io.BytesIO:
    return io.BytesIO(orjson.dumps(value))


def whole_export(conversations: Conversations, owner: str = "ada", kind: str = "json") -> bytes:
    trees = (conversations.find(owner, cid) for cid in conversations.ids(owner))
    return b"".join(exported(trees, kind))


def ours(*conversations: object) -> dict[str, Any]:
    return {"format": "chatserver.conversations", "version": 1, "conversations": list(conversations)}


@given(data=st.data())
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=20)
def test_what_is_exported_comes_back_without_a_loss(
    data: st.DataObject, importer: Importer, database: Database, conversations: Conversations
) -> None:
    with database.write() as session:
        session.execute(delete(ConversationRow))
    given_ones = [data.draw(conversation(number)) for number in range(data.draw(st.integers(0, 4)))]
    assert importer.take("ada", read(file_of(ours(*given_ones)))) == {"imported": len(given_ones), "skipped": []}
    first = whole_export(conversations)
    by_id = {each["id"]: each for each in orjson.loads(first)["conversations"]}
    assert by_id == {each["id"]: each for each in given_ones}
    with database.write() as session:
        session.execute(delete(ConversationRow))
    importer.take("ada", read(io.BytesIO(first)))
    assert whole_export(conversations) == first


def small(cid: str = "c", **fields: Any) -> dict[str, Any]:
    question = {"id": f"{cid}-q", "parent_id": None, "role": "user", "content": "sea?", "created_ms": 1}
    answer = {"id": f"{cid}-a", "parent_id": f"{cid}-q", "role": "assistant", "content": "The sea", "created_ms": 2}
    times = {"created_ms": 1, "updated_ms": 2}
    return {"id": cid, "title": "Sea", "current_id": f"{cid}-a", "messages": [question, answer], **times, **fields}


def test_an_import_may_be_repeated(importer: Importer, conversations: Conversations) -> None:
    importer.take("ada", read(file_of(ours(small()))))
    assert importer.take("ada", read(file_of(ours(small())))) == {
        "imported": 0,
        "skipped": [{"title": "Sea", "reason": "it is here already"}],
    }
    assert conversations.ids("ada") == ["c"]


def test_ids_in_use_get_new_ones(importer: Importer, conversations: Conversations) -> None:
    importer.take("ada", read(file_of(ours(small()))))
    answer = {**small()["messages"][1], "id": "again", "extra": {"continues": "c-a"}}
    importer.take("eve", read(file_of(ours({**small(), "messages": [*small()["messages"], answer]}))))
    (cid,) = conversations.ids("eve")
    hers = conversations.find("eve", cid)
    assert cid != "c" and hers.conversation.current_id == hers.messages[1].id != "c-a"
    assert hers.messages[2].extra == {"continues": hers.messages[1].id}
    assert [message.content for message in conversations.find("ada", "c").messages] == ["sea?", "The sea"]


@pytest.mark.parametrize(
    ("wrong", "reason"),
    [
        ({"messages": "none"}, "must be a list"),
        ({"current_id": "elsewhere"}, "none of its messages"),
        ({"messages": [{"id": "x", "parent_id": "y", "role": "user", "content": "", "created_ms": 1}]}, "not there"),
        ({"messages": [{"id": "x", "parent_id": "x", "role": "user", "content": "", "created_ms": 1}]}, "not there"),
        ({"messages": [{"id": "x", "role": "owner", "content": "", "created_ms": 1}]}, "role 'owner'"),
        ({"messages": [{"id": "x", "role": "user", "content": "", "created_ms": "now"}]}, "created_ms"),
        ({"id": "../etc"}, "slash"),
        ({"settings": {"sampling": {"warmth": 1}}}, "warmth"),
    ],
)
def test_what_is_wrong_is_skipped_with_its_reason(
    importer: Importer, conversations: Conversations, wrong: dict[str, Any], reason: str
) -> None:
    found = importer.take("ada", read(file_of(ours(small("bad", **wrong), small()))))
    assert found["imported"] == 1 and reason in found["skipped"][0]["reason"]
    assert conversations.ids("ada") == ["c"]


@pytest.mark.parametrize("data", [b"", b"{", b"3", b'"x"', b"PK\x03\x04 no archive"])
def test_what_is_no_file_of_conversations_is_refused(importer: Importer, data: bytes) -> None:
    with pytest.raises(InvalidRequest):
        importer.take("ada", read(io.BytesIO(data)))


def node(name: str, parent: str | None, role: str = "", text: str = "", **message: Any) -> dict[str, Any]:
    content = {"content_type": "text", "parts": [text]}
    said = {"author": {"role": role}, "content": content, "create_time": 1.5, **message} if role else None
    return {name: {"id": name, "parent": parent, "message": said}}


CHATGPT = {
    "conversation_id": "67-ab",
    "title": "Sea ",
    "create_time": 1.25,
    "update_time": 9.5,
    "current_node": "a2",
    "default_model_slug": "gpt-x",
    "mapping": {
        **node("root", None),
        **node("sys", "root", "system", "", metadata={"is_visually_hidden_from_conversation": True}),
        **node("q", "sys", "user", "sea?"),
        **node("a1", "q", "assistant", "Wet.", metadata={"model_slug": "gpt-y"}),
        **node("a2", "q", "assistant", "Deep.", status="in_progress"),
        **node("think", "q", "assistant", "hm", content={"content_type": "thoughts", "thoughts": [], "text": "hm"}),
    },
}


def test_chatgpts_branches_and_hidden_messages_come_along(importer: Importer, conversations: Conversations) -> None:
    assert importer.take("ada", read(file_of([CHATGPT])))["imported"] == 1
    tree = conversations.find("ada", "67-ab")
    row = tree.conversation
    assert (row.title, row.model, row.source) == ("Sea", "gpt-x", "chatgpt:67-ab")
    assert (row.created_ms, row.updated_ms, row.current_id) == (1250, 9500, "a2")
    found = {m.id: (m.parent_id, m.role, m.content, m.hidden, m.state) for m in tree.messages}
    assert found == {
        "sys": (None, "system", "", True, "finished"),
        "q": ("sys", "user", "sea?", False, "finished"),
        "a1": ("q", "assistant", "Wet.", False, "finished"),
        "a2": ("q", "assistant", "Deep.", False, "cancelled"),
        "think": ("q", "assistant", "hm", True, "finished"),
    }
    assert tree.messages[2].model == "gpt-y"
    assert importer.take("ada", read(file_of([CHATGPT])))["imported"] == 0


def test_chatgpts_archive_is_read_as_it_comes(importer: Importer, conversations: Conversations) -> None:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        archive.writestr("chat.html", "<html>")
        archive.writestr("export/conversations.json", orjson.dumps([CHATGPT]))
    packed.seek(0)
    assert importer.take("ada", read(packed))["imported"] == 1
    assert conversations.ids("ada") == ["67-ab"]


def browsers(**states: str) -> dict[str, Any]:
    messages = [{"id": "q", "role": "user", "content": "sea?", "state": "finished", "created_ms": 5}]
    for name, state in states.items():
        answer = {"id": name, "role": "assistant", "content": "The s", "state": state, "created_ms": 6, "model": "m"}
        messages.append({**answer, "writer": "tab"})
    return {"id": "b", "title": "Sea", "model": "m", "system": "be kind", "updated_ms": 9, "messages": messages}


def test_what_a_browser_kept_is_taken_over_once(importer: Importer, conversations: Conversations) -> None:
    kept = [browsers(a="finished", runs="running", gone="queued"), {"id": "broken"}]
    assert importer.take_over("ada", kept) == ["b"]
    assert importer.take_over("ada", kept) == ["b"]
    tree = conversations.find("ada", "b")
    assert tree.conversation.system == "be kind" and tree.conversation.current_id == "gone"
    found = {m.id: (m.parent_id, m.content, m.state, m.code) for m in tree.messages}
    assert found == {
        "q": (None, "sea?", "finished", ""),
        "a": ("q", "The s", "finished", ""),
        "runs": ("a", "", "open", ""),
        "gone": ("runs", "The s", "failed", "lost"),
    }
    assert tree.messages[2].asked_by == "ada"
    assert conversations.ids("ada") == ["b"]


def test_markdown_and_openais_messages_are_the_branch_that_is_looked_at(
    importer: Importer, conversations: Conversations
) -> None:
    importer.take("ada", read(file_of([{**CHATGPT, "current_node": "a1"}])))
    conversations.edit("ada", "67-ab", {"system": "be kind"})
    tree = conversations.find("ada", "67-ab")
    assert openai_messages(tree) == [
        {"role": "system", "content": "be kind"},
        {"role": "user", "content": "sea?"},
        {"role": "assistant", "content": "Wet."},
    ]
    assert markdown(tree) == "# Sea\n\n## System\n\nbe kind\n\n## You\n\nsea?\n\n## Assistant (gpt-y)\n\nWet.\n"
    lines = whole_export(conversations, kind="openai").splitlines()
    assert [list(orjson.loads(line)) for line in lines] == [["messages"]]


def test_what_other_programs_built_wrongly_is_skipped_and_the_others_are_taken(
    importer: Importer, conversations: Conversations
) -> None:
    text = {"parts": ["a"]}
    wrong = [
        small("list", current_id=[]),
        {"mapping": {"n1": {"message": {"author": "x", "content": text}}}},
        {"mapping": {"n2": {"message": {"author": {"role": "user"}, "content": {"content_type": [], **text}}}}},
        small("number", title=3, messages=5),
    ]
    found = importer.take("ada", read(file_of([*wrong, small()])))
    assert found["imported"] == 1 and len(found["skipped"]) == 4
    assert conversations.ids("ada") == ["c"]


def test_a_title_that_is_no_text_is_left_out(importer: Importer, conversations: Conversations) -> None:
    nested = orjson.dumps(small()).replace(b'"Sea"', b"[" * 900 + b"]" * 900)
    assert importer.take("ada", read(io.BytesIO(b"[" + nested + b"]")))["imported"] == 1
    assert conversations.find("ada", "c").conversation.title == "New chat"


def test_a_time_that_no_calendar_has_is_left_out(importer: Importer, conversations: Conversations) -> None:
    assert importer.take("ada", read(file_of([{**CHATGPT, "create_time": 1e300}])))["imported"] == 1
    assert conversations.find("ada", "67-ab").conversation.created_ms == 0


def test_half_a_surrogate_pair_in_a_title_harms_no_other_conversation(
    importer: Importer, conversations: Conversations
) -> None:
    kept = [{**browsers(), "id": "half", "title": "a\ud83d"}, {**browsers(), "messages": []}]
    assert importer.take_over("ada", kept) == ["half", "b"]
    assert conversations.find("ada", "half").conversation.title == "a?"


def test_children_far_before_their_parents_are_put_in_order_at_once() -> None:
    num = 10_000
    link = {"role": "user", "content": "", "created_ms": 1}
    messages = [{**link, "id": f"m{n}", "parent_id": f"m{n + 1}" if n < num - 1 else None} for n in range(num)]
    began = time.process_time()
    draft = parse_ours(small(messages=messages, current_id=None))
    assert [message.id for message in draft.messages] == [f"m{n}" for n in reversed(range(num))]
    assert time.process_time() - began < 5, "each message is looked at once; all of them each time takes minutes"


def test_a_chain_of_silent_nodes_is_walked_once() -> None:
    num = 5_000
    chain = {f"u{n}": {"parent": f"u{n - 1}" if n else None} for n in range(num)}
    said = {f"s{n}": node(f"s{n}", f"u{num - 1}", "user", "a")[f"s{n}"] for n in range(num)}
    began = time.process_time()
    draft = parse_chatgpt({**CHATGPT, "mapping": {**chain, **said}})
    assert {message.parent_id for message in draft.messages} == {None} and len(draft.messages) == num
    assert time.process_time() - began < 3, "the chain is walked once, not for each message"


def long(cid: str = "long") -> dict[str, Any]:
    """A conversation of five parts."""
    said = {"role": "user", "content": "long " * 150_000, "created_ms": 1}
    messages = [{**said, "id": f"{cid}{n}", "parent_id": f"{cid}{n - 1}" if n else None} for n in range(5)]
    return small(cid, messages=messages, current_id=f"{cid}4")


def test_others_write_while_a_long_conversation_is_imported(
    importer: Importer, conversations: Conversations, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[list[str]] = []

    def rest(_: Pace) -> None:
        conversations.create("eve", f"e{len(seen)}", {})
        seen.append(conversations.ids("ada"))

    monkeypatch.setattr(Pace, "rest", rest)
    assert importer.take("ada", read(file_of([long()])))["imported"] == 1
    assert len(conversations.ids("eve")) == len(seen) == 6 and seen == [[]] * 6, "it is seen when it is whole"
    tree = conversations.find("ada", "long")
    assert [message.place for message in tree.messages] == [0, 1, 2, 3, 4]
    assert tree.conversation.current_id == "long4"


def test_an_import_that_broke_off_is_begun_anew(
    importer: Importer, conversations: Conversations, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as broken:
        broken.setattr(Pace, "rest", lambda _: sys.exit("the power fails"))
        with pytest.raises(SystemExit):
            importer.take("ada", read(file_of([long()])))
    with pytest.raises(NotFound):
        conversations.restore("ada", "long")
    again = importer.take("ada", read(file_of([long(), small()])))
    assert again["imported"] == 1 and "in a minute" in again["skipped"][0]["reason"], "it may still be at work"
    monkeypatch.setattr(imports, "DEAD_MS", -1)
    assert importer.take("ada", read(file_of([long()]))) == {"imported": 1, "skipped": []}
    assert len(conversations.find("ada", "long").messages) == 5


def test_a_long_conversation_is_purged_in_parts(
    importer: Importer, conversations: Conversations, monkeypatch: pytest.MonkeyPatch
) -> None:
    importer.take("ada", read(file_of([long(), small()])))
    monkeypatch.setattr("services.conversations.conversations.UNDO_MS", -1)
    rests: list[Pace] = []
    monkeypatch.setattr(Pace, "rest", lambda pace: rests.append(pace))
    for cid in ("long", "c"):
        conversations.delete("ada", cid)
    assert conversations.purge() == 2 and len(rests) == 6
    assert conversations.purge() == 0


def test_a_full_disk_is_said_before_an_import(
    importer: Importer, conversations: Conversations, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(imports, "free_bytes", lambda _: 1 << 29)
    if not database.is_sqlite:
        importer.check_room()  # of the database's own machine nothing is known here
        return
    with pytest.raises(StorageFull, match="512 MiB"):
        importer.take("ada", read(file_of([small()])))
    with pytest.raises(StorageFull):
        importer.take_over("ada", [browsers()])
    assert conversations.ids("ada") == []


def packed(data: bytes) -> io.BytesIO:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("conversations.json", data)
    file.seek(0)
    return file


def test_an_archive_that_unpacks_to_more_than_32_mib_is_refused() -> None:
    with pytest.raises(TooLarge, match="in parts"):
        list(read(packed(b" " * (MAX_UNPACKED_BYTES + 1))))


def test_a_conversation_that_would_be_slow_to_read_is_skipped() -> None:
    many = [{"id": f"m{n}", "role": "user", "content": "", "created_ms": 1} for n in range(10_001)]
    objects = [
        {"id": f"o{n}", "role": "user", "content": "", "created_ms": 1, "extra": {"a": [[]] * 300_000}}
        for n in range(3)
    ]
    given_ones = [small("many", messages=many, current_id=None), small("deep", messages=objects, current_id=None)]
    reasons = [found.reason for found in read(file_of(given_ones)) if isinstance(found, Skipped)]
    assert len(reasons) == 2 and "10,001 messages" in reasons[0] and "2,000,000" in reasons[1]


def test_a_file_is_read_in_a_process_of_its_own(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(orjson.dumps([small(), CHATGPT, small("bad", messages=3)]))
    assert list(read_apart(path)) == list(read(io.BytesIO(path.read_bytes())))
    path.write_bytes(b"{")
    with pytest.raises(InvalidRequest, match="no JSON"):
        list(read_apart(path))


def test_a_file_that_takes_too_much_memory_ends_its_own_process_only(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_bytes(b"[" + b"[]," * 10_000_000 + b"[]]")
    with pytest.raises(TooLarge, match="in parts"):
        list(read_apart(path))
