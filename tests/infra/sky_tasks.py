"""Reads tasks with SkyPilot in a process and a home folder of its own, without a network.

In SkyPilot's environment, `python -m tests.infra.sky_tasks` reads a JSON list of [config, {env}] pairs, and prints a
JSON list of what SkyPilot understood, or of its errors. The home folder holds the catalogue that SkyPilot would else
download.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from services.places import ROOT

CATALOG = "AcceleratorName,Clouds\nA100-80GB,\"['AWS', 'GCP', 'Azure', 'Lambda', 'Slurm']\"\n"


def understood(python: Path, home: Path, tasks: list[tuple[dict[str, Any], dict[str, str]]]) -> list[dict[str, Any]]:
    """What SkyPilot makes of each task, given further variables."""
    folder = home / ".sky" / "catalogs" / "v8" / "common"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "accelerators.csv").write_text(CATALOG)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("SKYPILOT_")}
    environment = {**kept, "HOME": str(home), "SKYPILOT_DISABLE_USAGE_COLLECTION": "1"}
    answer = subprocess.run(
        [str(python), "-m", "tests.infra.sky_tasks"],
        input=json.dumps(tasks),
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert answer.returncode == 0, answer.stderr
    found: list[dict[str, Any]] = json.loads(answer.stdout.splitlines()[-1])
    return found


def _read(config: dict[str, Any], env: dict[str, str]) -> dict[str, Any]:
    import sky

    try:
        task = sky.Task.from_yaml_config(config, env_overrides=list(env.items()))
    except ValueError as error:
        return {"error": str(error)}
    resources = next(iter(task.resources))
    return {
        "name": task.name,
        "num_nodes": task.num_nodes,
        "accelerators": resources.accelerators,
        "spot": resources.use_spot,
        "recovery": resources.job_recovery,
        "ports": resources.ports,
        "infra": resources.infra.to_str() if resources.infra else None,
        "envs": task.envs,
        "secrets": sorted(task.secrets),
        "files": task.file_mounts or {},
        "mounts": {path: [s.source, s.mode.value] for path, s in task.storage_mounts.items()},
        "workdir": task.workdir,
    }


if __name__ == "__main__":
    print(json.dumps([_read(config, env) for config, env in json.load(sys.stdin)]))
