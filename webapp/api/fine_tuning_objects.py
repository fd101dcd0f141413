"""Fine-tunings, their events and checkpoints as OpenAI's clients read them. `fine_tunings.py` sends them."""

import time
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from services.jobs.fine_tunings import ID_PREFIX, METHODS, results_id
from services.jobs.jobs import ORDER, Job
from services.jobs.training_progress import TrainingProgress

STATUS = {"submitted": "queued", "finished": "succeeded", "failed": "failed", "cancelled": "cancelled"}
OWNER = "chatserver"


def job_object(job: Job, progress: TrainingProgress, model: str | None) -> dict[str, Any]:
    """A job. `model`: the name of what it made."""
    order = job.spec[ORDER]
    method = METHODS.get(job.spec["config"].get("objective", "answers"))
    runs, succeeded = job.state == "running", job.state == "finished"
    return {
        "id": job.id,
        "object": "fine_tuning.job",
        "created_at": int(job.created_s),
        "error": _error(job, progress) if job.state == "failed" else None,
        "fine_tuned_model": model if succeeded else None,
        "finished_at": int(job.ended_s) or None,
        "hyperparameters": order["hyperparameters"],
        "model": order["model"],
        "organization_id": OWNER,
        "result_files": [results_id(job)] if succeeded else [],
        "seed": job.spec["config"]["seed"],
        "status": status_of(job, progress),
        "trained_tokens": _trained_tokens(progress) if succeeded else None,
        "training_file": order["training_file"],
        "validation_file": order["validation_file"],
        "estimated_finish": int(time.time() + progress.eta_s) if runs and progress.eta_s is not None else None,
        "integrations": [],
        "metadata": order["metadata"] or None,
        "method": {"type": method, method: {"hyperparameters": order["hyperparameters"]}} if method else None,
    }


def status_of(job: Job, progress: TrainingProgress) -> str:
    """In OpenAI's words. A run that was asked to end is `running` until it has saved what it did."""
    if job.state == "running":
        return "running" if progress.plan else "validating_files"
    return STATUS[job.state]


def events_of(
    job: Job, lines: Iterable[tuple[str, float, str]], points: Sequence[Mapping[str, Any]], progress: TrainingProgress
) -> list[dict[str, Any]]:
    """The lines of its log, the losses of its steps, and those of its evaluations, newest first."""
    found = [(time_s, 0, _message(job, entry, time_s, line)) for entry, time_s, line in lines]
    time_s, at = job.started_s, {}
    for point in points:
        at[point["step"]] = time_s = max(time_s, float(point.get("time_s", 0.0)))  # an older build kept no time
        found.append((time_s, int(point["step"]), _metrics("step", point, progress, time_s)))
    for each in progress.evals:
        step = int(each["step"])
        when = at.get(step, time_s)
        found.append((when, step + 1, _metrics("eval", each, progress, when)))
    ordered = sorted(enumerate(found), key=lambda row: (row[1][0], row[1][1], row[0]), reverse=True)
    return [event for _, (_, _, event) in ordered]


def checkpoints_of(job: Job, progress: TrainingProgress, model: str | None) -> list[dict[str, Any]]:
    """The checkpoints that it told of, newest first. Only the last one's weights, the model, can be asked."""
    losses = {each["step"]: each.get("loss") for each in progress.evals}
    return [
        {
            "id": f"ftckpt-{job.id.removeprefix(ID_PREFIX)}-{each['step']}",
            "object": "fine_tuning.job.checkpoint",
            "created_at": int(each["time_s"]),
            "fine_tuned_model_checkpoint": (model or "") if each["step"] == progress.records else "",
            "fine_tuning_job_id": job.id,
            "metrics": {"step": each["step"], "full_valid_loss": losses.get(each["step"])},
            "step_number": each["step"],
        }
        for each in reversed(progress.checkpoints)
    ]


def _error(job: Job, progress: TrainingProgress) -> dict[str, Any]:
    """`param` where a file is at fault; the message names its line."""
    param = f"{progress.faulty_file.removesuffix('.jsonl')}_file" if progress.faulty_file else None
    return {"code": f"invalid_{param}" if param else "failed", "message": job.error, "param": param}


def _trained_tokens(progress: TrainingProgress) -> int | None:
    """Those of the data, once for each epoch."""
    tokens = progress.plan.get("tokens")
    return None if tokens is None or progress.epoch is None else round(tokens * progress.epoch)


def _message(job: Job, entry: str, time_s: float, line: str) -> dict[str, Any]:
    is_end = job.state == "failed" and line == f"failed: {job.error}"
    return _event(f"log-{entry}", time_s, line, "message", level="error" if is_end else "info")


def _metrics(kind: str, told: Mapping[str, Any], progress: TrainingProgress, time_s: float) -> dict[str, Any]:
    """A step, or an evaluation."""
    name, words = ("train_loss", "training") if kind == "step" else ("valid_loss", "validation")
    step, loss = told["step"], told.get("loss")
    line = f"Step {step}/{progress.of}: {words} loss={loss}" if loss is not None else f"Step {step}/{progress.of}"
    data = {"step": step, "total_steps": progress.of, name: loss}
    return _event(f"{kind}-{step}", time_s, line, "metrics", data=data)


def _event(
    name: str, time_s: float, message: str, kind: str, *, level: str = "info", data: dict[str, Any] | None = None
) -> dict[str, Any]:
    return {
        "id": f"ftevent-{name}",
        "object": "fine_tuning.job.event",
        "created_at": int(time_s),
        "level": level,
        "message": message,
        "type": kind,
        "data": data,
    }
