"""The API of fine-tunings without a browser: what may be ordered, what is told of a run, what is served."""

import json
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from werkzeug.test import TestResponse

from services.connection.embedded import EmbeddedServer
from services.jobs.jobs import Jobs, LogBatch
from services.jobs.previews import PreviewExample, PreviewResult, Previews
from services.jobs.signature import job_key
from services.jobs.training import read_training
from services.jobs.training_progress import UNIT, TrainingProgress
from services.machine.files import sha256_of
from services.serving.registry import Registry, WorkerInfo
from services.serving.trained_models import TrainedModel, TrainedModels
from services.settings import Settings
from services.wire.keys import TRAININGS_QUEUE, Keys
from tests.conftest import Eventually
from tests.webapp.jobs.test_routes import Page, code_of
from webapp.application import create_app


@pytest.fixture
def page(redis_server: EmbeddedServer, namespace: str, tmp_path: Path) -> Page:
    settings = Settings(redis_url=redis_server.url, namespace=namespace, state_dir=tmp_path)
    return Page(create_app(settings)[0].test_client())


@pytest.fixture
def jobs(redis_client: Redis, namespace: str) -> Jobs:
    return Jobs(redis_client, Keys(namespace))


@pytest.fixture
def previews(page: Page, redis_client: Redis, namespace: str, tmp_path: Path) -> Previews:
    return Previews(redis_client, Keys(namespace), job_key(Settings(state_dir=tmp_path)))


@pytest.fixture
def trained(redis_client: Redis, namespace: str) -> TrainedModels:
    return TrainedModels(redis_client, Keys(namespace))


@pytest.fixture
def cleaned(page: Page, jobs: Jobs, tmp_path: Path) -> str:
    """The id of a finished cleaning with one conversation."""
    jid = page.submitted()
    (tmp_path / "jobs" / jid / "data.jsonl").write_text('{"id": "a"}\n')
    assert jobs.started(jid) and jobs.finished(jid)
    return jid


def order(page: Page, data: str, **more: Any) -> TestResponse:
    body = {"key": "t" * 32, "preset": "smollm2-135m", "data": data, "name": "mine", "model": "", "on": "local"}
    return page.post("/api/trainings", {**body, **more})


def ordered(page: Page, data: str, **more: Any) -> str:
    made = order(page, data, **more)
    assert made.status_code == 201, made.text
    return str(made.json["job"]["id"])  # type: ignore[index]


def field_of(answer: TestResponse) -> str:
    assert (answer.status_code, code_of(answer)) == (400, "invalid_request"), answer.text
    return str(answer.json["error"]["field"])  # type: ignore[index]


def training(page: Page, jid: str, query: str = "") -> dict[str, Any]:
    answer = page.get(f"/api/jobs/{jid}{query}").json
    assert answer is not None
    return dict(answer["training"])


def registered(trained: TrainedModels, job: str, name: str = "mine") -> TrainedModel:
    return trained.register(TrainedModel(name, f"/trained/{job}/model", "smollm2-135m", job, 1.0))


# -- ordering --------------------------------------------------------------------------------------------------------


def test_what_may_be_chosen_is_told(page: Page, cleaned: str, trained: TrainedModels) -> None:
    page.submitted(key="u" * 32)  # not finished: not offered
    registered(trained, "other", "older")
    choices = page.get("/api/trainings").json
    assert choices is not None
    assert [preset["preset"] for preset in choices["presets"]] == [
        "alpaca-7b", "smollm2-135m", "smollm2-135m-dpo", "smollm2-135m-kto", "vicuna-13b", "vicuna-7b"
    ]  # fmt: skip
    assert choices["models"] == ["older", "smollm2-135m"]
    assert [(row["id"], row["bytes"]) for row in choices["data"]] == [(cleaned, 12)]


def test_the_lengths_of_the_data_are_those_that_its_cleaning_counted(page: Page, cleaned: str, tmp_path: Path) -> None:
    report = tmp_path / "jobs" / cleaned / "report.json"
    counted = {"records": 2, "tokens": 700, "tokens_of_record": {"128": 1, "512": 1}}
    for text, lengths in [
        (json.dumps({"after": {"train": {**counted, "turns": 4}}}), counted),
        (json.dumps({"after": {"train": {**counted, "tokens_of_record": {}}}}), None),
        ("{}", None),
        ("no JSON", None),
    ]:
        report.write_text(text)
        assert page.get("/api/trainings").json["data"][0]["lengths"] == lengths, text  # type: ignore[index]
    report.unlink()
    assert page.get("/api/trainings").json["data"][0]["lengths"] is None  # type: ignore[index]


