import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.workers.text_decoders import byte_fallback, metaspace, smollm2
from workers.detokenizer import TextDecoder

SMOLLM2 = smollm2()
METASPACE = metaspace()
BYTES = byte_fallback()
FIRST_BYTE = BYTES.tokenizer.token_to_id("<0x00>")
FIRST_WORD = FIRST_BYTE + 256

# Low ids of a byte-level BPE are single bytes: half the time only those, so that most sequences are not UTF-8.
smollm2_ids = st.lists(st.integers(0, 49_151)) | st.lists(st.integers(17, 300))
metaspace_ids = st.lists(st.integers(0, METASPACE.tokenizer.get_vocab_size() - 1))
any_byte_ids = st.lists(st.integers(0, BYTES.tokenizer.get_vocab_size() - 1))
characters_in_bytes = st.characters(exclude_categories=["Cs"]).map(
    lambda character: [FIRST_BYTE + byte for byte in character.encode()]
)
words = st.integers(FIRST_WORD, BYTES.tokenizer.get_vocab_size() - 1).map(lambda token_id: [token_id])
valid_byte_ids = st.lists(characters_in_bytes | words).map(lambda parts: [n for part in parts for n in part])


def streamed(decoder: TextDecoder, token_ids: list[int]) -> str:
    stream = decoder.stream()
    return "".join([stream.push(token_id) for token_id in token_ids]) + stream.flush()


@given(smollm2_ids)
def test_streamed_text_equals_decoded_text_with_byte_level_bpe(token_ids: list[int]) -> None:
    assert streamed(SMOLLM2, token_ids) == SMOLLM2.decode(token_ids)


@given(metaspace_ids)
def test_streamed_text_equals_decoded_text_with_metaspace(token_ids: list[int]) -> None:
    assert streamed(METASPACE, token_ids) == METASPACE.decode(token_ids)


@given(valid_byte_ids)
def test_streamed_text_equals_decoded_text_with_byte_fallback(token_ids: list[int]) -> None:
    assert streamed(BYTES, token_ids) == BYTES.decode(token_ids)


@given(any_byte_ids)
def test_bytes_that_are_no_utf8_never_raise_and_lose_no_word(token_ids: list[int]) -> None:
    """DecodeStream raises "Invalid prefix" on such ids, which ended requests of other servers."""
    text = streamed(BYTES, token_ids)
    assert text.count("世") >= sum(BYTES.tokenizer.id_to_token(n) in ("世", "▁世") for n in token_ids)
    text.encode()


@given(smollm2_ids)
def test_text_shown_is_never_half_a_character(token_ids: list[int]) -> None:
    stream = SMOLLM2.stream()
    for token_id in token_ids:
        assert not stream.push(token_id).endswith("\N{REPLACEMENT CHARACTER}")


def test_an_emoji_in_four_byte_tokens_is_shown_with_its_last_byte() -> None:
    stream = BYTES.stream()
    assert [stream.push(FIRST_BYTE + byte) for byte in "😀".encode()] == ["", "", "", "😀"]


def test_a_newline_in_a_byte_token_is_shown_at_once() -> None:
    assert BYTES.stream().push(FIRST_BYTE + 10) == "\n"


def test_special_tokens_give_no_text() -> None:
    assert streamed(SMOLLM2, [1, 28120, 2]) == SMOLLM2.decode([28120])


@pytest.mark.parametrize("decoder", [SMOLLM2, METASPACE, BYTES], ids=["smollm2", "metaspace", "bytes"])
def test_spaces_between_words_survive_streaming(decoder: TextDecoder) -> None:
    token_ids = decoder.tokenizer.encode(" and the and the", add_special_tokens=False).ids
    assert streamed(decoder, token_ids).split() == decoder.decode(token_ids).split()
    assert streamed(decoder, token_ids) == decoder.decode(token_ids)
