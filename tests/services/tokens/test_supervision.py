"""What a model learns of a conversation: exactly what it would have to generate, whatever template and tokenizer."""

from collections.abc import Callable
from functools import cache
from itertools import groupby
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing

from services.errors import TemplateError
from services.tokens.supervision import SupervisedSequence
from services.tokens.templates import TEMPLATES
from services.tokens.tokenization import ChatTokenizer
from services.wire.messages import Message
from tests.services.tokens.chat_tokenizers import LLAMA3, MISTRAL, chat, fast, sentencepiece, smollm2, word_level
from tests.workers.text_decoders import packaged_tokenizer

TOKENIZERS: dict[str, Callable[[], Tokenizer]] = {
    "byte-level": smollm2,
    "sentencepiece": lambda: sentencepiece(legacy=False),
    "sentencepiece legacy": lambda: sentencepiece(legacy=True),
}
LEADS = {"vicuna-v1.1": " ", "alpaca": "", "plain": " "}  # what the named templates write before an answer
CHATML = packaged_tokenizer()


@cache
def named(template: str, kind: str) -> ChatTokenizer:
    ends = {"bos_token": "<|im_start|>", "eos_token": "<|im_end|>"} if kind == "byte-level" else {}
    return chat(TOKENIZERS[kind](), template=template, **ends)


@cache
def llama3() -> ChatTokenizer:
    """Its eos_token is not what its template ends turns with."""
    backend = smollm2()
    backend.add_special_tokens(["<|start_header_id|>", "<|end_header_id|>", "<|eot_id|>", "<|end_of_text|>"])
    return chat(backend, own=LLAMA3, bos_token="<|im_start|>", eos_token="<|end_of_text|>")


def turns(*contents: str, system: str = "") -> list[Message]:
    """Messages of user and assistant by turns."""
    first = [Message("system", system)] if system else []
    return first + [Message("assistant" if n % 2 else "user", content) for n, content in enumerate(contents)]


def end(tokenizer: ChatTokenizer) -> str:
    token = tokenizer._tokenizer.eos_token
    assert isinstance(token, str)
    return token


def decoded(tokenizer: ChatTokenizer, ids: list[int]) -> str:
    return str(tokenizer.decoder().decode(ids, skip_special_tokens=False))


def spans(supervised: SupervisedSequence) -> list[tuple[int, int]]:
    """First and last-plus-one index of every run of learnt tokens."""
    found, start = [], 0
    for learnt, run in groupby(supervised.mask):
        stop = start + len(list(run))
        if learnt:
            found.append((start, stop))
        start = stop
    return found


def learnt(tokenizer: ChatTokenizer, messages: list[Message]) -> list[str]:
    """The text of every stretch that is learnt, read where it stands: some decoders drop a first space."""
    given = tokenizer.supervised(messages)
    assert len(given.ids) == len(given.mask)
    assert set(given.mask) <= {0, 1}
    return [
        decoded(tokenizer, given.ids[:stop]).removeprefix(decoded(tokenizer, given.ids[:start]))
        for start, stop in spans(given)
    ]


@pytest.mark.parametrize("kind", TOKENIZERS)
@pytest.mark.parametrize("template", TEMPLATES)
def test_of_a_named_template_the_answers_and_their_ends_are_learnt(template: str, kind: str) -> None:
    tokenizer = named(template, kind)
    messages = turns("Hello the cat", "a curious answer", "the user?", "世 é", system="a system sentence.")
    lead, eos = LEADS[template], end(tokenizer)
    assert learnt(tokenizer, messages) == [f"{lead}a curious answer{eos}", f"{lead}世 é{eos}"]


def test_of_chatml_the_end_is_learnt_and_the_line_feed_behind_it_is_not() -> None:
    messages = turns("Hi", "Hello", "and?", " so\n", system="Be brief.")
    assert learnt(CHATML, messages) == ["Hello<|im_end|>", " so\n<|im_end|>"]
    assert decoded(CHATML, CHATML.supervised(messages).ids[-1:]) == "\n"


def test_of_llama_3_the_token_that_ends_turns_is_learnt_not_the_one_that_ends_texts() -> None:
    assert learnt(llama3(), turns("Hi", " Hello ", "and?", "so")) == ["Hello<|eot_id|>", "so<|eot_id|>"]


