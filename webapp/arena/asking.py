"""Sends a battle's questions to the queue: both or none. The routes call it.

The rows come first, so that no answer is lost; a question that the queue refuses leaves none behind. Sending the same
question again is harmless.
"""

import random
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from services.arena.battles import Battle, Battles
from services.arena.contestants import PRIVATE, Contestant, draw
from services.chat.requests import Requests
from services.connection.connect import translated
from services.conversations.edits import parse_id, parse_settings, parse_text
from services.errors import ChatServerError, InvalidRequest, UnknownModel, shown
from services.wire.keys import check_name
from services.wire.messages import ChatRequest
from webapp.server.threads import in_thread

MAX_ID_CHARS = 64  # the ids of a battle's answers are longer


@dataclass(frozen=True)
class Challenge:
    """A battle as a browser asks for it. A side without a model is drawn."""

    id: str
    question: str
    sides: tuple[Contestant, Contestant]


def parse_challenge(raw: object, *, max_chars: int) -> Challenge:
    """From untrusted JSON `{id, question, sides?: [{model?, settings?}, {model?, settings?}]}`."""
    if not isinstance(raw, Mapping):
        raise InvalidRequest("a battle must be an object with id and question")
    battle_id = parse_id(raw.get("id"))
    if len(battle_id) > MAX_ID_CHARS:
        raise InvalidRequest(f"id {shown(battle_id)} has more than {MAX_ID_CHARS} characters", field="id")
    sides = raw.get("sides") or [{}, {}]
    if not isinstance(sides, list) or len(sides) != 2:
        raise InvalidRequest("sides must be a list of two objects, each perhaps with model and settings", field="sides")
    left, right = map(_parse_side, sides)
    return Challenge(battle_id, parse_question(raw.get("question"), max_chars), (left, right))


def parse_question(raw: object, max_chars: int) -> str:
    question = parse_text(raw, "question", max_chars)
    if not question.strip():
        raise InvalidRequest("the question is empty; write something", field="question")
    return question


def _parse_side(raw: object) -> Contestant:
    if not isinstance(raw, Mapping) or set(raw) - {"model", "settings"}:
        raise InvalidRequest("a side must be an object with model and settings", field="sides")
    model, settings = raw.get("model") or "", parse_settings(raw.get("settings") or {})
    if private := [name for name in PRIVATE if name in (settings.get("sampling") or {})]:
        raise InvalidRequest(
            f"sampling.{private[0]} has no place in a battle: the leaderboard shows everybody a side's settings; "
            "leave it out",
            field="settings",
        )
    return Contestant(check_name(model, "model") if model else "", settings)


class Arena:
    """Begins battles and asks more in them. `served` names the models that answer now."""

    def __init__(
        self, battles: Battles, requests: Requests, served: Callable[[], Sequence[str]], chance: random.Random
    ) -> None:
        self._battles = battles
        self._requests = requests
        self._served = served
        self._chance = chance

    def begin(self, user: str, address: str, challenge: Challenge) -> Battle:
        """Raises InvalidRequest, Conflict, Unavailable, and what the queue refuses with: without a model's name."""
        with translated():
            sides = draw(challenge.sides, self._served(), self._chance)
        battle = in_thread(self._battles.start, user, challenge.id, challenge.question, sides)
        return self._send(user, address, battle)

    def ask(self, user: str, address: str, battle_id: str, number: int, question: str) -> Battle:
        """One more question to both. Raises as `begin` does."""
        battle = in_thread(self._battles.ask, user, battle_id, number, question)
        return self._send(user, address, battle)

    def _send(self, user: str, address: str, battle: Battle) -> Battle:
        if all(answer.state != "unsent" for answer in (battle.rounds[-1].left, battle.rounds[-1].right)):
            return battle  # it was sent before
        sent: list[ChatRequest] = []
        try:
            for each in in_thread(self._battles.requests, user, battle.id):
                with translated():
                    self._requests.submit(each, address)
                sent.append(each)
        except ChatServerError as error:
            self._take_back(user, battle, sent)
            raise _without_names(error) from None
        in_thread(self._battles.sent, user, battle.id)
        return in_thread(self._battles.get, user, battle.id)

    def _take_back(self, user: str, battle: Battle, sent: Sequence[ChatRequest]) -> None:
        for each in sent:
            with suppress(ChatServerError), translated():
                self._requests.cancel(each.rid, user)
        in_thread(self._battles.withdraw, battle)


def _without_names(error: ChatServerError) -> ChatServerError:
    """The queue's refusals name the model that refuses."""
    if isinstance(error, UnknownModel):
        return UnknownModel("one of the two models has gone; ask again", field="sides")
    told: dict[str, Any] = {"remedy": "wait a little and ask again", "retry_after_s": error.retry_after_s}
    return type(error)("one of the two models did not take the question", **told)
