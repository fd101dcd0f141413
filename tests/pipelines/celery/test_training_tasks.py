"""Fine-tunings on real Celery processes: run, followed, cancelled in each state, failing, submitted again."""

import socket
import threading
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import pytest

from pipelines.celery.admission import Admission
from pipelines.celery.sweep import Sweep
from pipelines.celery.training_tasks import TrainingTasks
from pipelines.launching.local_target import LocalTarget, Record
from pipelines.launching.sky import Log, Request, SkyJob, SkyPilot
from pipelines.launching.sky_target import SkyTarget
from pipelines.launching.targets import Outcome, Run, Target, run_name, run_of
from services.errors import ConfigurationError
from services.jobs.dispatch import Dispatch, calmly
from services.jobs.jobs import Job, Jobs
from services.jobs.training_progress import UNIT, TrainingProgress
from services.serving.trained_models import TrainedModels
from services.wire.keys import BATCHES_QUEUE, TRAININGS_QUEUE
from tests.end_to_end.system import wait_until
from tests.pipelines.celery.training_processes import SECRET, STAND_IN, Trainings, running_trainings
from tests.pipelines.launching.contract import STEPS


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trainings]:
    """No worker: tests call the task."""
    with running_trainings(tmp_path_factory.mktemp("quiet")) as system:
        yield system


@pytest.fixture(scope="module")
def trainings(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trainings]:
    """With a beat and both workers."""
    with running_trainings(tmp_path_factory.mktemp("trainings")) as system:
        system.all_roles()
        yield system


class Scripted:
    """A target that says what it is told to say, for what real machines say rarely. It launches nothing."""

    def __init__(self) -> None:
        self.outcome = Outcome("running")
        self.log: list[str] = []
        self.calls: list[str] = []
        self.runs: list[Run] = []
        self.trouble: Exception | None = None
        self.meanwhile: Callable[[], None] = lambda: None

    def submit(self, run: Run) -> dict[str, Any]:
        self._called("submit")
        self.runs.append(run)
        return {"name": run.name}

    def poll(self, remote: Mapping[str, Any]) -> Outcome:
        self._called("poll")
        return self.outcome

    def logs(self, remote: Mapping[str, Any], cursor: str) -> tuple[list[str], str]:
        at = int(cursor or 0)
        return self.log[at:], str(len(self.log))

    def cancel(self, remote: Mapping[str, Any]) -> None:
        self._called("cancel")

    def down(self, remote: Mapping[str, Any]) -> None:
        self._called("down")

    def _called(self, what: str) -> None:
        self.calls.append(what)
        self.meanwhile()
        if self.trouble is not None:
            raise self.trouble


def named(job: Job, progress: TrainingProgress) -> str:
    return job.name


def made(quiet: Trainings, targets: Mapping[str, Callable[[], Target]], secrets: Mapping[str, str]) -> TrainingTasks:
    admission = Admission()
    return TrainingTasks(quiet.celery, quiet.redis, quiet.keys, quiet.jobs, admission, targets, secrets, named)


@pytest.fixture
def target() -> Scripted:
    return Scripted()


@pytest.fixture
def tasks(quiet: Trainings, target: Scripted) -> TrainingTasks:
    return made(quiet, {"local": lambda: target}, {"HF_TOKEN": SECRET, "EMPTY": ""})


def waiting(quiet: Trainings) -> int:
    return int(quiet.redis.llen(quiet.keys.celery + TRAININGS_QUEUE))


def begin(quiet: Trainings, tasks: TrainingTasks, name: str) -> None:
    """A job that was sent for the first time; its message is dropped."""
    tasks.send(quiet.submit(name, wakes=False))
    quiet.redis.delete(quiet.keys.celery + TRAININGS_QUEUE)


# -- one look at a time ------------------------------------------------------------------------------------------


def test_a_sweep_sends_one_task_per_job_at_a_time(quiet: Trainings, tasks: TrainingTasks) -> None:
    sweeps = Sweep(quiet.celery, quiet.redis, quiet.keys, {"train": tasks.send})
    quiet.submit("sent", wakes=False)
    for _ in range(3):
        sweeps.sweep()
    assert waiting(quiet) == 1 and quiet.jobs.get("sent").state == "running"
    quiet.redis.delete(quiet.keys.celery + TRAININGS_QUEUE)
    tasks.advance("sent")
    sweeps.sweep()
    assert waiting(quiet) == 1, "it has ended, the next one may be sent"
    quiet.redis.delete(quiet.keys.celery + TRAININGS_QUEUE)
    quiet.jobs.cancelled("sent")


