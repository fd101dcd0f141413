"""A GGUF's two fields, `tokenizer.ggml.model` and `.pre`, decide how its tokenizer works. llama.cpp's ids for real
vocabularies are compared by `python -m bench.vocabularies`; here every kind is a small file."""

from pathlib import Path
from typing import Any

import pytest
from gguf import GGUFWriter
from tokenizers import Tokenizer
from tokenizers.pre_tokenizers import ByteLevel

from services.errors import ConfigurationError
from services.models.catalogue import ModelSource
from services.tokens.gguf_tokenizer import read_gguf_tokenizer
from services.tokens.pre_tokenizers import PRE_TOKENIZERS
from services.tokens.tokenization import load_tokenizer
from services.wire.messages import Message
from tests.services.tokens.chat_tokenizers import LLAMA3
from workers.detokenizer import TextDecoder

NORMAL, UNKNOWN, CONTROL, USER_DEFINED, BYTE = 1, 2, 3, 4, 6
BYTES = sorted(ByteLevel.alphabet())
HARD = "Hello, wörld! It'S 12345 4 ½ 中文 Äpfel Việt e\u0301\n\n   x\t\t= y  \n"


def write(folder: Path, **fields: Any) -> Path:
    """A GGUF without weights. `fields` are `tokenizer.ggml.…`; `architecture`, `name`, `template` are the others."""
    path = folder / "small.gguf"
    writer = GGUFWriter(path, fields.pop("architecture", "llama"))
    writer.add_name(fields.pop("name", "small"))
    if "template" in fields:
        writer.add_chat_template(fields.pop("template"))
    for key, value in fields.items():
        if isinstance(value, list):
            writer.add_array(f"tokenizer.ggml.{key}", value)
        elif isinstance(value, bool):
            writer.add_bool(f"tokenizer.ggml.{key}", value)
        elif isinstance(value, int):
            writer.add_uint32(f"tokenizer.ggml.{key}", value)
        else:
            writer.add_string(f"tokenizer.ggml.{key}", value)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    return path


def byte_level(
    folder: Path, pre: str, *, tokens: tuple[str, ...] = (), merges: tuple[str, ...] = (), **fields: Any
) -> Path:
    """BPE over bytes; `tokens` follow the 256 of the bytes."""
    made = ["".join(merge.split(" ")) for merge in merges]
    types = {"token_type": [NORMAL] * (256 + len(made)) + fields.pop("types", [NORMAL] * len(tokens))}
    return write(
        folder, model="gpt2", pre=pre, tokens=[*BYTES, *made, *tokens], merges=[*merges, "zq zz"], **types, **fields
    )


def sentencepiece(
    folder: Path, pieces: dict[str, float], *, added: dict[str, int] | None = None, **fields: Any
) -> Path:
    """BPE by scores; a token for every byte."""
    added = added or {}
    of_bytes = [f"<0x{byte:02X}>" for byte in range(256)]
    return write(
        folder,
        model="llama",
        tokens=["<unk>", "<s>", "</s>", *of_bytes, *pieces, *added],
        scores=[0.0] * 259 + [float(score) for score in pieces.values()] + [0.0] * len(added),
        token_type=[UNKNOWN, CONTROL, CONTROL] + [BYTE] * 256 + [NORMAL] * len(pieces) + list(added.values()),
        unknown_token_id=0,
        **fields,
    )


def backend(path: Path) -> Tokenizer:
    return read_gguf_tokenizer(path)[0].backend_tokenizer


def pieces(path: Path, text: str) -> list[str]:
    return list(backend(path).encode(text, add_special_tokens=False).tokens)


def words(path: Path, text: str) -> list[str]:
    """How a byte-level tokenizer cuts a text before it merges."""
    splitter = backend(path).pre_tokenizer
    assert splitter is not None
    return [text[begin:end] for _, (begin, end) in splitter.pre_tokenize_str(text)]


