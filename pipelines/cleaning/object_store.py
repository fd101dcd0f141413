"""A prefix of an S3 bucket: whole objects, conditional writes and the store's own clock. `store_folder.py` uses it.

s3fs carries it, with four of its habits avoided:

    it caches listings              no cache here: other machines write under the same prefix
    a `with` block that fails       leaves an object as if it were whole, so files are made on the disk and uploaded
    leaves what it wrote            by one call, which a failure ends without an object
    a large upload that ends by     stays open and is paid for, so `abort_uploads` ends those of a prefix; what is
    a kill, or is refused           written conditionally is small and goes in one request
    it removes what a name matches  `run*` would take run1 along, so S3 is told the keys
    as a pattern
"""

from collections.abc import Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from io import BufferedReader
from pathlib import Path
from typing import IO, Any

from services.errors import ConfigurationError

BLOCK_BYTES = 1 << 23  # read at a time; about a shard
MAX_CONDITIONAL_BYTES = 1 << 20
REMOVED_AT_ONCE = 1000  # S3 takes no more keys in a request

_MISSING = 404
_REFUSED = (_MISSING, 409, 412)  # to a conditional write: not there, another one at the same moment, changed


@dataclass(frozen=True, slots=True)
class Written:
    """An object as the store tells of it. `age_s` is by the store's clock alone."""

    etag: str
    age_s: float
    notes: Mapping[str, str]


class ObjectStore:
    """Names are relative to the prefix. All methods raise OSError when the store does not answer."""

    def __init__(self, url: str) -> None:
        """Raises ConfigurationError when the URL is not of S3, or s3fs is not installed."""
        scheme, _, path = url.partition("://")
        if scheme not in ("s3", "s3a"):
            raise ConfigurationError(f"the folder {url}: jobs write to s3:// and to disks; give one of these")
        self.url = url.rstrip("/")
        self._root = path.rstrip("/")
        try:
            import s3fs
        except ImportError:
            raise ConfigurationError(f"the folder {url} needs a package: pip install -e '.[s3]'") from None
        self._fs: Any = s3fs.S3FileSystem(use_listings_cache=False)  # one client a process: a new one takes a second

    # -- whole objects -------------------------------------------------------------------------------------------

    def open(self, name: str) -> IO[bytes]:
        return BufferedReader(self._fs.open(self._path(name), "rb", block_size=BLOCK_BYTES), 1 << 20)

    def read(self, name: str) -> bytes | None:
        try:
            return bytes(self._fs.cat_file(self._path(name)))
        except FileNotFoundError:
            return None

    def write(self, name: str, data: bytes) -> None:
        self._fs.pipe_file(self._path(name), data)

    def upload(self, path: Path, name: str) -> None:
        self._fs.put_file(str(path), self._path(name))

    def download(self, name: str, path: Path) -> None:
        self._fs.get_file(self._path(name), str(path))

    def names(self, prefix: str) -> list[str]:
        """All below `prefix`, relative to it."""
        start = self._path(prefix) + "/"
        return [path.removeprefix(start) for path in self._fs.find(start, refresh=True)]

    def remove(self, prefix: str, but: tuple[str, ...] = ()) -> None:
        bucket, _, key = self._path(prefix).partition("/")
        keys = [f"{key}/{name}" for name in self.names(prefix) if name not in but]
        for start in range(0, len(keys), REMOVED_AT_ONCE):
            objects = [{"Key": each} for each in keys[start : start + REMOVED_AT_ONCE]]
            answer = self._call("delete_objects", Bucket=bucket, Delete={"Objects": objects, "Quiet": True})
            if refused := answer.get("Errors"):
                raise OSError(f"{self.url}: {len(refused)} objects were not removed, such as {refused[0]}")

    def abort_uploads(self, prefix: str) -> None:
        """End what dead processes began to upload. An upload of a process that lives then fails, and is tried again."""
        bucket, _, key = self._path(prefix).partition("/")
        answer = self._call("list_multipart_uploads", Bucket=bucket, Prefix=f"{key}/")
        for upload in answer.get("Uploads", ()):
            self._call("abort_multipart_upload", Bucket=bucket, Key=upload["Key"], UploadId=upload["UploadId"])

    # -- conditional writes --------------------------------------------------------------------------------------

    def look(self, name: str) -> Written | None:
        bucket, _, key = self._path(name).partition("/")
        try:
            answer = self._call("head_object", Bucket=bucket, Key=key)
        except FileNotFoundError:
            return None
        now = parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"])
        return Written(answer["ETag"], (now - answer["LastModified"]).total_seconds(), answer["Metadata"])

    def create(self, name: str, data: bytes, notes: Mapping[str, str] | None = None) -> str | None:
        """Write an object that is not there: its ETag, or None if it is."""
        return self._put(name, data, notes or {}, IfNoneMatch="*")

    def replace(self, name: str, data: bytes, notes: Mapping[str, str], etag: str) -> str | None:
        """Write an object that is still as it was: its new ETag, or None if it changed."""
        return self._put(name, data, notes, IfMatch=etag)

    def _put(self, name: str, data: bytes, notes: Mapping[str, str], **condition: str) -> str | None:
        assert len(data) <= MAX_CONDITIONAL_BYTES, f"{name} has {len(data)} bytes"
        bucket, _, key = self._path(name).partition("/")
        try:
            answer = self._call("put_object", Bucket=bucket, Key=key, Body=data, Metadata=dict(notes), **condition)
        except OSError as error:
            if _status(error) in _REFUSED:
                return None
            raise
        return str(answer["ETag"])

    def _call(self, method: str, **arguments: Any) -> dict[str, Any]:
        answer: dict[str, Any] = self._fs.call_s3(method, **arguments)
        return answer

    def _path(self, name: str) -> str:
        return f"{self._root}/{name}" if name else self._root


def _status(error: OSError) -> int:
    """The status of the HTTP answer that s3fs made this error of; 0 if there was none."""
    answer = getattr(error.__cause__, "response", None) or {}
    return int(answer.get("ResponseMetadata", {}).get("HTTPStatusCode", 0))
