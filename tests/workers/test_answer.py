import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.workers.text_decoders import byte_fallback, smollm2
from workers.answer import Answer
from workers.detokenizer import TextDecoder

SMOLLM2 = smollm2()
BYTES = byte_fallback()

cases = st.sampled_from([SMOLLM2, BYTES]).flatmap(
    lambda decoder: st.tuples(
        st.just(decoder),
        st.lists(st.integers(0, decoder.tokenizer.get_vocab_size() - 1) | st.integers(17, 270), max_size=40),
        st.lists(st.sampled_from(["a", "e", " the", "\n", "th", "世", "\N{REPLACEMENT CHARACTER}"]), max_size=3),
    )
)


def finished(decoder: TextDecoder, token_ids: list[int], stop: list[str]) -> Answer:
    answer = Answer(decoder, stop)
    answer.extend(token_ids)
    answer.finish()
    return answer


@given(cases)
def test_what_push_and_finish_return_is_the_text(case: tuple[TextDecoder, list[int], list[str]]) -> None:
    decoder, token_ids, stop = case
    answer = Answer(decoder, stop)
    shown = "".join([answer.push(token_id) for token_id in token_ids]) + answer.finish()
    assert shown == answer.text
    assert not any(s in shown for s in stop)
    assert answer.finish() == ""


@given(cases, st.integers(0, 40))
def test_slices_from_any_offset_put_the_answer_together(
    case: tuple[TextDecoder, list[int], list[str]], offset: int
) -> None:
    decoder, token_ids, stop = case
    answer = Answer(decoder, stop)
    answer.extend(token_ids)
    tail = answer.finish()
    offset = min(offset, len(answer.token_ids))
    ids, start, text = answer.slice_from(offset)
    assert list(ids) == answer.token_ids[offset:]
    assert answer.text[:start] + text + tail == answer.text


@given(cases, st.integers(0, 40))
def test_a_replayed_answer_continues_with_the_same_text_and_offsets(
    case: tuple[TextDecoder, list[int], list[str]], cut: int
) -> None:
    decoder, token_ids, stop = case
    first = finished(decoder, token_ids, stop)
    second = Answer(decoder, stop)
    second.replay(token_ids[:cut])
    second.extend(token_ids[cut:])
    second.finish()
    assert (second.text, second.token_ids, second.is_over) == (first.text, first.token_ids, first.is_over)
    for offset in range(len(first.token_ids) + 1):
        assert second.slice_from(offset) == first.slice_from(offset)


def test_offsets_count_code_points_and_a_held_character_belongs_to_its_last_token() -> None:
    first_byte = BYTES.tokenizer.token_to_id("<0x00>")
    answer = Answer(BYTES)
    answer.extend([first_byte + byte for byte in "😀!".encode()])
    assert answer.slice_from(0) == (tuple(answer.token_ids), 0, "😀!")
    assert answer.slice_from(3) == (tuple(answer.token_ids[3:]), 0, "😀!")
    assert answer.slice_from(4) == (tuple(answer.token_ids[4:]), 1, "!")
    assert answer.slice_from(5) == ((), 2, "")


def test_a_stop_string_ends_the_text_before_it_and_refuses_later_tokens() -> None:
    token_ids = SMOLLM2.tokenizer.encode("One two. STOP three", add_special_tokens=False).ids
    answer = Answer(SMOLLM2, ["STOP"])
    answer.extend(token_ids)
    assert answer.is_over
    assert answer.text == "One two. "
    assert len(answer.token_ids) < len(token_ids)
    assert answer.push(token_ids[0]) == ""
    assert answer.finish() == ""
    assert answer.text == "One two. "


def test_a_stop_string_that_began_is_released_at_the_end() -> None:
    answer = Answer(SMOLLM2, ["STOPPED"])
    answer.extend(SMOLLM2.tokenizer.encode("do not STOP", add_special_tokens=False).ids)
    assert answer.text == "do not "
    assert answer.finish() == "STOP"
    assert answer.slice_from(len(answer.token_ids)) == ((), len("do not "), "")
    assert answer.slice_from(0)[2] == "do not ", "the tail would stand in the journal twice"


def test_an_offset_beyond_the_answer_is_named() -> None:
    with pytest.raises(ValueError, match=r"offset 1 is not within 0\.\.0"):
        Answer(SMOLLM2).slice_from(1)
