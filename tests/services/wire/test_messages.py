"""What is written of a request and of an event. Builds that know no newer field read the same bytes as ever."""

from dataclasses import replace

import orjson
import pytest

from services.errors import InvalidRequest, ProtocolError
from services.wire.messages import ChatRequest, Event, Message, ResultMessage, SamplingOptions
from services.wire.parsing import parse_request

ASKED = {"id": "r1", "model": "m", "messages": [{"role": "user", "content": "hi"}]}


def parsed(**more: object) -> ChatRequest:
    return parse_request({**ASKED, **more}, user="ann", max_chars=100)


def test_a_request_has_only_the_fields_that_every_build_reads_unless_it_needs_another() -> None:
    request = ChatRequest("r1", "ann", "m", (Message("user", "hi"),))
    assert request.encode() == (
        b'{"v":1,"rid":"r1","user":"ann","model":"m","messages":[{"role":"user","content":"hi"}],"sampling":'
        b'{"max_new_tokens":512,"seed":null,"stop":[]}'
        b',"priority":"interactive"}'
    )
    assert ChatRequest.decode(request.encode()) == request == parsed() == parsed(truncation="auto")


def test_a_request_that_nothing_be_left_out_keeps_that_on_the_wire() -> None:
    request = parsed(truncation="disabled")
    assert orjson.loads(request.encode())["truncation"] == "disabled"
    assert ChatRequest.decode(request.encode()).truncation == "disabled"


@pytest.mark.parametrize("wrong", ["none", 1, True, ["disabled"]])
def test_any_other_truncation_is_refused(wrong: object) -> None:
    with pytest.raises(InvalidRequest, match=r"truncation .* is not auto or disabled"):
        parsed(truncation=wrong)


def test_an_event_says_what_was_left_out_only_if_something_was() -> None:
    plain = Event("tokens", "aaaa", 3, 4, (7,), "x")
    assert plain.encode() == b'{"v":1,"kind":"tokens","nonce":"aaaa","off":3,"toff":4,"ids":[7],"text":"x"}'
    told = Event("tokens", "aaaa", ids=(7,), text="x", context={"prompt_tokens": 9, "omitted_messages": 2})
    assert Event.decode(told.encode()) == told


def test_an_event_names_the_parts_that_begin_in_it_and_readers_of_older_builds_find_all_that_they_know() -> None:
    told = Event("tokens", "aaaa", 3, 4, (7,), "xy", parts=((4, "reasoning"), (5, "answer")))
    assert Event.decode(told.encode()) == told
    known = {"v", "kind", "nonce", "off", "toff", "ids", "text"}
    assert {name: value for name, value in orjson.loads(told.encode()).items() if name in known} == {
        "v": 1,
        "kind": "tokens",
        "nonce": "aaaa",
        "off": 3,
        "toff": 4,
        "ids": [7],
        "text": "xy",
    }


def test_an_event_may_name_a_part_of_a_later_build() -> None:
    event = Event.decode(b'{"v":1,"kind":"tokens","nonce":"a","off":0,"toff":0,"text":"{","parts":[[0,"tool_call"]]}')
    assert event.parts == ((0, "tool_call"),)


def test_a_message_has_reasoning_on_the_wire_only_if_there_is_some() -> None:
    said = [
        {"role": "user", "content": "2 + 2?"},
        {"role": "assistant", "content": "4", "reasoning": "hm"},
        {"role": "user", "content": "sure?"},
        {"role": "assistant", "content": "yes", "reasoning": ""},
        {"role": "user", "content": "thanks"},
    ]
    request = parsed(messages=said)
    assert request.messages[1] == Message("assistant", "4", "hm")
    assert ChatRequest.decode(request.encode()) == request
    sent = orjson.loads(request.encode())["messages"]
    assert [set(message) for message in sent] == [
        {"role", "content"} | ({"reasoning"} if message.get("reasoning") else set()) for message in said
    ]


