"""Finds the supervised text of a conversation: the text that the model would generate. `tokenization.py` calls it.

The supervised text of an assistant message begins after the prompt that serving renders for it, and ends with the last
end token of its turn. So training and serving draw the same line, whatever the template. Some templates write an answer
differently when another message follows (Qwen3 removes the reasoning): then no text of the whole conversation has all
the prompts in it, and each answer becomes a sample of its own, behind its own prompt. A call of a tool is an answer
like any other; what the tool returned is read, not learnt.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from os.path import commonprefix
from typing import Any

from services.errors import TemplateError, shown
from services.tokens.reasoning_marks import is_open, pair
from services.tokens.system_turns import Turn
from services.wire.messages import CallMessage, Message, ResultMessage

_QUESTION, _PROBE = "Uniformwort", "Antwortwort"  # no template writes such words by itself
_HEADER = 40  # characters: the end of a prompt in which a mark of reasoning is looked for
_HALF_MARK = re.compile(r"[<\[\]][^<>\[\]\s]*\Z")  # where two texts part in the middle of a mark

REASONING, BESIDE_CALL = "reasoning", "text beside a call"  # what `left_out` names

Stretches = list[tuple[str, bool]]
"""A text in stretches: (text, whether it is supervised)."""

Rendered = Callable[[list[Turn], bool], str]
"""The text of a conversation, asking for an answer or not. Raises TemplateError."""


@dataclass(frozen=True)
class SupervisedSequence:
    """A conversation for training. `mask` is as long as `ids`: 1 for a supervised token, else 0.

    `left_out`: what the template does not write of what the assistant said, and the model so does not learn.
    """

    ids: list[int]
    mask: list[int]
    left_out: frozenset[str] = frozenset()


def check_turns(messages: Sequence[Message]) -> None:
    """Raises TemplateError for a conversation that serving would never answer."""
    behind_call = False
    for number, message in enumerate(messages):
        behind_call = isinstance(message, CallMessage) or (behind_call and isinstance(message, ResultMessage))
        if message.role not in ("system", "user", "assistant") and not behind_call:
            remedy = "train on system, user and assistant messages, and on a tool's results right behind its call"
            raise TemplateError(f"messages[{number}].role={shown(message.role)}: {remedy}")
    first = next((message.role for message in messages if message.role != "system"), "")
    if first != "user":
        raise TemplateError(f"the first message is {first or 'missing'}, not user: no prompt asks for such an answer")


class Beginnings:
    """The texts of a conversation's beginnings, each rendered once. `known` has those of the first 1, 2, … turns where
    the template writes turn by turn, and `prompt` is what it then writes behind any of them to ask for an answer."""

    def __init__(
        self, conversation: list[Turn], rendered: Rendered, known: Sequence[str] = (), prompt: str = ""
    ) -> None:
        self.conversation = conversation
        self._rendered = rendered
        self._known = known
        self._prompt = prompt
        self._texts: dict[tuple[int, bool], str] = {}

    def text(self, number: int, ask: bool) -> str:
        """That of the first `number` turns, asking for an answer or not."""
        if self._known and number:
            return self._known[number - 1] + (self._prompt if ask else "")
        if (number, ask) not in self._texts:
            self._texts[number, ask] = self._rendered(self.conversation[:number], ask)
        return self._texts[number, ask]


class Supervision:
    """Cuts a conversation into stretches. Its methods raise TemplateError."""

    def __init__(
        self, beginnings: Beginnings, rendered: Rendered, turn_end: "re.Pattern[str]", unwritten: str = ""
    ) -> None:
        """`turn_end` matches the tokens that end a turn, and nothing that a message spells; `unwritten` ends an answer
        behind which the template writes no such token."""
        self._beginnings = beginnings
        self._conversation = beginnings.conversation
        self._rendered = rendered
        self._turn_end = turn_end
        self._unwritten = unwritten

    def whole(self) -> Stretches:
        """All answers in one text. Raises EarlierTurnsDiffer where the template allows no such text."""
        stretches: Stretches = []
        done = ""  # all text that was cut into stretches
        for number, turn in enumerate(self._conversation):
            if turn["role"] == "assistant":
                prompt, answer = self._answer(number)
                if not prompt.startswith(done):
                    raise EarlierTurnsDiffer(number)
                stretches += [(prompt[len(done) :], False), (answer, True)]
                done = prompt + answer
        rest = self._beginnings.text(len(self._conversation), False)
        if rest.startswith(done) and rest != done:
            stretches.append((rest[len(done) :], False))
        return stretches

    def each(self) -> list[Stretches]:
        """Each answer behind the prompt that serving renders for it."""
        answers = (number for number, turn in enumerate(self._conversation) if turn["role"] == "assistant")
        found = map(self._answer, answers)
        return [[(prompt, False), (answer, True)] for prompt, answer in found]

    def _answer(self, number: int) -> tuple[str, str]:
        """The prompt for an answer, and what the model has to generate then."""
        before, turn = self._conversation[:number], self._conversation[number]
        prompt, whole = self._beginnings.text(number, True), self._beginnings.text(number + 1, False)
        if whole.startswith(prompt):
            return prompt, _closed(prompt, self._ended(whole[len(prompt) :], number), turn)
        if not (turn["content"] or "").strip() and not turn.get("tool_calls"):
            raise TemplateError(f"messages[{number}] is an empty answer, which the chat template leaves out; drop it")
        asked, start = self._opening(before, turn, number)
        if not prompt.endswith(asked) or not whole.startswith(start):
            raise _differs(number)
        answer = self._ended(whole[len(start) :], number)
        return prompt, _behind_opening(asked, start, answer, turn, number)

    def _opening(self, before: list[Turn], turn: Turn, number: int) -> tuple[str, str]:
        """What the prompt alone writes behind the beginning that it shares with the answered conversation; and the
        answered conversation's text up to there. What stands before the question, a template may write differently."""
        probed = [*before[:-1], {**before[-1], "content": _QUESTION}]
        reply = {**{name: turn[name] for name in turn if name != "tool_calls"}, "content": _PROBE}
        _, asking, prompt = self._rendered(probed, True).rpartition(_QUESTION)
        _, _, behind = self._rendered([*probed, reply], False).rpartition(_QUESTION)
        answered = self._rendered([*before, reply], False)
        lead, replied, _ = behind.partition(_PROBE)
        if not asking or not replied or _PROBE not in answered:
            raise _differs(number)
        shared = _shared(prompt, lead)
        return prompt[len(shared) :], answered[: answered.rindex(_PROBE) - len(lead) + len(shared)]

    def _ended(self, answer: str, number: int) -> str:
        """The answer's text up to the last token that ends its turn."""
        ends = list(self._turn_end.finditer(answer))
        if ends:
            return answer[: ends[-1].end()]
        if self._unwritten:
            return answer + self._unwritten
        raise TemplateError(
            f"messages[{number}]: the chat template ends this answer with no token of the tokenizer, so "
            "the model would never learn to stop; let the template write the end-of-text token behind each answer, or "
            "name the token that it writes as eos_token"
        )


