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


def test_a_cancelled_one_says_what_it_still_does_and_for_how_long() -> None:
    saves = "stopping: the trainer saves its checkpoint"
    assert TrainingProgress().stopping == "stopping: the trainer ends"
    assert TrainingProgress(records=3, of=9).stopping == saves
    half_told = TrainingProgress(records=3, of=9, checkpoints=[{"step": 2, "time_s": 1.0, "bytes": 7}])
    assert half_told.stopping == saves, "an older trainer does not say how long it saved"
    known = TrainingProgress(records=3, of=9, eta_s=60.0, checkpoints=[{"step": 2, "seconds": 41.6}])
    assert known.stopping == f"{saves} (about 52 s)", "a step, and then the checkpoint"
