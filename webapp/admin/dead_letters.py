"""The requests that were given up: run again, or dropped. `overview` lists them."""

from flask import Blueprint, Response, jsonify

from services.chat.dead_letters import DeadLetter, DeadLetters
from services.connection.connect import translated
from services.errors import ProtocolError
from webapp.admin.bodies import text_of


def add(routes: Blueprint, letters: DeadLetters) -> None:
    """Routes `dead-letters/retry`, `dead-letters/drop`; each takes the `rid` of a request, or `all`."""

    @routes.post("/dead-letters/retry")
    def retry() -> Response:
        """`unreadable`: those that no build of this version can run. They stay."""
        with translated():
            tried = [(letter.rid, _retried(letters, letter)) for letter in letters.matching(text_of("rid"))]
        return jsonify(
            retried=[{"rid": rid, "as": again} for rid, again in tried if again],
            unreadable=[rid for rid, again in tried if not again],
        )

    @routes.post("/dead-letters/drop")
    def drop() -> Response:
        with translated():
            found = letters.matching(text_of("rid"))
            for letter in found:
                letters.drop(letter)
        return jsonify(dropped=[letter.rid for letter in found])


def _retried(letters: DeadLetters, letter: DeadLetter) -> str:
    """The id under which it runs again; empty if it is unreadable."""
    try:
        return letters.retry(letter)
    except ProtocolError:
        return ""
