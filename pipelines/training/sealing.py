"""A folder of files that is whole or counts for nothing: a marker, written last, lists every file's size and sha256.

Used for checkpoints and for the finished model. Nothing is renamed, so that a mounted bucket will do: a folder
without its marker, or one whose files do not match it, was not finished or has been damaged since.
"""

import hashlib
import os
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import orjson

_BLOCK_BYTES = 1 << 22
_THREADS = 8  # hashing releases the interpreter's lock


def sha256_of(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def seal(folder: Path, marker: str, about: Mapping[str, Any]) -> int:
    """Make the folder count: flush every file to the disk, then write the marker. Returns the bytes of all files."""
    names = _files(folder, marker)
    for name in names:
        _flush(folder / name)
    found = _described(folder, names)
    path = folder / marker
    path.write_bytes(orjson.dumps({**about, "files": found}, option=orjson.OPT_INDENT_2))
    _flush(path)
    _flush(folder)
    return sum(int(file["bytes"]) for file in found.values())


def read_marker(folder: Path, marker: str) -> dict[str, Any] | None:
    """What the marker says; None when there is none or it is not whole."""
    try:
        found = orjson.loads((folder / marker).read_bytes())
    except (OSError, orjson.JSONDecodeError):
        return None
    return found if isinstance(found, dict) and isinstance(found.get("files"), dict) else None


def fault_of(folder: Path, marker: str, *, checksums: bool = True) -> str:
    """Why this folder cannot be used, in words; empty when it is whole."""
    found = read_marker(folder, marker)
    if found is None:
        return f"it has no {marker}: it was not finished"
    expected: dict[str, Any] = found["files"]
    for name, file in expected.items():
        path = folder / name
        if not path.is_file():
            return f"its file {name} is missing"
        if path.stat().st_size != file["bytes"]:
            return f"its file {name} has {path.stat().st_size:,} bytes instead of {file['bytes']:,}"
    if checksums:
        for name, file in _described(folder, list(expected)).items():
            if file["sha256"] != expected[name]["sha256"]:
                return f"the contents of its file {name} have changed"
    return ""


def _files(folder: Path, marker: str) -> list[str]:
    paths = (path.relative_to(folder) for path in sorted(folder.rglob("*")) if path.is_file())
    return [str(path) for path in paths if str(path) != marker]


def _described(folder: Path, names: list[str]) -> dict[str, Any]:
    with ThreadPoolExecutor(_THREADS) as pool:
        digests = pool.map(lambda name: sha256_of(folder / name), names)
        return {
            name: {"bytes": (folder / name).stat().st_size, "sha256": digest}
            for name, digest in zip(names, digests, strict=True)
        }


def _flush(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    except OSError:  # some mounted buckets have none for folders
        if path.is_file():
            raise
    finally:
        os.close(handle)
