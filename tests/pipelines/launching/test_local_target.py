"""Runs on this machine: the contract of targets, and what only happens here."""

import os
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pipelines.launching import local_target
from pipelines.launching.local_target import MAX_DEATHS, LocalTarget, processes, signal_all, supervisors
from pipelines.launching.targets import Run, run_name
from services.jobs.training import STOPPED_EXIT, checked_training
from services.places import ROOT
from tests.end_to_end.system import wait_until
from tests.pipelines.launching.contract import STEPS, TargetContract, control

PROGRAM = (sys.executable, "-m", "tests.pipelines.launching.stand_in")


def a_run(out: Path, **fields: Any) -> Run:
    config = checked_training({"name": "tiny", "model": "tiny", "max_steps": STEPS})
    whole = {
        "name": run_name(out.name, 1.0),
        "jid": out.name,
        "config": config,
        "data": (out / "data.jsonl",),
        "out": str(out),
    }
    return Run(**{**whole, **fields})


class LocalStage:
    """Under a folder; everything that still runs is killed at the end."""

    patience_s = 30.0

    def __init__(self, folder: Path) -> None:
        self.target = LocalTarget(PROGRAM)
        self._folder = folder
        self.runs: list[Run] = []

    def run(self, name: str) -> Run:
        run = a_run(self._folder / name)
        control(Path(run.out), "upto", "0")
        self.runs.append(run)
        return run

    def let(self, run: Run, upto: int) -> None:
        control(Path(run.out), "upto", str(upto))

    def misbehave(self, run: Run, at: int, how: str) -> None:
        control(Path(run.out), "do", how)
        control(Path(run.out), "at", str(at))

    def starts(self, run: Run) -> int:
        path = Path(run.out) / "starts"
        return len(path.read_text().splitlines()) if path.exists() else 0

    def take_away(self, run: Run, remote: dict[str, Any]) -> None:
        kill(run)

    def close(self) -> None:
        for run in self.runs:
            kill(run)


def kill(run: Run) -> None:
    """SIGKILL to all of a run at once, as a power failure; gone when this returns."""
    signal_all(processes(run.name), signal.SIGKILL)
    wait_until(lambda: not processes(run.name), "the death of the run", 10)


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[LocalStage]:
    made = LocalStage(tmp_path)
    yield made
    made.close()


class TestContract(TargetContract):
    """Of this machine."""


def lines(stage: LocalStage, remote: dict[str, Any]) -> list[str]:
    return TargetContract.all_lines(stage, remote)


def wait_for_line(stage: LocalStage, remote: dict[str, Any], text: str) -> None:
    TargetContract().wait_for_line(stage, remote, text)


def test_a_killed_supervisor_has_the_program_save_and_the_run_goes_on(stage: LocalStage) -> None:
    run = stage.run("supervisor")
    remote = stage.target.submit(run)
    stage.let(run, 3)
    wait_for_line(stage, remote, "step 3 is done")
    signal_all(supervisors(run.name), signal.SIGKILL)
    wait_until(lambda: stage.target.poll(remote).recoveries == 1, "the next start", 20)
    stage.let(run, STEPS)
    assert TargetContract.ended(stage, remote).state == "finished"
    told = lines(stage, remote)
    assert "stopped after step 3" in told and any('"event":"resumed","step":3' in line for line in told)


def test_a_program_never_runs_twice_though_its_supervisor_was_killed(stage: LocalStage) -> None:
    run = stage.run("twice")
    remote = stage.target.submit(run)
    wait_for_line(stage, remote, '"event":"plan"')
    program = int((Path(run.out) / "starts").read_text())
    os.kill(program, signal.SIGSTOP)  # it does not end when it is told to
    signal_all(supervisors(run.name), signal.SIGKILL)
    wait_until(lambda: not supervisors(run.name), "the supervisor's death")
    assert stage.target.poll(remote).recoveries == 0 and stage.target.submit(run) == remote
    assert stage.starts(run) == 1
    wait_until(lambda: stage.target.poll(remote).recoveries == 1, "the next start, once the first is killed", 20)
    assert program not in processes(run.name)


