"""Finds the merges that a SentencePiece vocabulary implies: it stores the score of each token, and no merges.

`gguf_tokenizer.py` calls it. Each cut of a token into two tokens is a merge. A vocabulary of 262,144 tokens (Gemma)
has 1.2 million cuts. To look each half up as a text takes most of the time of reading such a file, so the halves are
found by their hashes, all at once: of the texts' code points c the polynomial Σ cᵢ·Bⁱ modulo 2⁶⁴. The sum over any
stretch is the difference of two sums, times a power of B's inverse.
"""

from collections.abc import Sequence
from typing import Any

_BASE = 0x9E3779B97F4A7C15  # odd, so that it has an inverse
_MODULUS = 1 << 64


def implied_merges(tokens: Sequence[str], scores: Sequence[float]) -> list[tuple[str, str]]:
    """The merges, those of the token with the highest score first, and those of one token by their cut.

    `tokens`: each once, none empty.
    """
    import numpy as np

    order = np.argsort(-np.asarray(scores[: len(tokens)]), kind="stable")
    ordered = [tokens[index] for index in order.tolist()]
    texts = _Stretches("".join(ordered))
    lengths = np.fromiter(map(len, ordered), np.int64, len(ordered))
    ends = np.cumsum(lengths)
    starts = ends - lengths
    known = _Known(texts.hashes(starts, ends))
    token = np.repeat(np.arange(len(ordered)), lengths - 1)
    cut = np.arange(len(token)) + token + 1  # every place of the joined text but the starts
    left, found = known.find(texts.hashes(starts[token], cut))
    token, cut, left = token[found], cut[found], left[found]
    right, found = known.find(texts.hashes(cut, ends[token]))
    halves = ([ordered[index] for index in side[found].tolist()] for side in (left, right))
    return list(zip(*halves, strict=True))


class _Stretches:
    """The stretches of a text, by their hashes."""

    def __init__(self, text: str) -> None:
        import numpy as np

        codes = np.frombuffer(text.encode("utf-32-le", "surrogatepass"), np.uint32).astype(np.uint64)
        self._sums = np.zeros(len(codes) + 1, np.uint64)
        np.cumsum((codes + np.uint64(1)) * _powers(_BASE, len(codes)), out=self._sums[1:])
        self._inverses = _powers(pow(_BASE, -1, _MODULUS), len(codes) + 1)

    def hashes(self, starts: Any, ends: Any) -> Any:
        """That of each text[start:end]."""
        return (self._sums[ends] - self._sums[starts]) * self._inverses[starts]


class _Known:
    """Hashes that are looked up."""

    def __init__(self, hashes: Any) -> None:
        import numpy as np

        self._by_size = np.argsort(hashes)
        self._hashes = hashes[self._by_size]

    def find(self, hashes: Any) -> tuple[Any, Any]:
        """Which of the known ones each is, and whether it is one."""
        import numpy as np

        by_size = np.argsort(hashes)  # so that neighbours are looked up after each other: several times faster
        places = np.empty(len(hashes), np.int64)
        places[by_size] = np.searchsorted(self._hashes, hashes[by_size])
        places[places == len(self._hashes)] = 0
        return self._by_size[places], self._hashes[places] == hashes


def _powers(base: int, number: int) -> Any:
    """The first powers modulo 2⁶⁴."""
    import numpy as np

    factors = np.full(number, base, np.uint64)
    factors[:1] = 1
    return np.multiply.accumulate(factors)
