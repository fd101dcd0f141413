"""What a run trains on: the contents of its data and its base model, and the settings that decide its losses.

Each checkpoint and each manifest notes it. A start goes on from a checkpoint, or takes a finished model for its own,
only if nothing of it differs; else it names the difference.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import orjson

from services.errors import ConfigurationError
from services.jobs.training import TrainingConfig
from services.machine.files import sha256_of
from services.models.catalogue import ModelSource

# Fields that may change between two starts of a run: they decide how it computes and saves, not what it learns.
INCIDENTAL = frozenset(
    {
        "per_device_tokens", "attention", "gradient_checkpointing", "save_steps", "keep_checkpoints", "eval_steps",
        "max_unsupervised", "max_refused", "wandb", "sky", "save", "export",
    }
)  # fmt: skip
_SMALL_BYTES = 1 << 20  # a file of a model up to this size is hashed; of a larger one its size counts


@dataclass(frozen=True)
class Identity:
    """`data` has the sha256 of each file; `base` a digest of the base model's folder, empty where there is none."""

    settings: Mapping[str, Any]
    data: tuple[str, ...]
    base: str

    @classmethod
    def of(cls, config: TrainingConfig, data: Sequence[str], base: str) -> "Identity":
        names = [name for name in TrainingConfig.model_fields if name not in INCIDENTAL]
        return cls({name: _plain(name, getattr(config, name)) for name in names}, tuple(data), base)

    def packed(self, packed: bool) -> "Identity":
        """The same, once it is known whether the model can be trained on packed conversations."""
        return replace(self, settings={**self.settings, "packed": packed})

    def note(self) -> dict[str, Any]:
        return {"settings": dict(self.settings), "data": list(self.data), "base": self.base}

    def difference(self, noted: Mapping[str, Any]) -> str:
        """What differs from a note, in words; empty if nothing does. A field that a note lacks had its default."""
        found = [
            f"{name} was {before!r} and is {value!r}"
            for name, value in self.settings.items()
            if (before := _plain(name, noted.get("settings", {}).get(name, _default(name, value)))) != value
        ]
        before = noted.get("data", [])
        if before != list(self.data):
            found.append(_difference_of_data(before, self.data))
        if self.base and noted.get("base") and noted["base"] != self.base:
            found.append("the base model's files have changed")
        return "; ".join(found)


def _default(name: str, value: Any) -> Any:
    """Of a field that a note lacks: an older build knew no such field."""
    return TrainingConfig.model_fields[name].get_default() if name in TrainingConfig.model_fields else value


def _plain(name: str, value: Any) -> Any:
    """A field's value as JSON. What `auto` and no targets stand for was the default of older builds."""
    if name == "packing":
        return bool(value)
    if name == "lora_targets":
        return list(value) or ["q_proj", "v_proj"]
    return value


def _difference_of_data(before: Sequence[str], now: Sequence[str]) -> str:
    if len(before) != len(now):
        return f"it was {len(before)} data files and is {len(now)}"
    if sorted(before) == sorted(now):
        return "the data files have another order"
    changed = [number for number, (old, new) in enumerate(zip(before, now, strict=True), 1) if old != new]
    return f"the content of data file {', '.join(map(str, changed))} has changed"


def noted_by_manifest(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """The note of a finished model. Manifests of older builds have the same facts in other places."""
    if "run" in manifest:
        return dict(manifest["run"])
    return {"settings": manifest["config"], "data": [file["sha256"] for file in manifest["data"]]}


def base_digest(source: ModelSource) -> str:
    """Of a base model in a folder or a file: names, sizes, and the contents of what is small. Empty for a hub's."""
    if source.kind != "folder" or source.path is None:
        return "" if source.path is None else _file_digest(source.path)
    files = sorted(path for path in source.path.iterdir() if path.is_file())
    listed = [[path.name, _file_digest(path)] for path in files]
    return sha256(orjson.dumps(listed)).hexdigest()


def _file_digest(path: Path) -> str:
    size = path.stat().st_size
    return sha256_of(path) if size <= _SMALL_BYTES else f"{size} bytes"


def digests_of(paths: Sequence[Path]) -> dict[str, str]:
    """The sha256 of each file. Raises ConfigurationError for one that cannot be read."""
    try:
        return {str(path): sha256_of(path) for path in paths}
    except OSError as error:
        raise ConfigurationError(f"--data {error.filename}: {error.strerror}") from None