def test_a_task_whose_process_died_is_sent_again_soon_and_one_at_work_is_not(
    quiet: Trainings, tasks: TrainingTasks
) -> None:
    begin(quiet, tasks, "dead")
    dispatch = Dispatch(quiet.redis, quiet.keys, "dead")
    dispatch.take(UNIT, "another-host:1")
    assert tasks._lost_after_s(dispatch.read()) > 100
    dispatch.take(UNIT, f"{socket.gethostname()}:{2**22 + 1}")
    assert tasks._lost_after_s(dispatch.read()) < 2
    quiet.jobs.cancelled("dead")


def test_a_look_during_which_redis_went_away_leaves_the_next_look_to_anybody(
    tmp_path: Path, target: Scripted, monkeypatch: pytest.MonkeyPatch
) -> None:
    tries: list[str] = []
    rest = Dispatch.rest
    monkeypatch.setattr(Dispatch, "rest", lambda *arguments: (tries.append("rest"), rest(*arguments)))
    with running_trainings(tmp_path, appendfsync="always") as system:
        tasks = made(system, {"local": lambda: target}, {})
        begin(system, tasks, "away")
        target.meanwhile = system.server.kill
        look = threading.Thread(target=calmly(tasks.advance), args=["away"])
        look.start()
        wait_until(lambda: tries, "the end of the look")
        system.server.start()
        look.join(20)
        assert not look.is_alive()
        assert not Dispatch(system.redis, system.keys, "away").read().held
        assert target.calls == ["submit"]


# -- what one look does ------------------------------------------------------------------------------------------


def test_lines_are_copied_once_and_points_and_progress_are_read_from_them(
    quiet: Trainings, tasks: TrainingTasks, target: Scripted
) -> None:
    begin(quiet, tasks, "copied")
    target.log = [
        "Loading the model.",
        '::train {"event":"plan","steps":4,"examples":9}',
        '::train {"event":"step","step":1,"of":4,"loss":2.5,"lr":1e-5,"tokens_per_s":90.5,"eta_s":3.0,"epoch":0.5}',
        '::train {"event":"checkpoint","step":1,"bytes":77}',
        '::train {"event":"eval","step":1,"loss":2.25}',
        '::train {"event":"step","step":"odd"}',
        "::train {half",
    ]
    tasks.advance("copied")
    target.log += ['::train {"event":"step","step":2,"of":4,"loss":2.0}', "Half of it is done."]
    tasks.advance("copied")
    tasks.advance("copied")
    lines = quiet.lines("copied")
    assert lines.count("Loading the model.") == lines.count("Half of it is done.") == 1
    assert not any('"event"' in line for line in lines)
    assert [(point["step"], point["loss"]) for point in quiet.jobs.points("copied")] == [(1, 2.5), (2, 2.0)]
    progress = quiet.progress("copied")
    assert (progress.records, progress.of, progress.loss, progress.fraction) == (2, 4, 2.0, 0.5)
    assert progress.plan == {"steps": 4, "examples": 9} and progress.evals == [{"step": 1, "loss": 2.25}]
    assert [(each["step"], each["bytes"]) for each in progress.checkpoints] == [(1, 77)]
    assert progress.phase == "running"
    quiet.jobs.cancelled("copied")


def test_a_look_that_was_overtaken_tells_nothing_twice(
    quiet: Trainings, tasks: TrainingTasks, target: Scripted
) -> None:
    begin(quiet, tasks, "overtaken")
    tasks.advance("overtaken")
    target.log = ["one line"]
    stale = quiet.jobs.get("overtaken")
    tasks.advance("overtaken")
    tasks._look(stale)
    assert quiet.lines("overtaken").count("one line") == 1
    quiet.jobs.cancelled("overtaken")


