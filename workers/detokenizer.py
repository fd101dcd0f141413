"""Turns token ids into text, one token at a time, never half a character. All front ends get their text from it.

A worker makes one `TextDecoder` for a tokenizer; its `stream` makes a `Detokenizer` for each answer. The whole text
equals `tokenizer.decode(all ids)`, with one exception. Where a model with byte-fallback tokens emits invalid UTF-8,
`decode` turns the whole run of bytes into U+FFFD, even the valid ones. Here only the invalid bytes become U+FFFD,
because text that was shown is never taken back.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property

from tokenizers import Tokenizer
from tokenizers.decoders import DecodeStream

_SPACE = "\N{LOWER ONE EIGHTH BLOCK}"  # how SentencePiece writes it
_REPLACEMENT = "\N{REPLACEMENT CHARACTER}"


class TextDecoder:
    """The part of detokenizing that all answers of a model share."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer
        added = tokenizer.get_added_tokens_decoder()
        self.skipped = frozenset(index for index, token in added.items() if token.special)
        self.byte_of = _byte_tokens(tokenizer)
        self._written = {index: token.content for index, token in added.items()}

    def decode(self, token_ids: Sequence[int]) -> str:
        """The text of whole ids, special tokens left out."""
        return self.tokenizer.decode(list(token_ids), skip_special_tokens=True)

    def bytes_of(self, token_id: int) -> bytes:
        """What one token stands for, by the vocabulary; a special one for its own name."""
        if token_id in self._written:
            return self._written[token_id].encode()
        if token_id in self.byte_of:
            return bytes([self.byte_of[token_id]])
        token = self.tokenizer.id_to_token(token_id) or ""
        if self._byte_letters:
            return b"".join(self._byte_letters.get(letter) or letter.encode() for letter in token)
        return (token.replace(_SPACE, " ") if _SPACE in token else self.decode([token_id])).encode()

    @cached_property
    def _byte_letters(self) -> Mapping[str, bytes]:
        """Letter of a token → byte, for tokenizers whose tokens are bytes."""
        return _letters_of_bytes() if "ByteLevel" in repr(self.tokenizer.decoder) else {}

    def stream(self) -> "Detokenizer":
        """A detokenizer for one answer."""
        return Detokenizer(self)


class Detokenizer:
    """Incremental text of one answer. A prefix of ids always gives the same prefix of text."""

    def __init__(self, decoder: TextDecoder) -> None:
        self._decoder = decoder
        self._stream = DecodeStream(skip_special_tokens=True)
        self._partial: list[int] = []  # byte-fallback tokens of a character that is not complete
        self._shown: list[int] = []  # the ids whose text was returned last: context for the next ones
        self._held: list[int] = []  # ids given since, whose text may still change

    def push(self, token_id: int) -> str:
        """The text that this token completes; empty while it ends inside a character."""
        if token_id in self._decoder.skipped:
            return ""
        if token_id in self._decoder.byte_of:
            self._partial.append(token_id)
            return self._complete_bytes()
        return self._drop_partial() + self._step([token_id])

    def flush(self) -> str:
        """The text still held back, at the end of the answer; incomplete characters become U+FFFD."""
        text = self._held_text() + self._drop_partial()
        self._shown, self._held = [], []
        self._stream = DecodeStream(skip_special_tokens=True)
        return text

    def _complete_bytes(self) -> str:
        """The text of the bytes that make characters. Each byte that cannot be part of one becomes U+FFFD."""
        text = ""
        while self._partial:
            data = bytes(self._decoder.byte_of[token_id] for token_id in self._partial)
            try:
                data.decode()
            except UnicodeDecodeError as error:
                if error.reason == "unexpected end of data":
                    return text
                text += _REPLACEMENT * error.end
                del self._partial[: error.end]
            else:
                ids, self._partial = self._partial, []
                text += self._step(ids)
        return text

    def _drop_partial(self) -> str:
        text = _REPLACEMENT * len(self._partial)
        self._partial = []
        return text

    def _step(self, token_ids: list[int]) -> str:
        self._held += token_ids
        text = self._stream.step(self._decoder.tokenizer, token_ids)
        if not text:
            return ""
        self._shown, self._held = self._held, []
        return text

    def _held_text(self) -> str:
        before = self._decoder.decode(self._shown)
        return self._decoder.decode(self._shown + self._held)[len(before) :]


def _byte_tokens(tokenizer: Tokenizer) -> dict[int, int]:
    """Token id → byte, for the `<0x41>` tokens of a tokenizer that decodes them."""
    if "ByteFallback" not in repr(tokenizer.decoder):
        return {}
    ids = {tokenizer.token_to_id(f"<0x{byte:02X}>"): byte for byte in range(256)}
    return {token_id: byte for token_id, byte in ids.items() if token_id is not None}


def _letters_of_bytes() -> dict[str, bytes]:
    """How GPT-2 and its heirs write bytes in their tokens: printable ones as themselves, the others from U+0100 on."""
    printable = {*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)}
    others = [byte for byte in range(256) if byte not in printable]
    letters = {byte: chr(byte) for byte in printable} | {byte: chr(0x100 + at) for at, byte in enumerate(others)}
    return {letter: bytes([byte]) for byte, letter in letters.items()}
