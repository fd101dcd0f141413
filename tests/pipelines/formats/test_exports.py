"""What people download from chat programs becomes their conversations, and every message that does not is counted."""

import json
import time
from pathlib import Path
from typing import Any

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.formats.exports.dialogue import Dialogue
from pipelines.records.conversation import Turn
from tests.pipelines.formats.inputs import Reading, damaged, reading

CITE = "\ue200cite\ue202turn0search3\ue201"


def message(role: str, text: Any, **others: Any) -> dict[str, Any]:
    """One of ChatGPT, in the shape of its export."""
    content = text if isinstance(text, dict) else {"content_type": "text", "parts": [text]}
    return {
        "author": {"role": role, "name": None, "metadata": {}},
        "content": content,
        "status": "finished_successfully",
        "weight": 1.0,
        "metadata": {},
        "recipient": "all",
        "channel": None,
        **others,
    }


def chatgpt(*nodes: tuple[str, str, dict[str, Any]], current: str = "", **others: Any) -> dict[str, Any]:
    """A conversation of nodes (name, parent, message); the last one is shown."""
    mapping = {"root": {"id": "root", "parent": None, "message": None, "children": []}}
    for name, parent, one in nodes:
        mapping[name] = {"id": name, "parent": parent, "message": {"id": name, **one}, "children": []}
    for name, node in mapping.items():
        if node["parent"]:
            mapping[node["parent"]]["children"].append(name)
    shown = {"current_node": current or nodes[-1][0], "default_model_slug": "gpt-4o"}
    return {"title": "A chat", "create_time": 1.5, "mapping": mapping, "id": "c1", **shown, **others}


def in_a_row(*messages: dict[str, Any]) -> dict[str, Any]:
    names = ["root", *(f"n{number}" for number in range(len(messages)))]
    return chatgpt(*((names[number + 1], names[number], one) for number, one in enumerate(messages)))


QUESTION, ANSWER = message("user", "How high is Everest?"), message("assistant", "It is 8,849 m high.")
BRANCHED = chatgpt(
    ("u1", "root", message("user", "Which mountain is the tallest?")),
    ("a1", "u1", message("assistant", "Mount Everest.")),
    ("x", "a1", message("user", "In feet?")),
    ("ax", "x", message("assistant", "29,032 feet.")),
    ("y", "a1", message("user", "In metres?")),
    ("ay", "y", message("assistant", "8,849 m.")),
    ("unseen", "u1", message("tool", "")),
    current="ay",
)


def read(folder: Path, *records: Any, branches: str = "shown") -> Reading:
    return reading(folder, json.dumps(records), branches=branches)


def left_out(folder: Path, *messages: dict[str, Any]) -> tuple[list[str], dict[str, int]]:
    """The texts of the one conversation, and what was left out."""
    found = read(folder, in_a_row(*messages))
    [said] = found.said
    return said, dict(found.counts.cut)


# -- ChatGPT ---------------------------------------------------------------------------------------------------------


def test_a_conversation_of_chatgpt_is_the_branch_that_the_page_shows(tmp_path: Path) -> None:
    found = read(tmp_path, BRANCHED)
    [one] = found.conversations
    assert (one.id, one.model, one.extra["title"]) == ("c1", "gpt-4o", "A chat")
    assert [turn.role for turn in one.turns] == ["user", "assistant"] * 2
    assert found.said == [["Which mountain is the tallest?", "Mount Everest.", "In metres?", "8,849 m."]]
    assert found.counts.cut == {"other_branch": 3}


def test_other_branches_are_records_of_their_own_if_a_recipe_says_so(tmp_path: Path) -> None:
    found = read(tmp_path, BRANCHED, branches="all")
    assert found.ids == ["c1", "c1_ax"]
    assert {one.origin_id for one in found.conversations} == {"c1"}, "they stay on one side of a split"
    assert found.said[1] == ["Which mountain is the tallest?", "Mount Everest.", "In feet?", "29,032 feet."]
    assert found.counts.records_in == 2


def branching(*answers: str) -> dict[str, Any]:
    """One question and its answers, the first of which is shown."""
    nodes = [(f"a{number}", "u", message("assistant", text)) for number, text in enumerate(answers)]
    return chatgpt(("u", "root", QUESTION), *nodes, current="a0")


def test_of_branches_that_say_the_same_one_is_a_record(tmp_path: Path) -> None:
    found = read(tmp_path, branching("shown", "twice", "once", "twice", "shown"), branches="all")
    assert [said[1] for said in found.said] == ["shown", "twice", "once"]


