"""The leaderboard of this moment. Scores are computed again only after another vote: resampling takes seconds."""

import threading

from services.arena.leaderboard import Leaderboard, leaderboard
from services.arena.votes import Tally, games, tally
from services.database.database import Database


class Standings:
    """The scores of all votes. `board` blocks: call it in a thread. While one caller computes, others see the last."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known: tuple[Tally, Leaderboard] | None = None
        self._computing = threading.Lock()

    def board(self) -> Leaderboard:
        with self._database.read() as session:
            votes = tally(session)
        if self._known is None:
            return self._computed()
        if self._known[0] != votes and self._computing.acquire(blocking=False):
            try:
                return self._computed()
            finally:
                self._computing.release()
        return self._known[1]

    def _computed(self) -> Leaderboard:
        with self._database.read() as session:
            votes, found = tally(session), games(session)
        board = leaderboard(found)
        self._known = (votes, board)
        return board