class PromptDiffers(TemplateError):
    """The prompt that serving renders leads to no such answer."""


class EarlierTurnsDiffer(TemplateError):
    """The template writes earlier messages differently once others follow."""

    def __init__(self, number: int) -> None:
        super().__init__(
            f"messages[{number}]: the chat template writes earlier messages differently once this one follows; "
            "train each answer as a sample of its own"
        )


def _shared(prompt: str, lead: str) -> str:
    """The common beginning of the two. It holds no half of a mark."""
    shared = commonprefix([prompt, lead])
    half = _HALF_MARK.search(shared)
    return shared[: half.start()] if half and prompt != shared else shared


def _behind_opening(asked: str, start: str, answer: str, turn: Turn, number: int) -> str:
    """What the model generates behind `asked`, the end of the prompt, so that the reader gets this answer."""
    if not asked:
        return answer
    marks = pair(asked) or pair(start[-_HEADER:])
    if marks is None:
        raise _differs(number)
    opening, closing = marks
    reopened = answer.lstrip().startswith(opening.strip())
    reasoning = _reasoning_of(turn, opening, closing)
    if not is_open(start[-_HEADER:] + asked):
        before, closed, rest = answer.partition(closing)
        thought = reopened or before.strip() in ("", reasoning.strip())
        return rest.lstrip("\n") if closed and thought else answer
    if reopened:
        return answer.lstrip().removeprefix(opening.strip()).lstrip("\n")
    if answer.lstrip().startswith(closing):
        return answer
    if reasoning and answer.lstrip().startswith(reasoning):
        return answer.lstrip("\n")
    return _with_closing(asked, reasoning, closing, answer)


def _closed(prompt: str, answer: str, turn: Turn) -> str:
    """An answer that follows a prompt as it is written. Where the prompt opens the reasoning, the answer closes it."""
    opening, closing = pair(prompt[-_HEADER:]) or ("", "")
    if not opening or not prompt.rstrip().endswith(opening.strip()) or closing in answer:
        return answer
    return _with_closing(prompt, _reasoning_of(turn, opening, closing), closing, answer)


def _with_closing(prompt: str, reasoning: str, closing: str, answer: str) -> str:
    written = f"{reasoning}\n{closing}\n\n{answer}"
    return written if reasoning or prompt.endswith("\n") else f"{closing}{answer}"


def _reasoning_of(turn: Turn, opening: str, closing: str) -> str:
    """What the assistant thought: beside its text, or in it behind the marks of the template."""
    thought, closed, _ = (turn["content"] or "").partition(closing)
    written = thought.strip().removeprefix(opening.strip()).strip("\n") if closed else ""
    return str(turn.get("reasoning_content", "")).strip("\n") or written


def _differs(number: int) -> "PromptDiffers":
    return PromptDiffers(
        f"messages[{number}]: the prompt that asks for this answer does not stand before it in the chat template's "
        "text of the conversation, so training and serving would differ; correct what the template writes for "
        "add_generation_prompt"
    )


def left_out(stretches: Stretches, conversation: Sequence[Turn]) -> frozenset[str]:
    """What the supervised text lacks of what the assistant said: the reasoning, or the text beside a call.

    Raises TemplateError if it lacks a call: a model that does not learn it would learn not to call.
    """
    found = set()
    learnt = (text for text, supervised in stretches if supervised)
    answers = (turn for turn in conversation if turn["role"] == "assistant")
    for text, turn in zip(learnt, answers, strict=True):
        if turn.get("reasoning_content", "").strip() not in text:
            found.add(REASONING)
        calls = turn.get("tool_calls", [])
        if calls and (turn["content"] or "").strip() not in text:
            found.add(BESIDE_CALL)
        _check_calls(calls, text)
    return frozenset(found)


def _check_calls(calls: Sequence[Any], text: str) -> None:
    names = [call["function"]["name"] for call in calls]
    for name in names:
        if text.count(name) < names.count(name):
            raise TemplateError(
                f"the chat template does not write a call of {name!r}; if it takes one call at a time, write each as a "
                "message of its own, with its result behind it"
            )