def test_a_record_has_a_thousand_branches_at_most(tmp_path: Path) -> None:
    answers = [f"answer {number}" for number in range(1001)]
    assert len(read(tmp_path, branching(*answers[:1000]), branches="all").ids) == 1000
    found = read(tmp_path, branching(*answers), branches="all")
    assert found.reasons == [("bad_shape", 1)] and "more than 1000 branches" in found.bad[0]["detail"]
    assert found.ids == [] and len(read(tmp_path, branching(*answers)).ids) == 1


def test_answers_in_a_row_are_one_text_or_from_the_first_image_on_parts(tmp_path: Path) -> None:
    picture = [{"type": "image"}]
    for said, whole in (
        (["a", " ", "b"], "a\n\nb"),
        ([" "], " "),
        ([picture], picture),
        (["a", "b", picture, "c"], [{"type": "text", "text": "a\n\nb"}, *picture, {"type": "text", "text": "c"}]),
    ):
        dialogue = Dialogue()
        for one in said:
            dialogue.say("assistant", one, one)
        assert dialogue.ended({}).record["messages"] == [{"role": "assistant", "content": whole}]


@pytest.mark.parametrize("opening", ["【1†", "\ue200cite", '<details type="reasoning"', '<details type="reasoning">'])
def test_a_mark_without_an_end_is_looked_for_once(tmp_path: Path, opening: str) -> None:
    """Each was once looked for up to the end of the text: a minute for one answer."""
    text = opening * 60_000
    tree = {"1": {"id": "1", "role": "user", "content": "q"}}
    tree["2"] = {"id": "2", "parentId": "1", "role": "assistant", "content": text}
    record = open_webui(tree, "2") if "details" in opening else in_a_row(QUESTION, message("assistant", text))
    begun = time.process_time()
    assert read(tmp_path, record).said[0][1] == text
    assert time.process_time() - begun < 5


def test_every_message_of_a_branch_is_a_turn_or_counted(tmp_path: Path) -> None:
    hidden = {"metadata": {"is_visually_hidden_from_conversation": True}}
    context = {"content_type": "user_editable_context", "user_profile": "I am a nurse."}
    unseen = [
        message("user", context, **hidden),
        message("system", "", weight=0, **hidden),
        message("assistant", "", recipient="web.run"),
        message("tool", "a page"),
        message("assistant", {"content_type": "thoughts", "thoughts": [{"summary": "s", "content": "c"}]}),
        message("assistant", {"content_type": "reasoning_recap", "content": "Thought for 7s"}),
        message("assistant", '{"search_query": "x"}', recipient="web"),
        message("assistant", "I look it up first.", channel="commentary"),
    ]
    said, cut = left_out(tmp_path, *unseen[:2], QUESTION, *unseen[2:], {**ANSWER, "channel": "final"})
    assert said == ["How high is Everest?", "It is 8,849 m high."]
    assert cut == {"custom_instructions": 1, "hidden": 1, "tool_turn": 3, "thoughts": 2, "preamble": 1}
    assert sum(cut.values()) == len(unseen)


def test_marks_of_citations_are_no_part_of_an_answer_and_names_are(tmp_path: Path) -> None:
    text = f'Water boils at 100 C {CITE}. See the table【8†source】 of \ue200entity\ue202["city","Paris"]\ue201.'
    found = read(tmp_path, in_a_row(QUESTION, message("assistant", text)))
    assert found.said[0][1] == "Water boils at 100 C. See the table of Paris."
    assert found.counts.changed == {"citations": 3}


def test_a_spoken_turn_is_its_transcript(tmp_path: Path) -> None:
    def spoken(text: str) -> dict[str, Any]:
        parts = [{"content_type": "audio_transcription", "text": text}, {"content_type": "audio_asset_pointer"}]
        return {"content_type": "multimodal_text", "parts": parts}

    said, _ = left_out(tmp_path, message("user", spoken("Which bird?")), message("assistant", spoken("The ostrich.")))
    assert said == ["Which bird?", "The ostrich."]


def test_an_image_rejects_a_conversation_by_name(tmp_path: Path) -> None:
    parts = [{"content_type": "image_asset_pointer", "asset_pointer": "file-1"}, "What is this?"]
    seen = message("user", {"content_type": "multimodal_text", "parts": parts})
    [bad] = read(tmp_path, in_a_row(seen, ANSWER)).bad
    assert "'image_asset_pointer'; only text parts are read" in bad["detail"]


