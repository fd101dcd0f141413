"""Requests with tools, from the model's template to the calls in its answer, for a template of each family."""

from dataclasses import replace
from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models

from services.errors import InvalidRequest, Unsupported
from services.grammar.notations import EBNF
from services.tokens.tokenization import ChatTokenizer
from services.wire.messages import CallMessage, ChatRequest, Message, ResultMessage, SamplingDefaults, ToolCall
from tests.services.tokens.chat_tokenizers import fast
from workers.engine import ModelLimits
from workers.planner import ChatPlanner

SPECIAL = ("<|im_start|>", "<|im_end|>", "[TOOL_CALLS]", "[ARGS]", "<|python_tag|>", "<think>", "</think>")
HEADS = ("<|start|>", "<|channel|>", "<|constrain|>", "<|message|>", "<|call|>", "<|end|>", "<|eom|>")
_TURNS = "{% else %}{{ '<|im_start|>' + m.role + '\n' + (m.content or '') + '<|im_end|>\n' }}{% endif %}{% endfor %}"
_ASKS = "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}OPENED{% endif %}"
_TOOLS = "{% if tools %}{% for t in tools %}{{ t | tojson }}{% endfor %}{% endif %}{% for m in messages %}"


def template(called: str, *, ids: str = "", opened: str = "", before: str = "") -> str:
    """A template that writes calls so. `ids`: a condition under which it refuses them."""
    checked = (
        f"{{% if {ids} %}}{{{{ raise_exception('Tool call IDs should be alphanumeric') }}}}{{% endif %}}" if ids else ""
    )
    call = f"{{% if m.tool_calls %}}{{{{ '<|im_start|>assistant\n' + (m.content or '') }}}}{before}"
    each = f"{{% for c in m.tool_calls %}}{checked}{called}{{% endfor %}}{{{{ '<|im_end|>\n' }}}}"
    return _TOOLS + call + each + _TURNS + _ASKS.replace("OPENED", opened)


def _object(key: str, end: str = "}") -> str:
    return (
        '{{ \'{"name": "\' + c.function.name + \'", "'
        + key
        + "\": ' }}{{ c.function.arguments | tojson }}{{ '"
        + end
        + "' }}"
    )


HERMES = template("{{ '<tool_call>\n' }}" + _object("arguments", "}\n</tool_call>"))
TEMPLATES = {
    "hermes": HERMES,
    "mistral": template(
        "{{ '[TOOL_CALLS][' if loop.first else ', ' }}" + _object("arguments", "}") + "{{ ']' if loop.last }}",
        ids="c.id | length != 9",
    ),
    "mistral with names": template(
        "{{ '[TOOL_CALLS]' + c.function.name + '[ARGS]' }}{{ c.function.arguments | tojson }}"
    ),
    "llama": template(_object("parameters")),
    "kimi": template(
        "{{ '<|tool_calls_section_begin|><|tool_call_begin|>functions.' + c.function.name + ':0' }}"
        "{{ '<|tool_call_argument_begin|>' }}{{ c.function.arguments | tojson }}"
        "{{ '<|tool_call_end|><|tool_calls_section_end|>' }}"
    ),
    "qwen-coder": template(
        "{{ '<tool_call>\n<function=' + c.function.name + '>\n' }}{% for key, value in c.function.arguments.items() %}"
        "{{ '<parameter=' + key + '>\n' + value + '\n</parameter>\n' }}{% endfor %}{{ '</function>\n</tool_call>' }}"
    ),
    "glm": template(
        "{{ '<tool_call>' + c.function.name + '\n' }}{% for key, value in c.function.arguments.items() %}"
        "{{ '<arg_key>' + key + '</arg_key>\n<arg_value>' + value + '</arg_value>\n' }}{% endfor %}{{ '</tool_call>' }}"
    ),
}
TEMPLATES["harmony"] = template(
    "{# analysis #}{{ ' to=functions.' + c.function.name + '<|channel|>commentary json<|message|>' }}"
    "{{ c.function.arguments | tojson }}{{ '<|call|>' }}"
)
TEMPLATES["muse"] = template(
    "{# to=self #}{{ ' to=' + c.function.name + '<|message|><atem:function_calls>\n<atem:invoke name=\"' }}"
    "{{ c.function.name + '\">\n' }}{% for key, value in c.function.arguments.items() %}"
    "{{ '<atem:parameter name=\"' + key + '\">' + value + '</atem:parameter>\n' }}{% endfor %}"
    "{{ '</atem:invoke>\n</atem:function_calls>' }}"
)
ARGUMENTS = {
    "harmony": '{"city": "Paris"}',
    "muse": '<atem:parameter name="city">Paris</atem:parameter>\n</atem:invoke>\n</atem:function_calls>',
    "qwen-coder": "<parameter=city>\nParis\n</parameter>\n</function>",
    "glm": "<arg_key>city</arg_key>\n<arg_value>Paris</arg_value>\n</tool_call>",
}
TOOL = {"type": "function", "function": {"name": "weather", "description": "", "parameters": {"type": "object"}}}
QUESTION = Message("user", "How warm is it?")
CALL = CallMessage("assistant", "", calls=(ToolCall("weather", {"city": "Paris"}, "call_0123456789abcdef"),))
RESULT = ResultMessage("tool", "18 degrees", "", "call_0123456789abcdef", "weather")
FOUND = 'weather{"city": "Paris"}'


