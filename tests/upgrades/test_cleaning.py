"""Cleanings of the older build: one that is finished, one of which some shards were done."""

import json
import os
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.end_to_end.system import System, wait_until
from tests.upgrades.conftest import Command
from tests.upgrades.old_build import OldBuild

FILES = ("data.jsonl", "validation.jsonl", "rejects.jsonl", "report.json")
RUN = ".work/run.json"


@pytest.fixture(scope="module")
def undisturbed(old: OldBuild, chatserver: Command) -> Path:
    """What the present build makes of the same input alone."""
    clean(old, chatserver, old.folder / "undisturbed")
    return old.folder / "undisturbed"


@pytest.fixture(scope="module")
def same_output(old: OldBuild, undisturbed: Path) -> bool:
    """Whether the present build gives the output that the older one gave."""
    return bool(run_of(undisturbed)["version"] == run_of(old.folder / "half")["version"])


@pytest.fixture(scope="module")
def half(old: OldBuild, same_output: bool) -> Path:
    """The half-done run, if it can go on."""
    if not same_output:
        pytest.skip("a step gives other output since: a half-done run of the older build is refused")
    return old.folder / "half"


def clean(old: OldBuild, chatserver: Command, out: Path, code: int = 0) -> str:
    words = ["--in", old.folder / "words.json", "--out", out, "--processes", "1"]
    return chatserver("clean", "run", old.folder / "shards.yaml", *words, code=code)


def run_of(out: Path) -> dict[str, Any]:
    """Which input, recipe and version a folder belongs to."""
    return dict(json.loads((out / RUN).read_bytes()))


def output(out: Path) -> dict[str, bytes]:
    return {name: (out / name).read_bytes() for name in FILES}


def contents(out: Path) -> dict[Path, bytes]:
    return {path: path.read_bytes() for path in out.rglob("*") if path.is_file()}


def test_a_half_done_run_of_another_version_is_refused_and_left_as_it_is(old: OldBuild, chatserver: Command) -> None:
    """Its steps gave other output: continued, it would be half of each."""
    copy = shutil.copytree(old.folder / "half", old.folder / "of-another-version")
    (copy / RUN).write_text(json.dumps({**run_of(copy), "version": 0}))
    before = contents(copy)
    said = " ".join(clean(old, chatserver, copy, code=2).split())
    assert "holds a run with another version; choose another folder, or remove it" in said
    assert contents(copy) == before


def test_the_command_continues_a_half_done_cleaning_to_the_bytes_of_an_undisturbed_one(
    old: OldBuild, half: Path, undisturbed: Path, chatserver: Command
) -> None:
    copy = shutil.copytree(half, old.folder / "continued")
    clean(old, chatserver, copy)
    assert output(copy) == output(undisturbed)


def test_a_finished_cleaning_is_shown_and_downloaded(system: System, old: OldBuild) -> None:
    url, jid = system.web(), old.job("page")
    folder = old.state / "jobs" / jid
    (listed,) = [job for job in requests.get(f"{url}/api/jobs", timeout=10).json()["jobs"] if job["id"] == jid]
    assert (listed["kind"], listed["name"], listed["state"]) == ("clean", "Sums", "finished")
    shown = requests.get(f"{url}/api/jobs/{jid}", timeout=10).json()
    assert [step["records_in"] for step in shown["progress"]["steps"]] == [40] * 5
    assert shown["spec"]["labels"] == ["sums.json"] and shown["removes_files"]
    assert any("finished: 40 records read" in line["line"] for line in shown["log"])
    for kind, name in (("data", "data.jsonl"), ("report", "report.html"), ("report.json", "report.json")):
        answer = requests.get(f"{url}/api/jobs/{jid}/files/{kind}", timeout=10)
        assert answer.content == (folder / name).read_bytes()


def test_a_finished_cleaning_is_not_done_again(
    system: System, old: OldBuild, chatserver: Command, same_output: bool
) -> None:
    out = old.state / "jobs" / old.job("page")
    ((source, _, time_ns),) = run_of(out)["inputs"]
    os.utime(source, ns=(time_ns, time_ns))  # an archive keeps no nanoseconds, a run does
    spec = json.loads(system.redis.hget(f"chatserver:{{{old.job('page')}}}:job", "spec"))
    (old.folder / "page.yaml").write_text(spec["recipe"])
    before = (out / "data.jsonl").stat().st_mtime_ns
    words = ["--in", source, "--out", out, "--processes", "1"]
    said = chatserver("clean", "run", old.folder / "page.yaml", *words, code=0 if same_output else 2)
    assert same_output or "holds a run with another version" in " ".join(said.split())
    assert (out / "data.jsonl").stat().st_mtime_ns == before


def test_a_finished_cleaning_is_inspected_counted_and_compared(
    old: OldBuild, undisturbed: Path, chatserver: Command
) -> None:
    folder = old.state / "jobs" / old.job("page")
    assert "What is 7 plus 7?" in chatserver("clean", "inspect", folder)
    assert json.loads(chatserver("clean", "stats", "--json", folder))
    assert json.loads(chatserver("clean", "diff", "--json", folder, undisturbed))
    assert "deduplicate" in chatserver("jobs", "show", old.job("page"))


def test_celery_refuses_what_an_older_build_had_sent_of_a_cleaning_with_other_output(
    system: System, old: OldBuild, same_output: bool
) -> None:
    """Its tasks met files of another form: each failed with a traceback, three times."""
    if same_output:
        pytest.skip("it goes on")
    system.start("pipelines", "worker")
    job = f"chatserver:{{{old.job('half')}}}:job"
    wait_until(lambda: system.redis.hget(job, "state") == b"failed", "the end of the cleaning", 60)
    assert b"holds a run with another version" in system.redis.hget(job, "error")
    assert "Traceback" not in (system.folder / f"process-{len(system.processes) - 1}.log").read_text()


def test_celery_continues_a_half_done_cleaning_from_what_the_older_build_had_sent(
    system: System, old: OldBuild, half: Path, undisturbed: Path, chatserver: Command
) -> None:
    """No beat runs: the messages of the older build are all that drives it. No shard is done twice."""
    jid = old.job("half")
    assert system.redis.llen("chatserver.celery.units") > 0
    system.start("pipelines", "worker")
    job = f"chatserver:{{{jid}}}:job"
    wait_until(lambda: system.redis.hget(job, "state") == b"finished", "the end of the cleaning", 60)
    assert output(half) == output(undisturbed)
    log = chatserver("jobs", "logs", jid)
    times = Counter(line.rpartition("shard-")[2].partition(":")[0] for line in log.splitlines() if "records in" in line)
    assert len(times) > 5 and max(times.values()) == 1, times
    wait_until(lambda: not system.redis.llen("chatserver.celery.sweeps"), "the end of the other messages")
    log = (system.folder / f"process-{len(system.processes) - 1}.log").read_text()
    assert "ready." in log
    assert "unregistered" not in log and "Traceback" not in log