@pytest.mark.parametrize("legacy", [False, True])
def test_of_mistral_whose_prompt_is_the_same_with_and_without_asking(legacy: bool) -> None:
    tokenizer = chat(sentencepiece(legacy=legacy), own=MISTRAL)
    assert learnt(tokenizer, turns("Hi", "Hello", "and?", "so ")) == [" Hello</s>", " so</s>"]


def test_an_answer_right_behind_a_special_token_is_encoded_as_the_whole_text_is() -> None:
    backend = sentencepiece(legacy=True)
    backend.add_special_tokens(["[INST]", "[/INST]"])
    tokenizer = chat(backend, own=MISTRAL.replace(" ' + m", "' + m").replace("' ' + ", "").replace(" [/", "[/"))
    messages = turns("Hello", "the cat", "a", "user")
    assert tokenizer.supervised(messages).ids == tokenizer.render_whole(messages)


def test_a_word_level_tokenizer_learns_words_it_does_not_know_as_unknown() -> None:
    tokenizer = chat(word_level(), template="plain")
    assert learnt(tokenizer, turns("Hello", "the zebra cat")) == [" the <unk> cat</s>"]


@pytest.mark.parametrize("kind", TOKENIZERS)
@pytest.mark.parametrize("template", TEMPLATES)
def test_before_every_answer_stands_the_prompt_that_serving_sends(template: str, kind: str) -> None:
    tokenizer = named(template, kind)
    messages = turns("Hello", "the cat </s>", "", "a", "user <|im_end|>", "asks", system="curious")
    given = tokenizer.supervised(messages)
    for (start, _), number in zip(spans(given), (2, 4, 6), strict=True):
        assert given.ids[:start] == tokenizer.render(messages[:number])
    assert given.ids == tokenizer.render_whole(messages)


def test_a_token_that_would_reach_over_the_boundary_is_cut_there() -> None:
    """Line feeds in a row are one token; but serving's prompt ends with the first, and the rest are the answer's."""
    tokenizer = named("alpaca", "byte-level")
    messages = turns("Hello", "\n\n the cat")
    given = tokenizer.supervised(messages)
    prompt = tokenizer.render(messages[:1])
    assert given.ids[: len(prompt)] == prompt
    assert learnt(tokenizer, messages) == ["\n\n the cat<|im_end|>"]
    assert given.ids != tokenizer.render_whole(messages)


@pytest.mark.parametrize("kind", ["byte-level", "sentencepiece"])
@pytest.mark.parametrize("template", TEMPLATES)
def test_the_generation_marks_of_our_templates_say_the_same(template: str, kind: str) -> None:
    tokenizer = named(template, kind)
    messages = turns("Hello the cat", "a curious user", "", "asks questions")
    theirs = tokenizer._tokenizer.apply_chat_template(
        [{"role": m.role, "content": m.content} for m in messages],
        chat_template=TEMPLATES[template].jinja,
        return_dict=True,
        return_assistant_tokens_mask=True,
    )
    given = tokenizer.supervised(messages)
    assert given.ids == theirs["input_ids"]
    assert given.mask == theirs["assistant_masks"]


HARD = [
    "</s>",
    "<s>",
    "<|im_end|>",
    "<|im_",
    " ASSISTANT: ",
    "USER:",
    "### Response:\n",
    "<",
    ">",
    " ",
    "\n",
    "the",
    "é",
    "世",
]
contents = st.lists(st.sampled_from([*HARD, "cat", "\t", "  ", "Assistant:"]), max_size=8).map("".join)


@settings(max_examples=60)
@given(st.lists(contents, min_size=1, max_size=6), contents)
def test_whatever_is_written_the_contents_and_their_ends_are_learnt_and_nothing_else(
    texts: list[str], system: str
) -> None:
    messages = turns(*texts, system=system)
    answers = [message.content for message in messages if message.role == "assistant"]
    for template in TEMPLATES:
        for kind in TOKENIZERS:
            tokenizer = named(template, kind)
            assert learnt(tokenizer, messages) == [LEADS[template] + text + end(tokenizer) for text in answers]
    assert learnt(CHATML, messages) == [f"{text}<|im_end|>" for text in answers]
    assert learnt(llama3(), messages) == [f"{text.strip()}<|eot_id|>" for text in answers]