def test_the_speed_of_the_newest_fine_tuning_of_a_model_is_told(page: Page, jobs: Jobs, cleaned: str) -> None:
    for key, rate in (("1", 40.0), ("2", 60.0), ("3", None)):
        jid = ordered(page, cleaned, key=key * 32)
        assert jobs.started(jid)
        progress = TrainingProgress(tokens_per_s=rate)
        assert jobs.follow(jid, LogBatch("", "1", UNIT, progress.as_note()))
    assert page.get("/api/trainings").json["rates"] == [  # type: ignore[index]
        {"model": "smollm2-135m", "method": "full", "on": "local", "tokens_per_s": 60.0}
    ]


def test_an_order_becomes_the_job_of_the_command(page: Page, jobs: Jobs, cleaned: str, tmp_path: Path) -> None:
    jid = ordered(page, cleaned, numbers={"epochs": "1.5", "learning_rate": "", "max_steps": "7"})
    job = jobs.get(jid)
    assert (job.kind, job.name, job.state) == ("train", "mine", "submitted")
    assert job.spec == {
        "config": read_training("smollm2-135m", {"name": "mine", "epochs": 1.5, "max_steps": 7}).model_dump(
            mode="json"
        ),
        "data": [str(tmp_path / "jobs" / cleaned / "data.jsonl")],
        "digests": [sha256_of(tmp_path / "jobs" / cleaned / "data.jsonl")],
        "out": str(tmp_path / "trained" / f"mine-{jid[:8]}"),
        "on": "local",
        "spot": False,
        "num_devices": 1,
        "num_nodes": 1,
        "infra": "",
        "env": {},
    }


def test_an_order_that_is_sent_again_makes_no_second_job(page: Page, jobs: Jobs, cleaned: str) -> None:
    assert ordered(page, cleaned) == ordered(page, cleaned)
    assert [job.kind for job in jobs.list()] == ["train", "clean"]


# -- previews --------------------------------------------------------------------------------------------------------


def previewed(page: Page, data: str, **more: Any) -> TestResponse:
    body = {"key": "p" * 32, "preset": "smollm2-135m", "data": data, "name": "mine", "model": "", "on": "local"}
    return page.post("/api/trainings/previews", {**body, **more})


def test_a_preview_is_ordered_signed_and_told_without_the_servers_paths(
    page: Page, previews: Previews, cleaned: str, tmp_path: Path
) -> None:
    answer = previewed(page, cleaned, numbers={"seq_len": "256"})
    assert answer.status_code == 201, answer.text
    told = answer.json["preview"]  # type: ignore[index]
    empty = {"lines": [], "examples": [], "problem": ""}
    assert told == {"id": told["id"], "state": "waiting", **empty}
    preview = previews.get(told["id"])
    assert previews.signed(preview)
    assert preview.spec["data"] == [str(tmp_path / "jobs" / cleaned / "data.jsonl")]
    assert preview.spec["config"]["seq_len"] == 256
    stretches = (("Hi", False), ("<i>Ho</i>", True))
    previews.end(preview, PreviewResult(("1 conversation",), (PreviewExample("data.jsonl:1", stretches),)))
    answer = page.get(f"/api/trainings/previews/{told['id']}")
    assert answer.json["preview"] == {  # type: ignore[index]
        "id": told["id"],
        "state": "ended",
        "lines": ["1 conversation"],
        "examples": [{"where": "data.jsonl:1", "stretches": [["Hi", False], ["<i>Ho</i>", True]]}],
        "problem": "",
    }
    assert str(tmp_path) not in answer.text


def test_a_preview_makes_no_job_and_wakes_the_trainings_workers_once(
    page: Page, jobs: Jobs, redis_client: Redis, namespace: str, cleaned: str, eventually: Eventually
) -> None:
    queue = Keys(namespace).celery + TRAININGS_QUEUE
    ids = {previewed(page, cleaned, key=key * 32).json["preview"]["id"] for key in "pq"}  # type: ignore[index]
    assert len(ids) == 1
    eventually(lambda: redis_client.llen(queue) > 0)
    assert redis_client.llen(queue) == 1
    assert [job.kind for job in jobs.list()] == ["clean"]


def test_a_preview_for_the_sky_needs_no_bucket(page: Page, cleaned: str) -> None:
    assert previewed(page, cleaned, on="sky", preset="vicuna-7b").status_code == 201


