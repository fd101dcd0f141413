"""The files of a ZIP archive that hold conversations. Only `read.py` calls it.

An export of ChatGPT or Claude as it comes: of its many files only `conversations.json`, or the numbered ones. Any other
archive: all its JSON, CSV, Parquet and Arrow files, by name.
"""

import re
import struct
import zipfile
import zlib
from collections.abc import Iterator
from typing import IO

from pipelines.formats.files import BLOCK_BYTES, Damaged
from services.errors import ConfigurationError

MAGIC = b"PK\x03\x04"
CONVERSATIONS = re.compile(r"(?:.*/)?(?:conversations|prod-grok-backend)(?:[-_]\d+)?\.json")
READ = re.compile(r".*\.(?:json|jsonl|ndjson|csv|tsv|parquet|arrow)(?:\.gz|\.zst)?", re.IGNORECASE)
HIDDEN = re.compile(r"(?:.*/)?(?:\.|__MACOSX/)")
ENCRYPTED = 0x1
UNPACKED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)  # zipfile gives no bound to the other methods
OTHERS = {zipfile.ZIP_BZIP2: "bzip2", zipfile.ZIP_LZMA: "lzma", 93: "zstd"}
FAULTS = (zipfile.BadZipFile, OSError, NotImplementedError, ValueError, struct.error)


def members(name: str, file: IO[bytes]) -> Iterator[tuple[str, IO[bytes]]]:
    """Each file to read with its name in the archive, opened. Raises ConfigurationError for an archive without one."""
    try:
        archive = zipfile.ZipFile(file)
    except FAULTS as error:
        raise ConfigurationError(f"input {name} is no readable zip archive: {error}") from None
    with archive:
        for info in _chosen(name, archive):
            with _opened(name, archive, info) as opened:
                yield info.filename, opened


def _opened(name: str, archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> IO[bytes]:
    if info.flag_bits & ENCRYPTED:
        raise ConfigurationError(f"input {name}: {info.filename} is encrypted; unpack the archive")
    if info.compress_type not in UNPACKED:
        method = OTHERS.get(info.compress_type, f"method {info.compress_type}")
        raise ConfigurationError(f"input {name}: {info.filename} is packed with {method}; unpack the archive")
    try:
        return archive.open(info)
    except FAULTS as error:
        raise ConfigurationError(f"input {name}: {info.filename} cannot be unpacked: {error}") from None


def _chosen(name: str, archive: zipfile.ZipFile) -> list[zipfile.ZipInfo]:
    files = [info for info in archive.infolist() if not info.is_dir() and not HIDDEN.match(info.filename)]
    for wanted in (CONVERSATIONS, READ):
        if found := [info for info in files if wanted.fullmatch(info.filename)]:
            return sorted(found, key=lambda info: info.filename)
    names = ", ".join(info.filename for info in files[:5])
    raise ConfigurationError(f"input {name} holds no JSON, CSV, Parquet or Arrow file, but {names or 'nothing'}")


def blocks(file: IO[bytes]) -> Iterator[bytes]:
    """What a file of the archive holds. Raises Damaged after what could be read."""
    try:
        while block := file.read(BLOCK_BYTES):
            yield block
    except (*FAULTS, zlib.error, EOFError) as error:
        raise Damaged("damaged", f"zip: {error}") from None
