"""Checks the model that a worker here would load: does it exist, is it whole, has it an engine, does it fit the memory.

It downloads nothing and reads no weights. On a machine without an engine, which can run no worker, its findings are
notes.
"""

import importlib.util
import re
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import orjson

from services.doctor.findings import Finding, note, ok, warning, wrong
from services.engines import ENGINES
from services.errors import ConfigurationError
from services.models.catalogue import ModelSource, packaged_models
from services.models.gguf_metadata import read_gguf_metadata, tensor_starts
from services.serving.trained_models import TrainedModel, find_model
from services.settings import Settings

INDEX = "model.safetensors.index.json"
WEIGHTS = ("*.safetensors", "*.bin", "*.pt", "openvino_model.xml", "*.gguf")
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "spiece.model", "openvino_tokenizer.xml")
MEMINFO = Path("/proc/meminfo")
CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")
PROCESS_BYTES = 600 * 2**20  # of a worker and its engine beside weights and cache; measured with openvino 2026.4

Registered = Callable[[str], TrainedModel | None]
Has = Callable[[str], bool]  # whether a package is installed


def has_package(name: str) -> bool:
    return importlib.util.find_spec(name) is not None


def engines(has: Has = has_package) -> list[str]:
    """Names of the engines whose packages are installed."""
    return [name for name, row in ENGINES.items() if all(has(package) for package in row.packages)]


def check_engine(settings: Settings, has: Has = has_package) -> Iterator[Finding]:
    found = engines(has)
    if settings.engine != "auto" and settings.engine not in found:
        missing = next(name for name in ENGINES[settings.engine].packages if not has(name))
        yield wrong(
            f"CHATSERVER_ENGINE is {settings.engine}, and {missing} is not installed",
            f"{ENGINES[settings.engine].install}, or unset it",
        )
    elif found:
        yield ok(f"installed: {', '.join(found)}")
    else:
        yield note("no engine is installed here: this machine can run no worker", "pip install -r requirements.txt")


def check_model(settings: Settings, registered: Registered, has: Has = has_package) -> Iterator[Finding]:
    """Where the weights of `CHATSERVER_MODEL` are, and whether they are whole."""
    found = list(_judged(settings, registered))
    yield from found if engines(has) else (_only_noted(finding) for finding in found)


def _judged(settings: Settings, registered: Registered) -> Iterator[Finding]:
    try:
        source = find_model(settings.model, registered)
        if source.kind == "hub":
            yield from _of_hub(source)
        else:
            yield ok(f"{source.name}: {_whole(source)}")
    except ConfigurationError as error:
        yield wrong(error.message, "or set CHATSERVER_MODEL to another: `chatserver models` lists what is served")


def _only_noted(finding: Finding) -> Finding:
    return replace(finding, level="note") if finding.level in ("warning", "wrong") else finding


def _whole(source: ModelSource) -> str:
    """The weights in a few words. Raises ConfigurationError for weights that no engine could load."""
    if source.gguf:
        return _whole_gguf(source.gguf)
    assert source.path is not None
    return _whole_adapter(source) if source.base else _whole_folder(source.path)


def _whole_adapter(source: ModelSource) -> str:
    assert source.base is not None and source.path is not None
    base = source.base.hub_id or _whole(source.base)
    for file in source.path.glob("*.safetensors"):
        _check_safetensors(file)
    return f"{source.path}, an adapter on {base}"


def _whole_gguf(path: Path) -> str:
    architecture = read_gguf_metadata(path).get("general.architecture", "unknown")
    size, least = path.stat().st_size, max(tensor_starts(path), default=0)
    if size <= least:
        raise ConfigurationError(
            f"{path} is cut off: it has {size:,} bytes, and its last tensor begins at {least:,}; download it again"
        )
    return f"{path}, {architecture}, {size / 2**20:,.0f} MiB"


def _whole_folder(folder: Path) -> str:
    _json(folder / "config.json")
    files = sorted({file for pattern in WEIGHTS for file in folder.glob(pattern)})
    if not files:
        raise ConfigurationError(f"{folder} holds no weights ({', '.join(WEIGHTS)}); copy or download it again")
    if (folder / INDEX).exists():
        named = sorted(set(_json(folder / INDEX).get("weight_map", {}).values()))
        if missing := [name for name in named if not (folder / name).exists()]:
            raise ConfigurationError(f"{folder} lacks {missing[0]} ({len(missing)} of {len(named)}); copy it again")
    for file in files:
        if file.suffix == ".safetensors":
            _check_safetensors(file)
    if not any((folder / name).exists() for name in TOKENIZERS):
        raise ConfigurationError(f"{folder} has no tokenizer ({', '.join(TOKENIZERS)}); copy that of its base model")
    return f"{folder}, {sum(file.stat().st_size for file in files) / 2**20:,.0f} MiB of weights"