def test_an_order_that_is_refused_gets_no_preview_either(page: Page, cleaned: str) -> None:
    assert field_of(previewed(page, cleaned, numbers={"seq_len": "many"})) == "seq_len"
    assert field_of(previewed(page, "")) == "data"
    assert field_of(previewed(page, cleaned, model="/etc")) == "model"


def test_a_preview_that_is_gone_says_what_to_do(page: Page) -> None:
    answer = page.get("/api/trainings/previews/" + "0" * 32)
    assert answer.status_code == 410 and "press Preview again" in answer.text


def test_the_sky_takes_a_bucket_and_spot_machines(
    page: Page, jobs: Jobs, cleaned: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "train-vicuna.yaml").write_text("resources: {accelerators: A100-80GB:8}")
    monkeypatch.setattr("services.jobs.training_jobs.SKY_DIR", tmp_path)
    answer = order(page, cleaned, on="sky", preset="vicuna-7b", spot=True)
    assert field_of(answer) == "out"
    jid = ordered(page, cleaned, on="sky", preset="vicuna-7b", spot=True, out="s3://mine/run")
    spec = jobs.get(jid).spec
    assert (spec["on"], spec["spot"], spec["out"], spec["num_devices"]) == ("sky", True, "s3://mine/run", 8)


@pytest.mark.parametrize("out", ["/etc", "relative", "", "http://evil.example/x", "file:///etc"])
def test_no_folder_of_any_machine_is_written_by_an_order(page: Page, cleaned: str, out: str) -> None:
    assert field_of(order(page, cleaned, on="sky", preset="vicuna-7b", out=out)) == "out"


@pytest.mark.parametrize("preset", ["/etc/passwd", "../training/vicuna-7b", "vicuna-7b.yaml", "", "nope"])
def test_a_preset_is_one_of_ours_and_no_file(page: Page, cleaned: str, preset: str) -> None:
    assert field_of(order(page, cleaned, preset=preset)) == "preset"


@pytest.mark.parametrize("model", ["/etc", "../models", "gpt2", "huggyllama/llama-7b", "file.gguf", "~"])
def test_a_model_is_the_presets_or_packaged_or_trained_here(page: Page, cleaned: str, model: str) -> None:
    answer = order(page, cleaned, model=model)
    assert field_of(answer) == "model"
    assert "chatserver train submit" in answer.text


def test_what_was_trained_here_can_be_trained_further(
    page: Page, jobs: Jobs, cleaned: str, trained: TrainedModels
) -> None:
    registered(trained, "other", "older")
    jid = ordered(page, cleaned, model="older")
    assert jobs.get(jid).spec["config"]["model"] == "/trained/other/model"
    assert training(page, jid)["config"]["model"] == "older"
    answer = order(page, cleaned, model="older", on="sky", out="s3://mine/run", key="u" * 32)
    assert field_of(answer) == "model"


def test_an_adapter_is_not_offered_as_a_base(page: Page, cleaned: str, trained: TrainedModels) -> None:
    trained.register(TrainedModel("low", "/trained/other/adapter", "smollm2-135m", "other", 1.0, kind="adapter"))
    assert page.get("/api/trainings").json["models"] == ["smollm2-135m"]  # type: ignore[index]
    assert field_of(order(page, cleaned, model="low")) == "model"


def test_a_model_in_a_bucket_is_not_offered_as_a_base(page: Page, cleaned: str, trained: TrainedModels) -> None:
    trained.register(TrainedModel("far", "s3://mine/run/model", "smollm2-135m", "other", 1.0))
    assert page.get("/api/trainings").json["models"] == ["smollm2-135m"]  # type: ignore[index]
    assert field_of(order(page, cleaned, model="far")) == "model"


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("epochs", "0"), ("epochs", "many"), ("epochs", "nan"), ("learning_rate", "2"), ("learning_rate", "-1"),
        ("seq_len", "8"), ("seq_len", "1.5"), ("seq_len", "4096"), ("max_steps", "-1"), ("eval_fraction", "0.9"),
    ],
)  # fmt: skip
def test_a_wrong_number_is_told_at_its_field(page: Page, jobs: Jobs, cleaned: str, field: str, value: str) -> None:
    answer = order(page, cleaned, numbers={field: value})
    assert field_of(answer) == field
    assert value in answer.json["error"]["message"]  # type: ignore[index]
    assert len(jobs.list()) == 1


@pytest.mark.parametrize("name", ["", "../up", "with space", ".hidden", "n" * 65])
def test_a_name_is_fit_for_a_folder(page: Page, cleaned: str, name: str) -> None:
    assert field_of(order(page, cleaned, name=name)) == "name"


