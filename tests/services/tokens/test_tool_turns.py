"""Calls of tools and reasoning in training data: rendered as transformers does, learnt where an assistant said them."""

import json
from itertools import groupby
from typing import Any, cast

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models

from services.errors import TemplateError
from services.tokens.answer_format import with_reasoning
from services.tokens.supervision import BESIDE_CALL, REASONING, SupervisedSequence
from services.tokens.tokenization import ChatTokenizer
from services.tokens.tool_turns import NoPlaceForTools
from services.wire.messages import CallMessage, Message, ResultMessage, ToolCall
from tests.services.tokens.chat_tokenizers import fast
from tests.services.tokens.test_families import CHANNELS, CHATML, OPENS, QWEN3, text

SYSTEM = (
    "{% if tools %}{{ '<|im_start|>system\n' }}{% for t in tools %}{{ t | tojson }}{% endfor %}{{ '<|im_end|>\n' }}"
    "{% endif %}"
)
RESULTS = "{% elif m.role == 'tool' %}{{ '<|im_start|>user\n<response>' + m.content + '</response><|im_end|>\n' }}"
ASKS = "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
TURNS = "{% else %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endif %}"
CALL = "{{ '<call>' + c.function.name + ' ' }}{{ c.function.arguments | tojson }}{{ '</call>' }}"


MARKS = (
    "<|im_start|>",
    "<|im_end|>",
    "<|endoftext|>",
    "<|return|>",
    "<|channel|>",
    "<|message|>",
    "<|start|>",
    "<|end|>",
)


def reference(own: str) -> Any:
    """A tokenizer of transformers: every character is a token, and so is every mark."""
    backend = Tokenizer(models.BPE({chr(code): code for code in range(0x180)}, []))
    backend.decoder = decoders.Fuse()
    backend.add_special_tokens([AddedToken(mark, normalized=False) for mark in MARKS])
    return fast(backend, own=own, bos_token="<|im_start|>", eos_token="<|endoftext|>", unk_token=None)


def calling(call: str = CALL, said: str = "m.content", condition: str = "m.tool_calls") -> str:
    """A template that writes an assistant's calls so."""
    return (
        SYSTEM + "{% for m in messages %}{% if m.role == 'assistant' and " + condition + " %}"
        "{{ '<|im_start|>assistant\n' + " + said + " }}{% for c in m.tool_calls %}" + call + "{% endfor %}"
        "{{ '<|im_end|>\n' }}" + RESULTS + TURNS + ASKS
    )


OBJECTS = calling()  # Qwen, Hermes
AS_TEXT = calling("{{ '<call>' + c.function.name + ' ' + c.function.arguments + '</call>' }}")  # DeepSeek, Kimi
NO_CONTENT = calling(said="''", condition="m.content is none")  # DeepSeek: a call is a turn that says nothing
ONE_CALL = calling().replace("in m.tool_calls %}", "in m.tool_calls[:1] %}")

CLOCK = {
    "type": "function",
    "function": {"name": "clock", "description": "The time.", "parameters": {"type": "object"}},
}
ASK, SAID = Message("user", "What time is it in Köln?"), Message("assistant", "It is noon.")
RESULT = ResultMessage(cast(Any, "tool"), "12:00", call="c1", name="clock")


def call(*cities: str, said: str = "", reasoning: str = "") -> CallMessage:
    return CallMessage("assistant", said, reasoning, tuple(ToolCall("clock", {"city": city}, "c1") for city in cities))


def samples(own: str, *messages: Message, **options: Any) -> tuple[ChatTokenizer, list[SupervisedSequence]]:
    chat = ChatTokenizer(reference(own))
    return chat, chat.samples(messages, tools=[CLOCK], **options)


def learnt(own: str, *messages: Message, **options: Any) -> list[str]:
    chat, found = samples(own, *messages, **options)
    texts = []
    for sequence in found:
        runs = groupby(zip(sequence.ids, sequence.mask, strict=True), key=lambda pair: pair[1])
        texts += [text(chat, [token for token, _ in run]) for supervised, run in runs if supervised]
    return texts


def theirs(own: str, *messages: Message, as_text: bool) -> list[int]:
    """What transformers makes of the same conversation."""
    turns: list[dict[str, Any]] = []
    for m in messages:
        turn: dict[str, Any] = {"role": m.role, "content": m.content, **with_reasoning(m.reasoning)}
        if isinstance(m, CallMessage):
            calls = [(c.name, json.dumps(c.arguments, ensure_ascii=False) if as_text else c.arguments) for c in m.calls]
            turn["tool_calls"] = [{"function": {"name": name, "arguments": arguments}} for name, arguments in calls]
        turns.append(turn)
    return list(reference(own).apply_chat_template(turns, tools=[CLOCK])["input_ids"])


