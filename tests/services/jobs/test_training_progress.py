"""The note of a fine-tuning: what is written is read, and other versions are understood as far as they go."""

from services.jobs.training_progress import TrainingProgress


def test_a_note_is_read_as_it_was_written() -> None:
    progress = TrainingProgress(
        records=30, of=120, loss=1.5, evals=[{"step": 20, "loss": 1.7}], outcome={"state": "recovering"}
    )
    read = TrainingProgress.from_note(progress.as_note())
    assert read == progress
    assert (read.fraction, read.phase) == (0.25, "recovering")


def test_a_note_of_another_version_is_read_as_far_as_it_is_known() -> None:
    assert TrainingProgress.from_note({"records": 3, "loss": None, "of_tomorrow": 1}) == TrainingProgress(records=3)
    assert TrainingProgress.from_note({}).fraction == 0.0
