"""What the turns of a round become: ratios of ours to each peer with their spread, as a table. `__main__.py` prints it.

A round is one scenario, asked of every server in turn. A round is disturbed if others took more than a tenth of the
machine in any of its turns: then its ratios compare weathers.
"""

import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from bench.system import percentile

MOST_OTHERS = 0.10  # of all processors
MOST_REPEATS = 2


@dataclass
class Turn:
    """One scenario asked of one server once."""

    server: str
    tokens: int = 0
    elapsed_s: float = 0.0
    first_ms: list[float] = field(default_factory=list)
    gaps_ms: list[float] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    peak_mib: float = 0.0
    cpu_s: float = 0.0
    others: float = 0.0

    @property
    def tokens_per_s(self) -> float:
        return self.tokens / self.elapsed_s if self.elapsed_s else float("nan")


@dataclass(frozen=True)
class Round:
    scenario: str
    turns: Sequence[Turn]

    @property
    def others(self) -> float:
        return max(turn.others for turn in self.turns)

    @property
    def disturbed(self) -> bool:
        return self.others > MOST_OTHERS


def least_disturbed(measure: Callable[[], Round]) -> Round:
    """The first round that nothing disturbed, of three at most; else the least disturbed."""
    rounds = [measure()]
    while rounds[-1].disturbed and len(rounds) <= MOST_REPEATS:
        rounds.append(measure())
    return min(rounds, key=lambda each: each.others)


FIGURES: dict[str, Callable[[Turn], float]] = {
    "tokens/s": lambda turn: turn.tokens_per_s,
    "first p50 ms": lambda turn: percentile(turn.first_ms, 50),
    "first p95 ms": lambda turn: percentile(turn.first_ms, 95),
    "gap p95 ms": lambda turn: percentile(turn.gaps_ms, 95),
    "peak MiB": lambda turn: turn.peak_mib,
}


@dataclass(frozen=True)
class Spread:
    """Of one figure over the rounds."""

    middle: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{_short(self.middle)} ({_short(self.low)}-{_short(self.high)})"


def spread(values: Iterable[float]) -> Spread:
    """The median, the least and the most; nan where there is nothing."""
    known = [value for value in values if value == value]
    if not known:
        return Spread(*[float("nan")] * 3)
    return Spread(statistics.median(known), min(known), max(known))


def ratios(rounds: Sequence[Round], ours: str, peer: str, figure: Callable[[Turn], float]) -> Spread:
    """Ours divided by the peer's, round by round: turns of different rounds are never compared."""
    return spread(_ratio(each, ours, peer, figure) for each in rounds)


def _ratio(each: Round, ours: str, peer: str, figure: Callable[[Turn], float]) -> float:
    by_server = {turn.server: turn for turn in each.turns}
    if ours not in by_server or peer not in by_server:
        return float("nan")
    below = figure(by_server[peer])
    return figure(by_server[ours]) / below if below else float("nan")


def table(rounds: Sequence[Round], ours: str) -> list[str]:
    """Markdown: a row for each scenario and server; behind a figure the ratio of ours to it."""
    lines = ["| scenario | server | " + " | ".join(FIGURES) + " | errors | others |", "|---" * (len(FIGURES) + 4) + "|"]
    for scenario in dict.fromkeys(each.scenario for each in rounds):
        of_it = [each for each in rounds if each.scenario == scenario]
        for server in dict.fromkeys(turn.server for each in of_it for turn in each.turns):
            lines.append(_row(scenario, server, of_it, ours))
    return lines


def _row(scenario: str, server: str, rounds: Sequence[Round], ours: str) -> str:
    turns = [turn for each in rounds for turn in each.turns if turn.server == server]
    cells = []
    for figure in FIGURES.values():
        cell = _short(spread(figure(turn) for turn in turns).middle)
        if server != ours:
            cell += f"; {ratios(rounds, ours, server, figure)}"
        cells.append(cell)
    disturbed = sum(each.disturbed for each in rounds)
    others = f"{100 * max(turn.others for turn in turns):.0f} %"
    if disturbed:
        others += f", **{disturbed} of {len(rounds)} rounds disturbed**"
    return (
        f"| {scenario} | {server} | "
        + " | ".join([*cells, str(sum(len(turn.errors) for turn in turns)), others])
        + " |"
    )


def _short(value: float) -> str:
    return f"{value:.2f}" if value < 10 else f"{value:,.0f}"
