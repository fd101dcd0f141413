"""What is kept of a response: it is read back as it was written, by this build and by the next ones."""

import orjson
import pytest

from services.errors import ProtocolError
from services.responses.record import ResponseRecord
from services.wire.messages import Message

RECORD = ResponseRecord(
    created_s=1_700_000_000,
    model="m",
    messages=(Message("user", "hi 𝄞"), Message("assistant", "four", "hm"), Message("user", "go on")),
    temperature=0.5,
    top_p=1.0,
    instructions="be short",
    previous="resp_1",
    background=True,
    max_output_tokens=9,
    truncation="auto",
    effort="none",
    metadata={"a": "b"},
)


def test_a_record_is_read_back_as_it_was_written() -> None:
    assert ResponseRecord.decode(RECORD.encode()) == RECORD


def test_fields_of_a_later_build_are_ignored() -> None:
    later = orjson.dumps({**orjson.loads(RECORD.encode()), "seal": 1})
    assert ResponseRecord.decode(later) == RECORD


def test_fields_that_an_earlier_build_did_not_write_have_their_usual_value() -> None:
    raw = orjson.loads(RECORD.encode())
    earlier = orjson.dumps(
        {name: raw[name] for name in ("v", "created_s", "model", "messages", "temperature", "top_p")}
    )
    assert ResponseRecord.decode(earlier) == ResponseRecord(1_700_000_000, "m", RECORD.messages, 0.5, 1.0)


@pytest.mark.parametrize("data", [b"{", b"{}", b"[]", b'{"v": 1}', b'{"v": 2}', b'{"v": 1, "messages": [1]}'])
def test_what_is_no_record_is_refused(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        ResponseRecord.decode(data)