def _json(path: Path) -> dict[str, Any]:
    try:
        return dict(orjson.loads(path.read_bytes()))
    except (OSError, ValueError, TypeError) as error:
        raise ConfigurationError(f"{path} cannot be read ({error}); copy or download it again") from None


def _check_safetensors(path: Path) -> None:
    """Compare the size of a safetensors file with its header, which says where the last tensor ends."""
    size = path.stat().st_size
    try:
        with path.open("rb") as file:
            length = struct.unpack("<Q", file.read(8))[0]
            header = orjson.loads(file.read(min(length, size)))
        ends = [entry["data_offsets"][1] for name, entry in header.items() if name != "__metadata__"]
        whole = 8 + length + max(ends, default=0)
    except (OSError, struct.error, ValueError, KeyError, TypeError, AttributeError):
        raise ConfigurationError(f"{path} is not a whole safetensors file; copy or download it again") from None
    if size != whole:
        raise ConfigurationError(f"{path} has {size:,} bytes instead of {whole:,}; copy or download it again")


def _of_hub(source: ModelSource) -> Iterator[Finding]:
    """A name that is nothing else counts as a hub id, even if the user meant another thing."""
    if source.hub_id.endswith(".gguf"):
        raise ConfigurationError(f"model {source.hub_id!r} names a GGUF file that is not there; check the path")
    folder = cached_folder(source.hub_id)
    if folder is not None:
        yield ok(f"{source.hub_id}: in the hub's cache, {_whole_folder(folder)}")
        return
    packaged = ", ".join(model.name for model in packaged_models())
    said = f"{source.hub_id!r} is not a packaged model, a file, a folder or a trained model here"
    if _offline():
        yield wrong(f"{said}, and HF_HUB_OFFLINE forbids to download it", f"`hf download`, or one of: {packaged}")
    else:
        yield note(f"{said}: the worker will download it from the hub", f"a typing error? packaged: {packaged}")


def cached_folder(hub_id: str) -> Path | None:
    """The snapshot in the hub's cache that a worker would load, if any."""
    if not has_package("huggingface_hub"):
        return None
    from huggingface_hub import try_to_load_from_cache

    found = try_to_load_from_cache(hub_id, "config.json")
    return Path(found).parent if isinstance(found, str) else None


def _offline() -> bool:
    if not has_package("huggingface_hub"):
        return False
    from huggingface_hub import constants

    return bool(constants.HF_HUB_OFFLINE)


def check_memory(
    settings: Settings, registered: Registered, free_bytes: int | None, has: Has = has_package
) -> Iterator[Finding]:
    """Whether the memory suffices, roughly: weights as stored, the cache, and the processes
    themselves. gpu.py compares with a GPU's memory."""
    weights = weights_here(settings, registered)
    if not weights or free_bytes is None or not engines(has):
        return
    need = weights + int(settings.cache_gib * 2**30) + PROCESS_BYTES
    said = f"one more worker takes about {need / 2**30:.1f} GiB, {free_bytes / 2**30:.1f} GiB of memory are free"
    if need > free_bytes:
        yield warning(said, "lower CHATSERVER_CACHE_GIB, take a smaller model, or end other programs on this machine")
    else:
        yield ok(said)


def weights_here(settings: Settings, registered: Registered = lambda name: None) -> int:
    """Bytes of the configured model's weights; 0 when this machine does not have them."""
    try:
        source = find_model(settings.model, registered)
    except ConfigurationError:
        return 0  # check_model says why
    return _weights_of(source.base or source)  # an adapter is merged into its base


def _weights_of(source: ModelSource) -> int:
    if source.gguf:
        return source.gguf.stat().st_size
    folder = source.path or (cached_folder(source.hub_id) if source.hub_id else None)
    files = sorted(folder.glob("*.safetensors")) or sorted(folder.glob("*.bin")) if folder else []
    return sum(file.stat().st_size for file in files)


def free_memory_bytes(meminfo: Path = MEMINFO, limit: Path = CGROUP_LIMIT) -> int | None:
    """The memory that a new process may take, within the machine's and the container's limits; None if unknown."""
    if not meminfo.exists():
        return None
    free = re.search(r"MemAvailable:\s+(\d+) kB", meminfo.read_text())
    most = limit.read_text().strip() if limit.exists() else ""
    found = [int(free[1]) * 1024] if free else []
    if most.isdigit():
        found.append(int(most))
    return min(found, default=None)


def check_trained(models: Sequence[TrainedModel], wanted: set[str]) -> Iterator[Finding]:
    """Whether the folders of registered models are on this machine. Only a wanted model must be."""
    missing = 0
    for model in models:
        try:
            model.source()
        except ConfigurationError as error:
            missing += 1
            remedy = f"`chatserver models stop {model.name}` if it shall not be served"
            if model.name in wanted and not model.remote:
                yield warning(error.message, remedy)
            elif Path(model.path).is_dir():
                yield warning(error.message, f"train it again, or `chatserver models remove {model.name}`")
    if models:
        yield ok(f"{len(models)} registered, {len(models) - missing} of them whole on this machine")
