"""Builds the tokenizer of a GGUF from the file's metadata. `tokenization.py` calls it. Nothing here needs torch.

Two fields say all: `tokenizer.ggml.model` names the algorithm, `tokenizer.ggml.pre` how words are cut before it. The
architecture says nothing: files carry names that no library has for it. llama.cpp's ids for the same file are the
judge (`python -m bench.vocabularies`): no Unicode normalisation, a space before each text that begins anew where the
algorithm adds one, tokens that the file calls user-defined matched whole.
"""

import gc
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from services.errors import ConfigurationError
from services.models.gguf_metadata import read_gguf_metadata
from services.tokens.implied_merges import implied_merges
from services.tokens.pre_tokenizers import EACH_DIGIT, GPT2_SPLIT, PRE_TOKENIZERS, PreTokenizer

if TYPE_CHECKING:  # the library itself is loaded by whoever makes a tokenizer
    from tokenizers import AddedToken, Tokenizer
    from tokenizers.decoders import Decoder
    from tokenizers.models import BPE
    from tokenizers.pre_tokenizers import PreTokenizer as Splitter

_UNKNOWN, _CONTROL, _USER_DEFINED = 2, 3, 4  # tokenizer.ggml.token_type
_SPACE = "▁"
_ESCAPED_SPACES = frozenset({"gemma4", "sarvam-moe", "granite-embed-multi-311m"})  # BPE over characters, not bytes
_NOT_STRIPPED = frozenset({"<unk>", "<s>", "<|endoftext|>"})  # Phi-3: every other special token takes white space along
_PRE_WITH_BOS = ("llama3", "llama-v3", "llama-bpe", "falcon3", "falcon-h1", "pixtral", "midm-2.0", "lfm2", "tekken")
_DEFAULT_IDS = {"llama": {"bos": 1, "eos": 2, "unknown": 0}, "t5": {"eos": 1, "unknown": 2}}


@dataclass(frozen=True)
class GgufTokenizer:
    """The part of a `transformers` tokenizer that `ChatTokenizer` needs. Their class loads torch: 1.4 s, 200 MB."""

    backend_tokenizer: "Tokenizer"
    chat_template: str | None
    special_tokens_map: dict[str, str]  # bos_token and eos_token, as far as there are such

    @property
    def eos_token_id(self) -> int | None:
        eos = self.special_tokens_map.get("eos_token")
        return None if eos is None else self.backend_tokenizer.token_to_id(eos)


def read_gguf_tokenizer(path: Path) -> tuple[GgufTokenizer, set[int]]:
    """The tokenizer of a GGUF and the ids that end a turn. Raises ConfigurationError if the file has none we know."""
    with _collector_at_rest():
        return _read(path.name, read_gguf_metadata(path))


