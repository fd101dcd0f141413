"""Training records of every shape: their messages, and which of their answers are learnt."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from pipelines.training.records import Record, Refusal, read_records
from services.wire.messages import CallMessage, Message, ResultMessage, ToolCall
from tests.pipelines.formats.test_exports import in_a_row, message

QUESTION, ANSWER = {"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi."}


def read(folder: Path, *values: Any) -> list[Record | Refusal]:
    return list(read_records(written(folder, *values), Counter()))


def written(folder: Path, *values: Any) -> Path:
    path = folder / "data.jsonl"
    path.write_text("".join(json.dumps(value) + "\n" for value in values))
    return path


def only(folder: Path, value: Any) -> Record:
    (found,) = read(folder, value)
    assert isinstance(found, Record), found
    return found


def refused(folder: Path, value: Any) -> Refusal:
    (found,) = read(folder, value)
    assert isinstance(found, Refusal), found
    return found


def said(record: Record) -> list[tuple[str, str]]:
    return [(message.role, message.content) for message in record.messages]


@pytest.mark.parametrize(
    "value",
    [
        {"messages": [QUESTION, ANSWER]},
        {"prompt": "Hello", "completion": "Hi."},
        {"prompt": [QUESTION], "completion": [ANSWER]},
        {"prompt": "Hello", "completion": "Hi.", "label": True},
        {"instruction": "Hello", "output": "Hi."},
        {"conversations": [{"from": "human", "value": "Hello"}, {"from": "gpt", "value": "Hi."}]},
    ],
)
def test_every_shape_of_one_round_says_the_same(tmp_path: Path, value: dict[str, Any]) -> None:
    assert said(only(tmp_path, value)) == [("user", "Hello"), ("assistant", "Hi.")]
    assert only(tmp_path, value).learnt == (True,)


def test_a_foreign_format_is_learnt_as_its_plain_record_is(tmp_path: Path) -> None:
    """Its calls and weights were looked for before it was translated: one was refused, the other not seen."""
    other = {"role": "assistant", "content": "Hm.", "weight": 0}
    found = only(tmp_path, {"conversation": [QUESTION, other, QUESTION, ANSWER], "redacted": False})
    assert said(found) == [("user", "Hello"), ("assistant", "Hm."), ("user", "Hello"), ("assistant", "Hi.")]
    assert found.learnt == (False, True)


def test_an_export_whose_answer_is_not_whole_is_refused_with_that_reason(tmp_path: Path) -> None:
    ended = message("assistant", "Once", metadata={"finish_details": {"type": "interrupted"}})
    assert refused(tmp_path, in_a_row(message("user", "Tell me"), ended)).reason == "interrupted"


def test_earlier_rounds_of_an_alpaca_record_are_read(tmp_path: Path) -> None:
    value = {"instruction": "And now?", "output": "Well.", "system": "Be brief.", "history": [["Hello", "Hi."]]}
    roles = [role for role, _ in said(only(tmp_path, value))]
    assert roles == ["system", "user", "assistant", "user", "assistant"]


def test_a_plain_text_is_a_record(tmp_path: Path) -> None:
    assert only(tmp_path, {"text": "Once upon a time."}).text == "Once upon a time."


@pytest.mark.parametrize("name", ["weight", "train", "loss"])
@pytest.mark.parametrize(("value", "learnt"), [(0, False), (False, False), (1, True), (True, True), (1.0, True)])
def test_an_answer_says_whether_it_is_learnt(tmp_path: Path, name: str, value: Any, learnt: bool) -> None:
    messages = [QUESTION, {**ANSWER, name: value}, QUESTION, ANSWER]
    assert only(tmp_path, {"messages": messages}).learnt == (learnt, True)


def test_a_weight_that_a_cleaning_kept_is_honoured(tmp_path: Path) -> None:
    about = {"source": {"file": "a", "line": 1}, "extra": {"turn_keys": [{}, {"train": False}]}}
    assert only(tmp_path, {"messages": [QUESTION, ANSWER], **about}).learnt == (False,)
    assert refused(tmp_path, {"messages": [QUESTION, ANSWER, QUESTION, ANSWER], **about}).reason == "lost_weight"


@pytest.mark.parametrize(
    ("value", "reason", "named"),
    [
        ({"messages": [QUESTION, {**ANSWER, "weight": 0.5}]}, "fractional_weight", "weight of turn 1 is 0.5"),
        ({"messages": [{**QUESTION, "train": True}, ANSWER]}, "trains_question", "turn 0 is 'user'"),
        ({"prompt": "a", "completion": "b", "label": False}, "negative_example", "label is false"),
        ({"messages": [QUESTION, ANSWER], "label": False}, "negative_example", "label is False"),
        ({"messages": [QUESTION, {**ANSWER, "label": False}]}, "negative_example", "turn 1: label is False"),
        ({"prompt": "a", "chosen": "b", "rejected": "c"}, "preference", "chosen"),
        ({"instruction": "a", "output": "b", "history": [["c"]]}, "bad_shape", "history"),
        ({"text": " "}, "bad_shape", "text is empty"),
        (7, "not_an_object", "7"),
    ],
)
def test_what_cannot_be_honoured_is_refused_by_name(tmp_path: Path, value: Any, reason: str, named: str) -> None:
    found = refused(tmp_path, value)
    assert found.reason == reason
    assert named in found.detail


def test_fields_that_change_nothing_are_counted(tmp_path: Path) -> None:
    given = {"messages": [{**QUESTION, "reasoning": "Hm."}, ANSWER], "functions": [{"name": "clock"}]}
    unused: Counter[str] = Counter()
    list(read_records(written(tmp_path, given, {"messages": [QUESTION, ANSWER]}), unused))
    assert unused == {"reasoning": 1, "functions": 1}


# ---- reasoning


@pytest.mark.parametrize("name", ["reasoning_content", "reasoning", "thinking"])
def test_what_an_assistant_thought_is_read_and_not_counted_as_unused(tmp_path: Path, name: str) -> None:
    unused: Counter[str] = Counter()
    value = {"messages": [QUESTION, {**ANSWER, name: "Hm.", "other": 1}]}
    (found,) = read_records(written(tmp_path, value), unused)
    assert isinstance(found, Record)
    assert found.messages == (Message("user", "Hello"), Message("assistant", "Hi.", "Hm."))
    assert not unused


def test_reasoning_that_a_cleaning_kept_is_read_unless_it_cut_turns(tmp_path: Path) -> None:
    about = {"source": {"file": "a", "line": 1}, "extra": {"turn_keys": [{}, {"reasoning_content": "Hm."}]}}
    assert only(tmp_path, {"messages": [QUESTION, ANSWER], **about}).messages[1].reasoning == "Hm."
    unused: Counter[str] = Counter()
    value = {"messages": [QUESTION, ANSWER, QUESTION, ANSWER], **about}
    (found,) = read_records(written(tmp_path, value), unused)
    assert isinstance(found, Record)
    assert not any(message.reasoning for message in found.messages)
    assert unused == {"reasoning_content": 1}


# ---- tools

ABOUT = {"name": "clock", "description": "The time.", "parameters": {"type": "object", "properties": {}}}
CLOCK = {"type": "function", "function": ABOUT}
RESULT = {"role": "tool", "tool_call_id": "c1", "content": "noon"}


def calling(arguments: Any, **fields: Any) -> dict[str, Any]:
    call = {"id": "c1", "type": "function", "function": {"name": "clock", "arguments": arguments}}
    return {"role": "assistant", "content": None, "tool_calls": [call], **fields}


@pytest.mark.parametrize("arguments", ['{"zone": "UTC"}', {"zone": "UTC"}])
@pytest.mark.parametrize("tools", [[CLOCK], [ABOUT], json.dumps([CLOCK])])
def test_calls_results_and_tools_are_read(tmp_path: Path, arguments: Any, tools: Any) -> None:
    found = only(tmp_path, {"messages": [QUESTION, calling(arguments), RESULT, ANSWER], "tools": tools})
    assert found.tools == (CLOCK,)
    call = CallMessage("assistant", "", calls=(ToolCall("clock", {"zone": "UTC"}, "c1"),))
    assert found.messages[1:3] == (call, ResultMessage("tool", "noon", call="c1"))  # type: ignore[arg-type]
    assert found.learnt == (True, True)


def test_a_call_may_have_words_reasoning_a_weight_and_no_arguments(tmp_path: Path) -> None:
    said = calling("", content="I look.", reasoning_content="Hm.", weight=0)
    found = only(tmp_path, {"messages": [QUESTION, said, RESULT, ANSWER]})
    assert found.messages[1] == CallMessage("assistant", "I look.", "Hm.", (ToolCall("clock", {}, "c1"),))
    assert found.learnt == (False, True)


def test_keys_of_tools_that_a_table_fills_with_nothing_are_nothing(tmp_path: Path) -> None:
    empty = {"tool_calls": None, "tool_call_id": None, "name": None}
    found = only(tmp_path, {"messages": [{**QUESTION, **empty}, {**ANSWER, **empty, "tool_calls": []}], "tools": None})
    assert found.messages == (Message("user", "Hello"), Message("assistant", "Hi."))
    assert found.tools == ()


@pytest.mark.parametrize(
    ("value", "named"),
    [
        (
            {"messages": [QUESTION, calling("{zone")]},
            "arguments of tool_calls of turn 1[0] is '{zone', which is no JSON",
        ),
        ({"messages": [QUESTION, calling("7")]}, "arguments of tool_calls of turn 1[0] is '7'; an object"),
        ({"messages": [{**QUESTION, **calling({}), "role": "user"}]}, "turn 0 is 'user' and has tool_calls"),
        ({"messages": [QUESTION, {**ANSWER, "tool_calls": "clock()"}]}, "tool_calls of turn 1 is 'clock()'"),
        ({"messages": [QUESTION, {**ANSWER, "tool_calls": [{"id": "a"}]}]}, "tool_calls of turn 1[0] is"),
        ({"messages": [QUESTION, ANSWER], "tools": [{"type": "function"}]}, "tools[0] is"),
        ({"messages": [QUESTION, ANSWER], "tools": "clock"}, "tools is 'clock', which is no JSON"),
        ({"messages": [QUESTION, {**ANSWER, "thinking": ["Hm."]}]}, "thinking of turn 1 is"),
    ],
)
def test_a_call_that_cannot_be_read_is_refused_by_name(tmp_path: Path, value: Any, named: str) -> None:
    found = refused(tmp_path, value)
    assert found.reason == "bad_shape"
    assert named in found.detail
