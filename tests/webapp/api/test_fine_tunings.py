"""`/v1/fine_tuning/jobs` of a real web process, with the pipelines that train: as a client of OpenAI uses them.

What trains is the stand-in of `tests/pipelines/launching/stand_in.py`; tests/clients trains a real model.
"""

import json
import os
import re
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from services.accounts.api_keys import ApiKeys
from services.errors import ConfigurationError
from services.jobs.fine_tunings import configured, told_hyperparameters
from services.openai.bodies import served
from services.openai.fine_tuning_bodies import FineTuningBody
from services.serving.trained_models import TrainedModel
from tests.end_to_end.system import wait_until
from tests.pipelines.celery.training_processes import Trainings, running_trainings
from tests.pipelines.launching.contract import STEPS, control
from tests.webapp.api.client import error_of

PATH = "/v1/fine_tuning/jobs"
KEY = {"Authorization": "Bearer mine"}
OTHER = {"Authorization": "Bearer theirs"}
LINE = b'{"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Hello"}]}\n'
OVER = ("succeeded", "failed", "cancelled")


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trainings]:
    with running_trainings(tmp_path_factory.mktemp("fine")) as system:
        yield system


@pytest.fixture(scope="module")
def trainer(system: Trainings) -> subprocess.Popen[bytes]:
    """The process that launches; the others run, too."""
    for role in ("beat", "worker"):
        system.role(role)
    return system.role("trainings")


@pytest.fixture(scope="module")
def url(system: Trainings) -> str:
    return system.web()


def upload(url: str, content: bytes = LINE, purpose: str = "fine-tune") -> str:
    form: Any = {"purpose": (None, purpose), "file": ("in.jsonl", content)}
    return str(requests.post(f"{url}/v1/files", files=form, headers=KEY, timeout=30).json()["id"])


def create(url: str, *, headers: dict[str, str] = KEY, **fields: Any) -> requests.Response:
    hyperparameters = {"max_steps": STEPS, **fields.pop("hyperparameters", {})}
    method = {"type": "supervised", "supervised": {"hyperparameters": hyperparameters}}
    body = {"model": "smollm2-135m", "method": method, **fields}
    return requests.post(url + PATH, json=body, headers=headers, timeout=30)


def get(url: str, rest: str, headers: dict[str, str] = KEY, **query: object) -> requests.Response:
    return requests.get(f"{url}{PATH}{rest}", headers=headers, params=query, timeout=30)  # type: ignore[arg-type]


def ended(url: str, job_id: str) -> Any:
    return wait_until(lambda: (body := get(url, f"/{job_id}").json())["status"] in OVER and body, "the end", 60)


def test_a_model_is_trained_served_and_told_in_openais_words(
    system: Trainings, trainer: subprocess.Popen[bytes], url: str
) -> None:
    file_id, checked = upload(url), upload(url, LINE)
    made = create(
        url,
        training_file=file_id,
        validation_file=checked,
        suffix="july",
        seed=7,
        metadata={"run": "1"},
        hyperparameters={"n_epochs": 2, "batch_size": 4, "learning_rate_multiplier": 0.5, "seq_len": 64},
    )
    assert made.status_code == 200 and made.json()["status"] == "queued", made.text
    body = ended(url, made.json()["id"])
    numbers = {"max_steps": STEPS, "batch_size": 4, "learning_rate_multiplier": 0.5}
    assert body == {
        "id": made.json()["id"], "object": "fine_tuning.job", "created_at": body["created_at"], "error": None,
        "fine_tuned_model": "smollm2-135m-july", "finished_at": body["finished_at"], "hyperparameters": numbers,
        "model": "smollm2-135m", "organization_id": "chatserver", "result_files": body["result_files"], "seed": 7,
        "status": "succeeded", "trained_tokens": None, "training_file": file_id, "validation_file": checked,
        "estimated_finish": None, "integrations": [], "metadata": {"run": "1"},
        "method": {"type": "supervised", "supervised": {"hyperparameters": numbers}},
    }  # fmt: skip
    config = system.jobs.get(body["id"]).spec["config"]
    assert (config["tokens_per_step"], config["eval_files"], config["max_refused"]) == (4 * 64, 1, 0.0)
    models = requests.get(f"{url}/v1/models", headers=KEY, timeout=30).json()["data"]
    assert "smollm2-135m-july" in {each["id"] for each in models}
    (result,) = body["result_files"]
    table = requests.get(f"{url}/v1/files/{result}/content", headers=KEY, timeout=30).text.splitlines()
    assert table[:2] == ["step,train_loss,valid_loss,learning_rate", "1,1.0,,1e-05"] and len(table) == 1 + STEPS
    described = requests.get(f"{url}/v1/files/{result}", headers=KEY, timeout=30).json()
    assert (described["purpose"], described["filename"]) == ("fine-tune-results", f"{body['id']}.csv")


