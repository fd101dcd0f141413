"""What a line of a batch asks: its requests for the queue, and the body that answers it, as the API would answer.

The ids of the requests come from the batch, the line and the attempt, so whoever asks a line again asks for the answer
that is there.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from services.chat.reader import Done
from services.chat.said import Said
from services.errors import InvalidRequest
from services.openai import response_bodies
from services.openai.bodies import ChatCompletionBody, CompletionBody, SamplingFields, served
from services.openai.frames import ChatFrames, Frames, TextFrames, usage_of
from services.openai.orders import (
    CHAT_FIELDS,
    RESPONSE_FIELDS,
    TEXT_FIELDS,
    Supports,
    chat_orders,
    check_served,
    completion_orders,
)
from services.openai.response_bodies import ResponseBody
from services.openai.response_objects import PREFIX, whole_response
from services.openai.response_orders import record_of, response_order, turns_of
from services.responses.responses import Responses
from services.wire.messages import ChatRequest, SamplingDefaults

Answered = Sequence[tuple[Said, Done]]


@dataclass(frozen=True)
class Question:
    """`note` is kept with its requests; `body` makes what answers it; `kept`: its client may ask for it again."""

    id: str
    orders: list[ChatRequest]
    body: Callable[[Answered], dict[str, Any]]
    note: bytes = b""
    kept: bool = False


class Questions:
    """Those of one batch. `defaults`: of a model's sampling; `supports`: what its workers can."""

    def __init__(
        self,
        batch_id: str,
        user: str,
        endpoint: str,
        responses: Responses,
        defaults: Callable[[str], SamplingDefaults],
        supports: Supports,
        max_chars: int,
    ) -> None:
        self._batch_id = batch_id
        self._user = user
        self._responses = responses
        self._defaults = defaults
        self._supports = supports
        self._max_chars = max_chars
        kinds = {"/v1/chat/completions": self._chat, "/v1/completions": self._text, "/v1/responses": self._response}
        self._ask = kinds[endpoint]

    def ask(self, number: int, body: object, attempt: int = 0) -> Question:
        """The question of a line. Raises InvalidRequest or another refusal of the body."""
        return self._ask(body, f"{self._batch_id}-{number}" + (f".{attempt}" if attempt else ""))

    def _chat(self, raw: object, base: str) -> Question:
        body = served(raw, ChatCompletionBody)
        orders = chat_orders(body, base, self._user, self._max_chars, "batch")
        check_served(orders[0], self._supports, CHAT_FIELDS)
        has_logprobs = body.num_logprobs is not None
        frames = ChatFrames(base, body.model, includes_usage=False, has_logprobs=has_logprobs)
        return _completion(base, body, orders, frames)

    def _text(self, raw: object, base: str) -> Question:
        body = served(raw, CompletionBody)
        orders = completion_orders(body, base, self._user, self._max_chars, "batch")
        check_served(orders[0], self._supports, TEXT_FIELDS)
        echoes = [order.prompt if body.echo else "" for order in orders]
        frames = TextFrames(base, body.model, includes_usage=False, echoes=echoes, logprobs=body.num_logprobs)
        return _completion(base, body, orders, frames)

    def _response(self, raw: object, base: str) -> Question:
        body = served(raw, ResponseBody, response_bodies.UNSERVED)
        _refuse_stream(stream=body.stream)
        if body.background:
            raise InvalidRequest("background has no meaning in a batch; leave it out", field="background")
        rid, record = PREFIX + base, record_of(body, self._defaults)
        turns = turns_of(record, self._responses, self._user, self._max_chars)
        order = response_order(body, turns, rid, self._user, self._max_chars, "batch")
        check_served(order, self._supports, RESPONSE_FIELDS)
        return Question(rid, [order], lambda _: self._whole(rid), record.encode(), kept=record.store)

    def _whole(self, rid: str) -> dict[str, Any]:
        return whole_response(self._responses.find(rid, self._user))


def _completion(base: str, body: SamplingFields, orders: list[ChatRequest], frames: Frames) -> Question:
    _refuse_stream(stream=body.stream)

    def whole(answered: Answered) -> dict[str, Any]:
        return frames.whole(answered, usage_of((done for _, done in answered), body.n or 1))

    return Question(base, orders, whole)


def _refuse_stream(*, stream: bool | None) -> None:
    if stream:
        raise InvalidRequest("stream has no meaning in a batch; leave it out", field="stream")