def test_secrets_are_passed_on_and_masked_wherever_they_would_be_shown(
    quiet: Trainings, tasks: TrainingTasks, target: Scripted
) -> None:
    begin(quiet, tasks, "secret")
    target.log = [f"login with {SECRET}", f'::train {{"event":"failed","code":2,"message":"no access for {SECRET}"}}']
    tasks.advance("secret")
    target.outcome = Outcome("failed", f"refused {SECRET}", f"replace {SECRET}")
    tasks.advance("secret")
    assert target.runs[0].secrets == {"HF_TOKEN": SECRET} and SECRET not in repr(target.runs[0])
    job = quiet.jobs.get("secret")
    assert (job.state, job.error) == ("failed", "no access for ***\nreplace ***")
    assert "login with ***" in quiet.lines("secret")
    for key in quiet.keys.job("secret").all:
        dumped = quiet.redis.dump(key)
        assert dumped is None or SECRET.encode() not in dumped, key


def test_a_target_in_trouble_is_asked_again_later_and_the_trouble_is_told_once(
    quiet: Trainings, tasks: TrainingTasks, target: Scripted
) -> None:
    begin(quiet, tasks, "trouble")
    tasks.advance("trouble")
    target.trouble = RuntimeError("the API server does not answer")
    tasks.advance("trouble")
    tasks.advance("trouble")
    assert sum("API server does not answer" in line for line in quiet.lines("trouble")) == 1
    assert "API server" in quiet.progress("trouble").outcome["message"]
    tasks.send(quiet.jobs.get("trouble"))
    assert waiting(quiet) == 0, "not at once"
    target.trouble, target.outcome = None, Outcome("finished")
    tasks.advance("trouble")
    assert quiet.jobs.get("trouble").state == "finished"


def test_what_another_try_would_not_mend_fails_at_once(
    quiet: Trainings, tasks: TrainingTasks, target: Scripted
) -> None:
    begin(quiet, tasks, "hopeless")
    target.trouble = ConfigurationError("no cloud is set up; run `sky check`")
    tasks.advance("hopeless")
    assert quiet.jobs.get("hopeless").error == "no cloud is set up; run `sky check`"


def test_machines_are_given_back_before_a_job_ends(quiet: Trainings, tasks: TrainingTasks, target: Scripted) -> None:
    begin(quiet, tasks, "down")
    target.outcome = Outcome("finished")
    down, target.down = target.down, lambda remote: (_ for _ in ()).throw(OSError("not now"))  # type: ignore[method-assign]
    tasks.advance("down")
    assert quiet.jobs.get("down").state == "running"
    target.down = down  # type: ignore[method-assign]
    tasks.advance("down")
    assert quiet.jobs.get("down").state == "finished" and target.calls[-1] == "down"


def test_a_run_whose_machines_were_given_back_by_a_look_that_died_is_still_finished(
    quiet: Trainings, tasks: TrainingTasks, target: Scripted
) -> None:
    """With its machines went what they knew of it: the next look said that the run had failed."""
    begin(quiet, tasks, "half-told")
    target.outcome = Outcome("finished")
    down, target.down = target.down, lambda remote: (_ for _ in ()).throw(OSError("died"))  # type: ignore[method-assign]
    tasks.advance("half-told")
    target.outcome, target.down = Outcome("failed", "the machines are gone"), down  # type: ignore[method-assign]
    tasks.advance("half-told")
    assert quiet.jobs.get("half-told").state == "finished"


def test_a_job_cancelled_before_its_launch_launches_nothing(
    quiet: Trainings, tasks: TrainingTasks, target: Scripted
) -> None:
    begin(quiet, tasks, "never")
    quiet.jobs.cancel("never")
    tasks.advance("never")
    assert quiet.jobs.get("never").state == "cancelled" and target.calls == []


def test_a_launch_whose_answer_was_lost_is_cancelled_with_its_job(
    quiet: Trainings, tasks: TrainingTasks, target: Scripted
) -> None:
    begin(quiet, tasks, "unknown")
    target.trouble = OSError("the connection broke")
    tasks.advance("unknown")
    quiet.jobs.cancel("unknown")
    target.trouble, target.outcome = None, Outcome("cancelled")
    tasks.advance("unknown")
    assert target.calls == ["submit", "submit", "cancel", "poll", "down"]
    assert quiet.jobs.get("unknown").state == "cancelled"


