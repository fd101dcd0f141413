"""Pairs, labels, tools and reasoning: every shape in which data sets hold them is read, if a recipe keeps them."""

import json
from pathlib import Path
from typing import Any

import pytest

from pipelines.formats.write import SUFFIXES, Writer, suffix
from pipelines.records.conversation import Conversation, FullTurn, Turn, dump, load
from tests.pipelines.formats.kept import ASK, BAD, CALL, CALLING, CLOCK, GOOD, KEPT, RATED_TWICE, RESULT, Kept

QUESTION = {"role": "user", "content": ASK.text}
THIS, THAT = ({"role": "assistant", "content": turn.text} for turn in (GOOD, BAD))
HH = f"\n\nHuman: {ASK.text}\n\nAssistant: "
FUNCTION = {"name": "clock", "arguments": '{"zone": "Europe/Berlin", "n": [1]}'}
CALLED = {"role": "assistant", "content": None, "tool_calls": [{"id": "c1", "type": "function", "function": FUNCTION}]}
RETURNED = {"role": "tool", "tool_call_id": "c1", "name": "clock", "content": "12:00"}

PAIRS: dict[str, dict[str, Any]] = {
    "TRL, texts": {"prompt": ASK.text, "chosen": GOOD.text, "rejected": BAD.text},
    "TRL, messages": {"prompt": [QUESTION], "chosen": [THIS], "rejected": [THAT]},
    "TRL, whole conversations": {"chosen": [QUESTION, THIS], "rejected": [QUESTION, THAT]},
    "UltraFeedback": {
        "prompt": ASK.text,
        "chosen": [QUESTION, THIS],
        "rejected": [QUESTION, THAT],
        "score_chosen": 8.5,
    },
    "UltraFeedback, with the preferred conversation once more": {
        "prompt": ASK.text,
        "messages": [QUESTION, THIS],
        "chosen": [QUESTION, THIS],
        "rejected": [QUESTION, THAT],
    },
    "HH": {"chosen": HH + GOOD.text, "rejected": HH + BAD.text},
    "OpenAI": {"input": {"messages": [QUESTION]}, "preferred_output": [THIS], "non_preferred_output": [THAT]},
    "Orca": {"system": "", "question": ASK.text, "chosen": GOOD.text, "rejected": BAD.text},
    "Alpaca": {"instruction": ASK.text, "input": "", "chosen": GOOD.text, "rejected": BAD.text},
    "ShareGPT": {
        "conversations": [{"from": "human", "value": ASK.text}],
        "chosen": {"from": "gpt", "value": GOOD.text},
        "rejected": {"from": "gpt", "value": BAD.text},
    },
    "columns": {"prompt": ASK.text, "chosen": json.dumps([THIS]), "rejected": json.dumps([THAT])},
}
LABELS: dict[str, dict[str, Any]] = {
    "TRL": {"prompt": ASK.text, "completion": GOOD.text, "label": False},
    "a number": {"prompt": [QUESTION], "completion": [THIS], "label": 0},
    "an answer's": {"messages": [QUESTION, {**THIS, "label": False}]},
    "a conversation's": {"messages": [QUESTION, THIS], "label": False},
}
TOOLS: dict[str, dict[str, Any]] = {
    "OpenAI": {"messages": [QUESTION, CALLED, RETURNED], "tools": [CLOCK]},
    "text in columns": {
        "messages": [QUESTION, {**CALLED, "tool_calls": json.dumps(CALLED["tool_calls"])}, RETURNED],
        "tools": json.dumps([CLOCK]),
    },
    "without functions around": {
        "messages": [QUESTION, {**CALLED, "tool_calls": [{"id": "c1", **FUNCTION}]}, RETURNED],
        "functions": [CLOCK["function"]],
    },
}
SYSTEM, EARLIER, SAID = (
    {"role": "system", "content": "Be brief."},
    {"role": "user", "content": "Are there two?"},
    {"role": "assistant", "content": "There are."},
)
BRINGING: dict[str, tuple[dict[str, Any], list[dict[str, str]], list[dict[str, str]]]] = {
    "the system prompt is a column": ({"system": "Be brief.", "prompt": ASK.text}, [QUESTION], [SYSTEM, QUESTION]),
    "only the prompt has the system's turn": ({"prompt": [SYSTEM, QUESTION]}, [QUESTION], [SYSTEM, QUESTION]),
    "only the answers have the system's turn": ({"prompt": ASK.text}, [SYSTEM, QUESTION], [SYSTEM, QUESTION]),
    "both have it": ({"prompt": [SYSTEM, QUESTION]}, [SYSTEM, QUESTION], [SYSTEM, QUESTION]),
    "a column has it, too": ({"system": "Be brief.", "prompt": [SYSTEM, QUESTION]}, [QUESTION], [SYSTEM, QUESTION]),
    "the prompt is ShareGPT's": (
        {"conversations": [{"from": "system", "value": "Be brief."}, {"from": "human", "value": ASK.text}]},
        [QUESTION],
        [SYSTEM, QUESTION],
    ),
    "the prompt is the last question": (
        {"prompt": ASK.text},
        [EARLIER, SAID, QUESTION],
        [EARLIER, SAID, QUESTION],
    ),
}
UNUSABLE: dict[str, tuple[str, dict[str, Any]]] = {
    "other prompts": ("other_prompts", {"chosen": [QUESTION, THIS], "rejected": [{**QUESTION, "content": "?"}, THAT]}),
    "a prompt that the answers' own lacks": (
        "other_prompts",
        {"prompt": [EARLIER, SAID], "chosen": [QUESTION, THIS], "rejected": [QUESTION, THAT]},
    ),
    "another system prompt": (
        "other_prompts",
        {"system": "?", "prompt": ASK.text, "chosen": [SYSTEM, QUESTION, THIS], "rejected": [SYSTEM, QUESTION, THAT]},
    ),
    "equal answers": ("equal_answers", {"prompt": "q", "chosen": "a", "rejected": "a"}),
    "one answer": ("bad_shape", {"prompt": "q", "chosen": "a"}),
    "a class": ("bad_label", {"messages": [QUESTION, THIS], "label": "positive"}),
    "a label of a question": ("bad_label", {"messages": [QUESTION], "label": True}),
    "a call that is no JSON": (
        "bad_shape",
        {"messages": [QUESTION, {**CALLED, "tool_calls": [{"function": {"name": "f", "arguments": "{"}}]}]},
    ),
}
DEFAULT = {
    "preference": PAIRS["TRL, texts"],
    "negative_example": LABELS["TRL"],
    "tool_calls": TOOLS["OpenAI"],
}


