"""Finds the supervised text of a conversation: the text that the model would generate. `tokenization.py` calls it.

The supervised text of an assistant message begins after the prompt that serving renders for it, and ends with its end
of turn. So training and serving draw the same line, whatever the template. Some templates write an answer differently
when another message follows: then there is no such line, and the conversation is refused.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from services.errors import TemplateError, shown
from services.wire.messages import Message

_ANOTHER = "choose a chat template by name (vicuna-v1.1, alpaca, plain)"


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


def stretches(
    messages: Sequence[Message], rendered: Callable[[int, bool], str], turn_end: "re.Pattern[str]"
) -> Iterator[tuple[str, bool]]:
    """The whole conversation's text in stretches: (text, whether it is supervised). Raises TemplateError.

    `rendered(number, ask)` is the text of the first `number` messages, asking for an answer or not; `turn_end`
    matches the tokens that end a turn, and nothing that a message spells.
    """
    done = ""  # all text that was cut into stretches
    for number, message in enumerate(messages):
        if message.role == "assistant":
            prompt = _added(done, rendered(number, True), number)
            answer = _added(done + prompt, rendered(number + 1, False), number)
            end = turn_end.search(answer)
            if end is None:
                raise TemplateError(f"messages[{number}]: the chat template ends this answer with no token; {_ANOTHER}")
            yield prompt, False
            yield answer[: end.end()], True
            done += prompt + answer[: end.end()]
    rest = _added(done, rendered(len(messages), False), len(messages) - 1)
    if rest:
        yield rest, False


def _added(before: str, text: str, number: int) -> str:
    """The part of `text` behind the text before."""
    if not text.startswith(before):
        raise TemplateError(
            f"messages[{number}]: the chat template writes earlier messages differently once this one follows, so "
            f"training and serving would differ; {_ANOTHER}"
        )
    return text[len(before) :]
