"""The leaderboard of this moment. Scores are computed again only after another vote: resampling takes a second."""

from services.arena.leaderboard import Leaderboard, leaderboard
from services.arena.votes import games
from services.database.database import Database


class Standings:
    """The scores of all votes. `board` blocks: call it in a thread. Two at once may both compute; both are right."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known: tuple[int, Leaderboard] = (hash(()), leaderboard([]))

    def board(self) -> Leaderboard:
        with self._database.read() as session:
            found = games(session)
        votes, board = self._known
        if hash(tuple(found)) != votes:
            board = leaderboard(found)
            self._known = (hash(tuple(found)), board)
        return board
