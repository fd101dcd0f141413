"""Jobs: submitted once, moved by one script at a time, remembered with their progress and their log."""

from typing import Any

import pytest
import redis

from services.connection.connect import server_time
from services.errors import Conflict, Gone, InvalidRequest
from services.jobs.jobs import AT_ONCE, LOG_LINES, Job, Jobs, LogBatch, progress_of
from services.wire.keys import Keys

SPEC = {"recipe": "steps: [roles]", "recipe_name": "r.yaml", "inputs": ["/in.json"], "out": "/out"}


@pytest.fixture
def jobs(redis_client: redis.Redis, namespace: str) -> Jobs:
    return Jobs(redis_client, Keys(namespace))


@pytest.fixture
def running(jobs: Jobs) -> Jobs:
    """With a job `a` that runs."""
    jobs.submit("a", "clean", "in.json", SPEC)
    assert jobs.started("a")
    return jobs


def counts(records_in: int, records_out: int, **reasons: int) -> dict[str, Any]:
    return {"records_in": records_in, "records_out": records_out, "rejected": reasons, "cut": {}, "changed": {}}


def test_a_job_is_what_was_submitted(jobs: Jobs, redis_client: redis.Redis) -> None:
    job = jobs.submit("a", "clean", "in.json", SPEC)
    assert (job.id, job.kind, job.name, job.state, job.spec) == ("a", "clean", "in.json", "submitted", SPEC)
    assert abs(job.created_s - server_time(redis_client)) < 5 and job.started_s == job.ended_s == 0
    assert job == jobs.get("a") and not job.ended and not job.cancelling


def test_submitting_a_job_that_runs_or_is_finished_leaves_it_as_it_is(running: Jobs) -> None:
    before = running.get("a")
    assert running.submit("a", "clean", "in.json", dict(reversed(SPEC.items()))) == before
    running.finished("a")
    assert running.submit("a", "clean", "in.json", SPEC).state == "finished"


@pytest.mark.parametrize("end", ["failed", "cancelled"])
def test_a_job_that_failed_or_was_cancelled_goes_again(running: Jobs, end: str) -> None:
    running.note("a", "read", {"state": "done"})
    running.planned("a", 4, 1)
    assert running.failed("a", "disk full") if end == "failed" else running.cancelled("a")
    again = running.submit("a", "clean", "in.json", SPEC)
    assert (again.state, again.error, again.started_s, again.ended_s, again.num_units) == ("submitted", "", 0, 0, 0)
    assert running.units("a"), "what is done is still known"
    assert running.started("a")


def test_an_id_belongs_to_one_spec(jobs: Jobs) -> None:
    jobs.submit("a", "clean", "in.json", SPEC)
    for kind, spec in (("clean", {**SPEC, "inputs": ["/other"]}), ("train", SPEC)):
        with pytest.raises(Conflict, match="jobs remove a"):
            jobs.submit("a", kind, "in.json", spec)


def test_a_job_that_does_not_exist_is_gone(jobs: Jobs) -> None:
    for call in (jobs.get, jobs.cancel, jobs.remove):
        with pytest.raises(Gone, match="no job 'x'"):
            call("x")
    with pytest.raises(Gone):
        jobs.note("x", "read", {})
    jobs.log("x", "nobody hears this")
    assert jobs.tail("x") == [] and not jobs.started("x")
    with pytest.raises(InvalidRequest, match="job id"):
        jobs.get("a{b}")


def test_jobs_are_listed_newest_first_and_the_unfinished_oldest_first(jobs: Jobs) -> None:
    for jid in ("a", "b", "c"):
        jobs.submit(jid, "clean", jid, SPEC)
    jobs.started("b")
    jobs.finished("b")
    assert {job.id for job in jobs.list()} == {"a", "b", "c"}
    assert [job.id for job in jobs.list(1)] == ["c"]
    assert [job.id for job in jobs.unfinished()] == ["a", "c"]


