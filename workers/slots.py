"""Which sequences run, in which slots of a cache, and what the next batch computes. The `llamacpp` adapter asks.

A slot is a sequence number of the engine's cache. After an answer its slot keeps the tokens, so that the next turn of
the same conversation computes only what is new; a beginning that another slot holds is shared instead of computed.
Nothing here touches a tensor: `Cache` is what the engine does to its own.
"""

from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Protocol

from workers.engine import Sampling

_SHARED_TOKENS = 16  # a shorter common beginning is not worth another sequence's cells
_ROOM_TO_GROW = 32  # tokens for each running sequence that a newcomer leaves free


class DecodeFailed(Exception):
    """The engine could not compute a batch. `no_room`: its memory was at fault, not what it was asked."""

    def __init__(self, message: str, *, no_room: bool) -> None:
        super().__init__(message)
        self.no_room = no_room


class Cache(Protocol):
    """The keys and values in the engine's memory."""

    def forget(self, slot: int, begin: int) -> None:
        """Drop what a slot holds from position `begin` on."""

    def share(self, source: int, target: int, end: int) -> None:
        """Give an empty slot what another one holds before position `end`."""


@dataclass(eq=False)
class Sequence:
    """One request: its prompt and its answer so far."""

    request_id: str
    tokens: list[int]
    sampling: Sampling
    num_prompt: int = field(init=False)

    def __post_init__(self) -> None:
        self.num_prompt = len(self.tokens)

    @property
    def is_full(self) -> bool:
        return len(self.tokens) - self.num_prompt >= self.sampling.max_new_tokens


@dataclass(eq=False)
class Slot:
    """A place in the cache: the tokens whose keys and values it holds, and the sequence that runs in it."""

    index: int
    cached: list[int] = field(default_factory=list)
    sequence: Sequence | None = None
    changed: int = 0  # when a sequence began or ended here, in turns

    @property
    def pending(self) -> int:
        """How many tokens of its sequence are not computed yet."""
        return len(self.sequence.tokens) - len(self.cached) if self.sequence else 0

    def common(self, tokens: list[int]) -> int:
        """How many tokens at the beginning of the slot and of `tokens` are the same."""
        longest = min(len(self.cached), len(tokens))
        if self.cached[:longest] == tokens[:longest]:
            return longest
        return next(at for at in range(longest) if self.cached[at] != tokens[at])


@dataclass(frozen=True)
class Row:
    """A run of tokens of one slot in a batch. The last one is `asked` for logits if the sequence ends with it."""

    slot: Slot
    tokens: list[int]
    asked: bool

    @property
    def begin(self) -> int:
        return len(self.slot.cached)


