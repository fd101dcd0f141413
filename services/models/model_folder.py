"""Whether the folder of a trained model is whole: its manifest is written last, and says how long each file is.

    manifest = read_manifest(Path("runs/july/model"))     # ConfigurationError for a folder that is half-written

`pipelines/training` writes `manifest.json`; `services/models/catalogue.py` looks at it before a worker loads the
folder, and `services/serving/trained_models.py` before a model is registered. Checksums are for whoever copies a folder
(`verify_checksums`): a worker that starts compares sizes, since reading 14 GB twice would double the time of its start.
"""

import hashlib
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from services.errors import ConfigurationError

MANIFEST = "manifest.json"
CHECKPOINT_MARKER = "COMPLETE.json"
_CHECKPOINT = re.compile(r"checkpoint-\d+")
_READ_BYTES = 2**22


@dataclass(frozen=True)
class Manifest:
    """What a trained model's folder says of itself. `digest`: SHA-256 of the manifest, so of all that it lists."""

    folder: Path
    fields: dict[str, Any]
    digest: str

    @property
    def files(self) -> dict[str, dict[str, Any]]:
        """Name → `{bytes, sha256}`."""
        return dict(self.fields.get("files") or {})


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a complete folder. Raises ConfigurationError that says what lacks."""
    path = folder / MANIFEST
    try:
        raw = path.read_bytes()
        fields = orjson.loads(raw)
        sizes = {str(name): int(entry["bytes"]) for name, entry in (fields.get("files") or {}).items()}
    except FileNotFoundError:
        raise ConfigurationError(_unfinished(folder, f"it has no {MANIFEST}, which is written last")) from None
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from None
    except (orjson.JSONDecodeError, AttributeError, KeyError, TypeError, ValueError) as error:
        raise ConfigurationError(f"{path} is no manifest of a trained model: {error}") from None
    for name, size in sizes.items():
        _check_size(folder, name, size)
    return Manifest(folder, fields, hashlib.sha256(raw).hexdigest())


def verify_checksums(manifest: Manifest) -> None:
    """Read every file that the manifest lists. Raises ConfigurationError for the first that is another."""
    for name, entry in manifest.files.items():
        digest = hashlib.sha256()
        with (manifest.folder / name).open("rb") as file:
            while block := file.read(_READ_BYTES):
                digest.update(block)
        if entry.get("sha256") not in (None, digest.hexdigest()):
            raise ConfigurationError(f"{manifest.folder / name} has another checksum than its manifest; copy it again")


def check_complete(folder: Path) -> None:
    """Refuse a folder that a training has not finished writing; say nothing of a folder from elsewhere."""
    is_result = folder.name == "model" and (folder.parent / "checkpoints").is_dir()
    is_checkpoint = _CHECKPOINT.fullmatch(folder.name) and folder.parent.name == "checkpoints"
    if is_result or (folder / MANIFEST).exists():
        read_manifest(folder)
    elif is_checkpoint and not (folder / CHECKPOINT_MARKER).exists():
        raise ConfigurationError(_unfinished(folder, f"it has no {CHECKPOINT_MARKER}, which is written last"))


def _check_size(folder: Path, name: str, size: int) -> None:
    try:
        found = (folder / name).stat().st_size
    except OSError:
        raise ConfigurationError(_unfinished(folder, f"{name} is not there")) from None
    if found != size:
        raise ConfigurationError(_unfinished(folder, f"{name} has {found:,} bytes instead of {size:,}"))


def _unfinished(folder: Path, what: str) -> str:
    return f"model folder {str(folder)!r} is not complete: {what}; let its training finish, or copy it again"
