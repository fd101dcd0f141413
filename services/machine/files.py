"""Writes files that are whole or absent, and folders that are whole or do not count; locks that end with a process.

    write(path, data)                        # beside, fsync, rename
    with draft(parent, "tmp-") as folder:    # a folder that is made beside its final name
        ...
        publish(folder, parent / "name")
    seal(folder, "manifest.json", about)     # where nothing can be renamed: a marker, written last, lists every file
    with lock(path): ...                     # one process at a time
    kept(path, b"...")                       # made once, read ever after: a key, a password
    private(folder)                          # this user's alone

Used wherever a state has to survive a power cut or a SIGKILL. Locks are flocks: the kernel gives them back when their
process dies, on local disks and between containers of one machine, on NFS 4 between machines too; an object store that
is mounted as a disk has none.
"""

import contextlib
import errno
import fcntl
import hashlib
import os
import secrets
import shutil
import stat
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
    """Write the whole file or nothing: write beside it, sync, rename. With `only_new`, an existing file stays."""
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
    with contextlib.suppress(OSError):  # some mounted buckets have no fsync for folders
        sync(path.parent)


def write_json(path: Path, value: Any, *, only_new: bool = False) -> None:
    """`write` as JSON, indented for people."""
    write(path, orjson.dumps(value, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE), only_new=only_new)


def kept(path: Path, data: bytes) -> bytes:
    """What a small file holds that only this user can read. The first caller writes `data`; all get the same."""
    if not path.exists():
        write(path, data, mode=0o600, only_new=True)  # another process may be faster: what it wrote counts
    if not path.stat().st_size:  # what a crash of an older version left
        write(path, data, mode=0o600)
    return path.read_bytes()


def close_to_others(folder: Path) -> str:
    """Close a folder that is there; if it was open, the line that says so. Older versions let everybody read it."""
    if folder.is_dir() and private(folder):
        return f"{folder} was open to other users of this machine; now it has the mode 0700"
    return ""


def kept_key(path: Path) -> str:
    """A random key that `kept` keeps, in a folder of this user alone."""
    if not path.exists():
        private(path.parent)
    return kept(path, secrets.token_hex(32).encode()).decode("ascii")


def private(folder: Path) -> bool:
    """Make a folder that only this user can enter. True if it was there and others could enter it until now.

    A folder of another user, one that is everybody's like /tmp, or one on a read-only file system stays as it is.
    """
    new = not folder.exists()
    folder.mkdir(parents=True, exist_ok=True)
    about = folder.stat()
    if about.st_uid != os.geteuid() or about.st_mode & stat.S_ISVTX or not about.st_mode & 0o077:
        return False
    try:
        folder.chmod(0o700)
    except OSError as error:
        if error.errno != errno.EROFS:
            raise
        return False  # an image's own folder: the containers that use one have a volume there
    return not new


@contextlib.contextmanager
def draft(parent: Path, prefix: str) -> Iterator[Path]:
    """A folder to write into. It is deleted at the end, unless it was published."""
    folder = Path(tempfile.mkdtemp(prefix=prefix, dir=parent))
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def publish(made: Path, folder: Path) -> None:
    """Sync a draft to the disk, then give it its name. Raises OSError when the name is taken."""
    sync_all(made)
    made.rename(folder)
    sync(folder.parent)


def sync_all(folder: Path) -> None:
    """`sync` a folder and all that is in it."""
    for path in folder.rglob("*"):
        sync(path)
    sync(folder)


def sync(path: Path) -> None:
    """Force a file or folder to the disk: after this it survives a power cut."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


# -- whole once its marker is there ----------------------------------------------------------------------------------


def seal(folder: Path, marker: str, about: Mapping[str, Any]) -> int:
    """Sync every file of a folder, then write the marker that makes the folder count. Returns the bytes of all files.

    It renames nothing, so a mounted bucket will do. A folder without its marker was not finished; a folder whose files
    do not match the marker was damaged.
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
    """The content of a marker. Raises FileNotFoundError, another OSError, or ValueError when it is not a marker."""
    found = orjson.loads(path.read_bytes())
    if not isinstance(found, dict) or not isinstance(found.get("files"), dict):
        raise ValueError("it lists no files")
    for name, file in found["files"].items():
        if not isinstance(file, dict) or not isinstance(file.get("bytes"), int):
            raise ValueError(f"it does not say how many bytes {name} has")
    return found


def fault_of(folder: Path, marker: str, *, checksums: bool = True) -> str:
    """Why this folder cannot be used, in words; empty when it is whole. Without `checksums` it compares sizes only."""
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
    """What is wrong with the first file of a marker that is missing or has another length; empty when none is."""
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
    """The descriptor that holds the lock; None if another process holds it. A child that inherits it keeps the lock."""
    with path.open("ab") as file:
        if not flock(file, wait=False):
            yield None
            return
        with inheritable(file) as descriptor:
            yield descriptor


def flock(file: IO[bytes], *, shared: bool = False, wait: bool = True) -> bool:
    """Lock an open file until its last descriptor is closed. False if another process holds it and `wait` is unset."""
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
