"""What a model writes is split into reasoning and answer, whatever the family's marks."""

from itertools import groupby, pairwise

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from services.tokens.pieces import Piece
from services.wire.messages import Message
from tests.services.tokens.chat_tokenizers import chat, smollm2
from tests.services.tokens.reasoning_templates import MANNERS, SAID, THOUGHT, Manner, tokenizer_of
from workers.answer import Answer
from workers.detokenizer import TextDecoder

QUESTION = [Message("user", "What is 2 + 2?")]
BY_TEXT = {
    name: manner
    for name, manner in MANNERS.items()
    if name in ("qwen3", "opened by the prompt", "mistral", "apriel", "granite", "functionary")
}


def split(manner: Manner, written: str, *, text_marks: bool = False) -> dict[str, str]:
    """The parts of what a model wrote."""
    answer = answer_to(manner, written, text_marks=text_marks)
    return parts_of(answer)


def answer_to(manner: Manner, written: str, *, text_marks: bool = False) -> Answer:
    tokenizer = tokenizer_of(manner, text_marks=text_marks)
    backend = tokenizer.decoder()
    answer = Answer(TextDecoder(backend), (), tokenizer.answer_parser(tokenizer.render(QUESTION)))
    answer.extend(backend.encode(written, add_special_tokens=False).ids)
    answer.finish()
    return answer


def parts_of(answer: Answer) -> dict[str, str]:
    found = {"reasoning": "", "answer": ""}
    parts = [(0, "answer"), *answer.parts]
    for (start, kind), (end, _) in pairwise([*parts, (len(answer.text), "")]):
        found[kind] += answer.text[start:end]
    return found


@pytest.mark.parametrize("name", MANNERS)
def test_no_mark_is_shown_and_each_text_is_in_its_part(name: str) -> None:
    manner = MANNERS[name]
    thought = "" if name == "functionary" else THOUGHT
    assert split(manner, manner.generated(thought, SAID)) == {"reasoning": thought, "answer": SAID}


@pytest.mark.parametrize("name", MANNERS)
def test_an_answer_without_reasoning_is_an_answer_alone(name: str) -> None:
    answer = answer_to(MANNERS[name], MANNERS[name].generated("", SAID))
    assert (answer.text, answer.parts, THOUGHT in answer.text) == (SAID, [], False)


@pytest.mark.parametrize("name", BY_TEXT)
def test_marks_that_are_no_tokens_are_found_in_the_text(name: str) -> None:
    manner = MANNERS[name]
    thought = "" if name == "functionary" else THOUGHT
    assert split(manner, manner.generated(thought, SAID), text_marks=True) == {"reasoning": thought, "answer": SAID}


@pytest.mark.parametrize("name", sorted(set(MANNERS) - {"functionary"}))
def test_a_reasoning_that_never_ends_is_no_answer(name: str) -> None:
    manner = MANNERS[name]
    written = manner.generated(THOUGHT, "\1")
    cut = written[: written.index(THOUGHT) + len(THOUGHT)]
    assert split(manner, cut) == {"reasoning": THOUGHT, "answer": ""}


@pytest.mark.parametrize("name", ["harmony", "muse", "solar"])
def test_text_of_a_model_that_keeps_to_no_format_is_not_lost(name: str) -> None:
    short, long = "It is 4.", "It is 4. " * 20
    assert split(MANNERS[name], short)["answer"] == short
    assert split(MANNERS[name], long)["answer"] == long


@pytest.mark.parametrize("words", ["It is 4. " * 30, " weather " * 30])
def test_behind_a_begun_head_that_was_none_the_next_call_is_whole(words: str) -> None:
    """As many characters as the prompt had begun were cut off the next head, too, and what it had begun was told."""
    tokenizer = tokenizer_of(MANNERS["harmony"])
    parser, marks = tokenizer.answer_parser(tokenizer.render(QUESTION)), tokenizer.decoder()
    assert parser is not None
    parser.reads_calls = True
    parser.text(" to=functions.")
    parser.go_on()
    assert joined(parser.text(words)) == [("answer", words)]
    parser.mark(marks.token_to_id("<|end|>"))
    parser.text(" to=functions.weather")
    assert parser.mark(marks.token_to_id("<|message|>")) == [("answer", " to=functions.weather<|message|>")]


def test_two_thoughts_in_a_row_stay_apart() -> None:
    written = (
        "<|channel|>analysis<|message|>One.<|end|><|start|>assistant<|channel|>analysis<|message|>Two.<|end|>"
        "<|start|>assistant<|channel|>final<|message|>It is 4."
    )
    assert split(MANNERS["harmony"], written) == {"reasoning": "One.\n\nTwo.", "answer": "It is 4."}


def test_an_answer_may_quote_the_marks() -> None:
    quoting = "Such models write <think> and </think> first."
    written = MANNERS["qwen3"].generated(THOUGHT, quoting)
    assert split(MANNERS["qwen3"], written) == {"reasoning": THOUGHT, "answer": quoting}
    assert split(MANNERS["qwen3"], written, text_marks=True) == {"reasoning": THOUGHT, "answer": quoting}
    assert split(MANNERS["qwen3"], quoting) == {"reasoning": "", "answer": quoting}


def test_a_reasoning_may_spell_the_closing_mark_where_that_is_a_token() -> None:
    tokenizer = tokenizer_of(MANNERS["opened by the prompt"])
    backend = tokenizer.decoder()
    spelled = [backend.token_to_id(character) for character in "It ends at </think>, so"]
    answer = Answer(TextDecoder(backend), (), tokenizer.answer_parser(tokenizer.render(QUESTION)))
    answer.extend([*spelled, backend.token_to_id("</think>"), *backend.encode("4").ids])
    answer.finish()
    assert parts_of(answer) == {"reasoning": "It ends at </think>, so", "answer": "4"}


