"""One node as SkyPilot leaves it before a file's `run`, with a Python that only writes down how it was called."""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

import yaml

from services.places import ROOT

SKY = ROOT / "infra" / "sky"
BUCKETS = {"DATA_BUCKET": "s3://my-data", "ARTIFACTS_BUCKET": "gs://my-models"}
NEEDED = {
    "train-vicuna": BUCKETS,
    "train-alpaca": BUCKETS,
    "serve-redis-web": {},
    "serve-worker": {"MODEL": "org/model"},
    "serve-vllm": {"MODEL": "org/model"},
}

RECORDER = """#!/usr/bin/env python3
import json, os, sys
with open(os.environ["RECORD"], "a") as file:
    print(json.dumps([sys.argv[1:], dict(os.environ)]), file=file)
"""


def shipped(name: str) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load((SKY / f"{name}.yaml").read_text("utf-8"))
    return found


def executable(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(0o755)
    return path


class Machine:
    """One node as SkyPilot leaves it before `run`: variables, home, project; its Python only writes down its calls."""

    def __init__(self, folder: Path) -> None:
        self.home = folder / "home"
        self.home.mkdir()
        self.record = folder / "calls"
        self.python = executable(folder / "bin" / "python", RECORDER)

    def environment(
        self, declared: dict[str, str], *, nodes: int = 1, gpus: int = 8, rank: int = 0, **given: str
    ) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "RECORD": str(self.record),
            "SKYPILOT_NUM_NODES": str(nodes),
            "SKYPILOT_NUM_GPUS_PER_NODE": str(gpus),
            "SKYPILOT_NODE_RANK": str(rank),
            "SKYPILOT_NODE_IPS": "\n".join(f"10.0.0.{number + 1}" for number in range(nodes)),
            **declared,
            "TRAIN_PYTHON": str(self.python),
            **given,
        }

    def runs(self, task: dict[str, Any] | str, **given: Any) -> subprocess.CompletedProcess[str]:
        """A task, or a file of that name with what it needs."""
        if isinstance(task, str):
            needed, task = NEEDED[task], shipped(task)
            task["envs"] |= needed
        return subprocess.run(
            ["bash", "-c", task["run"]],
            cwd=ROOT,
            env=self.environment({**task["envs"], **task["secrets"]}, **given),
            capture_output=True,
            text=True,
            check=False,
        )

    def call(self, task: dict[str, Any] | str, **given: Any) -> tuple[list[str], dict[str, str]]:
        """Arguments and environment with which Python was called."""
        self.record.unlink(missing_ok=True)
        answer = self.runs(task, **given)
        assert answer.returncode == 0, answer.stderr
        (line,) = self.record.read_text().splitlines()
        arguments, environment = json.loads(line)
        return arguments, environment