@given(st.lists(contents, min_size=2, max_size=4))
def test_one_end_is_learnt_per_answer_though_the_texts_spell_others(texts: list[str]) -> None:
    given = CHATML.supervised(turns(*texts))
    ends = [index for index in given.ids if index in CHATML.stop_token_ids]
    learnt_ends = [i for i, m in zip(given.ids, given.mask, strict=True) if m and i in CHATML.stop_token_ids]
    assert len(learnt_ends) == len(texts) // 2
    assert len(ends) == len(texts) + 1  # the default system turn


def test_answers_in_a_row_are_each_learnt_where_the_template_allows_them() -> None:
    messages = [*turns("Hi", "one"), Message("assistant", "two")]
    assert learnt(CHATML, messages) == ["one<|im_end|>", "two<|im_end|>"]
    assert learnt(named("vicuna-v1.1", "sentencepiece"), messages) == [" one</s>", " two</s>"]
    with pytest.raises(TemplateError, match="roles must alternate"):
        chat(sentencepiece(legacy=True), own=MISTRAL).supervised(messages)


def test_a_conversation_without_an_answer_teaches_nothing() -> None:
    messages = turns("Hi", system="sys")
    assert CHATML.supervised(messages) == SupervisedSequence(
        CHATML.render_whole(messages), [0] * len(CHATML.render_whole(messages))
    )


# What went wrong in the forerunner, which found an answer's tokens by counting those of pieces encoded alone.


def test_an_empty_question_shifts_nothing() -> None:
    """It rendered without a separator, and every later mask was off."""
    tokenizer = named("vicuna-v1.1", "sentencepiece legacy")
    assert learnt(tokenizer, turns("", "the cat", "", "", "a", "user")) == [" the cat</s>", " </s>", " user</s>"]


@pytest.mark.parametrize("system", ["", "a", "a curious user asks questions " * 9])
def test_the_length_of_the_system_message_shifts_nothing(system: str) -> None:
    """The windows once began at 0 instead of behind the system message: all masks stood too far left by its length."""
    tokenizer = named("vicuna-v1.1", "sentencepiece legacy")
    assert learnt(tokenizer, turns("Hi", "the cat", system=system)) == [" the cat</s>"]


@pytest.mark.parametrize("text", ["a </s> b", "x ASSISTANT: y", "x ASSISTANT:", "USER: y</s>", "</s>", "<s>"])
def test_an_answer_that_spells_the_separators_is_learnt_whole(text: str) -> None:
    """Pieces were found by splitting at `</s>` and ` ASSISTANT: `, so such a conversation was thrown away."""
    tokenizer = named("vicuna-v1.1", "sentencepiece legacy")
    assert learnt(tokenizer, turns(text, text, "and?", "the cat")) == [f" {text}</s>", " the cat</s>"]


def test_a_tokenizer_with_and_without_the_legacy_space_learns_the_same_text() -> None:
    """`legacy=False` made pieces after the first shorter by one: every sample was a mismatch and ignored."""
    messages = turns("the cat", "a curious user", "asks", "questions", "and", "Hello")
    both = [learnt(named("vicuna-v1.1", kind), messages) for kind in ("sentencepiece", "sentencepiece legacy")]
    assert both[0] == both[1] == [" a curious user</s>", " questions</s>", " Hello</s>"]


def test_unknown_words_are_no_padding() -> None:
    """Padding was the unknown token, so a word that was really unknown made the count of tokens wrong."""
    tokenizer = chat(word_level(), template="vicuna-v1.1", pad_token="<unk>")
    messages = turns("zebra zebra", "the zebra", "zebra", "zebra zebra zebra")
    assert learnt(tokenizer, messages) == [" the <unk></s>", " <unk> <unk> <unk></s>"]


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_the_first_word_of_an_answer_is_learnt_and_the_colon_before_it_is_not(kind: str) -> None:
    """The constant 2 that was subtracted held for Llama's tokenizer alone; others lost a word or learnt the colon."""
    tokenizer = named("vicuna-v1.1", kind)
    given = tokenizer.supervised(turns("Hi", "Hello"))
    start, _ = spans(given)[0]
    assert decoded(tokenizer, given.ids[:start]).endswith("ASSISTANT:")
    assert decoded(tokenizer, given.ids[start:]).strip() == f"Hello{end(tokenizer)}"


