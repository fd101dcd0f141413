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