def test_a_launch_that_nobody_could_note_is_found_again(quiet: Trainings) -> None:
    """The process dies between the launch and its note."""
    local = LocalTarget(STAND_IN)
    tasks = made(quiet, {"local": lambda: local}, {})
    begin(quiet, tasks, "unnoted")
    job = quiet.jobs.get("unnoted")
    local.submit(run_of(job.spec, run_name(job.id, job.started_s), job.id, {}))
    quiet.launched("unnoted")
    tasks.advance("unnoted")
    assert quiet.jobs.get("unnoted").remote["name"] == run_name(job.id, job.started_s)
    quiet.let("unnoted", STEPS)
    wait_until(lambda: tasks.advance("unnoted") or quiet.jobs.get("unnoted").ended, "its end")
    assert quiet.starts("unnoted") == 1


def forge(quiet: Trainings, name: str, remote: Mapping[str, Any]) -> None:
    """As who has the full password of Redis, and no key."""
    Jobs(quiet.redis, quiet.keys).attach(name, remote)


def test_a_forged_folder_starts_no_program_and_the_jobs_own_run_is_found_again(
    quiet: Trainings, tmp_path: Path
) -> None:
    """The target started the command of `run.json` in whatever folder Redis named."""
    tasks = made(quiet, {"local": lambda: LocalTarget(STAND_IN)}, {})
    begin(quiet, tasks, "forged")
    tasks.advance("forged")
    quiet.launched("forged")
    own, stolen = quiet.jobs.get("forged").remote, tmp_path / "stolen"
    (tmp_path / ".run").mkdir()
    Record("train-theirs-01234567", ("touch", str(stolen)), {}, 0.0).write(tmp_path / ".run" / "run.json")
    forge(quiet, "forged", {**own, "name": "train-theirs-01234567", "folder": str(tmp_path / ".run")})
    tasks.advance("forged")
    assert not (tmp_path / ".run" / "supervisor.log").exists() and not stolen.exists()
    assert quiet.jobs.get("forged").remote == own
    quiet.let("forged", STEPS)
    wait_until(lambda: tasks.advance("forged") or quiet.jobs.get("forged").ended, "its end")
    assert quiet.jobs.get("forged").state == "finished" and quiet.starts("forged") == 1


def test_a_forged_cluster_is_neither_read_nor_cancelled_nor_given_back(quiet: Trainings) -> None:
    sky = OneCluster()
    tasks = made(quiet, {"local": lambda: SkyTarget(sky, make_task=lambda run: {})}, {})
    begin(quiet, tasks, "cluster")
    tasks.advance("cluster")
    own = quiet.jobs.get("cluster").remote
    forge(quiet, "cluster", {**own, "kind": "managed", "name": "train-theirs-01234567", "request": "theirs"})
    tasks.advance("cluster")
    assert quiet.jobs.get("cluster").remote == {**own, "submitted_s": ANY} and sky.launches == 1
    quiet.jobs.cancel("cluster")
    forge(quiet, "cluster", {**own, "name": "train-theirs-01234567", "request": "theirs"})
    tasks.advance("cluster")
    assert sky.asked_for == {own["name"], own["request"]}
    assert quiet.jobs.get("cluster").state == "cancelled"


class OneCluster(SkyPilot):
    """A SkyPilot with one cluster, which writes down what it is asked for."""

    def __init__(self) -> None:
        self.launches = 0
        self.asked_for: set[str] = set()
        self._state: Any = "running"

    def launch_cluster(self, config: Any, name: str, secrets: Any, idle_min: int | None) -> str:
        self.launches += 1
        return "ours"

    def cluster_launches(self, name: str) -> list[Request]:
        self.asked_for.add(name)
        return [Request("ours", "finished")] if self.launches else []

    def clusters(self, names: Any = None) -> dict[str, str]:
        self.asked_for.update(names or ())
        return {}

    def managed_jobs(self, name: str | None = None) -> dict[str, list[SkyJob]]:
        self.asked_for.add(str(name))
        return {}

    def cluster_jobs(self, name: str) -> list[SkyJob]:
        self.asked_for.add(name)
        return [SkyJob(1, "RUNNING", self._state, 1.0)]

    def request(self, request: str) -> Request:
        self.asked_for.add(request)
        return Request(request, "finished")

    def cluster_log(self, name: str, job: int) -> Log:
        self.asked_for.add(name)
        return Log([])

    def cancel_cluster_jobs(self, name: str, ids: Any) -> None:
        self.asked_for.add(name)
        self._state = "cancelled"

    def down(self, name: str) -> None:
        self.asked_for.add(name)

    def cost_usd(self, belongs: Any) -> float | None:
        return None


