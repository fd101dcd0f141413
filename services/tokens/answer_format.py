"""The marks with which a model says what of its text is reasoning and what is the answer: a table of families.

`find_format` chooses for `ChatTokenizer`, once for each model; `answer_parser.py` reads a generated text by what was
found. A family that is missing here is an entry more; most models need none, since the template shows their marks.
"""

import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

from services.errors import TemplateError
from services.tokens.system_turns import Turn

State = Literal["begin", "reasoning", "answer", "head", "judge", "call"]
"""Where a text is: `begin` is the answer unless a mark comes first. A `head` is the words between two marks, which are
shown nowhere. Where they decide what follows, the mark behind them leads to `judge`. A `call` is the answer's, with its
head, for whoever reads calls; for all others the head says something else."""

Marks = Mapping[str, State]
Render = Callable[[Sequence[Turn], bool], str]
"""The text of a conversation, with or without the prompt for an answer. Raises TemplateError."""


@dataclass(frozen=True)
class AnswerFormat:
    """The marks of a family, by the state in which each counts, and the state that follows it.

    `at_start` marks count only before other text of their state. `opened_by`, `closed_by`: the end of a prompt that
    begins the reasoning, or has ended it; after any other prompt a model is in the state `begins`. `heads`: words of a
    head, and what follows it; else the answer does. A template that contains all `signs` is of this family.
    """

    signs: tuple[str, ...] = ()
    opened_by: tuple[str, ...] = ()
    closed_by: tuple[str, ...] = ()
    begins: State = "begin"
    at_start: Mapping[State, Marks] = field(default_factory=dict)
    anywhere: Mapping[State, Marks] = field(default_factory=dict)
    heads: tuple[tuple[str, State], ...] = ()

    @property
    def marks(self) -> frozenset[str]:
        places = [*self.at_start.values(), *self.anywhere.values()]
        return frozenset(mark for marks in places for mark in marks)

    @property
    def has_heads(self) -> bool:
        return self.begins == "head" or bool(self.heads)

    def after(self, prompt: str) -> State:
        """The state of a model that read this prompt."""
        text = prompt.rstrip()
        if text.endswith(self.opened_by):
            return "reasoning"
        return "answer" if text.endswith(self.closed_by) else self.begins


def pair(
    opening: str, closing: str, *, answer: tuple[str, str] | None = None, signs: Sequence[str] = ()
) -> AnswerFormat:
    """Reasoning between two marks, then the answer, perhaps between marks of its own (`answer`).

    Behind the first text of the answer, the marks of the reasoning are text: a model may write about them.
    """
    start: Marks = {answer[0]: "answer"} if answer else {}
    end: Marks = {answer[1]: "answer"} if answer else {}
    return AnswerFormat(
        tuple(signs),
        opened_by=(opening,),
        closed_by=(closing,),
        at_start={
            "begin": {opening: "reasoning", closing: "answer", **start},
            "reasoning": {opening: "reasoning"},
            "answer": start,
        },
        anywhere={"reasoning": {closing: "answer"}, "begin": end, "answer": end},
    )


def _everywhere(marks: Marks) -> Mapping[State, Marks]:
    """Marks that no text contains, since each is a special token."""
    return {"begin": marks, "reasoning": marks, "answer": marks, "head": marks, "call": marks}


