"""Where the bodies of answers are made: those with many log probabilities outside the event loop."""

import threading
from types import SimpleNamespace
from typing import Any

import orjson
import pytest

from services.chat.logprobs import PlacedLogprob
from services.chat.reader import Done, Text
from services.openai.frames import ChatFrames
from services.openai.response_objects import ResponseFrames
from services.responses.record import ResponseRecord
from services.responses.responses import KeptResponse
from services.wire.messages import Message
from webapp.api.delivery import Delivery
from webapp.api.response_delivery import kept_response


def texts_of(num_tokens: int) -> tuple[Text, Done]:
    placed = tuple(PlacedLogprob(at, ("a", -0.5, (("b", -1.0),))) for at in range(num_tokens))
    return Text(0, "n", "a" * num_tokens, "answer", placed), Done("finished", num_tokens, "stop", "", {})


class NotingFrames(ChatFrames):
    """Notes who makes the frames."""

    def __init__(self) -> None:
        super().__init__("r", "m", includes_usage=False, has_logprobs=True)
        self.makers = set[int]()

    def text(self, *asked: Any) -> Any:
        self.makers.add(threading.get_ident())
        return super().text(*asked)

    def whole(self, *asked: Any) -> Any:
        self.makers.add(threading.get_ident())
        return super().whole(*asked)


@pytest.mark.parametrize(("num_tokens", "is_apart"), [(1, False), (1_000, True)])
@pytest.mark.parametrize("streams", [True, False])
def test_many_log_probabilities_of_a_completion_hold_up_no_other_answer(
    streams: bool, num_tokens: int, is_apart: bool
) -> None:
    frames = NotingFrames()
    told = [(0, event) for event in texts_of(num_tokens)]
    answers: Any = SimpleNamespace(waiting=[None], events=lambda: iter(told), close=lambda: None)
    delivery = Delivery(answers, frames, lambda: False, n=1)
    response = delivery.stream(includes_usage=False) if streams else delivery.whole()
    assert response.get_data().count(b'"logprob":-0.5,') == num_tokens
    assert (frames.makers != {threading.get_ident()}) == is_apart


def test_many_log_probabilities_of_a_kept_response_hold_up_no_other_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    text, done = texts_of(1_000)
    record = ResponseRecord(1_700_000_000, "m", (Message("user", "hi"),), 1.0, 1.0)
    kept = KeptResponse("resp_r", record, True, text.text, (), done, text.logprobs)
    makers, whole = list[int](), ResponseFrames.whole

    def noting(*asked: Any, **more: Any) -> Any:
        makers.append(threading.get_ident())
        return whole(*asked, **more)

    monkeypatch.setattr(ResponseFrames, "whole", noting)
    (item,) = orjson.loads(kept_response(kept).get_data())["output"]
    assert len(item["content"][0]["logprobs"]) == 1_000
    assert makers and threading.get_ident() not in makers