# -- with workers ------------------------------------------------------------------------------------------------


def test_a_fine_tuning_runs_to_its_end_and_its_model_is_registered(trainings: Trainings) -> None:
    trainings.submit("whole")
    trainings.at_step("whole", 2)
    assert trainings.jobs.get("whole").remote["target"] == "local"
    trainings.let("whole", STEPS)
    trainings.check("whole")
    lines = trainings.lines("whole")
    assert lines[0].startswith("started: whole on local") and lines[-1].startswith("finished: the model whole")
    progress = trainings.progress("whole")
    assert (progress.state, progress.records, progress.of) == ("done", STEPS, STEPS)
    assert [each["step"] for each in progress.checkpoints] == [2, 4, 6]
    model = TrainedModels(trainings.redis, trainings.keys).get("whole")
    assert (model.path, model.job, model.step) == (str(trainings.out("whole") / "model"), "whole", STEPS)


def test_a_job_that_nobody_was_told_of_is_found(trainings: Trainings) -> None:
    trainings.let("untold", STEPS)
    trainings.submit("untold", wakes=False)
    trainings.check("untold")


def test_a_cancel_of_a_running_job_ends_its_program_and_submitted_again_it_goes_on(trainings: Trainings) -> None:
    trainings.submit("cancelled")
    trainings.at_step("cancelled", 3)
    trainings.jobs.cancel("cancelled")
    assert trainings.ended("cancelled").state == "cancelled"
    assert "stopped after step 3" in trainings.lines("cancelled"), "it saved"
    trainings.let("cancelled", STEPS)
    trainings.submit("cancelled")
    trainings.check("cancelled")
    assert [each["step"] for each in trainings.progress("cancelled").resumes] == [3]
    assert trainings.starts("cancelled") == 2


def test_a_cancel_of_a_job_that_waits_ends_it_at_once(trainings: Trainings) -> None:
    trainings.submit("waits", wakes=False)
    assert trainings.jobs.cancel("waits").state in ("cancelled", "running")
    assert trainings.ended("waits").state == "cancelled"


def test_a_cancel_while_it_starts_ends_it(trainings: Trainings) -> None:
    trainings.submit("starts")
    wait_until(lambda: trainings.jobs.get("starts").remote, "the launch", 30)
    trainings.jobs.cancel("starts")
    assert trainings.ended("starts").state == "cancelled"


def test_a_cancel_of_an_ended_job_leaves_it(trainings: Trainings) -> None:
    trainings.let("over", STEPS)
    trainings.submit("over")
    trainings.check("over")
    assert trainings.jobs.cancel("over").state == "finished"


def test_a_program_that_refuses_fails_its_job_in_its_own_words(trainings: Trainings) -> None:
    trainings.misbehave("refused", 1, "2")
    trainings.let("refused", STEPS)
    trainings.submit("refused")
    job = trainings.ended("refused")
    assert (job.state, job.error) == ("failed", "the stand-in was told to fail")
    assert trainings.progress("refused").state == "failed"


def test_a_secret_that_a_program_prints_is_masked(trainings: Trainings) -> None:
    trainings.misbehave("prints", 1, f"print token {SECRET}")
    trainings.let("prints", STEPS)
    trainings.submit("prints")
    assert trainings.ended("prints").state == "finished"
    assert "token ***" in trainings.lines("prints")


def test_cleaning_is_not_kept_waiting_by_fine_tunings(trainings: Trainings) -> None:
    """Its worker takes no task of theirs."""
    queues = trainings.celery.control.inspect(timeout=5).active_queues()
    of = {name.partition("-")[0]: {queue["name"] for queue in found} for name, found in queues.items()}
    assert of == {"clean": {"units", "sweeps"}, "train": {TRAININGS_QUEUE, BATCHES_QUEUE}}
