"""Files that are whole or absent, folders that are whole or count for nothing, and locks that die with their process.

    write(path, data)                        # beside, fsync, rename
    with draft(parent, "tmp-") as folder:    # a folder that is made beside its final name
        ...
        publish(folder, parent / "name")
    seal(folder, "manifest.json", about)     # where nothing can be renamed: a marker, written last, lists every file
    with lock(path): ...                     # one process at a time

Used wherever a state has to survive a power cut or a SIGKILL. Locks are flocks: the kernel gives them back when their
process dies, on local disks and between containers of one machine, on NFS 4 between machines too; an object store that
is mounted as a disk has none.
"""

import contextlib
import fcntl
import hashlib
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any

import orjson

FIRST_DESCRIPTOR = 10  # what a child is to inherit lies above those that `processes.py`'s launching shell uses
_BLOCK_BYTES = 1 << 22
_THREADS = 8  # hashing releases the interpreter's lock


# -- whole or absent -------------------------------------------------------------------------------------------------


def write(path: Path, data: bytes, *, mode: int = 0o644, only_new: bool = False) -> None:
    """Whole or not at all: written beside, synced, renamed. With `only_new`, what is there already stays."""
    descriptor, name = tempfile.mkstemp(prefix=f"{path.name}.", dir=path.parent)
    written = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        written.chmod(mode)
        if only_new:
            with contextlib.suppress(FileExistsError):
                path.hardlink_to(written)
        else:
            written.replace(path)
    finally:
        written.unlink(missing_ok=True)


def write_json(path: Path, value: Any, *, only_new: bool = False) -> None:
    """`write`, indented for people."""
    write(path, orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE), only_new=only_new)


@contextlib.contextmanager
def draft(parent: Path, prefix: str) -> Iterator[Path]:
    """A folder to write into, gone at the end unless it was published."""
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def publish(made: Path, folder: Path) -> None:
    """Give a draft its name when all of it is on disk. Raises OSError when the name is taken."""
    sync_all(made)
    made.rename(folder)
    sync(folder.parent)


def sync_all(folder: Path) -> None:
    """`sync` a folder and all that is in it."""
    for path in folder.rglob("*"):
        sync(path)
    sync(folder)


def sync(path: Path) -> None:
    """What was written to this file or folder survives a power cut from here on."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# -- whole once its marker is there ----------------------------------------------------------------------------------


def seal(folder: Path, marker: str, about: Mapping[str, Any]) -> int:
    """Make the folder count: sync every file, then write the marker. Returns the bytes of all files.

    Nothing is renamed, so that a mounted bucket will do: a folder without its marker, or one whose files do not match
    it, was not finished or has been damaged since.
    """
    names = _files(folder, marker)
    for name in names:
        sync(folder / name)
    sizes = {name: (folder / name).stat().st_size for name in names}
    found = {name: {"bytes": sizes[name], "sha256": digest} for name, digest in _digests(folder, names).items()}
    path = folder / marker
    path.write_bytes(orjson.dumps({**about, "files": found}, option=orjson.OPT_INDENT_2))
    sync(path)
    with contextlib.suppress(OSError):  # some mounted buckets have no fsync for folders
        sync(folder)
    return sum(sizes.values())


def read_marker(path: Path) -> dict[str, Any]:
    """What a marker says. Raises FileNotFoundError, another OSError, or ValueError for what is none."""
    found = orjson.loads(path.read_bytes())
    if not isinstance(found, dict) or not isinstance(found.get("files"), dict):
        raise ValueError("it lists no files")
    for name, file in found["files"].items():
        if not isinstance(file, dict) or not isinstance(file.get("bytes"), int):
            raise ValueError(f"it does not say how many bytes {name} has")
    return found


def fault_of(folder: Path, marker: str, *, checksums: bool = True) -> str:
    """Why this folder cannot be used, in words; empty when it is whole. Without `checksums` sizes alone count."""
    try:
        files = read_marker(folder / marker)["files"]
    except FileNotFoundError:
        return f"it has no {marker}, which is written last"
    except OSError as error:
        return f"its {marker} cannot be read: {error.strerror}"
    except ValueError as error:
        return f"its {marker} is damaged: {error}"
    fault = fault_of_sizes(folder, files)
    return fault if fault or not checksums else _fault_of_contents(folder, files)


def fault_of_sizes(folder: Path, files: Mapping[str, Any]) -> str:
    """The first of the `files` of a marker that is not there, or of another length; empty when there is none."""
    for name, file in files.items():
        path = folder / name
        if not path.is_file():
            return f"{name} is not there"
        if (size := path.stat().st_size) != file["bytes"]:
            return f"{name} has {size:,} bytes instead of {file['bytes']:,}"
    return ""


def sha256_of(path: Path) -> str:
    with path.open("rb") as file:
        digest = hashlib.sha256()
        while block := file.read(_BLOCK_BYTES):
            digest.update(block)
    return digest.hexdigest()


def _files(folder: Path, marker: str) -> list[str]:
    paths = (path.relative_to(folder) for path in sorted(folder.rglob("*")) if path.is_file())
    return [str(path) for path in paths if str(path) != marker]


def _digests(folder: Path, names: Iterable[str]) -> dict[str, str]:
    listed = list(names)
    with ThreadPoolExecutor(_THREADS) as pool:
        return dict(zip(listed, pool.map(lambda name: sha256_of(folder / name), listed), strict=True))


def _fault_of_contents(folder: Path, files: Mapping[str, Any]) -> str:
    found = _digests(folder, files)
    changed = (name for name, file in files.items() if found[name] != file.get("sha256"))
    return next((f"the contents of {name} have changed" for name in changed), "")


# -- locks -----------------------------------------------------------------------------------------------------------


@contextlib.contextmanager
def lock(path: Path) -> Iterator[None]:
    """One process and thread at a time is inside; others wait."""
    with path.open("ab") as file:
        flock(file)
        yield


@contextlib.contextmanager
def try_lock(path: Path) -> Iterator[int | None]:
    """The descriptor that holds the lock, None if another process does. A child that inherits it keeps it locked."""
    with path.open("ab") as file:
        if not flock(file, wait=False):
            yield None
            return
        with inheritable(file) as descriptor:
            yield descriptor


def flock(file: IO[bytes], *, shared: bool = False, wait: bool = True) -> bool:
    """Lock an open file until its last descriptor is closed. False if another process holds it and we do not wait."""
    try:
        fcntl.flock(file, (fcntl.LOCK_SH if shared else fcntl.LOCK_EX) | (0 if wait else fcntl.LOCK_NB))
    except BlockingIOError:
        return False
    return True


@contextlib.contextmanager
def inheritable(file: IO[bytes]) -> Iterator[int]:
    """A second descriptor of the file, with a number that `processes.start_tied` can hand to a child."""
    descriptor = fcntl.fcntl(file, fcntl.F_DUPFD_CLOEXEC, FIRST_DESCRIPTOR)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
