"""A whole run: the same bytes however it was cut, killed, repeated and spread; and every record accounted for."""

import json
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipelines.cleaning import local
from pipelines.cleaning.cleaning import Cleaning, Progress
from pipelines.cleaning.units import Unit
from services.errors import ConfigurationError
from services.jobs.recipe import Recipe, parse_recipe
from services.places import ROOT

RECIPE = """
name: small
steps:
  - roles: {same_role: merge, min_chars: 4}
  - repair_unicode
  - blocked_phrases: {phrases: [forbidden thing]}
  - deduplicate: {near: true}
  - quality
  - sample: {fraction: 0.9}
  - split_validation: {fraction: 0.2}
shard_mib: %s
"""
FILES = ("data.jsonl", "validation.jsonl", "rejects.jsonl", "report.json", "report.html")


def recipe(shard_mib: float = 0.01) -> Recipe:
    return parse_recipe(RECIPE % shard_mib)


def records(number: int) -> list[dict[str, Any]]:
    """Some of everything: kept, duplicate, too short, wrong roles, blocked, broken."""
    made: list[dict[str, Any]] = []
    for index in range(number):
        said = [
            {"from": "human", "value": f"Question {index} about topic {index * 7919 % 1000}?"},
            {"from": "gpt", "value": f"The answer to {index} is that {index * 31 % 97} things matter, and {index}."},
        ]
        if index % 10 == 3:
            said.reverse()
        if index % 10 == 5:
            said[1]["value"] = "It is a Forbidden  thing to say."
        if index % 10 == 7:
            said = said[:1]
        if index % 10 == 9 and index > 10:
            said = made[index - 4]["conversations"]
        made.append({"id": f"c{index}", "conversations": said})
    return made


@pytest.fixture
def source(tmp_path: Path) -> str:
    path = tmp_path / "in.json"
    path.write_text(json.dumps(records(200)))
    return str(path)


def output(out: Path) -> dict[str, bytes]:
    return {name: (out / name).read_bytes() for name in FILES}


def silent(unit: Unit, progress: Progress) -> None:
    pass


def run(out: Path, source: str, processes: int = 1) -> dict[str, bytes]:
    local.run(Cleaning(out, recipe(), [source]), processes, silent)
    return output(out)


def test_several_processes_write_the_same_bytes_as_one(tmp_path: Path, source: str) -> None:
    one = run(tmp_path / "one", source)
    assert len(list((tmp_path / "one").iterdir())) == len(FILES) + 1  # and .work
    assert run(tmp_path / "many", source, processes=2) == one


def test_a_run_that_is_done_is_not_done_again(tmp_path: Path, source: str) -> None:
    first = run(tmp_path / "out", source)
    times = {name: (tmp_path / "out" / name).stat().st_mtime_ns for name in FILES}
    assert run(tmp_path / "out", source) == first
    assert times == {name: (tmp_path / "out" / name).stat().st_mtime_ns for name in FILES}


def test_a_run_stopped_after_any_unit_or_within_it_goes_on_with_the_same_bytes(tmp_path: Path, source: str) -> None:
    whole = run(tmp_path / "whole", source)
    cleaning = Cleaning(tmp_path / "cut", recipe(), [source])
    cleaning.prepare()
    num_stops = 0

    def stop(progress: Progress) -> None:
        raise InterruptedError

    while units := Cleaning(tmp_path / "cut", recipe(), [source]).todo():
        for unit in units:
            again = Cleaning(tmp_path / "cut", recipe(), [source])  # as another process sees it
            try:
                again.do(unit, stop)
            except InterruptedError:
                num_stops += 1
                assert not again.done(unit)
                again.do(unit)
            assert again.done(unit) or unit.kind == "finish"
    assert num_stops > 2
    assert output(tmp_path / "cut") == whole


def test_a_killed_process_loses_only_the_unit_that_it_did(tmp_path: Path, source: str) -> None:
    whole = run(tmp_path / "whole", source)
    program = f"""
import os, signal
from pathlib import Path
from tests.pipelines.cleaning.test_cleaning import recipe
from pipelines.cleaning import local
from pipelines.cleaning.cleaning import Cleaning
num = 0
def tell(unit, progress):
    global num
    num += unit.kind == "shard"
    if num == 4:
        os.kill(os.getpid(), signal.SIGKILL)
local.run(Cleaning(Path({str(tmp_path / "killed")!r}), recipe(), [{source!r}]), 1, tell)
"""
    ended = subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=False)
    assert ended.returncode == -signal.SIGKILL
    done: list[str] = []
    cleaning = Cleaning(tmp_path / "killed", recipe(), [source])
    before = {path.name for path in cleaning.folder.work.iterdir()}
    assert len({name for name in before if name.startswith("shard-0")}) >= 3
    local.run(cleaning, 1, lambda unit, progress: done.append(unit.name))
    assert not before & set(done), "what was done is not done again"
    assert output(tmp_path / "killed") == whole


