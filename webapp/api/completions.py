"""`POST /v1/chat/completions` and `POST /v1/completions`."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TypeVar

from flask import Blueprint, Request, Response, g, request

from services.chat.feed import AnswerFeed
from services.chat.requests import Requests
from services.connection.connect import translated
from services.openai.bodies import ChatCompletionBody, CompletionBody, SamplingFields
from services.openai.frames import ChatFrames, Frames, TextFrames
from services.openai.orders import CHAT_FIELDS, TEXT_FIELDS, Supports, chat_orders, check_served, completion_orders
from services.wire.messages import ChatRequest
from webapp.access.address import address_of
from webapp.access.callers import Callers
from webapp.access.submit_rate import SubmitRate
from webapp.api.answers import Answers
from webapp.api.delivery import Delivery
from webapp.api.document import Document
from webapp.api.intake import asked, idempotency_key


@dataclass(frozen=True)
class Completer:
    """Answers the bodies of completions."""

    feed: AnswerFeed
    requests: Requests
    submit_rate: SubmitRate
    interval_s: float
    supports: Supports
    client_left: Callable[[Request], bool]

    def answer(
        self, body: SamplingFields, orders: list[ChatRequest], frames: Frames, fields: Mapping[str, str]
    ) -> Response:
        """The response for these requests, in whole or as a stream."""
        address, current = address_of(request), request._get_current_object()  # type: ignore[attr-defined]
        with translated():
            check_served(orders[0], self.supports, fields)
        for order in orders:
            self.submit_rate.admit(order.user, address)
        with translated():
            answers = Answers(
                self.feed,
                self.requests,
                orders,
                address=address,
                interval_s=self.interval_s,
                outlives_reader=bool(idempotency_key(request)),
            )
        delivery = Delivery(answers, frames, lambda: self.client_left(current), n=body.n or 1)
        with translated():
            return delivery.stream(includes_usage=body.includes_usage) if body.stream else delivery.whole()


Body = TypeVar("Body", bound=SamplingFields)


def make_blueprint(callers: Callers, completer: Completer, document: Document, *, max_chars: int) -> Blueprint:
    """Both routes."""
    completions = Blueprint("completions", __name__, url_prefix="/v1")

    @completions.post("/chat/completions")
    @document.describes(json=ChatCompletionBody, tag="Chat")
    def chat_completions() -> Response:
        """Answer a conversation.

        With `stream` the answer comes as server-sent events, else as one JSON object.
        """
        user, base, body = _asked(callers, ChatCompletionBody)
        orders = chat_orders(body, base, user, max_chars)
        frames = ChatFrames(
            base, body.model, includes_usage=body.includes_usage, has_logprobs=body.num_logprobs is not None
        )
        return completer.answer(body, orders, frames, CHAT_FIELDS)

    @completions.post("/completions")
    @document.describes(json=CompletionBody, tag="Completions")
    def text_completions() -> Response:
        """Continue a text, without a chat template."""
        user, base, body = _asked(callers, CompletionBody)
        orders = completion_orders(body, base, user, max_chars)
        echoes = [order.prompt if body.echo else "" for order in orders]
        frames = TextFrames(
            base, body.model, includes_usage=body.includes_usage, echoes=echoes, logprobs=body.num_logprobs
        )
        return completer.answer(body, orders, frames, TEXT_FIELDS)

    return completions


def _asked(callers: Callers, kind: type[Body]) -> tuple[str, str, Body]:
    """Who asks, what the ids of the requests begin with, and the body."""
    with translated():
        user = callers.user(request)
    base, body = asked(request, user, kind)
    g.request_id = base
    return user, base, body
