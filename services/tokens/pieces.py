"""A piece of what a model says. The parsers of reasoning and of calls make them; `workers/answer.py` shows them."""

from typing import NamedTuple

from services.wire.messages import PartKind


class Piece(NamedTuple):
    """More text of a part."""

    kind: PartKind
    text: str
