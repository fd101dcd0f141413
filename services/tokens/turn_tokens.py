"""Finds, by rendering, the tokens that a chat template writes around turns. `tokenization.py` calls it once per model.

Two questions are answered. Which tokens end an assistant's turn: serving stops there, and training teaches them. Which
added tokens are turn marks though the tokenizer does not call them special (`<｜User｜>` of DeepSeek): people's text
must not spell them either.
"""

import re
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from os.path import commonprefix

from services.errors import TemplateError
from services.tokens.reasoning_marks import REASONING_NAME
from services.tokens.system_turns import Render, Turn

# A model writes one of these only where its text, its message or its call of a tool ends, whatever the template.
TEXT_ENDS = ("<|endoftext|>", "<|end_of_text|>", "<|eom_id|>", "<|call|>", "<|calls|>", "<|tool_response>")
# Names of tokens that end turns in the templates in use. gpt-oss ends a mere part of an answer with `<|end|>`: a name
# counts only where the template ends an assistant's turn with it.
_TURN_ENDS = ("<|im_end|>", "<|eot_id|>", "<end_of_turn>", "<|end|>", "<|endofturn|>", "<|eot|>")

_QUESTION, _ANSWER = "Uniformwort", "Antwortwort"  # no template writes such words by itself
_ASK: Turn = {"role": "user", "content": _QUESTION}
_SAID: Turn = {"role": "assistant", "content": _ANSWER}


def turn_marks(render: Render, added: Iterable[str]) -> frozenset[str]:
    """The added tokens that the template writes around plain turns; marks of reasoning and white space are none."""
    text = _rendered(render, [_ASK, _SAID, _ASK]) + _rendered(render, [_ASK])
    return frozenset(
        token for token in added if len(token.strip()) > 1 and token in text and not REASONING_NAME.search(token)
    )


@dataclass(frozen=True)
class TurnEnds:
    """The tokens with which a template ends an assistant's turn."""

    tokens: frozenset[str]
    unwritten: str = (
        ""  # of a template that ends answers with nothing (GLM): what opens the next turn, and so ends them
    )


def turn_ends(render: Render, special: Collection[str]) -> TurnEnds:
    """Finds the ends among the special tokens."""
    turn = _rendered(render, [_ASK, _SAID])
    if not special or _ANSWER not in turn:
        return TurnEnds(frozenset())
    pattern = re.compile("|".join(map(re.escape, sorted(special, key=len, reverse=True))))
    lead, _, tail = turn.rpartition(_ANSWER)
    found = pattern.findall(_without_prompt(tail, lead, pattern))
    if not found:
        return _opening_of_next(render, pattern)
    named = {token for token in found if token in _TURN_ENDS}
    asked = _rendered(render, [_ASK])
    begun = lead[len(asked) :] if lead.startswith(asked) else lead.rpartition(_QUESTION)[2]
    only_ends = found.count(found[-1]) == 1 and found[-1] not in begun and not REASONING_NAME.search(found[-1])
    return TurnEnds(frozenset(named | ({found[-1]} if only_ends else set())))


def _without_prompt(tail: str, lead: str, pattern: "re.Pattern[str]") -> str:
    """What stands behind an answer, without the prompt for the next one. Some templates (an early Llama 3) always write
    that, and so end a turn with the words that stand before the answer too."""
    shared = commonprefix([tail[::-1], lead[::-1]])[::-1]
    first = pattern.search(tail)
    return tail[: first.end()] if first and pattern.search(shared) else tail


def _opening_of_next(render: Render, pattern: "re.Pattern[str]") -> TurnEnds:
    _, _, behind = _rendered(render, [_ASK, _SAID, _ASK]).partition(_ANSWER)
    match = pattern.match(behind, len(behind) - len(behind.lstrip()))
    return TurnEnds(frozenset((match[0],)), behind[: match.end()]) if match else TurnEnds(frozenset())


def _rendered(render: Render, conversation: list[Turn]) -> str:
    try:
        return render(conversation)
    except TemplateError:
        return ""
