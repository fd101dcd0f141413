"""What every target keeps, told as tests: a class to inherit; a fixture `stage` knows one kind of machines."""

import concurrent.futures
from pathlib import Path
from typing import Any, Protocol

from pipelines.launching.targets import Outcome, Run, Target
from services.jobs.training import parse_event
from tests.end_to_end.system import wait_until

STEPS = 6


class Stage(Protocol):
    """A target, and the program of tests/pipelines/launching/stand_in.py that runs at it."""

    target: Target
    patience_s: float

    def run(self, name: str) -> Run:
        """Of `STEPS` steps, held before its first."""

    def let(self, run: Run, upto: int) -> None:
        """It may do so many steps; all that it has done are told when this returns."""

    def misbehave(self, run: Run, at: int, how: str) -> None:
        """At that step: an exit code, or `crash`."""

    def starts(self, run: Run) -> int:
        """How often the program was started."""

    def take_away(self, run: Run, remote: dict[str, Any]) -> None:
        """Its machine, as a cloud does or a power failure, in the middle of a step."""


class TargetContract:
    """The suite."""

    def test_a_run_finishes_and_its_log_is_told_once(self, stage: Stage) -> None:
        run = stage.run("whole")
        remote = stage.target.submit(run)
        assert self.first_state(stage, remote) in ("pending", "starting", "running")
        stage.let(run, STEPS)
        assert self.ended(stage, remote).state == "finished"
        lines = self.all_lines(stage, remote)
        assert [line for line in lines if line.startswith("step ")] == [
            f"step {n} is done" for n in range(1, STEPS + 1)
        ]
        assert parse_event(lines[-1])["event"] == "finished"  # type: ignore[index]

    def test_a_run_submitted_many_times_at_once_is_launched_once(self, stage: Stage) -> None:
        run = stage.run("at-once")
        with concurrent.futures.ThreadPoolExecutor(6) as pool:
            remotes = [future.result() for future in [pool.submit(stage.target.submit, run) for _ in range(6)]]
        assert len({str(remote["name"]) for remote in remotes}) == 1
        stage.let(run, STEPS)
        assert self.ended(stage, remotes[0]).state == "finished"
        stage.target.submit(run)
        assert self.ended(stage, remotes[-1]).state == "finished"
        assert stage.starts(run) == 1

    def test_the_log_is_told_in_whole_lines_from_any_cursor(self, stage: Stage) -> None:
        run = stage.run("cursor")
        remote = stage.target.submit(run)
        stage.let(run, 2)
        told: list[str] = []
        cursor = ""

        def more() -> bool:
            nonlocal cursor
            lines, cursor = stage.target.logs(remote, cursor)
            told.extend(lines)
            return "step 2 is done" in told

        wait_until(more, "the second step in the log", stage.patience_s)
        stage.let(run, STEPS)
        self.ended(stage, remote)
        while lines := stage.target.logs(remote, cursor)[0]:
            cursor = stage.target.logs(remote, cursor)[1]
            told += lines
        assert told == self.all_lines(stage, remote)

    def test_a_program_that_refuses_its_data_fails(self, stage: Stage) -> None:
        run = stage.run("refused")
        stage.misbehave(run, 1, "2")
        remote = stage.target.submit(run)
        stage.let(run, STEPS)
        assert self.ended(stage, remote).state == "failed"
        assert stage.starts(run) == 1, "another try would find the same"

    def test_what_is_taken_away_goes_on_from_its_checkpoint(self, stage: Stage) -> None:
        run = stage.run("preempted")
        remote = stage.target.submit(run)
        stage.let(run, 3)
        self.wait_for_line(stage, remote, "step 3 is done")
        stage.take_away(run, remote)
        wait_until(lambda: stage.target.poll(remote).recoveries == 1, "the recovery", stage.patience_s)
        stage.let(run, STEPS)
        outcome = self.ended(stage, remote)
        assert (outcome.state, outcome.recoveries) == ("finished", 1)
        assert stage.starts(run) == 2
        self.wait_for_line(stage, remote, '"event":"resumed","step":')
        (resumed,) = [line for line in self.all_lines(stage, remote) if '"event":"resumed"' in line]
        # The third, when the program outlived its reader by a moment: it saves then.
        assert '"step":2' in resumed or '"step":3' in resumed

    def test_a_cancelled_run_ends_and_stays_cancelled(self, stage: Stage) -> None:
        run = stage.run("cancelled")
        remote = stage.target.submit(run)
        stage.let(run, 1)
        self.wait_for_line(stage, remote, "step 1 is done")
        for _ in range(2):
            stage.target.cancel(remote)
        assert self.ended(stage, remote).state == "cancelled"
        for _ in range(2):
            stage.target.cancel(remote)
            stage.target.down(remote)
        assert stage.starts(run) == 1

    def test_a_run_is_cancelled_right_after_its_launch(self, stage: Stage) -> None:
        run = stage.run("early")
        remote = stage.target.submit(run)
        stage.target.cancel(remote)
        assert self.ended(stage, remote).state == "cancelled"

    # -- shared --------------------------------------------------------------------------------------------------

    @staticmethod
    def first_state(stage: Stage, remote: dict[str, Any]) -> str:
        return stage.target.poll(remote).state

    @staticmethod
    def ended(stage: Stage, remote: dict[str, Any]) -> Outcome:
        wait_until(lambda: stage.target.poll(remote).ended, "the end of the run", stage.patience_s)
        return stage.target.poll(remote)

    @staticmethod
    def all_lines(stage: Stage, remote: dict[str, Any]) -> list[str]:
        told, cursor = [], ""
        while True:
            lines, cursor = stage.target.logs(remote, cursor)
            if not lines:
                return told
            told += lines

    def wait_for_line(self, stage: Stage, remote: dict[str, Any], text: str) -> None:
        wait_until(lambda: any(text in line for line in self.all_lines(stage, remote)), text, stage.patience_s)


def control(out: Path, name: str, value: str) -> None:
    """One file that steers the stand-in, never half-written."""
    folder = out / "control"
    folder.mkdir(parents=True, exist_ok=True)
    draft = folder / f".{name}"
    draft.write_text(value)
    draft.replace(folder / name)
