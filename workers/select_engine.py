"""Chooses and makes the engine adapter for a model. A worker calls it once at its start; benches call it, too.

It takes the first row of `services/engines.py` that suits the machine and can read the model: with a CUDA device that
is transformers, with several vllm where it is installed. A setting may name an engine instead. The choice comes with a
line that says which engine and why; the caller prints it.
"""

import importlib
import importlib.util
from pathlib import Path

from services.engines import AUTO, ENGINES, NAMES, EngineRow
from services.errors import ConfigurationError
from services.models.catalogue import ModelSource
from workers.engine import Adapter, Engine, EngineOptions

_GPU_DEVICES = ("/dev/nvidiactl", "/dev/kfd", "/dev/dxg")
_DEVICES = (("cpu", "no CUDA device"), ("cuda", "there is a CUDA device"), ("gpus", "there are {} CUDA devices"))


def create_engine(source: ModelSource, options: EngineOptions, *, engine: str = AUTO) -> tuple[Engine, str]:
    """An adapter that is not started yet, and the line that says why it is chosen."""
    name, reason = choose_engine(source, engine)
    return adapter_of(name)(source, options), f"Engine {name}: {reason}."


def choose_engine(source: ModelSource, asked: str = AUTO) -> tuple[str, str]:
    """(name, reason). Raises ConfigurationError for an unknown name or an engine that cannot serve this."""
    if asked not in NAMES:
        raise ConfigurationError(f"unknown engine {asked!r}; known: {', '.join(NAMES)}")
    if asked == AUTO:
        return _choose(source)
    readable, what = adapter_of(asked).can_read(source)
    if not readable:
        other = ", or serve the merged model" if source.base else ""
        raise ConfigurationError(f"engine {asked} cannot serve {source.name}: it is {what}; use transformers{other}")
    return asked, "it was asked for"


def adapter_of(name: str) -> Adapter:
    """The class of an engine. Its libraries are loaded when an engine starts."""
    module, _, attribute = ENGINES[name].adapter.partition(":")
    found: Adapter = getattr(importlib.import_module(module), attribute)
    return found


def _choose(source: ModelSource) -> tuple[str, str]:
    num_gpus = _num_gpus()
    device, reason = _DEVICES[min(num_gpus, 2)]
    reasons = [reason.format(num_gpus)]
    *preferred, last = ENGINES
    for name in preferred:
        row = ENGINES[name]
        if row.device not in ("any", device):
            continue
        readable, what = adapter_of(name).can_read(source)
        if readable and not _installed(row):
            reasons.append(f"{row.pip} is not installed: {row.install} for speed")
            continue
        reasons.append(f"{source.name} is {what}")
        if readable:
            return name, f"{', and '.join(reasons)}; {row.advantage}"
    return last, ", and ".join(reasons)


def _installed(row: EngineRow) -> bool:
    return all(importlib.util.find_spec(package) is not None for package in row.packages)


def _num_gpus() -> int:
    """CUDA devices that torch sees; torch is imported only where there is a device file of one."""
    if not any(Path(device).exists() for device in _GPU_DEVICES) or importlib.util.find_spec("torch") is None:
        return 0
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0
