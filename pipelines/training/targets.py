"""Where a fine-tuning runs: what is sent there."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from services.training import TrainingConfig


@dataclass(frozen=True)
class Run:
    """One fine-tuning as a target takes it. `secrets` are never shown: not by repr, not in a task."""

    name: str
    jid: str
    config: TrainingConfig
    data: tuple[Path, ...]
    out: str
    num_devices: int
    num_nodes: int
    spot: bool
    infra: str
    env: Mapping[str, str]
    secrets: Mapping[str, str] = field(repr=False)