@pytest.mark.parametrize("numbers", [{"wandb": "true"}, {"sky": "x.yaml"}, {"model": "/etc"}, {"template": "x"}, []])
def test_nothing_else_of_a_configuration_can_be_set(page: Page, cleaned: str, numbers: object) -> None:
    assert order(page, cleaned, numbers=numbers).status_code == 400


@pytest.mark.parametrize("key", ["", "short", "k" * 65, "../" * 10, None, 5])
def test_an_order_has_a_key(page: Page, cleaned: str, key: object) -> None:
    assert order(page, cleaned, key=key).status_code == 400


def test_data_is_a_finished_cleaning_whose_file_is_there(page: Page, jobs: Jobs, cleaned: str, tmp_path: Path) -> None:
    waiting = page.submitted(key="u" * 32)
    training_job = ordered(page, cleaned)
    for data in ("", "unknown", "../..", waiting, training_job):
        assert field_of(order(page, data, key="v" * 32)) == "data"
    path = tmp_path / "jobs" / cleaned / "data.jsonl"
    path.write_text("")
    assert field_of(order(page, cleaned, key="v" * 32)) == "data"
    path.unlink()
    path.symlink_to("/etc/passwd")
    assert field_of(order(page, cleaned, key="v" * 32)) == "data"


def test_data_that_is_being_learned_is_not_removed(page: Page, jobs: Jobs, cleaned: str) -> None:
    jid = ordered(page, cleaned)
    answer = page.delete(f"/api/jobs/{cleaned}")
    assert (answer.status_code, code_of(answer)) == (409, "conflict")
    jobs.cancel(jid)
    assert page.delete(f"/api/jobs/{cleaned}").status_code == 200


# -- looking ---------------------------------------------------------------------------------------------------------


def tells(jobs: Jobs, jid: str, *points: dict[str, Any]) -> None:
    cursor = jobs.get(jid).cursor
    assert jobs.follow(jid, LogBatch(cursor, f"{cursor}.", UNIT, {}, points=points))


def test_points_are_told_once_and_those_of_a_resume_again(page: Page, jobs: Jobs, cleaned: str) -> None:
    jid = ordered(page, cleaned)
    for step in (1, 2, 3):
        tells(jobs, jid, {"step": step, "loss": 1.0 / step, "lr": 1e-4})
    assert [point["step"] for point in training(page, jid)["points"]] == [1, 2, 3]
    assert [point["step"] for point in training(page, jid, "?point=2")["points"]] == [3]
    tells(jobs, jid, {"step": 3, "loss": 9.0, "lr": 1e-4})
    assert training(page, jid, "?point=2")["points"] == [{"step": 3, "loss": 9.0, "lr": 1e-4}]


@pytest.mark.parametrize("point", ["x", "-2", "1.5", "9" * 20, "²"])
def test_a_point_is_a_step(page: Page, cleaned: str, point: str) -> None:
    assert page.get(f"/api/jobs/{cleaned}?point={point}").status_code == 400


def test_what_was_noted_is_told(page: Page, jobs: Jobs, cleaned: str) -> None:
    jid = ordered(page, cleaned)
    assert jobs.started(jid)
    outcome = {"state": "recovering", "message": "taken away", "recoveries": 1, "cost_usd": 1.25, "seconds": 60}
    progress = TrainingProgress(records=30, of=120, loss=1.5, evals=[{"step": 20, "loss": 1.7}], outcome=outcome)
    jobs.note(jid, UNIT, progress.as_note())
    told = training(page, jid)
    assert (told["records"], told["of"], told["loss"], told["evals"]) == (30, 120, 1.5, [{"step": 20, "loss": 1.7}])
    assert {**told["remote"], **outcome} == told["remote"] and told["remote"]["on"] == "local"
    assert told["config"]["name"] == "mine" and told["serving"] is None
    listed = page.get("/api/jobs").json["jobs"][0]  # type: ignore[index]
    assert (listed["kind"], listed["fraction"], listed["phase"]) == ("train", 0.25, "recovering")


def test_a_cancelled_fine_tuning_says_at_once_what_it_still_does(page: Page, jobs: Jobs, cleaned: str) -> None:
    """It said nothing for a minute."""
    jid = ordered(page, cleaned)
    assert jobs.started(jid)
    progress = TrainingProgress(records=30, of=120, eta_s=90.0, checkpoints=[{"step": 20, "seconds": 50.0}])
    jobs.note(jid, UNIT, progress.as_note())
    assert training(page, jid)["stopping"] == ""
    assert page.post(f"/api/jobs/{jid}/cancel", {}).status_code == 200
    assert training(page, jid)["stopping"] == "stopping: the trainer saves its checkpoint (about 51 s)"


