"""The log probabilities of an answer's tokens, each at its place in the text. The reader collects them from events.

Workers write a token's log probability with its id, and its place with its text, which may come later: so whoever takes
an answer over knows the probabilities of tokens whose text nobody has seen yet.
"""

from bisect import bisect_left
from collections.abc import Sequence
from typing import NamedTuple

from services.wire.messages import Event, TokenLogprob


class PlacedLogprob(NamedTuple):
    """`offset`: where the token's text begins, in code points. A character of several tokens has them all there."""

    offset: int
    token: TokenLogprob


Logprobs = tuple[PlacedLogprob, ...]


class LogprobLog:
    """Those of one answer. `placed` is in the order of the text; followers look at it without a lock."""

    def __init__(self) -> None:
        self.placed: list[PlacedLogprob] = []
        self._numbers: list[int] = []  # of the tokens that are placed
        self._tokens: list[TokenLogprob | None] = []

    def fold(self, event: Event) -> None:
        """The next event of the journal. It writes anew what Redis had lost, perhaps otherwise."""
        if not (event.logprobs or event.places or self._tokens):
            return
        del self._tokens[event.off :]
        kept = bisect_left(self.placed, event.toff, key=_offset_of)
        del self.placed[kept:], self._numbers[kept:]
        self.take(event)

    def take(self, event: Event) -> None:
        """An event that continues what is known, or repeats some of it."""
        if event.logprobs:
            self._tokens += [None] * (event.off - len(self._tokens))
            self._tokens[event.off : event.off + len(event.logprobs)] = event.logprobs
        for number, offset in event.places:
            token = self._tokens[number] if number < len(self._tokens) else None
            if token is not None and number > (self._numbers[-1] if self._numbers else -1):
                self._numbers.append(number)
                self.placed.append(PlacedLogprob(offset, token))


def within(placed: Sequence[PlacedLogprob], offset: int, end: int) -> Logprobs:
    """Those of the tokens whose text begins from one offset on and before another."""
    if not placed:
        return ()
    start, stop = (bisect_left(placed, each, key=_offset_of) for each in (offset, end))
    return tuple(placed[start:stop])


def _offset_of(placed: PlacedLogprob) -> int:
    return placed.offset
