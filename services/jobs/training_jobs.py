"""Makes and checks the spec of a fine-tuning: a job of kind `train`.

`chatserver train submit` and the job page call it; `pipelines/celery/training_tasks.py` reads the spec.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from services.errors import ConfigurationError
from services.jobs.training import TrainingConfig, checked_training, plan_batch
from services.machine.files import sha256_of
from services.models.catalogue import packaged_models, resolve
from services.models.exported import PRECISIONS
from services.places import SKY_DIR

BUCKETS = ("s3://", "gs://", "r2://", "oci://", "nebius://", "cos://", "coreweave://")
PLACES = ("local", "sky")


@dataclass(frozen=True)
class Place:
    """Where a fine-tuning runs. `num_devices` counts the GPUs of a node; 0: as the file in infra/sky says."""

    on: str = "local"
    spot: bool = False
    num_devices: int = 0
    num_nodes: int = 1
    infra: str = ""


def training_spec(config: TrainingConfig, data: Sequence[str], out: str, place: Place) -> dict[str, Any]:
    """The job's spec. Raises ConfigurationError for missing data and for an impossible place or folder."""
    if place.on not in PLACES:
        raise ConfigurationError(f"a fine-tuning runs on {' or '.join(PLACES)}, not on {place.on!r}", field="on")
    if place.on == "local" and (place.spot or place.infra or place.num_nodes != 1):
        raise ConfigurationError("--spot, --infra and --nodes need `--on sky`: they choose SkyPilot machines")
    if place.num_nodes < 1 or place.num_devices < 0:
        raise ConfigurationError(
            f"{place.num_nodes} nodes of {place.num_devices} GPUs: a run needs one of each, at least"
        )
    if place.on == "sky" and config.export in PRECISIONS:
        raise ConfigurationError(
            f"export={config.export!r}: SkyPilot machines have no openvino to check a GGUF with; leave export out, "
            "and run `chatserver models export` on the machine that serves the model",
            field="export",
        )
    num_devices = place.num_devices or (1 if place.on == "local" else sky_devices(config))
    plan_batch(config, num_devices * place.num_nodes)
    paths, where = [_checked_data(name) for name in data], checked_out(out, place.on)
    _check_model(config.model, place.on, shares_folders="://" not in where)
    return {
        "config": config.model_dump(mode="json"),
        "data": [str(path) for path in paths],
        "digests": [sha256_of(path) for path in paths],
        "out": where,
        "on": place.on,
        "spot": place.spot,
        "num_devices": num_devices,
        "num_nodes": place.num_nodes,
        "infra": place.infra,
        "env": {},
    }


def check_unchanged(spec: Mapping[str, Any]) -> None:
    """Raises ConfigurationError if a data file is no longer what it was when the job was submitted.

    A job of an older build says nothing of the contents.
    """
    for name, digest in zip(spec["data"], spec.get("digests", ()), strict=False):
        path = Path(name)
        if not path.is_file():
            raise ConfigurationError(f"the data {name} is gone since the job was submitted", field="data")
        if sha256_of(path) != digest:
            raise ConfigurationError(
                f"the data {name} has changed since the job was submitted; submit it again to train on the new content",
                field="data",
            )


def difference_of(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """What differs between the specs of two fine-tunings that write to one folder, in words."""
    settings = [
        f"{name} was {before['config'].get(name)!r} and is {now['config'].get(name)!r}"
        for name in sorted({*before["config"], *now["config"]})
        if before["config"].get(name) != now["config"].get(name)
    ]
    if before["data"] != now["data"]:
        settings.append("other data files")
    elif "digests" not in before:
        settings.append("nobody noted what the data held then")
    elif before["digests"] != now["digests"]:
        settings.append("the data has another content")
    return "; ".join(settings) or "another place to run"


def _check_model(model: str, on: str, *, shares_folders: bool) -> None:
    """Raises ConfigurationError for a model that rented machines would not find: before any is rented.

    For a run on this machine the program looks itself: who orders may be a container without the model's package.
    """
    if on != "sky" or shares_folders:
        return
    packaged = model in (each.name for each in packaged_models())
    if packaged or resolve(model).kind != "hub":
        what = "a packaged model" if packaged else "on this machine's disk"
        raise ConfigurationError(
            f"model={model!r} is {what}, and SkyPilot machines cannot read it; give a hub id, such as "
            "HuggingFaceTB/SmolLM2-135M-Instruct",
            field="model",
        )


def spec_config(spec: Mapping[str, Any]) -> TrainingConfig:
    """The configuration in a job's spec. Raises ConfigurationError if another version wrote it."""
    return checked_training(spec["config"], "the job's configuration")


def sky_devices(config: TrainingConfig) -> int:
    """GPUs of one node in the configuration's file of infra/sky, such as 8 for `accelerators: A100-80GB:8`."""
    path = SKY_DIR / config.sky
    if not path.is_file():
        known = ", ".join(sorted(each.name for each in SKY_DIR.glob("train-*.yaml")))
        raise ConfigurationError(f"sky={config.sky!r} is not a file in infra/sky; files there: {known}")
    accelerators = str(yaml.safe_load(path.read_text("utf-8"))["resources"]["accelerators"])
    count = re.search(r":(\d+)$", accelerators)
    return int(count[1]) if count else 1


def checked_out(out: str, on: str) -> str:
    """Where the result goes: a folder; on SkyPilot a bucket, or a folder that its machines share."""
    if "://" not in out:
        path = Path(out)
        if on == "sky" and not path.is_absolute():
            raise ConfigurationError(
                f"out={out!r}: SkyPilot machines are deleted after the run: give a bucket, such as "
                f"s3://my-bucket/{path.name or 'run'}, or the absolute path of a folder that the machines share",
                field="out",
            )
        return str(path.resolve())
    if on == "local" or not out.startswith(BUCKETS):
        where = "a folder" if on == "local" else f"a bucket ({', '.join(BUCKETS)}) or an absolute path"
        raise ConfigurationError(f"out={out!r} is not {where}", field="out")
    return out.rstrip("/")


def _checked_data(name: str) -> Path:
    path = Path(name).resolve()
    if path.is_dir() and (path / "data.jsonl").is_file():  # what `chatserver clean` wrote
        return path / "data.jsonl"
    if not path.is_file():
        raise ConfigurationError(
            f"the data {name} is not a file on this machine; give the data.jsonl of a cleaning, or its folder",
            field="data",
        )
    if path.stat().st_size == 0:
        raise ConfigurationError(f"the data {name} is empty; did its cleaning drop every record?", field="data")
    return path
