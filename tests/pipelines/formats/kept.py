"""Records that are more than turns of text, for the tests of what a recipe keeps."""

from pathlib import Path
from typing import Any

from pipelines.formats.read import read
from pipelines.records.conversation import Conversation, FullTurn, Source, Turn
from pipelines.records.ledger import Ledger
from services.jobs.recipe import InputOptions
from services.wire.messages import ToolCall

ALL = ("pairs", "labels", "tools", "reasoning")
ASK, GOOD, BAD = Turn("user", "Which of both?"), Turn("assistant", "This one."), Turn("assistant", "That one.")
CLOCK = {
    "type": "function",
    "function": {"name": "clock", "description": "The time.", "parameters": {"type": "object"}},
}
CALL = FullTurn("assistant", "", "I must look.", (ToolCall("clock", {"zone": "Europe/Berlin", "n": [1]}, "c1"),))
RESULT = FullTurn("tool", "12:00", call="c1", name="clock")
SOURCE = Source("in.jsonl", 1)

PAIR = Conversation("pair", (ASK, GOOD), SOURCE, rejected=BAD, extra={"score": 9})
RATED = Conversation("rated", (ASK, FullTurn("assistant", "No.", label=False)), SOURCE)
RATED_TWICE = Conversation(
    "twice", (ASK, FullTurn("assistant", "No.", label=False), ASK, FullTurn("assistant", "Yes.", label=True)), SOURCE
)
CALLING = Conversation("calling", (ASK, CALL, RESULT, Turn("assistant", "It is noon.")), SOURCE, tools=(CLOCK,))
CALLS_PREFERRED = Conversation("calls", (ASK, CALL), SOURCE, rejected=BAD, tools=(CLOCK,))
PLAIN = Conversation("plain", (Turn("system", "Be kind."), ASK, GOOD), SOURCE)
KEPT = {
    "pair": PAIR,
    "rated": RATED,
    "calling": CALLING,
    "calls-preferred": CALLS_PREFERRED,
    "plain": PLAIN,
}


class Kept:
    """What became of one input that a recipe with `keep` reads."""

    def __init__(self, path: Path, keep: Any = ALL) -> None:
        self.bad: list[dict[str, Any]] = []
        self.conversations = list(read(str(path), InputOptions(keep=keep), Ledger(), self.bad.append))

    @property
    def only(self) -> Conversation:
        assert self.bad == []
        [found] = self.conversations
        return found

    @property
    def reason(self) -> str:
        assert self.conversations == []
        [line] = self.bad
        return str(line["reason"])