class SlotTable:
    """Sequences that wait and run. `num_cells`: the tokens that the cache holds, at least one whole context.

    `rewinds`: the cache can drop the end of a sequence; `shares`: it can give one's beginning to another. Cells that
    slots share are counted for each of them.
    """

    def __init__(self, num_slots: int, num_cells: int, cache: Cache, *, rewinds: bool = True, shares: bool = True):
        self.slots = [Slot(index) for index in range(num_slots)]
        self._num_cells = num_cells
        self._cache = cache
        self._rewinds = rewinds
        self._shares = shares
        self._waiting: deque[Sequence] = deque()
        self._turn = 0

    def add(self, sequence: Sequence) -> None:
        self._waiting.append(sequence)

    def sequences(self) -> list[Sequence]:
        return [*(slot.sequence for slot in self.slots if slot.sequence), *self._waiting]

    @property
    def has_work(self) -> bool:
        return bool(self._waiting) or any(slot.sequence for slot in self.slots)

    @property
    def decodes(self) -> bool:
        """Whether a sequence waits for nothing but its next token."""
        return any(slot.pending == 1 for slot in self.slots)

    def remove(self, sequence: Sequence, *, keep: bool = False) -> None:
        """End a sequence, wherever it is. `keep` its tokens for one that begins alike."""
        if sequence in self._waiting:
            self._waiting.remove(sequence)
        for slot in self.slots:
            if slot.sequence is sequence:
                self._release(slot, keep=keep and self._rewinds)

    def plan(self, num_tokens: int) -> list[Row]:
        """The rows of the next batch: every sequence that decodes, then prompts, oldest first, to `num_tokens`."""
        self._admit()
        rows = self._rows(num_tokens)
        while self._in_use() + sum(len(row.tokens) for row in rows) > self._num_cells:
            if not self.drop_idle():
                self._preempt()  # never the last one: its length is checked against the cache
            rows = self._rows(num_tokens)
        return rows

    def computed(self, rows: Iterable[Row]) -> None:
        for row in rows:
            row.slot.cached += row.tokens

    def rewind(self, rows: Iterable[Row]) -> None:
        """Drop what a batch that failed may have left of these rows. Later rows of their slots may begin earlier."""
        for row in rows:
            self._cut(row.slot, row.begin if self._rewinds else 0)

    def row(self, slot: Slot, num_tokens: int) -> Row:
        """What a slot with a sequence has to compute next, `num_tokens` at most."""
        assert slot.sequence is not None
        begin, end = len(slot.cached), len(slot.sequence.tokens)
        return Row(slot, slot.sequence.tokens[begin : begin + num_tokens], begin + num_tokens >= end)

    def drop_idle(self) -> bool:
        """Free the cells of the slot that has been idle longest. False: none is."""
        idle = [slot for slot in self.slots if slot.cached and slot.sequence is None]
        if idle:
            self._cut(min(idle, key=_age), 0)
        return bool(idle)

    # ---- inside

    def _preempt(self) -> None:
        """The youngest sequence goes back to the line, at its head, with the tokens that it has."""
        youngest = max((slot for slot in self.slots if slot.sequence), key=_age)
        assert youngest.sequence is not None
        self._waiting.appendleft(youngest.sequence)
        self._release(youngest, keep=False)

    def _admit(self) -> None:
        while self._waiting and self._has_room_for(self._waiting[0]):
            free = [slot for slot in self.slots if slot.sequence is None]
            if not free:
                return
            sequence = self._waiting.popleft()
            self._begin(self._place_for(sequence, free), sequence)

    def _has_room_for(self, sequence: Sequence) -> bool:
        running = [slot.sequence for slot in self.slots if slot.sequence]
        taken = sum(len(each.tokens) + _ROOM_TO_GROW for each in running)
        return not running or taken + len(sequence.tokens) + _ROOM_TO_GROW <= self._num_cells

    def _place_for(self, sequence: Sequence, free: list[Slot]) -> Slot:
        """A free slot that holds the longest beginning of the sequence, or that got it from another slot."""
        known = sequence.tokens[:-1]  # the last one is computed anew: its logits are the next token's
        best = max(free, key=lambda slot: (slot.common(known), -slot.changed))
        if best.common(known) < _SHARED_TOKENS:
            best = min(free, key=lambda slot: (bool(slot.cached), slot.changed))
        begin = best.common(known) if self._rewinds else 0
        source = max(self.slots, key=lambda slot: slot.common(known))
        length = source.common(known)
        if self._shares and length >= begin + _SHARED_TOKENS:
            place = min((slot for slot in free if slot is not source), key=_age, default=None)
            if place is not None:
                self._cut(place, 0)
                self._cache.share(source.index, place.index, length)
                place.cached = source.cached[:length]
                return place
        self._cut(best, begin)
        return best

    def _begin(self, slot: Slot, sequence: Sequence) -> None:
        self._turn += 1
        slot.sequence, slot.changed = sequence, self._turn

    def _release(self, slot: Slot, *, keep: bool) -> None:
        self._turn += 1
        slot.sequence, slot.changed = None, self._turn
        if not keep:
            self._cut(slot, 0)

    def _cut(self, slot: Slot, begin: int) -> None:
        self._cache.forget(slot.index, begin)
        del slot.cached[begin:]

    def _rows(self, num_tokens: int) -> list[Row]:
        busy = sorted((slot for slot in self.slots if slot.pending), key=lambda slot: (slot.pending > 1, slot.changed))
        rows: list[Row] = []
        for slot in busy:
            if num_tokens > 0:
                rows.append(self.row(slot, num_tokens))
                num_tokens -= len(rows[-1].tokens)
        return rows

    def _in_use(self) -> int:
        return sum(len(slot.cached) for slot in self.slots)


def _age(slot: Slot) -> int:
    return slot.changed
