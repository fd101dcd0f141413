"""Handles the Socket.IO events of docs/protocol.md. Each handler checks its payload, acts, and acknowledges.

No traceback ever reaches a client: an error comes back as `{ok: false, error: {code, message}}`.
"""

import functools
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from flask import request as handshake

from services.arena.blind import check_free
from services.chat.requests import Requests
from services.connection.connect import translated
from services.connection.redis_disk import RedisDisk
from services.errors import ChatServerError, Forbidden, InvalidRequest, Unauthorized, shown
from services.logs import about
from services.wire.keys import NAME, check_name
from services.wire.parsing import parse_request
from webapp.access.address import address_of
from webapp.access.open_sockets import OpenSockets
from webapp.access.submit_rate import SubmitRate
from webapp.access.visitors import accounts, current_user
from webapp.chat.relay import Relay
from webapp.server.socket_io import ConnectionRefusedError, SocketIO

log = logging.getLogger("chatserver.web")

Handler = Callable[[str, str, Mapping[str, Any]], dict[str, Any]]
"""handler(socket id, user, payload) → what the acknowledgement adds to `{ok: true}`"""


def register(
    socketio: SocketIO,
    requests: Requests,
    relay: Relay,
    disk: RedisDisk,
    submit_rate: SubmitRate,
    open_sockets: OpenSockets,
    others: Sequence[Handler] = (),
    *,
    max_message_chars: int,
) -> None:
    """Attach the handlers, and those of other rooms."""

    def submit(sid: str, user: str, payload: Mapping[str, Any]) -> dict[str, Any]:
        address = address_of(handshake)
        submit_rate.admit(user, address)
        check_free(payload)
        request = parse_request(payload, user=user, max_chars=max_message_chars)
        relay.check_room(sid, request.rid)
        requests.submit(request, address)
        log.info("submitted", extra={"model": request.model, "user": user})
        relay.watch(sid, request.rid, user, request=request)
        return {"id": request.rid}

    def watch(sid: str, user: str, payload: Mapping[str, Any]) -> dict[str, Any]:
        nonce = payload.get("nonce", "")
        if not isinstance(nonce, str) or len(nonce) > 64:
            raise InvalidRequest(f"nonce {shown(nonce)} is not a string of at most 64 characters")
        relay.watch(sid, _rid(payload), user, offset=_offset(payload), nonce=nonce)
        return {}

    def unwatch(sid: str, user: str, payload: Mapping[str, Any]) -> dict[str, Any]:
        relay.unwatch(sid, _rid(payload))
        return {}

    def cancel(sid: str, user: str, payload: Mapping[str, Any]) -> dict[str, Any]:
        status = requests.cancel(_rid(payload), user)
        log.info("cancelled" if status == "cancelled" else "cancelled too late", extra={"status": status})
        return {"status": status}

    def received(sid: str, user: str, payload: Mapping[str, Any]) -> dict[str, Any]:
        relay.received(sid, _rid(payload), _offset(payload))
        return {}

    def connect(auth: object = None) -> None:
        try:
            current_user()
        except Unauthorized as error:
            raise _refused(error) from None
        open_sockets.add(handshake.sid)  # type: ignore[attr-defined]

    def disconnect(*_: object) -> None:  # an event of this name with any arguments comes here too
        open_sockets.remove(handshake.sid)  # type: ignore[attr-defined]
        relay.forget(handshake.sid)  # type: ignore[attr-defined]

    def forget_if_gone(sid: str) -> None:
        """Forget a socket once more: it closed while one of its events was handled."""
        if not socketio.server.manager.is_connected(sid, "/"):
            relay.forget(sid)

    socketio.on_event("connect", connect)
    socketio.on_event("disconnect", disconnect)
    socketio.on_event("*", _unknown)
    for handler in (submit, watch, unwatch, cancel, received, *others):
        socketio.on_event(handler.__name__, _answering(handler, disk, open_sockets.close_soon, forget_if_gone))


def _refused(error: Unauthorized) -> ConnectionRefusedError:
    """The refusal of a socket: `unauthorized` where people sign in, else the code that every build has used."""
    told: ChatServerError = error
    if accounts() is None:
        told = Forbidden("this socket has no session cookie; load the page or /api/session, then connect again")
    return ConnectionRefusedError(told.message, told.as_dict())


def _unknown(event: object, *_: object) -> dict[str, Any]:
    return {"ok": False, "error": InvalidRequest(f"unknown event {shown(event)}").as_dict()}


def _answering(
    handler: Handler, disk: RedisDisk, close_soon: Callable[[str], None], after: Callable[[str], None]
) -> Callable[..., dict[str, Any]]:
    """Turn a handler into a Socket.IO callback that acknowledges any payload.

    `close_soon` is called with the socket's id when its user's session has ended, `after` in any case, in the end.
    """

    @functools.wraps(handler)
    def callback(*arguments: Any) -> dict[str, Any]:
        sid: str = handshake.sid  # type: ignore[attr-defined]
        with about(**_subject(arguments), sid=sid):
            try:
                return {"ok": True, **_served(handler, sid, arguments)}
            except ChatServerError as error:
                if isinstance(error, Unauthorized):
                    close_soon(sid)
                log.info("refused", extra={"event": handler.__name__, "code": error.code})
                return {"ok": False, "error": disk.explained(error).as_dict()}
            except Exception:  # what a client sends must never show it a traceback
                log.exception("%s failed", handler.__name__)
                return {
                    "ok": False,
                    "error": {"code": "internal", "message": "the server failed on this event; its log says why"},
                }
            finally:
                after(sid)

    return callback


def _served(handler: Handler, sid: str, arguments: tuple[Any, ...]) -> dict[str, Any]:
    if len(arguments) != 1 or not isinstance(arguments[0], Mapping):
        raise InvalidRequest(f"{handler.__name__} takes one object")
    with translated():
        return handler(sid, current_user(), arguments[0])


def _subject(arguments: tuple[Any, ...]) -> dict[str, str]:
    """The request id in a payload, for log lines; empty when the payload has no valid id."""
    rid = arguments[0].get("id") if arguments and isinstance(arguments[0], Mapping) else None
    return {"rid": rid} if isinstance(rid, str) and NAME.fullmatch(rid) else {}


def _rid(payload: Mapping[str, Any]) -> str:
    return check_name(payload.get("id"), "id")


def _offset(payload: Mapping[str, Any]) -> int:
    offset = payload.get("offset", 0)
    if isinstance(offset, bool) or not isinstance(offset, int) or not 0 <= offset <= 100_000_000:
        raise InvalidRequest(f"offset {shown(offset)} is not a whole number from 0 to 100000000")
    return offset
