"""What a reader was told of an answer, and which of it is reasoning. The command keeps answers so."""

from services.chat.reader import Text
from services.wire.messages import ANSWER


class Said:
    """Takes the events of a `Follower` in their order."""

    def __init__(self) -> None:
        self._texts: list[tuple[int, str, str]] = []  # offset, part, text

    def take(self, event: Text) -> None:
        self._texts.append((event.offset, event.part, event.text))

    def rewind(self, offset: int) -> None:
        """Forget all text from an offset on."""
        kept = [(start, part, text[: offset - start]) for start, part, text in self._texts if start < offset]
        self._texts = kept

    @property
    def answer(self) -> str:
        return self._of(ANSWER)

    @property
    def reasoning(self) -> str:
        return self._of("reasoning")

    def _of(self, kind: str) -> str:
        return "".join(text for _, part, text in self._texts if part == kind)
