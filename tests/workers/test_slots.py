"""Which sequences run, and what the next batch computes."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from workers.engine import Sampling
from workers.slots import Sequence, SlotTable


class RecordingCache:
    """The tokens that a real cache would hold, slot by slot."""

    def __init__(self) -> None:
        self.held: dict[int, list[int]] = {}

    def forget(self, slot: int, begin: int) -> None:
        del self.held.setdefault(slot, [])[begin:]

    def share(self, source: int, target: int, end: int) -> None:
        assert not self.held.get(target), "a slot that gets tokens must be empty"
        self.held[target] = self.held[source][:end]


class Rig:
    """A table, and the engine's part of a step: computes the rows and says `7` after each sequence."""

    def __init__(self, num_slots: int = 4, num_cells: int = 1000, **options: bool) -> None:
        self.cache = RecordingCache()
        self.table = SlotTable(num_slots, num_cells, self.cache, **options)
        self.num_cells = num_cells
        self.ended: list[str] = []

    def add(self, name: str, tokens: list[int], max_new_tokens: int = 5) -> Sequence:
        sequence = Sequence(name, list(tokens), Sampling(max_new_tokens))
        self.table.add(sequence)
        return sequence

    def step(self, num_tokens: int = 100) -> list[tuple[str, int, bool]]:
        """(request, number of tokens, asked) of each row."""
        rows = self.table.plan(num_tokens)
        told = [(row.slot.sequence.request_id, len(row.tokens), row.asked) for row in rows if row.slot.sequence]
        for row in rows:
            held = self.cache.held.setdefault(row.slot.index, [])
            assert held == row.slot.cached, "the table and the cache hold different tokens"
            held += row.tokens
        self.table.computed(rows)
        assert sum(map(len, self.cache.held.values())) <= self.num_cells
        for row in rows:
            if row.asked and row.slot.sequence:
                self._say(row.slot.sequence)
        return told

    def _say(self, sequence: Sequence) -> None:
        sequence.tokens.append(7)
        if sequence.is_full:
            self.ended.append(sequence.request_id)
            self.table.remove(sequence, keep=True)

    def run(self) -> None:
        for _ in range(10_000):
            if not self.table.has_work:
                return
            self.step()
        raise AssertionError("the sequences never end")


def prompt(length: int, begin: int = 0) -> list[int]:
    return list(range(100 + begin, 100 + begin + length))


def test_sequences_that_decode_come_before_prompts_and_a_prompt_is_cut_to_the_budget() -> None:
    rig = Rig()
    rig.add("first", prompt(10))
    assert rig.step() == [("first", 10, True)]
    rig.add("long", prompt(50, 500))
    assert rig.step(21) == [("first", 1, True), ("long", 20, False)]
    assert rig.step(31) == [("first", 1, True), ("long", 30, True)]


def test_the_next_turn_of_a_conversation_computes_only_what_is_new() -> None:
    rig = Rig()
    rig.add("turn", prompt(40), max_new_tokens=3)
    rig.run()
    rig.add("next", [*prompt(40), 7, 7, *prompt(5, 900)])
    assert rig.step() == [("next", 5, True)]


def test_a_beginning_that_a_running_sequence_holds_is_shared() -> None:
    rig = Rig()
    rig.add("first", prompt(40), max_new_tokens=50)
    rig.step()
    rig.add("second", [*prompt(30), *prompt(8, 700)])
    assert rig.step() == [("first", 1, True), ("second", 8, True)]


@pytest.mark.parametrize("options", [{"shares": False}, {"rewinds": False, "shares": False}])
def test_a_cache_that_cannot_share_computes_all(options: dict[str, bool]) -> None:
    rig = Rig(**options)
    rig.add("first", prompt(40), max_new_tokens=50)
    rig.step()
    rig.add("second", [*prompt(30), *prompt(8, 700)])
    assert ("second", 38, True) in rig.step()


def test_a_state_that_cannot_be_rewound_is_never_kept() -> None:
    rig = Rig(rewinds=False, shares=False)
    rig.add("turn", prompt(40), max_new_tokens=3)
    rig.run()
    assert not any(rig.cache.held.values())
    rig.add("next", [*prompt(40), 7, 7, 8])
    assert rig.step() == [("next", 43, True)]


def test_an_equal_prompt_computes_its_last_token_for_the_logits() -> None:
    rig = Rig()
    rig.add("once", prompt(40), max_new_tokens=1)
    rig.run()
    rig.add("again", prompt(40))
    assert rig.step() == [("again", 1, True)]


def test_a_cancelled_sequence_frees_its_cells_at_once() -> None:
    rig = Rig()
    sequence = rig.add("victim", prompt(40), max_new_tokens=50)
    waiting = rig.add("waiting", prompt(9, 300))
    rig.step()
    rig.table.remove(sequence)
    rig.table.remove(waiting)
    assert not any(rig.cache.held.values()) and not rig.table.has_work


def test_when_cells_run_out_idle_slots_go_first_and_then_the_youngest_sequence_waits_for_its_turn() -> None:
    rig = Rig(num_slots=3, num_cells=128)
    rig.add("gone", prompt(30), max_new_tokens=1)
    rig.run()
    rig.add("old", prompt(20, 200), max_new_tokens=60)
    rig.add("young", prompt(20, 300), max_new_tokens=60)
    rig.run()
    assert rig.ended == ["gone", "old", "young"]


def test_one_sequence_may_fill_the_cache_to_the_last_cell() -> None:
    rig = Rig(num_slots=2, num_cells=64)
    rig.add("whole", prompt(60), max_new_tokens=5)  # the last token that is said needs no cell
    rig.run()
    assert rig.ended == ["whole"]


def test_only_idle_slots_can_be_dropped() -> None:
    rig = Rig()
    rig.add("done", prompt(10), max_new_tokens=1)
    rig.run()
    rig.add("running", prompt(10, 300))
    rig.step()
    assert rig.table.drop_idle()
    assert not rig.table.drop_idle()


def test_a_batch_that_failed_is_computed_again() -> None:
    rig = Rig()
    rig.add("r", prompt(10))
    rows = rig.table.plan(100)
    rig.cache.held[rows[0].slot.index] = prompt(4)  # as far as the engine came
    rig.table.rewind(rows)
    assert rig.step() == [("r", 10, True)]


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 60), st.integers(0, 3), st.integers(1, 40)), min_size=1, max_size=12),
    st.sampled_from([{}, {"shares": False}, {"rewinds": False, "shares": False}]),
    st.integers(1, 70),
)
def test_every_sequence_ends_with_its_tokens_however_small_the_cache(
    asked: list[tuple[int, int, int]], options: dict[str, bool], num_tokens: int
) -> None:
    rig = Rig(num_slots=3, num_cells=100, **options)
    sequences = [rig.add(f"r{n}", prompt(length, 20 * begin), new) for n, (length, begin, new) in enumerate(asked)]
    for _ in range(10_000):
        if not rig.table.has_work:
            break
        rig.step(max(num_tokens, 3))
    assert sorted(rig.ended) == sorted(sequence.request_id for sequence in sequences)
    for sequence, (length, _, new) in zip(sequences, asked, strict=True):
        assert len(sequence.tokens) == length + new
