"""The job that makes a model better by what people preferred: pairs of answers → DPO → served.

`chatserver improve` and the arena's page call it. The pairs go straight to the fine-tuning, without a cleaning, whose
recipe somebody would have to choose. The same judgements with the same settings are the same job, so ordering twice is
harmless.
"""

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson

from services.errors import ConfigurationError
from services.jobs.training import PREFERENCES_RATE, TrainingConfig, read_training
from services.jobs.training_jobs import Place, training_spec
from services.judgements.records import Export
from services.machine.files import write
from services.serving.trained_models import TrainedModel

FOLDER = "judgements"
MIN_PAIRS = 20


@dataclass(frozen=True)
class Improvement:
    """A job of kind `train` that has not been submitted."""

    id: str
    name: str
    spec: dict[str, Any]
    num_pairs: int
    left_out: str


def improvement(
    found: Export,
    state_dir: Path,
    config: TrainingConfig,
    find: Callable[[str], TrainedModel | None],
    *,
    place: Place,
    out: str = "",
    min_pairs: int = MIN_PAIRS,
) -> Improvement:
    """The job that trains on these pairs and serves its model. `find` finds a model that was trained here.

    Raises ConfigurationError for too few pairs and for an impossible job.
    """
    if len(found.records) < max(min_pairs, 1):
        raise ConfigurationError(
            f"people's judgements give {len(found.records)} pairs of answers{_more(found)}; {min_pairs} are needed",
            remedy="vote in the arena, rate answers down and keep a better version, or type a better answer",
        )
    trained = find(config.model)
    if trained is not None:
        config = config.model_copy(update={"model": trained.path})
    what = hashlib.sha256(orjson.dumps([config.model_dump(mode="json"), found.records]))
    folder = f"{config.name}-{what.hexdigest()[:8]}"
    spec = training_spec(
        config, [str(_written(found, state_dir))], out or str(state_dir.resolve() / "trained" / folder), place
    )
    return Improvement(folder, config.name, {**spec, "serve": True}, len(found.records), found.said())


def preference_config(preset: str, model: str, given: Mapping[str, str]) -> TrainingConfig:
    """A preset's configuration for pairs of answers; an own file that is for pairs keeps its learning rate."""
    base = read_training(preset)
    fields: dict[str, Any] = {"objective": "dpo", "model": model or base.model}
    if base.objective != "dpo":
        fields["learning_rate"] = base.learning_rate * PREFERENCES_RATE
    fields["name"] = f"{Path(fields['model']).name}-improved"
    return read_training(preset, {**fields, **given})


def _more(found: Export) -> str:
    return f" ({found.said()})" if found.left_out else ""


def _written(found: Export, state_dir: Path) -> Path:
    """A file named after what it holds: a job finds its data as they were when it was ordered."""
    lines = b"".join(found.lines())
    path = state_dir.resolve() / FOLDER / f"pairs-{hashlib.sha256(lines).hexdigest()[:16]}.jsonl"
    if not path.exists():
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path, lines)
    return path