@contextmanager
def _collector_at_rest() -> Iterator[None]:
    """A large vocabulary makes a million objects, none of them garbage; looking for some takes half a second."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def _read(file_name: str, metadata: dict[str, Any]) -> tuple[GgufTokenizer, set[int]]:
    if not metadata.get("tokenizer.ggml.tokens"):
        raise ConfigurationError(f"{file_name} has no vocabulary (tokenizer.ggml.tokens); convert the model again")
    vocabulary = _Vocabulary(file_name, metadata)
    backend = _backend(vocabulary)
    named = {f"{kind}_token": vocabulary.token(kind) for kind in ("bos", "eos")}
    special = {name: token for name, token in named.items() if token is not None}
    backend.add_special_tokens(list(special.values()))
    if vocabulary.begins_with_bos and "bos_token" in special:
        _put_in_front(backend, special["bos_token"])
    tokenizer = GgufTokenizer(backend, metadata.get("tokenizer.chat_template"), special)
    ends = (vocabulary.token_id(kind) for kind in ("eos", "eot", "eom"))
    return tokenizer, {end for end in ends if end is not None}


class _Vocabulary:
    """The fields `tokenizer.ggml.*` of one file."""

    def __init__(self, file_name: str, metadata: dict[str, Any]) -> None:
        self.file_name = file_name
        self._metadata = metadata
        self.model = str(self.field("model", ""))
        self.pre = str(self.field("pre", "") or "default")
        self.tokens = [text or f"[EMPTY_{index}]" for index, text in enumerate(self.field("tokens", ()))]
        self.ids = {token: index for index, token in enumerate(self.tokens)}

    def field(self, name: str, otherwise: Any = None) -> Any:
        return self._metadata.get(f"tokenizer.ggml.{name}", otherwise)

    def token_id(self, kind: str) -> int | None:
        """The id that the file has for `kind`: bos, eos, eot, eom, unknown."""
        index = self.field(f"{kind}_token_id", _DEFAULT_IDS.get(self.model, {}).get(kind))
        return index if index is not None and index < len(self.tokens) else None

    def token(self, kind: str) -> str | None:
        index = self.token_id(kind)
        return None if index is None else self.tokens[index]

    @property
    def begins_with_bos(self) -> bool:
        """Whether every text begins with the BOS token: as the file says, else as llama.cpp takes it."""
        usual = self.model == "llama" or self.pre in _PRE_WITH_BOS
        return bool(self.field("add_bos_token", usual))

    def scores(self) -> list[float]:
        """The score of each token, highest first to be merged. Converters without scores write one for all: then
        the order of the tokens is that of the merges."""
        scores = list(self.field("scores", ())) or [0.0] * len(self.tokens)
        if len(scores) != len(self.tokens):
            raise ConfigurationError(
                f"{self.file_name} has {len(scores):,} scores (tokenizer.ggml.scores) for {len(self.tokens):,} tokens;"
                " convert the model again"
            )
        return scores

    def merges(self) -> list[tuple[str, str]]:
        """The merges of the file."""
        merges: list[str] = self.field("merges", [])
        halves = " ".join(merges).split(" ")
        if len(halves) == 2 * len(merges):  # no half has a space: many times faster than one by one
            return list(zip(halves[::2], halves[1::2], strict=True))
        return [_halves(merge) for merge in merges]

    def of_tokens(self, merges: list[tuple[str, str]]) -> list[tuple[str, str]]:
        """Only the merges whose parts and whole are tokens; another one never applies."""
        return [pair for pair in merges if all(part in self.ids for part in (*pair, "".join(pair)))]

    def implied_merges(self) -> list[tuple[str, str]]:
        """The merges that lead to each token of a vocabulary that stores scores instead of merges."""
        return implied_merges(self.tokens, self.scores())

    def added(self) -> "list[AddedToken]":
        """Control tokens, which are special, and user-defined ones: each is matched whole in the text as written."""
        from tokenizers import AddedToken

        name = str(self._metadata.get("general.name", "")).lower()
        strips = "phi-3" in name or "phi3" in name  # nothing in a file says it; llama.cpp goes by the name too
        return [
            AddedToken(
                token, special=kind != _USER_DEFINED, normalized=False, rstrip=strips and token not in _NOT_STRIPPED
            )
            for token, kind in zip(self.tokens, self.field("token_type", ()), strict=False)
            if kind in (_UNKNOWN, _CONTROL, _USER_DEFINED)
        ]


def _put_in_front(backend: "Tokenizer", token: str) -> None:
    """Only for texts that are encoded with special tokens: a chat template writes the token itself."""
    from tokenizers.processors import Sequence, TemplateProcessing

    first = TemplateProcessing(single=[token, "$A"], special_tokens=[(token, backend.token_to_id(token))])
    before = [backend.post_processor] if backend.post_processor else []
    backend.post_processor = Sequence([*before, first])


def _halves(merge: str) -> tuple[str, str]:
    at = merge.find(" ", 1)
    return merge[:at], merge[at + 1 :]


def _backend(vocabulary: _Vocabulary) -> "Tokenizer":
    builder = _BUILDERS.get(vocabulary.model)
    if builder is None:
        known = ", ".join(sorted(_BUILDERS))
        raise ConfigurationError(
            f"{vocabulary.file_name} has a tokenizer of kind {vocabulary.model!r} (tokenizer.ggml.model); known:"
            f" {known}. Serve the model's Hugging Face checkpoint instead"
        )
    backend = builder(vocabulary)
    backend.add_tokens(vocabulary.added())
    return backend


def _bpe(vocabulary: _Vocabulary, merges: list[tuple[str, str]], **options: Any) -> "BPE":
    """The library refuses merges of what is no token, llama.cpp ignores them. Few files have any."""
    from tokenizers.models import BPE

    try:
        return BPE(vocabulary.ids, merges, **options)
    except Exception:  # noqa: BLE001  the library has no class for it
        return BPE(vocabulary.ids, vocabulary.of_tokens(merges), **options)


def _byte_level(vocabulary: _Vocabulary) -> "Tokenizer":
    """BPE over bytes, each spelled as a visible character: GPT-2, Llama 3, Qwen and most since."""
    from tokenizers import Tokenizer, decoders

    if vocabulary.pre in _ESCAPED_SPACES:
        return _characters(vocabulary)
    pre_tokenizer = PRE_TOKENIZERS.get(vocabulary.pre)
    if pre_tokenizer is None:
        raise ConfigurationError(
            f"{vocabulary.file_name} cuts words in a way named {vocabulary.pre!r} (tokenizer.ggml.pre), which is not"
            " known here, and a guess would give other token ids than the model learnt. Serve the model's Hugging Face"
            " checkpoint instead, or add the name to services/tokens/pre_tokenizers.py"
        )
    merges = vocabulary.merges() or vocabulary.implied_merges()
    backend = Tokenizer(_bpe(vocabulary, merges, ignore_merges=pre_tokenizer.ignore_merges))
    backend.pre_tokenizer = splitter_of(pre_tokenizer)
    backend.decoder = decoders.ByteLevel()
    return backend


def splitter_of(pre_tokenizer: PreTokenizer) -> "Splitter":
    """The library's own splitters where they do the same: they are faster, and the token counter knows them."""
    from tokenizers import Regex, pre_tokenizers

    *patterns, last = pre_tokenizer.patterns
    by_gpt2 = last == GPT2_SPLIT
    parts: list[Splitter] = []
    for pattern in patterns if by_gpt2 else (*patterns, last):
        parts.append(
            pre_tokenizers.Digits(individual_digits=True)
            if pattern == EACH_DIGIT
            else pre_tokenizers.Split(Regex(pattern), behavior="isolated")
        )
    return pre_tokenizers.Sequence([*parts, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=by_gpt2)])


