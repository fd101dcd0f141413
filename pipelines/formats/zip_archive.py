"""The files of a ZIP archive that hold conversations. Only `read.py` calls it.

An export of ChatGPT or Claude as it comes: of its many files only `conversations.json`, or the numbered ones. Any other
archive: all its JSON, CSV, Parquet and Arrow files, by name.
"""

import re
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


def members(name: str, file: IO[bytes]) -> Iterator[tuple[str, IO[bytes]]]:
    """Each file to read with its name in the archive, opened. Raises ConfigurationError for an archive without one."""
    try:
        archive = zipfile.ZipFile(file)
    except (zipfile.BadZipFile, OSError) as error:
        raise ConfigurationError(f"input {name} is no readable zip archive: {error}") from None
    with archive:
        for info in _chosen(name, archive):
            if info.flag_bits & ENCRYPTED:
                raise ConfigurationError(f"input {name}: {info.filename} is encrypted; unpack the archive")
            try:
                opened = archive.open(info)
            except (NotImplementedError, zipfile.BadZipFile) as error:
                raise ConfigurationError(f"input {name}: {info.filename} cannot be unpacked: {error}") from None
            with opened:
                yield info.filename, opened


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
    except (zipfile.BadZipFile, zlib.error, EOFError) as error:
        raise Damaged("damaged", f"zip: {error}") from None