@pytest.mark.parametrize("architecture", ["llama", "gemma3", "gemma4", "qwen3moe", "qwen2moe", "minimax-m2", "newest"])
def test_the_name_of_the_architecture_decides_nothing(tmp_path: Path, architecture: str) -> None:
    path = byte_level(tmp_path, "qwen2", merges=("a b",), architecture=architecture)
    assert pieces(path, "ab 12") == ["ab", "Ġ", "1", "2"]


CUTS = {
    "gpt-2": ("in 2024 x=1", ["in", " 2024", " x", "=", "1"]),
    "smollm": ("in 2024", ["in", " ", "2", "0", "2", "4"]),
    "llama-bpe": ("in 20245 ab's", ["in", " ", "202", "45", " ab", "'s"]),
    "glm4": ("12345", ["123", "45"]),
    "qwen2": ("in 24\n\nx", ["in", " ", "2", "4", "\n\n", "x"]),
    "qwen35": ("e\u0301a क\u093c", ["e\u0301a", " क\u093c"]),
    "gpt-4o": ("helloWorld's 12345/\n", ["hello", "World's", " ", "123", "45", "/\n"]),
    "llama4": ("helloWorld", ["hello", "World"]),
    "tekken": ("helloWorld's 12", ["hello", "World", "'s", " ", "1", "2"]),
    "kimi-k2": ("中文ab中 X", ["中文", "ab", "中", " X"]),
    "deepseek-v3": ("中文ab .x 1234", ["中文", "ab", " .", "x", " ", "123", "4"]),
    "deepseek-llm": ("ab, 中文4 ½", ["ab", ",", " ", "中文", "4", " ", "½"]),
    "deepseek-coder": ("ab12\nc", ["ab", "1", "2", "\n", "c"]),
    "falcon": ("3333 $x", ["333", "3", " ", "$", "x"]),
    "default": ("3333 x", ["333", "3", " x"]),
    "afmoe": ("12345 ab", ["12", "345", " ab"]),
    "minicpm5": ("12345 ab", ["123", "45", " ab"]),
    "bloom": ("ab, c", ["ab", ",", " c"]),
    "superbpe": ("12345 ab", ["12", "345", " ab"]),
    "exaone-moe": ("ab cd 12", ["ab cd", " ", "1", "2"]),
    "laguna": ("ab\n12", ["ab", "\n", "1", "2"]),
}


@pytest.mark.parametrize("pre", CUTS)
def test_words_are_cut_as_the_file_names_it(tmp_path: Path, pre: str) -> None:
    text, expected = CUTS[pre]
    assert words(byte_level(tmp_path, pre), text) == expected


@pytest.mark.parametrize("pre", PRE_TOKENIZERS)
def test_every_name_loses_no_character(tmp_path: Path, pre: str) -> None:
    made = backend(byte_level(tmp_path, pre))
    assert made.decode(made.encode(HARD, add_special_tokens=False).ids) == HARD


def test_a_file_without_a_name_is_cut_as_llama_cpp_does(tmp_path: Path) -> None:
    assert words(byte_level(tmp_path, ""), "3333 x") == words(byte_level(tmp_path, "default"), "3333 x")


def test_an_unknown_way_to_cut_words_is_refused_with_its_name_and_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigurationError, match=r"small.gguf cuts words in a way named 'brand-new'.*checkpoint instead"
    ):
        read_gguf_tokenizer(byte_level(tmp_path, "brand-new"))


def test_an_unknown_kind_of_tokenizer_is_refused_with_its_name_and_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"kind 'bert'.*known: gemma4, gpt2, llama, t5\. Serve the model's"):
        read_gguf_tokenizer(write(tmp_path, model="bert", tokens=["a"]))


def test_a_file_without_a_vocabulary_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigurationError, match=r"small.gguf has no vocabulary"):
        read_gguf_tokenizer(write(tmp_path, model="gpt2"))