@pytest.mark.parametrize(
    ("message", "why"),
    [
        ({"role": "user", "content": "x", "reasoning": "y"}, r"messages\[0\].reasoning: only an assistant's"),
        ({"role": "assistant", "content": "x", "reasoning": 1}, r"messages\[0\].reasoning must be text, not int"),
        ({"role": "assistant", "content": "x", "thoughts": "y"}, r"messages\[0\] must be an object with role"),
        ({"role": "assistant", "content": "x", "reasoning": "y" * 100}, "the messages hold 103 characters"),
        ({"role": "assistant", "content": "x", "reasoning": "\ud800"}, r"messages\[0\].reasoning holds half"),
    ],
)
def test_a_wrong_message_is_refused_by_its_name(message: dict[str, object], why: str) -> None:
    with pytest.raises(InvalidRequest, match=why):
        parsed(messages=[message, {"role": "user", "content": "hi"}])


@pytest.mark.parametrize("thinking", [True, False])
def test_whether_the_model_shall_think_is_on_the_wire_only_if_somebody_chose(thinking: bool) -> None:
    request = parsed(thinking=thinking)
    assert request.thinking is thinking
    assert orjson.loads(request.encode())["thinking"] is thinking
    assert ChatRequest.decode(request.encode()) == request
    assert parsed(thinking=None).encode() == parsed().encode()


BEGUN = [*ASKED["messages"], {"role": "assistant", "content": "It is "}]


@pytest.mark.parametrize(
    "exact",
    [{"messages": BEGUN, "continue_final": True}, {"messages": [], "prompt": "Once upon"}],
    ids=["a begun answer", "a bare prompt"],
)
def test_a_request_that_an_older_worker_would_answer_wrongly_has_a_version_that_it_refuses(exact: dict) -> None:  # type: ignore[type-arg]
    request = parsed(**exact)
    assert ChatRequest.decode(request.encode()) == request
    assert orjson.loads(request.encode())["v"] == 1.1 != orjson.loads(parsed().encode())["v"]


TOOL = {"type": "function", "function": {"name": "clock", "description": "The time.", "parameters": {}}}
CALLED = [
    *ASKED["messages"],
    {"role": "assistant", "content": "", "calls": [{"name": "clock", "arguments": {"zone": "CET"}, "identity": "c1"}]},
    {"role": "tool", "content": "12:00", "call": "c1"},
]


@pytest.mark.parametrize(
    "fields",
    [{"tools": [TOOL], "tool_choice": ":clock", "parallel_tool_calls": False}, {"messages": CALLED}],
    ids=["tools", "calls and results"],
)
def test_a_request_with_tools_has_a_version_that_workers_without_them_refuse(fields: dict) -> None:  # type: ignore[type-arg]
    request = parse_request({**ASKED, **fields}, user="ann", max_chars=1_000)
    assert ChatRequest.decode(request.encode()) == request
    assert orjson.loads(request.encode())["v"] == 1.2
    assert not {"tools", "tool_choice", "parallel_tool_calls"} & set(orjson.loads(parsed().encode()))


def test_a_request_for_log_probabilities_has_a_version_that_workers_without_them_refuse() -> None:
    asked = replace(parsed(), sampling=SamplingOptions(logprobs=True, top_logprobs=2))
    assert ChatRequest.decode(asked.encode()) == asked
    assert orjson.loads(asked.encode())["v"] == 1.3
    assert orjson.loads(asked.encode())["sampling"].items() >= {"logprobs": True, "top_logprobs": 2}.items()


def test_a_result_gets_the_name_of_its_tool() -> None:
    assert parsed(messages=CALLED).messages[-1] == ResultMessage("tool", "12:00", "", "c1", "clock")


def test_a_request_of_a_later_version_is_refused() -> None:
    with pytest.raises(ProtocolError, match=r"version 1\.4"):
        ChatRequest.decode(parsed().encode().replace(b'"v":1,', b'"v":1.4,'))


def test_a_begun_answer_may_be_empty_or_only_reasoning() -> None:
    for last in ({"content": ""}, {"content": "", "reasoning": "hm"}):
        messages = [*ASKED["messages"], {"role": "assistant", **last}]
        assert parsed(messages=messages, continue_final=True).messages[-1].content == ""


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"messages": BEGUN}, "the last message must be the user's and not empty"),
        ({"continue_final": True}, "continue_final: the last message must be the assistant's"),
        ({"continue_final": "yes"}, "continue_final='yes' is not true or false"),
        ({"thinking": 1}, "thinking=1 is not true or false"),
        ({"prompt": "x"}, "messages has no meaning beside a prompt"),
        ({"messages": [], "prompt": "x", "continue_final": True}, "continue_final has no meaning beside a prompt"),
        ({"messages": [], "prompt": "x", "thinking": True}, "thinking has no meaning beside a prompt"),
        ({"messages": [], "prompt": ["x"]}, "prompt must be text, not list"),
        ({"messages": [], "prompt": ""}, "messages must be a list of 1 to"),
        ({"messages": [], "prompt": "x" * 101}, "the prompt holds 101 characters; the limit is 100"),
        ({"messages": [], "prompt": "\ud800"}, "prompt holds half of a surrogate pair"),
    ],
)
def test_what_a_request_cannot_carry_is_refused_by_its_name(wrong: dict[str, object], why: str) -> None:
    with pytest.raises(InvalidRequest, match=why):
        parsed(**wrong)


