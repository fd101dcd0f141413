"""The interface of a target, where a fine-tuning runs. `pipelines/celery/training_tasks.py` knows machines only by it.

    remote = target.submit(run)
    target.poll(remote).state

`LocalTarget` runs the program on this machine, `SkyTarget` through SkyPilot. Both pass the same contract suite,
`tests/pipelines/launching/contract.py`. `remote` is JSON; the job keeps it.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, Protocol

from services.jobs.training import TrainingConfig
from services.jobs.training_jobs import spec_config

RunState = Literal["pending", "starting", "running", "recovering", "finished", "failed", "cancelled"]
ENDED = frozenset({"finished", "failed", "cancelled"})


@dataclass(frozen=True)
class Run:
    """One run to launch. `num_devices` per node; `out` is a folder or, with SkyPilot, a bucket's URL."""

    name: str
    jid: str
    config: TrainingConfig
    data: tuple[Path, ...]
    out: str
    num_devices: int = 1
    num_nodes: int = 1
    spot: bool = False
    infra: str = ""
    env: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class Outcome:
    """The state of a run. `recoveries`: how often it was started again; `seconds` since it was submitted."""

    state: RunState
    message: str = ""
    remedy: str = ""
    recoveries: int = 0
    cost_usd: float | None = None
    seconds: float = 0.0

    @property
    def ended(self) -> bool:
        return self.state in ENDED


def run_of(spec: Mapping[str, Any], name: str, jid: str, secrets: Mapping[str, str]) -> Run:
    """What a job's spec asks for. Raises ConfigurationError for a spec of another version."""
    return Run(
        name=name,
        jid=jid,
        config=spec_config(spec),
        data=tuple(Path(path) for path in spec["data"]),
        out=spec["out"],
        num_devices=spec["num_devices"],
        num_nodes=spec["num_nodes"],
        spot=spec["spot"],
        infra=spec["infra"],
        env=spec["env"],
        secrets=secrets,
    )


class Target(Protocol):
    """Each method may be called again, by several processes at once, and after a process died in the middle of it.

    A method raises ConfigurationError if another try would fail too; after any other error the caller tries again.
    """

    def submit(self, run: Run) -> dict[str, Any]:
        """Launch the run and tell its handle. Twice under one name is launched once."""

    def poll(self, remote: Mapping[str, Any]) -> Outcome:
        """How it is now; what was taken away is started again."""

    def logs(self, remote: Mapping[str, Any], cursor: str) -> tuple[list[str], str]:
        """Whole lines after a cursor ("" is the beginning), and the cursor after them. No lines: nothing is new."""

    def cancel(self, remote: Mapping[str, Any]) -> None:
        """End it soon; `poll` says when it has."""

    def down(self, remote: Mapping[str, Any]) -> None:
        """Give back its machines."""


def run_name(jid: str, started_s: float) -> str:
    """The name of one attempt at a job: the same from whoever asks, another when the job is submitted again.

    Lower case, digits and hyphens, at most 40 characters: what clouds take for names.
    """
    digest = hashlib.sha256(f"{jid} {started_s:.3f}".encode()).hexdigest()[:8]
    words = re.sub(r"[^a-z0-9]+", "-", jid.lower()).strip("-")[:24].strip("-")
    return f"train-{words}-{digest}"