def test_an_interrupted_answer_costs_its_round_and_what_follows(tmp_path: Path) -> None:
    cut_off = message("assistant", "Once upon a time in", status="in_progress")
    said, cut = left_out(tmp_path, QUESTION, ANSWER, message("user", "Tell a story"), cut_off, QUESTION, ANSWER)
    assert (said, cut) == (["How high is Everest?", "It is 8,849 m high."], {"interrupted": 4})
    ended = message("assistant", "Once", metadata={"finish_details": {"type": "interrupted"}})
    assert read(tmp_path, in_a_row(QUESTION, ended)).reasons == [("interrupted", 1)]


def test_a_document_beside_the_chat_is_part_of_the_answer_and_a_patch_of_it_tells_none(tmp_path: Path) -> None:
    plan = json.dumps({"name": "plan", "type": "document", "content": "# Plan\n1. Buy"})
    code = json.dumps({"name": "p", "type": "code/python", "content": "print('```')\n"})
    made = [message("assistant", text, recipient="canmore.create_textdoc") for text in (plan, code)]
    patch = message("assistant", '{"updates": []}', recipient="canmore.update_textdoc")
    said, _ = left_out(tmp_path, QUESTION, *made, message("tool", "ok"), message("assistant", "I drafted both."))
    assert said[1] == "# Plan\n1. Buy\n\n````python\nprint('```')\n````\n\nI drafted both."
    assert left_out(tmp_path, QUESTION, made[0], QUESTION, patch, ANSWER) == (
        [said[0], "# Plan\n1. Buy"],
        {"canvas": 3},
    )


@pytest.mark.parametrize(
    ("record", "told"),
    [
        ({"title": "t", "id": "c", "conversation_id": "c"}, "mapping is None; an object of messages is needed"),
        ({"id": "c", "mapping": {}}, "its messages have no last one"),
        ({"id": "c", "mapping": {"a": {"parent": "b"}, "b": {"parent": "a"}}, "current_node": "a"}, "its own ancestor"),
        ({"id": "c", "mapping": {"a": {"message": {"content": "x"}}}, "current_node": "a"}, "of another form"),
    ],
)
def test_a_damaged_export_of_chatgpt_names_itself(tmp_path: Path, record: dict[str, Any], told: str) -> None:
    found = read(tmp_path, record, BRANCHED)
    [detail] = [line["detail"] for line in found.bad if line["reason"] == "bad_shape"]
    assert detail.startswith("this is a ChatGPT export") and told in detail
    assert found.ids == ["c1"]


# -- other programs --------------------------------------------------------------------------------------------------


def claude(*messages: dict[str, Any]) -> dict[str, Any]:
    return {"uuid": "c", "name": "Tides", "account": {"uuid": "u"}, "chat_messages": list(messages)}


def said_in_claude(sender: str, *content: dict[str, Any], **others: Any) -> dict[str, Any]:
    return {
        "uuid": "m",
        "sender": sender,
        "text": "",
        "content": list(content),
        "attachments": [],
        "files": [],
        **others,
    }


ASKED = said_in_claude("human", {"type": "text", "text": "What makes the tides?"})
TOLD = said_in_claude("assistant", {"type": "text", "text": "The moon."})


def test_claude(tmp_path: Path) -> None:
    pasted = {"file_name": "paste.txt", "extracted_content": "a long question, pasted"}
    work = [{"type": "thinking", "thinking": "hm"}, {"type": "tool_use", "name": "web_search", "input": {}},
            {"type": "tool_result", "content": []}]  # fmt: skip
    texts = [{"type": "text", "text": text} for text in ("The moon ", "makes them.")]
    placeholder = "```\nThis block is not supported on your current device yet.\n```"
    found = read(
        tmp_path, claude(said_in_claude("human", attachments=[pasted]),
                         said_in_claude("assistant", *work, *texts, text=placeholder), ASKED, TOLD)
    )  # fmt: skip
    [one] = found.conversations
    assert one.turns[:2] == (Turn("user", "a long question, pasted"), Turn("assistant", "The moon makes them."))
    assert (one.id, one.extra, len(one.turns)) == ("c", {"title": "Tides"}, 4)
    assert found.counts.cut == {"thoughts": 1, "tool_turn": 2}


def test_an_artifact_of_claude_is_part_of_the_answer_and_a_patch_of_it_tells_none(tmp_path: Path) -> None:
    def artifact(**given: str) -> dict[str, Any]:
        return {"type": "tool_use", "name": "artifacts", "input": given}

    code = artifact(command="create", type="application/vnd.ant.code", language="python", content="print(1)")
    text = {"type": "text", "text": "Here it is:"}
    patch = said_in_claude("assistant", artifact(command="update", old_str="1", new_str="2"))
    found = read(tmp_path, claude(ASKED, said_in_claude("assistant", text, code), ASKED, patch))
    assert found.said == [["What makes the tides?", "Here it is:\n\n```python\nprint(1)\n```"]]
    assert found.counts.cut == {"canvas": 2}


