"""What events make of the progress."""

from pipelines.launching.progress import after, point_of
from services.jobs.training_progress import TrainingProgress


def told(*events: dict[str, object]) -> TrainingProgress:
    progress = TrainingProgress()
    for number, event in enumerate(events):
        progress = after(progress, event, float(number))
    return progress


def test_a_resumed_run_tells_its_steps_again_and_nothing_is_there_twice() -> None:
    again = [{"event": "checkpoint", "step": 2, "bytes": 5}, {"event": "eval", "step": 2, "loss": 1.0}]
    progress = told(*again, {"event": "checkpoint", "step": 4, "bytes": 5}, {"event": "resumed", "step": 0}, *again)
    assert [each["step"] for each in progress.checkpoints] == [2] and len(progress.evals) == 1
    assert progress.resumes == [{"step": 0, "time_s": 3.0}] and progress.records == 0


def test_a_start_forgets_what_ended_the_last_one() -> None:
    failed = told({"event": "failed", "code": 3, "message": "data.jsonl:1: no answer", "file": "data.jsonl"})
    assert (failed.failure, failed.faulty_file) == ("data.jsonl:1: no answer", "data.jsonl")
    again = after(failed, {"event": "plan", "steps": 4}, 1.0)
    assert (again.failure, again.faulty_file) == ("", "")
    older = told({"event": "failed", "code": 3, "message": "the loss is NaN"})
    assert (older.failure, older.faulty_file) == ("the loss is NaN", "")


def test_what_is_no_event_of_ours_changes_nothing() -> None:
    for event in ({"event": "of tomorrow"}, {"event": "step", "step": None}, {"event": "checkpoint"}):
        assert told(event) == TrainingProgress()
        assert point_of(event) is None


def test_of_a_training_on_ratings_rewards_and_divergence_are_kept() -> None:
    rewards = {"margin": 0.5, "chosen_reward": 0.2, "rejected_reward": -0.3, "kl": 0.1}
    assert point_of({"event": "step", "step": 1, "loss": 0.4, **rewards}) == {"step": 1, "loss": 0.4, **rewards}
    assert told({"event": "eval", "step": 1, "loss": 0.4, **rewards}).evals == [{"step": 1, "loss": 0.4, **rewards}]


def test_of_a_training_on_preferences_margin_and_accuracy_are_kept() -> None:
    told_of_pairs = {"event": "step", "step": 1, "loss": 0.6, "margin": 0.2, "accuracy": 0.75}
    assert point_of(told_of_pairs) == {"step": 1, "loss": 0.6, "margin": 0.2, "accuracy": 0.75}
    progress = told({"event": "eval", "step": 1, "loss": 0.5, "margin": 0.3, "accuracy": 1.0})
    assert progress.evals == [{"step": 1, "loss": 0.5, "margin": 0.3, "accuracy": 1.0}]
    assert told({"event": "eval", "step": 1, "loss": 0.5}).evals == [{"step": 1, "loss": 0.5}]
