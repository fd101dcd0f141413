"""The folder of a low-rank adapter in PEFT's format, and the name of the model that it changes. `catalogue.py` asks."""

from pathlib import Path
from typing import Any

import orjson

from services.errors import ConfigurationError

ADAPTER_CONFIG = "adapter_config.json"
_WHOLE_MODELS = ("model*.safetensors", "pytorch_model*.bin", "openvino_model.xml")


def is_adapter(folder: Path) -> bool:
    """Whether a folder holds an adapter and no model. Some programs keep the base's config.json beside an adapter."""
    models = (path for pattern in _WHOLE_MODELS for path in folder.glob(pattern))
    return (folder / ADAPTER_CONFIG).is_file() and next(models, None) is None


def base_name(folder: Path) -> str:
    """The name, folder, file or hub id of the model that the adapter was trained on. Raises ConfigurationError."""
    path = folder / ADAPTER_CONFIG
    try:
        config: Any = orjson.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ConfigurationError(f"{path} cannot be read ({error}); copy the adapter again") from None
    name = config.get("base_model_name_or_path") if isinstance(config, dict) else None
    if not isinstance(name, str) or not name:
        raise ConfigurationError(
            f"{path}: base_model_name_or_path={name!r} is no model; write its folder or hub id there"
        )
    return name
