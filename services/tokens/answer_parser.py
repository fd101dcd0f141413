"""Splits what a model generates into reasoning and answer, while it comes. Each `workers/answer.py` feeds one parser.

A mark that is one token of the vocabulary counts as that token alone: the same characters in other tokens are text,
such as quoted code. Any other mark is looked for in the text, and what may be its beginning is held back. White space
around marks belongs to the marks. A reasoning whose closing mark never comes is reasoning to its end.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from services.tokens.answer_format import AnswerFormat, Marks, State
from services.tokens.pieces import Piece
from services.wire.messages import PartKind

if TYPE_CHECKING:  # the library itself is loaded by whoever makes a tokenizer
    from tokenizers import Tokenizer

LONG_HEAD_CHARS = 200  # longer ones are text of a model that keeps to no format
PROMPT_END_TOKENS = 32  # of a prompt: enough for the marks that may end it
_SEPARATOR = "\n\n"  # between two texts of one part, where marks stood

_NONE: Marks = {}


class MarkedTokens:
    """An answer format with the token ids of a tokenizer. It makes the parsers."""

    def __init__(self, answer_format: AnswerFormat, backend: "Tokenizer") -> None:
        ids = {mark: backend.token_to_id(mark) for mark in answer_format.marks}
        self._backend = backend
        self.format = answer_format
        self.mark_of: Mapping[int, str] = {index: mark for mark, index in ids.items() if index is not None}
        self.in_text = frozenset(mark for mark, index in ids.items() if index is None)

    def parser(self, prompt_ids: list[int]) -> "AnswerParser":
        """A parser of what a model generates after this prompt."""
        end = self._backend.decode(prompt_ids[-PROMPT_END_TOKENS:], skip_special_tokens=False)
        return AnswerParser(self, self.format.after(end))


class AnswerParser:
    """Mark tokens and text in, pieces out. How the text is cut into calls changes nothing."""

    def __init__(self, tokens: MarkedTokens, state: State) -> None:
        self._format = tokens.format
        self._mark_of = tokens.mark_of
        self._in_text = tokens.in_text
        self._state = state
        self._held = ""  # text that may belong to a mark
        self._fresh = True  # no text of this state has come, but for white space
        self._behind_mark = state != "begin"
        self._head = ""  # with its marks
        self._head_begun = 0  # characters of it that are somebody else's
        self.reads_calls = False  # whether a call and its head are the answer's; set before the first text
        self._spoken: PartKind | None = None  # the part of the text shown last
        self._separate: set[PartKind] = set()  # parts whose next text is a new one

    @property
    def reasoning(self) -> bool:
        return self._state == "reasoning"

    @property
    def has_heads(self) -> bool:
        """Whether words between marks say what a text is."""
        return self._format.has_heads

    @property
    def opening(self) -> int | None:
        """The token that begins a reasoning here; None where the model reasons already, or has no such token."""
        opened = self._format.opened_by
        expected = [token_id for token_id, mark in self._mark_of.items() if mark in opened and self.expects(token_id)]
        return expected[0] if expected and self._state == "begin" else None

    @property
    def held(self) -> str:
        """The text that may belong to a mark."""
        return self._held

    def expects(self, token_id: int) -> bool:
        """Whether this token is a mark here."""
        mark = self._mark_of.get(token_id)
        return mark is not None and self._after(mark) is not None

    def mark(self, token_id: int) -> list[Piece]:
        """Take a token that is a mark; returns the text that it releases."""
        mark = self._mark_of[token_id]
        after = self._after(mark)
        pieces: list[Piece] = []
        if self._state != "head":
            self._release_before_mark(len(self._held), pieces)
        self._enter(mark, after or self._state, pieces)
        return pieces

    def text(self, text: str) -> list[Piece]:
        """Take text; returns what certainly belongs to a part by now."""
        self._held += text
        pieces: list[Piece] = []
        while self._held and self._step(pieces):
            pass
        return pieces

    def finish(self) -> list[Piece]:
        """No text follows: returns what is still held. Words of a head that a mark began are no text."""
        if self._state == "head":
            return [] if self._head else self._released_head()
        return self._rest()

    def go_on(self) -> None:
        """What came so far was somebody else's beginning of the answer: hold nothing of its text back."""
        if self._state == "head":
            self._head_begun = len(self._head + self._held)
            return
        if self._held.strip() and self._fresh:
            self._begin()
        self._held, self._spoken = "", None
        self._separate.clear()

    # -- states --------------------------------------------------------------------------------------------------

    def _marks(self, where: Mapping[State, Marks]) -> Marks:
        return where.get(self._state, _NONE)

    def _after(self, mark: str) -> State | None:
        """The state that follows a mark; None where it is none."""
        anywhere = self._marks(self._format.anywhere).get(mark)
        if anywhere is not None or not self._fresh:
            return anywhere
        return self._marks(self._format.at_start).get(mark) if not self._held.strip() else None

    def _enter(self, mark: str, after: State, pieces: list[Piece]) -> None:
        """Go on in the state behind a mark. The head of a call is told as text of the answer."""
        head = self._head + self._held + mark if self._state == "head" else mark
        if after == "judge":
            words, after = self._judged(head)
            if after == "call":
                pieces.append(Piece("answer", head[max(head.index(words), self._head_begun) :]))
                self._spoken = None
            head = ""
        self._head = head if after == "head" else ""
        if not self._head:
            self._head_begun = 0
        self._state, self._held, self._fresh, self._behind_mark = after, "", True, True
        if self._spoken is not None:
            self._separate.add(self._spoken)

    def _judged(self, head: str) -> tuple[str, State]:
        """What decides, and the state that follows."""
        heads = (each for each in self._format.heads if each[1] != "call" or self.reads_calls)
        return next(((words, after) for words, after in heads if words in head), ("", "answer"))

    # -- text ----------------------------------------------------------------------------------------------------

    def _step(self, pieces: list[Piece]) -> bool:
        """Handle the text held up to the next mark; False when more text must come first."""
        if self._state == "head":
            if len(self._held) > LONG_HEAD_CHARS:
                pieces += self._released_head()
            return False
        if self._fresh and not self._begun():
            return False
        found = min(((at, mark) for mark in self._searched() if (at := self._held.find(mark)) >= 0), default=None)
        if found is None:
            self._release(self._certain(), pieces)
            return False
        at, mark = found
        rest = self._held[at + len(mark) :]
        self._release_before_mark(at, pieces)
        self._enter(mark, self._marks(self._format.anywhere)[mark], pieces)
        self._held = rest
        return True

    def _begun(self) -> bool:
        """Whether the text of this state has begun; marks before it are taken."""
        text = self._held.lstrip()
        marks = [mark for mark in self._marks(self._format.at_start) if mark in self._in_text]
        if found := next((mark for mark in marks if text.startswith(mark)), None):
            self._enter(found, self._marks(self._format.at_start)[found], [])
            self._held = text[len(found) :]
            return bool(self._held) and self._begun()
        if not text or any(mark.startswith(text) for mark in marks):
            return False
        self._begin()
        return True

    def _begin(self) -> None:
        """The text of this state begins: behind a mark without the white space before it, but for an indentation."""
        self._fresh = False
        if self._behind_mark:
            text = self._held.lstrip()
            space = self._held[: len(self._held) - len(text)]
            indentation = space.rpartition("\n")[2] if "\n" in space and text else ""
            self._held = indentation + text

    def _searched(self) -> list[str]:
        return [mark for mark in self._marks(self._format.anywhere) if mark in self._in_text]

    def _certain(self) -> int:
        """How much of the held text is no beginning of a mark, nor white space that may stand before one."""
        marks, length = self._searched(), len(self._held)
        longest = max(map(len, marks), default=1) - 1
        for start in range(max(length - longest, 0), length):
            if any(mark.startswith(self._held[start:]) for mark in marks):
                length = start
                break
        return len(self._held[:length].rstrip()) if self.reasoning else length

    def _release_before_mark(self, end: int, pieces: list[Piece]) -> None:
        text = self._held[:end]
        if text.strip():
            if self._fresh:
                self._begin()
                end -= len(text) - len(self._held)
            self._release(len(self._held[:end].rstrip()) if self.reasoning else end, pieces)

    def _release(self, end: int, pieces: list[Piece]) -> None:
        text, self._held = self._held[:end], self._held[end:]
        if not text:
            return
        kind: PartKind = "reasoning" if self.reasoning else "answer"
        if kind in self._separate:
            text = _SEPARATOR + text
        self._separate.discard(kind)
        self._spoken = kind
        pieces.append(Piece(kind, text))

    def _rest(self) -> list[Piece]:
        """All text that is held, at the end of a state."""
        if self._fresh:
            self._begin()
        pieces: list[Piece] = []
        self._release(len(self._held), pieces)
        return pieces

    def _released_head(self) -> list[Piece]:
        """The words of a head as text: it was none. Without what somebody else began."""
        begun = max(self._head_begun - len(self._head), 0)
        self._held, self._fresh = self._held[begun:], self._fresh and not begun
        self._state, self._head, self._head_begun = "answer", "", 0
        return self._rest()