def test_an_end_by_sigterm_is_no_crash(stage: LocalStage) -> None:
    run = stage.run("sigterm")
    remote = stage.target.submit(run)
    for number in range(MAX_DEATHS + 1):
        wait_until(lambda: stage.starts(run) == number + 1, "a start")  # noqa: B023
        wait_until(lambda: stage.target.poll(remote).state == "running", "its first word")
        signal_all(supervisors(run.name), signal.SIGTERM)
        wait_until(lambda: stage.target.poll(remote).recoveries == number + 1, "the next start", 20)  # noqa: B023
    assert stage.target.poll(remote).state in ("recovering", "running")


def test_a_crash_without_progress_is_given_up_and_told(stage: LocalStage) -> None:
    run = stage.run("crash")
    stage.misbehave(run, 1, "crash")
    stage.let(run, STEPS)
    remote = stage.target.submit(run)
    outcome = TargetContract.ended(stage, remote)
    assert outcome.state == "failed" and stage.starts(run) == MAX_DEATHS
    assert "exit code 1" in outcome.message and "RuntimeError: the stand-in crashed" in outcome.message


def test_a_crash_after_progress_is_tried_again(stage: LocalStage) -> None:
    run = stage.run("progress")
    remote = stage.target.submit(run)
    for step in (3, 5):
        stage.misbehave(run, step, "crash once")
        stage.let(run, step)
        wait_until(lambda: stage.target.poll(remote).recoveries == (1 if step == 3 else 2), "a start", 20)  # noqa: B023
        wait_for_line(stage, remote, f'"event":"resumed","step":{step - 1}')
    stage.let(run, STEPS)
    assert TargetContract.ended(stage, remote).state == "finished"


@pytest.mark.parametrize("code", [2, 3])
def test_what_the_program_said_of_its_refusal_is_told(stage: LocalStage, code: int) -> None:
    run = stage.run(f"refused-{code}")
    stage.misbehave(run, 1, str(code))
    stage.let(run, STEPS)
    outcome = TargetContract.ended(stage, stage.target.submit(run))
    assert (outcome.state, outcome.message) == ("failed", "the stand-in was told to fail")


def test_a_run_of_another_name_in_a_folder_at_work_is_the_one_that_works(stage: LocalStage) -> None:
    """As when Redis has lost a job, and it is submitted again while it runs."""
    run = stage.run("lost")
    remote = stage.target.submit(run)
    assert stage.target.submit(replace(run, name=run_name("lost", 2.0))) == remote
    stage.let(run, STEPS)
    assert TargetContract.ended(stage, remote).state == "finished" and stage.starts(run) == 1


def test_a_run_submitted_again_after_its_end_tells_no_line_of_the_first(stage: LocalStage) -> None:
    run = stage.run("again")
    remote = stage.target.submit(run)
    stage.let(run, 3)
    wait_for_line(stage, remote, "step 3 is done")
    stage.target.cancel(remote)
    assert TargetContract.ended(stage, remote).state == "cancelled"
    second = replace(run, name=run_name("again", 2.0))
    stage.runs.append(second)
    remote = stage.target.submit(second)
    stage.let(run, STEPS)
    assert TargetContract.ended(stage, remote).state == "finished"
    assert [line for line in lines(stage, remote) if line.startswith("step ")] == [
        f"step {n} is done" for n in range(4, STEPS + 1)
    ]


def test_a_program_that_ignores_a_cancel_is_killed(stage: LocalStage, monkeypatch: pytest.MonkeyPatch) -> None:
    run = stage.run("stubborn")
    remote = stage.target.submit(run)
    wait_for_line(stage, remote, '"event":"plan"')
    for pid in processes(run.name):
        os.kill(pid, signal.SIGSTOP)
    stage.target.cancel(remote)
    assert stage.target.poll(remote).state == "running"
    monkeypatch.setattr(local_target, "KILL_AFTER_S", 0.0)
    stage.target.cancel(remote)
    assert TargetContract.ended(stage, remote).state == "cancelled"