def test_events_have_the_log_and_every_loss_newest_first_in_pages(
    system: Trainings, trainer: subprocess.Popen[bytes], url: str
) -> None:
    job_id = create(url, training_file=upload(url)).json()["id"]
    ended(url, job_id)
    first = get(url, f"/{job_id}/events", limit=5).json()
    rest = get(url, f"/{job_id}/events", limit=1000, after=first["last_id"]).json()["data"]
    assert first["has_more"] is True
    events = [*first["data"], *rest]
    assert len({each["id"] for each in events}) == len(events)
    assert [each["created_at"] for each in events] == sorted((each["created_at"] for each in events), reverse=True)
    losses = [each["data"] for each in events if each["type"] == "metrics"]
    assert losses == [{"step": step, "total_steps": STEPS, "train_loss": 1 / step} for step in range(STEPS, 0, -1)]
    assert re.match("finished: the model smollm2-135m-tuned.* is ready to be served", events[0]["message"])
    told = get(url, f"/{job_id}/checkpoints").json()["data"]
    assert [each["step_number"] for each in told] == [6, 4, 2]
    model = get(url, f"/{job_id}").json()["fine_tuned_model"]
    assert [each["fine_tuned_model_checkpoint"] for each in told] == [model, "", ""]


def test_a_running_job_is_cancelled_and_keeps_what_it_learnt(
    system: Trainings, trainer: subprocess.Popen[bytes], url: str
) -> None:
    os.kill(trainer.pid, signal.SIGSTOP)  # so that the program is held before its first step
    try:
        job_id = create(url, training_file=upload(url)).json()["id"]
        out = Path(system.jobs.get(job_id).spec["out"])
        control(out, "upto", "2")
    finally:
        os.kill(trainer.pid, signal.SIGCONT)
    wait_until(lambda: "step-2" in get(url, f"/{job_id}/events").text, "the second loss", 60)
    assert get(url, f"/{job_id}").json()["status"] == "running"
    assert requests.post(f"{url}{PATH}/{job_id}/cancel", headers=KEY, timeout=30).json()["status"] == "running"
    body = ended(url, job_id)
    assert (body["status"], body["fine_tuned_model"], body["result_files"]) == ("cancelled", None, [])
    assert (out / "checkpoints" / "checkpoint-2").is_dir()


def test_a_repeated_order_under_a_key_is_one_job_also_when_it_has_ended(
    trainer: subprocess.Popen[bytes], url: str
) -> None:
    """`Jobs.submit` would set a failed or cancelled job going again."""
    keyed, file_id = {**KEY, "Idempotency-Key": "once"}, upload(url)
    os.kill(trainer.pid, signal.SIGSTOP)  # so that the job cannot succeed before it is cancelled
    try:
        first = create(url, headers=keyed, training_file=file_id).json()
        assert create(url, headers=keyed, training_file=file_id).json()["id"] == first["id"]
        requests.post(f"{url}{PATH}/{first['id']}/cancel", headers=KEY, timeout=30)
    finally:
        os.kill(trainer.pid, signal.SIGCONT)
    ended(url, first["id"])
    requests.delete(f"{url}/v1/files/{file_id}", headers=KEY, timeout=30)
    again = create(url, headers=keyed, training_file=file_id).json()
    assert (again["id"], again["status"]) == (first["id"], "cancelled")


def test_a_failed_job_names_the_file_and_its_line(url: str, system: Trainings) -> None:
    """As the program of `tests/pipelines/training` tells it."""
    job_id = create(url, training_file=upload(url)).json()["id"]
    system.jobs.started(job_id)
    note = {"failure": "validation.jsonl:2: no answer", "faulty_file": "validation.jsonl"}
    system.jobs.note(job_id, "train", note)
    system.jobs.failed(job_id, note["failure"], f"failed: {note['failure']}")
    body = ended(url, job_id)
    assert body["error"] == {
        "code": "invalid_validation_file", "message": "validation.jsonl:2: no answer", "param": "validation_file",
    }  # fmt: skip
    newest = get(url, f"/{job_id}/events").json()["data"][0]
    assert (newest["level"], newest["message"]) == ("error", "failed: validation.jsonl:2: no answer")


