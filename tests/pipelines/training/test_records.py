"""Training records of every shape: their messages, and which of their answers are learnt."""

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from pipelines.training.records import Record, Refusal, read_records

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
    thought = {"messages": [QUESTION, {**ANSWER, "reasoning_content": "Hm."}], "tools": [{"name": "clock"}]}
    unused: Counter[str] = Counter()
    list(read_records(written(tmp_path, thought, {"messages": [QUESTION, ANSWER]}), unused))
    assert unused == {"reasoning_content": 1, "tools": 1}
