"""The files that programs give to jobs through `/v1/files`, and those that jobs write for them.

    state_dir/files/<user>/<id>/about.json   whose file it is, its name, purpose, size and digest
    state_dir/files/<user>/<id>/content      its bytes

A file is whole or absent, and belongs to one user: for all others it does not exist. An id begins with the time at
which the file was made, so the order of the names is the order of the files. `webapp/api/files.py`, `batches.py`,
`fine_tunings.py` and the pipelines call it. Functions here block.
"""

import contextlib
import errno
import hashlib
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import orjson

from services.errors import InvalidRequest, NotFound, StorageFull, TooLarge, shown
from services.machine.files import draft, lock, private, publish, sync_all, write_json
from services.settings import variable_of

RESERVE_BYTES = 1 << 30  # of the disk, left for jobs and for Redis
STALE_S = 86_400  # a draft of a process that died
MAX_NAME_CHARS = 255
MADE_HERE = ("batch_output", "fine-tune-results")  # purposes of what jobs write

_ID = re.compile("file-[A-Za-z0-9_-]{1,64}")
_DRAFT = "draft-"
_LOCK = ".lock"  # so that two uploads that end together do not share the last room


@dataclass(frozen=True)
class UserRoom:
    """What the files of one user may take together."""

    num_files: int
    num_bytes: int


@dataclass(frozen=True)
class StoredFile:
    """One file. `filename` is its user's name for it, only a label."""

    id: str
    user: str
    purpose: str
    filename: str
    num_bytes: int
    created_s: int
    sha256: str


class FileDraft:
    """A file that is being written; it exists for nobody before `StoredFiles.publish`."""

    def __init__(self, folder: Path, max_bytes: int, reserve_bytes: int, room_bytes: int | None) -> None:
        self.folder = folder
        self.num_bytes = 0
        self._max_bytes = max_bytes
        self._room_bytes = room_bytes
        self._reserve_bytes = reserve_bytes
        self._digest = hashlib.sha256()
        self._file = (folder / "content").open("wb")

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()

    def write(self, data: bytes) -> int:
        """Append. Raises TooLarge or StorageFull."""
        self.num_bytes += len(data)
        if self.num_bytes > self._max_bytes:
            limit = f"{self._max_bytes:,} bytes ({variable_of('max_upload_mib')})"
            raise TooLarge(f"the file has more than {limit}; send it in several files", field="file")
        if self._room_bytes is not None and self.num_bytes > self._room_bytes:
            raise _no_room()
        if shutil.disk_usage(self.folder).free - len(data) < self._reserve_bytes:
            raise _full(f"{self._reserve_bytes:,} bytes are kept free")
        self._digest.update(data)
        try:
            return self._file.write(data)
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise _full(str(error)) from None
            raise

    def seek(self, offset: int) -> int:
        """Whoever parses a form rewinds what it has written; nobody reads it here."""
        return offset

    def close(self) -> None:
        self._file.close()