@pytest.mark.parametrize(("own", "as_text"), [(OBJECTS, False), (AS_TEXT, True)])
def test_a_conversation_with_calls_has_the_ids_of_transformers(own: str, as_text: bool) -> None:
    messages = [ASK, call("Köln"), RESULT, SAID]
    _, (sequence,) = samples(own, *messages)
    assert sequence.ids == theirs(own, *messages, as_text=as_text)


@pytest.mark.parametrize("own", [OBJECTS, AS_TEXT, NO_CONTENT])
def test_a_call_is_learnt_to_its_end_and_its_result_is_not(own: str) -> None:
    messages = [ASK, call("Köln"), RESULT, SAID]
    called = '<call>clock {"city": "Köln"}</call><|im_end|>'
    assert learnt(own, *messages) == [called, "It is noon.<|im_end|>"]


def test_several_calls_and_what_is_said_beside_them_are_learnt() -> None:
    (first, _) = learnt(OBJECTS, ASK, call("Köln", "Bonn", said="I look."), RESULT, RESULT, SAID)
    assert first == 'I look.<call>clock {"city": "Köln"}</call><call>clock {"city": "Bonn"}</call><|im_end|>'


def test_what_a_template_leaves_out_beside_a_call_is_told() -> None:
    own = calling(said="''")
    _, (sequence,) = samples(own, ASK, call("Köln", said="I look."), RESULT, SAID)
    assert sequence.left_out == {BESIDE_CALL}
    assert not samples(OBJECTS, ASK, call("Köln", said="I look."), RESULT, SAID)[1][0].left_out


def test_a_call_that_the_template_drops_is_refused() -> None:
    with pytest.raises(TemplateError, match="does not write a call of 'clock'; if it takes one call at a time"):
        samples(ONE_CALL, ASK, call("Köln", "Bonn"), RESULT, RESULT, SAID)


def test_a_template_without_tools_is_refused_by_what_it_lacks() -> None:
    with pytest.raises(NoPlaceForTools, match="no place for an assistant's calls and the tools' definitions"):
        samples(CHATML, ASK, call("Köln"), RESULT, SAID)
    with pytest.raises(NoPlaceForTools, match="no place for the tools' definitions; choose a model"):
        samples(CHATML, ASK, SAID)


def test_a_result_that_no_call_asked_for_is_refused() -> None:
    with pytest.raises(TemplateError, match=r"messages\[1\]\.role='tool': .* a tool's results right behind its call"):
        samples(OBJECTS, ASK, RESULT, SAID)


@pytest.mark.parametrize("where", ["result", "argument", "tool"])
def test_a_control_token_in_a_tools_text_stays_text(where: str) -> None:
    typed = {name: f"x<|im_end|>{name}" if name == where else name for name in ("result", "argument", "tool")}
    tool = {"type": "function", "function": {"name": "clock", "description": typed["tool"]}}
    result = ResultMessage(cast(Any, "tool"), typed["result"], call="c1")
    chat = ChatTokenizer(reference(OBJECTS))
    (sequence,) = chat.samples([ASK, call(typed["argument"]), result, SAID], tools=[tool])
    end = chat.decoder().token_to_id("<|im_end|>")
    assert sequence.ids.count(end) == 5
    assert typed[where] in text(chat, sequence.ids)


# ---- reasoning

THOUGHT = Message("assistant", "It is noon.", "Twelve,\n\nhm.")


def test_reasoning_is_learnt_where_the_template_writes_it() -> None:
    assert learnt_without_tools(QWEN3, ASK, THOUGHT) == ["<think>\nTwelve,\n\nhm.\n</think>\n\nIt is noon.<|im_end|>"]


def test_each_answer_is_a_sample_where_the_reasoning_of_earlier_ones_is_dropped() -> None:
    chat = ChatTokenizer(reference(QWEN3))
    first, second = chat.samples([ASK, THOUGHT, ASK, THOUGHT])
    assert second.ids[: second.mask.index(1)] == chat.render([ASK, THOUGHT, ASK])
    assert [text(chat, sequence.ids).count("Twelve") for sequence in (first, second)] == [1, 1]


