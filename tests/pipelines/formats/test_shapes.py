"""Shapes of records: what becomes turns, id, model and extra, and what is refused by name."""

import json
from pathlib import Path
from typing import Any

import pytest

from pipelines.formats.write import SUFFIXES, Writer
from pipelines.records.conversation import Conversation, Turn, digest_id
from tests.pipelines.formats.inputs import Reading, reading

QA = (Turn("user", "q"), Turn("assistant", "a"))
SAID = [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}]
MESSAGES = [{"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}]
MANY_KEYS = ", ".join(f"key_{number}" for number in range(10))


def one(folder: Path, record: Any, shape: str = "auto") -> Conversation:
    found = reading(folder, json.dumps(record), shape=shape)
    assert found.bad == []
    [conversation] = found.conversations
    return conversation


def refused(folder: Path, record: Any, shape: str = "auto", reason: str = "bad_shape") -> str:
    [bad] = reading(folder, json.dumps(record), shape=shape).bad
    assert bad["reason"] == reason
    return str(bad["detail"])


@pytest.mark.parametrize("record", [{"conversations": SAID}, {"items": SAID}, {"conversations": MESSAGES}])
def test_sharegpt(tmp_path: Path, record: dict[str, Any]) -> None:
    found = one(tmp_path, {"id": 7, "model": "m", "plugins": ["p"], **record})
    assert (found.id, found.turns, found.model, found.extra) == ("7", QA, "m", {"plugins": ["p"]})


@pytest.mark.parametrize("role", ["gpt", "assistant", "chatgpt", "bing", "bard", "GPT"])
def test_the_names_of_the_assistant(tmp_path: Path, role: str) -> None:
    assert one(tmp_path, {"conversations": [{"from": role, "value": "a"}]}).turns == (Turn("assistant", "a"),)


def test_an_unknown_role_stays_for_the_step_that_judges_it(tmp_path: Path) -> None:
    said = [{"role": role, "content": "x"} for role in ("tool", "function", "Wizard")]
    assert [turn.role for turn in one(tmp_path, {"messages": said}).turns] == ["tool", "function", "Wizard"]


def test_a_developer_is_what_the_system_was(tmp_path: Path) -> None:
    said = {"messages": [{"role": "developer", "content": "s"}, *MESSAGES]}
    assert one(tmp_path, said).turns == (Turn("system", "s"), *QA)


@pytest.mark.parametrize("name", ["tool_calls", "function_call"])
def test_an_answer_that_calls_a_tool_is_not_trained_on_as_text(tmp_path: Path, name: str) -> None:
    call = {"name": "weather", "arguments": "{}"}
    for text in (None, "", "One moment."):
        said = [MESSAGES[0], {"role": "assistant", "content": text, name: [call] if name == "tool_calls" else call}]
        told = refused(tmp_path, {"messages": said}, reason="tool_calls")
        assert told == f"messages[1] has {name}; only what is said as text can be trained on"
    assert one(tmp_path, {"messages": [MESSAGES[0], {**MESSAGES[1], name: None, "refusal": None}]}).extra == {}


@pytest.mark.parametrize("weight", [0, 0.0])
def test_an_answer_of_weight_0_is_not_trained_on(tmp_path: Path, weight: float) -> None:
    told = refused(
        tmp_path, {"messages": [*MESSAGES, *MESSAGES[:1], {**MESSAGES[1], "weight": weight}]}, "auto", "zero_weight"
    )
    assert told.startswith("messages[3].weight is 0;")
    told_all = [{**MESSAGES[0], "weight": 0}, {**MESSAGES[1], "weight": 1}]
    assert one(tmp_path, {"messages": told_all}).extra == {"turn_keys": [{"weight": 0}, {"weight": 1}]}


@pytest.mark.parametrize("name", ["train", "loss"])
def test_an_answer_of_which_the_record_says_not_to_train_it_is_refused(tmp_path: Path, name: str) -> None:
    """Axolotl's `train: false` and others' `loss: false` were trained on."""
    told = refused(tmp_path, {"messages": [MESSAGES[0], {**MESSAGES[1], name: False}]}, "auto", "zero_weight")
    assert told.startswith(f"messages[1].{name} is False;")
    said = [{**MESSAGES[0], name: False}, {**MESSAGES[1], name: True}]
    assert one(tmp_path, {"messages": said}).extra == {"turn_keys": [{name: False}, {name: True}]}


def test_a_refusal_without_a_text_is_refused(tmp_path: Path) -> None:
    said = [MESSAGES[0], {"role": "assistant", "content": None, "refusal": "I can't help with that."}]
    assert refused(tmp_path, {"messages": said}) == "messages[1] has a refusal and no text; a string is needed"


def test_other_keys_of_turns_are_kept_by_turn_and_survive_the_way_through_a_file(tmp_path: Path) -> None:
    said = [{**MESSAGES[0], "name": "Ann"}, {**MESSAGES[1], "reasoning": "…"}, MESSAGES[0]]
    found = one(tmp_path, {"messages": said, "system": "s", "plugins": []})
    assert [turn.text for turn in found.turns] == ["s", "q", "a", "q"]
    assert found.extra == {"plugins": [], "turn_keys": [{}, {"name": "Ann"}, {"reasoning": "…"}, {}]}
    for kind in SUFFIXES:
        path = tmp_path / f"out-{kind}"
        with Writer(path, kind) as writer:
            writer.write(found)
        assert Reading(path).conversations == [found]
    assert "turn_keys would hold" in refused(tmp_path, {"messages": said, "turn_keys": 1})


def test_a_system_text_beside_the_turns_is_the_first_turn(tmp_path: Path) -> None:
    assert one(tmp_path, {"conversations": SAID, "system": "s"}).turns == (Turn("system", "s"), *QA)
    assert one(tmp_path, {"conversations": SAID, "system": " "}).turns == QA


def test_openai_content_is_text_or_parts_of_text(tmp_path: Path) -> None:
    parts = [{"type": "text", "text": "one"}, {"type": "text", "text": "two"}]
    assert one(tmp_path, {"messages": [{"role": "user", "content": parts}]}).turns == (Turn("user", "one\ntwo"),)
    image = [*parts, {"type": "image_url", "image_url": {}}]
    told = refused(tmp_path, {"messages": [{"role": "user", "content": image}]})
    assert told == "messages[0].content[2] is 'image_url'; only text parts are read"


def test_parts_of_an_answer_are_one_text_and_those_of_a_question_stand_on_their_own_lines(tmp_path: Path) -> None:
    """Anthropic cuts an answer at its citations: it came out as "Rome is" and "the capital." on two lines."""
    said = [
        {
            "role": "user",
            "content": [{"type": "input_text", "text": "A text."}, {"type": "input_text", "text": "A question?"}],
        },
        {
            "role": "assistant",
            "content": [{"type": "output_text", "text": "Rome is "}, {"type": "text", "text": "it."}],
        },
    ]
    assert [turn.text for turn in one(tmp_path, {"messages": said}).turns] == ["A text.\nA question?", "Rome is it."]


@pytest.mark.parametrize("nothing", ["<noinput>", "Noinput", "No input", "nan "])
def test_a_word_that_says_that_there_is_no_input_is_none(tmp_path: Path, nothing: str) -> None:
    """Some thousand rows of Alpaca's files asked with `Input:\n<noinput>`."""
    record = {"instruction": "Name an animal.", "input": nothing, "output": "A wren."}
    assert one(tmp_path, record).turns[0].text == "Name an animal."
    assert one(tmp_path, {**record, "instruction": ""}).turns[0].text == f"Input:\n{nothing}"


def test_the_export_of_the_chat_page(tmp_path: Path) -> None:
    export = {"id": "c1", "title": "t", "model": "m", "messages": [{"role": "system", "content": "s"}, *MESSAGES]}
    for record in (export, [export]):
        found = one(tmp_path, record)
        assert (found.id, found.turns, found.model) == ("c1", (Turn("system", "s"), *QA), "m")
        assert found.extra == {"title": "t"}


@pytest.mark.parametrize(
    ("given", "question"),
    [("", "i"), (" \n", "i"), ("x", "i\nInput:\nx"), (" two words", "i\nInput:\n two words")],
)
def test_alpaca_keeps_an_input_of_one_character(tmp_path: Path, given: str, question: str) -> None:
    found = one(tmp_path, {"instruction": "i", "input": given, "output": "o"})
    assert found.turns == (Turn("user", question), Turn("assistant", "o"))


def test_alpaca_without_input_or_without_instruction(tmp_path: Path) -> None:
    for record, question in (
        ({"instruction": "i", "input": None}, "i"),
        ({"instruction": "", "input": "x"}, "Input:\nx"),
        ({"instruction": " \n", "input": "x"}, "Input:\nx"),
        ({"instruction": " ", "input": ""}, " "),
    ):
        assert one(tmp_path, {**record, "output": "o"}).turns == (Turn("user", question), Turn("assistant", "o"))


def test_the_system_text_of_alpaca_is_the_first_turn(tmp_path: Path) -> None:
    record = {"instruction": "i", "input": "", "output": "o"}
    assert one(tmp_path, {**record, "system": "s"}).turns[0] == Turn("system", "s")
    assert len(one(tmp_path, {**record, "system": ""}).turns) == 2


def test_the_earlier_rounds_of_alpaca_stand_before_its_question(tmp_path: Path) -> None:
    """`history` went to `extra`, and "And of Norway?" was trained without its context."""
    record = {"instruction": "i", "output": "o", "system": "s", "history": [["q", "a"], ["r", "b"]]}
    found = one(tmp_path, record)
    assert [turn.text for turn in found.turns] == ["s", "q", "a", "r", "b", "i", "o"]
    assert found.extra == {}
    for wrong in ("q", [["q"]], [["q", None]]):
        assert refused(tmp_path, {**record, "history": wrong}) == "history is no list of [question, answer]"


LOGGED = {"role": "assistant", "content": "a"}


@pytest.mark.parametrize(
    "logged",
    [
        {"choices": [{"index": 0, "message": LOGGED, "finish_reason": None}]},
        {"response": {"choices": [{"message": LOGGED}]}},
        {"response": LOGGED},
        {"response": {"message": LOGGED}},
        {"response": "a"},
    ],
)
def test_the_answer_of_a_logged_call_stands_beside_its_messages(tmp_path: Path, logged: dict[str, Any]) -> None:
    """The record had no pair, or lost its last question as one without an answer."""
    for before in ([], MESSAGES):
        found = one(tmp_path, {"messages": [*before, MESSAGES[0]], **logged})
        assert found.turns == QA * (1 + len(before) // 2)
        assert found.extra == {}


def test_what_a_logged_call_says_beside_its_answer_is_kept_and_no_answer_is_chosen(tmp_path: Path) -> None:
    response = {"id": "r", "choices": [{"message": LOGGED, "finish_reason": "stop"}]}
    found = one(tmp_path, {"messages": MESSAGES[:1], "response": response})
    assert found.extra == {"response": {"id": "r"}, "turn_keys": [{}, {"finish_reason": "stop"}]}
    for open_ in ({"choices": [{"message": LOGGED}] * 2}, {"response": {"role": "tool"}}, {"response": None}):
        assert one(tmp_path, {"messages": MESSAGES[:1], **open_}).turns == QA[:1]
    answered = one(tmp_path, {"messages": MESSAGES, "response": "b"})
    assert (answered.turns, answered.extra) == (QA, {"response": "b"})
    called = {"response": {"role": "assistant", "content": None, "tool_calls": [{"id": "c"}]}}
    assert refused(tmp_path, {"messages": MESSAGES[:1], **called}, reason="tool_calls").startswith("messages[1] has")


def test_alpaca_ids_are_positions_that_a_bad_record_does_not_move(tmp_path: Path) -> None:
    good = json.dumps({"instruction": "i", "output": "o"})
    found = reading(tmp_path, "\n".join([good, "bad", good, '{"instruction": 1, "output": "o"}', good]))
    assert found.ids == ["alpaca_0", "alpaca_2", "alpaca_4"]
    assert found.bad[1]["detail"] == "instruction is 1; a string is needed"


def test_a_record_without_id_is_named_by_its_turns(tmp_path: Path) -> None:
    for without in ({}, {"id": None}, {"id": ""}):
        assert one(tmp_path, {**without, "conversations": SAID}).id == digest_id(QA)


@pytest.mark.parametrize(
    ("record", "told"),
    [
        ({"messages": [{"role": "user", "content": None}]}, "messages[0].content is None; a string is needed"),
        ({"conversations": [SAID[0], {"from": "gpt", "value": 5}]}, "conversations[1].value is 5; a string is needed"),
        ({"conversations": [{"value": "x"}]}, "conversations[0].role is None; a string is needed"),
        ({"conversations": ["x"]}, "conversations[0] is 'x'; an object is needed"),
        ({"conversations": [{"from": ["x"], "value": "x"}]}, "conversations[0].from is a list; a string is needed"),
        ({"body": "x"}, "no known shape of record; its keys: body"),
        ({f"key_{n}": n for n in range(14)}, f"no known shape of record; its keys: {MANY_KEYS} and 4 more"),
        ({"id": True, "messages": []}, "id is True; a string or an integer is needed"),
        ({"id": 1.5, "messages": []}, "id is 1.5; a string or an integer is needed"),
    ],
)
def test_a_wrong_shape_names_the_turn_and_the_value(tmp_path: Path, record: dict[str, Any], told: str) -> None:
    assert refused(tmp_path, record) == told


def test_a_shape_that_is_given_is_not_guessed(tmp_path: Path) -> None:
    both = {"conversations": SAID, "messages": [{"role": "user", "content": "m"}]}
    assert one(tmp_path, both).turns == QA
    assert one(tmp_path, both, "openai").turns == (Turn("user", "m"),)
    assert refused(tmp_path, {"messages": MESSAGES}, "sharegpt") == "conversations is None; a list of turns is needed"
    assert refused(tmp_path, {"messages": MESSAGES}, "alpaca") == "instruction is None; a string is needed"


def test_a_source_of_somebody_else_is_only_kept(tmp_path: Path) -> None:
    for source in ("wiki", {"file": "x"}, {"file": "x", "line": "1"}):
        found = one(tmp_path, {"conversations": SAID, "source": source, "origin": "o"})
        assert (found.source.line, found.origin, found.extra) == (1, "", {"source": source, "origin": "o"})