def test_another_users_job_does_not_exist_and_a_list_has_pages(url: str) -> None:
    ids = [create(url, training_file=upload(url), metadata={"n": str(n)}).json()["id"] for n in range(3)]
    for rest in ("", "/events", "/checkpoints"):
        assert get(url, f"/{ids[0]}{rest}", OTHER).status_code == 404
    assert requests.post(f"{url}{PATH}/{ids[0]}/cancel", headers=OTHER, timeout=30).status_code == 404
    assert get(url, "", OTHER).json()["data"] == []
    first = get(url, "", limit=2).json()
    assert [each["id"] for each in first["data"]] == ids[:0:-1] and first["has_more"] is True
    assert get(url, "", limit=1, after=first["last_id"]).json()["data"][0]["id"] == ids[0]
    assert [each["id"] for each in get(url, "", **{"metadata[n]": "1"}).json()["data"]] == [ids[1]]


def test_a_fine_tuning_behind_a_thousand_other_jobs_is_listed(system: Trainings, url: str) -> None:
    """The list looked at the newest 1,000 jobs of everybody."""
    job_id = create(url, training_file=upload(url)).json()["id"]
    newer = {f"newer-{number}": 4e9 for number in range(1_000)}
    system.redis.zadd(system.keys.jobs, newer)  # type: ignore[arg-type]
    try:
        assert job_id in [each["id"] for each in get(url, "").json()["data"]]
    finally:
        system.redis.zrem(system.keys.jobs, *newer)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"model": "gpt-4o-mini"}, "model"),
        ({"model": "huggyllama/llama-7b"}, "preset"),  # two presets train it, with templates that differ
        ({"model": "/etc"}, "model"),
        ({"method": {"type": "reinforcement"}}, "method.type"),
        ({"suffix": "a b"}, "suffix"),
        ({"integrations": [{"type": "wandb", "wandb": {"project": "p"}}]}, "integrations"),
        ({"hyperparameters": {"n_epochs": 0}}, "method.supervised.hyperparameters.n_epochs"),
        ({"hyperparameters": {"seq_len": 3}}, "seq_len"),
        ({"hyperparameters": {"seq_len": "1024", "batch_size": 4}}, "seq_len"),
        ({"hyperparameters": {"n_epochs": 1, "epochs": 5}}, "epochs"),
        ({"hyperparameters": {"learning_rate_multiplier": 2, "learning_rate": 1e-5}}, "learning_rate"),
        ({"method": {"type": "dpo", "supervised": {"hyperparameters": {"n_epochs": 1}}}}, "method.supervised"),
        ({"hyperparameters": {"nonsense": 3}}, "nonsense"),
        ({"hyperparameters": {"per_device_tokens": 10**15}}, "per_device_tokens"),  # of which a list would be made
        ({"hyperparameters": {"model": "/etc"}}, "model"),
        ({"hyperparameters": {"preset": "/etc/passwd"}}, "preset"),
    ],
)
def test_a_wrong_order_is_refused_by_its_field(url: str, fields: dict[str, Any], field: str) -> None:
    refused = create(url, training_file=upload(url), **fields)
    assert refused.status_code == 400 and error_of(refused)["param"] == field, refused.text


def test_a_file_of_another_purpose_or_nobodys_is_refused(url: str) -> None:
    refused = create(url, training_file=upload(url, b"{}\n", "batch"))
    assert refused.status_code == 400 and error_of(refused)["param"] == "training_file"
    assert create(url, training_file=upload(url), validation_file="file-none").status_code == 404


def test_without_accounts_a_key_of_another_machine_trains_nothing(url: str, system: Trainings) -> None:
    """Its own requests are answered: the job pages, too, are for this machine alone."""
    secret = ApiKeys(system.redis, system.keys).create("remote", "remote")
    far = {"Authorization": f"Bearer {secret}", "X-Forwarded-For": "203.0.113.5"}
    assert requests.get(f"{url}/v1/models", headers=far, timeout=30).status_code == 200
    for refused in (create(url, headers=far, training_file="file-none"), get(url, "", far)):
        assert refused.status_code == 403 and error_of(refused)["code"] == "forbidden"


# -- what an order becomes -------------------------------------------------------------------------------------------


def ordered(trained: tuple[TrainedModel, ...] = (), **fields: Any) -> Any:
    """The configuration of a body."""
    return preset_and_config(trained, **fields)[1]


def preset_and_config(trained: tuple[TrainedModel, ...] = (), **fields: Any) -> Any:
    return configured(served({"training_file": "file-a", **fields}, FineTuningBody, {}), trained)


