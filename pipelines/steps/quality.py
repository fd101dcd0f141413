"""Rejects records from which a model learns nothing: repetition, empty answers, lists in which every item is number 1.

The step judges only prose (see `pipelines/text/prose.py`): code repeats itself for good reasons. It looks for runs of
digits in every turn, for the rest in assistant turns. Reasoning and words before a call may be short.
"""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import accumulate, groupby

from pipelines.records.conversation import Aside, Conversation
from pipelines.records.ledger import Ledger
from pipelines.steps import Step
from pipelines.text.prose import prose
from services.jobs.steps.quality import QualityOptions

NGRAM = 10  # words
MIN_WORDS = 100  # fewer say too little about repetition
MIN_TIMES = 8  # refrains come back a few times and a plan has seven days; loops go on and on
SHOWN_CHARS = 80  # of a line, in the reject file

_ROW = re.compile(
    r" {4}|\t| *(?:[|+{}\[\](\"<]|\d{4}-\d\d-\d\d|\d\d:\d\d:\d\d|(?:INSERT|VALUES|SELECT|UPDATE|DELETE)\b"
    r"|(?:INFO|WARN|WARNING|ERROR|DEBUG)\b)"
)


@dataclass(frozen=True, slots=True)
class Flaw:
    """What is wrong with a text: the offending place, what was measured there, and the limit that it is beyond."""

    detail: str
    score: float
    limit: float


Rule = Callable[[str], Flaw | None]


def build(options: QualityOptions) -> Step:
    find = _finder(options)

    def step(conversations: Iterable[Conversation], ledger: Ledger) -> Iterator[Conversation]:
        for conversation in conversations:
            if (found := find(conversation)) is None:
                yield conversation
            else:
                reason, flaw = found
                ledger.reject(conversation, reason, flaw.detail, {"score": flaw.score, "limit": flaw.limit})

    return step


def _finder(options: QualityOptions) -> Callable[[Conversation], tuple[str, Flaw] | None]:
    """A conversation → the first rule that it breaks, and how."""
    of_any, of_answers = _rules(options)

    def find(conversation: Conversation) -> tuple[str, Flaw] | None:
        for turn in conversation.turns:
            answers = turn.role == "assistant"
            measured = answers and not isinstance(turn, Aside)
            num_chars = len(turn.text.strip()) if measured else options.min_answer_chars
            if num_chars < options.min_answer_chars:
                return "short_answer", Flaw(f"{num_chars} characters", num_chars, options.min_answer_chars)
            rules = [*of_any, *of_answers] if answers else of_any
            text = prose(turn.text) if rules else ""
            for reason, rule in rules:
                if (flaw := rule(text)) is not None:
                    return reason, flaw
        return None

    return find


def _rules(options: QualityOptions) -> tuple[list[tuple[str, Rule]], list[tuple[str, Rule]]]:
    """The rules that are on: for every turn, and for answers."""
    of_any: list[tuple[str, Rule]] = []
    of_answers: list[tuple[str, Rule]] = []
    if options.max_digit_run:
        of_any.append(("digit_run", lambda text: _digit_run(text, options.max_digit_run)))
    if options.max_line_repeats:
        of_answers.append(("repeated_lines", lambda text: _repeated_line(text, options.max_line_repeats)))
    if options.max_repeated_share:
        of_answers.append(("repeated_words", lambda text: _over_repeated(text, options.max_repeated_share)))
    if options.list_numbering == "reject":
        of_answers.append(("list_numbering", _wrongly_numbered))
    return of_any, of_answers


def _digit_run(text: str, at_most: int) -> Flaw | None:
    """The score is the length of the whole run."""
    for digit in "0123456789":
        if (start := text.find(run := digit * (at_most + 1))) >= 0:
            rest = text[start:]
            return Flaw(run, len(rest) - len(rest.lstrip(digit)), at_most)
    return None


def _repeated_line(text: str, at_most: int) -> Flaw | None:
    """The line that stands more often in a row than it may; blank lines between do not count."""
    if text.count("\n") < at_most:
        return None
    for line, same in groupby(filter(None, map(str.strip, text.split("\n")))):
        if (times := sum(1 for _ in same)) > at_most:
            return Flaw(line[:SHOWN_CHARS], times, at_most)
    return None


def _over_repeated(text: str, at_most: float) -> Flaw | None:
    words = _running_text(text).split()
    share = repeated_share(words, MIN_TIMES) if len(words) >= MIN_WORDS else 0.0
    return Flaw(f"{share:.2f}", round(share, 3), at_most) if share > at_most else None


def _running_text(text: str) -> str:
    """Without lines that are alike for good reasons: indented ones, rows of tables, records (JSON, SQL), logs."""
    return "\n".join(line for line in text.split("\n") if not _ROW.match(line))


def repeated_share(words: list[str], min_times: int = 2) -> float:
    """Share of the words that stand in a 10-gram which occurs so many times."""
    if len(words) <= NGRAM:
        return 0.0
    joined = " ".join(words) + " "
    starts = list(accumulate(map((1).__add__, map(len, words)), initial=0))
    grams = [joined[start:end] for start, end in zip(starts, starts[NGRAM:], strict=False)]
    if len(set(grams)) == len(grams):
        return 0.0
    times = Counter(grams)
    covered, done = 0, 0
    for index, gram in enumerate(grams):
        if times[gram] >= min_times:
            covered += index + NGRAM - max(index, done)
            done = index + NGRAM
    return covered / len(words)


def _wrongly_numbered(text: str) -> Flaw | None:
    """The second of two items number 1 that follow each other in one list; a list that begins anew is another list.

    A list goes on over blank lines and whatever is indented deeper than its items; any other line ends it.
    """
    if text.count("1.") + text.count("1)") < 2:
        return None
    items: dict[int, str] = {}  # indentation of each list that is open → its last item's marker
    for line in text.split("\n"):
        content = line.lstrip()
        if not content:
            continue
        indent = len(line) - len(content)
        marker = _item_marker(content)
        if marker in ("1.", "1)") and items.get(indent) == marker:
            return Flaw(line[:SHOWN_CHARS], 2, 1)  # items number 1 that one list has, and may have
        items = {deep: last for deep, last in items.items() if deep < indent}
        if marker:
            items[indent] = marker
    return None


def _item_marker(content: str) -> str:
    """`3.` or `3)` at the beginning of a list's item, or nothing."""
    marker = content.split(maxsplit=1)[0]
    return marker if marker[-1] in ".)" and marker[:-1].isdecimal() and len(marker) < len(content.rstrip()) else ""
