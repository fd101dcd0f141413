"""Fine-tunings through our Celery workers, on a real API server of SkyPilot over a real Slurm: `make test-sky`."""

import concurrent.futures
import subprocess
import sys
from pathlib import Path

import pytest

from pipelines.launching.sky import SkyPilot
from pipelines.launching.sky_target import SkyTarget
from pipelines.launching.targets import run_of
from services.places import ROOT
from tests.sky.conftest import SECRET, SkySystem
from tests.sky.lab.api_server import ApiServer
from tests.sky.lab.lab import tidy

pytestmark = [pytest.mark.sky, pytest.mark.timeout(1500)]


@pytest.fixture(scope="module", autouse=True)
def together(system: SkySystem) -> None:
    """These go on at the same time, since mostly they wait. The one that takes longest begins."""
    system.submit("preempted", spot=True, max_steps=20)
    system.wait_for(lambda: system.slurm_jobs("preempted"), "its job of Slurm")
    system.submit("cancelled", max_steps=100_000)
    system.submit("whole", max_steps=10)
    system.submit("refused", max_steps=30, model=str(system.lab.shared / "nothing"))


@pytest.fixture(scope="module")
def preemption(system: SkySystem) -> tuple[int, int]:
    """Takes the spot run's machine away. Its newest checkpoint just before that, and when its program has ended."""
    system.wait_for(lambda: system.checkpoints("preempted"), "a checkpoint")
    (job,) = system.slurm_jobs("preempted")
    before = system.checkpoints("preempted")[-1]
    system.lab.slurm.preempt(job)
    system.wait_for(lambda: not system.trains("preempted"), "the end of the program")
    return before, system.checkpoints("preempted")[-1]


def test_a_run_whose_machine_is_taken_away_saves_what_it_did(preemption: tuple[int, int]) -> None:
    before, saved = preemption
    assert before < saved < 20


def test_a_cancelled_run_ends_and_gives_its_machines_back(system: SkySystem) -> None:
    system.wait_for(lambda: system.checkpoints("cancelled"), "a checkpoint")
    system.jobs.cancel("cancelled")
    assert system.ended("cancelled").state == "cancelled"
    system.wait_for(lambda: not system.slurm_jobs("cancelled"), "the machines' return")


def test_a_run_streams_its_log_finishes_is_registered_and_gives_its_machines_back(system: SkySystem) -> None:
    job = system.ended("whole")
    assert job.state == "finished", job.error + system.log("whole")
    assert [point["step"] for point in system.jobs.points("whole")] == list(range(1, 11))
    assert "What is learnt of" in system.log("whole")
    assert "pid=" not in system.log("whole"), "SkyPilot's prefixes are taken off"
    assert system.trained.get("whole").path == str(system.out("whole") / "model")
    assert system.slurm_jobs("whole") == []


def test_nothing_that_is_kept_or_logged_holds_a_secret(system: SkySystem) -> None:
    """After the run above, which was given one."""
    kept = [path for path in Path(system.folder).rglob("*") if path.is_file()]
    system.redis.save()
    assert not [path for path in kept if SECRET.encode() in path.read_bytes()]


def test_a_program_that_refuses_its_model_fails_with_its_own_words(system: SkySystem) -> None:
    job = system.ended("refused")
    assert job.state == "failed"
    assert "nothing" in job.error, job.error
    assert system.slurm_jobs("refused") == []


def test_a_run_that_is_submitted_many_times_at_once_is_launched_once_and_is_an_orphan(system: SkySystem) -> None:
    """Nobody keeps its handle: as if whoever launched it died right after."""
    run = run_of(system.spec("twice", max_steps=100_000), "train-twice-0123abcd", "twice", {})
    with concurrent.futures.ThreadPoolExecutor(4) as pool:
        remotes = list(pool.map(lambda _: SkyTarget().submit(run), range(4)))
    assert len({remote["request"] for remote in remotes}) == 1
    system.wait_for(lambda: system.checkpoints("twice"), "a checkpoint")
    target = SkyTarget()
    assert target.poll(remotes[0]).state == "running"
    assert target.submit(run)["request"] == remotes[0]["request"], "also once it runs"
    assert len(SkyPilot().cluster_jobs(run.name)) == 1
    assert len(system.lab.slurm.queue(run.name)) == 1
    assert f"cluster {run.name}" in command(system, "orphans")
    assert system.lab.slurm.queue(run.name), "they are only listed"
    assert f"{run.name} is deleted" in command(system, "orphans", "--down")
    assert system.lab.slurm.queue(run.name) == []


def test_a_dry_run_says_the_choice_the_price_and_the_exact_task(system: SkySystem) -> None:
    answer = dry_run(system.environment)
    assert answer.returncode == 0, answer.stderr
    assert "the choice: Slurm (lab)" in answer.stdout and "no price is known" in answer.stdout
    assert "accelerators: A100-80GB:4" in answer.stdout and "  exec bash infra/sky/train.sh" in answer.stdout


def test_a_dry_run_without_a_cloud_says_which_command_sets_one_up(system: SkySystem, tmp_path: Path) -> None:
    server = ApiServer(tmp_path)
    try:
        answer = dry_run({**system.environment, **server.client})
    finally:
        server.stop()
        tidy(tmp_path)
    assert answer.returncode == 2, answer.stdout
    assert "aws configure" in answer.stderr and "sky check" in answer.stderr


def test_a_preempted_spot_run_recovers_and_goes_on_from_what_it_saved(
    system: SkySystem, preemption: tuple[int, int]
) -> None:
    """SkyPilot may recover it more than once: a busy machine may answer it too late."""
    _, saved = preemption
    ended = system.ended("preempted")
    assert ended.state == "finished", ended.error + system.log("preempted")
    progress = system.progress("preempted")
    resumes = [resume["step"] for resume in progress.resumes]
    assert 1 <= len(resumes) <= progress.outcome["recoveries"], "each is told once"
    assert resumes[0] >= saved and resumes == sorted(resumes)
    assert progress.outcome["recoveries"] > 1 or resumes == [saved]
    steps = [point["step"] for point in system.jobs.points("preempted")]
    assert [step for step in steps if step > resumes[-1]] == list(range(resumes[-1] + 1, 21))
    assert system.log("preempted").count("Going on from checkpoint-") == len(resumes)
    assert system.trained.get("preempted").step == 20
    system.wait_for(lambda: not system.lab.slurm.queue(), "the machines' return")


def dry_run(environment: dict[str, str]) -> "subprocess.CompletedProcess[str]":
    line = [sys.executable, "-m", "services.command", "train", "submit", "alpaca-7b", "--on", "sky", "--dry-run"]
    return subprocess.run(line, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)


def command(system: SkySystem, *arguments: str) -> str:
    line = [sys.executable, "-m", "pipelines.command.machines", *arguments]
    answer = subprocess.run(line, cwd=ROOT, env=system.environment, capture_output=True, text=True, check=False)
    assert answer.returncode == 0, answer.stderr
    return answer.stdout
