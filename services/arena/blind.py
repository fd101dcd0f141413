"""Which requests are answers of a battle: their ids tell it, so that no front end need ask the database.

Of such an answer a front end shows the text and its end, never what would tell the model before the vote.
"""

import secrets
from collections.abc import Mapping

from services.errors import InvalidRequest

PREFIX = "battle-"


def answer_id(battle_id: str, number: int, side: str) -> str:
    """A new id for a side's answer to the question of this number, from 0; the answer's row keeps it.

    Redis remembers the request of a question that was taken back, so the next try needs another id.
    """
    return f"{PREFIX}{battle_id}-{number}-{side}-{secrets.token_hex(4)}"


def check_free(payload: object) -> None:
    """Raises InvalidRequest for an id that only battles may have: the same request, sent as a guess, would be told."""
    if isinstance(payload, Mapping) and is_blind(str(payload.get("id", ""))):
        raise InvalidRequest(f"an id that begins with {PREFIX!r} is a battle's; choose another id", field="id")


def is_blind(rid: str) -> bool:
    return rid.startswith(PREFIX)