def test_branches_of_claude_go_by_the_parents(tmp_path: Path) -> None:
    first = {"uuid": "1", "parent_message_uuid": "00000000-0000-4000-8000-000000000000"}
    tree = [{**ASKED, **first}, {**TOLD, "uuid": "2", "parent_message_uuid": "1"},
            {**said_in_claude("assistant", {"type": "text", "text": "Moon and sun."}), "uuid": "3",
             "parent_message_uuid": "1"}]  # fmt: skip
    assert read(tmp_path, claude(*tree)).said == [["What makes the tides?", "Moon and sun."]]
    assert len(read(tmp_path, claude(*tree), branches="all").said) == 2


def test_ai_studio(tmp_path: Path) -> None:
    chunks = [
        {"role": "user", "text": "Is it?", "tokenCount": 3},
        {"role": "model", "text": "I verify.", "isThought": True},
        {"role": "model", "text": "Yes, it is.", "finishReason": "STOP"},
        {"role": "user", "text": "Why?"},
        {"role": "model", "text": "Since", "finishReason": "MAX_TOKENS"},
    ]
    about = {"runSettings": {"model": "models/gemini-2.5-pro"}, "systemInstruction": {"parts": [{"text": "Be brief."}]}}
    prompt: dict[str, Any] = {**about, "chunkedPrompt": {"chunks": chunks}}
    found = reading(tmp_path, json.dumps(prompt, indent=1))
    assert found.said == [["Be brief.", "Is it?", "Yes, it is."]]
    assert found.conversations[0].model == "gemini-2.5-pro"
    assert found.counts.cut == {"thoughts": 1, "interrupted": 2}
    prompt["chunkedPrompt"] = {"chunks": [{"role": "user", "driveImage": {"id": "x"}}, *chunks[2:3]]}
    assert "'driveImage'; only text parts are read" in reading(tmp_path, json.dumps(prompt)).bad[0]["detail"]


def open_webui(messages: dict[str, Any], current: str) -> dict[str, Any]:
    chat = {"title": "T", "models": ["m"], "history": {"currentId": current, "messages": messages}}
    return {"id": "o1", "user_id": "u1", "title": "T", "chat": chat}


def test_open_webui(tmp_path: Path) -> None:
    thought = '<details type="reasoning" done="true"><summary>Thought for 3 seconds</summary>\n> hm</details>\n255'
    answer = {"role": "assistant", "content": thought, "model": "r1", "done": True, "annotation": {"rating": -1}}
    messages = {
        "1": {"id": "1", "parentId": None, "role": "user", "content": "What is 15 * 17?"},
        "2": {"id": "2", "parentId": "1", "role": "assistant", "content": "256"},
        "3": {"id": "3", "parentId": "1", **answer},
    }
    found = read(tmp_path, open_webui(messages, "3"))
    [one] = found.conversations
    assert (one.model, found.said) == ("r1", [["What is 15 * 17?", "255"]])
    assert one.extra["turn_keys"] == [{}, {"annotation": {"rating": -1}}], "a thumb goes with its answer"
    assert found.counts.cut == {"thoughts": 1, "other_branch": 1}
    assert read(tmp_path, open_webui(messages, "3"), branches="all").said[1] == ["What is 15 * 17?", "256"]


def test_open_webui_of_old_has_a_list_alone(tmp_path: Path) -> None:
    messages = [{"role": "user", "content": "What is 15 * 17?"}, {"role": "assistant", "content": "255"}]
    found = read(tmp_path, {"id": "o", "chat": {"models": ["m"], "messages": messages}})
    assert (found.said, found.conversations[0].model) == ([["What is 15 * 17?", "255"]], "m")


LIBRE = [
    {"messageId": "1", "parentMessageId": "00000000-0000-0000-0000-000000000000", "sender": "User",
     "text": "The capital of Norway?", "isCreatedByUser": True},
    {"messageId": "2", "parentMessageId": "1", "text": "Bergen.", "isCreatedByUser": False, "model": "gpt-4o"},
    {"messageId": "3", "parentMessageId": "1", "isCreatedByUser": False, "model": "gpt-4o",
     "content": [{"type": "think", "think": "hm"}, {"type": "text", "text": "Oslo."}]},
]  # fmt: skip