def given(folder: Path, record: Any) -> Path:
    path = folder / "in.jsonl"
    path.write_text(json.dumps(record) + "\n")
    return path


@pytest.mark.parametrize("shape", PAIRS)
def test_a_pair_of_each_shape_is_a_conversation_and_the_other_answer(tmp_path: Path, shape: str) -> None:
    found = Kept(given(tmp_path, PAIRS[shape])).only
    assert (found.turns, found.rejected) == ((ASK, GOOD), BAD)
    assert found.extra.get("score_chosen") == PAIRS[shape].get("score_chosen")


@pytest.mark.parametrize("case", BRINGING)
def test_nothing_of_a_prompt_is_lost_where_the_answers_bring_theirs(tmp_path: Path, case: str) -> None:
    """The answers' prompt was taken alone, so a system prompt beside them was never learnt."""
    beside, brought, whole = BRINGING[case]
    record = {**beside, "chosen": [*brought, THIS], "rejected": [*brought, THAT]}
    assert [(turn.role, turn.text) for turn in Kept(given(tmp_path, record)).only.turns] == [
        (turn["role"], turn["content"]) for turn in (*whole, THIS)
    ]


@pytest.mark.parametrize("answer", ["[1, 2]", '[{"name": "x"}]', '[{"role": "admin", "name": "x"}]', "[]"])
def test_an_answer_that_is_a_list_in_json_is_an_answer(tmp_path: Path, answer: str) -> None:
    """Columns hold lists of messages as such texts, so these were taken for broken ones."""
    found = Kept(given(tmp_path, {"prompt": ASK.text, "chosen": answer, "rejected": BAD.text})).only
    assert (found.turns, found.rejected) == ((ASK, Turn("assistant", answer)), BAD)


@pytest.mark.parametrize("shape", LABELS)
def test_a_label_of_each_shape_is_the_last_answers(tmp_path: Path, shape: str) -> None:
    assert Kept(given(tmp_path, LABELS[shape])).only.turns == (ASK, FullTurn("assistant", GOOD.text, label=False))