def test_another_process_in_the_folder_is_told(tmp_path: Path, source: str) -> None:
    cleaning = Cleaning(tmp_path / "out", recipe(), [source])
    cleaning.prepare()
    with cleaning.lock(Unit("read")) as ours:
        assert ours
        with pytest.raises(ConfigurationError, match="another process"):
            local.run(Cleaning(tmp_path / "out", recipe(), [source]), 1, silent)


def test_a_folder_of_another_recipe_or_input_is_refused(tmp_path: Path, source: str) -> None:
    run(tmp_path / "out", source)
    with pytest.raises(ConfigurationError, match="another recipe"):
        Cleaning(tmp_path / "out", recipe(1.0), [source]).prepare()
    Path(source).write_text("[]")
    with pytest.raises(ConfigurationError, match="other inputs"):
        Cleaning(tmp_path / "out", recipe(), [source]).prepare()
    with pytest.raises(ConfigurationError, match="no input"):
        Cleaning(tmp_path / "none", recipe(), []).prepare()


def test_an_empty_input_gives_an_empty_dataset(tmp_path: Path) -> None:
    (tmp_path / "in.jsonl").write_text("")
    assert run(tmp_path / "out", str(tmp_path / "in.jsonl"))["data.jsonl"] == b""


values = st.one_of(st.text(max_size=12), st.sampled_from(["yes", "the same answer again", "forbidden thing", " "]))
turns = st.fixed_dictionaries(
    {"from": st.sampled_from(["human", "gpt", "system", "user", "assistant", "tool"]), "value": values | st.none()}
)
conversations = st.fixed_dictionaries(
    {"id": st.sampled_from(["a", "b", "c", "d"]) | st.integers(0, 3), "conversations": st.lists(turns, max_size=6)}
)
anything = st.lists(conversations | st.sampled_from([{}, [], 3, "x", None, {"conversations": "no"}]), max_size=20)


@settings(max_examples=40, deadline=None)
@given(anything)
def test_every_record_is_in_the_output_or_in_the_rejects_with_a_reason(
    tmp_path_factory: pytest.TempPathFactory, given_records: list[Any]
) -> None:
    folder = tmp_path_factory.mktemp("run")
    source = folder / "in.json"
    source.write_text(json.dumps(given_records))
    run(folder / "out", str(source))
    written = [
        json.loads(line) for name in ("data", "validation") for line in (folder / "out" / f"{name}.jsonl").open()
    ]
    rejects = [json.loads(line) for line in (folder / "out" / "rejects.jsonl").open()]
    whole = [reject for reject in rejects if "turns" not in reject]
    assert all(reject["step"] and reject["reason"] for reject in rejects)
    lines = [tuple(one["source"].values()) for one in written]
    lines += [tuple(reject["source"] if "source" in reject else reject["record"]["source"]) for reject in whole]
    assert len(written) + len(whole) == len(given_records)
    assert len({one["id"] for one in written}) == len(written)
    sums = json.loads((folder / "out" / "report.json").read_bytes())["sums"]
    assert sums["records_read"] == len(given_records) == sums["records_written"] + sums["records_rejected"]


def test_an_upload_gives_the_same_bytes_as_the_file_itself(
    tmp_path: Path, source: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The records of an upload named a path on the server as their source."""
    upload = shutil.copy2(source, tmp_path / "0123456789abcdef.json")
    uploaded = Cleaning(tmp_path / "uploaded", recipe(), [str(upload)], [Path(source).name])
    local.run(uploaded, 1, silent)
    monkeypatch.chdir(Path(source).parent)
    assert output(tmp_path / "uploaded") == run(tmp_path / "from-path", Path(source).name)


def test_two_uploads_of_one_name_are_told_apart(tmp_path: Path, source: str) -> None:
    upload = shutil.copy2(source, tmp_path / "copy.json")
    cleaning = Cleaning(tmp_path / "out", recipe(), [source, str(upload)], ["in.json", "in.json"])
    assert cleaning.names == ("in.json", "in.json (2)")
    assert Cleaning(tmp_path / "out", recipe(), [source]).names == (source,)