def test_reasoning_that_the_prompt_alone_opens_is_learnt_and_closed() -> None:
    assert learnt_without_tools(OPENS, ASK, THOUGHT) == ["Twelve,\n\nhm.\n</think>\n\nIt is noon.<|im_end|>"]


def test_an_answer_behind_an_open_reasoning_closes_it_though_the_template_does_not() -> None:
    """Nemotron: the whole conversation begins with the prompt, and the reader got the answer as reasoning."""
    own = (
        "{% for m in messages %}{{ '<|im_start|>' + m.role + '\n' + ('<think>\n' if m.role == 'assistant' else '') }}"
        "{{ m.content + '<|im_end|>\n' }}{% endfor %}"
        "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n<think>\n' }}{% endif %}"
    )
    assert learnt_without_tools(own, ASK, SAID) == ["\n</think>\n\nIt is noon.<|im_end|>"]
    assert learnt_without_tools(own, ASK, THOUGHT) == ["Twelve,\n\nhm.\n</think>\n\nIt is noon.<|im_end|>"]


CLOSES = (  # DeepSeek V3.2: the prompt has both marks, an answer of the past the closing one
    "{% for m in messages %}{% if m.role == 'assistant' %}{{ '<|im_start|>assistant\n' }}"
    "{{ '<think>' + m.reasoning if thinking and m.reasoning else '' }}{{ '</think>' + m.content + '<|im_end|>\n' }}"
    "{% else %}{{ '<|im_start|>' + m.role + '\n' + m.content + '<|im_end|>\n' }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n<think>' + ('' if thinking else '</think>') }}{% endif %}"
)


def test_a_mark_that_closes_the_reasoning_in_the_prompt_is_not_learnt_again() -> None:
    """A reader got `</think>` before every answer."""
    assert learnt_without_tools(CLOSES, ASK, SAID) == ["It is noon.<|im_end|>"]


def test_reasoning_that_no_prompt_leads_to_is_left_out_and_told() -> None:
    for own in (CHATML, CLOSES):
        chat = ChatTokenizer(reference(own))
        (sequence,) = chat.samples([ASK, THOUGHT])
        assert sequence.left_out == {REASONING}
        assert "Twelve" not in text(chat, sequence.ids)
    (switched,) = ChatTokenizer(reference(CLOSES)).samples([ASK, THOUGHT], thinking=True)
    assert not switched.left_out


def test_data_without_thinking_train_what_serving_without_thinking_renders() -> None:
    chat = ChatTokenizer(reference(QWEN3))
    (sequence,) = chat.samples([ASK, THOUGHT], thinking=False)
    start = sequence.mask.index(1)
    assert sequence.ids[:start] == chat.render([ASK], thinking=False)
    assert text(chat, sequence.ids[start:]) == "It is noon.<|im_end|>"
    assert sequence.left_out == {REASONING}
    assert not chat.samples([ASK, SAID], thinking=False)[0].left_out


def test_reasoning_in_a_channel_of_its_own_is_learnt() -> None:
    own = CHANNELS.replace(
        "{{ '<|start|>assistant<|channel|>final",
        "{% if m.thinking and loop.last %}"
        "{{ '<|start|>assistant<|channel|>analysis<|message|>' + m.thinking + '<|end|>' }}{% endif %}"
        "{{ '<|start|>assistant<|channel|>final",
    )
    (said,) = learnt_without_tools(own, ASK, THOUGHT)
    thought = "<|channel|>analysis<|message|>Twelve,\n\nhm.<|end|><|start|>assistant"
    assert said == f"{thought}<|channel|>final<|message|>It is noon.<|return|>"


def test_a_template_that_always_asks_for_the_next_answer_ends_turns_where_they_end() -> None:
    """An early Llama 3: the model learnt the next header too, and a reader got `assistant` behind every answer."""
    own = "{% for m in messages %}{{ '<|im_start|>' + m.role + '<|message|>' + m.content + '<|im_end|>' }}{% endfor %}"
    own += "{{ '<|im_start|>assistant<|message|>' }}"
    assert learnt_without_tools(own, ASK, SAID) == ["It is noon.<|im_end|>"]
    chat = ChatTokenizer(reference(own))
    assert {text(chat, [token]) for token in chat.stop_token_ids} == {"<|im_end|>", "<|endoftext|>"}


def learnt_without_tools(own: str, *messages: Message) -> list[str]:
    chat = ChatTokenizer(reference(own))
    return [
        text(chat, [token for token, mask in zip(s.ids, s.mask, strict=True) if mask]) for s in chat.samples(messages)
    ]
