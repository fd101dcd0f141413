"""The manifest of a trained model: `manifest.json`, written last, so that a model with a manifest is whole.

The training program reads it (a finished run is not run again), and so do the processes that serve the model.
"""

import importlib.metadata
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from pipelines.training.identity import Identity, noted_by_manifest
from services.errors import ConfigurationError
from services.jobs.training import TrainingConfig
from services.machine.files import fault_of, read_marker, seal
from services.models.model_folder import MANIFEST
from services.places import ROOT

_LIBRARIES = ("torch", "transformers", "trl", "peft", "accelerate", "datasets", "tokenizers", "safetensors")


def write_manifest(
    folder: Path,
    config: TrainingConfig,
    data: Mapping[str, str],
    metrics: Mapping[str, Any],
    stop_token_ids: list[int],
    facts: Mapping[str, Any],
) -> None:
    """`facts`: what the run found out and decided, beside its configuration."""
    about = {
        **facts,
        "name": config.name,
        "base": config.model,
        "created_s": int(time.time()),
        "code": code_version(),
        "libraries": {name: library_version(name) for name in _LIBRARIES},
        "data": [{"path": path, "sha256": digest} for path, digest in data.items()],
        "config": config.model_dump(mode="json"),
        "metrics": dict(metrics),
        "stop_token_ids": stop_token_ids,
    }
    seal(folder, MANIFEST, about)


def finished_manifest(folder: Path) -> dict[str, Any] | None:
    """The manifest of a whole model; None when there is none yet, or files are missing or of another size."""
    return None if fault_of(folder, MANIFEST, checksums=False) else read_marker(folder / MANIFEST)


def check_same_run(manifest: Mapping[str, Any], identity: Identity, folder: Path) -> None:
    """Raises ConfigurationError when a finished model is of other data or settings than this run."""
    if difference := identity.difference(noted_by_manifest(manifest)):
        raise ConfigurationError(
            f"{folder} is the model of another training: {difference}. Give another --out, or remove the folder "
            "to train anew"
        )


def code_version() -> str:
    """Of the checkout that runs, else of the installed package."""
    command = ["git", "-C", str(ROOT), "describe", "--always", "--dirty", "--tags"]
    try:
        answer = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError:  # no git on this machine
        return library_version("chatserver")
    return answer.stdout.strip() if answer.returncode == 0 else library_version("chatserver")


def library_version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"
