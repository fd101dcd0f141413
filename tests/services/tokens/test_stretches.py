"""A text in stretches has the ids of the text, and what is counted is what is encoded, for every kind of tokenizer."""

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from tokenizers import AddedToken, Regex, Tokenizer, models, normalizers, pre_tokenizers

from services.tokens.pre_tokenizers import GPT4O_SPLIT, LLAMA3_SPLIT, QWEN2_SPLIT, QWEN35_SPLIT, TEKKEN_SPLIT
from services.tokens.stretches import stretch_pattern
from services.tokens.text_encoding import TextEncoder
from services.tokens.tokenization import ChatTokenizer
from services.wire.messages import Message
from tests.services.tokens.chat_tokenizers import smollm2
from tests.services.tokens.test_tokenization import like_llama
from tests.workers.text_decoders import packaged_tokenizer

SMOLLM2 = packaged_tokenizer()
CHATS = (SMOLLM2, ChatTokenizer(SMOLLM2._tokenizer, template="vicuna-v1.1"), like_llama(template="alpaca"))
WHITE = ["\x1c", "\x85", "\u2028", "\u3000", "\xa0", "\r\n", "\n", "  ", "\t"]
HARD = [*WHITE, "\u0301", "e", "1234", "!", "'s", "世", "ﬁ", "aB", "/", "क\u093c", "<|im_end|>", "<|"]
texts = st.text(max_size=40) | st.lists(st.sampled_from([*HARD, " ", "the", " word"]), max_size=30).map("".join)
conversations = st.lists(texts, min_size=1, max_size=5)


def messages(contents: list[str]) -> list[Message]:
    return [Message("assistant" if index % 2 else "user", content) for index, content in enumerate(contents)]


def byte_level(*parts: pre_tokenizers.PreTokenizer, nfc: bool = False) -> Tokenizer:
    """Merges of SmolLM2 behind another way to cut words."""
    backend = smollm2()
    backend.pre_tokenizer = pre_tokenizers.Sequence(list(parts))
    if nfc:
        backend.normalizer = normalizers.NFC()
    return backend


def llama3_like(pattern: str = LLAMA3_SPLIT, nfc: bool = False) -> Tokenizer:
    split = pre_tokenizers.Split(Regex(pattern), behavior="isolated")
    return byte_level(split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False), nfc=nfc)


def whole_encoder(backend: Tokenizer) -> TextEncoder:
    """As for a tokenizer whose texts cannot be cut into stretches."""
    encoder = TextEncoder(backend)
    encoder._stretches = None
    return encoder


GPT2 = byte_level(pre_tokenizers.ByteLevel(add_prefix_space=False))
SPLITS = {
    "llama3": LLAMA3_SPLIT,
    "qwen2": QWEN2_SPLIT,
    "qwen35": QWEN35_SPLIT,
    "gpt4o": GPT4O_SPLIT,
    "tekken": TEKKEN_SPLIT,
}
BACKENDS = {"smollm2": SMOLLM2.decoder(), "gpt2": GPT2, "qwen2 composed": llama3_like(QWEN2_SPLIT, nfc=True)}
BACKENDS |= {name: llama3_like(pattern) for name, pattern in SPLITS.items()}
ENCODERS = {name: TextEncoder(backend) for name, backend in BACKENDS.items()}
WHOLE = {name: whole_encoder(backend) for name, backend in BACKENDS.items()}


@pytest.mark.model
@given(conversations)
def test_the_count_of_a_conversation_is_the_number_of_its_tokens(contents: list[str]) -> None:
    for chat in CHATS:
        assert chat.count_whole(messages(contents)) == len(chat.render_whole(messages(contents)))


@pytest.mark.parametrize("name", BACKENDS)
@given(parts=conversations)
@example(parts=["\x16\x1d"])  # white space for `re`, not for the library; at the end of a text
@example(parts=["a<|im_end|>", "<|im_end|>b", "<|im_end", "|>"])
def test_stretches_of_a_text_have_the_tokens_of_the_text(name: str, parts: list[str]) -> None:
    backend, encoder = BACKENDS[name], ENCODERS[name]
    assert encoder._stretches is not None
    expected = [token for part in parts for token in backend.encode(part, add_special_tokens=False).ids]
    assert encoder.encode(parts) == expected
    assert encoder.count(parts) == len(expected)


@pytest.mark.parametrize("name", BACKENDS)
@given(parts=conversations, others=conversations)
@example(parts=["a b c", " b ", "a b c"], others=["b c"])
@example(parts=["a <|im_end|> b", "<|im_end", "|> c d"], others=[])
def test_a_text_is_counted_alike_whatever_contents_it_is_said_to_hold(
    name: str, parts: list[str], others: list[str]
) -> None:
    backend, encoder = BACKENDS[name], ENCODERS[name]
    text = "".join(parts)
    expected = len(backend.encode(text, add_special_tokens=False).ids)
    for contents in (parts, others, [*parts, *parts], parts[::-1]):
        assert encoder.count([text], contents) == expected


@pytest.mark.parametrize("name", BACKENDS)
@given(before=texts, parts=conversations)
@example(before="<|im_start|>", parts=["user"])
@example(before="a\n", parts=["\n b"])
def test_a_text_behind_another_has_the_tokens_that_it_has_without_stretches(
    name: str, before: str, parts: list[str]
) -> None:
    assert ENCODERS[name].encode(parts, after=before) == WHOLE[name].encode(parts, after=before)


def test_a_tokenizer_that_may_join_words_has_no_stretches() -> None:
    assert stretch_pattern(like_llama().decoder()) is None
    assert stretch_pattern(llama3_like(r"\w+ \w+")) is None
    assert stretch_pattern(byte_level(pre_tokenizers.ByteLevel(add_prefix_space=True))) is None
    words = Tokenizer(models.WordLevel({"<unk>": 0}, "<unk>"))
    assert stretch_pattern(words) is None


def test_a_tokenizer_whose_added_tokens_take_white_space_along_has_no_stretches() -> None:
    backend = byte_level(pre_tokenizers.ByteLevel(add_prefix_space=False))
    backend.add_special_tokens([AddedToken("<mask>", lstrip=True)])
    assert stretch_pattern(backend) is None


def test_a_tokenizer_that_looks_for_its_added_tokens_one_kind_after_another_has_no_stretches() -> None:
    """Of the text `<a><` it finds `a><` first, which is matched as written, though `<a>` begins earlier."""
    backend = byte_level(pre_tokenizers.ByteLevel(add_prefix_space=False))
    backend.add_tokens([AddedToken("a><", normalized=False), AddedToken("<a>", normalized=True)])
    assert stretch_pattern(backend) is None


def test_a_full_memory_is_emptied_and_encoding_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.tokens.stretches._MAX_CACHED", 3)
    encoder = TextEncoder(GPT2)
    for text in ("one two three four five", "six seven one two", "x" * 100):
        assert encoder.encode([text]) == GPT2.encode(text).ids
        assert encoder.count([text]) == len(GPT2.encode(text))
    assert encoder._stretches is not None
    assert len(encoder._stretches._known) <= 3
