"""The job that learns from judgements."""

from pathlib import Path

import pytest

from services.database.database import Database
from services.errors import ConfigurationError
from services.jobs.training import read_training
from services.jobs.training_jobs import Place
from services.judgements import records
from services.judgements.improvement import Improvement, improvement, preference_config
from services.serving.trained_models import TrainedModel
from tests.services.judgements.people import People


def ordered(database: Database, folder: Path, model: str = "", min_pairs: int = 1) -> Improvement:
    def find(name: str) -> TrainedModel | None:
        return TrainedModel("mine", "/trained/mine/model", "smollm2-135m", "job", 1.0) if name == "mine" else None

    config = preference_config("smollm2-135m", model, {})
    with database.read() as session:
        found = records.pairs(session)
    return improvement(found, folder, config, find, place=Place(), min_pairs=min_pairs)


def test_too_few_pairs_say_how_many_there_are_and_where_more_come_from(database: Database, tmp_path: Path) -> None:
    People(database).battle("b1", "Why?", "same", "same", "left")
    with pytest.raises(ConfigurationError) as caught:
        ordered(database, tmp_path)
    assert "0 pairs" in str(caught.value) and "two equal answers" in str(caught.value)
    assert "vote in the arena" in str(caught.value)


def test_the_same_judgements_are_the_same_job_and_a_new_one_makes_another(database: Database, tmp_path: Path) -> None:
    people = People(database)
    people.battle("b1", "Why?", "good", "bad", "left")
    first = ordered(database, tmp_path)
    assert ordered(database, tmp_path) == first
    assert (first.num_pairs, first.name, first.spec["serve"]) == (1, "smollm2-135m-improved", True)
    assert len(Path(first.spec["data"][0]).read_text().splitlines()) == 1
    people.battle("b2", "How?", "good", "bad", "left")
    second = ordered(database, tmp_path)
    assert second.id != first.id and second.spec["out"] != first.spec["out"]
    assert len(Path(first.spec["data"][0]).read_text().splitlines()) == 1, "the first job's data stay as they were"


def test_a_model_that_was_trained_here_is_trained_on_from_its_folder(database: Database, tmp_path: Path) -> None:
    People(database).battle("b1", "Why?", "good", "bad", "left")
    order = ordered(database, tmp_path, model="mine")
    assert (order.spec["config"]["model"], order.name) == ("/trained/mine/model", "mine-improved")


def test_a_preset_for_answers_learns_preferences_at_a_tenth_of_its_rate(tmp_path: Path) -> None:
    config = preference_config("smollm2-135m", "", {"epochs": "2"})
    assert (config.objective, config.epochs) == ("dpo", 2)
    assert config.learning_rate == pytest.approx(read_training("smollm2-135m").learning_rate / 10)
    own = tmp_path / "own.yaml"
    own.write_text("{name: mine, model: smollm2-135m, objective: dpo, learning_rate: 3.0e-6}")
    assert preference_config(str(own), "", {}).learning_rate == 3e-6
