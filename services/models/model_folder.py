"""Checks that the folder of a trained model is whole. A training writes the manifest last, with the size of each file.

    manifest = read_manifest(Path("runs/july/model"))     # ConfigurationError for a folder that is half-written

`pipelines/training` writes `manifest.json`. `services/models/catalogue.py` reads it before a worker loads the folder,
`services/serving/trained_models.py` before it registers a model. Both compare sizes only: to read 14 GB twice would
double the time of a worker's start. `services/machine/files.py` compares checksums, too.
"""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from services.errors import ConfigurationError
from services.machine.files import fault_of_sizes, read_marker, sha256_of

MANIFEST = "manifest.json"
MODEL, ADAPTER = RESULTS = ("model", "adapter")  # the folders in which a training leaves what it made
CHECKPOINT_MARKER = "COMPLETE.json"
_CHECKPOINT = re.compile(r"checkpoint-\d+")


@dataclass(frozen=True)
class Manifest:
    """The manifest of a trained model's folder. `digest` is its SHA-256, so it covers every file in the list."""

    folder: Path
    fields: dict[str, Any]
    digest: str


def read_manifest(folder: Path) -> Manifest:
    """The manifest of a complete folder. Raises ConfigurationError that says what is missing."""
    path = folder / MANIFEST
    try:
        fields, digest = read_marker(path), sha256_of(path)
    except FileNotFoundError:
        raise ConfigurationError(_unfinished(folder, f"it has no {MANIFEST}, which is written last")) from None
    except OSError as error:
        raise ConfigurationError(f"{path} cannot be read: {error.strerror}") from None
    except ValueError as error:
        raise ConfigurationError(f"{path} is not the manifest of a trained model: {error}") from None
    if fault := fault_of_sizes(folder, fields["files"]):
        raise ConfigurationError(_unfinished(folder, fault))
    return Manifest(folder, fields, digest)


def check_complete(folder: Path) -> None:
    """Refuse a folder that a training has not finished. Accept any folder from elsewhere."""
    is_result = folder.name in RESULTS and (folder.parent / "checkpoints").is_dir()
    is_checkpoint = _CHECKPOINT.fullmatch(folder.name) and folder.parent.name == "checkpoints"
    if is_result or (folder / MANIFEST).exists():
        read_manifest(folder)
    elif is_checkpoint and not (folder / CHECKPOINT_MARKER).exists():
        raise ConfigurationError(_unfinished(folder, f"it has no {CHECKPOINT_MARKER}, which is written last"))


def _unfinished(folder: Path, what: str) -> str:
    return f"model folder {str(folder)!r} is not complete: {what}; let its training finish, or copy it again"