class Idle:
    """An engine that never runs."""

    name = "idle"
    limits = ModelLimits(0x200, 4_000, 4, frozenset({"temperature"}))


def tokenizer_of(own: str) -> ChatTokenizer:
    """Every character is a token, and so is every mark."""
    backend = Tokenizer(models.BPE({chr(code): code for code in range(0x180)}, []))
    backend.decoder = decoders.Fuse()
    backend.add_special_tokens([AddedToken(mark, normalized=False) for mark in (*SPECIAL, *HEADS)])
    return ChatTokenizer(fast(backend, own=own, bos_token="<|im_start|>", eos_token="<|im_end|>", unk_token=None))


def planned(tokenizer: ChatTokenizer, *messages: Message, **fields: Any) -> Any:
    request = ChatRequest("r1", "ann", "m", messages or (QUESTION,), tools=(TOOL,), **fields)
    return ChatPlanner(tokenizer, Idle(), SamplingDefaults())(ChatRequest.decode(request.encode()))  # type: ignore[arg-type]


def text_of(tokenizer: ChatTokenizer, ids: list[int]) -> str:
    return tokenizer.decoder().decode(ids, skip_special_tokens=False)


@pytest.mark.parametrize("manner", TEMPLATES)
def test_what_a_template_writes_for_a_call_is_read_back_as_the_call(manner: str) -> None:
    tokenizer = tokenizer_of(TEMPLATES[manner])
    assert tokenizer.call_format is not None and tokenizer.call_format.family.name == manner.split()[0]
    asked = text_of(tokenizer, planned(tokenizer).prompt_ids)
    whole = text_of(tokenizer, planned(tokenizer, QUESTION, CALL, RESULT).prompt_ids)
    said = whole.removeprefix(asked).partition("<|im_end|>")[0]
    assert '"name": "weather"' in asked and "18 degrees" in whole and said
    plan = planned(tokenizer)
    plan.answer.extend(tokenizer.decoder().encode(said).ids)
    plan.answer.finish()
    assert (plan.answer.text, plan.answer.parts) == (FOUND, [(0, "call"), (7, "arguments")])


@pytest.mark.parametrize("manner", TEMPLATES)
def test_an_answer_that_another_worker_continues_has_the_same_calls(manner: str) -> None:
    tokenizer = tokenizer_of(TEMPLATES[manner])
    found = tokenizer.call_format
    assert found is not None
    ids = tokenizer.decoder().encode(found.beginning("weather") + ARGUMENTS.get(manner, '{"city": "Paris"}}')).ids
    whole = planned(tokenizer).answer
    whole.extend(ids)
    for taken_over_at in range(len(ids)):
        answer = planned(tokenizer).answer
        answer.replay(ids[:taken_over_at])
        answer.extend(ids[taken_over_at:])
        assert (answer.text, answer.parts, answer.slice_from(3)) == (whole.text, whole.parts, whole.slice_from(3))
    assert whole.text.startswith(FOUND)


