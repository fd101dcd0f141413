"""The leaderboard of this moment. Scores are computed again only after another vote: resampling takes seconds."""

import _thread

from services.arena.leaderboard import Leaderboard, leaderboard
from services.arena.votes import Tally, games, tally
from services.database.database import Database


class Standings:
    """The scores of all votes. `board` blocks: call it in a thread. While one caller computes, others see the last."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known: tuple[Tally, Leaderboard] | None = None
        self._computing = _thread.RLock()  # a thread may wait for it; those of `threading` are gevent's

    def board(self) -> Leaderboard:
        with self._database.read() as session:
            votes = tally(session)
        known = self._known
        if known is not None and known[0] == votes:
            return known[1]
        if not self._computing.acquire(blocking=known is None):
            return known[1]  # type: ignore[index]  # only who knows nothing waits
        try:
            return self._computed()
        finally:
            self._computing.release()

    def _computed(self) -> Leaderboard:
        with self._database.read() as session:
            votes, found = tally(session), games(session)
        if self._known is not None and self._known[0] == votes:  # by whom this caller waited for
            return self._known[1]
        board = leaderboard(found)
        self._known = (votes, board)
        return board
