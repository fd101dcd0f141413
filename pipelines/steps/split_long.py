"""Splits conversations that are longer than the context between their (user, assistant) pairs.

The step counts the tokens of the rendered text, with the template and the system turn (or the template's own system
text). A piece takes as many whole pairs as fit, and each piece has the system turn. No pair comes twice or gets lost:
the ledger gets each pair that cannot fit, and the whole text of a truncated answer. `extra["num_tokens"]` of each
record that leaves is its exact length.

A later piece that would begin with "continue", or within a code block, teaches a model to answer without what it
answers: such pairs are cut (`continued`) until one stands by itself, or kept and counted.

The turns add up as turns in = turns out - `changed["system_repeated"]` + cut + rejected.
"""

import re
import unicodedata
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace

from pipelines.records.conversation import Conversation, Turn
from pipelines.records.ledger import Ledger
from pipelines.records.rounds import Round
from pipelines.steps import Step
from pipelines.text.messages import messages_of
from pipelines.text.tokenizer import tokenizer_of
from services.errors import TemplateError
from services.jobs.recipe import TokenizerChoice
from services.jobs.steps.split_long import SplitLongOptions
from services.tokens.tokenization import ChatTokenizer

# Tokens by which two pairs may shrink where they meet. More would cost a piece its last pair, never break the limit.
_JOINT_TOKENS = 16
_LOOK_AHEAD_CHARS = 24  # finishing a word may take fewer tokens than half of it
_JOINERS = ("\u200d", "\ufe0e", "\ufe0f")  # zero-width joiner and variation selectors: what they join stays whole
_SKIN_TONES = range(0x1F3FB, 0x1F400)
_FLAG_HALVES = "".join(map(chr, range(0x1F1E6, 0x1F200)))  # two make a flag
# A question that means nothing without the answer before it.
_CONTINUE = re.compile(
    r"(?:(?:please|pls|yes|ok|okay|and|now|can you|could you|you can)[ ,.!]+)*"
    r"(?:continue|go on|keep going|carry on|proceed|resume|keep writing|finish it|weiter|mach weiter|fahre? fort"
    r"|weiterschreiben|contin[uú]a(?:r)?|sigue|prosigue|continue[zr]?|continuez|poursuis|continua|continui|prosseguir"
    r"|продолжай|продолжи|продолжить|继续|繼續|接着写|続けて(?:ください)?|계속(?:해(?:줘|주세요)?)?)"
    r"(?: (?:please|pls|writing|generating|the (?:code|answer|story|text|list|above)|from (?:there|here)"
    r"|(?:from )?where you (?:left off|stopped|were)))*[\s.!?…。！]*",
    re.IGNORECASE,
)
_FENCE = re.compile(r"(`{3,}(?!.*`)|~{3,})")  # a line with further backticks is code within a line


def build(options: SplitLongOptions, tokenizer: TokenizerChoice) -> Step:
    return splitting(options, tokenizer_of(tokenizer))


def splitting(options: SplitLongOptions, tokenizer: ChatTokenizer) -> Step:
    """The step with a tokenizer that is loaded already."""

    def step(conversations: Iterable[Conversation], ledger: Ledger) -> Iterator[Conversation]:
        for conversation in conversations:
            try:
                pieces = _Splitting(conversation, options, tokenizer).into_pieces(ledger)
            except TemplateError as error:
                ledger.reject(conversation, "template_refused", str(error))
            else:
                yield from pieces

    return step


@dataclass(frozen=True, slots=True)
class _Piece:
    start: int  # its first pair
    turns: tuple[Turn, ...]  # without the system turn
    num_tokens: int


@dataclass(slots=True)
class _Cut:
    turns: list[int]
    reason: str
    detail: str