def test_pairs_are_trained_by_a_preset_for_pairs_or_at_a_tenth_of_the_rate() -> None:
    dpo = {"type": "dpo", "dpo": {"hyperparameters": {"beta": 0.3, "batch_size": 2}}}
    own = ordered(model="smollm2-135m", method=dpo)
    assert (own.objective, own.learning_rate, own.dpo_beta) == ("dpo", 5e-6, 0.3)
    assert own.tokens_per_step == 2 * 2 * own.seq_len
    assert ordered(model="vicuna-7b", method=dpo).learning_rate == pytest.approx(2e-6)
    assert ordered(model="smollm2-135m-kto").objective == "kto"


def test_a_trained_model_is_trained_further_by_the_preset_of_its_oldest_ancestor() -> None:
    july = TrainedModel("july", "/trained/july/model", "x", "j", 1.0, lineage=("smollm2-135m", "june"))
    config = ordered((july,), model="july", suffix="s" * 40)
    assert (config.model, config.name) == ("/trained/july/model", f"july-{'s' * 40}")
    assert (config.seq_len, config.learning_rate) == (512, 1e-4)
    vicuna = TrainedModel("vicuna-7b", "/trained/vicuna/model", "x", "j", 1.0, lineage=("huggyllama/llama-7b",))
    assert ordered((vicuna,), model="vicuna-7b").model == "/trained/vicuna/model"
    assert ordered(model="vicuna-7b").model == "huggyllama/llama-7b"


def test_a_model_that_several_presets_could_train_needs_the_name_of_one() -> None:
    """The first by the alphabet was taken: a Vicuna was trained further with Alpaca's template and 512 tokens."""
    mine = TrainedModel("mine", "/trained/mine/model", "x", "j", 1.0, lineage=("huggyllama/llama-7b",))
    for method in ("supervised", "dpo"):
        with pytest.raises(ConfigurationError, match="alpaca-7b, vicuna-7b") as refused:
            ordered((mine,), model="mine", method={"type": method})
        assert refused.value.field == "preset"
    assert ordered((mine,), model="mine", hyperparameters={"preset": "vicuna-7b"}).template == "vicuna-v1.1"
    assert ordered((mine,), model="vicuna-7b").template == "vicuna-v1.1"


@pytest.mark.parametrize("model", ["vicuna-7b", "smollm2-135m", "smollm2-135m-dpo"])
@pytest.mark.parametrize("method", ["supervised", "dpo"])
def test_the_multiplier_is_told_as_it_was_given(model: str, method: str) -> None:
    """It was told of the preset's rate for answers, of which pairs train at a tenth."""
    options = {"hyperparameters": {"learning_rate_multiplier": 2}}
    preset, config = preset_and_config(model=model, method={"type": method, method: options})
    assert told_hyperparameters(config, preset)["learning_rate_multiplier"] == pytest.approx(2)


def test_a_run_that_ends_by_its_steps_tells_no_epochs() -> None:
    preset, config = preset_and_config(model="smollm2-135m", hyperparameters={"max_steps": 5})
    told = told_hyperparameters(config, preset)
    assert told["max_steps"] == 5 and "n_epochs" not in told


def test_auto_and_the_older_place_of_the_hyperparameters_are_read() -> None:
    old = {"n_epochs": "auto", "batch_size": "auto", "learning_rate_multiplier": 2}
    config = ordered(model="smollm2-135m", hyperparameters=old)
    assert (config.epochs, config.tokens_per_step, config.learning_rate) == (3.0, 1024, pytest.approx(2e-4))


def test_hyperparameters_in_two_places_are_refused() -> None:
    method = {"type": "supervised", "supervised": {"hyperparameters": {"n_epochs": 1}}}
    with pytest.raises(ConfigurationError) as refused:
        ordered(model="smollm2-135m", method=method, hyperparameters={"n_epochs": 5})
    assert refused.value.field == "hyperparameters"


def test_the_data_of_a_job_are_deleted_with_it(url: str, system: Trainings) -> None:
    job_id = create(url, training_file=upload(url)).json()["id"]
    folder = system.folder / "jobs" / job_id
    assert json.loads((folder / "training.jsonl").read_bytes())
    requests.post(f"{url}{PATH}/{job_id}/cancel", headers=KEY, timeout=30)
    ended(url, job_id)
    removed = requests.delete(f"{url}/api/jobs/{job_id}", headers={"Origin": url}, timeout=30)
    assert removed.status_code == 200 and not folder.exists()
