"""`/v1/batches` of a real web process, with the pipelines that answer them: as a client of OpenAI uses them."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.end_to_end.system import wait_until
from tests.pipelines.celery.batch_processes import CHAT, BatchSystem, as_file, chat_line, chat_lines, running_batches
from tests.webapp.api.client import error_of

PATH = "/v1/batches"
KEY = {"Authorization": "Bearer mine"}
OTHER = {"Authorization": "Bearer theirs"}


@pytest.fixture(scope="module")
def system(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BatchSystem]:
    with running_batches(tmp_path_factory.mktemp("api")) as system:
        system.pipelines()
        system.echo_worker("--model", "echo", "--rate", "50", "--chunk", "1000", "--slots", "64")
        system.echo_worker("--model", "slow", "--rate", "20", "--chunk", "1", "--slots", "1")
        yield system


@pytest.fixture(scope="module")
def url(system: BatchSystem) -> str:
    return system.web()


def upload(url: str, content: bytes, purpose: str = "batch") -> str:
    form: Any = {"purpose": (None, purpose), "file": ("in.jsonl", content)}
    return str(requests.post(f"{url}/v1/files", files=form, headers=KEY, timeout=30).json()["id"])


def create(url: str, file_id: str, **fields: Any) -> requests.Response:
    body = {"input_file_id": file_id, "endpoint": CHAT, "completion_window": "24h", **fields}
    return requests.post(url + PATH, json=body, headers=KEY, timeout=30)


def get(url: str, rest: str, headers: dict[str, str] = KEY, **query: object) -> requests.Response:
    return requests.get(f"{url}{PATH}{rest}", headers=headers, params=query, timeout=30)  # type: ignore[arg-type]


def ended(url: str, batch_id: str) -> Any:
    over = ("completed", "failed", "expired", "cancelled")
    return wait_until(lambda: (body := get(url, f"/{batch_id}").json())["status"] in over and body, "the end", 60)


def content(url: str, file_id: str) -> list[Any]:
    response = requests.get(f"{url}/v1/files/{file_id}/content", headers=KEY, timeout=30)
    return [json.loads(line) for line in response.content.splitlines()]


def test_a_batch_is_answered_and_has_all_fields_of_openai(url: str) -> None:
    file_id = upload(url, as_file([*chat_lines(5), chat_line("bad", "x", top_p=7)]))
    made = create(url, file_id, metadata={"run": "1"})
    assert made.status_code == 200 and made.json()["status"] == "validating"
    body = ended(url, made.json()["id"])
    assert body == {
        "id": made.json()["id"], "object": "batch", "endpoint": CHAT, "errors": None, "input_file_id": file_id,
        "completion_window": "24h", "status": "completed", "output_file_id": body["output_file_id"],
        "error_file_id": body["error_file_id"], "created_at": body["created_at"],
        "in_progress_at": body["in_progress_at"], "expires_at": body["created_at"] + 86_400,
        "finalizing_at": body["finalizing_at"], "completed_at": body["completed_at"], "failed_at": None,
        "expired_at": None, "cancelled_at": None, "cancelling_at": None,
        "request_counts": {"total": 6, "completed": 5, "failed": 1}, "metadata": {"run": "1"},
    }  # fmt: skip
    assert body["created_at"] <= body["in_progress_at"] <= body["finalizing_at"] <= body["completed_at"]
    assert [each["custom_id"] for each in content(url, body["output_file_id"])] == [f"q{n}" for n in range(5)]
    assert [each["custom_id"] for each in content(url, body["error_file_id"])] == ["bad"]
    listed = requests.get(f"{url}/v1/files", params={"purpose": "batch_output"}, headers=KEY, timeout=30).json()["data"]
    assert {body["output_file_id"], body["error_file_id"]} <= {each["id"] for each in listed}


def test_a_file_that_is_wrong_fails_with_its_errors(url: str) -> None:
    body = ended(url, create(url, upload(url, as_file([chat_line("a", "x"), chat_line("a", "y")]))).json()["id"])
    assert body["status"] == "failed" and body["failed_at"] and body["output_file_id"] is None
    assert body["errors"]["object"] == "list"
    assert (body["errors"]["data"][0]["code"], body["errors"]["data"][0]["line"]) == ("duplicate_custom_id", 2)


def test_a_batch_can_be_cancelled(url: str) -> None:
    lines = [chat_line(f"q{n}", "12345678901234567890", model="slow") for n in range(100)]
    batch_id = create(url, upload(url, as_file(lines))).json()["id"]
    wait_until(lambda: get(url, f"/{batch_id}").json()["request_counts"]["completed"], "the first answer", 60)
    assert requests.post(f"{url}{PATH}/{batch_id}/cancel", headers=KEY, timeout=30).json()["status"] == "cancelling"
    body = ended(url, batch_id)
    assert body["status"] == "cancelled" and 0 < body["request_counts"]["completed"] < 100
    assert len(content(url, body["output_file_id"])) == body["request_counts"]["completed"]


def test_what_was_ordered_with_a_file_goes_on_without_it(url: str) -> None:
    file_id = upload(url, as_file(chat_lines(3)))
    batch_id = create(url, file_id).json()["id"]
    assert requests.delete(f"{url}/v1/files/{file_id}", headers=KEY, timeout=30).json()["deleted"] is True
    assert ended(url, batch_id)["request_counts"]["completed"] == 3


def test_another_users_batch_does_not_exist(url: str) -> None:
    batch_id = create(url, upload(url, as_file(chat_lines(1)))).json()["id"]
    for refused in (
        get(url, f"/{batch_id}", OTHER),
        requests.post(f"{url}{PATH}/{batch_id}/cancel", headers=OTHER, timeout=30),
    ):
        assert refused.status_code == 404 and error_of(refused)["code"] == "not_found"
    assert get(url, "", OTHER).json()["data"] == []
    assert batch_id in [each["id"] for each in get(url, "").json()["data"]]


def test_a_list_has_pages(url: str) -> None:
    ids = [create(url, upload(url, as_file(chat_lines(1)))).json()["id"] for _ in range(3)]
    first = get(url, "", limit=2).json()
    assert [each["id"] for each in first["data"]] == ids[:0:-1] and first["has_more"] is True
    assert get(url, "", limit=1, after=first["last_id"]).json()["data"][0]["id"] == ids[0]
    assert get(url, "", after="batch_none").status_code == 400


def test_a_batch_behind_a_thousand_other_jobs_is_listed(system: BatchSystem, url: str) -> None:
    """The list looked at the newest 1,000 jobs of everybody."""
    batch_id = create(url, upload(url, as_file(chat_lines(1)))).json()["id"]
    newer = {f"newer-{number}": 4e9 for number in range(1_000)}
    system.redis.zadd(system.keys.jobs, newer)  # type: ignore[arg-type]
    try:
        assert batch_id in [each["id"] for each in get(url, "").json()["data"]]
    finally:
        system.redis.zrem(system.keys.jobs, *newer)


def test_a_user_may_have_so_many_batches_that_have_not_ended(system: BatchSystem) -> None:
    url = system.web(max_user_batches=1)
    lines = [chat_line(f"q{n}", "12345678901234567890", model="slow") for n in range(100)]
    key = {"Authorization": "Bearer bounded"}
    form: Any = {"purpose": (None, "batch"), "file": ("in.jsonl", as_file(lines))}
    file_id = requests.post(f"{url}/v1/files", files=form, headers=key, timeout=30).json()["id"]
    body = {"input_file_id": file_id, "endpoint": CHAT, "completion_window": "24h"}

    def order(name: str) -> requests.Response:
        return requests.post(url + PATH, json=body, headers={**key, "Idempotency-Key": name}, timeout=30)

    first, refused = order("first"), order("second")
    assert refused.status_code == 429 and "CHATSERVER_MAX_USER_BATCHES" in error_of(refused)["message"]
    assert order("first").json()["id"] == first.json()["id"], "a repeat is no further batch"
    requests.post(f"{url}{PATH}/{first.json()['id']}/cancel", headers=key, timeout=30)
    wait_until(lambda: order("second").status_code == 200, "room for the next", 60, 0.2)
    requests.post(f"{url}{PATH}/{order('second').json()['id']}/cancel", headers=key, timeout=30)


@pytest.mark.parametrize(
    ("fields", "field"),
    [
        ({"endpoint": "/v1/embeddings"}, "endpoint"),
        ({"completion_window": "1h"}, "completion_window"),
        ({"output_expires_after": {"anchor": "created_at", "seconds": 3600}}, "output_expires_after"),
        ({"metadata": {"a": 1}}, "metadata.a"),
    ],
)
def test_a_wrong_order_is_refused_by_its_field(url: str, fields: dict[str, Any], field: str) -> None:
    refused = create(url, upload(url, as_file(chat_lines(1))), **fields)
    assert refused.status_code == 400 and error_of(refused)["param"] == field


def test_a_file_of_another_purpose_or_nobodys_is_refused(url: str) -> None:
    refused = create(url, upload(url, as_file(chat_lines(1)), "fine-tune"))
    assert refused.status_code == 400 and error_of(refused)["param"] == "input_file_id"
    assert create(url, "file-none").status_code == 404


def test_a_repeated_order_under_a_key_is_one_batch(url: str) -> None:
    body = {"input_file_id": upload(url, as_file(chat_lines(1))), "endpoint": CHAT, "completion_window": "24h"}
    sent = [requests.post(url + PATH, json=body, headers={**KEY, "Idempotency-Key": "k"}, timeout=30) for _ in range(2)]
    assert sent[0].json()["id"] == sent[1].json()["id"]
    over = ended(url, sent[0].json()["id"])
    requests.delete(f"{url}/v1/files/{body['input_file_id']}", headers=KEY, timeout=30)
    again = requests.post(url + PATH, json=body, headers={**KEY, "Idempotency-Key": "k"}, timeout=30)
    assert again.json() == over, "one that has ended stays ended"


def test_the_job_page_shows_the_same(url: str) -> None:
    batch_id = create(url, upload(url, as_file(chat_lines(4)))).json()["id"]
    ended(url, batch_id)
    shown = requests.get(f"{url}/api/jobs/{batch_id}", timeout=30).json()
    assert (shown["job"]["kind"], shown["job"]["state"]) == ("batch", "finished")
    assert shown["progress"]["totals"] == "4 of 4 lines answered" and shown["removes_files"] is True


def test_a_body_of_an_unserved_kind_is_no_json_at_all(url: str) -> None:
    assert requests.post(url + PATH, data=b"x", headers=KEY, timeout=30).status_code == 400


def test_a_batch_of_an_older_build_is_in_its_users_list_after_a_start_of_the_web_process_alone(tmp_path: Path) -> None:
    """Older builds kept no lists of users. The pipelines list such batches too, but may start later, or never."""
    with running_batches(tmp_path) as system:
        batch_id = system.batches.submit("api", system.file(as_file(chat_lines(1)), "api"), CHAT).id
        system.redis.delete(system.keys.owned_jobs("api", "batch"))
        url = system.web()
        wait_until(lambda: [each["id"] for each in get(url, "", {}).json()["data"]] == [batch_id], "the list")
