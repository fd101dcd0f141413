"""Votes as scores: Bradley-Terry's strengths on the scale of chess, with bootstrap intervals.

`evalica` computes the strengths. Left to itself it gives a model that won every game the score of those it beat (such a
model has no finite strength), and two of its methods call 7:3 between two models a tie. So each contestant also ties
once with an imaginary average one: then every strength is finite, and 7:3 stays the 60 % more than 3:7 that it is, but
for one tie. What the votes cannot tell is said: few votes, an open end of an interval, contestants that never met.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from heapq import heapify, heappop, heappush
from math import log10
from typing import Any

from services.arena.tables import VOTES

FEW_VOTES = 10
RESAMPLES = 400
MAX_RANKED = 50  # what the scores cost grows faster than the number of contestants
AVERAGE_POINTS = 1_000.0  # of the imaginary contestant
POINTS_PER_TENFOLD = 400.0  # of the strength: 400 points more win ten of eleven games
MAX_ITERATIONS = 100_000
_AVERAGE = ""  # no contestant has this name


@dataclass(frozen=True, order=True)
class Game:
    """One vote between two contestants, by name."""

    left: str
    right: str
    vote: str


@dataclass(frozen=True)
class Standing:
    """One row. `low` and `high` bound 95 % of the resampled scores; None: the votes set no bound.

    `rank` is 1 and one more for each contestant whose whole interval lies above this one's. Contestants of different
    `group`s never met, not even through others: nothing tells which is better.
    """

    name: str
    rank: int
    score: float
    low: float | None
    high: float | None
    votes: int
    wins: int
    losses: int
    ties: int
    both_bad: int
    group: int
    few_votes: bool


@dataclass(frozen=True)
class Leaderboard:
    """`unranked`: how many contestants have too few votes for a row; `votes` are those among the others."""

    standings: tuple[Standing, ...]
    votes: int
    groups: int
    unranked: int = 0

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


def leaderboard(games: Sequence[Game], *, resamples: int = RESAMPLES, seed: int = 0) -> Leaderboard:
    """The MAX_RANKED contestants with the most votes among themselves, the best one first.

    Games of a contestant with itself say nothing and are left out.
    """
    everybody = Counter(game for game in games if game.left != game.right)
    counts = _between_the_most_voted(everybody)
    unranked = len(_votes_of_each(everybody)) - len(_votes_of_each(counts))
    if not counts:
        return Leaderboard((), 0, 0, unranked)
    scores, resampled = _scores(counts), [_scores(each) for each in _resampled(counts, resamples, seed)]
    groups = _groups(counts)
    found = [_Record.of(name, counts).standing(scores, resampled, groups[name]) for name in sorted(scores)]
    ranked = [_with_rank(each, found) for each in found]
    ranked.sort(key=lambda each: (each.rank, -each.score, each.name))
    return Leaderboard(tuple(ranked), counts.total(), len(set(groups.values())), unranked)


def _between_the_most_voted(counts: Counter[Game]) -> Counter[Game]:
    """The games of MAX_RANKED contestants at most, each with another of them.

    The contestant with the fewest votes goes until so many are left, and its votes with it: who has met only such
    contestants has no votes any more and goes next. Taken at once, the most voted might never have met.
    """
    votes, games = _votes_of_each(counts), defaultdict[str, list[Game]](list)
    for game in counts:
        games[game.left].append(game)
        games[game.right].append(game)
    places = {name: place for place, name in enumerate(sorted(votes, reverse=True))}  # of equals the last name goes
    fewest = [(n, places[name], name) for name, n in votes.items()]
    heapify(fewest)
    while fewest and (len(votes) > MAX_RANKED or fewest[0][0] == 0):
        n, _, gone = heappop(fewest)
        if votes.get(gone) != n:
            continue  # it has lost votes since, and stands in the heap again
        del votes[gone]
        for game in games[gone]:
            other = game.right if game.left == gone else game.left
            if other in votes:
                votes[other] -= counts[game]
                heappush(fewest, (votes[other], places[other], other))
    return Counter({game: n for game, n in counts.items() if game.left in votes and game.right in votes})


def _votes_of_each(counts: Counter[Game]) -> Counter[str]:
    votes = Counter[str]()
    for game, n in counts.items():
        votes.update({game.left: n, game.right: n})
    return votes


# -- strengths -------------------------------------------------------------------------------------------------------


def _scores(counts: Counter[Game]) -> dict[str, float]:
    """Points of each contestant of these games, whatever their counts are."""
    import evalica  # pandas comes with it

    winners = {"left": evalica.Winner.X, "right": evalica.Winner.Y}
    names = sorted({name for game in counts for name in (game.left, game.right)})
    games = [(game.left, game.right, winners.get(game.vote, evalica.Winner.Draw), n) for game, n in counts.items()]
    games += [(name, _AVERAGE, evalica.Winner.Draw, 1) for name in names]
    left, right, results, weights = zip(*games, strict=True)
    found = evalica.bradley_terry(left, right, results, weights=[float(n) for n in weights], limit=MAX_ITERATIONS)
    assert found.iterations < MAX_ITERATIONS, "a tie with an average contestant makes every strength finite"
    strengths = {str(name): float(value) for name, value in found.scores.items()}
    return {name: AVERAGE_POINTS + POINTS_PER_TENFOLD * log10(strengths[name] / strengths[_AVERAGE]) for name in names}


def _resampled(counts: Counter[Game], rounds: int, seed: int) -> Iterable[Counter[Game]]:
    """As many games, drawn from these with replacement. A game that was not drawn stays, with the count 0."""
    import numpy

    games, num = sorted(counts), counts.total()
    drawn = numpy.random.default_rng(seed).multinomial(num, [counts[game] / num for game in games], size=rounds)
    for row in drawn.tolist():
        yield Counter(dict(zip(games, row, strict=True)))


# -- rows ------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Record:
    """A contestant's votes."""

    name: str
    wins: int
    losses: int
    ties: int
    both_bad: int

    @classmethod
    def of(cls, name: str, counts: Counter[Game]) -> "_Record":
        def count(is_meant: Callable[[Game], bool]) -> int:
            return sum(n for game, n in counts.items() if name in (game.left, game.right) and is_meant(game))

        return cls(
            name,
            count(lambda game: game.vote == ("left" if game.left == name else "right")),
            count(lambda game: game.vote == ("right" if game.left == name else "left")),
            count(lambda game: game.vote == VOTES[2]),
            count(lambda game: game.vote == VOTES[3]),
        )

    def standing(self, scores: dict[str, float], resampled: list[dict[str, float]], group: int) -> Standing:
        """Who never lost a point has no upper bound, who never won one no lower bound: resampling cannot show it."""
        drawn, level = sorted(each[self.name] for each in resampled), self.ties + self.both_bad
        cut = round(len(drawn) * 0.025)
        votes = self.wins + self.losses + level
        return Standing(
            name=self.name,
            rank=0,
            score=round(scores[self.name], 1),
            low=round(min(drawn[cut], scores[self.name]), 1) if self.wins or level else None,
            high=round(max(drawn[-1 - cut], scores[self.name]), 1) if self.losses or level else None,
            votes=votes,
            wins=self.wins,
            losses=self.losses,
            ties=self.ties,
            both_bad=self.both_bad,
            group=group,
            few_votes=votes < FEW_VOTES,
        )


def _with_rank(standing: Standing, others: Sequence[Standing]) -> Standing:
    above = [each for each in others if each.low is not None and each.low > _bound(standing.high)]
    return Standing(**{**asdict(standing), "rank": 1 + len(above)})


def _bound(high: float | None) -> float:
    return float("inf") if high is None else high


def _groups(counts: Counter[Game]) -> dict[str, int]:
    """Contestant → the number, from 1, of those whom it met, also through others."""
    group: dict[str, str] = {}
    for game in counts:
        left, right = (group.get(name, name) for name in (game.left, game.right))
        group.update({game.left: left, game.right: left})
        group.update({name: left for name, other in group.items() if other == right})
    numbers = {name: number for number, name in enumerate(sorted(set(group.values())), 1)}
    return {name: numbers[root] for name, root in group.items()}
