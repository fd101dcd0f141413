"""The text of one answer, and the place in it where each token ends. The worker loop feeds it one token id at a time.

The journal continues by token offset, readers by text offset. `slice_from` gives both for any token, so the worker can
write an entry again from the end of the journal. The same ids give the same text, offsets and parts on any worker.

The text is the reasoning, the answer and the calls of tools, one after the other and without the marks between them;
`parts` says where each begins. Stop strings end the answer: a model may think of one, and a call may hold one.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from services.grammar.calls import CallFrame
from services.tokens.answer_parser import AnswerParser
from services.tokens.call_families import CallParser
from services.tokens.pieces import Piece
from services.wire.messages import Part, PartKind
from workers.answer_logprobs import AnswerLogprobs
from workers.detokenizer import TextDecoder
from workers.stop_strings import StopMatcher


@dataclass(frozen=True)
class Calls:
    """How an answer calls tools. `marks`: special tokens that the parser reads as text. `begun`: what the prompt has of
    a call that the answer must make. `frame`: what begins the text that obeys a grammar of calls, if there is one."""

    parser: CallParser
    marks: Mapping[int, str] = field(default_factory=dict)
    begun: str = ""
    frame: CallFrame | None = None


class Answer:
    """Turns token ids into text. It holds text back while a character, a mark or a stop string may be incomplete."""

    def __init__(
        self,
        decoder: TextDecoder,
        stop: Sequence[str] = (),
        parser: AnswerParser | None = None,
        begun: Iterable[int] = (),
        calls: Calls | None = None,
        logprobs: AnswerLogprobs | None = None,
    ) -> None:
        """`begun`: the end of the prompt that is the beginning of this text. The answer is what follows it.

        Without `calls`, calls of tools are text. `logprobs` is told where each token's text goes.
        """
        self._detokenizer = decoder.stream()
        self._skipped = decoder.skipped
        self._parser = parser
        self._matcher = StopMatcher(stop)
        self._text = ""
        self._spoken = ""
        self._ends: list[int] = []  # per token: code points of text shown once it was pushed
        self._finished = False
        self.token_ids: list[int] = []
        self.parts: list[Part] = []
        self.reasoning_tokens = 0
        self._calls = calls.parser if calls else None
        self._call_marks = calls.marks if calls else {}
        self._frame = calls.frame if calls else None
        self._searched = 0  # so much of `_spoken` holds no opening of calls
        self._logprobs: AnswerLogprobs | None = None  # until the prompt's part is read
        if parser is not None:
            parser.reads_calls = calls is not None
        self._read(begun)
        self._spoken = calls.begun if calls else ""
        self._logprobs = logprobs
        if calls and calls.begun:
            calls.parser.text(calls.begun)

    @property
    def text(self) -> str:
        """All text shown so far."""
        return self._text

    @property
    def reasoning(self) -> bool:
        """Whether what comes next belongs to the reasoning."""
        return self._parser is not None and self._parser.reasoning

    @property
    def spoken(self) -> str:
        """The answer without its reasoning, with the marks of its calls and what is held back but for an incomplete
        character. A call that the prompt begins is a part of it."""
        held = self._parser.held if self._parser is not None and not self._parser.reasoning else ""
        return self._spoken + held

    @property
    def obeying(self) -> str | None:
        """The text that the answer's grammar is about, so far; None where it has not begun."""
        if self.reasoning:
            return None
        if self._frame is None:
            return self.spoken
        begun = self._frame.begun(self.spoken, self._searched)
        if begun is None:
            self._searched = len(self._spoken)  # the worker asks at each token; what is held back may yet be a mark
        return begun

    @property
    def is_over(self) -> bool:
        """The answer is over: a stop string completed, and the text ends before it, or the only call is whole."""
        return bool(self._matcher.matched) or (self._calls is not None and self._calls.is_over)

    def push(self, token_id: int) -> str:
        """Take one token; returns the text it adds. Refused, without effect, after a match or after `finish`."""
        if self.is_over or self._finished:
            return ""
        before = len(self._text)
        if self._parser is None and self._calls is None:
            if self._logprobs is None:
                text = self._detokenizer.push(token_id)
            else:
                text = self._detokenized(token_id)
                self._place(text)
            self._spoken += text
            self._text += self._matcher.push(text)
        else:
            self.reasoning_tokens += self._parser is not None and self._parser.reasoning
            pieces = self._parsed(token_id)
            self._spoken += "".join(piece.text for piece in pieces if piece.kind == "answer")
            self._show(self._with_calls(pieces))
        self.token_ids.append(token_id)
        added = self._text[before:]
        self._ends.append(len(self._text))
        return added

    def extend(self, token_ids: Iterable[int]) -> str:
        """Take several tokens, up to the one that completes a stop string; returns the text they add."""
        return "".join([self.push(token_id) for token_id in token_ids])

    def replay(self, token_ids: Sequence[int]) -> None:
        """Rebuild the state of an answer that another worker began. Call it only on a new object."""
        assert not self.token_ids, "replay continues nothing"
        self.extend(token_ids)

    def slice_from(self, token_offset: int) -> tuple[tuple[int, ...], int, str]:
        """(ids, text offset, text) from token `token_offset` on. What `finish` released belongs to no token: it travels
        with the terminal event, so it is in no slice."""
        if not 0 <= token_offset <= len(self.token_ids):
            raise ValueError(f"token offset {token_offset} is not within 0..{len(self.token_ids)}")
        start = self._ends[token_offset - 1] if token_offset else 0
        end = self._ends[-1] if self._ends else 0
        return tuple(self.token_ids[token_offset:]), start, self._text[start:end]

    def finish(self) -> str:
        """No token follows: returns the text held back until now. A second call returns nothing."""
        if self._finished or self.is_over:
            return ""
        self._finished = True
        before, text = len(self._text), self._detokenizer.flush()
        if self._logprobs is not None:
            self._logprobs.rest(text)
        pieces = [*self._parser.text(text), *self._parser.finish()] if self._parser else [Piece("answer", text)]
        self._show([*self._with_calls(pieces), *(self._calls.finish() if self._calls else ())])
        if not self._matcher.matched:
            self._append("answer", self._matcher.flush())
        return self._text[before:]

    def _read(self, begun: Iterable[int]) -> None:
        """Bring the detokenizer and the parser to the end of a text that is shown nowhere."""
        for token_id in begun:
            self._parsed(token_id)
        if self._parser is not None:
            self._parser.go_on()

    def _parsed(self, token_id: int) -> list[Piece]:
        """What the token adds, reasoning and answer apart; marks of calls are text yet."""
        parser, mark = self._parser, self._call_marks.get(token_id)
        if parser is not None and parser.expects(token_id):
            if self._logprobs is not None:
                self._logprobs.skip()
            return [*parser.text(self._detokenizer.flush()), *parser.mark(token_id)]
        text = self._detokenized(token_id, mark)
        return [Piece("answer", text)] if parser is None else parser.text(text)

    def _detokenized(self, token_id: int, mark: str | None = None) -> str:
        """The text that a token completes; a mark of a call is its own."""
        text = self._detokenizer.push(token_id) if mark is None else self._detokenizer.flush() + mark
        if self._logprobs is not None:
            if self.reasoning or (mark is None and token_id in self._skipped):
                self._logprobs.skip()
            else:
                self._logprobs.read(token_id, text)
        return text

    def _place(self, text: str) -> None:
        """Text of the answer follows what is shown and what may be a stop string."""
        if self._logprobs is not None and text:
            self._logprobs.shown(text, len(self._text) + len(self._matcher.held))

    def _with_calls(self, pieces: Iterable[Piece]) -> list[Piece]:
        """The same, with calls apart from the answer."""
        if self._calls is None:
            return list(pieces)
        told = [self._calls.text(piece.text) if piece.kind == "answer" else [piece] for piece in pieces]
        return [piece for each in told for piece in each]

    def _show(self, pieces: Iterable[Piece]) -> None:
        """Append text to the parts that it belongs to, up to a stop string."""
        for kind, text in pieces:
            if self._matcher.matched:
                return
            if kind == "answer":
                self._place(text)
                self._append(kind, self._matcher.push(text))
            else:
                self._append("answer", self._matcher.flush())
                self._append(kind, text)

    def _append(self, kind: PartKind, text: str) -> None:
        if text and kind != (self.parts[-1][1] if self.parts else "answer"):
            self.parts.append((len(self._text), kind))
        self._text += text