RICH = SamplingOptions(
    min_p=0.1, presence_penalty=-2.0, frequency_penalty=1.5, logit_bias={7: -100.0, 0: 1.5}, ignore_eos=True
)


def test_options_of_later_builds_are_on_the_wire_only_where_they_are_set() -> None:
    named = {
        "min_p": 0.1,
        "presence_penalty": -2,
        "frequency_penalty": 1.5,
        "logit_bias": {"7": -100, "0": 1.5},
        "ignore_eos": True,
    }
    request = parsed(sampling=named)
    assert request.sampling == RICH
    assert orjson.loads(request.encode())["sampling"].keys() - {"max_new_tokens", "seed", "stop"} == named.keys()
    assert ChatRequest.decode(request.encode()) == request
    unset = {**dict.fromkeys(named), "min_p": None, "logit_bias": {}, "ignore_eos": False}
    assert parsed(sampling=unset).encode() == parsed().encode()


@pytest.mark.parametrize("option", ["min_p", "presence_penalty", "frequency_penalty"])
def test_an_option_of_zero_is_not_one_that_is_left_open(option: str) -> None:
    request = parsed(sampling={option: 0})
    assert getattr(ChatRequest.decode(request.encode()).sampling, option) == 0.0


@pytest.mark.parametrize(
    ("sampling", "why"),
    [
        ({"min_p": 1.1}, r"sampling.min_p=1.1 is not a number from 0 to 1"),
        ({"presence_penalty": -2.1}, r"sampling.presence_penalty=-2.1 is not a number from -2 to 2"),
        ({"frequency_penalty": float("nan")}, r"sampling.frequency_penalty=nan is not a number"),
        ({"logit_bias": [7]}, r"sampling.logit_bias must be an object of at most 1024"),
        ({"logit_bias": {str(n): 1 for n in range(1025)}}, r"sampling.logit_bias must be an object of at most 1024"),
        ({"logit_bias": {"-1": 1}}, r"sampling.logit_bias names '-1', which is no token id"),
        ({"logit_bias": {"\u00b2": 1}}, r"sampling.logit_bias names '\u00b2', which is no token id"),
        ({"logit_bias": {"9" * 5000: 1}}, r"which is no token id"),
        ({"logit_bias": {"7": 101}}, r"sampling.logit_bias\['7'\]=101 is not a number from -100 to 100"),
        ({"logit_bias": {"7": True}}, r"sampling.logit_bias\['7'\]=True is not a number from -100 to 100"),
        ({"ignore_eos": 1}, r"sampling.ignore_eos=1 is not true or false"),
        ({"presence": 1}, r"unknown sampling option 'presence'; known: .*min_p.*ignore_eos"),
    ],
)
def test_an_option_out_of_its_bounds_is_refused_by_its_name(sampling: dict[str, object], why: str) -> None:
    with pytest.raises(InvalidRequest, match=why):
        parsed(sampling=sampling)


def test_a_form_is_on_the_wire_only_where_it_is_asked_for_and_stands_alone() -> None:
    form = {"type": "json_schema", "schema": {"type": "object", "properties": {"a": {"type": "null"}}}}
    request = parsed(sampling={"response_format": form})
    assert request.sampling.response_format == form
    assert ChatRequest.decode(request.encode()) == request
    assert parsed(sampling={"response_format": None}).encode() == parsed().encode()
    with pytest.raises(InvalidRequest, match=r"ignore_eos has no meaning beside a response_format"):
        parsed(sampling={"response_format": form, "ignore_eos": True})
    with pytest.raises(InvalidRequest, match=r"response_format.schema.oneOf cannot be promised"):
        parsed(sampling={"response_format": {"type": "json_schema", "schema": {"oneOf": []}}})