def test_librechat_as_a_list_and_as_a_tree(tmp_path: Path) -> None:
    record = {"conversationId": "lc", "title": "T", "options": {"promptPrefix": "Be brief."}, "messages": LIBRE}
    tree = {**record, "recursive": True, "messages": [{**LIBRE[0], "children": LIBRE[1:]}]}
    for one in (record, tree):
        found = read(tmp_path, one)
        assert (found.ids, found.said) == (["lc"], [["Be brief.", "The capital of Norway?", "Oslo."]])
        assert found.conversations[0].model == "gpt-4o"
        assert found.counts.cut == {"thoughts": 1, "other_branch": 1}


def test_grok_wraps_its_conversations(tmp_path: Path) -> None:
    def said(name: str, sender: str, text: str, parent: str) -> dict[str, Any]:
        about = {"_id": name, "sender": sender, "message": text, "model": "grok-4", "parent_response_id": parent}
        return {"response": about}

    responses = [said("1", "human", "Where is Oslo?", ""), said("2", "ASSISTANT", "In Norway.", "1")]
    export = {"conversations": [{"conversation": {"id": "g", "title": "T"}, "responses": responses}], "projects": []}
    found = reading(tmp_path, json.dumps(export))
    assert (found.ids, found.said) == (["g"], [["Where is Oslo?", "In Norway."]])
    assert found.conversations[0].model == "grok-4"


def test_sillytavern_tells_who_speaks_by_a_flag(tmp_path: Path) -> None:
    def chat(user: str, answer: str) -> list[dict[str, Any]]:
        return [
            {"user_name": user, "character_name": "Bot", "chat_metadata": {}},
            {"name": "System", "is_user": False, "is_system": True, "mes": "joined"},
            {"name": user, "is_user": True, "is_system": False, "mes": "Hi?"},
            {"name": "Bot", "is_user": False, "is_system": False, "mes": answer},
        ]

    found = reading(tmp_path, "\n".join(map(json.dumps, [*chat("You", "Hello."), *chat("Ann", "Hello, Ann.")])))
    assert (found.said, found.lines) == ([["Hi?", "Hello."], ["Hi?", "Hello, Ann."]], [1, 5])
    assert found.counts.cut == {"hidden": 2}


@pytest.mark.parametrize(
    ("record", "reason", "told"),
    [
        ({"guild": {}, "channel": {}, "messages": [{"author": {}}]}, "not_read", "this is a Discord export"),
        ({"header": "Gemini Apps", "title": "Prompted x", "time": "t"}, "not_read", "a Google Takeout of activities"),
        ({"role": "user", "content": "x"}, "not_read", "this is a single message"),
        ({"uuid": "c", "chat_messages": "x"}, "bad_shape", "no known shape"),
        ({"uuid": "c", "chat_messages": ["x"]}, "bad_shape", "this is a Claude export: chat_messages[0] is 'x'"),
    ],
)
def test_a_known_format_that_is_not_read_is_named(tmp_path: Path, record: Any, reason: str, told: str) -> None:
    [bad] = read(tmp_path, record).bad
    assert bad["reason"] == reason and told in bad["detail"]


def test_the_reject_file_holds_each_message_that_was_left_out(tmp_path: Path) -> None:
    found = read(tmp_path, in_a_row(QUESTION, message("tool", "a page"), ANSWER))
    [line] = found.bad
    assert (line["reason"], orjson.loads(line["raw"])["content"]["parts"]) == ("tool_turn", ["a page"])


EXPORTS = [
    BRANCHED,
    in_a_row(QUESTION, message("assistant", {"content_type": "thoughts"}), ANSWER),
    claude(ASKED, TOLD),
    {"systemInstruction": {"parts": [{"text": "s"}]}, "chunkedPrompt": {"chunks": [{"role": "user", "text": "q"}]}},
    open_webui({"1": {"id": "1", "parentId": None, "role": "user", "content": "q", "files": []}}, "1"),
    {"conversationId": "lc", "options": {}, "messages": LIBRE},
    {"conversation": {"id": "g"}, "responses": [{"response": {"_id": "1", "sender": "human", "message": "q"}}]},
    {"user_name": "You", "character_name": "Bot", "chat": [{"is_user": True, "mes": "q", "extra": {}}]},
]


@settings(max_examples=200, deadline=None)
@given(st.data(), st.sampled_from(EXPORTS), st.sampled_from(["shown", "all"]))
def test_a_field_of_another_kind_costs_its_record_and_never_the_run(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject, record: Any, branches: str
) -> None:
    records = [damaged(record, data.draw), {**in_a_row(QUESTION, ANSWER), "id": "last"}]
    assert reading(tmp_path_factory.mktemp("in"), json.dumps(records), branches=branches).ids[-1] == "last"
