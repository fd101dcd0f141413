"""Public datasets are read as they are downloaded: a row of this table for each, in its exact shape."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.formats.translation import without
from tests.pipelines.formats.inputs import Reading, damaged, reading

HUMAN, GPT = {"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}
USER, ASSISTANT = {"role": "user", "content": "q"}, {"role": "assistant", "content": "a"}
WILD = {"hashed_ip": "x", "country": "US", "language": "English", "toxic": False, "redacted": False}
BOTH = [USER, ASSISTANT]
FLAGS = {"language": "English", "openai_moderation": [{"flagged": True}], "redacted": False}

READ: dict[str, tuple[Any, list[str]]] = {
    "WildChat": ({"conversation_hash": "w", "conversation": [USER | WILD, ASSISTANT | WILD], **FLAGS}, ["q", "a"]),
    "LMSYS": ({"conversation_id": "l", "model": "m", "conversation": BOTH, "turn": 1, **FLAGS}, ["q", "a"]),
    "UltraChat": ({"id": "0", "data": ["q", "a", "q2", "a2"]}, ["q", "a", "q2", "a2"]),
    "UltraChat 200k": ({"prompt": "q", "prompt_id": "x", "messages": [USER, ASSISTANT]}, ["q", "a"]),
    "Dolly": ({"instruction": "q", "context": "c", "response": "a", "category": "closed_qa"}, ["q\nInput:\nc", "a"]),
    "OpenOrca": ({"id": "n.1", "system_prompt": "s", "question": "q", "response": "a"}, ["s", "q", "a"]),
    "OpenOrca without a system": ({"id": "n.1", "system_prompt": "", "question": "q", "response": "a"}, ["q", "a"]),
    "Capybara": ({"source": "x", "conversation": [{"input": "q", "output": "a"}] * 2}, ["q", "a"] * 2),
    "Magpie": ({"uuid": "m", "instruction": "q", "response": "a", "conversations": [HUMAN, GPT]}, ["q", "a"]),
    "Magpie, one round": ({"uuid": "m", "instruction": "q", "response": "a", "intent": "i"}, ["q", "a"]),
    "Belle": ({"id": "b", "conversations": [{"human": "q", "assistant": "a"}]}, ["q", "a"]),
    "MOSS": ({"conversation": [{"human": "q", "assistant": "a"}]}, ["q", "a"]),
    "Belle, one round": ({"instruction": "q", "input": "", "output": "a"}, ["q", "a"]),
    "GPTeacher": ({"instruction": "q", "input": "i", "response": "a"}, ["q\nInput:\ni", "a"]),
    "No Robots": ({"prompt": "q", "prompt_id": "p", "messages": [USER, ASSISTANT], "category": "c"}, ["q", "a"]),
    "prompt and completion": ({"prompt": "q", "completion": "a"}, ["q", "a"]),
    "prompt and completion of messages": ({"prompt": [USER], "completion": [ASSISTANT]}, ["q", "a"]),
    "lists of messages as JSON": ({"prompt": json.dumps([USER]), "completion": json.dumps([ASSISTANT])}, ["q", "a"]),
    "prompt and response": ({"prompt": "q", "response": "a"}, ["q", "a"]),
    "question and answer": ({"question": "q", "answer": "a"}, ["q", "a"]),
    "Vertex": (
        {"systemInstruction": {"parts": [{"text": "s"}]}, "contents": [
            {"role": "user", "parts": [{"text": "q"}]}, {"role": "model", "parts": [{"text": "a"}, {"text": "b"}]}]},
        ["s", "q", "ab"],
    ),
    "text-generation-webui": ({"internal": [["q", "a"]], "visible": [["q", "a"]]}, ["q", "a"]),
    "text-generation-webui with a greeting": (
        {"internal": [["<|BEGIN-VISIBLE-CHAT|>", "Hi."], ["q", "a"]], "visible": []}, ["Hi.", "q", "a"]),
    "lists of turns as JSON": ({"id": "s", "conversations": json.dumps([HUMAN, GPT])}, ["q", "a"]),
    "Guanaco": ({"text": "### Human: q### Assistant: a"}, ["q", "a"]),
    "Alpaca in one text": (
        {"text": "Below is a task.\n\n### Instruction:\nq\n\n### Input:\ni\n\n### Response:\na"},
        ["Below is a task.", "q\nInput:\ni", "a"],
    ),
    "ChatML": ({"text": "<|im_start|>user\nq<|im_end|>\n<|im_start|>assistant\na<|im_end|>"}, ["q", "a"]),
    "Llama 2": ({"text": "<s>[INST] <<SYS>>\ns\n<</SYS>>\n\nq [/INST] a </s><s>[INST] q2 [/INST] a2 </s>"},
                ["s", "q", "a", "q2", "a2"]),
    "Anthropic's HH as text": ({"text": "\n\nHuman: q\n\nAssistant: a"}, ["q", "a"]),
    "Glaive": ({"system": "SYSTEM: s", "chat": "USER: q\n\n\nASSISTANT: a <|endoftext|>\n\n\n"}, ["s", "q", "a"]),
}  # fmt: skip


def read(folder: Path, record: Any, branches: str = "shown") -> Reading:
    return reading(folder, json.dumps(record) + "\n", "in.jsonl", branches=branches)


@pytest.mark.parametrize("name", READ)
def test_a_record_of_each_dataset_is_a_conversation(tmp_path: Path, name: str) -> None:
    record, said = READ[name]
    found = read(tmp_path, record)
    assert (found.said, found.bad) == ([said], [])


def test_the_flags_of_wildchat_and_lmsys_go_with_record_and_turn(tmp_path: Path) -> None:
    [wild] = read(tmp_path, READ["WildChat"][0]).conversations
    assert (wild.id, wild.extra["openai_moderation"]) == ("w", [{"flagged": True}])
    assert [keys["toxic"] for keys in wild.extra["turn_keys"]] == [False, False]
    [lmsys] = read(tmp_path, READ["LMSYS"][0]).conversations
    assert (lmsys.id, lmsys.model) == ("l", "m")
    assert lmsys.extra == {"turn": 1, **FLAGS}


def test_other_columns_are_kept(tmp_path: Path) -> None:
    assert read(tmp_path, READ["Dolly"][0]).conversations[0].extra == {"category": "closed_qa"}
    rated = {"prompt": "q", "completion": "a", "label": True}
    assert read(tmp_path, rated).conversations[0].extra == {"label": True}


# -- trees -----------------------------------------------------------------------------------------------------------


def reply(name: str, text: str, rank: int | None, *replies: Any, **others: Any) -> dict[str, Any]:
    role = "prompter" if rank is None else "assistant"
    about = {"message_id": name, "text": text, "role": role, "rank": rank, "deleted": False, "lang": "en"}
    return {**about, "replies": list(replies), **others}


TREE = {
    "message_tree_id": "t",
    "tree_state": "ready_for_export",
    "prompt": reply("p", "A book?", None,
        reply("a1", "Moby Dick.", 1),
        reply("a0", "The Sea.", 0, reply("p2", "By whom?", None, reply("a2", "Hemingway.", 0))),
        reply("a3", "I do not read.", 2, deleted=True)),
}  # fmt: skip
BEST = ["A book?", "The Sea.", "By whom?", "Hemingway."]


def flat(one: dict[str, Any], parent: str | None) -> list[dict[str, Any]]:
    own = {**{key: value for key, value in one.items() if key != "replies"}, "parent_id": parent}
    return [own, *(line for answer in one["replies"] for line in flat(answer, one["message_id"]))]


def test_the_best_path_of_openassistant_or_all(tmp_path: Path) -> None:
    found = read(tmp_path, TREE)
    assert (found.ids, found.said, dict(found.counts.cut)) == (["t"], [BEST], {"other_branch": 1})
    assert [keys["rank"] for keys in found.conversations[0].extra["turn_keys"] if "rank" in keys] == [0, 0]
    every = read(tmp_path, TREE, branches="all")
    assert (every.ids, every.said) == (["t", "t_a1"], [BEST, ["A book?", "Moby Dick."]])


def test_the_flat_files_of_openassistant_are_trees_too(tmp_path: Path) -> None:
    lines = [*flat(TREE["prompt"], None), *flat(reply("q", "A film?", None, reply("b", "Alien.", 0)), None)]  # type: ignore[arg-type]
    found = reading(tmp_path, "\n".join(map(json.dumps, lines)))
    assert (found.ids, found.said, found.lines) == (["p", "q"], [BEST, ["A film?", "Alien."]], [1, 7])


def test_a_long_chain_of_openassistant_is_one_conversation(tmp_path: Path) -> None:
    """Each message once copied the whole path before it."""
    lines = [
        reply("0", "0", None),
        *({**reply(f"{n}", f"{n}", 0 if n % 2 else None), "parent_id": f"{n - 1}"} for n in range(1, 3000)),
    ]
    found = reading(tmp_path, "\n".join(json.dumps(without(line, "replies")) for line in lines))
    assert found.said == [[str(number) for number in range(3000)]]


# -- what is refused, by name ----------------------------------------------------------------------------------------

PAIR = {"chosen": [USER, ASSISTANT], "rejected": [USER, {**ASSISTANT, "content": "no"}]}
FUNCTION = '<functioncall> {"name": "w", "arguments": \'{"city": "Rome"}\'} <|endoftext|>'
REFUSED: dict[str, tuple[Any, str, str]] = {
    "TRL's pairs": ({"prompt": "q", "chosen": "a", "rejected": "no"}, "preference", "a pair of answers"),
    "TRL's pairs of conversations": (PAIR, "preference", "a pair of answers"),
    "HH": ({"chosen": "\n\nHuman: q\n\nAssistant: a", "rejected": "\n\nHuman: q\n\nAssistant: b"},
           "preference", "a pair of answers"),
    "OpenAI's pairs": (
        {"input": {"messages": [USER]}, "preferred_output": [ASSISTANT], "non_preferred_output": [ASSISTANT]},
        "preference", "a pair of answers"),
    "Glaive with a call": (
        {"system": "SYSTEM: s", "chat": f"USER: q\n\n\nASSISTANT: {FUNCTION}\n\n\nFUNCTION RESPONSE: {{}}"},
        "tool_calls", "messages[2] has tool_calls"),
    "xLAM": (
        {"id": 0, "query": "q", "answers": '[{"name": "w", "arguments": {}}]', "tools": "[]"},
        "tool_calls", "messages[1] has tool_calls"),
    "plain text": ({"text": "It rained."}, "plain_text", "this is a text column: text has no marks of turns"),
    "Vertex with an image": (
        {"contents": [{"role": "user", "parts": [{"inlineData": {}}]}]},
        "bad_shape", "contents[0].parts[0] is 'inlineData'"),
}  # fmt: skip


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_trained_on_yet_is_refused_by_name(tmp_path: Path, name: str) -> None:
    record, reason, told = REFUSED[name]
    [bad] = read(tmp_path, record).bad
    assert bad["reason"] == reason and told in bad["detail"]


LINES = [
    *(record for record, _ in READ.values()),
    *(record for record, _, _ in REFUSED.values()),
    TREE,
    flat(TREE["prompt"], None),
]  # type: ignore[arg-type]


@settings(max_examples=200, deadline=None)
@given(st.data(), st.sampled_from(LINES), st.sampled_from(["shown", "all"]))
def test_a_field_of_another_kind_costs_its_record_and_never_the_run(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, record: Any, branches: str
) -> None:
    changed = damaged(record, data.draw)
    found = reading(
        tmp_path_factory.mktemp("in"), json.dumps([changed, {"id": "last", "messages": BOTH}]), branches=branches
    )
    assert found.ids[-1] == "last"


# -- wrappers --------------------------------------------------------------------------------------------------------

RECORDS = [{"id": name, "conversations": [HUMAN, GPT]} for name in ("r0", "r1")]


@pytest.mark.parametrize(
    "wrapped",
    [
        {"version": 1, "data": RECORDS},
        {"conversations": RECORDS},
        {"train": RECORDS[:1], "test": RECORDS[1:]},
        {"rows": [{"instruction": "q", "output": "a", **{"id": record["id"]}} for record in RECORDS], "num_rows": 2},
    ],
)
@pytest.mark.parametrize("indent", [None, 1])
def test_a_list_in_a_wrapper_is_its_records(tmp_path: Path, wrapped: Any, indent: int | None) -> None:
    found = reading(tmp_path, json.dumps(wrapped, indent=indent))
    assert (found.ids, found.said, found.bad) == (["r0", "r1"], [["q", "a"]] * 2, [])


def test_a_record_is_no_wrapper_whatever_it_holds_beside_its_turns(tmp_path: Path) -> None:
    found = read(tmp_path, {**RECORDS[0], "sources": RECORDS})
    assert found.ids == ["r0"] and found.conversations[0].extra == {"sources": RECORDS}
