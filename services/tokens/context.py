"""Which messages are read of a conversation that is too long: the one rule of all front ends.

The worker's planner calls it with a count of tokens. The command calls it too, with the limit of characters of one
request; the page does the same for that limit (`webapp/frontend/src/chat/prompt.ts`).
"""

from bisect import bisect_left
from collections.abc import Callable, Sequence

from services.wire.messages import Message

_ANSWER_SHARE = 4  # an answer keeps at most this part of the context free: what was said counts more than a long answer


def prompt_room(context_tokens: int, max_new_tokens: int) -> int:
    """How many tokens a prompt of several rounds may have: the rest is for the answer."""
    return context_tokens - min(max_new_tokens, context_tokens // _ANSWER_SHARE)


def newest_rounds(messages: Sequence[Message], fits: Callable[[Sequence[Message]], bool]) -> tuple[Message, ...]:
    """The system message and the newest whole rounds that fit together; at least the last round, with the question.

    A round is a question with its answer: never is one of the two left out alone.
    """
    first = next((index for index, message in enumerate(messages) if message.role != "system"), 0)
    system, turns = messages[:first], messages[first:]
    starts = [
        index
        for index, message in enumerate(turns)
        if index == 0 or (message.role != "assistant" and turns[index - 1].role == "assistant")
    ]
    kept = bisect_left(starts[:-1], True, key=lambda start: fits((*system, *turns[start:])))
    return (*system, *turns[starts[kept] :])
