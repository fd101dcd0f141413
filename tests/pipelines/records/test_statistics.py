"""The histograms of the report."""

from hypothesis import given
from hypothesis import strategies as st

from pipelines.records.conversation import Conversation, Source, Turn
from pipelines.records.statistics import bucket, floor_of, statistics_of


@given(st.integers(0, 10**9))
def test_a_length_is_in_the_bucket_that_begins_at_or_below_it(length: int) -> None:
    number = bucket(length)
    assert floor_of(number) <= length
    assert length < floor_of(number + 1) or floor_of(number) == floor_of(number + 1)


def test_turns_tokens_and_languages_are_counted() -> None:
    turns = (Turn("user", "abcd"), Turn("assistant", "x" * 100))
    found = statistics_of(
        [
            Conversation("a", turns, Source("f", 1), extra={"language": "en", "num_tokens": 40}),
            Conversation("b", turns * 2, Source("g", 1), model="m"),
        ]
    ).as_dict()
    assert (found["records"], found["turns"], found["chars"], found["tokens"]) == (2, 6, 312, 40)
    assert found["turns_of_record"] == {"2": 1, "4": 1}
    assert found["chars_of_turn"]["user"] == {"4": 3}
    assert found["languages"] == {"en": 1} and found["models"] == {"m": 1} and found["sources"] == {"f": 1, "g": 1}