# Each format whose marks a template shows by its own words.
BY_SIGNS = {
    "harmony": AnswerFormat(  # gpt-oss, llm-jp
        ("<|channel|>", "<|message|>", "analysis"),
        begins="head",
        anywhere=_everywhere({"<|start|>": "head", "<|channel|>": "head", "<|end|>": "head", "<|message|>": "judge"}),
        heads=((" to=functions.", "call"), ("analysis", "reasoning"), (" to=", "reasoning")),
    ),
    "muse": AnswerFormat(
        ("<|message|>", "to=self"),
        begins="head",
        anywhere=_everywhere({"<|start|>": "head", "<|eom|>": "head", "<|message|>": "judge"}),
        heads=(("to=self", "reasoning"),),
    ),
    "kimi-k3": AnswerFormat(
        ("<|open|>", "<|close|>", "<|sep|>"),
        opened_by=("<|open|>think<|sep|>",),
        anywhere=_everywhere({"<|open|>": "head", "<|close|>": "head", "<|sep|>": "judge"}),
        heads=(("<|close|>", "head"), ("think", "reasoning")),
    ),
    "solar": AnswerFormat(
        ("<|think|>", "<|content|>", "<|begin|>"),
        begins="head",
        anywhere=_everywhere(
            {"<|begin|>": "head", "<|end|>": "head", "<|think|>": "reasoning", "<|content|>": "answer"}
        ),
    ),
    "cohere": AnswerFormat(
        ("<|START_THINKING|>", "<|END_THINKING|>"),
        opened_by=("<|START_THINKING|>",),
        closed_by=("<|END_THINKING|>",),
        anywhere=_everywhere(
            {
                "<|START_THINKING|>": "reasoning",
                "<|END_THINKING|>": "answer",
                "<|START_TEXT|>": "answer",
                "<|START_RESPONSE|>": "answer",
            }
        ),
    ),
    "gemma-4": AnswerFormat(
        ("<|channel>", "<channel|>"),
        opened_by=("<|channel>thought",),
        closed_by=("<channel|>",),
        at_start={"reasoning": {"thought\n": "reasoning"}},
        anywhere=_everywhere({"<|channel>": "reasoning", "<channel|>": "answer"}),
    ),
    "apriel": pair(
        "Here are my reasoning steps:",
        "[BEGIN FINAL RESPONSE]",
        answer=("[BEGIN FINAL RESPONSE]", "[END FINAL RESPONSE]"),
        signs=("[BEGIN FINAL RESPONSE]",),
    ),
    "granite": pair(
        "<think>", "</think>", answer=("<response>", "</response>"), signs=("<think></think>", "<response></response>")
    ),
    "functionary": AnswerFormat((">>>all",), at_start={"begin": {"all\n": "answer"}}),
}

# Where templates drop the reasoning of earlier turns, they do not show what stands around it.
KNOWN_PAIRS = (("<think>", "</think>"), ("[THINK]", "[/THINK]"), ("<seed:think>", "</seed:think>"))

_QUESTION, _REASONING, _ANSWER = "Quebecword", "Romeoword", "Alfaword"  # no template writes such words by itself
_TAG = r"(?:<[^<>\s/][^<>\s]*>|\[[^\[\]\s/]+\])"
_CLOSING_TAG = r"(?:</[^<>\s]+>|\[/[^\[\]\s]+\])"


def find_format(template: str, added_tokens: Collection[str], render: Render) -> AnswerFormat | None:
    """The format of a model by its chat template and its added tokens; None for one that says no reasoning."""
    for known in BY_SIGNS.values():
        heads_are_tokens = known.begins != "head" or known.marks <= set(added_tokens)
        if heads_are_tokens and all(sign in template for sign in known.signs):
            return known
    if (shown := _shown_pair(render)) is not None:
        return pair(*shown)
    for opening, closing in KNOWN_PAIRS:
        if closing in template or (opening in added_tokens and closing in added_tokens):
            return pair(opening, closing)
    return None


def _shown_pair(render: Render) -> tuple[str, str] | None:
    """The marks that the template writes around the reasoning of an answer; None if it does not say so."""
    asked = {"role": "user", "content": _QUESTION}
    told = {"role": "assistant", "content": _ANSWER, **with_reasoning(_REASONING)}
    try:
        text = render([asked, told], False)
    except TemplateError:
        return None
    found = re.search(rf"({_TAG})\s*{_REASONING}\s*({_CLOSING_TAG})\s*{_ANSWER}", text)
    return (found[1], found[2]) if found else None


def with_reasoning(text: str) -> dict[str, str]:
    """The fields of a turn in which templates look for its reasoning."""
    return {"reasoning_content": text, "reasoning": text, "thinking": text}
