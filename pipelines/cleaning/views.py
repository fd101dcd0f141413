"""Shows the steps a record that is more than turns of text as plain conversations, and takes back what they made of it.

`stage.py` calls it, for recipes that keep pairs, labels, tools or reasoning. So both answers of a pair are cleaned
alike and end together, and each step is written once, for conversations. The options of a step say what it is shown:

texts    all texts as turns, once each: of both answers, reasoning, the strings in the arguments of calls. The step
         edits or judges texts. Definitions of tools stay as they are
answers  the same texts, but a pair twice, once with each answer, as two conversations that the step judges whole
rounds   the conversation with each answer and its calls as one turn. A pair is shown twice, once with each answer. It
         ends if one of them would be rejected, cut or split; its last answers are what was compared
record   the record itself, of whose texts the step reads none

A pair whose answers a step made equal ends as `equal_answers`. A barrier's signature is of `signed`: the key of both
answers, labels and tools included.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import groupby, pairwise
from typing import Any

import orjson

from pipelines.formats.shapes import TURN_KEYS
from pipelines.records.conversation import Aside, Conversation, FullTurn, Turn, is_plain, same_answer, with_text
from pipelines.records.ledger import Ledger
from pipelines.records.rounds import Round, in_rounds, turns_of, without_rounds
from pipelines.steps import Step
from services.jobs.steps import StepOptions

Edit = Callable[[Turn], str]  # what is shown of a turn → its text


def for_records(step: Step, options: StepOptions) -> Step:
    """The step for plain conversations and for all other records, in their order."""
    if options.view == "record":
        return step
    shown = {"texts": _by_texts, "answers": _by_answers, "rounds": _by_rounds}[options.view]

    def over(conversations: Iterable[Conversation], ledger: Ledger) -> Iterator[Conversation]:
        for plain, some in groupby(conversations, key=is_plain):
            if plain:
                yield from step(some, ledger)
            else:
                for conversation in some:
                    yield from shown(step, conversation, ledger)

    return over


class _Heard(Ledger):
    """What a step writes of one view."""

    def __init__(self, step: Step, view: Conversation) -> None:
        super().__init__()
        self.ended: tuple[Conversation, str, str, Mapping[str, Any] | None] | None = None
        self.cuts: list[tuple[list[int], str, str]] = []
        self.short: list[tuple[int, str, str]] = []
        self.view = view
        self.made = list(step([view], self))

    def reject(
        self, conversation: Conversation, reason: str, detail: str = "", numbers: Mapping[str, Any] | None = None
    ) -> None:
        self.ended = conversation, reason, detail, numbers

    def cut(self, conversation: Conversation, turns: Sequence[int], reason: str, detail: str = "") -> None:
        self.cuts.append((list(turns), reason, detail))

    def shortened(self, conversation: Conversation, turn: int, reason: str, detail: str = "") -> None:
        self.short.append((turn, reason, detail))

    def tell(self, ledger: Ledger, conversation: Conversation) -> None:
        """Write all of it down as the conversation's own."""
        ledger.merged(self.counts.turns_merged)
        for what, number in self.counts.changed.items():
            ledger.changed(what, number)
        places = list(_places(self.view.turns))
        for turns, reason, detail in self.cuts:
            ledger.cut(conversation, [place for turn in turns for place in places[turn]], reason, detail)
        for turn, reason, detail in self.short:
            ledger.shortened(conversation, places[turn][0], reason, detail)


def _places(turns: Sequence[Turn]) -> Iterator[range]:
    """Of each turn of a view, the turns of the record."""
    start = 0
    for turn in turns:
        end = start + len(turns_of(turn))
        yield range(start, end)
        start = end


# -- texts -----------------------------------------------------------------------------------------------------------


def _by_texts(step: Step, conversation: Conversation, ledger: Ledger) -> Iterator[Conversation]:
    heard = _Heard(step, replace(conversation, turns=_texts(conversation), rejected=None))
    heard.tell(ledger, conversation)
    if heard.ended:
        view, reason, detail, numbers = heard.ended
        ledger.reject(replace(conversation, extra=view.extra), reason, detail, numbers)
        return
    [made] = heard.made
    new = iter(made.turns)
    turns, rejected = _edited(conversation, lambda turn: next(new).text)
    whole = replace(made, turns=turns, rejected=rejected)
    if rejected is not None and same_answer(turns[-1], rejected):
        ledger.reject(whole, "equal_answers", "both answers of the pair are the same now")
    else:
        yield whole


def _by_answers(step: Step, conversation: Conversation, ledger: Ledger) -> Iterator[Conversation]:
    """A step that edits nothing. Of a pair that stays, what it finds is that of the chosen answer."""
    sides = [replace(conversation, rejected=None)]
    if conversation.rejected is not None:
        sides.append(replace(sides[0], turns=(*conversation.turns[:-1], conversation.rejected)))
    judged = [_Heard(step, replace(side, turns=_texts(side))) for side in sides]
    found = next((heard for heard in judged if heard.ended), judged[0])
    found.tell(ledger, conversation)
    if found.ended:
        view, reason, detail, numbers = found.ended
        if conversation.rejected is not None:
            detail = f"the {'chosen' if found is judged[0] else 'rejected'} answer: {detail}"
        ledger.reject(replace(conversation, extra=view.extra), reason, detail, numbers)
    else:
        yield replace(conversation, extra=found.made[0].extra)


def _texts(conversation: Conversation) -> tuple[Turn, ...]:
    found: list[Turn] = []

    def see(turn: Turn) -> str:
        found.append(turn)
        return turn.text

    _edited(conversation, see)
    return tuple(found)


