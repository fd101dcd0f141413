from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from workers.stop_strings import StopMatcher

LETTERS = st.text(alphabet="abc", max_size=24)
STOPS = st.lists(st.text(alphabet="abc", min_size=1, max_size=5), max_size=4)


def whole(text: str, stop: list[str]) -> str:
    """What a matcher should show of a text: all before the stop string that ends first (the longest such)."""
    ends = [(at + len(s), at) for s in stop if (at := text.find(s)) >= 0]
    return text[: min(ends)[1]] if ends else text


@given(text=LETTERS, stop=STOPS, cuts=st.lists(st.integers(0, 24)))
def test_the_cutting_of_the_text_changes_nothing(text: str, stop: list[str], cuts: list[int]) -> None:
    matcher = StopMatcher(stop)
    borders = [0, *sorted(min(cut, len(text)) for cut in cuts), len(text)]
    shown = "".join(matcher.push(text[a:b]) for a, b in pairwise(borders))
    assert shown + matcher.flush() == whole(text, stop)
    assert bool(matcher.matched) == any(s in text for s in stop)


@given(text=LETTERS, stop=STOPS)
def test_only_what_could_still_match_is_held_back(text: str, stop: list[str]) -> None:
    matcher = StopMatcher(stop)
    shown = matcher.push(text)
    held = matcher.flush()
    if not matcher.matched:
        assert shown + held == text
        assert len(held) <= max((len(s) for s in stop), default=1) - 1 or not held
        assert not held or any(s.startswith(held) for s in stop)


def test_a_stop_string_that_arrives_in_three_pieces_is_never_shown() -> None:
    matcher = StopMatcher(["\nUser:"])
    assert [matcher.push(piece) for piece in ("Hi.\n", "Us", "er: no", "more")] == ["Hi.", "", "", ""]
    assert matcher.matched == "\nUser:"


def test_text_that_only_looked_like_a_stop_string_is_released() -> None:
    matcher = StopMatcher(["###"])
    assert [matcher.push(piece) for piece in ("a#", "#", "b")] == ["a", "", "##b"]


def test_without_stop_strings_nothing_is_held_back() -> None:
    assert StopMatcher([]).push("any text") == "any text"