class _Splitting:
    """Splits one conversation. It writes to the ledger only after it has decided on the whole conversation."""

    def __init__(self, conversation: Conversation, options: SplitLongOptions, tokenizer: ChatTokenizer) -> None:
        self.conversation = conversation
        self.options = options
        self.tokenizer = tokenizer
        self.system = tuple(turn for turn in conversation.turns[:1] if turn.role == "system")
        self.turns = conversation.turns[len(self.system) :]
        self.pieces: list[_Piece] = []
        self.cuts: list[_Cut] = []
        self.shortened: list[tuple[int, str]] = []  # (turn, detail) of truncated answers
        self.num_continued = 0  # pieces that go on with an answer which they do not hold

    def into_pieces(self, ledger: Ledger) -> list[Conversation]:
        _check_roles(self.turns)
        self._cut_unanswered()
        if self.turns:
            self._decide()
        return self._told(ledger)

    def _cut_unanswered(self) -> None:
        if len(self.turns) % 2:
            self.cuts.append(_Cut([len(self.conversation.turns) - 1], "unanswered", "the last turn is the user's"))
            self.turns = self.turns[:-1]

    def _decide(self) -> None:
        whole = self._count(self.turns)
        if whole <= self.options.max_tokens:
            self.pieces = [_Piece(0, self.turns, whole)]
            return
        num_pairs = len(self.turns) // 2
        alone = [whole] if num_pairs == 1 else [self._count(self._pairs(i, i + 1)) for i in range(num_pairs)]
        head = (sum(alone) - whole) // (num_pairs - 1) if num_pairs > 1 else 0  # what every piece begins with
        start = 0
        while start < num_pairs:
            start = self._next_piece(start, alone, head)

    def _next_piece(self, start: int, alone: Sequence[int], head: int) -> int:
        """Decides about the pairs from `start` on; returns the first pair after them."""
        if alone[start] > self.options.max_tokens:
            self._over_long(start, alone[start])
            return start + 1
        if start and self._continues(start):
            if self.options.continued == "cut":
                self._cut_pair(start, "continued", "it goes on with an answer that is not in this piece")
                return start + 1
            self.num_continued += 1
        end, num_tokens = self._longest_run(start, alone, head)
        self.pieces.append(_Piece(start, self._pairs(start, end), num_tokens))
        return end

    def _longest_run(self, start: int, alone: Sequence[int], head: int) -> tuple[int, int]:
        """The pair after the last that fits, and the tokens. Guessed by adding up, settled by counting."""
        limit = self.options.max_tokens
        end, guess = start + 1, alone[start]
        while end < len(alone) and guess + alone[end] - head <= limit:
            guess += alone[end] - head
            end += 1
        num_tokens = self._count(self._pairs(start, end))
        while num_tokens > limit:  # ends at the first pair, which fits alone
            end -= 1
            num_tokens = self._count(self._pairs(start, end))
        while end < len(alone) and num_tokens + alone[end] - head <= limit + _JOINT_TOKENS:
            longer = self._count(self._pairs(start, end + 1))
            if longer > limit:
                break
            end, num_tokens = end + 1, longer
        return end, num_tokens

    def _over_long(self, pair: int, num_tokens: int) -> None:
        detail = f"{num_tokens} tokens, limit {self.options.max_tokens}"
        if self.options.over_long == "reject" or isinstance(self.turns[2 * pair + 1], Round):
            self._cut_pair(pair, "over_long", detail)
        elif piece := self._truncated(pair):
            self.pieces.append(piece)
            self.shortened.append((len(self.system) + 2 * pair + 1, detail))
        else:
            self._cut_pair(pair, "over_long_question", detail)

    def _cut_pair(self, pair: int, reason: str, detail: str) -> None:
        first = len(self.system) + 2 * pair
        self.cuts.append(_Cut([first, first + 1], reason, detail))

    def _continues(self, pair: int) -> bool:
        """Whether a pair makes no sense without the one before it."""
        (_, before), (question, _) = self._pairs(pair - 1, pair), self._pairs(pair, pair + 1)
        return _CONTINUE.fullmatch(question.text.strip()) is not None or bool(_open_fence(before.text))

    def _truncated(self, pair: int) -> _Piece | None:
        """The pair with the longest beginning of its answer that fits; None if not one visible character does."""
        question, answer = self._pairs(pair, pair + 1)

        def ended(end: int) -> tuple[Turn, Turn]:
            return question, Turn(answer.role, _ended(answer.text[:end], self.options.marker))

        fits, too_long = 0, len(answer.text)
        while too_long - fits > 1:
            middle = (fits + too_long) // 2
            if self._count(ended(middle)) <= self.options.max_tokens:
                fits = middle
            else:
                too_long = middle
        for end in range(min(fits + _LOOK_AHEAD_CHARS, len(answer.text) - 1), 0, -1):
            num_tokens = self._count(ended(end))
            if num_tokens <= self.options.max_tokens and not _breaks_character(answer.text, end):
                return _Piece(pair, ended(end), num_tokens) if answer.text[:end].strip() else None
        return None

    def _told(self, ledger: Ledger) -> list[Conversation]:
        if not self.pieces:
            ledger.reject(self.conversation, self.cuts[-1].reason, self.cuts[-1].detail)
            return []
        for cut in self.cuts:
            ledger.cut(self.conversation, cut.turns, cut.reason, cut.detail)
        for turn, detail in self.shortened:
            ledger.shortened(self.conversation, turn, "over_long", detail)
        if self.num_continued:
            ledger.changed("continued", self.num_continued)
        if repeated := self._num_repeated():
            ledger.changed("system_repeated", repeated)
        return [self._record(piece) for piece in self.pieces]

    def _record(self, piece: _Piece) -> Conversation:
        """One piece as a conversation; one that nothing was taken from keeps its id."""
        record = self.conversation.with_turns(self.system + piece.turns).with_finding("num_tokens", piece.num_tokens)
        if len(self.pieces) == 1 and not self.cuts:
            return record
        return replace(record, id=f"{record.id}_{2 * piece.start}", origin=record.origin_id)

    def _num_repeated(self) -> int:
        return len(self.system) * (len(self.pieces) - 1)

    def _pairs(self, start: int, end: int) -> tuple[Turn, ...]:
        return self.turns[2 * start : 2 * end]

    def _count(self, turns: Sequence[Turn]) -> int:
        return self.tokenizer.count_whole(messages_of((*self.system, *turns)), tools=self.conversation.tools)