def _characters(vocabulary: _Vocabulary) -> "Tokenizer":
    """BPE over characters with `▁` for a space and tokens for the bytes of the others: Gemma 4."""
    from tokenizers import Regex, normalizers, pre_tokenizers

    backend = _with_byte_fallback(vocabulary, vocabulary.merges(), prefix=False)
    backend.normalizer = normalizers.Replace(" ", _SPACE)
    backend.pre_tokenizer = pre_tokenizers.Split(Regex(r"[^\n]+|\n+"), behavior="isolated")
    return backend


def _sentencepiece(vocabulary: _Vocabulary) -> "Tokenizer":
    """SentencePiece's BPE: Llama 2, Mistral, Phi-3, Gemma to 3. It merges what makes the token with the best score."""
    from tokenizers import normalizers

    prefix = bool(vocabulary.field("add_space_prefix", True))
    backend = _with_byte_fallback(vocabulary, vocabulary.implied_merges(), prefix=prefix)
    escape = normalizers.Replace(" ", _SPACE)
    backend.normalizer = normalizers.Sequence([normalizers.Prepend(_SPACE), escape]) if prefix else escape
    return backend


def _with_byte_fallback(vocabulary: _Vocabulary, merges: list[tuple[str, str]], *, prefix: bool) -> "Tokenizer":
    """`prefix`: encoding puts a space before a text, and decoding takes it away."""
    from tokenizers import Tokenizer, decoders

    unknown = vocabulary.token("unknown")
    backend = Tokenizer(_bpe(vocabulary, merges, unk_token=unknown, fuse_unk=True, byte_fallback=True))
    steps: list[Decoder] = [decoders.Replace(_SPACE, " "), decoders.ByteFallback(), decoders.Fuse()]
    backend.decoder = decoders.Sequence([*steps, decoders.Strip(" ", 1, 0)] if prefix else steps)
    return backend


def _unigram(vocabulary: _Vocabulary) -> "Tokenizer":
    """SentencePiece's Unigram: T5."""
    from tokenizers import Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers

    scored = list(zip(vocabulary.tokens, vocabulary.scores(), strict=False))
    backend = Tokenizer(models.Unigram(scored, vocabulary.token_id("unknown")))
    steps: list[normalizers.Normalizer] = []
    if charsmap := vocabulary.field("precompiled_charsmap"):
        steps.append(normalizers.Precompiled(bytes(byte % 256 for byte in charsmap)))
    if vocabulary.field("remove_extra_whitespaces", False):
        steps += [normalizers.Strip(), normalizers.Replace(Regex(" {2,}"), " ")]
    backend.normalizer = normalizers.Sequence(steps)
    scheme = "always" if vocabulary.field("add_space_prefix", True) else "never"
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=scheme)
    backend.decoder = decoders.Metaspace(prepend_scheme=scheme)
    return backend


_BUILDERS: "dict[str, Callable[[_Vocabulary], Tokenizer]]" = {
    "gpt2": _byte_level,
    "llama": _sentencepiece,
    "gemma4": _characters,
    "t5": _unigram,
}
