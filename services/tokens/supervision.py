"""Which of a conversation's text a model learns: what it would have to generate. Used by `tokenization.py`.

An assistant turn's learnt text stands between the prompt that serving renders for it and the end of its turn: the
boundary is serving's own, whatever the template. Where a template writes an answer differently as soon as another
turn follows, no such boundary exists and the conversation is refused.
"""

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from services.errors import TemplateError, shown
from services.wire.messages import Message

_ANOTHER = "choose a chat template by name (vicuna-v1.1, alpaca, plain)"


@dataclass(frozen=True)
class SupervisedSequence:
    """A conversation as it is trained. `mask` is as long as `ids`: 1 where the model learns the token, else 0."""

    ids: list[int]
    mask: list[int]


def check_turns(messages: Sequence[Message]) -> None:
    """Raises TemplateError for a conversation that serving would never ask an answer for."""
    for number, message in enumerate(messages):
        if message.role not in ("system", "user", "assistant"):
            remedy = "train on system, user and assistant turns only"
            raise TemplateError(f"messages[{number}].role={shown(message.role)}: {remedy}")
    first = next((message.role for message in messages if message.role != "system"), "")
    if first != "user":
        raise TemplateError(f"the first turn is {first or 'missing'}, not user: no prompt asks for such an answer")


def stretches(
    messages: Sequence[Message], rendered: Callable[[int, bool], str], turn_end: "re.Pattern[str]"
) -> Iterator[tuple[str, bool]]:
    """The whole conversation's text in stretches: (text, whether it is learnt). Raises TemplateError.

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
    """What `text` adds to the text before."""
    if not text.startswith(before):
        raise TemplateError(
            f"messages[{number}]: the chat template writes earlier turns differently once this one follows, so what"
            f" is trained would not be what is served; {_ANOTHER}"
        )
    return text[len(before) :]
