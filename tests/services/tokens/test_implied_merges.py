"""The merges of a vocabulary without merges: those that a look at every cut of every token finds, in the same order."""

from hypothesis import given
from hypothesis import strategies as st

from services.tokens.implied_merges import implied_merges

TEXTS = st.text(alphabet="ab▁\n\U0001f600", min_size=1, max_size=6)
VOCABULARIES = st.lists(st.tuples(TEXTS, st.sampled_from([-3.0, -2.0, -1.5, 0.0])), min_size=1, max_size=40)


def cut_by_cut(tokens: list[str], scores: list[float]) -> list[tuple[str, str]]:
    known, merges = set(tokens), []
    for index in sorted(range(len(tokens)), key=lambda index: (-scores[index], index)):
        token = tokens[index]
        cuts = [(token[:cut], token[cut:]) for cut in range(1, len(token))]
        merges += [(left, right) for left, right in cuts if left in known and right in known]
    return merges


@given(VOCABULARIES)
def test_every_cut_of_a_token_into_two_tokens_is_a_merge_by_score_and_place(given: list[tuple[str, float]]) -> None:
    tokens, scores = [text for text, _ in given], [score for _, score in given]
    assert implied_merges(tokens, scores) == cut_by_cut(tokens, scores)


def test_halves_that_only_look_alike_are_no_tokens() -> None:
    """The same letters in another order, one that is repeated, one shifted by a code point."""
    assert implied_merges(["ab", "ba", "aab", "\x01", "\x00\x01", "aabb"], [0.0] * 6) == []
    assert implied_merges(["a", "aa", "aaa"], [0.0, -1.0, -2.0]) == [("a", "a"), ("a", "aa"), ("aa", "a")]
