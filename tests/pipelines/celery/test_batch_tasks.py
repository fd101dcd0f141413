"""Batches from the file to the files, by real processes."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from pipelines.celery.batch_tasks import MAX_WINDOW
from services.jobs.batches import WINDOW_S
from tests.end_to_end.system import wait_until
from tests.pipelines.celery.batch_processes import (
    BatchSystem,
    as_file,
    chat_line,
    chat_lines,
    running_batches,
    text_of,
)


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BatchSystem]:
    """Models: `echo` (fast), `slow` (20 tokens a second, one at a time)."""
    with running_batches(tmp_path_factory.mktemp("batches")) as system:
        system.pipelines()
        system.echo_worker("--model", "echo", "--rate", "50", "--chunk", "1000", "--slots", "64")
        system.echo_worker("--model", "slow", "--rate", "20", "--chunk", "1", "--slots", "1")
        yield system


def test_every_line_is_answered_in_the_order_of_the_file(system: BatchSystem) -> None:
    before = system.num_queued("echo")
    job = system.ended(system.submit(as_file(chat_lines(3 * MAX_WINDOW))))
    assert job.state == "finished", job.error
    output = system.output(job)
    assert [each["custom_id"] for each in output] == [f"q{index}" for index in range(3 * MAX_WINDOW)]
    assert all(text_of(each).startswith(each["custom_id"][1:]) for each in output)
    first = output[0]
    assert first["error"] is None and first["response"]["status_code"] == 200 and first["response"]["request_id"]
    assert first["response"]["body"]["object"] == "chat.completion" and first["id"].startswith("batch_req_")
    assert len({each["id"] for each in output}) == len(output)
    progress = system.progress(job)
    assert (progress.of, progress.answered, progress.failed, progress.error_file) == (
        3 * MAX_WINDOW,
        len(output),
        0,
        "",
    )
    assert len(system.asked(job)) == len(output) == system.num_queued("echo") - before


def test_texts_and_responses_and_many_choices_are_answered_too(system: BatchSystem) -> None:
    text = {
        "custom_id": "t",
        "method": "POST",
        "url": "/v1/completions",
        "body": {"model": "echo", "prompt": ["a", "bc"]},
    }
    job = system.ended(system.submit(as_file([text]), "/v1/completions"))
    assert [each["text"] for each in system.output(job)[0]["response"]["body"]["choices"]] == ["a", "bc"]
    body = {"model": "echo", "input": "hello", "instructions": "short", "metadata": {"a": "b"}}
    asked = {"custom_id": "r", "method": "POST", "url": "/v1/responses", "body": body}
    job = system.ended(system.submit(as_file([asked]), "/v1/responses"))
    found = system.output(job)[0]["response"]["body"]
    assert (found["object"], found["status"], found["metadata"]) == ("response", "completed", {"a": "b"})
    assert found["output"][0]["content"][0]["text"] == "hello"
    job = system.ended(system.submit(as_file([chat_line("n", "hi", n=3)])))
    assert [each["message"]["content"] for each in system.output(job)[0]["response"]["body"]["choices"]] == ["hi"] * 3


def test_a_wrong_line_goes_to_the_file_of_errors(system: BatchSystem) -> None:
    lines: list[dict[str, Any]] = [
        chat_line("good", "hi"),
        chat_line("hot", "hi", temperature=99),
        chat_line("nobody", "hi", model="no-such-model"),
        chat_line("streams", "hi", stream=True),
        {"custom_id": "empty", "method": "POST", "url": "/v1/chat/completions"},
        chat_line("last", "there"),
    ]
    job = system.ended(system.submit(as_file(lines)))
    assert job.state == "finished" and [each["custom_id"] for each in system.output(job)] == ["good", "last"]
    errors = {each["custom_id"]: each["response"] for each in system.errors(job)}
    assert list(errors) == ["hot", "nobody", "streams", "empty"]
    assert (errors["hot"]["status_code"], errors["hot"]["body"]["error"]["param"]) == (400, "temperature")
    assert errors["nobody"]["status_code"] == 404 and errors["nobody"]["body"]["error"]["code"] == "model_not_found"
    assert errors["streams"]["body"]["error"]["param"] == "stream"
    progress = system.progress(job)
    assert (progress.of, progress.answered, progress.failed) == (6, 2, 4)


@pytest.mark.parametrize("lines", [chat_lines(2), [*chat_lines(1), *chat_lines(1)]])
def test_the_folder_of_a_batch_that_has_ended_keeps_no_data(system: BatchSystem, lines: list[dict[str, Any]]) -> None:
    """Beside the user's files it would hold a second copy for ever, which no limit counts."""
    job = system.ended(system.submit(as_file(lines)))
    assert {path.name for path in Path(job.spec["out"]).iterdir()} <= {"lock", "progress.json"}
    assert len(system.output(job)) == (2 if job.state == "finished" else 0)


