"""The fields of a GGUF that describe a model's tokenizer. `gguf_writer.py` writes them.

Only tokenizers that merge bytes (GPT-2's kind: Llama 3, SmolLM2, Qwen) are written. How such a tokenizer cuts words has
a name in a GGUF, and the checkpoint does not say it: it is the name whose cuts are the tokenizer's own on held texts.
"""

from typing import TYPE_CHECKING, Any

import orjson

from pipelines.training.held_texts import HELD
from services.errors import ConfigurationError
from services.tokens.gguf_tokenizer import read_gguf_tokenizer, splitter_of
from services.tokens.pre_tokenizers import PRE_TOKENIZERS
from services.tokens.tokenization import ChatTokenizer

if TYPE_CHECKING:
    from pathlib import Path

    from gguf import GGUFWriter
    from tokenizers import Tokenizer

_TEXTS = (
    *(text for pair in HELD for text in pair),
    "It'S 1234567 items,\n\n   a\ttab\t\tand  spaces  \r\n at__the end…!?  \n",
    "ÄÖÜ ñandú naïve Ελλάδα שלום नमस्ते สวัสดี 한국어 カタカナ 🙂🙂 ½ ²",
)


def add_vocabulary(writer: "GGUFWriter", tokenizer: ChatTokenizer, vocab_size: int) -> None:
    """`vocab_size`: the rows of the embeddings, which may be more than there are tokens. Raises ConfigurationError."""
    backend = tokenizer.decoder()
    model = _byte_level_model(backend)
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre(_name_of_cuts(backend, bool(model.get("ignore_merges"))))
    tokens, types = _tokens(backend, vocab_size)
    writer.add_token_list(tokens)
    writer.add_token_types(types)
    writer.add_token_merges([merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]])
    _add_named_tokens(writer, tokenizer)
    writer.add_chat_template(tokenizer.chat_template)


def check_vocabulary(path: "Path", tokenizer: ChatTokenizer) -> None:
    """Raises ConfigurationError if the tokenizer of the written file gives other ids than the model's own."""
    written, _ = read_gguf_tokenizer(path)
    for text in _TEXTS:
        own = tokenizer.decoder().encode(text, add_special_tokens=False).ids
        if written.backend_tokenizer.encode(text, add_special_tokens=False).ids != own:
            raise ConfigurationError(f"its tokenizer gives other ids in a GGUF, for example for {text[:40]!r}")


def _byte_level_model(backend: "Tokenizer") -> Any:
    written = orjson.loads(backend.to_str())
    model, decoder = written["model"], written.get("decoder") or {}
    if model.get("type") != "BPE" or model.get("byte_fallback") or decoder.get("type") != "ByteLevel":
        raise ConfigurationError("its tokenizer does not merge bytes, as those of Llama 3 and Qwen do")
    return model


def _name_of_cuts(backend: "Tokenizer", ignore_merges: bool) -> str:
    wanted = [_cuts(backend.pre_tokenizer, text) for text in _TEXTS]
    known: dict[Any, bool] = {}
    for name, rule in PRE_TOKENIZERS.items():
        if rule not in known:
            splitter = splitter_of(rule)
            known[rule] = all(_cuts(splitter, text) == cuts for text, cuts in zip(_TEXTS, wanted, strict=True))
        if known[rule] and rule.ignore_merges == ignore_merges:
            return name
    raise ConfigurationError("its tokenizer cuts words in a way for which GGUF has no name")


def _cuts(splitter: Any, text: str) -> list[str]:
    return [piece for piece, _ in splitter.pre_tokenize_str(text)]


def _tokens(backend: "Tokenizer", vocab_size: int) -> tuple[list[str], list[int]]:
    """The text and the type of each id."""
    from gguf import TokenType

    added = backend.get_added_tokens_decoder()
    tokens, types = [], []
    for index in range(vocab_size):
        text = backend.id_to_token(index)
        if text is None:
            text, kind = f"[PAD{index}]", TokenType.UNUSED
        elif index in added:
            kind = TokenType.CONTROL if added[index].special else TokenType.USER_DEFINED
        else:
            kind = TokenType.NORMAL
        tokens.append(text)
        types.append(int(kind))
    return tokens, types


def _add_named_tokens(writer: "GGUFWriter", tokenizer: ChatTokenizer) -> None:
    backend, named = tokenizer.decoder(), tokenizer.named_tokens()
    ids = {kind: backend.token_to_id(text) for kind, text in named.items()}
    ends = list(tokenizer.stop_token_ids)
    named_end = ids.get("eos_token")
    end = ends[0] if named_end is None else named_end
    writer.add_eos_token_id(end)
    if others := [each for each in ends if each != end]:
        writer.add_eot_token_id(others[0])
    if (begin := ids.get("bos_token")) is not None:
        writer.add_bos_token_id(begin)
    if (pad := ids.get("pad_token")) is not None:
        writer.add_pad_token_id(pad)
    writer.add_add_bos_token(begin is not None and backend.encode("a").ids[:1] == [begin])
