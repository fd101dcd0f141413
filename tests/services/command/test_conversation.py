"""The CLI's conversation: which turns a question carries, and what a failure leaves behind."""

import json
from pathlib import Path

import pytest

from services.command.talk.answer import Answer
from services.command.talk.conversation import Conversation
from services.errors import InvalidRequest
from services.wire.messages import ChatRequest, Message


def ask(conversation: Conversation, text: str) -> ChatRequest:
    return conversation.question(text, user="cli-me", max_chars=1000)


def finished(text: str, status: str = "finished") -> Answer:
    return Answer(text, status, "stop", "", {})


def contents(request: ChatRequest) -> list[tuple[str, str]]:
    return [(message.role, message.content) for message in request.messages]


def test_a_question_carries_the_system_message_and_all_turns_under_a_fresh_id() -> None:
    conversation = Conversation("m", system="be brief", temperature=0.0, max_tokens=5)
    first = ask(conversation, "one")
    conversation.answered(finished("1"))
    second = ask(conversation, "two")
    assert contents(second) == [("system", "be brief"), ("user", "one"), ("assistant", "1"), ("user", "two")]
    assert first.rid != second.rid
    assert (second.sampling.temperature, second.sampling.max_new_tokens) == (0.0, 5)


def test_a_failed_question_is_no_turn_but_can_be_asked_again() -> None:
    conversation = Conversation("m")
    ask(conversation, "one")
    conversation.answered(finished("half", status="failed"))
    assert conversation.messages == []
    assert conversation.again() == "one"


def test_a_stopped_answer_is_kept_as_far_as_it_came() -> None:
    conversation = Conversation("m")
    ask(conversation, "one")
    conversation.answered(finished("half", status="cancelled"))
    assert [message.content for message in conversation.messages] == ["one", "half"]


def test_asking_again_replaces_the_last_answer_only() -> None:
    conversation = Conversation("m")
    for question in ("one", "two"):
        ask(conversation, question)
        conversation.answered(finished(f"to {question}"))
    assert conversation.again() == "two"
    assert [message.content for message in conversation.messages] == ["one", "to one"]


def test_a_conversation_longer_than_a_request_goes_on_with_its_newest_rounds() -> None:
    conversation = Conversation("m", system="be brief")
    for number in range(6):
        ask(conversation, f"question {number}")
        conversation.answered(finished("x" * 240))
    request = ask(conversation, "and now?")
    assert [text for _, text in contents(request)[:2]] == ["be brief", "question 3"]
    assert sum(len(text) for _, text in contents(request)) <= 1000
    assert "first 6 messages" in conversation.newly_omitted(finished("yes"))


def test_it_is_said_once_that_the_model_no_longer_reads_the_oldest_messages() -> None:
    conversation = Conversation("m")
    cut = Answer("yes", "finished", "stop", "", {"omitted_messages": 4, "context_tokens": 8192})
    ask(conversation, "one")
    assert conversation.newly_omitted(finished("yes")) == ""
    line = conversation.newly_omitted(cut)
    assert "reads 8,192 tokens" in line and "first 4 messages" in line
    assert conversation.newly_omitted(cut) == ""
    conversation.clear()
    assert conversation.newly_omitted(cut) != ""


def test_nothing_to_ask_again_is_said() -> None:
    conversation = Conversation("m")
    with pytest.raises(InvalidRequest, match="no question"):
        conversation.again()
    ask(conversation, "one")
    conversation.clear()
    with pytest.raises(InvalidRequest, match="no question"):
        conversation.again()


def test_saving_writes_json_or_markdown_and_never_over_a_file(tmp_path: Path) -> None:
    conversation = Conversation("m", system="be brief")
    ask(conversation, "one")
    conversation.answered(finished("ä"))
    conversation.save(tmp_path / "c.json")
    conversation.save(tmp_path / "c.md")
    saved = json.loads((tmp_path / "c.json").read_text(encoding="utf-8"))
    assert saved["messages"] == [{"role": "user", "content": "one"}, {"role": "assistant", "content": "ä"}]
    assert (tmp_path / "c.md").read_text(
        encoding="utf-8"
    ) == "# m\n\n> be brief\n\n## user\n\none\n\n## assistant\n\nä\n"
    with pytest.raises(InvalidRequest, match="exists already"):
        conversation.save(tmp_path / "c.json")
    with pytest.raises(InvalidRequest, match="cannot be written"):
        conversation.save(tmp_path / "no" / "c.json")


def test_reasoning_goes_along_with_its_answer_but_is_no_answer_alone(tmp_path: Path) -> None:
    conversation = Conversation("m")
    ask(conversation, "one")
    conversation.answered(Answer("", "finished", "length", "", {}, "hm"))
    assert conversation.messages == []
    ask(conversation, "two")
    conversation.answered(Answer("2", "finished", "stop", "", {}, "hm"))
    assert ask(conversation, "three").messages[1] == Message("assistant", "2", "hm")
    conversation.save(tmp_path / "said.json")
    assert json.loads((tmp_path / "said.json").read_text())["messages"][1] == {
        "role": "assistant",
        "content": "2",
        "reasoning": "hm",
    }