@pytest.mark.parametrize(
    ("content", "code", "line"),
    [
        (as_file([chat_line("a", "x"), chat_line("a", "y")]), "duplicate_custom_id", 2),
        (as_file([chat_line("a", "x")]) + b"{not json\n", "invalid_json_line", 2),
        (as_file([{**chat_line("a", "x"), "custom_id": 7}]), "invalid_custom_id", 1),
        (as_file([{**chat_line("a", "x"), "url": "/v1/embeddings"}]), "mismatched_url", 1),
        (as_file([{**chat_line("a", "x"), "method": "GET"}]), "invalid_method", 1),
        (b"\n\n", "empty_file", None),
        (b"".join(json.dumps({"custom_id": str(i)}).encode() + b"\n" for i in range(21)), "invalid_method", 1),
    ],
)
def test_a_wrong_file_fails_the_batch_and_says_where(
    system: BatchSystem, content: bytes, code: str, line: int | None
) -> None:
    job = system.ended(system.submit(content))
    assert job.state == "failed"
    first = system.progress(job).errors[0]
    assert (first["code"], first["line"]) == (code, line) and first["message"]
    assert not system.asked(job)


def test_a_cancel_ends_it_with_what_was_answered(system: BatchSystem) -> None:
    lines = [chat_line(f"q{index}", "12345678901234567890", model="slow") for index in range(200)]
    job = system.submit(as_file(lines))
    wait_until(lambda: system.progress(job).answered, "the first answer", 30)
    system.jobs.cancel(job.id)
    job = system.ended(job)
    assert job.state == "cancelled"
    progress, output = system.progress(job), system.output(job)
    assert 0 < len(output) == progress.answered < 200
    queue = system.redis.xlen(system.keys.requests("slow"))
    assert queue <= 1, "what waited was taken out of the queue"


def test_a_users_own_questions_have_room_beside_a_batch(system: BatchSystem) -> None:
    lines = [chat_line(f"q{index}", "1234567890", model="slow") for index in range(100)]
    job = system.submit(as_file(lines))
    wait_until(lambda: system.redis.xlen(system.keys.requests("slow")), "the first question", 30)
    wait_until(lambda: system.progress(job).answered, "the first answer", 30)
    assert system.redis.xlen(system.keys.requests("slow")) <= 32
    system.jobs.cancel(job.id)
    system.ended(job)


def test_after_24_hours_it_ends_and_tells_of_each_line_without_an_answer(system: BatchSystem) -> None:
    lines = [chat_line(f"q{index}", "12345678901234567890", model="slow") for index in range(100)]
    job = system.submit(as_file(lines))
    wait_until(lambda: system.progress(job).answered, "the first answer", 30)
    system.redis.hset(system.keys.job(job.id).job, "created_s", job.created_s - WINDOW_S)
    job = system.ended(job)
    progress, output, errors = system.progress(job), system.output(job), system.errors(job)
    assert job.state == "finished" and progress.expired
    assert 0 < len(output) == progress.answered and len(errors) == progress.failed
    assert {each["error"]["code"] for each in errors} == {"batch_expired"}
    assert sorted(each["custom_id"] for each in [*output, *errors]) == sorted(each["custom_id"] for each in lines)


def test_a_line_that_waited_too_long_in_the_queue_is_asked_again(tmp_path: Path) -> None:
    with running_batches(tmp_path, queue_deadline_s=2) as system:
        system.pipelines()
        worker = system.echo_worker("--model", "echo", "--rate", "50", "--chunk", "1000", "--slots", "8")
        system.kill(worker)
        job = system.submit(as_file(chat_lines(5)))
        wait_until(lambda: any(rid.endswith(".1-0") for rid in system.asked(job)), "the second attempt", 60)
        system.echo_worker("--model", "echo", "--rate", "50", "--chunk", "1000", "--slots", "8")
        job = system.ended(job)
        assert [each["custom_id"] for each in system.output(job)] == [f"q{index}" for index in range(5)]
        assert system.errors(job) == []