def test_a_fine_tuning_that_nobody_has_begun_is_shown(page: Page, cleaned: str) -> None:
    told = training(page, ordered(page, cleaned))
    assert (told["records"], told["of"], told["points"], told["plan"]) == (0, 0, [], {})


def test_a_fine_tuning_has_no_files_for_download(page: Page, jobs: Jobs, cleaned: str, tmp_path: Path) -> None:
    jid = ordered(page, cleaned)
    out = Path(jobs.get(jid).spec["out"])
    out.mkdir(parents=True)
    (out / "data.jsonl").write_text("x")
    assert jobs.started(jid) and jobs.finished(jid)
    assert page.get(f"/api/jobs/{jid}/files/data").status_code == 410


def test_removing_a_fine_tuning_frees_its_checkpoints_and_leaves_its_model(
    page: Page, jobs: Jobs, cleaned: str
) -> None:
    jid = ordered(page, cleaned)
    out = Path(jobs.get(jid).spec["out"])
    for name in ("model", "checkpoints/checkpoint-2", ".run"):
        (out / name).mkdir(parents=True)
    jobs.cancel(jid)
    assert page.get(f"/api/jobs/{jid}").json["removes_files"] is True  # type: ignore[index]
    assert page.delete(f"/api/jobs/{jid}").status_code == 200
    assert [path.name for path in out.iterdir()] == ["model"] and page.get(f"/api/jobs/{jid}").status_code == 410


# -- serving ---------------------------------------------------------------------------------------------------------


def test_a_model_is_served_and_no_longer_when_asked(
    page: Page, jobs: Jobs, cleaned: str, trained: TrainedModels, redis_client: Redis, namespace: str
) -> None:
    jid = ordered(page, cleaned)
    assert page.post(f"/api/jobs/{jid}/serve", {}).status_code == 409
    name = registered(trained, jid).name
    asked = page.post(f"/api/jobs/{jid}/serve", {}).json
    assert asked is not None
    assert (asked["serving"]["name"], asked["serving"]["wanted"], asked["serving"]["workers"]) == (name, True, 0)
    assert trained.is_wanted(name)
    worker = WorkerInfo("w", name, "torch", 4, 0, 0.0, 2048, "here", 1, 0.0)
    Registry(redis_client, Keys(namespace)).announce(worker)
    assert training(page, jid)["serving"]["workers"] == 1
    page.post(f"/api/jobs/{jid}/serve", {"wanted": False})
    assert not trained.is_wanted(name)


def test_of_a_model_and_its_adapter_the_page_serves_the_model_and_names_the_adapter(
    page: Page, cleaned: str, trained: TrainedModels
) -> None:
    jid = ordered(page, cleaned)
    adapter = TrainedModel("mine-adapter", f"/trained/{jid}/adapter", "smollm2-135m", jid, 1.0, kind="adapter")
    trained.register(adapter)
    alone = training(page, jid)["serving"]
    assert (alone["name"], alone["kind"], alone["lineage"]) == ("mine-adapter", "adapter", ["smollm2-135m"])
    registered(trained, jid)
    both = training(page, jid)["serving"]
    assert (both["name"], both["kind"], both["adapter"]) == ("mine", "model", "mine-adapter")


def test_why_a_model_could_not_be_loaded_is_told(page: Page, cleaned: str, trained: TrainedModels) -> None:
    jid = ordered(page, cleaned)
    trained.complain(registered(trained, jid).name, "it is not on this disk")
    assert training(page, jid)["serving"]["trouble"] == "it is not on this disk"


def test_each_job_serves_its_own_model_when_two_have_one_name(page: Page, cleaned: str, trained: TrainedModels) -> None:
    first, second = ordered(page, cleaned), ordered(page, cleaned, key="s" * 32)
    registered(trained, first)
    registered(trained, second)
    assert [training(page, jid)["serving"]["name"] for jid in (first, second)] == ["mine", "mine-2"]


@pytest.mark.parametrize("body", [{"wanted": "yes"}, {"wanted": 1}, [], "x"])
def test_wanted_is_true_or_false(page: Page, cleaned: str, body: object) -> None:
    assert page.post(f"/api/jobs/{cleaned}/serve", body).status_code == 400


def test_a_note_of_another_version_does_not_hide_the_job(page: Page, jobs: Jobs, cleaned: str) -> None:
    jid = ordered(page, cleaned)
    jobs.note(jid, UNIT, json.loads('{"state": "running", "records": 5, "of_tomorrow": {}}'))
    assert training(page, jid)["records"] == 5
