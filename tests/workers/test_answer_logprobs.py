"""Where the log probabilities of an answer's tokens stand in its text."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.tokens.answer_format import pair
from services.tokens.answer_parser import AnswerParser, MarkedTokens
from tests.stand_ins.synthetic_worker import CodePoints, call_format
from tests.workers.text_decoders import byte_fallback, metaspace, smollm2
from workers.answer import Answer, Calls
from workers.answer_logprobs import AnswerLogprobs
from workers.detokenizer import TextDecoder

SMOLLM2 = smollm2()
DECODERS = {"byte level": SMOLLM2, "byte fallback": byte_fallback(), "metaspace": metaspace()}
HELD = ["", "stop", " the", "世", "e e"]


def ids_of(text: str, decoder: TextDecoder = SMOLLM2) -> list[int]:
    return list(decoder.tokenizer.encode(text, add_special_tokens=False).ids)


def told(decoder: Any, token_ids: list[int], **options: Any) -> tuple[Answer, list[tuple[int, bytes]]]:
    """The answer, and what a reader of its journal gets: places and bytes of tokens."""
    logprobs = AnswerLogprobs(decoder)
    answer = Answer(decoder, logprobs=logprobs, **options)
    shown = list[tuple[int, bytes]]()
    written = 0
    for token_id in token_ids:
        answer.push(token_id)
        if len(answer.token_ids) > len(logprobs.tokens):
            logprobs.add((-1.0, ()))
        _, toff, text = answer.slice_from(written)
        written = len(answer.token_ids)
        shown += _placed(logprobs, toff, text)
    toff = answer.slice_from(written)[1]
    return answer, shown + _placed(logprobs, toff, answer.finish())


def _placed(logprobs: AnswerLogprobs, toff: int, text: str) -> list[tuple[int, bytes]]:
    found = [(offset, logprobs.tokens[number]) for number, offset in logprobs.places(toff, text)]
    return [(offset, token[0].encode("latin-1")) for offset, token in found if token is not None]


def joined(placed: list[tuple[int, bytes]]) -> str:
    return b"".join(token for _, token in placed).decode()


@pytest.mark.parametrize("kind", DECODERS)
@given(text=st.text("the a and 世é😀.\n", min_size=1, max_size=20), stop=st.sampled_from(HELD))
def test_tokens_join_to_the_text_and_each_stands_where_its_text_does(kind: str, text: str, stop: str) -> None:
    decoder = DECODERS[kind]
    answer, placed = told(decoder, ids_of(text, decoder), stop=[stop] if stop else [])
    whole = answer.text
    assert joined(placed).startswith(whole)
    cut = len(joined(placed)) - len(whole)
    assert cut == 0 or (stop and cut < max(len(token) for _, token in placed)), "only the last token may be cut"
    for offset, token in placed:
        if not token[0] & 0x80 and cut == 0:
            assert whole[offset:].encode().startswith(token)
    assert [offset for offset, _ in placed] == sorted(offset for offset, _ in placed)


def test_a_character_of_several_tokens_has_them_all_at_its_place_with_their_bytes() -> None:
    answer, placed = told(SMOLLM2, ids_of("a🦜b"))
    assert answer.text == "a🦜b"
    assert placed[0] == (0, b"a")
    inside = [token for offset, token in placed if offset == 1]
    assert len(inside) > 1
    assert b"".join(inside).decode().startswith("🦜")


def test_a_stop_string_cuts_the_tokens_with_the_text() -> None:
    answer, placed = told(SMOLLM2, ids_of("one two three"), stop=[" two"])
    assert (answer.text, joined(placed)) == ("one", "one")


def test_what_may_have_begun_a_stop_string_comes_with_its_tokens_in_the_end() -> None:
    answer, placed = told(SMOLLM2, ids_of("one two"), stop=[" two three"])
    assert (answer.text, joined(placed)) == ("one two", "one two")


def test_a_token_that_is_only_an_end_has_no_entry() -> None:
    end = SMOLLM2.tokenizer.token_to_id("<|im_end|>")
    answer, placed = told(SMOLLM2, [*ids_of("a"), end, *ids_of(" b")])
    assert (answer.text, joined(placed)) == ("a b", "a b")


def points(text: str) -> list[int]:
    return list(map(ord, text))


@pytest.mark.parametrize("text", ["<think>so\n</think>\n\nab c", "\n<think>\na b\n</think>ab c", "ab c"])
def test_a_reasoning_and_its_marks_have_none_and_the_answer_behind_them_has_all(text: str) -> None:
    marks: Any = CodePoints()
    parser = AnswerParser(MarkedTokens(pair("<think>", "</think>"), marks), "begin")
    answer, placed = told(CodePoints(), points(text), parser=parser)
    said = answer.text[answer.parts[-1][0] if answer.parts else 0 :]
    assert said.strip() == "ab c"
    assert joined(placed) == said
    assert placed[0][0] == len(answer.text) - len(said)


def test_a_call_of_a_tool_has_none_and_the_text_before_it_has_all() -> None:
    text = 'I look. <tool_call>\n{"name": "f", "arguments": {"a": 1}}\n</tool_call>'
    answer, placed = told(CodePoints(), points(text), calls=Calls(call_format("hermes").parser(parallel=True)))
    assert [kind for _, kind in answer.parts] == ["call", "arguments"]
    assert joined(placed) == "I look."


def test_the_likeliest_tokens_are_named_by_their_bytes_and_control_tokens_by_their_names() -> None:
    logprobs = AnswerLogprobs(SMOLLM2)
    answer = Answer(SMOLLM2, logprobs=logprobs)
    end, (first, *_) = SMOLLM2.tokenizer.token_to_id("<|im_end|>"), ids_of("🦜")
    answer.push(*ids_of(" the"))
    logprobs.add((-0.25, ((end, -2.0), (first, -3.0))))
    name = SMOLLM2.bytes_of(first)
    assert "🦜".encode().startswith(name)
    assert logprobs.of_tokens(0, 5) == ((" the", -0.25, (("<|im_end|>", -2.0), (name.decode("latin-1"), -3.0))),)