def _edited(conversation: Conversation, edit: Edit) -> tuple[tuple[Turn, ...], Turn | None]:
    """The turns and the other answer, with every text edited: first what was said, then what is beside it."""
    sides = conversation.turns if conversation.rejected is None else (*conversation.turns, conversation.rejected)
    said = [with_text(turn, edit(_words(turn))) if _speaks(turn) else turn for turn in sides]
    full = [_with_details(turn, edit) if isinstance(turn, FullTurn) else turn for turn in said]
    return (tuple(full), None) if conversation.rejected is None else (tuple(full[:-1]), full[-1])


def _speaks(turn: Turn) -> bool:
    """A call needs no words."""
    return bool(turn.text) or not (isinstance(turn, FullTurn) and turn.calls)


def _words(turn: Turn) -> Turn:
    return (Aside if isinstance(turn, FullTurn) and turn.calls else Turn)(turn.role, turn.text)


def _with_details(turn: FullTurn, edit: Edit) -> FullTurn:
    reasoning = edit(Aside(turn.role, turn.reasoning)) if turn.reasoning else ""
    calls = tuple(replace(call, arguments=_strings(call.arguments, edit)) for call in turn.calls)
    return (
        turn if (reasoning, calls) == (turn.reasoning, turn.calls) else replace(turn, reasoning=reasoning, calls=calls)
    )


def _strings(value: Any, edit: Edit) -> Any:
    """A JSON value with its strings edited; the names in it are the tool's."""
    if isinstance(value, str):
        return edit(Turn("tool", value)) if value else value
    if isinstance(value, Mapping):
        return {name: _strings(one, edit) for name, one in value.items()}
    return [_strings(one, edit) for one in value] if isinstance(value, list) else value


# -- rounds ----------------------------------------------------------------------------------------------------------


def _by_rounds(step: Step, conversation: Conversation, ledger: Ledger) -> Iterator[Conversation]:
    if wrong := _in_a_row(in_rounds(conversation).turns):
        ledger.reject(conversation, "not_alternating", wrong)
        return
    heard = _Heard(step, in_rounds(_compared(conversation, conversation.turns[-1:])))
    if conversation.rejected is None:
        end: tuple[Any, ...] | None = heard.ended[1:] if heard.ended else None
    else:
        end = _end_of_pair(heard, _Heard(step, in_rounds(_compared(conversation, (conversation.rejected,)))))
    if end:
        ledger.reject(conversation, *end)
        return
    heard.tell(ledger, conversation)
    for made in heard.made:
        turns = without_rounds(made.turns)
        if conversation.rejected is not None:
            turns = (*turns[:-1], conversation.turns[-1])
        extra = _with_keys_of(turns, conversation, made.extra)
        yield replace(made, turns=turns, rejected=conversation.rejected, extra=extra)


def _with_keys_of(turns: Sequence[Turn], before: Conversation, extra: Mapping[str, Any]) -> Mapping[str, Any]:
    """`extra` with the further keys of these turns alone. Those of the other answer come after them."""
    keys = extra.get(TURN_KEYS)
    if not isinstance(keys, list) or len(keys) < len(before.turns):
        return extra
    known = {id(turn): own for turn, own in zip(before.turns, keys, strict=False)}
    return {**extra, TURN_KEYS: [*(known.get(id(turn), {}) for turn in turns), *keys[len(before.turns) :]]}


def _in_a_row(turns: Sequence[Turn]) -> str:
    """Two turns of the assistant, one of which is a round: their texts cannot become one turn's."""
    found = any(one.role == other.role and Round in (type(one), type(other)) for one, other in pairwise(turns))
    return "two assistant turns in a row, one with more than text" if found else ""


def _compared(conversation: Conversation, last: Sequence[Turn]) -> Conversation:
    """The conversation with this last turn. An answer that is compared is a round: no step may shorten it."""
    if conversation.rejected is None:
        return conversation
    full = [turn if isinstance(turn, FullTurn) else FullTurn(turn.role, turn.text) for turn in last]
    return replace(conversation, turns=(*conversation.turns[:-1], *full))


def _end_of_pair(chosen: _Heard, other: _Heard) -> tuple[str, str] | None:
    """Why a pair ends: (reason, detail)."""
    for heard, which in ((chosen, "chosen"), (other, "rejected")):
        if heard.ended:
            return heard.ended[1], f"the {which} answer: {heard.ended[2]}".removesuffix(": ")
        for turns, reason, detail in heard.cuts:
            if len(heard.view.turns) - 1 in turns:
                return reason, f"the {which} answer would be cut {detail}".rstrip()
        if len(heard.made) != 1:
            return "over_long", f"with the {which} answer: a pair is not split"
    return None


# -- signatures ------------------------------------------------------------------------------------------------------


def signed(conversation: Conversation) -> Conversation:
    """A plain conversation whose texts tell all that makes the record another one."""
    if is_plain(conversation):
        return conversation
    turns = [Turn(turn.role, _all_of(turn)) for turn in conversation.turns]
    if conversation.rejected is not None:
        turns[-1] = Turn(turns[-1].role, f"{turns[-1].text}\n\0\n{_all_of(conversation.rejected)}")
    if conversation.tools:
        turns.insert(0, Turn("system", _json(conversation.tools)))
    return replace(conversation, turns=tuple(turns), rejected=None, tools=())


def _all_of(turn: Turn) -> str:
    if not isinstance(turn, FullTurn):
        return turn.text
    calls = [f"{call.name} {_json(call.arguments)}" for call in turn.calls]
    label = [] if turn.label is None else [f"label {turn.label:d}"]  # a number: near duplicates agree in all numbers
    return "\n\0\n".join([turn.text, turn.reasoning, *calls, *label])


def _json(value: Any) -> str:
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()