@pytest.mark.parametrize("manner", TEMPLATES)
def test_a_required_call_is_begun_in_the_prompt_and_told_with_its_name(manner: str) -> None:
    tokenizer = tokenizer_of(TEMPLATES[manner])
    for choice in ("required", ":weather"):
        plan = planned(tokenizer, tool_choice=choice)
        assert "weather" in text_of(tokenizer, plan.prompt_ids).rpartition("assistant\n")[2]
        plan.answer.extend(map(ord, ARGUMENTS.get(manner, '{"city": "Paris"}')))
        assert (plan.answer.text, plan.answer.parts) == (FOUND, [(0, "call"), (7, "arguments")])
        assert plan.answer.slice_from(0)[1:] == (0, FOUND)


def test_a_call_in_a_head_is_found_where_the_model_writes_the_head_in_its_own_order() -> None:
    """A head of a call once counted as reasoning, and all other heads are shown nowhere."""
    tokenizer = tokenizer_of(TEMPLATES["harmony"])
    told = (
        "<|channel|>analysis<|message|>hm<|end|><|start|>assistant<|channel|>commentary to=functions.weather "
        '<|constrain|>json<|message|>{"city": "Paris"}<|call|>'
    )
    answer = planned(tokenizer).answer
    answer.extend(tokenizer.decoder().encode(told).ids)
    answer.finish()
    assert (answer.text, answer.parts) == ("hm" + FOUND, [(0, "reasoning"), (2, "call"), (9, "arguments")])
    request = ChatRequest("r1", "ann", "m", (QUESTION,))
    without = ChatPlanner(tokenizer, Idle(), SamplingDefaults())(request).answer  # type: ignore[arg-type]
    without.extend(tokenizer.decoder().encode(told).ids)
    without.finish()  # type: ignore[attr-defined]
    assert without.parts == [(0, "reasoning")], "nobody asked for calls"  # type: ignore[attr-defined]


@pytest.mark.parametrize(("manner", "rest"), [("harmony", " <|constrain|>json<|message|>"), ("muse", "<|message|>")])
def test_a_call_that_must_be_made_of_any_tool_goes_on_within_its_head(manner: str, rest: str) -> None:
    tokenizer = tokenizer_of(TEMPLATES[manner])
    other = {**TOOL, "function": {**TOOL["function"], "name": "other"}}
    request = ChatRequest("r1", "ann", "m", (QUESTION,), tools=(TOOL, other), tool_choice="required")
    plan = ChatPlanner(tokenizer, Idle(), SamplingDefaults())(request)  # type: ignore[arg-type]
    begun = text_of(tokenizer, plan.prompt_ids).rpartition("assistant\n")[2]
    assert begun == {"harmony": " to=functions.", "muse": " to="}[manner]
    found = tokenizer.call_format
    assert found is not None
    call = found.beginning("weather").removeprefix(begun) if manner == "muse" else f"weather{rest}"
    plan.answer.extend(tokenizer.decoder().encode(call + ARGUMENTS[manner]).ids)
    assert (plan.answer.text, plan.answer.parts) == (FOUND, [(0, "call"), (7, "arguments")])


def test_without_parallel_calls_the_answer_ends_with_its_first() -> None:
    tokenizer = tokenizer_of(HERMES)
    answer = planned(tokenizer, parallel_tool_calls=False).answer
    answer.extend(map(ord, '<tool_call>{"name": "weather", "arguments": {"city": "Paris"}}</tool_call><tool_call>{"na'))
    assert answer.is_over and answer.text == FOUND
    assert answer.token_ids[-1] == ord("}")


def test_a_stop_string_within_a_call_ends_nothing_and_one_in_the_text_before_it_does() -> None:
    tokenizer = tokenizer_of(HERMES)
    call = '<tool_call>{"name": "weather", "arguments": {"city": "Paris"}}</tool_call>'
    sampling = ChatRequest("r1", "ann", "m", (QUESTION,)).sampling.decode({"stop": ["Paris", "END"]})
    inside, before = planned(tokenizer, sampling=sampling).answer, planned(tokenizer, sampling=sampling).answer
    inside.extend(map(ord, call))
    inside.finish()
    before.extend(map(ord, "so END" + call))
    assert (inside.text, before.text) == (FOUND, "so ")


