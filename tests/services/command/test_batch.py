"""`chatserver batch` as a person uses it."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from services.places import ROOT
from tests.pipelines.celery.batch_processes import BatchSystem, as_file, chat_lines, running_batches


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BatchSystem]:
    with running_batches(tmp_path_factory.mktemp("command")) as system:
        system.pipelines()
        system.echo_worker("--model", "echo", "--rate", "50", "--chunk", "1000", "--slots", "64")
        yield system


def batch(system: BatchSystem, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "services.command", "batch", *arguments]
    options = {"cwd": ROOT, "env": system.environment, "capture_output": True, "text": True, "timeout": 120}
    return subprocess.run(command, check=False, **options)  # type: ignore[call-overload,no-any-return]


def test_a_file_is_answered_while_one_waits(system: BatchSystem, tmp_path: Path) -> None:
    questions, answers = tmp_path / "questions.jsonl", tmp_path / "answers.jsonl"
    questions.write_bytes(as_file(chat_lines(10)))
    done = batch(system, "submit", str(questions), "--wait", "--output", str(answers))
    assert done.returncode == 0, done.stdout + done.stderr
    assert "done: 10 of 10 lines answered" in done.stdout and len(answers.read_bytes().splitlines()) == 10
    batch_id = done.stdout.split("submitted as ")[1].split(";")[0]
    shown = batch(system, "status", batch_id).stdout
    assert f"{batch_id}: finished; 10 of 10 lines answered" in shown and "answers: " in shown
    assert "finished" in batch(system, "cancel", batch_id).stdout, "one that has ended stays as it is"


def test_a_wrong_file_says_the_line(system: BatchSystem, tmp_path: Path) -> None:
    questions = tmp_path / "questions.jsonl"
    questions.write_bytes(b"not json\n")
    done = batch(system, "submit", str(questions), "--wait")
    assert done.returncode == 1 and "line 1: the line is not JSON" in done.stderr


def test_an_unknown_id_and_a_missing_file_are_told(system: BatchSystem, tmp_path: Path) -> None:
    assert "there is no job" in batch(system, "status", "batch_none").stderr
    assert "is not a file on this machine" in batch(system, "submit", str(tmp_path / "none")).stderr
