"""Finds the supervised text of a conversation: the text that the model would generate. `tokenization.py` calls it.

The supervised text of an assistant message begins after the prompt that serving renders for it, and ends with the last
end token of its turn. So training and serving draw the same line, whatever the template. Some templates write an answer
differently when another message follows (Qwen3 removes the reasoning): then no text of the whole conversation has all
the prompts in it, and each answer becomes a sample of its own, behind its own prompt.
"""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from os.path import commonprefix

from services.errors import TemplateError, shown
from services.tokens.reasoning_marks import is_open, pair
from services.tokens.system_turns import Turn
from services.wire.messages import Message

_PROBE = "Antwortwort"  # no template writes such a word by itself
_UNFINISHED_MARK = re.compile(r"[<\[\]][^<>\[\]\s]*$")  # where two texts part in the middle of a mark

Stretches = list[tuple[str, bool]]
"""A text in stretches: (text, whether it is supervised)."""


@dataclass(frozen=True)
class SupervisedSequence:
    """A conversation for training. `mask` is as long as `ids`: 1 for a supervised token, else 0."""

    ids: list[int]
    mask: list[int]


def check_turns(messages: Sequence[Message]) -> None:
    """Raises TemplateError for a conversation that serving would never answer."""
    for number, message in enumerate(messages):
        if message.role not in ("system", "user", "assistant"):
            remedy = "train on system, user and assistant messages only"
            raise TemplateError(f"messages[{number}].role={shown(message.role)}: {remedy}")
    first = next((message.role for message in messages if message.role != "system"), "")
    if first != "user":
        raise TemplateError(f"the first message is {first or 'missing'}, not user: no prompt asks for such an answer")


class Supervision:
    """Cuts conversations of one template into stretches. Its methods raise TemplateError."""

    def __init__(
        self, rendered: Callable[[list[Turn], bool], str], turn_end: "re.Pattern[str]", unwritten: str = ""
    ) -> None:
        """`rendered(conversation, ask)` is the text of a conversation, asking for an answer or not; `turn_end` matches
        the tokens that end a turn, and nothing that a message spells; `unwritten` ends an answer behind which the
        template writes no such token."""
        self._rendered = rendered
        self._turn_end = turn_end
        self._unwritten = unwritten

    def whole(self, conversation: list[Turn]) -> Stretches:
        """All answers in one text. Raises EarlierTurnsDiffer where the template allows no such text."""
        stretches: Stretches = []
        done = ""  # all text that was cut into stretches
        for number, turn in enumerate(conversation):
            if turn["role"] == "assistant":
                prompt, answer = self._answer(conversation, number)
                if not prompt.startswith(done):
                    raise EarlierTurnsDiffer(number)
                stretches += [(prompt[len(done) :], False), (answer, True)]
                done = prompt + answer
        rest = self._rendered(conversation, False)
        if rest.startswith(done) and rest != done:
            stretches.append((rest[len(done) :], False))
        return stretches

    def each(self, conversation: list[Turn]) -> list[Stretches]:
        """Each answer behind the prompt that serving renders for it."""
        answers = (number for number, turn in enumerate(conversation) if turn["role"] == "assistant")
        found = (self._answer(conversation, number) for number in answers)
        return [[(prompt, False), (answer, True)] for prompt, answer in found]

    def _answer(self, conversation: list[Turn], number: int) -> tuple[str, str]:
        """The prompt for an answer, and what the model has to generate then."""
        before, turn = conversation[:number], conversation[number]
        prompt, whole = self._rendered(before, True), self._rendered([*before, turn], False)
        if whole.startswith(prompt):
            return prompt, self._ended(whole[len(prompt) :], number)
        probe = self._rendered([*before, {**turn, "content": _PROBE}], False)
        common = _common_text(prompt, probe, before[-1]["content"] if before else "")
        if common is None or not whole.startswith(common.text):
            raise _differs(number)
        answer = self._ended(whole[len(common.text) :], number)
        return prompt, _behind_opening(common.asked, common.text, answer, turn["content"], number)

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


class EarlierTurnsDiffer(TemplateError):
    """The template writes earlier messages differently once others follow."""

    def __init__(self, number: int) -> None:
        super().__init__(
            f"messages[{number}]: the chat template writes earlier messages differently once this one follows; "
            "train each answer as a sample of its own"
        )


@dataclass(frozen=True)
class _Common:
    """The beginning that an answered conversation shares with the prompt, and what the prompt has behind it."""

    text: str  # of the answered conversation
    asked: str


def _common_text(prompt: str, answered: str, question: str) -> _Common | None:
    """The two are compared from the end of the last message on: a template may write what is before it differently."""
    question = question.strip()
    start = prompt.rfind(question) + len(question)
    other = answered.rfind(question, 0, answered.rfind(_PROBE)) + len(question)
    if start < len(question) or other < len(question):
        return None
    shared = commonprefix([prompt[start:], answered[other:]])
    unfinished = _UNFINISHED_MARK.search(shared)
    if unfinished and prompt[start:] != shared:
        shared = shared[: unfinished.start()]
    return _Common(answered[: other + len(shared)], prompt[start + len(shared) :])


def _behind_opening(asked: str, common: str, answer: str, content: str, number: int) -> str:
    """What the model generates behind `asked`, the end of the prompt, so that the reader gets this answer."""
    if not asked:
        return answer
    marks = pair(asked) or pair(common[-40:])
    if marks is None:
        raise _differs(number)
    opening, closing = marks
    if not is_open(common[-40:] + asked) or answer.lstrip().startswith(closing):
        return answer
    if answer.lstrip().startswith(opening.strip()):
        return answer.lstrip().removeprefix(opening.strip()).lstrip("\n")
    thought, closed, _ = content.partition(closing)
    reasoning = thought.strip().removeprefix(opening.strip()).strip("\n") if closed else ""
    lines = asked.endswith("\n")
    return f"{reasoning}\n{closing}\n\n{answer}" if lines or reasoning else f"{closing}{answer}"


def _differs(number: int) -> TemplateError:
    return TemplateError(
        f"messages[{number}]: the prompt that asks for this answer does not stand before it in the chat template's "
        "text of the conversation, so training and serving would differ; correct what the template writes for "
        "add_generation_prompt"
    )
