"""Chooses and makes the engine adapter for a model. Called once at the start of a worker and by benches.

The rule: a CUDA device → transformers; else openvino if it can read the model; else transformers. Asking for an engine
by name overrides it. The choice comes with one line that says which and why; print it.
"""

import importlib.util
from pathlib import Path
from typing import Any

from services.errors import ConfigurationError
from services.models.catalogue import ModelSource
from workers.engine import Engine
from workers.openvino_engine import OpenVinoEngine, can_read
from workers.transformers_engine import TransformersEngine

_GPU_DEVICES = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")


def create_engine(
    source: ModelSource,
    *,
    engine: str = "auto",
    slots: int = 16,
    context_tokens: int = 0,
    cache_gib: float = 1.0,
    state_dir: Path | None = None,
    dtype: str = "auto",
    repeatable: bool = False,
) -> tuple[Engine, str]:
    """An adapter that is not started yet, and the line that says why it was chosen. Arguments as in Settings."""
    name, reason = choose_engine(source, engine)
    options: dict[str, Any] = {
        "slots": slots,
        "context_tokens": context_tokens,
        "cache_gib": cache_gib,
        "state_dir": state_dir,
        "repeatable": repeatable,
    }
    made: Engine = (
        OpenVinoEngine(source, **options) if name == "openvino" else TransformersEngine(source, **options, dtype=dtype)
    )
    return made, f"Engine {name}: {reason}."


def choose_engine(source: ModelSource, asked: str = "auto") -> tuple[str, str]:
    """(adapter name, reason). Raises ConfigurationError for an unknown name or an engine that cannot serve this."""
    if asked not in ("auto", "transformers", "openvino"):
        raise ConfigurationError(f"unknown engine {asked!r}; known: auto, transformers, openvino")
    if asked == "transformers":
        return asked, "it was asked for"
    readable, what = can_read(source)
    if asked == "openvino":
        if not readable:
            raise ConfigurationError(f"engine openvino cannot serve {source.name}: it is {what}; use transformers")
        return asked, "it was asked for"
    if _cuda_available():
        return "transformers", "there is a CUDA device"
    if not readable:
        return "transformers", f"no CUDA device, and {source.name} is {what}"
    if importlib.util.find_spec("openvino_genai") is None:
        return (
            "transformers",
            "no CUDA device, and openvino-genai is not installed: pip install openvino-genai for speed",
        )
    return "openvino", f"no CUDA device, and {source.name} is {what}; several times faster there than transformers"


def _cuda_available() -> bool:
    """Whether torch sees a GPU; torch is imported only where there is a device file of one."""
    if not any(Path(device).exists() for device in _GPU_DEVICES) or importlib.util.find_spec("torch") is None:
        return False
    import torch

    return torch.cuda.is_available()
