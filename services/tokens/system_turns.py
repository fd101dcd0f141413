"""Finds the system turns that a chat template would lose, and moves their text into the user turn that follows.

Some templates have no system role: they refuse a system turn, or leave it out without a word. `ChatTokenizer` renders
probes once, and every conversation through `with_system_text`: so serving, counting and training see the same text.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from services.errors import TemplateError

Turn = dict[str, Any]  # role, content, and what a template reads beside them
Render = Callable[[list[Turn]], str]
"""The text of a conversation. Raises TemplateError if the template refuses it."""

_SYSTEM, _USER = "Sierrawort", "Uniformwort"  # no template writes such words by itself


def _turn(role: str, content: str = "word") -> Turn:
    return {"role": role, "content": content}


_ASK, _ANSWER, _TOLD = _turn("user", _USER), _turn("assistant"), _turn("system", _SYSTEM)
# (with a system turn, the same without it)
_FIRST = (([_TOLD, _ASK], [_ASK]), ([_TOLD, _ASK, _ANSWER, _ASK], [_ASK, _ANSWER, _ASK]))
_LATER = (([_ASK, _ANSWER, _TOLD, _ASK], [_ASK, _ANSWER, _ASK]),)


@dataclass(frozen=True)
class SystemTurns:
    """Which system turns a template would lose: one at the beginning of the conversation, one after other turns."""

    loses_first: bool
    loses_later: bool

    @property
    def finding(self) -> str:
        """A sentence for the log and for training's report; empty if the template loses nothing."""
        moved = "goes to the front of the next user message"
        if self.loses_first:
            return f"It has no system role: the text of a system message {moved}."
        return (
            f"It takes a system message only at the start: the text of a later one {moved}." if self.loses_later else ""
        )

    def with_system_text(self, conversation: Sequence[Turn]) -> list[Turn]:
        """The conversation with each system turn that would be lost in front of the next user turn's text.

        An empty one is left out. Raises TemplateError if no user turn follows directly.
        """
        turns: list[Turn] = []
        texts: list[str] = []
        for number, turn in enumerate(conversation):
            if turn["role"] == "system" and self._loses(number):
                texts += [turn["content"]] if turn["content"].strip() else []
            elif texts:
                turns.append(_joined(texts, turn, number))
                texts = []
            else:
                turns.append(turn)
        if texts:
            raise _misplaced(len(conversation))
        return turns

    def _loses(self, number: int) -> bool:
        return self.loses_later if number else self.loses_first


def probe(render: Render) -> SystemTurns:
    """What a template does with system turns, found by rendering."""
    return SystemTurns(
        any(_is_lost(render, told, plain) for told, plain in _FIRST),
        any(_is_lost(render, told, plain) for told, plain in _LATER),
    )


def _is_lost(render: Render, told: list[Turn], plain: list[Turn]) -> bool:
    """Whether the system turn is what the template does not write; False if it does not write the rest either."""
    return not _writes(render, told, _SYSTEM) and _writes(render, plain, _USER)


def _writes(render: Render, conversation: list[Turn], word: str) -> bool:
    try:
        return word in render(conversation)
    except TemplateError:
        return False


def _joined(texts: Sequence[str], turn: Turn, number: int) -> Turn:
    if turn["role"] != "user":
        raise _misplaced(number)
    return {**turn, "content": "\n\n".join([*texts, turn["content"]])}


def _misplaced(number: int) -> TemplateError:
    return TemplateError(
        f"messages[{number - 1}] is a system message, for which the model's chat template has no place: "
        "a user message must follow it"
    )