class StoredFiles:
    """The files of one state folder; one has at most `max_bytes`, those of a user at most `room` if there is one."""

    def __init__(
        self, folder: Path, *, max_bytes: int, room: UserRoom | None = None, reserve_bytes: int = RESERVE_BYTES
    ) -> None:
        self.max_bytes = max_bytes
        self._room = room
        self._folder = folder
        self._reserve_bytes = reserve_bytes

    @contextlib.contextmanager
    def draft(self, user: str) -> Iterator[FileDraft]:
        """A new file to write into. It is deleted at the end, unless it was published. Raises InvalidRequest."""
        private(self._folder)
        owned = self._folder_of(user)
        owned.mkdir(mode=0o700, exist_ok=True)
        self._sweep(owned)
        room_bytes = self._room_bytes(owned, "*") if self._room else None
        with draft(owned, _DRAFT) as folder:
            made = FileDraft(folder, self.max_bytes, self._reserve_bytes, room_bytes)
            try:
                yield made
            finally:
                made.close()

    def publish(self, made: FileDraft, user: str, purpose: str, filename: str, file_id: str = "") -> StoredFile:
        """Give a draft its name. With an id that is there already, the older file stays. Raises InvalidRequest."""
        if not made.num_bytes and purpose not in MADE_HERE:
            raise InvalidRequest("the file is empty", field="file")
        made.close()
        now_s = time.time()
        file_id = file_id or _id_of(now_s, secrets.token_hex(8))
        label = "".join(filter(str.isprintable, filename))[-MAX_NAME_CHARS:].encode("utf-8", "replace").decode()
        stored = StoredFile(file_id, user, purpose, label or "file", made.num_bytes, int(now_s), made.sha256)
        write_json(made.folder / "about.json", asdict(stored))
        sync_all(made.folder)  # it may take long; then the lock is short
        owned = self._folder_of(user)
        with lock(owned / _LOCK):
            if self._room and made.num_bytes > self._room_bytes(owned, "file-*"):
                raise _no_room()  # another upload was faster
            try:
                publish(made.folder, owned / file_id)
            except OSError as error:
                if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                    raise
                return self.get(file_id, user)
        return stored

    def get(self, file_id: str, user: str) -> StoredFile:
        """Raises NotFound."""
        found = self._read(self._folder_of(user) / _checked(file_id))
        if found is None:
            raise _unknown(file_id)
        return found

    def get_for(self, purpose: str, file_id: str, user: str, *, field: str) -> StoredFile:
        """A file that was sent for this purpose; `field` names it. Raises NotFound or InvalidRequest."""
        stored = self.get(file_id, user)
        if stored.purpose != purpose:
            raise InvalidRequest(
                f"the file {file_id} has the purpose {stored.purpose}; send it again with the purpose {purpose}",
                field=field,
            )
        return stored

    def content(self, stored: StoredFile) -> Path:
        return self._folder_of(stored.user) / stored.id / "content"

    def link(self, stored: StoredFile, path: Path) -> None:
        """The job's own link to a file, in a private folder below another: the user may delete the file meanwhile.

        Raises NotFound.
        """
        private(path.parent.parent)
        private(path.parent)
        with contextlib.suppress(FileExistsError):
            try:
                path.hardlink_to(self.content(stored))
            except FileNotFoundError:
                raise _unknown(stored.id) from None

    def list(self, user: str, *, newest_first: bool = True, after: str = "") -> Iterator[StoredFile]:
        """The user's files, beginning behind the id `after`."""
        owned = self._folder_of(user)
        names = sorted(path.name for path in owned.iterdir()) if owned.is_dir() else []
        for name in reversed(names) if newest_first else names:
            is_before = name >= after if newest_first else name <= after
            if _ID.fullmatch(name) and not (after and is_before):
                found = self._read(owned / name)
                if found is not None:
                    yield found

    def delete(self, file_id: str, user: str) -> None:
        """Forget a file. A job that was given it has its own link to it. Raises NotFound."""
        stored = self.get(file_id, user)
        owned = self._folder_of(user)
        doomed = owned / f"{_DRAFT}{secrets.token_hex(8)}"
        with contextlib.suppress(FileNotFoundError):  # another process was faster
            (owned / stored.id).rename(doomed)
        shutil.rmtree(doomed, ignore_errors=True)

    @property
    def most_bytes(self) -> int | None:
        """What the files of one user may take together."""
        return self._room.num_bytes if self._room else None

    def num_bytes(self, user: str) -> int:
        """What the user's files take, also what batches wrote for the user."""
        return sum(_size(path) or 0 for path in self._folder_of(user).glob("file-*/content"))

    def _room_bytes(self, owned: Path, names: str) -> int:
        """How many bytes another file may have beside those of these names. Raises InvalidRequest."""
        assert self._room
        sizes = [size for path in owned.glob(f"{names}/content") if (size := _size(path)) is not None]
        if len(sizes) >= self._room.num_files:
            raise InvalidRequest(
                f"you have {len(sizes):,} files, of {self._room.num_files:,} that a user may have "
                f"({variable_of('max_user_files')}); delete some with `DELETE /v1/files/{{id}}`",
                field="file",
            )
        return self._room.num_bytes - sum(sizes)

    def _folder_of(self, user: str) -> Path:
        return self._folder / hashlib.sha256(user.encode()).hexdigest()[:32]

    @staticmethod
    def _read(folder: Path) -> StoredFile | None:
        try:
            about: dict[str, Any] = orjson.loads((folder / "about.json").read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            return None
        return StoredFile(**about)

    @staticmethod
    def _sweep(owned: Path) -> None:
        """Remove what processes that died have left half written."""
        for folder in owned.glob(f"{_DRAFT}*"):
            with contextlib.suppress(OSError):
                if time.time() - (folder / "content").stat().st_mtime > STALE_S:
                    shutil.rmtree(folder, ignore_errors=True)


def made_id(created_s: float, job: str, what: str) -> str:
    """The id of a file that a job writes: the same whenever the job writes the file. `created_s` is the job's."""
    return _id_of(created_s, hashlib.sha256(f"{job} {what}".encode()).hexdigest()[:16])


def _id_of(created_s: float, rest: str) -> str:
    return f"file-{int(created_s * 1000):011x}{rest}"


def _checked(file_id: str) -> str:
    if not _ID.fullmatch(file_id):
        raise _unknown(file_id)
    return file_id


def _size(path: Path) -> int | None:
    """None for a file that was deleted just now."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return None


def _no_room() -> TooLarge:
    return TooLarge(
        f"with this file yours have more bytes than those of a user may have ({variable_of('max_user_files_mib')}); "
        "delete some with `DELETE /v1/files/{id}`",
        field="file",
    )


def _unknown(file_id: str) -> NotFound:
    return NotFound(f"no file has the id {shown(file_id)}; `GET /v1/files` lists yours")


def _full(why: str) -> StorageFull:
    return StorageFull(f"the disk of the state folder has no room for this file: {why}; delete old files or jobs")