def test_many_jobs_are_read_in_few_round_trips(
    jobs: Jobs, redis_client: redis.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An order of a batch asked Redis once for each batch that any user had in 30 days."""
    for number in range(3 * AT_ONCE):
        jobs.submit(f"batch_{number:04}", "batch", "b", SPEC)
    asked: list[object] = []
    send = redis.connection.Connection.send_packed_command

    def counted(*arguments: Any, **options: Any) -> None:
        asked.append(arguments)
        send(*arguments, **options)

    monkeypatch.setattr(redis.connection.Connection, "send_packed_command", counted)
    assert len(jobs.unfinished()) == 3 * AT_ONCE
    assert next(jobs.read(jobs.ids()))[0] == "batch_0000"
    assert 0 < len(asked) < 30


def test_a_job_that_is_listed_and_lost_is_passed_over(jobs: Jobs, redis_client: redis.Redis, namespace: str) -> None:
    jobs.submit("a", "clean", "a", SPEC)
    redis_client.delete(Keys(namespace).job("a").job)
    assert jobs.list() == [] == jobs.unfinished()
    assert jobs.submit("a", "clean", "a", SPEC).state == "submitted"


def test_a_job_moves_forward_only(jobs: Jobs) -> None:
    jobs.submit("a", "clean", "a", SPEC)
    assert jobs.started("a") and not jobs.started("a")
    assert jobs.failed("a", "Traceback …\nValueError: no") and not jobs.finished("a") and not jobs.cancelled("a")
    job = jobs.get("a")
    assert job.state == "failed" and job.error.endswith("ValueError: no") and job.ended
    assert job.ended_s >= job.started_s > 0


def test_the_last_line_of_the_log_comes_with_the_end_and_only_with_it(running: Jobs) -> None:
    assert running.finished("a", "finished: 3 records") and not running.failed("a", "late", "failed: late")
    assert [line for _, _, line in running.tail("a")] == ["finished: 3 records"]


def test_a_job_that_nobody_began_is_cancelled_at_once(jobs: Jobs) -> None:
    jobs.submit("a", "clean", "a", SPEC)
    assert jobs.cancel("a").state == "cancelled" and not jobs.started("a")


def test_a_job_that_runs_is_asked_to_end(running: Jobs) -> None:
    assert running.note("a", "read", {"state": "running"})
    job = running.cancel("a")
    assert job.state == "running" and job.cancelling
    assert not running.note("a", "read", {"state": "running"}), "its units are told so"
    assert running.cancelled("a") and not running.get("a").cancelling
    assert running.cancel("a").state == "cancelled", "a second cancel changes nothing"


def test_only_a_job_that_has_ended_is_removed(running: Jobs, redis_client: redis.Redis, namespace: str) -> None:
    running.note("a", "read", {"state": "running"})
    running.log("a", "started")
    with pytest.raises(InvalidRequest, match="is running; cancel it first"):
        running.remove("a")
    running.finished("a")
    running.remove("a")
    assert running.list() == []
    assert not any(redis_client.exists(key) for key in [Keys(namespace).jobs, *Keys(namespace).job("a").all])


def test_ended_jobs_expire_and_those_that_go_again_do_not(
    running: Jobs, redis_client: redis.Redis, namespace: str
) -> None:
    of_job = Keys(namespace).job("a")
    keys = (of_job.job, of_job.units, of_job.log)
    running.note("a", "read", {"state": "done"})
    running.log("a", "started")
    running.failed("a", "")
    running.log("a", "the last words")
    assert all(redis_client.ttl(key) > 86_400 for key in keys)
    running.submit("a", "clean", "in.json", SPEC)
    assert all(redis_client.ttl(key) == -1 for key in keys)


def test_notes_are_kept_by_unit_until_the_end(running: Jobs) -> None:
    running.note("a", "shard-0-00000", {"state": "running", "records": 100})
    running.note("a", "shard-0-00000", {"state": "running", "records": 200})
    running.note("a", "read", {"state": "done"})
    running.finished("a")
    assert not running.note("a", "read", {"state": "late"})
    assert running.units("a") == {"read": {"state": "done"}, "shard-0-00000": {"state": "running", "records": 200}}


def test_the_log_is_read_on_from_where_one_was(running: Jobs, redis_client: redis.Redis) -> None:
    for number in range(5):
        running.log("a", f"line {number}")
    first = running.tail("a", limit=2)
    assert [line for _, _, line in first] == ["line 0", "line 1"]
    assert abs(first[0][1] - server_time(redis_client)) < 5
    assert [line for _, _, line in running.tail("a", first[-1][0])] == ["line 2", "line 3", "line 4"]
    assert running.tail("a", running.tail("a")[-1][0]) == []


def test_the_log_keeps_the_newest_lines(running: Jobs) -> None:
    for number in range(LOG_LINES + 3):
        running.log("a", str(number))
    lines = [line for _, _, line in running.tail("a", limit=10_000)]
    assert len(lines) == LOG_LINES and lines[-1] == str(LOG_LINES + 2)


def test_a_line_that_is_no_unicode_is_kept(running: Jobs) -> None:
    running.log("a", "half \ud83d pair")
    assert running.tail("a")[0][2] == "half ? pair"


def test_progress_counts_whole_and_half_units(running: Jobs) -> None:
    running.planned("a", 4, 1)
    assert not running.planned("a", 9, 9), "told once"
    running.note("a", "read", {"state": "done", "steps": {"read": counts(10, 10)}})
    running.note(
        "a", "shard-0-00000", {"state": "done", "records": 5, "of": 5, "steps": {"roles": counts(5, 4, empty=1)}}
    )
    running.note(
        "a",
        "shard-0-00001",
        {"state": "running", "records": 2, "of": 4, "steps": {"roles": counts(2, 0, empty=1, odd=1)}},
    )
    job = running.get("a")
    progress = progress_of(job, running.units("a"), job.planned_s + 30)
    assert (progress.fraction, progress.num_done, progress.num_units) == (0.625, 2, 4)
    assert progress.eta_s == pytest.approx(30 * 0.375 / 0.375)
    assert [(step.label, step.records_in, step.records_out, step.rejected) for step in progress.steps] == [
        ("read", 10, 10, {}),
        ("roles", 7, 4, {"empty": 2, "odd": 1}),
    ]


def test_nobody_can_say_how_long_before_something_is_done() -> None:
    job = Job("a", "clean", "a", "running", {}, 1.0, 2.0)
    assert progress_of(job, {"read": {"state": "running", "records": 100, "of": 0}}, 10.0).eta_s is None
    planned = Job("a", "clean", "a", "running", {}, 1.0, 2.0, num_units=4, planned_s=5.0, planned_done=1)
    assert progress_of(planned, {"read": {"state": "done"}}, 10.0).eta_s is None


def test_a_finished_job_is_whole_and_a_failed_one_names_its_units() -> None:
    done = Job("a", "clean", "a", "finished", {}, 1.0)
    assert progress_of(done, {}, 9.0).fraction == 1.0
    failed = Job("a", "clean", "a", "failed", {}, 1.0, num_units=3)
    progress = progress_of(failed, {"shard-0-00001": {"state": "failed", "error": "…"}}, 9.0)
    assert progress.failed == ("shard-0-00001",) and progress.eta_s is None


def test_where_a_job_runs_is_remembered_until_it_goes_again(running: Jobs) -> None:
    running.attach("a", {"cluster": "c", "id": 3})
    assert running.get("a").remote == {"cluster": "c", "id": 3}
    running.failed("a", "no room")
    running.attach("a", {"cluster": "late"})
    assert running.get("a").remote["cluster"] == "c", "a job that has ended stays as it is"
    assert running.submit("a", "clean", "in.json", SPEC).remote == {}


def tells(jobs: Jobs, *points: dict[str, Any]) -> bool:
    cursor = jobs.get("a").cursor
    return jobs.follow("a", LogBatch(cursor, f"{cursor}.", "train", {}, points=points))


def test_points_come_by_step_and_the_last_word_on_a_step_stands(running: Jobs) -> None:
    for step, loss in ((2, 3.0), (10, 1.0), (1, 4.0), (2, 2.5)):
        assert tells(running, {"step": step, "loss": loss})
    assert [(point["step"], point["loss"]) for point in running.points("a")] == [(1, 4.0), (2, 2.5), (10, 1.0)]
    assert [point["step"] for point in running.points("a", after_step=2)] == [10]


def test_points_go_with_their_job(running: Jobs, redis_client: redis.Redis, namespace: str) -> None:
    assert tells(running, {"step": 1, "loss": 1.0})
    running.finished("a")
    key = Keys(namespace).job("a").points
    assert redis_client.ttl(key) > 0
    assert not tells(running, {"step": 2, "loss": 0.5}), "the job has ended"
    running.remove("a")
    assert not running.follow("a", LogBatch("", "x", "train", {}, points=[{"step": 3, "loss": 0.4}]))
    assert not redis_client.exists(key)


def test_what_is_read_of_a_log_is_kept_whole_and_once(running: Jobs) -> None:
    first = LogBatch(
        "", "run 10", "train", {"records": 1}, ["a line", "half \ud83d a pair"], [{"step": 1, "loss": 2.0}]
    )
    assert running.follow("a", first)
    assert not running.follow("a", first), "another had read it"
    assert running.follow("a", LogBatch("run 10", "run 20", "train", {"records": 2}, ["next"]))
    assert [line for _, _, line in running.tail("a")] == ["a line", "half ? a pair", "next"]
    assert running.points("a") == [{"step": 1, "loss": 2.0}] and running.units("a") == {"train": {"records": 2}}
    assert running.get("a").cursor == "run 20"
    running.finished("a")
    assert not running.follow("a", LogBatch("run 20", "run 30", "train", {}, ["too late"]))
    assert not running.follow("b", first), "there is no such job"


def test_where_a_job_runs_is_believed_of_its_own_writer_only(redis_client: redis.Redis, namespace: str) -> None:
    ours, strangers = (Jobs(redis_client, Keys(namespace), key) for key in (b"our key", b""))
    for jid in ("a", "b"):
        ours.submit(jid, "train", jid, SPEC)
        ours.attach(jid, {"name": f"run-{jid}"})
        assert ours.attached(ours.get(jid)) == {"name": f"run-{jid}"}
    redis_client.hset(Keys(namespace).job("b").job, mapping=_attached_fields(redis_client, Keys(namespace), "a"))
    assert ours.attached(ours.get("b")) == {}, "another job's"
    redis_client.hset(Keys(namespace).job("a").job, "remote", '{"name":"run-x"}')
    assert ours.attached(ours.get("a")) == {}
    strangers.attach("a", {"name": "run-a"})
    assert ours.get("a").remote and ours.attached(ours.get("a")) == strangers.attached(ours.get("a")) == {}


def _attached_fields(redis_client: redis.Redis, keys: Keys, jid: str) -> dict[bytes, bytes]:
    found = redis_client.hgetall(keys.job(jid).job)
    return {name: value for name, value in found.items() if name.startswith(b"remote")}
