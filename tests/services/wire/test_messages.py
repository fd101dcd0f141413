"""What is written of a request and of an event. Builds that know no newer field read the same bytes as ever."""

import orjson
import pytest

from services.errors import InvalidRequest
from services.wire.messages import ChatRequest, Event, Message
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
