"""Reads the progress from the lines of a training program; `following.py` passes each line as it comes."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from services.jobs.training_progress import TrainingProgress

REWARD_FIELDS = ("margin", "accuracy", "chosen_reward", "rejected_reward", "kl")  # of judged answers
POINT_FIELDS = ("step", "loss", "lr", "grad_norm", "epoch", "tokens_per_s", "eta_s", *REWARD_FIELDS)
EVAL_FIELDS = ("step", "loss", *REWARD_FIELDS)
STEPPED = frozenset({"resumed", "step", "eval", "checkpoint"})


def point_of(event: Mapping[str, Any]) -> dict[str, Any] | None:
    """The point of the loss curve that an event is, if it is one."""
    if event["event"] != "step" or not isinstance(event.get("step"), int):
        return None
    return {name: event[name] for name in POINT_FIELDS if name in event}


def after(progress: TrainingProgress, event: Mapping[str, Any], now_s: float) -> TrainingProgress:
    """The progress once an event was told. An event that nobody knows changes nothing."""
    told = {name: value for name, value in event.items() if name != "event"}
    if event["event"] in STEPPED and not isinstance(told.get("step"), int):
        return progress
    match event["event"]:
        case "plan":
            return replace(progress, plan=told, of=told.get("steps", progress.of), failure="", faulty_file="")
        case "resumed":
            resumes = [*progress.resumes, {"step": told["step"], "time_s": now_s}]
            return replace(progress, resumes=resumes, records=told["step"])
        case "step":
            now: dict[str, Any] = {name: told.get(name) for name in ("loss", "lr", "tokens_per_s", "eta_s", "epoch")}
            return replace(progress, records=told["step"], of=told.get("of", progress.of), **now)
        case "eval":
            found = {"loss": None, **{name: told[name] for name in EVAL_FIELDS if name in told}}
            return replace(progress, evals=_with(progress.evals, found))
        case "checkpoint":
            made = {"step": told["step"], "time_s": now_s, "bytes": told.get("bytes"), "seconds": told.get("seconds")}
            return replace(progress, checkpoints=_with(progress.checkpoints, made))
        case "finished":
            return replace(progress, records=told.get("step", progress.records), model=str(told.get("model", "")))
        case "failed":
            return replace(progress, failure=str(told.get("message", "")), faulty_file=str(told.get("file", "")))
    return progress


def _with(known: list[dict[str, Any]], one: dict[str, Any]) -> list[dict[str, Any]]:
    """A step that is told again, as after a resume, replaces what was known of it and of later ones."""
    return [*(each for each in known if each["step"] < one["step"]), one]
