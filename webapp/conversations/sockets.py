"""The socket's event `ask`: a question of a conversation, stored before it is queued. `application.py` attaches it."""

import logging
from collections.abc import Callable, Mapping
from typing import Any

from services.arena.blind import check_free
from services.conversations.asking import Asker, parse_ask
from services.wire.messages import ChatRequest

log = logging.getLogger("chatserver.web")


def ask_handler(
    asker: Asker,
    *,
    admit: Callable[[str], str],
    check_room: Callable[[str, str], None],
    watch: Callable[[str, str, str, ChatRequest | None], None],
    max_chars: int,
) -> Callable[[str, str, Mapping[str, Any]], dict[str, Any]]:
    """The handler. `admit(user)` counts the question and returns its address; the others are the relay's."""

    def ask(sid: str, user: str, payload: Mapping[str, Any]) -> dict[str, Any]:
        address = admit(user)
        check_free(payload)
        parsed = parse_ask(payload, max_chars=max_chars)
        check_room(sid, parsed.id)
        asked = asker.ask(user, parsed, address)
        log.info("asked", extra={"model": parsed.model, "user": user})
        watch(sid, asked.rid, user, asked.request)
        return {"id": asked.rid, "omitted": asked.omitted}

    return ask