@pytest.mark.parametrize("shape", TOOLS)
def test_tools_calls_and_results_of_each_shape_are_the_same(tmp_path: Path, shape: str) -> None:
    found = Kept(given(tmp_path, TOOLS[shape])).only
    assert found.turns == (ASK, FullTurn("assistant", "", calls=CALL.calls), RESULT)
    assert found.tools == (CLOCK,)


def test_reasoning_is_a_part_of_its_answer(tmp_path: Path) -> None:
    record = {"messages": [QUESTION, {**THIS, "reasoning_content": "I think."}]}
    assert Kept(given(tmp_path, record)).only.turns[1] == FullTurn("assistant", GOOD.text, "I think.")


def test_the_tools_of_openais_pairs_stand_in_its_input(tmp_path: Path) -> None:
    record = {
        "input": {"messages": [QUESTION], "tools": [CLOCK]},
        "preferred_output": [CALLED],
        "non_preferred_output": [THAT],
    }
    found = Kept(given(tmp_path, record)).only
    assert (found.turns[1:], found.rejected, found.tools) == (
        (FullTurn("assistant", "", calls=CALL.calls),),
        BAD,
        (CLOCK,),
    )


@pytest.mark.parametrize("why", UNUSABLE)
def test_what_no_fine_tuning_can_use_is_a_reject_that_says_so(tmp_path: Path, why: str) -> None:
    reason, record = UNUSABLE[why]
    assert Kept(given(tmp_path, record)).reason == reason


@pytest.mark.parametrize("reason", DEFAULT)
def test_a_recipe_that_does_not_keep_it_rejects_it(tmp_path: Path, reason: str) -> None:
    """One that keeps reasoning alone, too."""
    assert Kept(given(tmp_path, DEFAULT[reason]), ()).reason == reason
    assert Kept(given(tmp_path, DEFAULT[reason]), ("reasoning",)).reason == reason


def test_pairs_of_one_answer_have_ids_of_their_own(tmp_path: Path) -> None:
    """The ids were of the preferred conversation alone: `ids: reject` would have dropped the second pair."""
    first, second = PAIRS["TRL, texts"], {**PAIRS["TRL, texts"], "rejected": "None."}
    one, other = (Kept(given(tmp_path, record)).only.id for record in (first, second))
    assert one != other


def written(folder: Path, kind: str, *conversations: Conversation) -> Path:
    path = folder / f"out{suffix(kind)}"
    with Writer(path, kind, full=True) as writer:
        for conversation in conversations:
            writer.write(conversation)
    return path


@pytest.mark.parametrize("kind", SUFFIXES)
def test_all_that_is_kept_is_written_and_read_back(tmp_path: Path, kind: str) -> None:
    found = Kept(written(tmp_path, kind, *KEPT.values()))
    assert (found.bad, found.conversations) == ([], list(KEPT.values()))


@pytest.mark.parametrize("name", KEPT)
def test_a_shard_holds_all_that_is_kept(name: str) -> None:
    assert load(dump(KEPT[name])) == KEPT[name]


def test_trl_gets_a_line_for_each_label(tmp_path: Path) -> None:
    lines = written(tmp_path, "trl-jsonl", RATED_TWICE).read_text().splitlines()
    first, second = map(json.loads, lines)
    assert (first["id"], first["origin"], first["label"], len(first["prompt"])) == ("twice_1", "twice", False, 1)
    assert (second["id"], second["label"], len(second["prompt"])) == ("twice_3", True, 3)
    assert not any("label" in turn for turn in second["prompt"])


def test_arguments_are_text_for_openai_and_objects_for_trl(tmp_path: Path) -> None:
    openai, trl = (
        json.loads(written(tmp_path, kind, CALLING).read_text())["messages"][1]["tool_calls"][0]["function"][
            "arguments"
        ]
        for kind in ("openai-jsonl", "trl-jsonl")
    )
    assert (json.loads(openai), trl) == (CALL.calls[0].arguments,) * 2


def test_a_turn_that_holds_only_text_is_no_other_one(tmp_path: Path) -> None:
    assert type(Kept(given(tmp_path, {"messages": [QUESTION, {**THIS, "tool_calls": None}]})).only.turns[1]) is Turn