def test_a_model_that_opens_the_reasoning_once_more_shows_no_mark() -> None:
    written = "<think>\n" + MANNERS["opened by the prompt"].generated(THOUGHT, SAID)
    assert split(MANNERS["opened by the prompt"], written) == {"reasoning": THOUGHT, "answer": SAID}


def test_a_model_without_marks_has_no_parser() -> None:
    assert chat(smollm2()).answer_parser([1, 2, 3]) is None
    plain = tokenizer_of(Manner("", "⟨a⟩", "⟨a⟩", shows=False))
    assert plain.answer_parser(plain.render(QUESTION)) is None


def test_stop_strings_end_the_answer_and_not_the_reasoning() -> None:
    manner = MANNERS["qwen3"]
    tokenizer = tokenizer_of(manner)
    backend = tokenizer.decoder()
    answer = Answer(TextDecoder(backend), ("STOP",), tokenizer.answer_parser(tokenizer.render(QUESTION)))
    written = manner.generated("First STOP, then ST", "OPs? It is 4. STOP It is 5.")
    ids = backend.encode(written).ids
    answer.extend(ids)
    assert answer.is_over
    assert parts_of(answer) == {"reasoning": "First STOP, then ST", "answer": "OPs? It is 4. "}


def test_the_tokens_of_the_reasoning_are_counted() -> None:
    answer = answer_to(MANNERS["harmony"], MANNERS["harmony"].generated("abc", "de"))
    assert answer.reasoning_tokens == len("abc") + 1, "with the mark that ends it"


texts = st.text(st.sampled_from(list("ab<>/|think[]RA.\n é")), max_size=12)
written = st.sampled_from(sorted(MANNERS)).flatmap(
    lambda name: st.tuples(
        st.just(name),
        st.lists(texts | st.sampled_from([MANNERS[name].generated("r", "a"), *MANNERS[name].thinks.split("⟨r⟩")])),
        st.booleans(),
    )
)


@given(written, st.integers(0, 60))
def test_the_same_tokens_give_the_same_parts_wherever_another_worker_continues(
    case: tuple[str, list[str], bool], cut: int
) -> None:
    name, pieces, text_marks = case
    tokenizer = tokenizer_of(MANNERS[name], text_marks=text_marks)
    backend, prompt = tokenizer.decoder(), tokenizer.render(QUESTION)
    ids = backend.encode("".join(pieces), add_special_tokens=False).ids

    def begun() -> Answer:
        return Answer(TextDecoder(backend), ("ab",), tokenizer.answer_parser(prompt))

    first, second = begun(), begun()
    first.extend(ids)
    second.replay(ids[:cut])
    second.extend(ids[cut:])
    for offset in range(len(first.token_ids) + 1):
        assert second.slice_from(offset) == first.slice_from(offset)
    first.finish(), second.finish()
    assert (first.text, first.parts, first.reasoning_tokens) == (second.text, second.parts, second.reasoning_tokens)
    starts = [offset for offset, _ in first.parts]
    assert starts == sorted(set(starts)) and all(offset < len(first.text) for offset in starts)
    kinds = ["answer", *(kind for _, kind in first.parts)]
    assert all(len(list(same)) == 1 for _, same in groupby(kinds)), "a part follows another of its kind"


@given(written, st.lists(st.integers(1, 5), max_size=30))
def test_how_the_text_is_cut_changes_nothing(case: tuple[str, list[str], bool], sizes: list[int]) -> None:
    name, pieces, _ = case
    tokenizer = tokenizer_of(MANNERS[name], text_marks=True)
    prompt, text = tokenizer.render(QUESTION), "".join(pieces)
    whole, cut = tokenizer.answer_parser(prompt), tokenizer.answer_parser(prompt)
    if whole is None or cut is None or name not in BY_TEXT:
        return
    at_once = [*whole.text(text), *whole.finish()]
    bits: list[Piece] = []
    for size in sizes:
        bits += cut.text(text[:size])
        text = text[size:]
    bits += [*cut.text(text), *cut.finish()]
    assert joined(bits) == joined(at_once)


def joined(pieces: list[Piece]) -> list[tuple[str, str]]:
    return [(kind, "".join(p.text for p in same)) for kind, same in groupby(pieces, key=lambda p: p.kind)]


@given(st.sampled_from(sorted(MANNERS)), texts, texts)
def test_what_a_model_thinks_and_says_is_never_lost(name: str, thought: str, said: str) -> None:
    assume("</think>" not in thought)  # there the model itself ends its reasoning
    thought, said = f"r{thought}r", f"a{said}a"
    if name == "functionary":
        thought = ""
    found = split(MANNERS[name], MANNERS[name].generated(thought, said))
    assert found == {"reasoning": thought, "answer": said}


def test_the_template_gets_earlier_reasoning_and_decides() -> None:
    said = [*QUESTION, Message("assistant", "4", "2 and <|user|> 2"), Message("user", "Sure?")]
    reads = tokenizer_of(MANNERS["harmony"])
    text = reads.decoder().decode(reads.render(said), skip_special_tokens=False)
    assert "<|channel|>analysis<|message|>2 and <|user|> 2<|end|><|start|>assistant" in text
    assert reads.render(said).count(reads.decoder().token_to_id("<|user|>")) == 2, "what people typed is no token"
    assert reads.count(said) == len(reads.render(said))
    drops = tokenizer_of(MANNERS["a template that drops it"])
    without = [*QUESTION, Message("assistant", "4"), Message("user", "Sure?")]
    assert drops.render(said) == drops.render(without)
