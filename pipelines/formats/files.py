"""Opens inputs: local paths and fsspec URLs, plain, gzip or zstd. Only `read.py` calls it.

An input that cannot be opened raises ConfigurationError with the remedy. If an input is damaged further on, its bytes
end early, and `Blocks.damage` says why.
"""

import contextlib
import tempfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from services.errors import ConfigurationError
from services.machine.disk import fullness

BLOCK_BYTES = 1_048_576
MAGIC_BYTES = 8  # that tell what a file is
COMPRESSED_BYTES = 65_536  # read at a time
ZSTD_STEP_BYTES = 128  # a failing read loses what it gathered, so it gathers little

ZSTD_WINDOW = (
    "an input is zstd with a window of more than 128 MiB (`zstd --long` above 27), which is not unpacked; pack it anew "
    "without --long"
)
GZIP, ZSTD, PARQUET = b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"PAR1"
NOT_READ = {
    b"PK\x03\x04": "a zip archive in another archive; unpack it",
    b"SQLite f": "an SQLite database; export its conversations as JSON or CSV",
    b"<!DOCTYP": "a web page; give the JSON that the program exports",
    b"<!doctyp": "a web page; give the JSON that the program exports",
    b"<html": "a web page; give the JSON that the program exports",
    b"BZh": "compressed with bzip2; use gzip or zstd",
    b"\xfd7zXZ": "compressed with xz; use gzip or zstd",
    b"7z\xbc\xaf": "a 7z archive; unpack it",
    b"\xff\xfe": "text in UTF-16; convert it to UTF-8",
    b"\xfe\xff": "text in UTF-16; convert it to UTF-8",
    b"{\0": "text in UTF-16; convert it to UTF-8",
    b"[\0": "text in UTF-16; convert it to UTF-8",
}
PACKAGES = {  # what pip installs; s3fs is an extra, since its version is that of fsspec
    "s3": "-e '.[s3]'", "s3a": "-e '.[s3]'",
    "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs", "abfss": "adlfs",
    "http": "aiohttp requests", "https": "aiohttp requests", "sftp": "paramiko", "ssh": "paramiko",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Damage:
    """Why the bytes end early. `reason`: truncated or damaged."""

    reason: str
    detail: str


class Damaged(Exception):
    """A compressed stream cannot be read further."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.damage = Damage(reason, detail)


class Blocks:
    """The bytes of a text input in blocks of about BLOCK_BYTES. At the end or at damage: empty for ever."""

    def __init__(self, blocks: Iterator[bytes]) -> None:
        self.damage: Damage | None = None
        self._blocks = blocks
        self._peeked = b""

    def read(self) -> bytes:
        block, self._peeked = self._peeked, b""
        return block or self._next()

    def peek(self) -> bytes:
        """What `read` will give, without taking it; at least 64 KiB where there is as much."""
        while len(self._peeked) < COMPRESSED_BYTES and (block := self._next()):
            self._peeked += block
        return self._peeked

    def _next(self) -> bytes:
        try:
            return next(self._blocks, b"")
        except Damaged as error:
            self.damage = error.damage
            return b""


def open_input(name: str) -> IO[bytes]:
    """The bytes as they are stored. Raises ConfigurationError."""
    scheme = name.partition("://")[0] if "://" in name else ""
    try:
        return _open_url(name) if scheme else Path(name).open("rb")
    except FileNotFoundError:
        raise ConfigurationError(f"input {name}: there is no such file") from None
    except IsADirectoryError:
        raise ConfigurationError(f"input {name} is a folder; name the files in it") from None
    except ImportError as error:
        package = PACKAGES.get(scheme)
        remedy = f"pip install {package}" if package else str(error)
        raise ConfigurationError(f"input {name}: {scheme}:// needs a package that is not installed: {remedy}") from None
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"input {name} cannot be opened: {error}") from None


def _open_url(name: str) -> IO[bytes]:
    import fsspec

    opened: IO[bytes] = fsspec.open(name, "rb").open()
    return opened


def compression(name: str, magic: bytes) -> str:
    """gzip, zstd or nothing, by the first bytes. Raises ConfigurationError if they are of a kind that is not read."""
    if magic.startswith(GZIP):
        return "gzip"
    if magic.startswith(ZSTD) or magic[1:4] == b"\x2a\x4d\x18":  # the latter: a skippable frame, as pzstd writes
        return "zstd"
    for known, what in NOT_READ.items():
        if magic.startswith(known):
            raise ConfigurationError(f"input {name} is {what}")
    if magic and name.lower().endswith((".gz", ".zst", ".zstd")):
        raise ConfigurationError(f"input {name} is not compressed as its name says: it begins with {magic!r}")
    return ""


def blocks(file: IO[bytes], how: str) -> Iterator[bytes]:
    """What `file` holds, decompressed. Raises Damaged after what could be read."""
    if how == "gzip":
        return _gather(_gunzip(file))
    if how == "zstd":
        return _gather(_unzstd(file))
    return iter(lambda: file.read(BLOCK_BYTES), b"")


def spool(name: str, blocks: Blocks) -> IO[bytes]:
    """A temporary file of all `blocks`: for a format that is read from its end. Raises ConfigurationError."""
    with contextlib.ExitStack() as unfinished:
        spooled: IO[bytes] = unfinished.enter_context(tempfile.TemporaryFile())
        _write(name, blocks, spooled)
        if blocks.damage:
            raise ConfigurationError(f"input {name}: {blocks.damage.detail}; Parquet and Arrow are read from the end")
        unfinished.pop_all()  # the caller closes it
    spooled.seek(0)
    return spooled


def _write(name: str, blocks: Blocks, spooled: IO[bytes]) -> None:
    """A small archive may unpack to more than the disk takes, so the disk is asked at every block."""
    try:
        while block := blocks.read():
            if full := fullness(Path(tempfile.gettempdir())):
                raise OSError(full)
            spooled.write(block)
        spooled.flush()
    except OSError as error:
        raise ConfigurationError(
            f"input {name} is unpacked into a temporary file: {error}; make room there, or set TMPDIR to a larger disk"
        ) from None


def _gather(pieces: Iterator[bytes]) -> Iterator[bytes]:
    """Small pieces as blocks; those before the damage are given first."""
    gathered: list[bytes] = []
    num_bytes = 0
    try:
        for piece in pieces:
            gathered.append(piece)
            num_bytes += len(piece)
            if num_bytes >= BLOCK_BYTES:
                yield b"".join(gathered)
                gathered, num_bytes = [], 0
    except Damaged:
        if gathered:
            yield b"".join(gathered)
        raise
    if gathered:
        yield b"".join(gathered)


def _gunzip(file: IO[bytes]) -> Iterator[bytes]:
    decoder, left = zlib.decompressobj(wbits=31), b""
    while left := left or file.read(COMPRESSED_BYTES):
        if decoder.eof:  # another member, or padding
            left = left.lstrip(b"\0")
            if not left:
                continue
            decoder = zlib.decompressobj(wbits=31)
        before = decoder.copy()
        try:
            piece = decoder.decompress(left, BLOCK_BYTES)
        except zlib.error as error:
            yield from _bytewise(before, left)
            raise Damaged("damaged", f"gzip: {error}; {_not_read(file, len(left))}") from None
        if piece:
            yield piece
        left = decoder.unconsumed_tail or decoder.unused_data
    while piece := decoder.decompress(b"", BLOCK_BYTES):
        yield piece
    if not decoder.eof:
        raise Damaged("truncated", "gzip: the file ends in the middle")


def _bytewise(decoder: Any, left: bytes) -> Iterator[bytes]:
    """What stands before the damage in `left`: a call that fails gives nothing of what it decoded."""
    try:
        for index in range(len(left)):
            yield decoder.decompress(left[index : index + 1])
    except zlib.error:
        return


def _unzstd(file: IO[bytes]) -> Iterator[bytes]:
    import pyarrow

    stream = pyarrow.CompressedInputStream(pyarrow.PythonFile(file, mode="r"), "zstd")
    while True:
        try:
            piece = stream.read(ZSTD_STEP_BYTES)
        except OSError as error:
            if "Truncated" in str(error):
                raise Damaged("truncated", "zstd: the file ends in the middle") from None
            if "too much memory" in str(error):
                raise ConfigurationError(ZSTD_WINDOW) from None
            if "ZSTD" in str(error):
                raise Damaged("damaged", f"{error}; {_not_read(file, 0)}") from None
            raise
        if not piece:
            return
        yield piece


def _not_read(file: IO[bytes], num_left: int) -> str:
    position = file.tell() - num_left
    return f"{file.seek(0, 2) - position} compressed bytes were not read"