def test_a_word_that_is_a_token_whole_needs_no_merges_where_the_model_learnt_so(tmp_path: Path) -> None:
    """Llama 3 has 588 tokens that its merges never reach: Turkish, Vietnamese, Czech."""
    assert pieces(byte_level(tmp_path, "llama-bpe", tokens=("ĠVi",)), "x Vi") == ["x", "ĠVi"]
    assert pieces(byte_level(tmp_path, "gpt-2", tokens=("ĠVi",)), "x Vi") == ["x", "Ġ", "V", "i"]


def test_a_merge_of_what_is_no_token_is_ignored(tmp_path: Path) -> None:
    """llama.cpp reads such files; the library would refuse them."""
    assert pieces(byte_level(tmp_path, "gpt-2", merges=("a b",)), "ab") == ["ab"]


def test_characters_are_not_composed(tmp_path: Path) -> None:
    made = backend(byte_level(tmp_path, "qwen2"))
    assert made.decode(made.encode("e\u0301", add_special_tokens=False).ids) == "e\u0301"


@pytest.mark.parametrize("kind", ["byte-level", "sentencepiece"])
def test_user_defined_tokens_are_whole_and_are_shown_to_the_reader(tmp_path: Path, kind: str) -> None:
    if kind == "byte-level":
        path = byte_level(tmp_path, "qwen2", tokens=("<think>", "<|end|>"), types=[USER_DEFINED, CONTROL])
    else:
        path = sentencepiece(tmp_path, {"▁": -1, "a": -2}, added={"<think>": USER_DEFINED, "<|end|>": CONTROL})
    made = backend(path)
    ids = made.encode("<think>a<|end|>", add_special_tokens=False).ids
    assert made.id_to_token(ids[0]) == "<think>"
    assert made.id_to_token(ids[-1]) == "<|end|>"
    assert TextDecoder(made).decode(ids).replace(" ", "") == "<think>a"


def test_the_first_space_of_an_answer_is_kept(tmp_path: Path) -> None:
    """An answer of code may begin with one."""
    decoder = TextDecoder(backend(byte_level(tmp_path, "llama-bpe")))
    stream = decoder.stream()
    ids = decoder.tokenizer.encode(" x = 1", add_special_tokens=False).ids
    assert "".join(stream.push(token_id) for token_id in ids) + stream.flush() == " x = 1"


WORDS = {"▁": -9, "a": -8, "b": -7, "c": -6, "▁a": -1, "ab": -3, "bc": -2, "▁▁": -4, "▁▁a": -5}


def test_sentencepiece_merges_what_scores_best(tmp_path: Path) -> None:
    path = sentencepiece(tmp_path, WORDS)
    assert pieces(path, "bab abc") == ["▁", "b", "ab", "▁a", "bc"]
    assert pieces(path, "cab") == ["▁", "c", "ab"]


def test_equal_scores_mean_the_order_of_the_tokens(tmp_path: Path) -> None:
    """Some converters know no scores and write -1000 for each."""
    path = sentencepiece(tmp_path, dict.fromkeys([*"abc", "bc", "ab"], -1000.0), add_space_prefix=False)
    assert pieces(path, "abc") == ["a", "bc"]


def test_every_space_is_kept_and_a_text_begins_with_one_more(tmp_path: Path) -> None:
    """Phi-3's files lost every space."""
    made = backend(sentencepiece(tmp_path, WORDS))
    for text in ("a", " a", "   a  b ", "\n a"):
        assert made.decode(made.encode(text, add_special_tokens=False).ids) == text
    assert made.encode(" a", add_special_tokens=False).tokens == ["▁▁a"]
    assert made.encode("a<s> a", add_special_tokens=False).tokens == ["▁a", "<s>", "▁▁a"]


def test_a_file_may_put_no_space_before_a_text(tmp_path: Path) -> None:
    path = sentencepiece(tmp_path, WORDS, add_space_prefix=False)
    assert pieces(path, "a") == ["a"]
    assert backend(path).decode(backend(path).encode(" a", add_special_tokens=False).ids) == " a"


def test_what_has_no_token_becomes_bytes(tmp_path: Path) -> None:
    path = sentencepiece(tmp_path, WORDS)
    assert pieces(path, "aé") == ["▁a", "<0xC3>", "<0xA9>"]


