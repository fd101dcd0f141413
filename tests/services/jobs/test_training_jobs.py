"""What is submitted for a fine-tuning: refused at the edge, with the value and the remedy."""

from pathlib import Path
from typing import Any

import pytest

from services.errors import ConfigurationError
from services.jobs.training import read_training
from services.jobs.training_jobs import (
    Place,
    check_unchanged,
    checked_out,
    difference_of,
    spec_config,
    training_spec,
)

CONFIG = read_training("smollm2-135m")


@pytest.fixture
def data(tmp_path: Path) -> str:
    (tmp_path / "data.jsonl").write_text('{"id": "a", "messages": []}\n')
    return str(tmp_path / "data.jsonl")


def test_a_spec_holds_all_that_the_run_needs(data: str, tmp_path: Path) -> None:
    spec = training_spec(CONFIG, [data], str(tmp_path / "out"), Place(num_devices=2))
    assert spec_config(spec) == CONFIG
    assert spec["data"] == [data] and spec["out"] == str(tmp_path / "out")
    assert (spec["on"], spec["spot"], spec["num_devices"], spec["num_nodes"]) == ("local", False, 2, 1)


def test_the_folder_of_a_cleaning_means_its_data(data: str) -> None:
    assert training_spec(CONFIG, [str(Path(data).parent)], "out", Place())["data"] == [data]


def test_this_machine_has_one_device_unless_told_otherwise(data: str) -> None:
    assert training_spec(CONFIG, [data], "out", Place())["num_devices"] == 1


@pytest.mark.parametrize(
    ("place", "out", "said"),
    [
        (Place(on="moon"), "out", "runs on local or sky, not on 'moon'"),
        (Place(spot=True), "out", "need `--on sky`"),
        (Place(num_nodes=2), "out", "need `--on sky`"),
        (Place(on="sky", num_devices=1), "run", "give a bucket, such as s3://my-bucket/run"),
        (Place(on="sky", num_devices=1), "ftp://x/run", "is not a bucket"),
        (Place(), "s3://bucket/run", "is not a folder"),
        (Place(num_devices=7), "out", "7 devices cannot share 1,024 tokens a step"),
    ],
)
def test_what_cannot_be_is_refused_with_a_remedy(data: str, place: Place, out: str, said: str) -> None:
    with pytest.raises(ConfigurationError) as caught:
        training_spec(CONFIG, [data], out, place)
    assert said in caught.value.message


def test_an_export_where_nothing_could_check_it_is_refused_before_machines_are_rented(data: str) -> None:
    config, place = CONFIG.model_copy(update={"export": "f16"}), Place(on="sky", num_devices=1)
    with pytest.raises(ConfigurationError, match="export='f16': SkyPilot machines have no openvino"):
        training_spec(config, [data], "s3://bucket/run", place)


def test_data_that_is_not_there_or_empty_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty.jsonl").touch()
    for name, said in (("nothing.jsonl", "not a file on this machine"), ("empty.jsonl", "is empty")):
        with pytest.raises(ConfigurationError, match=said):
            training_spec(CONFIG, [str(tmp_path / name)], "out", Place())


def test_a_bucket_is_taken_as_it_is_named() -> None:
    assert checked_out("s3://bucket/run/", "sky") == "s3://bucket/run"
    assert checked_out("/shared/run", "sky") == "/shared/run"


def test_a_configuration_of_another_version_says_so() -> None:
    spec: dict[str, Any] = {"config": {**CONFIG.model_dump(), "turbo": True}}
    with pytest.raises(ConfigurationError, match="the job's configuration: unknown field 'turbo'"):
        spec_config(spec)


def test_data_that_changed_under_its_name_is_another_job(data: str) -> None:
    """A changed file was submitted again, and the answer was exit 0 and the old model."""
    before = training_spec(CONFIG, [data], "out", Place())
    check_unchanged(before)
    Path(data).write_text('{"id": "b", "messages": []}\n')
    now = training_spec(CONFIG, [data], "out", Place())
    assert now != before
    assert difference_of(before, now) == "the data has another content"
    with pytest.raises(ConfigurationError, match="has changed since the job was submitted; submit it again"):
        check_unchanged(before)
    Path(data).unlink()
    with pytest.raises(ConfigurationError, match="is gone since"):
        check_unchanged(before)


def test_a_job_of_an_older_build_runs_though_it_notes_no_digest(data: str) -> None:
    spec = training_spec(CONFIG, [data], "out", Place())
    older = {name: value for name, value in spec.items() if name != "digests"}
    check_unchanged(older)
    assert difference_of(older, spec) == "nobody noted what the data held then"


@pytest.mark.parametrize("model", ["smollm2-135m", "."])
def test_a_model_that_rented_machines_cannot_read_is_refused(data: str, tmp_path: Path, model: str) -> None:
    (tmp_path / "config.json").write_text("{}")
    config = CONFIG.model_copy(update={"model": model if model != "." else str(tmp_path)})
    place = Place(on="sky", num_devices=1)
    with pytest.raises(ConfigurationError, match="SkyPilot machines cannot read it; give a hub id"):
        training_spec(config, [data], "s3://bucket/run", place)
    assert training_spec(config, [data], "/shared/run", place)["on"] == "sky"


def test_a_model_that_is_nowhere_is_refused_before_a_machine_is_rented(data: str) -> None:
    nowhere = CONFIG.model_copy(update={"model": "/nowhere/model"})
    with pytest.raises(ConfigurationError, match="is not a file, a folder or a hub id"):
        training_spec(nowhere, [data], "s3://bucket/run", Place(on="sky", num_devices=1))


def test_who_orders_a_run_on_this_machine_needs_no_package_of_its_model(
    data: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In containers the web app orders, and the trainer has the model."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert training_spec(CONFIG, [data], "out", Place())["config"]["model"] == "smollm2-135m"