def test_a_line_that_a_kill_cut_is_a_line_of_its_own(stage: LocalStage) -> None:
    run = stage.run("cut")
    stage.misbehave(run, 1, "print ")
    remote = stage.target.submit(run)
    wait_for_line(stage, remote, '"event":"plan"')
    with (Path(run.out) / ".run" / "train.log").open("a") as log:
        log.write("half a li")
    assert "half a li" not in lines(stage, remote), "it may go on"
    kill(run)  # of a dying process the environment goes before its open files, and with them the lock
    wait_until(lambda: lines(stage, remote)[-1] == "half a li", "a line without an end, as nobody can end it")
    wait_until(lambda: stage.target.poll(remote).recoveries == 1, "the next start")
    stage.let(run, STEPS)
    assert TargetContract.ended(stage, remote).state == "finished"
    told = lines(stage, remote)
    assert told.count("half a li") == 1 and "step 1 is done" in told


def test_a_secret_is_in_the_program_s_environment_and_in_no_file(stage: LocalStage) -> None:
    run = stage.run("secret")
    remote = stage.target.submit(replace(run, secrets={"HF_TOKEN": "hf_confidential"}, env={"WANDB_MODE": "offline"}))
    wait_for_line(stage, remote, '"event":"plan"')
    environ = Path(f"/proc/{int((Path(run.out) / 'starts').read_text())}/environ").read_bytes()
    assert b"HF_TOKEN=hf_confidential" in environ and b"WANDB_MODE=offline" in environ
    written = [path.read_bytes() for path in Path(run.out).rglob("*") if path.is_file()]
    assert written and not any(b"hf_confidential" in data for data in written)


def test_the_next_start_has_the_secrets_too(stage: LocalStage) -> None:
    stage.target = LocalTarget(PROGRAM, {"HF_TOKEN": "hf_confidential"})
    run = stage.run("secret-again")
    remote = stage.target.submit(run)
    wait_for_line(stage, remote, '"event":"plan"')
    kill(run)
    wait_until(lambda: stage.target.poll(remote).recoveries and stage.starts(run) == 2, "the next start")
    pid = (Path(run.out) / "starts").read_text().split()[-1]
    assert b"HF_TOKEN=hf_confidential" in Path(f"/proc/{pid}/environ").read_bytes()


def test_what_one_of_several_processes_says_of_its_end_counts(stage: LocalStage) -> None:
    """The bare launcher makes 1 of every exit code. (It may end the others before they have begun.)"""
    run = replace(stage.run("launcher"), num_devices=2)
    stage.misbehave(run, 1, "3")
    stage.let(run, STEPS)
    remote = stage.target.submit(run)
    wait_until(lambda: stage.target.poll(remote).ended, "the end", 90)
    outcome = stage.target.poll(remote)
    assert (outcome.state, outcome.message) == ("failed", "the stand-in was told to fail"), lines(stage, remote)


def test_a_folder_that_is_gone_is_a_failure_with_a_remedy(stage: LocalStage) -> None:
    remote = {"target": "local", "name": "train-x-00000000", "folder": str(ROOT / "nowhere" / ".run")}
    outcome = stage.target.poll(remote)
    assert outcome.state == "failed" and "nowhere" in outcome.message and outcome.remedy
    stage.target.cancel(remote)
    assert stage.target.logs(remote, "") == ([], "")


def test_stopped_is_known_by_its_exit_code(stage: LocalStage) -> None:
    run = stage.run("stopped")
    remote = stage.target.submit(run)
    wait_for_line(stage, remote, '"event":"plan"')
    signal_all(supervisors(run.name), signal.SIGTERM)
    exit_file = Path(run.out) / ".run" / "exit.json"
    wait_until(exit_file.exists, "the end", 20)
    assert f'"code":{STOPPED_EXIT}' in exit_file.read_text() and time.time() > exit_file.stat().st_mtime
