"""What a record says against learning from it is heard, wherever the record says it."""

import json
from pathlib import Path
from typing import Any

import pytest

from pipelines.formats.read import read
from pipelines.formats.write import SUFFIXES, Writer
from pipelines.records.conversation import Conversation
from pipelines.records.ledger import Ledger
from services.jobs.recipe import InputOptions
from tests.pipelines.formats.inputs import Reading, reading

ASK, SAY = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}
SPOKEN = [{"from": "human", "value": "<image>\nq"}, {"from": "gpt", "value": "a"}]

CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "KTO": ("negative_example", {"messages": [ASK, SAY], "label": False}),
    "an integer from a table": ("negative_example", {"messages": [ASK, SAY], "label": 0}),
    "a label of an answer": ("negative_example", {"messages": [ASK, {**SAY, "label": False}, ASK, SAY]}),
    "LLaVA": ("media", {"conversations": SPOKEN, "image": "a.jpg"}),
    "a column of images": ("media", {"conversations": SPOKEN, "images": [{"bytes": "x"}]}),
    "Ollama": ("media", {"messages": [{**ASK, "images": ["x"]}, SAY]}),
    "a logged call": ("cut_short", {"messages": [ASK], "choices": [{"message": SAY, "finish_reason": "length"}]}),
    "Anthropic": ("cut_short", {"messages": [ASK], "response": {**SAY, "stop_reason": "max_tokens"}}),
    "a record": ("cut_short", {"messages": [ASK, SAY], "finish_reason": "length"}),
    "an earlier cleaning": ("zero_weight", {"messages": [ASK, SAY], "extra": {"turn_keys": [{}, {"train": False}]}}),
}


@pytest.mark.parametrize("name", CASES)
def test_a_record_that_says_not_to_learn_it_is_a_reject(tmp_path: Path, name: str) -> None:
    """KTO's bad answers, pictures without their picture and answers cut at their limit were trained as good ones."""
    reason, record = CASES[name]
    if "extra" in record:
        record = {**record, "source": {"file": "f", "line": 1}}
    [bad] = reading(tmp_path, json.dumps(record)).bad
    assert bad["reason"] == reason
    [kept] = read(str(tmp_path / "in.json"), InputOptions(unlearnable="keep"), Ledger(), lambda line: None)
    assert kept.turns[-1].text == "a"


@pytest.mark.parametrize("name", ["KTO", "a label of an answer", "LLaVA", "a record"])
@pytest.mark.parametrize("kind", SUFFIXES)
def test_what_was_kept_is_refused_when_its_output_is_cleaned(tmp_path: Path, name: str, kind: str) -> None:
    reason, record = CASES[name]
    (tmp_path / "in.json").write_text(json.dumps(record))
    [kept] = read(str(tmp_path / "in.json"), InputOptions(unlearnable="keep"), Ledger(), lambda line: None)
    assert written(tmp_path / "out", kind, kept) == [reason]
    assert written(tmp_path / "shorter", kind, kept.with_turns(kept.turns[:2])) == [reason]


def written(path: Path, kind: str, conversation: Conversation) -> list[str]:
    with Writer(path, kind) as writer:
        writer.write(conversation)
    return [line["reason"] for line in Reading(path).bad]


@pytest.mark.parametrize(
    "said",
    [
        {"label": True},
        {"label": "sun"},
        {"image": None, "images": [], "finish_reason": "stop"},
        {"messages": [{**ASK, "label": False, "weight": 0}, {**SAY, "label": True}]},
    ],
)
def test_other_labels_and_empty_columns_say_nothing_against_it(tmp_path: Path, said: dict[str, Any]) -> None:
    assert reading(tmp_path, json.dumps({"messages": [ASK, SAY], **said})).bad == []