def test_a_model_that_thinks_before_it_calls_can_be_made_to_call_only_where_thinking_has_a_switch() -> None:
    closed = (
        "{{ '<think>\n\n</think>\n\n' if enable_thinking is defined and enable_thinking is false else '<think>\n' }}"
    )
    switch = tokenizer_of(template("{{ '<tool_call>\n' }}" + _object("arguments", "}\n</tool_call>"), opened=closed))
    plan = planned(switch, tool_choice=":weather")
    assert text_of(switch, plan.prompt_ids).endswith('</think>\n\n<tool_call>\n{"name": "weather", "arguments": ')
    always = tokenizer_of(
        template("{{ '<tool_call>\n' }}" + _object("arguments", "}\n</tool_call>"), opened="{{ '<think>\n' }}")
    )
    with pytest.raises(Unsupported, match="always thinks first"):
        planned(always, tool_choice=":weather")
    answer = planned(always).answer
    answer.extend(
        always.decoder().encode('hm\n</think>\n\n<tool_call>{"name": "weather", "arguments": {"city": "Paris"}}').ids
    )
    answer.finish()
    assert (answer.text, answer.parts) == ("hm" + FOUND, [(0, "reasoning"), (2, "call"), (9, "arguments")])


class Obedient(Idle):
    """An engine that obeys grammars, and never runs."""

    limits = replace(Idle.limits, supports=frozenset({"temperature", "grammar"}), grammar_notation=EBNF)


STRICT = ChatRequest("r1", "ann", "m", (QUESTION,), tools=(TOOL,), strict_tools=("weather",))


@pytest.mark.parametrize("manner", ["hermes", "mistral", "mistral with names", "llama", "kimi", "qwen-coder", "glm"])
def test_a_strict_tool_or_a_required_call_has_a_grammar_that_goes_on_behind_its_beginning(manner: str) -> None:
    tokenizer = tokenizer_of(TEMPLATES[manner])
    for choice in ("auto", "required", ":weather"):
        plan = ChatPlanner(tokenizer, Obedient(), SamplingDefaults())(replace(STRICT, tool_choice=choice))  # type: ignore[arg-type]
        assert plan.grammar is not None
        obeying = plan.answer.obeying  # type: ignore[attr-defined]
        assert (obeying is None) == (choice == "auto")
        assert obeying is None or plan.grammar.after(obeying) is not None
    free = replace(STRICT, strict_tools=())
    assert ChatPlanner(tokenizer, Obedient(), SamplingDefaults())(free).grammar is None  # type: ignore[arg-type]


def test_a_strict_tool_is_refused_where_engine_or_format_cannot_hold_its_arguments() -> None:
    for manner, engine in (("hermes", Idle()), ("harmony", Obedient())):
        with pytest.raises(Unsupported, match="cannot hold this model's arguments to a schema"):
            ChatPlanner(tokenizer_of(TEMPLATES[manner]), engine, SamplingDefaults())(STRICT)  # type: ignore[arg-type]


@pytest.mark.parametrize("choice", ["auto", ":weather"])
def test_a_schema_that_the_tags_of_a_model_cannot_hold_is_refused_by_its_path_in_the_request(choice: str) -> None:
    function = {"name": "weather", "description": "", "parameters": {"properties": {"city": {"title": "Any"}}}}
    other = {**TOOL, "function": {**TOOL["function"], "name": "other"}}
    request = replace(STRICT, tools=(other, {"type": "function", "function": function}), tool_choice=choice)
    with pytest.raises(InvalidRequest) as refused:
        ChatPlanner(tokenizer_of(TEMPLATES["qwen-coder"]), Obedient(), SamplingDefaults())(request)  # type: ignore[arg-type]
    assert refused.value.field == "tools.1.function.parameters.properties.city"


@pytest.mark.parametrize("called", ["{{ c.function.name }}({{ c.function.arguments | tojson }})", "nothing"])
def test_a_model_whose_calls_are_not_understood_or_not_written_refuses_tools(called: str) -> None:
    tokenizer = tokenizer_of(template(called))
    assert tokenizer.call_format is None
    with pytest.raises(Unsupported, match="leave tools and tool messages out"):
        planned(tokenizer)
