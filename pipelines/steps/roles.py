"""Makes each record a conversation: a system turn or none, then user and assistant in turns, the assistant last.

The step cuts turns outside of pairs: assistant turns before the first question, questions without an answer, and all
turns from the first pair on that has an empty turn, or an answer that is reasoning alone (`no_answer`). It then rejects
a record that is no conversation or too short. It judges the whole conversation before it writes to the ledger, so that
each turn is counted once.
"""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from pipelines.records.conversation import ROLES, Conversation, Turn
from pipelines.records.ledger import Ledger
from pipelines.steps import Step
from services.jobs.steps.roles import RolesOptions

_THOUGHT = re.compile(r"\s*<(think|thinking)>")
_THOUGHT_END = re.compile(r"^[ \t]*</(think(?:ing)?)>[ \t]*$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class _Part:
    """A turn, and the indices of the turns that it was made of."""

    turn: Turn
    indices: tuple[int, ...]


class _Rejected(Exception):
    """(reason, detail): the step rejects the record."""


class _Cuts:
    """The turns to cut, by reason. The step writes them to the ledger only if it does not reject the record."""

    def __init__(self) -> None:
        self.made: list[tuple[str, list[int]]] = []

    def add(self, reason: str, parts: Sequence[_Part]) -> None:
        if parts:
            self.made.append((reason, [index for part in parts for index in part.indices]))


def build(options: RolesOptions) -> Step:
    def step(conversations: Iterable[Conversation], ledger: Ledger) -> Iterator[Conversation]:
        for conversation in conversations:
            cuts = _Cuts()
            try:
                parts = _judged(conversation, options, cuts)
            except _Rejected as rejected:
                ledger.reject(conversation, *rejected.args)
                continue
            for reason, indices in cuts.made:
                ledger.cut(conversation, indices, reason)
            ledger.merged(sum(len(part.indices) - 1 for part in parts))
            yield conversation if _same(conversation, parts) else conversation.with_turns([part.turn for part in parts])

    return step


def _judged(conversation: Conversation, options: RolesOptions, cuts: _Cuts) -> list[_Part]:
    """What goes on."""
    parts = [_Part(turn, (index,)) for index, turn in enumerate(conversation.turns)]
    _check_roles(parts)
    if options.system == "cut":
        cuts.add("system", [part for part in parts if part.turn.role == "system"])
        parts = [part for part in parts if part.turn.role != "system"]
    if options.same_role == "merge":
        parts = _merged(parts)
    system, body = _parted(parts, cuts)
    body = _paired(body, cuts)
    body = _filled(body, cuts)
    body = _bounded(body, options.max_turns, cuts)
    _check_size(body, options)
    return [*system, *body]


def _check_roles(parts: list[_Part]) -> None:
    for part in parts:
        if part.turn.role not in ROLES:
            raise _Rejected("unknown_role", part.turn.role[:80])


def _merged(parts: list[_Part]) -> list[_Part]:
    """Turns of one role in a row become one."""
    return [_joined(list(run)) for _, run in groupby(parts, key=lambda part: part.turn.role)]


def _joined(run: list[_Part]) -> _Part:
    if len(run) == 1:
        return run[0]
    text = "\n\n".join(part.turn.text for part in run if not _is_empty(part.turn.text))
    return _Part(Turn(run[0].turn.role, text), tuple(index for part in run for index in part.indices))


def _parted(parts: list[_Part], cuts: _Cuts) -> tuple[list[_Part], list[_Part]]:
    """The system turn, if it stands first, and the rest."""
    system, body = ([], parts) if not parts or parts[0].turn.role != "system" else (parts[:1], parts[1:])
    if system and body and body[0].turn.role == "system":
        raise _Rejected("not_alternating", "two system turns in a row")
    if any(part.turn.role == "system" for part in body):
        raise _Rejected("system_not_first")
    if system and _is_empty(system[0].turn.text):
        cuts.add("empty", system)
        system = []
    return system, body


def _paired(body: list[_Part], cuts: _Cuts) -> list[_Part]:
    """From the first question to the last answer; between them user and assistant must alternate."""
    first, end = 0, len(body)
    while first < end and body[first].turn.role != "user":
        first += 1
    while end > first and body[end - 1].turn.role != "assistant":
        end -= 1
    if first == end:
        raise _Rejected("no_pair")
    for before, part in zip(body[first:end], body[first + 1 : end], strict=False):
        if before.turn.role == part.turn.role:
            raise _Rejected("not_alternating", f"two {part.turn.role} turns in a row")
    cuts.add("leading_assistant", body[:first])
    cuts.add("trailing_user", body[end:])
    return body[first:end]


def _filled(body: list[_Part], cuts: _Cuts) -> list[_Part]:
    """The pairs before the first one that lacks a question or an answer."""
    for index, part in enumerate(body):
        if reason := _lack(part.turn):
            start = index - index % 2
            if not start:
                raise _Rejected(reason)
            cuts.add(reason, body[start:])
            return body[:start]
    return body


def _lack(turn: Turn) -> str:
    """The reason why this turn says nothing, or nothing."""
    if _is_empty(turn.text):
        return "empty"
    return "no_answer" if turn.role == "assistant" and _is_thought_alone(turn.text) else ""


def _is_thought_alone(text: str) -> bool:
    """Reasoning that is never closed, or after which nothing comes; or reasoning of which the beginning is missing, so
    that the model would learn it as a part of the answer. What an answer says about such tags stands within a line."""
    if (begin := _THOUGHT.match(text)) is not None:
        _, closed, answer = text[begin.end() :].partition(f"</{begin[1]}>")
        return not closed or _is_empty(answer)
    closing = _THOUGHT_END.search(text)
    return closing is not None and f"<{closing[1]}>" not in text[: closing.start()]


def _bounded(body: list[_Part], max_turns: int, cuts: _Cuts) -> list[_Part]:
    if not max_turns or len(body) <= max_turns:
        return body
    end = max(2, max_turns - max_turns % 2)
    cuts.add("max_turns", body[end:])
    return body[:end]


def _check_size(body: list[_Part], options: RolesOptions) -> None:
    if len(body) < options.min_turns:
        raise _Rejected("too_few_turns", str(len(body)))
    num_chars = sum(len(part.turn.text) for part in body)
    if num_chars < options.min_chars:
        raise _Rejected("too_short", f"{num_chars} characters")


def _is_empty(text: str) -> bool:
    """Nothing that shows: white space, zero-width and control characters alone."""
    start = text.lstrip()[:1]
    if start.isprintable():
        return not start
    return not any(char.isprintable() and not char.isspace() for char in text)


def _same(conversation: Conversation, parts: list[_Part]) -> bool:
    return len(parts) == len(conversation.turns) and all(
        part.turn is turn for part, turn in zip(parts, conversation.turns, strict=True)
    )
