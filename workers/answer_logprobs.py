"""The log probabilities of one answer's tokens, as the journal has them, and the place of each token in the text.

`workers/answer.py` tells it what each token brings and what of it is shown where; the generation adds what the engine
says of the token. Text may be held back, and marks and white space around them never come out, so what is shown is
looked for in what came in.
"""

from collections import deque
from typing import NamedTuple, Protocol

from services.wire.messages import Place, TokenLogprob
from workers.engine import Logprob

_DIGITS = 6  # of a log probability; the engines' own numbers are no more exact


class TokenBytes(Protocol):
    """`workers.detokenizer.TextDecoder` is the real one."""

    def bytes_of(self, token_id: int) -> bytes:
        """What a token stands for, by the vocabulary."""


class _Waiting(NamedTuple):
    """A token whose place is not known. `start` and `end` of what it brought, in all that came in."""

    number: int
    start: int
    end: int


class AnswerLogprobs:
    """Of the tokens of the answer alone: a reasoning's, marks and calls of tools have none."""

    def __init__(self, tokens: TokenBytes) -> None:
        self.tokens: list[TokenLogprob | None] = []  # one for each that the engine made
        self._bytes_of = tokens.bytes_of
        self._places: list[Place] = []
        self._num_read = 0
        self._own: bytes | None = None  # of the token read last; None: it is no text of the answer
        self._inside = False  # of a character
        self._waiting: deque[_Waiting] = deque()
        self._text = ""  # came in, and is not shown
        self._begin = 0  # of it, in all that came in

    # -- from the text -------------------------------------------------------------------------------------------

    def skip(self) -> None:
        """The next token is no text of the answer."""
        self._num_read += 1
        self._own = None

    def read(self, token_id: int, text: str) -> None:
        """The next token has completed this text; none while it ends inside a character."""
        start, own = self._begin + len(self._text), self._bytes_of(token_id)
        if text and not self._inside:
            own = text.encode()  # a decoder may leave white space out that the vocabulary has
        self._inside = not text and (self._inside or not _is_text(own))
        if not text and not self._inside:
            self.skip()  # such as the space that begins a text
            return
        self._own = own
        self._waiting.append(_Waiting(self._num_read, start, start + max(len(text), 1)))
        self._num_read += 1
        self._text += text

    def rest(self, text: str) -> None:
        """What the last tokens had begun, now that none follows."""
        self._text += text

    def shown(self, text: str, offset: int) -> None:
        """Text of the answer goes to this place of the whole text, in code points."""
        found = 0 if self._text.startswith(text) else self._text.rfind(text)
        if found < 0:
            return  # it came from no token, such as the space between two answers
        begin, end = self._begin + found, self._begin + found + len(text)
        while self._waiting and self._waiting[0].start < end:
            token = self._waiting.popleft()
            if token.end > begin:
                self._places.append((token.number, offset + max(token.start - begin, 0)))
        self._text, self._begin = self._text[found + len(text) :], end

    # -- from the engine -----------------------------------------------------------------------------------------

    def add(self, told: Logprob) -> None:
        """What the engine says of the token read last."""
        logprob, likeliest = told
        if self._own is None:
            self.tokens.append(None)
            return
        others = tuple((_as_text(self._bytes_of(each)), round(its, _DIGITS)) for each, its in likeliest)
        self.tokens.append((_as_text(self._own), round(logprob, _DIGITS), others))

    # -- to the journal ------------------------------------------------------------------------------------------

    def of_tokens(self, first: int, count: int) -> tuple[TokenLogprob | None, ...]:
        return tuple(self.tokens[first : first + count])

    def places(self, offset: int, text: str) -> tuple[Place, ...]:
        """Of the tokens that begin within this text of the answer."""
        end = offset + len(text)
        found: list[Place] = []
        for place in reversed(self._places):
            if place[1] < offset:
                break
            if place[1] < end:
                found.append(place)
        return tuple(reversed(found))


def _is_text(token: bytes) -> bool:
    try:
        return bool(token.decode())
    except UnicodeDecodeError:
        return False


def _as_text(token: bytes) -> str:
    return token.decode("latin-1")
