"""Ratios are of one round, disturbed rounds are repeated and marked, and the table says what was not measured."""

import math

import pytest

from bench.peers.figures import FIGURES, Round, Turn, least_disturbed, ratios, spread, table


def turn(server: str, tokens: int, *, others: float = 0.0, first_ms: list[float] | None = None) -> Turn:
    return Turn(server, tokens=tokens, elapsed_s=1.0, first_ms=first_ms or [10.0], others=others)


def pair(ours: int, peer: int, others: float = 0.0) -> Round:
    return Round("chat", [turn("ours", ours, others=others), turn("peer", peer)])


def test_a_ratio_compares_turns_of_one_round_only() -> None:
    """The machine was ten times slower in the second round: that changes no ratio."""
    found = ratios([pair(200, 100), pair(20, 10)], "ours", "peer", FIGURES["tokens/s"])
    assert (found.low, found.middle, found.high) == (2.0, 2.0, 2.0)


def test_a_spread_is_the_median_and_both_ends() -> None:
    assert str(spread([3.0, 1.0, 2.0])) == "2.00 (1.00-3.00)"


def test_what_was_not_measured_counts_in_no_median() -> None:
    assert spread([math.nan, 2.0]).middle == 2.0
    assert math.isnan(spread([]).middle)


def test_a_peer_that_answered_nothing_gives_no_ratio() -> None:
    assert math.isnan(ratios([pair(100, 0)], "ours", "peer", FIGURES["tokens/s"]).middle)


@pytest.mark.parametrize(("percent", "value"), [("first p50 ms", 51), ("first p95 ms", 96)])
def test_percentiles_are_values_that_were_measured(percent: str, value: float) -> None:
    assert FIGURES[percent](turn("ours", 1, first_ms=[float(each) for each in range(1, 101)])) == value


def test_an_undisturbed_round_is_measured_once() -> None:
    made = [pair(1, 1, others=0.1)]
    assert not least_disturbed(made.pop).disturbed


def test_a_disturbed_round_is_repeated_until_one_is_quiet() -> None:
    made = [pair(2, 1, others=0.05), pair(1, 1, others=0.5)]
    assert least_disturbed(made.pop).turns[0].tokens == 2


def test_after_two_repeats_the_least_disturbed_round_is_kept_and_marked() -> None:
    made = [pair(4, 1), pair(3, 1, others=0.4), pair(2, 1, others=0.2), pair(1, 1, others=0.3)]
    found = least_disturbed(made.pop)
    assert len(made) == 1
    assert found.turns[0].tokens == 2
    assert "**1 of 1 rounds disturbed**" in table([found], "ours")[2]


def test_a_round_is_disturbed_if_any_of_its_turns_was() -> None:
    assert Round("chat", [turn("ours", 1), turn("peer", 1, others=0.11)]).disturbed


def test_a_row_names_figures_ratios_and_errors() -> None:
    failed = turn("peer", 50)
    failed.errors = ["refused"]
    rows = table([Round("chat", [turn("ours", 100), failed])], "ours")
    assert "| chat | ours | 100 |" in rows[2]
    assert "| chat | peer | 50; 2.00 (2.00-2.00) |" in rows[3]
    assert rows[3].split(" | ")[-2] == "1"
