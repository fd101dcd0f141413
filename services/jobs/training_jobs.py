"""What is submitted when somebody asks for a fine-tuning: the spec of a job of kind `train`, checked where it enters.

Used by `chatserver train submit` and the job page; read by `pipelines/celery/training_tasks.py`.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from services.errors import ConfigurationError
from services.jobs.training import TrainingConfig, checked_training, plan_batch
from services.places import SKY_DIR

BUCKETS = ("s3://", "gs://", "r2://", "oci://", "nebius://", "cos://", "coreweave://")
PLACES = ("local", "sky")


@dataclass(frozen=True)
class Place:
    """Where a fine-tuning runs. `num_devices` per node; 0: what the configuration's file in infra/sky says."""

    on: str = "local"
    spot: bool = False
    num_devices: int = 0
    num_nodes: int = 1
    infra: str = ""


def training_spec(config: TrainingConfig, data: Sequence[str], out: str, place: Place) -> dict[str, Any]:
    """The job's spec. Raises ConfigurationError for data that is not there, a place or a folder that cannot be."""
    if place.on not in PLACES:
        raise ConfigurationError(f"a fine-tuning runs on {' or '.join(PLACES)}, not on {place.on!r}", field="on")
    if place.on == "local" and (place.spot or place.infra or place.num_nodes != 1):
        raise ConfigurationError("spot, infra and nodes are for `--on sky`; this machine is one node that stays")
    if place.num_nodes < 1 or place.num_devices < 0:
        raise ConfigurationError(f"{place.num_nodes} nodes of {place.num_devices} GPUs are no machines")
    num_devices = place.num_devices or (1 if place.on == "local" else sky_devices(config))
    plan_batch(config, num_devices * place.num_nodes)
    return {
        "config": config.model_dump(mode="json"),
        "data": [str(_checked_data(name)) for name in data],
        "out": checked_out(out, place.on),
        "on": place.on,
        "spot": place.spot,
        "num_devices": num_devices,
        "num_nodes": place.num_nodes,
        "infra": place.infra,
        "env": {},
    }


def spec_config(spec: Mapping[str, Any]) -> TrainingConfig:
    """The configuration inside a job's spec. Raises ConfigurationError for one of another version."""
    return checked_training(spec["config"], "the job's configuration")


def sky_devices(config: TrainingConfig) -> int:
    """GPUs of one node in the configuration's file of infra/sky, such as 8 for `accelerators: A100-80GB:8`."""
    path = SKY_DIR / config.sky
    if not path.is_file():
        known = ", ".join(sorted(each.name for each in SKY_DIR.glob("train-*.yaml")))
        raise ConfigurationError(f"sky={config.sky!r} is no file of infra/sky; there are: {known}")
    accelerators = str(yaml.safe_load(path.read_text("utf-8"))["resources"]["accelerators"])
    count = re.search(r":(\d+)$", accelerators)
    return int(count[1]) if count else 1


def checked_out(out: str, on: str) -> str:
    """Where the result goes: a folder, or with SkyPilot a bucket or a folder that its machines share."""
    if "://" not in out:
        path = Path(out)
        if on == "sky" and not path.is_absolute():
            raise ConfigurationError(
                f"out={out!r}: SkyPilot deletes its machines after the run; name a bucket such as "
                f"s3://my-bucket/{path.name or 'run'}, or the absolute path of a folder that they share",
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
            f"the data {name} is no file here; name the data.jsonl of a cleaning, or its folder", field="data"
        )
    if path.stat().st_size == 0:
        raise ConfigurationError(f"the data {name} is empty: nothing was left by its cleaning?", field="data")
    return path
