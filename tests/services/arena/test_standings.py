"""The leaderboard that is kept between votes."""

import threading
from concurrent.futures import ThreadPoolExecutor

import pytest

from services.arena import standings
from services.arena.leaderboard import Game, Leaderboard, leaderboard
from services.arena.standings import Standings
from services.database.database import Database
from tests.services.judgements.people import People

WAIT_S = 30


@pytest.fixture
def people(database: Database) -> People:
    return People(database)


def test_scores_are_computed_again_only_after_another_vote(
    people: People, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    computed: list[int] = []

    def counting(games: list[Game]) -> Leaderboard:
        computed.append(len(games))
        return leaderboard(games)

    monkeypatch.setattr(standings, "leaderboard", counting)
    kept = Standings(database)
    assert kept.board().votes == kept.board().votes == 0
    people.battle("b1", "Why?", "good", "bad", "left")
    assert kept.board().votes == kept.board().votes == 1
    assert computed == [0, 1]


def test_while_one_computes_another_sees_the_last_board(
    people: People, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    computes, goes_on = threading.Event(), threading.Event()

    def slow(games: list[Game]) -> Leaderboard:
        computes.set()
        assert goes_on.wait(WAIT_S)
        return leaderboard(games)

    kept = Standings(database)
    assert kept.board().votes == 0
    people.battle("b1", "Why?", "good", "bad", "left")
    monkeypatch.setattr(standings, "leaderboard", slow)
    with ThreadPoolExecutor(2) as threads:
        first = threads.submit(kept.board)
        assert computes.wait(WAIT_S)
        try:
            assert threads.submit(kept.board).result(WAIT_S).votes == 0
        finally:
            goes_on.set()
        assert first.result(WAIT_S).votes == 1
    assert kept.board().votes == 1


def test_who_asks_while_the_first_board_is_computed_waits_for_it(
    people: People, database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    computes, goes_on, computed = threading.Event(), threading.Event(), list[int]()

    def slow(games: list[Game]) -> Leaderboard:
        computed.append(len(games))
        computes.set()
        assert goes_on.wait(WAIT_S)
        return leaderboard(games)

    people.battle("b1", "Why?", "good", "bad", "left")
    monkeypatch.setattr(standings, "leaderboard", slow)
    kept = Standings(database)
    with ThreadPoolExecutor(2) as threads:
        boards = [threads.submit(kept.board) for _ in range(2)]
        assert computes.wait(WAIT_S)
        goes_on.set()
        assert [board.result(WAIT_S).votes for board in boards] == [1, 1]
    assert computed == [1]
