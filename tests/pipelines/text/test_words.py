"""Words are found alike on the fast way and the general one, in every script, with the same numbers everywhere."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pipelines.text.words import _UNSPACED, _WORD, MAX_KNOWN_WORDS, WordHashes, longest_runs, runs, words


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("Hello, World! 3.14", ["hello", "world", "3", "14"]),
        ("“Naïve”—she said…", ["naïve", "she", "said"]),
        ("snake_case(x)", ["snake_case", "x"]),
        ("我想学Python 3！", ["我", "想", "学", "python", "3"]),
        ("नमस्ते दुनिया", ["नमस्ते", "दुनिया"]),
        ("안녕 세상", ["안녕", "세상"]),
        ("?! …", []),
    ],
)
def test_words_are_those_that_a_reader_sees(text: str, found: list[str]) -> None:
    assert words(text) == found


@given(st.text(st.sampled_from("aB1_-.\n\x00\x1f“”é—中ไ\u0301😀İ")) | st.text())
def test_the_fast_ways_find_what_the_general_one_finds(text: str) -> None:
    assert words(text) == _WORD.findall(_UNSPACED.sub(r" \1 ", text.lower()))


def test_a_number_stands_for_a_run_wherever_it_stands() -> None:
    hashes = WordHashes().of(list("abcxabc"))
    of_three = dict(runs(hashes, 3))[3].tolist()
    assert of_three[0] == of_three[-1]
    assert len(set(of_three)) == 4
    assert [length for length, _ in runs(hashes, 20)] == [1, 2, 3, 4, 5, 6, 7]
    assert len(longest_runs(hashes, 20)) == 1
    reordered = WordHashes().of(list("cba"))
    assert longest_runs(reordered, 3)[0] != of_three[0]


def test_hashes_are_the_same_everywhere_and_forgotten_in_time() -> None:
    hashes = WordHashes()
    assert hashes["word"] == 0x958EC7D727CFA44A
    for number in range(MAX_KNOWN_WORDS + 10):
        hashes[f"w{number}"]
    assert len(hashes) <= MAX_KNOWN_WORDS
    assert hashes["word"] == 0x958EC7D727CFA44A
    hashes["x" * 1000]
    assert "x" * 1000 not in hashes