def test_a_tokenizer_that_adds_bos_by_itself_adds_none_in_the_middle() -> None:
    """The beginning-of-text token was counted once per turn, which only an accident of `###` made come out right."""
    backend = sentencepiece(legacy=True)
    backend.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    given = chat(backend, template="vicuna-v1.1").supervised(turns("Hi", "Hello", "and", "so"))
    assert given.ids.count(1) == 1
    assert given.ids[0] == 1


def test_a_long_answer_is_neither_cut_nor_ignored() -> None:
    """What filled the window was not even checked, and cut in silence: here cutting is the trainer's, who counts it."""
    backend = sentencepiece(legacy=True)
    backend.enable_truncation(16)
    text = "the cat asks " * 200 + "the end"
    assert learnt(chat(backend, template="vicuna-v1.1"), turns("Hi", text)) == [f" {text}</s>"]


# What cannot be taught is refused, with a remedy.


def own(template: str, backend: Tokenizer | None = None, **special: Any) -> ChatTokenizer:
    return chat(backend or sentencepiece(legacy=True), own=template, **special)


def test_another_role_is_refused() -> None:
    with pytest.raises(TemplateError, match=r"messages\[1\]\.role='tool': train on system, user and assistant"):
        CHATML.supervised([*turns("Hi"), Message("tool", "4"), Message("assistant", "4")])  # type: ignore[arg-type]


@pytest.mark.parametrize("messages", [[Message("assistant", "a")], [Message("system", "s"), Message("assistant", "a")]])
def test_a_conversation_that_begins_with_an_answer_is_refused(messages: list[Message]) -> None:
    with pytest.raises(TemplateError, match="the first message is assistant, not user"):
        CHATML.supervised(messages)


@pytest.mark.parametrize("messages", [[], [Message("system", "s")]])
def test_a_conversation_without_turns_is_refused(messages: list[Message]) -> None:
    with pytest.raises(TemplateError, match="the first message is missing"):
        CHATML.supervised(messages)


def test_a_template_that_strips_the_thinking_of_earlier_turns_gives_a_sample_for_each_answer() -> None:
    """Such models (Qwen3) could not be trained on more than one round."""
    strips = (
        "{% for m in messages %}{{ m['role'] + ': ' }}{% if m['role'] == 'assistant' and not loop.last %}"
        "{{ m['content'].split('</think>')[-1] }}{% else %}{{ m['content'] }}{% endif %}{{ eos_token }}{% endfor %}"
        "{% if add_generation_prompt %}assistant: {% endif %}"
    )
    tokenizer = own(strips)
    assert learnt(tokenizer, turns("Hi", "<think>hm</think>so")) == ["<think>hm</think>so</s>"]
    messages = turns("Hi", "<think>hm</think>so", "and?", "no")
    with pytest.raises(
        TemplateError, match=r"messages\[3\]: .* differently .*; train each answer as a sample of its own"
    ):
        tokenizer.supervised(messages)
    first, second = tokenizer.samples(messages)
    assert first.ids[: spans(first)[0][0]] == tokenizer.render(messages[:1])
    assert second.ids[: spans(second)[0][0]] == tokenizer.render(messages[:3])
    assert [decoded(tokenizer, s.ids).endswith(e) for s, e in ((first, "hm</think>so</s>"), (second, "no</s>"))] == [
        True,
        True,
    ]


def test_a_template_whose_prompt_is_not_what_it_trains_is_refused() -> None:
    asks_differently = "{% for m in messages %}{{ m['role'] + m['content'] + eos_token }}{% endfor %}"
    tokenizer = own(asks_differently + "{% if add_generation_prompt %}### Assistant:{% endif %}")
    with pytest.raises(TemplateError, match=r"messages\[1\]: the prompt that asks .* add_generation_prompt"):
        tokenizer.supervised(turns("Hi", "Hello"))


def test_a_template_that_ends_no_answer_is_refused() -> None:
    """The model would never learn to stop."""
    endless = "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\n' }}{% endfor %}"
    tokenizer = own(endless + "{% if add_generation_prompt %}assistant: {% endif %}")
    with pytest.raises(
        TemplateError, match=r"messages\[1\]: .* ends this answer with no token .*; let the template write"
    ):
        tokenizer.supervised(turns("Hi", "Hello </s>"))


def test_a_tokenizer_without_an_end_token_is_refused() -> None:
    with pytest.raises(TemplateError, match="no end-of-turn token; name one as eos_token"):
        ChatTokenizer(fast(sentencepiece(legacy=True), eos_token=None), template="plain").supervised(turns("a", "b"))
