"""What a reader was told of an answer: its reasoning, its text and its calls of tools.

The command, `/v1`, responses and batches keep answers so.
"""

import hashlib
from typing import NamedTuple

from services.chat.logprobs import PlacedLogprob
from services.chat.reader import Text
from services.wire.messages import ANSWER


class SaidCall(NamedTuple):
    """A call of a tool. The arguments are a JSON object, unless the answer broke off or the model erred."""

    name: str
    arguments: str


def call_id(rid: str, index: int) -> str:
    """The id of an answer's call: the same for every reader, in every process, after every takeover."""
    return "call_" + hashlib.sha256(f"{rid}/{index}".encode()).hexdigest()[:24]


class Said:
    """Takes the events of a `Follower` in their order."""

    def __init__(self) -> None:
        self._texts: list[tuple[int, str, str]] = []  # offset, part, text
        self.logprobs: list[PlacedLogprob] = []

    def take(self, event: Text) -> None:
        self._texts.append((event.offset, event.part, event.text))
        self.logprobs += event.logprobs

    def rewind(self, offset: int) -> None:
        """Forget all text from an offset on."""
        kept = [(start, part, text[: offset - start]) for start, part, text in self._texts if start < offset]
        self._texts = kept
        self.logprobs = [each for each in self.logprobs if each.offset < offset]

    @property
    def answer(self) -> str:
        return self._of(ANSWER)

    @property
    def reasoning(self) -> str:
        return self._of("reasoning")

    @property
    def calls(self) -> list[SaidCall]:
        """In their order."""
        calls: list[SaidCall] = []
        before: str = ANSWER
        for _, part, text in self._texts:
            if part == "call" and before != "call":
                calls.append(SaidCall(text, ""))
            elif part == "call":
                calls[-1] = SaidCall(calls[-1].name + text, "")
            elif part == "arguments" and calls:
                calls[-1] = SaidCall(calls[-1].name, calls[-1].arguments + text)
            before = part
        return calls

    def _of(self, kind: str) -> str:
        return "".join(text for _, part, text in self._texts if part == kind)
