"""Jobs on real Celery processes: run, followed, cancelled, failing, submitted again."""

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from pipelines.celery.admission import Admission
from pipelines.celery.cleaning_tasks import MAX_STARTS, CleaningTasks
from pipelines.celery.sweep import Sweep
from pipelines.cleaning.units import Unit
from services.connection.connect import server_time
from services.jobs.dispatch import Dispatch
from services.jobs.jobs import progress_of
from services.places import ROOT
from tests.end_to_end.system import wait_until
from tests.pipelines.celery.cleaning_processes import Pipelines, running_pipelines


@pytest.fixture(scope="module")
def pipelines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipelines]:
    folder = tmp_path_factory.mktemp("pipelines")
    with running_pipelines(folder, num_records=600, num_words=40, shard_mib=0.04) as system:
        yield system


@pytest.fixture(scope="module")
def worker(pipelines: Pipelines) -> subprocess.Popen[bytes]:
    """With a beat beside it."""
    pipelines.beat()
    return pipelines.worker()


@pytest.fixture
def tasks(pipelines: Pipelines) -> CleaningTasks:
    """Of this process: what it sends, a worker that starts later finds."""
    return CleaningTasks(pipelines.celery, pipelines.redis, pipelines.keys, pipelines.jobs, Admission())


@pytest.fixture
def sweep(pipelines: Pipelines, tasks: CleaningTasks) -> Sweep:
    return Sweep(pipelines.celery, pipelines.redis, pipelines.keys, {"clean": tasks.advance})


def chatserver(pipelines: Pipelines, *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "services.command", *arguments]
    return subprocess.run(
        command, cwd=ROOT, env=pipelines.environment, capture_output=True, text=True, timeout=90, check=False
    )


# -- without a worker: what one call of a task does --------------------------------------------------------------


def test_advance_sends_each_unit_once(pipelines: Pipelines, sweep: Sweep) -> None:
    pipelines.submit("once")
    sweep.advance("once")
    sweep.advance("once")
    sweep.sweep()
    assert pipelines.redis.llen(pipelines.keys.celery + "units") == 1, "read, which comes before all others"
    pipelines.redis.delete(pipelines.keys.celery + "units")
    pipelines.jobs.cancelled("once")


def test_a_unit_whose_process_died_too_often_is_given_up(
    pipelines: Pipelines, tasks: CleaningTasks, sweep: Sweep
) -> None:
    pipelines.submit("deadly")
    sweep.advance("deadly")
    dispatch = Dispatch(pipelines.redis, pipelines.keys, "deadly")
    for _ in range(MAX_STARTS):
        assert dispatch.take("read", "somewhere:1")
    tasks.unit("deadly", "read")
    job = pipelines.jobs.get("deadly")
    assert job.state == "failed" and "the process died 5 times" in job.error, job
    assert pipelines.submit("deadly").state == "submitted"
    sweep.advance("deadly")
    tasks.unit("deadly", "read")
    assert pipelines.cleaning("deadly").done(Unit("read")), "submitted again, it may die as often again"
    pipelines.jobs.cancelled("deadly")


def test_a_unit_that_another_process_holds_is_left_alone(
    pipelines: Pipelines, tasks: CleaningTasks, sweep: Sweep
) -> None:
    pipelines.submit("held")
    sweep.advance("held")
    with pipelines.cleaning("held").lock(Unit("read")) as ours:
        assert ours
        tasks.unit("held", "read")
    assert not pipelines.cleaning("held").done(Unit("read"))
    pipelines.jobs.cancelled("held")


def test_a_folder_of_another_run_fails_the_job_and_says_so(pipelines: Pipelines, sweep: Sweep) -> None:
    pipelines.submit("expected", recipe=pipelines.recipe.replace("0.1}", "0.2}"))
    sweep.advance("expected")
    job = pipelines.jobs.get("expected")
    assert job.state == "failed" and "another recipe" in job.error


def test_an_input_that_another_try_would_not_read_fails_the_job_at_once(
    pipelines: Pipelines, tasks: CleaningTasks, sweep: Sweep
) -> None:
    source = pipelines.folder / "mislabelled.jsonl.gz"
    source.write_text("this is no gzip")
    pipelines.submit("mislabelled", inputs=[str(source)])
    sweep.advance("mislabelled")
    tasks.unit("mislabelled", "read")
    job = pipelines.jobs.get("mislabelled")
    assert job.state == "failed" and "mislabelled.jsonl.gz" in job.error and "Traceback" not in job.error, job


# -- with a worker -----------------------------------------------------------------------------------------------


def test_a_job_runs_to_its_end(pipelines: Pipelines, worker: subprocess.Popen[bytes]) -> None:
    pipelines.submit("whole")
    pipelines.check("whole")
    lines = pipelines.lines("whole")
    assert lines[0].startswith("started: recipe shards") and lines[1].startswith("read 600 records into")
    assert lines[-1].startswith("finished: 600 records read, ")
    job = pipelines.jobs.get("whole")
    progress = progress_of(job, pipelines.jobs.units("whole"), server_time(pipelines.redis))
    assert progress.fraction == 1 and progress.num_done == progress.num_units > 8
    assert [step.label for step in progress.steps][:3] == ["read", "roles", "repair_unicode"]
    assert sum(progress.steps[1].rejected.values()) > 0


