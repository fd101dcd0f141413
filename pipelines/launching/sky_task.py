"""The task that SkyPilot gets for a fine-tuning: its file of infra/sky, filled in. Pure; SkyPilot is not imported.

    sky.Task.from_yaml_config(task_for(run), secrets_overrides=list(run.secrets.items()))

The modules that call SkyPilot use it. The task is stored and shown, so it never holds the values of secrets.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import orjson
import yaml

from services.errors import ConfigurationError
from services.places import ROOT, SKY_DIR

if TYPE_CHECKING:
    from pipelines.launching.targets import Run

DATA_DIR = "~/chatserver-data"  # below the home folder: on Slurm nothing else can be written
BUCKET_DIR = "/artifacts"
ONLY_SPOT = ("use_spot", "job_recovery")
BY_HAND = ("DATA_BUCKET", "ARTIFACTS_BUCKET", "MODEL_SIZE", "SEQ_LEN", "GC_SCALE")  # what TRAINING_CONFIG says instead


def task_for(run: "Run") -> dict[str, Any]:
    """The task's configuration as `sky.Task.from_yaml_config` takes it. Raises ConfigurationError."""
    task = _shipped(run.config.sky)
    data = {f"{DATA_DIR}/{number}.jsonl": str(path) for number, path in enumerate(run.data)}
    mounts, out = _artifacts(run.out, task["file_mounts"][BUCKET_DIR])
    task |= {
        "name": run.name,
        "workdir": str(ROOT),
        "num_nodes": run.num_nodes,
        "resources": _resources(task["resources"], run),
        "envs": _envs(task["envs"], run, list(data), out),
        "secrets": dict.fromkeys([*task["secrets"], *run.secrets], ""),
        "file_mounts": {**data, **mounts},
    }
    return task


def _shipped(name: str) -> dict[str, Any]:
    path = SKY_DIR / name
    if not path.is_file():
        known = ", ".join(sorted(each.name for each in SKY_DIR.glob("train-*.yaml")))
        raise ConfigurationError(f"sky={name!r} is no file of infra/sky; there are: {known}")
    task: dict[str, Any] = yaml.safe_load(path.read_text("utf-8"))
    return task


def _resources(shipped: dict[str, Any], run: "Run") -> dict[str, Any]:
    kind, _, number = shipped["accelerators"].partition(":")
    resources = {name: value for name, value in shipped.items() if run.spot or name not in ONLY_SPOT}
    resources["accelerators"] = f"{kind}:{run.num_devices or number}"
    if run.spot:
        resources["use_spot"] = True
    if run.infra:
        resources["infra"] = run.infra
    return resources


def _envs(shipped: dict[str, Any], run: "Run", data: list[str], out: str) -> dict[str, str]:
    secret = sorted(set(run.env) & set(run.secrets))
    if secret:
        raise ConfigurationError(f"{', '.join(secret)} is a secret and cannot also be a plain variable of the run")
    return {
        **{name: value for name, value in shipped.items() if name not in BY_HAND},
        "TRAINING_CONFIG": orjson.dumps(run.config.model_dump(mode="json")).decode(),  # JSON is YAML, on one line
        "DATA": " ".join(data),
        "OUT": out,
        "USE_FLASH_ATTN": "0" if run.config.attention == "sdpa" else "1",
        **run.env,
    }


def _artifacts(out: str, shipped: dict[str, Any]) -> tuple[dict[str, Any], str]:
    """The mount and the folder in it for a bucket's URL; nothing to mount for a folder that the machines share."""
    scheme, mark, rest = out.partition("://")
    if not mark:
        if not Path(out).is_absolute():
            raise ConfigurationError(f"out={out!r} is neither a bucket's URL nor an absolute path")
        return {}, out
    parts = rest.strip("/").split("/")
    length = 2 if scheme == "cos" else 1  # cos://REGION/BUCKET
    if len(parts) < length or not all(parts):
        raise ConfigurationError(f"out={out!r} names no bucket; such as s3://my-bucket/my-run")
    bucket = f"{scheme}://{'/'.join(parts[:length])}"
    return {BUCKET_DIR: {**shipped, "source": bucket}}, "/".join([BUCKET_DIR, *parts[length:]])