def _check_roles(turns: Sequence[Turn]) -> None:
    """Raises TemplateError unless user and assistant take turns: some templates would render it all the same."""
    if not turns:
        raise TemplateError("no turn of a user or an assistant")
    for index, turn in enumerate(turns):
        due = ("user", "assistant")[index % 2]
        if turn.role != due:
            raise TemplateError(f"turn {index} after the system turn is by {turn.role!r} where {due!r} is due")


def _breaks_character(text: str, end: int) -> bool:
    """Whether a cut at `end` parts what people see as one character."""
    before, after = text[end - 1], text[end]
    if unicodedata.combining(after) or after in _JOINERS or before == "\u200d" or ord(after) in _SKIN_TONES:
        return True
    if before in _FLAG_HALVES and after in _FLAG_HALVES:
        return (end - len(text[:end].rstrip(_FLAG_HALVES))) % 2 == 1
    return before == "\r" and after == "\n"


def _ended(text: str, marker: str) -> str:
    """`text` with the marker after it; a code block that is open is closed first."""
    text = text.rstrip()
    fence = _open_fence(text)
    return f"{text}\n{fence}\n{marker.lstrip()}" if fence else text + marker


def _open_fence(text: str) -> str:
    """The fence that would close the code block in which `text` ends; empty outside of one."""
    fence = ""
    for line in text.split("\n"):
        mark = line.strip()
        if fence and mark.startswith(fence) and not mark.strip(fence[0]):
            fence = ""
        elif not fence and (opening := _FENCE.match(mark)):
            fence = opening[1]
    return fence
