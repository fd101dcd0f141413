"""Scores from votes, in the small cases that libraries get wrong, and against an independent computation."""

from math import log10

import pytest

from services.arena.leaderboard import MAX_RANKED, Game, Leaderboard, Standing, leaderboard


def games(left: str, right: str, wins: int = 0, losses: int = 0, ties: int = 0, bad: int = 0) -> list[Game]:
    """Both sides in turn, so that the order of a pair is seen to make no difference."""
    counts = {"left": wins, "right": losses, "tie": ties, "both_bad": bad}
    found = [Game(left, right, vote) for vote, n in counts.items() for _ in range(n)]
    turned = {"left": "right", "right": "left"}
    return [
        Game(game.right, game.left, turned.get(game.vote, game.vote)) if number % 2 else game
        for number, game in enumerate(found)
    ]


def by_name(board: Leaderboard) -> dict[str, Standing]:
    return {each.name: each for each in board.standings}


def zermelo(matches: list[Game]) -> dict[str, float]:
    """Bradley-Terry's strengths by Zermelo's iteration, with the tie against an average contestant, as points."""
    names = sorted({name for game in matches for name in (game.left, game.right)})
    wins = {(a, b): 0.0 for a in [*names, ""] for b in [*names, ""] if a != b}
    for game in matches:
        share = {"left": 1.0, "right": 0.0}.get(game.vote, 0.5)
        wins[game.left, game.right] += share
        wins[game.right, game.left] += 1 - share
    for name in names:
        wins[name, ""] = wins["", name] = 0.5
    strength = dict.fromkeys([*names, ""], 1.0)
    for _ in range(20_000):
        for a in strength:
            others = [b for b in strength if b != a]
            met = sum((wins[a, b] + wins[b, a]) / (strength[a] + strength[b]) for b in others)
            strength[a] = sum(wins[a, b] for b in others) / met
    return {name: 1_000 + 400 * log10(strength[name] / strength[""]) for name in names}


@pytest.mark.parametrize(
    "matches",
    [
        games("a", "b", wins=7, losses=3),
        games("a", "b", wins=10),
        games("a", "b", wins=10) + games("b", "c", wins=5, losses=5),
        games("a", "b", wins=7, losses=3, ties=10, bad=2),
        games("a", "b", wins=1),
        games("a", "b", wins=60, losses=20) + games("b", "c", wins=9, losses=3) + games("a", "c", losses=4, ties=1),
    ],
)
def test_scores_are_bradley_terrys(matches: list[Game]) -> None:
    found = {name: each.score for name, each in by_name(leaderboard(matches, resamples=1)).items()}
    assert found == pytest.approx(zermelo(matches), abs=0.2)


def test_seven_to_three_is_no_tie() -> None:
    board = by_name(leaderboard(games("a", "b", wins=7, losses=3)))
    assert board["a"].score - board["b"].score == pytest.approx(400 * log10(7 / 3), abs=10)
    assert (board["a"].wins, board["a"].losses, board["b"].wins, board["a"].votes) == (7, 3, 3, 10)


def test_an_unbeaten_contestant_leads_those_it_beat_and_has_no_upper_bound() -> None:
    board = leaderboard(games("a", "b", wins=10) + games("b", "c", wins=5, losses=5))
    first = board.standings[0]
    assert first.name == "a" and first.score > board.standings[1].score + 300
    assert first.high is None and first.low is not None and first.low > 1_000
    assert all(each.low is not None and each.high is not None for each in board.standings[1:])


def test_who_never_won_has_no_lower_bound() -> None:
    loser = by_name(leaderboard(games("a", "b", wins=3)))["b"]
    assert loser.low is None and loser.high is not None and loser.rank in (1, 2)


def test_few_votes_share_a_rank_and_many_do_not() -> None:
    few, many = (leaderboard(games("a", "b", wins=7 * n, losses=3 * n)) for n in (1, 30))
    assert [each.rank for each in few.standings] == [1, 1]
    assert [each.rank for each in many.standings] == [1, 2]
    assert not few.standings[0].few_votes and leaderboard(games("a", "b", wins=9)).standings[0].few_votes
    widths = [each.standings[0].high - each.standings[0].low for each in (few, many)]  # type: ignore[operator]
    assert widths[0] > 3 * widths[1], "more votes, narrower intervals"


def test_ties_and_two_bad_answers_are_counted_apart_and_weigh_the_same() -> None:
    ties, bad = (by_name(leaderboard(games("a", "b", wins=6, **{kind: 8}))) for kind in ("ties", "bad"))
    assert (ties["a"].ties, ties["a"].both_bad, bad["a"].ties, bad["a"].both_bad) == (8, 0, 0, 8)
    assert ties["a"].score == bad["a"].score > 1_000
    level = leaderboard(games("a", "b", ties=5)).standings
    assert [each.score for each in level] == [1_000, 1_000] and [each.rank for each in level] == [1, 1]


def test_contestants_that_never_met_are_in_different_groups() -> None:
    board = leaderboard(games("a", "b", wins=7, losses=3) + games("c", "d", wins=3, losses=7))
    found = by_name(board)
    assert board.groups == 2
    assert found["a"].group == found["b"].group != found["c"].group == found["d"].group
    joined = leaderboard(games("a", "b", ties=1) + games("c", "d", ties=1) + games("d", "a", ties=1))
    assert joined.groups == 1


def test_no_vote_and_a_model_against_itself_make_no_row() -> None:
    assert leaderboard([]) == leaderboard([Game("a", "a", "tie")]) == Leaderboard((), 0, 0)


def test_the_same_votes_give_the_same_board() -> None:
    matches = games("a", "b", wins=7, losses=3, ties=2)
    assert leaderboard(matches) == leaderboard(list(reversed(matches)))


def test_the_contestants_with_the_most_votes_are_ranked_and_the_others_counted() -> None:
    often = [game for number in range(10) for game in games("a", f"often {number}", wins=2, losses=2)]
    once = [game for number in range(100) for game in games("a", f"once {number:03}", wins=1)]
    board = leaderboard(often + once, resamples=2)
    assert (len(board.standings), board.unranked) == (MAX_RANKED, 111 - MAX_RANKED)
    assert {"a", *(f"often {number}" for number in range(10))} <= set(by_name(board))
    assert board.votes == 40 + MAX_RANKED - 11 == by_name(board)["a"].votes
    assert leaderboard(often, resamples=2).unranked == 0


def test_the_most_voted_who_never_met_leave_no_empty_board() -> None:
    """Each of 60 often voted contestants has met only newcomers of its own, who have one vote each."""
    stars = [
        game for star in range(60) for rival in range(3) for game in games(f"s{star:02}", f"n{star:02}-{rival}", 1)
    ]
    board = leaderboard(stars, resamples=2)
    assert len(board.standings) == MAX_RANKED == 240 - board.unranked
    assert all(each.votes for each in board.standings) and board.votes == sum(each.wins for each in board.standings)


def test_who_met_only_contestants_without_a_row_has_none() -> None:
    often = [game for number in range(MAX_RANKED) for game in games("a", f"b{number:02}", wins=2)]
    board = leaderboard([*often, *games("y", "z", wins=1)], resamples=2)
    assert {"y", "z"}.isdisjoint(by_name(board)) and "a" in by_name(board)
    assert (len(board.standings), board.unranked) == (MAX_RANKED, 3)
