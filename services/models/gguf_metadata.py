"""Reads the metadata of a GGUF file: architecture, context length, vocabulary, chat template. No tensors, no torch.

`services.tokens.tokenization` and `workers.openvino_engine` call it. ggml's docs/gguf.md describes the format, versions
2 and 3. The reader of the package `gguf` takes 3 s for the same file; that of `transformers` needs torch.
"""

import mmap
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from services.errors import ConfigurationError

_SCALARS = {0: "B", 1: "b", 2: "H", 3: "h", 4: "I", 5: "i", 6: "f", 7: "?", 10: "Q", 11: "q", 12: "d"}
_STRING, _ARRAY = 8, 9


def read_gguf_metadata(path: Path) -> dict[str, Any]:
    """Every key of the file's header. Raises ConfigurationError for an unreadable file."""
    with _header(path) as header:
        return header.read()


def tensor_starts(path: Path) -> list[int]:
    """The first byte of each tensor in the file. A file that was cut off ends before one of them."""
    with _header(path) as header:
        return header.tensor_starts()


@contextmanager
def _header(path: Path) -> "Iterator[_Header]":
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            yield _Header(data)
    except (OSError, ValueError, OverflowError, struct.error, KeyError) as error:
        raise ConfigurationError(f"{path} is not a readable GGUF file ({error}); download it again") from None


class _Header:
    def __init__(self, data: mmap.mmap) -> None:
        self._data = data
        self._at = 0
        self._num_tensors = 0

    def read(self) -> dict[str, Any]:
        magic, version, self._num_tensors, num_keys = self._unpack("4sIQQ")
        if magic != b"GGUF" or version not in (2, 3):
            raise ValueError(f"magic {magic!r}, version {version}")
        return {self._string(): self._value(self._unpack("I")[0]) for _ in range(num_keys)}

    def tensor_starts(self) -> list[int]:
        alignment = int(self.read().get("general.alignment", 32))
        offsets = [self._offset() for _ in range(self._num_tensors)]
        begin = -(-self._at // alignment) * alignment
        return [begin + offset for offset in offsets]

    def _offset(self) -> int:
        """The offset of one tensor, behind its name, dimensions and type."""
        self._string()
        (num_dimensions,) = self._unpack("I")
        return int(self._unpack(f"{num_dimensions}QIQ")[-1])

    def _unpack(self, layout: str) -> tuple[Any, ...]:
        values = struct.unpack_from("<" + layout, self._data, self._at)
        self._at += struct.calcsize("<" + layout)
        return values

    def _string(self) -> str:
        (length,) = self._unpack("Q")
        text = self._data[self._at : self._at + length]
        self._at += length
        return text.decode("utf-8", "replace")

    def _strings(self, count: int) -> list[str]:
        """Many strings: a vocabulary has hundreds of thousands, so without a call for each."""
        data, at, length_at, texts = self._data, self._at, struct.Struct("<Q").unpack_from, []
        for _ in range(count):
            begin = at + 8
            at = begin + length_at(data, at)[0]
            texts.append(data[begin:at].decode("utf-8", "replace"))
        self._at = at
        return texts

    def _value(self, kind: int) -> Any:
        if kind == _STRING:
            return self._string()
        if kind != _ARRAY:
            return self._unpack(_SCALARS[kind])[0]
        element, count = self._unpack("IQ")
        if element in _SCALARS:
            return list(self._unpack(f"{count}{_SCALARS[element]}"))
        if element == _STRING:
            return self._strings(count)
        return [self._value(element) for _ in range(count)]