def test_a_cancel_ends_a_job_whose_one_record_takes_minutes(
    pipelines: Pipelines, worker: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    """Harmless lists, but many: the conversion of one record does not look up until it is done."""
    nested = "<ul><li>word" * 20 + "</li></ul>" * 20
    said = [{"from": "human", "value": "Lists?"}, {"from": "gpt", "value": f"<p>Here:</p>{nested * 12_000}"}]
    slow = tmp_path / "slow.json"
    slow.write_text(json.dumps([{"id": "slow", "conversations": said}]))
    recipe = "name: slow\nsteps: [html_to_markdown: {converter: markdownify}]\n"
    pipelines.submit("slow", recipe=recipe, inputs=[str(slow)])
    wait_until(lambda: any(name.startswith("shard") for name in _held(pipelines, "slow")), "the conversion", 30)
    begun = time.monotonic()
    pipelines.jobs.cancel("slow")
    assert pipelines.ended("slow").state == "cancelled"
    assert time.monotonic() - begun < 30, "minutes before"


def _held(pipelines: Pipelines, jid: str) -> Mapping[str, str]:
    return Dispatch(pipelines.redis, pipelines.keys, jid).read().held


def test_a_cancelled_job_ends_and_submitted_again_goes_on(
    pipelines: Pipelines, worker: subprocess.Popen[bytes]
) -> None:
    pipelines.submit("cancelled")
    wait_until(lambda: pipelines.times_done("cancelled"), "a shard that is done", 30)
    pipelines.jobs.cancel("cancelled")
    assert pipelines.ended("cancelled").state == "cancelled"
    pipelines.submit("cancelled")
    pipelines.check("cancelled")


def test_a_shard_that_fails_is_tried_again_and_told_while_the_others_finish(
    pipelines: Pipelines, worker: subprocess.Popen[bytes]
) -> None:
    cleaning = pipelines.cleaning("broken")
    cleaning.prepare()
    cleaning.do(Unit("read"))
    shard = pipelines.folder / "broken" / ".work" / "read" / "00001.jsonl"
    whole = shard.read_bytes()
    shard.write_bytes(whole[:-20])  # as a bad disk would
    pipelines.submit("broken")
    job = pipelines.ended("broken")
    assert job.state == "failed"
    assert job.error.startswith("1 of its units failed: shard-0-00001: ")
    assert "Traceback" in job.error and "JSONDecodeError" in job.error
    lines = pipelines.lines("broken")
    assert sum("shard-0-00001 failed, again in" in line for line in lines) == 2
    others = {f"shard-0-{number:05d}" for number in range(cleaning.num_shards)} - {"shard-0-00001"}
    assert set(pipelines.times_done("broken")) == others
    shard.write_bytes(whole)
    pipelines.submit("broken")
    pipelines.check("broken")


def test_the_command_submits_follows_and_shows(pipelines: Pipelines, worker: subprocess.Popen[bytes]) -> None:
    recipe, out = pipelines.folder / "r.yaml", pipelines.folder / "by command"
    recipe.write_text(pipelines.recipe)
    submit = ["clean", "submit", str(recipe), "--in", str(pipelines.source), "--out", str(out)]
    done = chatserver(pipelines, *submit, "--wait")
    assert done.returncode == 0, done.stderr
    assert "finished: 600 records read" in done.stdout
    assert pipelines.output("by command") == pipelines.expected
    jid = done.stdout.split("submitted as ")[1].split(";")[0]
    assert "is finished" in chatserver(pipelines, *submit).stdout, "the same folder is the same job"
    assert f"{jid}: finished: 600 records read, 180 rejected" in chatserver(pipelines, "jobs", "show", jid).stdout
    assert jid in chatserver(pipelines, "jobs", "list").stdout
    assert '"state": "finished"' in chatserver(pipelines, "jobs", "show", jid, "--json").stdout
    assert "started: recipe shards" in chatserver(pipelines, "jobs", "logs", "-f", jid).stdout
    assert chatserver(pipelines, "jobs", "remove", jid).returncode == 0
    assert chatserver(pipelines, "jobs", "show", jid).returncode == 1


def test_a_job_that_fails_is_told_by_the_exit_code(
    pipelines: Pipelines, worker: subprocess.Popen[bytes], tmp_path: Path
) -> None:
    recipe = tmp_path / "other.yaml"
    recipe.write_text(pipelines.recipe.replace("0.1}", "0.3}"))
    out = pipelines.folder / "expected"
    failed = chatserver(
        pipelines, "clean", "submit", str(recipe), "--in", str(pipelines.source), "--out", str(out), "--wait"
    )
    assert failed.returncode == 1 and "another recipe" in failed.stderr


def test_what_is_wrong_with_a_submission_is_said_at_once(pipelines: Pipelines, tmp_path: Path) -> None:
    recipe = tmp_path / "r.yaml"
    recipe.write_text("steps: [rolls]")
    wrong = chatserver(pipelines, "clean", "submit", str(recipe), "--in", str(pipelines.source), "--out", "x")
    assert wrong.returncode == 2 and "did you mean roles?" in wrong.stderr
    recipe.write_text(pipelines.recipe)
    absent = chatserver(pipelines, "clean", "submit", str(recipe), "--in", "nowhere.json", "--out", "x")
    assert absent.returncode == 2 and "nowhere.json is not a file" in absent.stderr


def test_both_programs_have_a_health_probe(pipelines: Pipelines, worker: subprocess.Popen[bytes]) -> None:
    for role in ("worker", "beat"):
        probe = chatserver(pipelines, "pipelines", role, "--check")
        assert probe.returncode == 0, probe.stderr
