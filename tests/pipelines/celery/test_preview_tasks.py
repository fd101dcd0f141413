"""Previews for the page: read by a process of a trainings worker, within bounds, and only for our own orders."""

import json
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from pipelines.celery.admission import Admission
from pipelines.celery.preview_tasks import PROGRAM, PreviewTasks
from services.jobs.celery_app import ask_preview
from services.jobs.previews import Preview, PreviewResult, Previews
from services.jobs.training import read_training
from services.jobs.training_jobs import Place, training_spec
from tests.end_to_end.system import wait_until
from tests.pipelines.celery.training_processes import SECRET, Trainings, running_trainings

GOOD = {"messages": [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi <b>there</b>."}]}
KEY = b"our key"


@pytest.fixture(scope="module")
def quiet(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trainings]:
    """No worker: tests call the task."""
    with running_trainings(tmp_path_factory.mktemp("quiet")) as system:
        yield system


@pytest.fixture
def previews(quiet: Trainings) -> Previews:
    return Previews(quiet.redis, quiet.keys, KEY)


def spec_of(folder: Path, records: Sequence[Any], **fields: Any) -> dict[str, Any]:
    data = folder / "data.jsonl"
    data.write_text("".join(f"{json.dumps(record)}\n" for record in records))
    config = read_training("smollm2-135m", fields)
    return training_spec(config, [str(data)], str(folder / "out"), Place())


def found(quiet: Trainings, previews: Previews, preview: Preview, **more: Any) -> PreviewResult:
    """What the task found. `more`: other bounds or another program."""
    admission = more.pop("admission", Admission())
    masked = more.pop("masked", lambda text: text)
    PreviewTasks(quiet.celery, previews, admission, masked, **more).preview(preview.id)
    ended = previews.get(preview.id)
    assert ended.state == "ended"
    return ended.result


def script(text: str) -> tuple[str, ...]:
    return (sys.executable, "-c", text)


def test_the_page_learns_what_the_command_shows(quiet: Trainings, previews: Previews, tmp_path: Path) -> None:
    spec = spec_of(tmp_path, [GOOD] * 3 + [{"label": 1}], max_refused=0.5)
    result = found(quiet, previews, previews.order(spec)[0])
    assert result.problem == ""
    text = "\n".join(result.lines)
    assert "3 conversations" in text and "1 of 4 records were refused" in text
    assert "About 3 steps of 1,024 tokens" in text
    assert [example.where for example in result.examples] == ["data.jsonl:1", "data.jsonl:2", "data.jsonl:3"]
    learnt = [text for text, is_learnt in result.examples[0].stretches if is_learnt]
    assert learnt == ["Hi <b>there</b>.<|im_end|>"]
    assert not (tmp_path / "out").exists()


def test_where_the_training_would_end_the_page_says_so_beside_the_counts(
    quiet: Trainings, previews: Previews, tmp_path: Path
) -> None:
    result = found(quiet, previews, previews.order(spec_of(tmp_path, [GOOD, {"label": 1}]))[0])
    assert "1 of 2 records (50.0%) cannot be trained on" in result.problem
    assert any("1 conversations" in line for line in result.lines) and result.examples


def test_a_model_that_is_not_there_is_a_problem_in_plain_words(
    quiet: Trainings, previews: Previews, tmp_path: Path
) -> None:
    spec = spec_of(tmp_path, [GOOD], model=str(tmp_path / "nowhere"))
    result = found(quiet, previews, previews.order(spec)[0])
    assert "nowhere" in result.problem and "Traceback" not in result.problem
    assert result.lines == () and result.examples == ()


def test_data_that_changed_since_the_order_are_not_read(quiet: Trainings, previews: Previews, tmp_path: Path) -> None:
    preview, _ = previews.order(spec_of(tmp_path, [GOOD]))
    (tmp_path / "data.jsonl").write_text("other\n")
    assert "has changed since" in found(quiet, previews, preview).problem


def test_a_strangers_order_and_a_file_elsewhere_are_not_read(
    quiet: Trainings, previews: Previews, tmp_path: Path
) -> None:
    spec = spec_of(tmp_path, [GOOD])
    started = tmp_path / "started"
    program = script(f"open({str(started)!r}, 'w')")
    theirs, _ = Previews(quiet.redis, quiet.keys, b"another").order(spec)
    assert "no signature" in found(quiet, previews, theirs, program=program).problem
    ours, _ = previews.order(spec)
    elsewhere = Admission(roots=[tmp_path / "inputs"])
    assert "is in no folder" in found(quiet, previews, ours, program=program, admission=elsewhere).problem
    assert not started.exists()


@pytest.mark.parametrize(
    ("text", "most_s", "said"),
    [
        ("import time; time.sleep(600)", 0.5, "too much time or memory"),
        ("import os; os.abort()", 60.0, "too much time or memory"),
        ("raise SystemExit('the model hf_x is locked')", 60.0, "the preview failed: the model *** is locked"),
    ],
)
def test_a_process_that_hangs_or_dies_ends_the_preview_with_the_reason(
    quiet: Trainings, previews: Previews, tmp_path: Path, text: str, most_s: float, said: str
) -> None:
    preview, _ = previews.order(spec_of(tmp_path, [GOOD]))
    masked = {"masked": lambda text: text.replace("hf_x", "***")}
    assert said in found(quiet, previews, preview, program=script(text), most_s=most_s, **masked).problem


def test_a_message_that_comes_twice_or_too_late_reads_nothing(
    quiet: Trainings, previews: Previews, tmp_path: Path
) -> None:
    preview, _ = previews.order(spec_of(tmp_path, [GOOD]))
    result = PreviewResult(("found before",))
    previews.end(preview, result)
    tasks = PreviewTasks(quiet.celery, previews, Admission(), str, program=script("raise SystemExit(1)"))
    tasks.preview(preview.id)
    tasks.preview("0" * 32)
    assert previews.get(preview.id).result == result


def test_a_trainings_worker_makes_the_preview(tmp_path: Path) -> None:
    """The whole way but the page: order, message, Celery's process, the program, its result in Redis."""
    with running_trainings(tmp_path) as system:
        system.role("trainings")
        previews = Previews(system.redis, system.keys, system.job_key)
        preview, _ = previews.order(spec_of(tmp_path, [GOOD]))
        ask_preview(system.celery, preview.id)
        wait_until(lambda: previews.get(preview.id).state == "ended", "the preview", 90)
        result = previews.get(preview.id).result
        assert result.problem == "" and len(result.examples) == 1
        assert SECRET not in str(result)
        assert PROGRAM[-1].endswith("page_preview")
