"""Writes the file of results of a fine-tuning that a program ordered: the losses of its steps, as a table.

Called at the end of the job, before it is finished; twice is once.
"""

import csv
import io
from collections.abc import Mapping, Sequence
from typing import Any

from services.jobs.fine_tunings import results_id
from services.jobs.jobs import ORDER, Job
from services.jobs.stored_files import StoredFiles
from services.jobs.training_progress import TrainingProgress

COLUMNS = ("step", "train_loss", "valid_loss", "learning_rate")


def publish_results(
    files: StoredFiles, job: Job, points: Sequence[Mapping[str, Any]], progress: TrainingProgress
) -> None:
    """A file of the user who ordered the job; nothing for a job of the page or the command."""
    if order := job.spec.get(ORDER):
        with files.draft(order["user"]) as made:
            made.write(table(points, progress).encode())
            files.publish(made, order["user"], "fine-tune-results", f"{job.id}.csv", results_id(job))


def table(points: Sequence[Mapping[str, Any]], progress: TrainingProgress) -> str:
    """CSV; a cell is empty where a step was not evaluated."""
    rows: dict[int, dict[str, Any]] = {}
    for point in points:
        rows[point["step"]] = {"train_loss": point.get("loss"), "learning_rate": point.get("lr")}
    for each in progress.evals:
        rows.setdefault(each["step"], {})["valid_loss"] = each.get("loss")
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows({"step": step, **rows[step]} for step in sorted(rows))
    return text.getvalue()
