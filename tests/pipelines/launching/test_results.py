"""The table of losses that a fine-tuning of the API leaves for its user."""

from pipelines.launching.results import table
from services.jobs.training_progress import TrainingProgress


def test_steps_and_evaluations_share_rows_in_the_order_of_the_steps() -> None:
    points = [{"step": 1, "loss": 2.5, "lr": 0.1}, {"step": 2, "loss": 2.0, "lr": 0.05}]
    progress = TrainingProgress(evals=[{"step": 2, "loss": 2.25}, {"step": 3, "loss": 2.125}])
    assert table(points, progress) == (
        "step,train_loss,valid_loss,learning_rate\n1,2.5,,0.1\n2,2.0,2.25,0.05\n3,,2.125,\n"
    )
