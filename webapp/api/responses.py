"""The routes `/v1/responses…`. docs/api.md has their fields, events and numbers."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from flask import Blueprint, Request, Response, g, request

from services.chat.feed import AnswerFeed
from services.chat.requests import Requests
from services.connection.connect import translated
from services.errors import InvalidRequest
from services.openai.bodies import checked
from services.openai.orders import RESPONSE_FIELDS, Supports, check_served
from services.openai.response_bodies import UNSERVED, ResponseBody, ResponseQuery
from services.openai.response_objects import PREFIX, ResponseFrames, input_items
from services.openai.response_orders import record_of, response_order, turns_of
from services.responses.record import ResponseRecord
from services.responses.responses import Responses
from services.wire.messages import ChatRequest, SamplingDefaults
from webapp.access.address import address_of
from webapp.access.callers import Callers
from webapp.access.submit_rate import SubmitRate
from webapp.api.custodian import Custodian
from webapp.api.document import Document
from webapp.api.intake import asked, idempotency_key
from webapp.api.pages import PageQuery, page_of
from webapp.api.response_delivery import ResponseAnswer, ResponseDelivery, as_json, kept_response


@dataclass(frozen=True)
class Responder:
    """Takes orders of responses, and shows those that were ordered. `defaults`: of a model's sampling."""

    feed: AnswerFeed
    requests: Requests
    submit_rate: SubmitRate
    interval_s: float
    client_left: Callable[[Request], bool]
    responses: Responses
    custodian: Custodian
    defaults: Callable[[str], SamplingDefaults]
    supports: Supports
    max_chars: int

    def create(self, body: ResponseBody, rid: str, user: str) -> Response:
        """Submit a new response, and deliver it as its body says."""
        if body.background and not body.is_stored:
            raise InvalidRequest("store=False has no meaning in the background: nobody could ask for it", field="store")
        record = record_of(body, self.defaults)
        self.submit_rate.admit(user, address_of(request))
        messages = turns_of(record, self.responses, user, self.max_chars)
        order = response_order(body, messages, rid, user, self.max_chars)
        check_served(order, self.supports, RESPONSE_FIELDS)
        note = record.encode() if record.store else b""
        is_repeatable = bool(idempotency_key(request))
        if body.background and not body.stream:
            self.requests.submit(order, address_of(request), note)
            self.custodian.watch(rid, user, order, note)
            return self._accepted(rid, user, None if is_repeatable else record)
        answer = self._answer(rid, user, order, note, outlives_reader=record.background or is_repeatable)
        try:
            if body.background:
                self.custodian.watch(rid, user, order, note)
            if is_repeatable and record.store:
                record = self.responses.record(rid, user)  # of the first of those that sent it
        except BaseException:
            answer.close()
            raise
        delivery = self._delivery(answer, ResponseFrames(rid, record))
        return delivery.stream(at_once=record.background) if body.stream else delivery.whole()

    def show(self, query: ResponseQuery, rid: str, user: str) -> Response:
        """A response that was ordered before: as it is now, or its events."""
        if query.starting_after is not None and not query.stream:
            raise InvalidRequest("starting_after has a meaning with stream=true only", field="starting_after")
        kept = self.responses.find(rid, user)
        if not query.stream:
            if kept.end is None and kept.record.background:
                self.custodian.watch(rid, user)
            return kept_response(kept)
        after = -1 if query.starting_after is None else query.starting_after
        delivery = self._delivery(self._answer(rid, user), ResponseFrames(rid, kept.record))
        return delivery.stream(after=after, at_once=True)

    def _accepted(self, rid: str, user: str, record: ResponseRecord | None) -> Response:
        """A response in the background just now. Without its record it may be older."""
        if record:
            return as_json(ResponseFrames(rid, record).begun("queued"))
        return kept_response(self.responses.find(rid, user))

    def _answer(
        self,
        rid: str,
        user: str,
        order: ChatRequest | None = None,
        note: bytes = b"",
        *,
        outlives_reader: bool = True,
    ) -> ResponseAnswer:
        about: dict[str, Any] = {"order": order, "note": note, "address": address_of(request) if order else ""}
        times: dict[str, Any] = {"interval_s": self.interval_s, "outlives_reader": outlives_reader}
        return ResponseAnswer(self.feed, self.requests, rid, user, **about, **times)

    def _delivery(self, answer: ResponseAnswer, frames: ResponseFrames) -> ResponseDelivery:
        current = request._get_current_object()  # type: ignore[attr-defined]
        return ResponseDelivery(answer, frames, lambda: self.client_left(current))


def make_blueprint(callers: Callers, responder: Responder, document: Document) -> Blueprint:
    """All routes of responses."""
    routes = Blueprint("responses", __name__, url_prefix="/v1/responses")
    _add_asking(routes, callers, responder, document)
    _add_changing(routes, callers, responder, document)
    return routes


def _add_asking(routes: Blueprint, callers: Callers, responder: Responder, document: Document) -> None:
    @routes.post("")
    @document.describes(json=ResponseBody, tag="Responses")
    def create_response() -> Response:
        """Answer, with a response that can be asked for again.

        With `stream` its events come as server-sent events; with `background` it goes on without its reader.
        """
        with translated():
            user = callers.user(request)
            base, body = asked(request, user, ResponseBody, UNSERVED)
            g.request_id = PREFIX + base
            return responder.create(body, g.request_id, user)

    @routes.get("/<rid>")
    @document.describes(query=ResponseQuery, tag="Responses")
    def retrieve_response(rid: str) -> Response:
        """A response as it is now, or with `stream` its events after the number `starting_after`."""
        with translated():
            return responder.show(checked(request.args, ResponseQuery), rid, callers.user(request))

    @routes.get("/<rid>/input_items")
    @document.describes(query=PageQuery, tag="Responses")
    def list_input_items(rid: str) -> Response:
        """The items of a response's own input; those of the responses before it are theirs."""
        query = checked(request.args, PageQuery)
        with translated():
            record = responder.responses.record(rid, callers.user(request))
        items = input_items(rid, record.messages)
        ordered = items if query.order == "asc" else items[::-1]
        ids = [item["id"] for item in ordered]
        first = ids.index(query.after) + 1 if query.after in ids else 0
        return as_json(page_of(ordered[first:], query.limit))


def _add_changing(routes: Blueprint, callers: Callers, responder: Responder, document: Document) -> None:
    @routes.post("/<rid>/cancel")
    @document.describes(tag="Responses")
    def cancel_response(rid: str) -> Response:
        """End a response; one that has ended stays as it is."""
        with translated():
            return kept_response(responder.responses.cancel(rid, callers.user(request)))

    @routes.delete("/<rid>")
    @document.describes(tag="Responses")
    def delete_response(rid: str) -> Response:
        """Forget a response and its answer. One that runs is cancelled."""
        with translated():
            responder.responses.delete(rid, callers.user(request))
        return as_json({"id": rid, "object": "response", "deleted": True})
