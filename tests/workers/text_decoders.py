"""Tokenizers of the three kinds in use, for the tests of text: byte-level BPE, Metaspace, byte fallback."""

from functools import cache

import pytest
from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, pre_tokenizers

from services.errors import ConfigurationError
from services.models.catalogue import ModelSource, resolve
from services.tokens.tokenization import ChatTokenizer, load_tokenizer
from workers.detokenizer import TextDecoder

WORDS = ["▁", "▁the", "▁a", "n", "d", "▁and", "é", "世", "▁世", "lo", "▁hel", " ", ".", "▁▁", "\ufffd"]


def packaged_source() -> ModelSource:
    """The packaged model; skips the importing test module where it is not installed."""
    try:
        return resolve("smollm2-135m")
    except ConfigurationError as error:
        pytest.skip(str(error), allow_module_level=True)


@cache
def packaged_tokenizer() -> ChatTokenizer:
    """The packaged model's, read once in a test process: 49,152 tokens take most of a second."""
    return load_tokenizer(packaged_source())


def smollm2() -> TextDecoder:
    return TextDecoder(packaged_tokenizer().decoder())


def byte_fallback() -> TextDecoder:
    """Like Llama 2: sentencepiece pieces, and a token for every byte."""
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *WORDS]
    tokenizer = Tokenizer(
        models.BPE({piece: n for n, piece in enumerate(pieces)}, [], byte_fallback=True, unk_token="<unk>")
    )
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    tokenizer.add_special_tokens([AddedToken(token, normalized=False) for token in ("<unk>", "<s>", "</s>")])
    return TextDecoder(tokenizer)


def metaspace() -> TextDecoder:
    """Like XLM-R or T5: Metaspace in both directions, no bytes."""
    pieces = ["<unk>", *WORDS]
    tokenizer = Tokenizer(models.BPE({piece: n for n, piece in enumerate(pieces)}, [], unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.add_special_tokens([AddedToken("<unk>", normalized=False)])
    return TextDecoder(tokenizer)