@pytest.mark.parametrize(
    ("name", "expected"), [("Phi3", ["<|end|>", "▁a"]), ("other", ["<|end|>", "▁", "<0x0A>", "a"])]
)
def test_special_tokens_of_phi_3_take_the_white_space_behind_them_along(
    tmp_path: Path, name: str, expected: list[str]
) -> None:
    path = sentencepiece(tmp_path, WORDS, added={"<|end|>": CONTROL}, name=name)
    made = backend(path)
    assert [
        made.id_to_token(token_id) for token_id in made.encode("<|end|>\na", add_special_tokens=False).ids
    ] == expected


def test_gemma_4_merges_characters_and_keeps_runs_of_line_ends(tmp_path: Path) -> None:
    tokens = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", "a", "b", "\n", "▁a", "\n\n"]
    path = write(tmp_path, model="gemma4", tokens=tokens, merges=["▁ a", "\n \n"], unknown_token_id=0)
    assert pieces(path, "a a\n\né") == ["a", "▁a", "\n\n", "<0xC3>", "<0xA9>"]
    assert backend(path).decode(backend(path).encode(" a\n\né", add_special_tokens=False).ids) == " a\n\né"


def test_unigram_takes_the_likeliest_pieces(tmp_path: Path) -> None:
    path = write(
        tmp_path,
        model="t5",
        tokens=["<pad>", "</s>", "<unk>", "▁", "▁a", "▁ab", "b", "c"],
        scores=[0.0, 0.0, 0.0, -2.0, -1.0, -9.0, -1.0, -1.0],
        token_type=[CONTROL, CONTROL, UNKNOWN] + [NORMAL] * 5,
        remove_extra_whitespaces=True,
        unknown_token_id=2,
    )
    assert pieces(path, " ab  c ") == ["▁a", "b", "▁", "c"]


def test_the_named_ends_of_a_turn_end_it(tmp_path: Path) -> None:
    tokens = ("<|end_of_text|>", "<|over|>", "<|call|>")
    path = byte_level(
        tmp_path,
        "llama-bpe",
        tokens=tokens,
        types=[CONTROL] * 3,
        eos_token_id=256,
        eot_token_id=257,
        eom_token_id=258,
        bos_token_id=256,
        template=LLAMA3,
    )
    chat = load_tokenizer(ModelSource("small", "gguf", path))
    assert chat.stop_token_ids == (256, 257, 258)
    assert chat.named_tokens() == {"bos_token": "<|end_of_text|>", "eos_token": "<|end_of_text|>"}
    assert chat.render([Message("user", "a")])[0] == 256


def test_a_count_is_the_number_of_tokens_for_every_name(tmp_path: Path) -> None:
    for pre in PRE_TOKENIZERS:
        merges = ("a b", "Ġ a", "1 2", "Ġ Ġ")
        path = byte_level(tmp_path, pre, merges=merges, tokens=("<|eot_id|>",), types=[CONTROL], template=LLAMA3)
        chat = load_tokenizer(ModelSource("small", "gguf", path))
        for text in (HARD, "ab  ab 1212\r\n ab", "a.\n\n b/\n c"):
            assert chat.count([Message("user", text)]) == len(chat.render([Message("user", text)])), (pre, text)


@pytest.mark.parametrize(
    ("fields", "first"),
    [({}, ["<s>"]), ({"add_bos_token": False}, []), ({"add_bos_token": True}, ["<s>"])],
    ids=["as usual", "without", "with"],
)
def test_a_bare_prompt_begins_as_the_file_says(tmp_path: Path, fields: dict[str, Any], first: list[str]) -> None:
    path = sentencepiece(tmp_path, WORDS, template=LLAMA3, **fields)
    chat = load_tokenizer(ModelSource("small", "gguf", path))
    ids = chat.encode_bare("a").ids
    assert [chat.decoder().id_to_token(token_id) for token_id in ids] == [*first, "▁a"]
